#!/usr/bin/env python3
"""What programs do when the machine fails them: no room, no memory, no threads, killed, files that
are no files or change meanwhile. Needs Linux and the two programs:

    ci/faults.py PATH/TO/pocketgpt PATH/TO/pocketgpt-quantize [number of kills]

As root, what root is allowed anyway is tried as the user `nobody`. Each line says what was tried
and what happened; docs/security.md has the table. Exit code 1 if anything is not as it should be.
"""

import json
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time

RUN, QUANTIZE = (str(pathlib.Path(path).resolve()) for path in sys.argv[1:3])
KILLS = int(sys.argv[3]) if len(sys.argv) > 3 else 40
NOBODY = 65534
failures = []


def told(name, ok, what):
    print(f"{'ok  ' if ok else 'FAIL'}  {name}: {what}", flush=True)
    if not ok:
        failures.append(name)


def one_line(result, code=1):
    """An error as programs give it: one line, and no panic."""
    text = result.stderr.decode(errors="replace")
    return result.returncode == code and text.startswith("error: ") and text.count("\n") == 1


def shown(result):
    text = result.stderr.decode(errors="replace").strip().replace("\n", " | ")
    return f"exit {result.returncode}: {text[:200]}"


def run(*args, before=None, nobody=False, **more):
    def prepare():
        if before:
            before()
        if nobody and os.getuid() == 0:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)

    more.setdefault("stdin", subprocess.DEVNULL)
    more.setdefault("stdout", subprocess.PIPE)
    return subprocess.run(args, stderr=subprocess.PIPE, preexec_fn=prepare, timeout=300, **more)


def limit(kind, value):
    return lambda: resource.setrlimit(kind, (value, value))


def error_case(name, *args, code=1, **more):
    result = run(*args, **more)
    told(name, one_line(result, code), shown(result))


def files(folder):
    return sorted(path.name for path in pathlib.Path(folder).iterdir())


work = pathlib.Path(tempfile.mkdtemp(prefix="pocketgpt-faults-"))
os.chmod(work, 0o755)
try:
    checkpoint, model = work / "checkpoint", work / "model.pgpt"
    for command in (
        [QUANTIZE, "synth", "--preset", "tiny", "-o", checkpoint, "--quiet"],
        [QUANTIZE, "convert", checkpoint, "-o", model, "--to", "q4", "--quiet"],
    ):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    generate = [RUN, "generate", "-n", "8", "--seed", "1", "--quiet", "once"]
    right = subprocess.run([*generate, "-m", model], check=True, stdout=subprocess.PIPE).stdout

    # What is no model.
    odd = work / "odd"
    odd.mkdir()
    (odd / "empty.pgpt").touch()
    os.mkfifo(odd / "fifo.pgpt")
    for name, path in (
        ("a file of no length", odd / "empty.pgpt"),
        ("a folder", odd),
        ("a FIFO that nobody writes to", odd / "fifo.pgpt"),
        ("a device without end", "/dev/zero"),
        ("no file", odd / "nothing.pgpt"),
    ):
        error_case(f"{name} as the model", *generate, "-m", path)
        error_case(f"{name} as the model, --no-mmap", *generate, "--no-mmap", "-m", path)
    for name, path in (("a FIFO", odd / "fifo.pgpt"), ("a device", "/dev/zero")):
        error_case(f"{name} as the checkpoint", QUANTIZE, "convert", path, "-o", odd / "out.pgpt")
    # Texts without end.
    error_case("a text to calibrate with that does not end", QUANTIZE, "convert", checkpoint, "-o", odd / "out.pgpt",
               "--to", "q4", "--calibrate", "/dev/zero")
    for command in ("generate", "interactive"):
        with open("/dev/zero", "rb") as zeros:
            error_case(f"{command} of a text that does not end", RUN, command, "--quiet", stdin=zeros)
    secret = odd / "secret.pgpt"
    shutil.copy(model, secret)
    secret.chmod(0)
    if os.getuid() == 0:
        os.chmod(RUN, 0o755)
    readable = run(RUN, "--version", nobody=True).returncode == 0 if os.getuid() == 0 else True
    if readable:
        error_case("no permission to read", *generate, "-m", secret, nobody=True)
    else:
        print("skip  no permission to read: the program's folder is closed to other users")

    # No room.
    out = work / "out"
    out.mkdir()
    convert = [QUANTIZE, "convert", checkpoint, "-o", out / "model.pgpt", "--to", "q4", "--quiet"]
    size = model.stat().st_size
    for share in (0, 0.01, 0.5, 0.999):
        result = run(*convert, before=lambda: (
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN),
            limit(resource.RLIMIT_FSIZE, int(size * share))(),
        ))
        ok = one_line(result) and files(out) == []
        told(f"room for {share:.1%} of the file (RLIMIT_FSIZE)", ok, f"{shown(result)}; left: {files(out)}")
    if os.getuid() == 0:
        disk = work / "disk"
        disk.mkdir()
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={size // 2 // 4096 * 4096}", "tmpfs", disk],
            stderr=subprocess.DEVNULL,
        ).returncode == 0
        if mounted:
            try:
                result = run(*convert[:4], disk / "model.pgpt", *convert[5:])
                ok = one_line(result) and files(disk) == []
                told("a full disk (tmpfs)", ok, f"{shown(result)}; left: {files(disk)}")
            finally:
                subprocess.run(["umount", disk], check=True)
        else:
            print("skip  a full disk: tmpfs cannot be mounted here")
    result = run(*generate, "-m", model, stdout=open("/dev/full", "wb"))
    told("standard output on a full disk", one_line(result), shown(result))

    # No memory: every limit gives a text or one line, never a crash.
    for program, command in (("generate", [*generate, "-m", model]), ("convert", convert)):
        outcomes = []
        for megabytes in (3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 30, 50, 100, 1000):
            result = run(*command, before=limit(resource.RLIMIT_AS, megabytes << 20))
            clean = result.returncode == 0 or one_line(result)
            # The loader itself may not fit, or the allocator's last word is an abort.
            loader = result.returncode in (127, 1) and b"error while loading" in result.stderr
            # Nor the program's own pages: the kernel gives up while it starts it.
            pages = pathlib.Path(command[0]).stat().st_size + (4 << 20)
            loader |= result.returncode in (-signal.SIGSEGV, -signal.SIGKILL) and megabytes << 20 < pages
            abort = result.returncode == -signal.SIGABRT and b"memory allocation of" in result.stderr
            outcomes.append((megabytes, result, clean or loader, abort))
        bad = [(m, shown(r)) for m, r, clean, abort in outcomes if not clean and not abort]
        aborts = [m for m, _, _, abort in outcomes if abort]
        works = [m for m, r, _, _ in outcomes if r.returncode == 0]
        told(f"{program} with little memory (RLIMIT_AS)", not bad and works != [],
             f"works from {min(works, default=None)} MB on; aborts at {aborts}; {bad or 'else one line'}")

    # No threads.
    if readable and os.getuid() == 0:
        error_case("no thread may be started (RLIMIT_NPROC)", *generate, "--threads", "4", "-m", model,
                   before=limit(resource.RLIMIT_NPROC, 0), nobody=True)
        result = run(*generate, "--threads", "1", "-m", model,
                     before=limit(resource.RLIMIT_NPROC, 0), nobody=True)
        told("one thread where none may be started", result.stdout == right, shown(result))
        public = work / "public"
        public.mkdir(mode=0o777)
        public.chmod(0o777)
        result = run(*convert[:4], public / "model.pgpt", *convert[5:], "--threads", "4",
                     before=limit(resource.RLIMIT_NPROC, 0), nobody=True)
        told("converting with four threads where none may be started", one_line(result), shown(result))
        result = run(*convert[:4], public / "model.pgpt", *convert[5:],
                     before=limit(resource.RLIMIT_NPROC, 0), nobody=True)
        ok = one_line(result) or (result.returncode == 0 and b"panic" not in result.stderr)
        told("converting where no thread may be started", ok, shown(result))

    # Nobody reads.
    for closed, name in ((1, "standard output"), (2, "standard error"), (0, "standard input")):
        result = run(*generate, "-m", model, before=lambda: os.close(closed))
        told(f"{name} closed", result.returncode in (0, 1) and b"panic" not in result.stderr, shown(result))
    reader, writer = os.pipe()
    os.close(reader)
    result = run(*generate, "-m", model, stdout=writer)
    os.close(writer)
    told("a pipe that nobody reads", result.returncode == 0 and result.stderr == b"", shown(result))

    # A file that changes while it is used.
    def interactive(*options):
        child = subprocess.Popen(
            [RUN, "interactive", "--quiet", "-n", "8", "--seed", "1", *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        child.stdin.write(b"once\n")
        child.stdin.flush()
        # Its answer says that the model is open.
        os.read(child.stdout.fileno(), 1)
        return child

    def ends(child):
        out, err = child.communicate(b"and then\n", timeout=60)
        return subprocess.CompletedProcess([], child.returncode, out, err)

    # Where AMX is used, the standard library's handler may run out of its stack (docs/security.md).
    best_set = json.loads(run(RUN, "info", "--json").stdout)["machine"]["isa"]
    with_the_best_set = (-signal.SIGBUS, -signal.SIGSEGV) if best_set == "amx" else (-signal.SIGBUS,)

    used = work / "used.pgpt"
    for name, change, options, wanted in (
        ("replaced by renaming", lambda: os.replace(shutil.copy(checkpoint / "config.json", work / "new"), used), (), (0,)),
        ("removed", lambda: used.unlink(), (), (0,)),
        ("shortened to nothing", lambda: os.truncate(used, 0), (), with_the_best_set),
        ("shortened to nothing, --isa scalar", lambda: os.truncate(used, 0), ("--isa", "scalar"), (-signal.SIGBUS,)),
        ("shortened to nothing, --no-mmap", lambda: os.truncate(used, 0), ("--no-mmap",), (0,)),
        ("shortened to nothing, --huge-pages", lambda: os.truncate(used, 0), ("--huge-pages",), (0,)),
    ):
        shutil.copy(model, used)
        child = interactive("-m", used, *options)
        change()
        result = ends(child)
        told(f"the model is {name} while it runs", result.returncode in wanted, shown(result))
    for byte in (0, 0x80, 0xff):
        shutil.copy(model, used)
        child = interactive("-m", used)
        with open(used, "r+b") as file:
            file.write(bytes([byte]) * size)
        result = ends(child)
        # A text, an error, or a panic: no signal.
        told(f"the model is overwritten with {byte:#04x} while it runs", result.returncode in (0, 1, 101), shown(result))

    # Killed at any time: the file that was there or the new one, whole.
    old = work / "old.pgpt"
    subprocess.run([QUANTIZE, "convert", checkpoint, "-o", old, "--to", "q8", "--quiet"], check=True,
                   stdout=subprocess.DEVNULL)
    sound = {old.read_bytes(): "old", model.read_bytes(): "new"}
    target = out / "model.pgpt"
    start = time.monotonic()
    subprocess.run(convert, check=True, stdout=subprocess.DEVNULL)
    took = time.monotonic() - start
    seen, broken, chance = {"old": 0, "new": 0}, 0, random.Random(1)
    for _ in range(KILLS):
        shutil.copy(old, target)
        child = subprocess.Popen(convert, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(chance.random() * took * 1.3)
        child.kill()
        child.wait()
        which = sound.get(target.read_bytes())
        if which:
            seen[which] += 1
        else:
            broken += 1
    left = [name for name in files(out) if name != target.name]
    hidden = all(name.startswith(".model.pgpt") and name.endswith(".tmp") for name in left)
    told(f"killed {KILLS} times while converting", broken == 0 and hidden,
         f"{seen['old']} old, {seen['new']} new, {broken} broken; {len(left)} temporary files left")
    for name in left:
        (out / name).unlink()
    # Interrupted it cleans up.
    shutil.copy(old, target)
    child = subprocess.Popen(convert, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    time.sleep(took * 0.4)
    child.send_signal(signal.SIGTERM)
    child.wait()
    told("asked to end (SIGTERM) while converting", files(out) == [target.name] and target.read_bytes() in sound,
         f"exit {child.returncode}; left: {files(out)}")
finally:
    shutil.rmtree(work)

print(f"{len(failures)} failures" + "".join(f"\n  {name}" for name in failures))
sys.exit(bool(failures))
