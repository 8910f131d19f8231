"""Mean KL divergence over bits per weight, ours and the peers'."""

from pathlib import Path

import matplotlib.pyplot as plt

from .loss import Loss, Losses, frontier
from .plot import OURS, PEERS


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
    axes.margins(x=0.08, y=0.1)
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
    for loss in files:
        offset, align = ((4, 4), "left") if above else ((-4, -8), "right")
        axes.annotate(
            loss.name, (loss.bits, loss.kl), offset, textcoords="offset points", ha=align, fontsize=6, color=color
        )
