"""What the page says of the machine and of the programs."""

import os
import platform
import subprocess
from pathlib import Path

from . import cpu
from .options import REPOSITORY


def first_line(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.splitlines()[0]


def caches() -> str:
    """Of the first CPU, without that for instructions."""
    texts = []
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction":
            texts.append(f", L{level} {size}")
    return "".join(texts)


def memory() -> str:
    return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"


def system() -> str:
    try:
        name = platform.freedesktop_os_release()["PRETTY_NAME"]
    except OSError:
        name = platform.system()
    return f"{name}, kernel {platform.release().split('-')[0]}"


def description(built: bool) -> dict[str, str]:
    """`built`: whether our programs are those of this repository, not some given by option."""
    commit = f"commit {first_line('git', 'describe', '--always', '--dirty')}"
    return {
        "CPU": f"{cpu.name()}{cpu.family()}, {os.cpu_count()} CPUs{caches()}",
        "memory": memory(),
        "system": system(),
        "compilers": f"{first_line('cc', '--version')}; {first_line('rustc', '--version')}",
        "pocketgpt": commit if built else "built beforehand",
    }
