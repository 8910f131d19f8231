"""Who uses the CPUs while something is measured, and what they are called."""

import os
import platform
import re
import time
from collections.abc import Iterable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
# The system counts in ticks, each process and CPU by itself: less than this may be an error of counting.
RESOLUTION = 3 / TICKS


def name() -> str:
    """The CPU's name as the system tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model"):
            return value.strip()
    return platform.machine()


def family() -> str:
    """Family and model, where there are such numbers: a virtual machine's name may hide them."""
    fields = dict(
        (key.strip(), value.strip())
        for key, _, value in (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    )
    if "cpu family" not in fields:
        return ""
    return f" (family {fields['cpu family']}, model {fields['model']})"


def has(feature: str) -> bool:
    """Whether the system lists it among the flags of an x86-64 CPU."""
    return re.search(rf"^flags\b.*\b{feature}\b", Path("/proc/cpuinfo").read_text(), re.M) is not None


def slug(text: str) -> str:
    """For a file's name."""
    text = re.sub(r"\((r|tm)\)", "", text.lower())
    return re.sub(r"[^a-z0-9]+", "-", text).strip("-")


def busy_seconds() -> float:
    """Of all CPUs since boot, with what a host took away from them."""
    fields = Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / TICKS


def process_seconds(pid: int) -> float:
    """CPU time of a process, with its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


class CpuMeter:
    """From its making on, tells apart this program and the processes given to it from all others."""

    def __init__(self, pids: Iterable[int | None] = ()):
        self.pids = [os.getpid(), *(pid for pid in pids if pid)]
        self.start = self.now()

    def now(self) -> tuple[float, float, float]:
        return time.monotonic(), busy_seconds(), sum(map(process_seconds, self.pids))

    def foreign_share(self) -> float:
        """What others took of all CPUs together."""
        seconds, busy, own = (b - a for a, b in zip(self.start, self.now(), strict=True))
        return max(0.0, (busy - own - RESOLUTION) / (seconds * os.cpu_count()))
