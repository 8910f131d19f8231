"""Installs the peers: a virtual environment for all of them, and llama.cpp built twice.

llama.cpp is built here from the sources in llama-cpp-python's sdist: the wheel is for any CPU, and
a comparison must be with the build for this one. The second build is for AVX2 and nothing newer.
Needs Python's standard library only: it runs before anything is installed.
"""

import inspect
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent.parent

NATIVE = ["-DGGML_NATIVE=ON"]
AVX2_ONLY = ["-DGGML_NATIVE=OFF", "-DGGML_AVX2=ON", "-DGGML_FMA=ON", "-DGGML_F16C=ON"]
AVX2_ONLY += ["-DGGML_AVX512=OFF", "-DGGML_AVX_VNNI=OFF"]


@dataclass(frozen=True)
class Environment:
    python: Path
    """Of the virtual environment that holds all peers."""
    llama_avx2: Path | None
    """Folder with the llama.cpp for AVX2, to go first on PYTHONPATH."""


def prepare(folder: Path, venv: Path | None, llama_avx2: Path | None, avx2: bool) -> Environment:
    """Installs what is missing. `venv` and `llama_avx2` are used as they are; without them both are in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    python = (venv or folder / "venv") / "bin" / "python"
    wanted = "".join(path.read_text() for path in sorted(HERE.glob("requirements*.txt")))
    wanted += inspect.getsource(mend)
    if venv is None:
        install(folder, python, wanted)
    elif not python.exists():
        sys.exit(f"{venv}: no virtual environment, {python} is missing")
    if not avx2:
        return Environment(python, None)
    if llama_avx2 is None:
        llama_avx2 = folder / "llama-avx2"
        if not is_done(llama_avx2, wanted):
            source = llama_source(folder, python)
            build_llama(source, python, AVX2_ONLY, "--target", str(llama_avx2), "--upgrade")
            (llama_avx2 / "done").write_text(wanted)
    return Environment(python, llama_avx2)


def is_done(folder: Path, wanted: str) -> bool:
    """Whether what is installed there is what is wanted now."""
    done = folder / "done"
    return done.exists() and done.read_text() == wanted


def install(folder: Path, python: Path, wanted: str) -> None:
    """Makes the virtual environment, or goes on where an earlier run was stopped."""
    venv = python.parent.parent
    if is_done(venv, wanted):
        return
    note(f"installing the peers into {venv}: some 4 GB, once")
    run(sys.executable, "-m", "venv", str(venv))
    pip(python, "install", "-r", str(HERE / "requirements.txt"))
    build_llama(llama_source(folder, python), python, NATIVE)
    (venv / "done").write_text(wanted)


def llama_source(folder: Path, python: Path) -> Path:
    """Unpacks the sdist, and what it is built with is installed."""
    lines = (HERE / "requirements-llama.txt").read_text().splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    package, others = lines[0], lines[1:]
    pip(python, "install", *others)
    sources = folder / "llama-source"
    archive = next(sources.glob("*.tar.gz"), None)
    if archive is None:
        options = ["--no-deps", "--no-build-isolation", "--no-binary", ":all:"]
        pip(python, "download", *options, "-d", str(sources), package)
        archive = next(sources.glob("*.tar.gz"))
    source = sources / archive.name.removesuffix(".tar.gz")
    shutil.rmtree(source, ignore_errors=True)
    with tarfile.open(archive) as files:
        files.extractall(sources, filter="data")
    mend(source)
    return source


def mend(source: Path) -> None:
    """The sdist's files are dated so that ninja configures forever, and a `.git` points nowhere.

    gcc 12's `_tile_loadconfig` claims to read eight of the 64 bytes that it reads, so the others are never
    stored: on CPUs with AMX llama.cpp ends with a segmentation fault.
    """
    for path in source.rglob("ggml-cpu/amx/mmq.cpp"):
        load, text = "_tile_loadconfig(&tc);", path.read_text()
        if load not in text:
            sys.exit(f"{path}: there is no {load} to mend any more")
        stored = f'asm volatile("" : : "r"(&tc) : "memory"); {load}'
        path.write_text(text.replace(load, stored))
    for path in list(source.rglob(".git")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in source.rglob("*"):
        os.utime(path, follow_symlinks=False)


def build_llama(source: Path, python: Path, flags: list[str], *options: str) -> None:
    note(f"building llama.cpp with {' '.join(flags)}: some minutes, once")
    tools = f"{python.parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "CMAKE_ARGS": " ".join(flags), "PATH": tools}
    options = ["--no-deps", "--no-build-isolation", "--no-cache-dir", "--force-reinstall", *options]
    run(*pip_command(python), "install", *options, str(source), env=environment)


def pip(python: Path, *args: str) -> None:
    run(*pip_command(python), *args)


def pip_command(python: Path) -> list[str]:
    return [str(python), "-m", "pip", "--disable-pip-version-check", "-q"]


def run(*command: str, env: dict[str, str] | None = None) -> None:
    """stdout is for results, so what installers print goes to stderr."""
    done = subprocess.run(command, env=env, stdout=sys.stderr)
    if done.returncode:
        sys.exit(f"failed with exit code {done.returncode}: {' '.join(command)}")


def note(text: str) -> None:
    print(text, file=sys.stderr)
