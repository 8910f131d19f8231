"""How the time of a token follows the bytes of the weights, from 124M to 1.5B parameters."""

from collections.abc import Iterator
from pathlib import Path

from .models import remove, run
from .rounds import Comparison, note
from .subjects import Pocketgpt, Speeds

PRESETS = {"gpt2": "124M", "gpt2-medium": "355M", "gpt2-large": "774M", "gpt2-xl": "1.5B"}


def make(quantize: Path, scratch: Path, preset: str) -> Path:
    """A q4 file of random weights. The checkpoint that it is made from goes away again."""
    scratch.mkdir(parents=True, exist_ok=True)
    file, checkpoint = scratch / f"{preset}-q4.pgpt", scratch / preset
    if not file.exists() or file.stat().st_mtime < quantize.stat().st_mtime:
        note(f"making {file.name}: some minutes for the large ones")
        remove(checkpoint)
        run(quantize, "synth", "--preset", preset, "--dtype", "f16", "--quiet", "-o", checkpoint)
        # Random weights have nothing to calibrate for.
        run(quantize, "convert", checkpoint, "-o", file, "--to", "q4", "--method", "rtn", "--quiet")
        remove(checkpoint)
    return file


class MillisecondsPerToken(Pocketgpt):
    def measure(self) -> dict[str, float]:
        return {name: 1e3 / speed for name, speed in super().measure().items()}


def comparisons(
    pocketgpt: Path, quantize: Path, scratch: Path, threads: tuple[int, ...], tokens: int
) -> Iterator[Comparison]:
    files = {size: make(quantize, scratch, preset) for preset, size in PRESETS.items()}
    work = Speeds(depths=(16,), tokens=tokens)
    for count in threads:
        subjects = [
            MillisecondsPerToken(f"pocketgpt q4 {size}", pocketgpt, file, count, work)
            for size, file in files.items()
        ]
        name = f"scaling, q4, {count} thread{'s' * (count > 1)}"
        yield Comparison("scaling", name, subjects, unit="ms", more_is_better=False)
