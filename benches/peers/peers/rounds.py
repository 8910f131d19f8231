"""Measures subjects in turn (ABAB…), so that all of them see the same machine."""

import contextlib
import statistics
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

from .cpu import CpuMeter
from .subjects import Subject
from .work import Work


@dataclass
class Comparison:
    """The first of the subjects is ours; ratios are its speed over the others'."""

    name: str
    work: Work
    subjects: list[Subject]
    threads: int
    busy: int = 0
    """Processes that keep a CPU busy meanwhile."""
    speeds: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """By name of the work and of the subject: tokens per second, one a round."""
    foreign: list[float] = field(default_factory=list)
    """Share of all CPUs that other programs took, one a measurement."""

    def medians(self, work: str) -> dict[str, float]:
        return {name: statistics.median(all_) for name, all_ in self.speeds[work].items()}

    def ratios(self, work: str) -> dict[str, list[float]]:
        """Ours over each peer, by round."""
        ours, *peers = self.speeds[work].values()
        names = list(self.speeds[work])[1:]
        return {
            name: [a / b for a, b in zip(ours, peer, strict=True)]
            for name, peer in zip(names, peers, strict=True)
        }


@contextlib.contextmanager
def running(subjects: list[Subject]) -> Iterator[None]:
    try:
        for subject in subjects:
            subject.start()
        yield
    finally:
        for subject in subjects:
            subject.stop()


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[None]:
    spin = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(spin) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def compare(comparison: Comparison, rounds: int) -> None:
    """Fills in the comparison's speeds."""
    subjects, work = comparison.subjects, comparison.work
    comparison.speeds = {w: {s.name: [] for s in subjects} for w in work.names()}
    with running(subjects):
        for number in range(rounds):
            for subject in subjects:
                with busy_processes(comparison.busy):
                    meter = CpuMeter(subject.pid)
                    speeds = subject.measure(work)
                    if not comparison.busy:
                        comparison.foreign.append(meter.foreign_share())
                for name, speed in speeds.items():
                    comparison.speeds[name][subject.name].append(speed)
            print(f"{comparison.name}: round {number + 1} of {rounds}", file=sys.stderr)
