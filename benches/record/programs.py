"""Building commits of this repository and running what comes out.

Each commit is built in a git worktree and a target folder of its own, in a temporary folder, so
that neither the clone nor its build is touched.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]

# Encodings of a random model of GPT-2's 124M shape that can be measured, beside the bundled model.
ENCODINGS = ("q4", "q3", "q8", "f16", "f32")
MODELS = ("bundled", *(f"gpt2-{encoding}" for encoding in ENCODINGS))
DEFAULT_MODELS = "bundled,gpt2-q4"

# Stands for the files as they are, committed or not.
WORKING_TREE = "."


class Failed(Exception):
    """The work failed; the text says why, in one line."""


def say(text):
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


def call(command, cwd=REPOSITORY, env=None):
    """Standard output of a command that must work."""
    command = [str(part) for part in command]
    streams = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
    try:
        done = subprocess.run(command, cwd=cwd, env=env, **streams)
    except OSError as error:
        raise Failed(f"{command[0]}: {error.strerror}") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise Failed(f"{' '.join(command)}: exit code {done.returncode}: {last}")
    return done.stdout


def commit_id(name):
    """Full id of a commit, or the name of the working tree."""
    if name == WORKING_TREE:
        return WORKING_TREE
    try:
        return call(["git", "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"]).strip()
    except Failed as error:
        what = f"name one, or {WORKING_TREE} for the files as they are"
        raise Failed(f"{name}: there is no such commit; {what}") from error


def short(commit):
    """A commit as people write it."""
    return "working tree" if commit == WORKING_TREE else commit[:10]


@contextlib.contextmanager
def temporary_folder(keep=None):
    """A folder that is gone afterwards, also after Ctrl-C or a polite kill; or `keep`, which stays."""
    if keep is not None:
        keep = Path(keep).resolve()
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    folder = Path(tempfile.mkdtemp(prefix="pocketgpt-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def sources(commit, folder):
    """The files of a commit, in a worktree that is gone afterwards."""
    if commit == WORKING_TREE:
        yield REPOSITORY
        return
    tree = folder / f"tree-{commit[:10]}"
    call(["git", "worktree", "add", "--force", "--detach", tree, commit])
    try:
        yield tree
    finally:
        call(["git", "worktree", "remove", "--force", tree])


@dataclass
class Programs:
    """The programs of one commit."""

    pocketgpt: Path
    quantize: Path
    # What `pocketgpt bench` understands differs between commits.
    bench_help: str

    def bench(self, model, options):
        """One run of `pocketgpt bench`: its JSON. `model`: a file, or None for the bundled one."""
        command = [self.pocketgpt, "bench", "--json", *options]
        if model is not None:
            command += ["-m", model]
        if "--no-baseline" in self.bench_help:
            command += ["--no-baseline"]
        return json.loads(call(command))


def build(commit, folder):
    """Builds both programs of a commit; they stay in `folder`."""
    target = folder / f"target-{slug(short(commit))}"
    release = target / "release"
    packages = ("pocketgpt", "pocketgpt-quantize")
    built = all((release / package).exists() for package in packages)
    # A commit is what it was; the files as they are may have changed.
    if not built or commit == WORKING_TREE:
        environment = {**os.environ, "CARGO_TARGET_DIR": str(target)}
        with sources(commit, folder) as tree:
            # One by one, as users do: together they would be built with each other's features.
            for package in packages:
                say(f"{short(commit)}: building {package}")
                command = ["cargo", "build", "--release", "--quiet", "-p", package]
                call(command, cwd=tree, env=environment)
    bench_help = call([release / "pocketgpt", "bench", "--help"])
    return Programs(release / "pocketgpt", release / "pocketgpt-quantize", bench_help)


def make_models(names, programs, folder, commit):
    """Files of the models, by name, as a commit's programs make them; None for the bundled one."""
    checkpoint = folder / "gpt2"
    files = {}
    for name in names:
        if name == "bundled":
            files[name] = None
            continue
        if not checkpoint.exists():
            say("making a random checkpoint of GPT-2's 124M shape")
            call([programs.quantize, "synth", "--preset", "gpt2", "-o", checkpoint])
        files[name] = folder / f"{slug(short(commit))}-{name}.pgpt"
        if not files[name].exists():
            say(f"converting {name}")
            encoding = name.removeprefix("gpt2-")
            convert = [programs.quantize, "convert", checkpoint, "--to", encoding]
            # Speed does not depend on how weights are rounded; plain rounding takes seconds.
            if "--method" in call([programs.quantize, "convert", "--help"]):
                convert += ["--method", "rtn"]
            call([*convert, "-o", files[name]])
    return files


def model_names(text):
    """Reads `--models`."""
    names = text.split(",")
    unknown = [name for name in names if name not in MODELS]
    if unknown:
        raise ValueError(f"{unknown[0]}: no such model; there are {', '.join(MODELS)}")
    return names


def slug(name):
    """A name as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", (name or "unknown").lower()).strip("-")


def ended(run):
    """Runs a program's `main` and turns what ends it into an exit code."""
    try:
        return run()
    except Failed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
