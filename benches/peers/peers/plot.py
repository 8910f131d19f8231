"""The plots: what every subject reached, and how we stand against the best peer."""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .results import Result, summarized

# Shades for the figures of a panel.
OURS = ("#b3242f", "#d9646c", "#eba9ad")
PEERS = ("#56637a", "#8d99ae", "#c2c9d6")
WHISKERS = {"elinewidth": 0.7, "ecolor": "#222222"}
PLOTTED = ("decode", "prefill", "avx2", "busy", "cold", "others", "scaling")

matplotlib.rcParams |= {
    "svg.fonttype": "none",
    "svg.hashsalt": "pocketgpt",
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "ytick.major.size": 0,
}


@dataclass
class Panel:
    """Figures of one comparison that share a scale."""

    result: Result
    figures: list[str]

    @property
    def subjects(self) -> list[str]:
        return list(self.result.figures[self.figures[0]])

    @property
    def bars(self) -> int:
        return len(self.subjects) * len(self.figures)


def panels(results: list[Result]) -> Iterator[Panel]:
    """Decoding and prefill differ too much for one scale."""
    for result in results:
        if result.part in PLOTTED:
            prefill = [name for name in result.figures if name.startswith("prefill")]
            others = [name for name in result.figures if name not in prefill]
            yield from (Panel(result, figures) for figures in (others, prefill) if figures)


def draw_bars(axes: Axes, panel: Panel) -> None:
    """For each subject a bar for each figure, with whiskers from the worst to the best round."""
    count = len(panel.figures)
    height = 0.8 / count
    for i, figure in enumerate(panel.figures):
        by_subject = panel.result.figures[figure]
        medians = [statistics.median(rounds) for rounds in by_subject.values()]
        below = [median - min(rounds) for median, rounds in zip(medians, by_subject.values())]
        above = [max(rounds) - median for median, rounds in zip(medians, by_subject.values())]
        places = [subject + (i - (count - 1) / 2) * height for subject in range(len(medians))]
        shades = [(OURS if name.startswith("pocketgpt") else PEERS)[i % 3] for name in by_subject]
        axes.barh(places, medians, height, color=shades, xerr=[below, above], error_kw=WHISKERS)
        for place, median, whisker in zip(places, medians, above):
            text = f" {figure}: {median:.0f}" if count > 1 else f" {median:.0f}"
            axes.text(median + whisker, place, text, va="center", fontsize=5.5)
    axes.set_yticks(range(len(panel.subjects)), panel.subjects)
    axes.invert_yaxis()
    axes.margins(x=0.3 if count > 1 else 0.12, y=0.02)
    axes.set_xlabel(panel.result.unit)


def draw_scaling(axes: Axes, panel: Panel) -> None:
    """Time against bytes, with the line through nothing and the largest model."""
    settings = panel.result.settings
    sizes = [settings[subject]["weight_bytes_per_token"] / 1e6 for subject in panel.subjects]
    times = list(panel.result.medians(panel.figures[0]).values())
    axes.plot([0, sizes[-1]], [0, times[-1]], color=PEERS[1], linewidth=1, linestyle="--")
    axes.plot(sizes, times, color=OURS[0], marker="o", linestyle="none")
    for size, time, subject in zip(sizes, times, panel.subjects):
        axes.annotate(subject.split()[-1], (size, time), (4, -8), textcoords="offset points")
    axes.set_xlabel("weights read for a token, MB")
    axes.set_ylabel("ms a token")


def draw_speeds(results: list[Result]) -> Figure | None:
    """A panel for each comparison, two in a row; None if there is nothing to draw."""
    wanted = list(panels(results))
    if not wanted:
        return None
    pairs = [wanted[i : i + 2] for i in range(0, len(wanted), 2)]
    heights = [max(0.13 * max(panel.bars, 6) + 0.7 for panel in pair) for pair in pairs]
    figure, grid = plt.subplots(
        len(pairs),
        2,
        figsize=(10, sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axes in grid.flat[len(wanted) :]:
        axes.set_visible(False)
    for axes, panel in zip(grid.flat, wanted):
        is_scaling = panel.result.part == "scaling"
        (draw_scaling if is_scaling else draw_bars)(axes, panel)
        figures = f": {panel.figures[0]}" if len(panel.figures) == 1 else ""
        axes.set_title(f"{panel.result.name}{figures}")
    return figure


def draw_ratios(results: list[Result]) -> Figure | None:
    """Ours over the best peer: medians of the rounds' ratios, with lines from smallest to largest."""
    rows = [
        (f"{result.name}: {name}", result.ratios(name)[peer], peer)
        for result, name, peer in summarized(results)
    ]
    if not rows:
        return None
    figure, axes = plt.subplots(figsize=(10, 0.18 * len(rows) + 0.8), layout="constrained")
    for place, (_, ratios, peer) in enumerate(rows):
        median = statistics.median(ratios)
        axes.plot([min(ratios), max(ratios)], [place, place], color=OURS[1], linewidth=1.5)
        axes.plot(median, place, color=OURS[0], marker="o", markersize=4)
        axes.text(max(ratios), place, f"  {median:.2f}, {peer}", va="center", fontsize=6)
    axes.axvline(1, color="#222222", linewidth=0.8)
    axes.set_yticks(range(len(rows)), [what for what, _, _ in rows])
    axes.invert_yaxis()
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.25, y=0.02)
    axes.set_xlabel("ours over the best peer")
    return figure


def save(figure: Figure | None, path: Path) -> str | None:
    """Its name, if there is a figure."""
    if figure is None:
        return None
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
    return path.name
