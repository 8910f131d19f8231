"""Mean KL divergence over bits per weight, ours and the peers'."""

from pathlib import Path

import matplotlib.pyplot as plt

from .loss import Loss, Losses, frontier
from .plot import OURS, PEERS

# Bits between points whose names would overlap.
NEAR = 0.3
STAIRS = 6


def draw(losses: Losses, path: Path) -> None:
    ours = [loss for loss in losses.files if loss.ours]
    peers = [loss for loss in losses.files if not loss.ours]
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    points(axes, peers, PEERS[0], "s", "llama.cpp", above=True)
    points(axes, ours, OURS[0], "o", "pocketgpt", above=False)
    axes.set_yscale("log")
    axes.set_xlabel("bits per weight, all matrices")
    axes.set_ylabel("mean KL divergence, nats per token")
    axes.grid(axis="y", color="#e6e6e6", linewidth=0.6)
    # Room for the names: those of peers stand above their points, ours below.
    axes.margins(x=0.12, y=0.45)
    axes.legend(frameon=False)
    name = losses.checkpoint
    axes.set_title(f"{name}, {losses.scored_tokens:,} tokens of {losses.text}; weights only", loc="left")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def points(axes, files: list[Loss], color: str, marker: str, label: str, above: bool) -> None:
    if not files:
        return
    best = frontier(files)
    axes.plot([f.bits for f in best], [f.kl for f in best], color=color, linewidth=0.9, alpha=0.6)
    axes.plot(
        [f.bits for f in files],
        [f.kl for f in files],
        marker,
        color=color,
        markersize=4,
        label=label,
    )
    # Names of neighbours stand in a staircase.
    placed, step = None, 0
    for loss in sorted(files, key=lambda loss: (-loss.bits, loss.kl)):
        near = placed is not None and abs(loss.bits - placed) < NEAR
        step = (step + 1) % STAIRS if near else 0
        placed = loss.bits
        offset, align = ((4, 4 + 9 * step), "left") if above else ((-4, -8 - 9 * step), "right")
        axes.annotate(
            loss.name,
            (loss.bits, loss.kl),
            offset,
            textcoords="offset points",
            ha=align,
            fontsize=6,
            color=color,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.3} if step else None,
        )
