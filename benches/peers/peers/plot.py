"""The plot: a panel for each comparison, a bar for each subject, whiskers from worst to best round."""

import statistics
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from .results import Result

OURS, PEER = "#d1495b", "#8d99ae"
COLUMNS = 2
PLOTTED = ("decode", "prefill", "avx2", "busy", "cold", "others", "scaling")


def panels(results: list[Result]) -> list[tuple[Result, str]]:
    return [(result, name) for result in results if result.part in PLOTTED for name in result.figures]


def draw_bars(axes: Axes, result: Result, figure: str) -> None:
    by_subject = result.figures[figure]
    names = list(by_subject)
    medians = [statistics.median(by_subject[name]) for name in names]
    below = [median - min(by_subject[name]) for median, name in zip(medians, names)]
    above = [max(by_subject[name]) - median for median, name in zip(medians, names)]
    colors = [OURS if name.startswith("pocketgpt") else PEER for name in names]
    whiskers = {"elinewidth": 0.8, "ecolor": "#333333"}
    bars = axes.barh(names, medians, xerr=[below, above], color=colors, error_kw=whiskers)
    axes.bar_label(bars, fmt="%.3g", padding=4, fontsize=7)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set_xlabel(result.unit)


def draw_scaling(axes: Axes, result: Result, figure: str) -> None:
    """Time against bytes, with the line through nothing and the largest model."""
    sizes = [result.settings[s]["weight_bytes_per_token"] / 1e6 for s in result.figures[figure]]
    times = list(result.medians(figure).values())
    axes.plot([0, sizes[-1]], [0, times[-1]], color=PEER, linewidth=1, linestyle="--")
    axes.plot(sizes, times, color=OURS, marker="o", linestyle="none")
    axes.set_xlabel("weights read for a token, MB")
    axes.set_ylabel("ms a token")


def draw(results: list[Result], paths: list[Path]) -> bool:
    """False if there is nothing to draw."""
    wanted = panels(results)
    if not wanted:
        return False
    rows = -(-len(wanted) // COLUMNS)
    heights = [
        max(0.26 * len(result.figures[name]) + 0.9 for result, name in wanted[i : i + COLUMNS])
        for i in range(0, len(wanted), COLUMNS)
    ]
    figure, grid = plt.subplots(
        rows,
        COLUMNS,
        figsize=(11, sum(heights)),
        height_ratios=heights,
        squeeze=False,
        layout="constrained",
    )
    for axes in grid.flat[len(wanted) :]:
        axes.set_visible(False)
    for axes, (result, name) in zip(grid.flat, wanted):
        (draw_scaling if result.part == "scaling" else draw_bars)(axes, result, name)
        axes.set_title(f"{result.name}: {name}", fontsize=9)
        axes.tick_params(labelsize=7)
        axes.xaxis.label.set_size(7)
        axes.spines[["top", "right"]].set_visible(False)
    for path in paths:
        figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)
    return True
