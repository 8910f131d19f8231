"""The page of what quantization lost of one model: how it was measured, picture and table."""

from pathlib import Path

from . import machine
from .loss import Losses, table
from .report import table as rows_of

HOW = """\
Both sides are judged by their weights alone, activations and cache being f32: files of llama.cpp are taken apart by
its `gguf` package and measured as checkpoints, by the same `pocketgpt perplexity --reference … --weights-only` as ours.
Bits are those of all matrices, `wte` included, vectors and `wpe` not. The last column is our divergence over that of
llama.cpp's best formats at as many bits, between them along a straight line on the picture; below 1, ours is better.
"""


def spans(values: set[str]) -> str:
    """First and last of what was not the same for all files."""
    ordered = sorted(value for value in values if value)
    return " to ".join(dict.fromkeys([*ordered[:1], *ordered[-1:]]))


def about(losses: Losses) -> dict[str, str]:
    system = machine.description(built=False)
    commits = sorted({loss.commit for loss in losses.files if loss.commit})
    return {
        "CPU": system["CPU"],
        "system": system["system"],
        "measured": spans({loss.date for loss in losses.files}),
        "pocketgpt": ", ".join(commits) or "built beforehand",
        "peers": ", ".join(f"{name} {version}" for name, version in losses.versions.items()),
        "model": f"{losses.checkpoint}, perplexity in f32 {losses.reference_perplexity:.4f}",
        "text": f"{losses.text}, {losses.scored_tokens:,} scored tokens",
        "calibration, importance matrix": losses.calibration,
    }


def write(losses: Losses, page: Path) -> None:
    """The picture stands beside it, under the same name."""
    from . import loss_plot

    picture = page.with_suffix(".svg")
    loss_plot.draw(losses, picture)
    page.write_text(
        f"# What quantization loses of {losses.checkpoint}\n\n"
        "Made by `benches/peers/loss`; how, see `benches/peers/README.md`.\n\n"
        + rows_of(["", ""], [[key, value] for key, value in about(losses).items()])
        + f"{HOW}\n![Mean KL divergence over bits per weight]({picture.name})\n\n{table(losses)}\n"
    )
