"""What quantization loses, ours against llama.cpp's formats: `benches/peers/loss --help`

Both sides are measured by the same program in the same way: llama.cpp's files are taken apart by its own
Python package, stored as an f32 checkpoint, and `pocketgpt perplexity --weights-only` compares them with the
original, as it does with our files. So activations are f32 on both sides.
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from . import machine, programs
from .options import REPOSITORY
from .rounds import note

# By name: llama.cpp's format, and whether it gets the importance matrix.
PEERS = {
    "Q8_0": ("q8_0", False),
    "Q6_K": ("q6_k", True),
    "Q5_K_M": ("q5_k_m", True),
    "Q4_K_M": ("q4_k_m", True),
    "Q4_K_S": ("q4_k_s", True),
    "Q4_0": ("q4_0", True),
    "IQ4_NL": ("iq4_nl", True),
    "IQ4_XS": ("iq4_xs", True),
    "Q3_K_M": ("q3_k_m", True),
}
# By name: options of `pocketgpt-quantize convert`.
OURS = {
    "q8": "--to q8",
    "q8, gptq": "--to q8 --method gptq",
    "target 6.5": "--target-bpw 6.5",
    "target 5.5": "--target-bpw 5.5",
    "q4": "--to q4",
    "target 5": "--target-bpw 5",
    "target 4.5": "--target-bpw 4.5",
    "q4, head q4": "--to q4 --head q4",
    "target 4": "--target-bpw 4",
    "q3, head q3": "--to q3 --head q3",
}


@dataclass
class Loss:
    """Of one file."""

    name: str
    ours: bool
    bits: float
    """Per weight, over all matrices but `wpe`."""
    perplexity_ratio: float
    kl: float
    kl_error: float
    p99: float
    top1: float
    how: str = ""
    """Our options; of peers whether with the importance matrix."""
    date: str = ""
    commit: str = ""
    """Of our programs, if they were built from this repository."""


@dataclass
class Losses:
    checkpoint: str
    text: str
    calibration: str
    scored_tokens: int = 0
    reference_perplexity: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)
    files: list[Loss] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> "Losses":
        data = json.loads(path.read_text())
        return cls(**{**data, "files": [Loss(**loss) for loss in data["files"]]})

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")


def shown(path: Path) -> str:
    """From the repository's root, where it lies in it."""
    path = path.resolve()
    return str(path.relative_to(REPOSITORY)) if path.is_relative_to(REPOSITORY) else path.name


def parsed(name: str, ours: bool, how: str, bits: float, report: dict) -> Loss:
    """From what `pocketgpt perplexity --reference … --json` prints."""
    return Loss(
        name,
        ours,
        bits,
        report["perplexity_ratio"],
        report["mean_kl_divergence"],
        report["mean_kl_divergence_stderr"],
        report["p99_kl_divergence"],
        report["top1_agreement"],
        how,
    )


def counted(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor of a GGUF file is a matrix that bits are counted of."""
    return len(shape) == 2 and name != "position_embd.weight"


def bits_per_weight(tensors: list[tuple[str, tuple[int, ...], int]]) -> float:
    """Of names, shapes and bytes."""
    matrices = [(math.prod(shape), size) for name, shape, size in tensors if counted(name, shape)]
    return 8 * sum(size for _, size in matrices) / sum(count for count, _ in matrices)


def take_apart(gguf_file: Path, checkpoint: Path, target: Path) -> float:
    """Stores a quantized file as a checkpoint in f32; gives its bits per weight."""
    import gguf
    import numpy as np
    from safetensors import safe_open
    from safetensors.numpy import save_file

    from . import gguf_model

    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(gguf_file).tensors}
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    kept = {}
    with safe_open(checkpoint / "model.safetensors", "np") as source:
        for name in source.keys():
            tensor = tensors.get(gguf_model.tensor_name(name) or "")
            if tensor is not None:
                data = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
                # Its own transpose: Conv1D's matrices are [in, out] there.
                kept[name] = gguf_model.tensor_data(name, data.reshape(tensor.shape[::-1]))
    save_file(kept, target / "model.safetensors")
    for path in checkpoint.glob("*"):
        if path.suffix in (".json", ".txt") and "safetensors" not in path.name:
            shutil.copy(path, target / path.name)
    shapes = [(t.name, tuple(int(n) for n in t.shape), int(t.n_bytes)) for t in tensors.values()]
    return bits_per_weight(shapes)


class Measuring:
    """Files are made in a folder and gone when they are measured; figures are kept."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.pocketgpt, self.quantize = programs.find(options.bin_dir)
        self.commit = "" if options.bin_dir else machine.description(built=True)["pocketgpt"]
        self.folder = options.folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.results = self.folder / "loss.json"
        if self.results.exists():
            self.losses = Losses.read(self.results)
        else:
            self.losses = Losses(*map(shown, (options.checkpoint, options.text, options.calibrate)))
        self.reference = self.folder / "f32.pgpt"
        if not self.reference.exists():
            self.convert(options.checkpoint, self.reference, "--to f32")
        self.f32 = self.folder / "f32.gguf"
        self.importance = None

    def run(self) -> None:
        wanted = self.options.only
        for name, (kind, weighed) in PEERS.items():
            if self.is_missing(name, ours=False) and (not wanted or name in wanted):
                self.peer(name, kind, weighed)
        for name, how in OURS.items():
            if self.is_missing(name, ours=True) and (not wanted or name in wanted):
                self.own(name, how)

    def is_missing(self, name: str, ours: bool) -> bool:
        return not any(loss.name == name and loss.ours == ours for loss in self.losses.files)

    def peer(self, name: str, kind: str, weighed: bool) -> None:
        import llama_cpp

        from . import gguf_model

        note(f"llama.cpp {name}")
        options = self.options
        if not self.f32.exists():
            gguf_model.write_f32(options.checkpoint, self.f32)
        if weighed and self.importance is None:
            from .importance import importance

            self.importance = importance(options.checkpoint, options.calibrate.read_text("utf-8"))
        self.losses.versions["llama-cpp-python"] = llama_cpp.__version__
        file, apart = self.folder / f"{kind}.gguf", self.folder / "apart"
        gguf_model.quantize(self.f32, file, kind, importance=self.importance if weighed else None)
        bits = take_apart(file, options.checkpoint, apart)
        again = self.folder / "apart.pgpt"
        self.convert(apart, again, "--to f32")
        self.measure(name, False, "importance matrix" if weighed else "", bits, again)
        shutil.rmtree(apart)
        file.unlink()

    def own(self, name: str, how: str) -> None:
        note(f"pocketgpt {name}")
        file = self.folder / "own.pgpt"
        calibrated = "--method rtn" not in how and how != "--to q8"
        more = ["--calibrate", str(self.options.calibrate)] if calibrated else []
        report = json.loads(self.convert(self.options.checkpoint, file, how, "--json", *more))
        self.measure(name, True, how, report["bits_per_weight"], file)

    def convert(self, checkpoint: Path, target: Path, how: str, *more: str) -> str:
        command = [self.quantize, "convert", checkpoint, "-o", target, *how.split(), *more, "--quiet"]
        return output_of(command)

    def measure(self, name: str, ours: bool, how: str, bits: float, file: Path) -> None:
        command = [self.pocketgpt, "perplexity", "-m", file, "--reference", self.reference]
        command += ["--text", self.options.text, "--weights-only", "--json"]
        report = json.loads(output_of(command))
        self.losses.scored_tokens = report["scored_tokens"]
        self.losses.reference_perplexity = report["reference_perplexity"]
        loss = parsed(name, ours, how, bits, report)
        loss.date, loss.commit = time.strftime("%Y-%m-%d"), self.commit
        self.losses.files.append(loss)
        self.losses.write(self.results)
        file.unlink()


def output_of(command: list[object]) -> str:
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"failed with exit code {done.returncode}: {' '.join(map(str, command))}")
    return done.stdout


def frontier(files: list[Loss]) -> list[Loss]:
    """Those that no file with as few bits beats, by bits."""
    best: list[Loss] = []
    for loss in sorted(files, key=lambda loss: (loss.bits, loss.kl)):
        if not best or loss.kl < best[-1].kl:
            best.append(loss)
    return best


def curve(files: list[Loss], bits: float) -> float | None:
    """KL divergence of the curve through the best of these files, straight on a logarithmic scale.

    None outside of them.
    """
    best = frontier(files)
    for left, right in zip(best, best[1:]):
        if left.bits <= bits <= right.bits:
            part = (bits - left.bits) / (right.bits - left.bits)
            return math.exp(math.log(left.kl) * (1 - part) + math.log(right.kl) * part)
    return next((loss.kl for loss in best if loss.bits == bits), None)


def table(losses: Losses) -> str:
    """Ours and theirs by bits; ours also against their curve."""
    peers = [loss for loss in losses.files if not loss.ours]
    lines = [
        "| format | bits per weight | perplexity ratio | mean KL | 99 % KL | top 1 the same | KL over the peers' curve |",
        "|---|---|---|---|---|---|---|",
    ]
    for loss in sorted(losses.files, key=lambda loss: -loss.bits):
        name = f"**{loss.name}**" if loss.ours else loss.name
        if loss.how == "importance matrix":
            name += ", importance matrix"
        theirs = curve(peers, loss.bits) if loss.ours else None
        against = f"{loss.kl / theirs:.2f}" if theirs else ""
        lines.append(
            f"| {name} | {loss.bits:.3f} | {loss.perplexity_ratio:.5f} | {loss.kl:.6f} "
            f"| {loss.p99:.4f} | {100 * loss.top1:.2f} % | {against} |"
        )
    return "\n".join(lines)


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benches/peers/loss",
        description="Compares what our files and llama.cpp's lose of a checkpoint, and draws it.",
        epilog="Prints a table; figures and the plot are kept in the folder, and what is there is not measured again.",
    )
    parser.add_argument("--checkpoint", type=Path, default=REPOSITORY / "examples/model", metavar="DIR")
    parser.add_argument("--text", type=Path, default=REPOSITORY / "tests/data/text/valid.txt")
    calibration = REPOSITORY / "quantize/data/calibration.txt"
    parser.add_argument("--calibrate", type=Path, default=calibration, metavar="TEXT")
    parser.add_argument("--only", action="append", metavar="NAME", help="as in the table, without its notes")
    parser.add_argument("--bin-dir", type=Path, help="our programs [default: built]")
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "target/peers/loss")
    parser.add_argument("--plot", type=Path, metavar="SVG", help="[default: loss.svg in the folder]")
    parser.add_argument("--page", type=Path, metavar="MD", help="a page with all of it, the plot beside it")
    parser.add_argument("--venv", type=Path, help="virtual environment with the peers [default: PEERS_VENV, or made]")
    parser.add_argument("--report-only", action="store_true", help="table and plot of what is there")
    options = parser.parse_args(arguments)
    unknown = set(options.only or ()) - set(PEERS) - set(OURS)
    if unknown:
        parser.error(f"{', '.join(sorted(unknown))}: not measured; there are {', '.join([*OURS, *PEERS])}")
    return options


def main() -> None:
    options = parse()
    if options.report_only:
        losses = Losses.read(options.folder / "loss.json")
    else:
        measuring = Measuring(options)
        measuring.run()
        losses = measuring.losses
    from . import loss_plot

    loss_plot.draw(losses, options.plot or options.folder / "loss.svg")
    if options.page:
        from . import loss_page

        loss_page.write(losses, options.page)
    print(table(losses))


if __name__ == "__main__":
    main()
