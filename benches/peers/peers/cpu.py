"""Who uses the CPUs while something is measured."""

import os
import time
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def busy_seconds() -> float:
    """Of all CPUs since boot, with what a host took away from them."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS


def process_seconds(pid: int) -> float:
    """CPU time of a process, with its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


class CpuMeter:
    """From its making on, tells apart this program, a measured process and all others."""

    def __init__(self, pid: int | None = None):
        self.pids = [os.getpid()] + ([pid] if pid else [])
        self.start = self.now()

    def now(self) -> tuple[float, float, float]:
        return time.monotonic(), busy_seconds(), sum(map(process_seconds, self.pids))

    def foreign_share(self) -> float:
        seconds, busy, own = (b - a for a, b in zip(self.start, self.now(), strict=True))
        return max(0.0, (busy - own) / (seconds * os.cpu_count()))
