"""The one checkpoint, in every format that the subjects read.

Files are kept. Those of peers do not change; ours are converted anew when the quantizer was built anew.
"""

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from .rounds import note


class Models:
    """Files of one checkpoint, made when they are first asked for."""

    def __init__(self, folder: Path, quantize: Path, checkpoint: Path | None):
        self.quantize = quantize
        self.log = folder / "conversions.log"
        folder.mkdir(parents=True, exist_ok=True)
        if checkpoint is None:
            self.folder = folder / "gpt2-random"
            self.checkpoint = self.folder / "checkpoint"
            self.name = "random weights in the shape of GPT-2 124M (`pocketgpt-quantize synth --preset gpt2`)"
            self.kept(self.checkpoint, self.synthesize)
        else:
            self.folder = folder / f"{checkpoint.name}-{fingerprint(checkpoint)}"
            self.checkpoint = checkpoint
            self.name = f"`{checkpoint.name}`"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.vocab_size = json.loads((self.checkpoint / "config.json").read_text())["vocab_size"]

    def synthesize(self, target: Path) -> None:
        run(self.quantize, "synth", "--preset", "gpt2", "--quiet", "-o", target)

    def pgpt(self, recipe: str) -> Path:
        """An encoding, or with one for the head as well: "q4 head q4"."""
        encoding, _, head = recipe.partition(" head ")
        path = self.folder / f"{recipe.replace(' ', '-')}.pgpt"
        if not path.exists() or path.stat().st_mtime < self.quantize.stat().st_mtime:
            note(f"converting to {path.name}")
            # Speed does not depend on how weights are rounded; plain rounding takes seconds.
            options = ["--to", encoding, "--method", "rtn", "--quiet"]
            if head:
                options += ["--head", head]
            run(self.quantize, "convert", self.checkpoint, "-o", path, *options)
        return path

    def gguf(self, kind: str) -> Path:
        return self.converted("gguf", kind, self.folder / f"{kind}.gguf")

    def onnx(self, kind: str) -> Path:
        return self.converted("onnx", kind, self.folder / f"{kind}.onnx")

    def ctranslate2(self, kind: str) -> Path:
        return self.converted("ctranslate2", kind, self.folder / f"ctranslate2-{kind}")

    def converted(self, family: str, kind: str, path: Path) -> Path:
        """GGUF and ONNX are quantized from their files in f32."""

        def convert(target: Path) -> None:
            from_checkpoint = kind == "f32" or family == "ctranslate2"
            source = self.checkpoint if from_checkpoint else path.with_stem("f32")
            module = [sys.executable, "-m", "peers.convert", f"{family}:{kind}"]
            run(*module, source, target, log=self.log)

        if not path.exists() and kind != "f32" and family != "ctranslate2":
            self.converted(family, "f32", path.with_stem("f32"))
        return self.kept(path, convert)

    def kept(self, path: Path, make: Callable[[Path], None]) -> Path:
        """A file or folder that is there, or made under another name first: no half of one is ever used."""
        if not path.exists():
            note(f"making {path.parent.name}/{path.name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_name(f"unfinished-{path.name}")
            remove(unfinished)
            make(unfinished)
            unfinished.rename(path)
        return path


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def fingerprint(checkpoint: Path) -> str:
    """Changes when the checkpoint does."""
    weights = checkpoint / "model.safetensors"
    if not weights.exists():
        sys.exit(f"{weights}: missing; the checkpoint must be a folder with this one file")
    status = weights.stat()
    text = f"{weights.resolve()} {status.st_size} {status.st_mtime_ns}"
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def run(*command: object, log: Path | None = None) -> None:
    """What the program writes goes into the log, without one to stderr."""
    command = tuple(map(str, command))
    with log.open("a") if log else contextlib.nullcontext(sys.stderr) as out:
        done = subprocess.run(command, stdout=out, stderr=out)
    if done.returncode:
        where = f" (see {log})" if log else ""
        sys.exit(f"failed with exit code {done.returncode}: {' '.join(command)}{where}")
