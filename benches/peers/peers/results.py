"""What was measured: kept as JSON, so that parts can be measured at different times."""

import json
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .cpu import slug


@dataclass
class Result:
    part: str
    name: str
    unit: str
    more_is_better: bool
    date: str
    figures: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    """By name of the figure and of the subject, ours first: one a round."""
    foreign: list[float] = field(default_factory=list)
    """Share of all CPUs that other programs took, the largest of each round."""
    rounds_dropped: int = 0
    settings: dict[str, dict] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def rounds(self) -> int:
        return len(self.foreign)

    def add(self, figures: dict[str, dict[str, float]], foreign: float) -> None:
        """Those of a round, by subject."""
        for subject, values in figures.items():
            for name, value in values.items():
                self.figures.setdefault(name, {}).setdefault(subject, []).append(value)
        self.foreign.append(foreign)

    def fail(self, subject: str, reason: str) -> None:
        self.failed[subject] = reason
        for figures in self.figures.values():
            figures.pop(subject, None)

    def medians(self, name: str) -> dict[str, float]:
        return {subject: statistics.median(all_) for subject, all_ in self.figures[name].items()}

    def ratios(self, name: str) -> dict[str, list[float]]:
        """Of ours to each peer, by round: above 1, ours is the better one."""
        (_, ours), *peers = self.figures[name].items()
        return {
            peer: [a / b if self.more_is_better else b / a for a, b in zip(ours, theirs, strict=True)]
            for peer, theirs in peers
        }

    def best_peer(self, name: str) -> str | None:
        """The one that leaves us the smallest ratio."""
        ratios = self.ratios(name)
        peers = [peer for peer in ratios if not peer.startswith("pocketgpt")]
        return min(peers, key=lambda peer: statistics.median(ratios[peer]), default=None)

    def save(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{slug(self.name)}.json"
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def summarized(results: list[Result]) -> Iterator[tuple[Result, str, str]]:
    """Comparisons that others take part in; for each figure the peer that comes closest."""
    for result in results:
        if result.part in ("agreement", "memory", "others", "scaling"):
            continue
        for name in result.figures:
            if peer := result.best_peer(name):
                yield result, name, peer


def load_all(folder: Path, parts: list[str]) -> list[Result]:
    """In the order of the parts, and of their names."""
    results = [Result(**json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]
    return sorted(results, key=lambda result: parts.index(result.part))
