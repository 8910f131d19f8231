"""Measures subjects in turn (ABAB…), so that all of them see the same machine."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from .cpu import CpuMeter
from .results import Result
from .subjects import Failed, Subject

# Idle threads of some peers spin for a while before they sleep.
SETTLE_SECONDS = 0.2


@dataclass
class Comparison:
    """The first of the subjects is ours: ratios compare it with each of the others."""

    part: str
    name: str
    subjects: list[Subject]
    unit: str = "tokens/s"
    more_is_better: bool = True
    busy: int = 0
    """Processes that keep a CPU busy meanwhile."""
    warm_up: int = 0
    """Rounds that do not count, for subjects that do not warm themselves."""
    rounds: int | None = None
    """At most so many, where figures hardly move."""


@dataclass
class Limits:
    rounds: int
    max_foreign: float

    @property
    def attempts(self) -> int:
        return 3 * self.rounds


def compare(comparison: Comparison, limits: Limits) -> Result:
    result = Result(
        part=comparison.part,
        name=comparison.name,
        unit=comparison.unit,
        more_is_better=comparison.more_is_better,
        date=datetime.now().astimezone().isoformat(timespec="seconds"),
    )
    wanted = min(limits.rounds, comparison.rounds or limits.rounds)
    with started(comparison.subjects, result) as subjects, busy_processes(comparison.busy) as busy:
        for _ in range(comparison.warm_up):
            one_round(subjects, [], result)
        for attempt in range(limits.attempts):
            figures, foreign = one_round(subjects, busy, result)
            last_chances = limits.attempts - attempt <= wanted - result.rounds
            if foreign > limits.max_foreign and not last_chances:
                result.rounds_dropped += 1
                note(f"{comparison.name}: others took {foreign:.0%} of the CPUs: once again")
                continue
            result.add(figures, foreign)
            note(f"{comparison.name}: round {result.rounds} of {wanted}")
            if result.rounds == wanted:
                break
        result.settings = {subject.name: subject.settings for subject in subjects}
    return result


def one_round(
    subjects: list[Subject], busy: list[int], result: Result
) -> tuple[dict[str, dict[str, float]], float]:
    """Figures by subject, and the largest share of the CPUs that went to something else meanwhile.

    A peer that fails is out from then on.
    """
    figures, foreign = {}, 0.0
    for subject in list(subjects):
        time.sleep(SETTLE_SECONDS)
        meter = CpuMeter([subject.pid, *busy])
        try:
            figures[subject.name] = subject.measure()
        except Failed as error:
            if subject is subjects[0]:
                raise
            subjects.remove(subject)
            subject.stop()
            note(f"left out: {error}")
            result.fail(subject.name, str(error))
            continue
        foreign = max(foreign, meter.foreign_share())
    return figures, foreign


@contextlib.contextmanager
def started(subjects: list[Subject], result: Result) -> Iterator[list[Subject]]:
    """Those that could be started. Ours must; without another peer the comparison goes on."""
    running = []
    try:
        for subject in subjects:
            try:
                subject.start()
                running.append(subject)
            except Failed as error:
                subject.stop()
                note(f"left out: {error}")
                result.fail(subject.name, str(error))
        if subjects[0] not in running:
            raise Failed(result.failed[subjects[0].name])
        yield running
    finally:
        for subject in running:
            subject.stop()


@contextlib.contextmanager
def busy_processes(count: int) -> Iterator[list[int]]:
    spin = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(spin) for _ in range(count)]
    try:
        yield [process.pid for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()


def note(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
