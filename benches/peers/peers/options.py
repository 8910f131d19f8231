"""Options of the command line. Standard library only: they are read before anything is installed."""

import argparse
import os
import platform
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]

PARTS = {
    "agreement": "logits of every subject against ours in f32: all of them run the same model",
    "decode": "tokens made one by one after 16, 512 and 896 tokens, in 4 bits, 8 bits and f32",
    "prefill": "a prompt of 512 tokens, in 4 and 8 bits",
    "avx2": "both with AVX2 and nothing newer",
    "busy": "decoding while other processes keep every CPU busy",
    "cold": "from the start of the process to the first token, the file being in the page cache",
    "memory": "peak memory while decoding 128 tokens",
    "others": "every other runtime, decoding and prefill",
    "scaling": "time per token of 124M, 355M, 774M and 1.5B parameters (4 GB of disk, minutes to make)",
}
NOT_BY_DEFAULT = {"scaling"}


@dataclass(frozen=True)
class Options:
    parts: tuple[str, ...]
    match: str
    rounds: int
    threads: tuple[int, ...]
    tokens: int
    depths: tuple[int, ...]
    max_foreign: float
    checkpoint: Path | None
    bin_dir: Path | None
    folder: Path
    results: Path
    scratch: Path
    output: Path
    venv: Path | None
    llama_avx2: Path | None
    report_only: bool
    quick: bool


def numbers(text: str) -> tuple[int, ...]:
    values = tuple(int(part) for part in text.split(","))
    if not values or min(values) < 1:
        raise argparse.ArgumentTypeError(f"{text}: wanted numbers from 1 on, with commas between")
    return values


def names(text: str) -> tuple[str, ...]:
    wanted = text.split(",")
    for name in wanted:
        if name not in PARTS:
            raise argparse.ArgumentTypeError(f"{name}: no part; there are {', '.join(PARTS)}")
    return tuple(name for name in PARTS if name in wanted)


def parser() -> argparse.ArgumentParser:
    parts = "\n".join(f"  {name:<10} {text}" for name, text in PARTS.items())
    result = argparse.ArgumentParser(
        prog="benches/peers/run",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Compares pocketgpt with other runtimes on this machine, in turn (ABAB…), on the same\n"
        "model. Installs them first if they are missing. Writes a page with tables and a plot.",
        epilog=f"Parts:\n{parts}\n\n"
        "Examples:\n"
        "  benches/peers/run\n"
        "  benches/peers/run --quick --only decode,prefill --threads 1\n"
        "  benches/peers/run --only scaling --scratch /mnt/big\n"
        "  PEERS_VENV=~/peers-venv benches/peers/run --checkpoint gpt2/\n\n"
        "PEERS_VENV names a virtual environment that has the peers already, PEERS_LLAMA_AVX2 a folder with\n"
        "llama-cpp-python for AVX2 (pip install --target).",
    )
    add = result.add_argument
    default = ",".join(name for name in PARTS if name not in NOT_BY_DEFAULT)
    add("--only", metavar="PARTS", type=names, help=f"parts to do [default: {default}]")
    add("--match", metavar="TEXT", default="", help='only comparisons with this in their name: "8 bits, 1 thread"')
    add("--rounds", metavar="N", type=int, help="rounds that count [default: 7; 3 with --quick]")
    add("--threads", metavar="N,…", type=numbers, default=(1, 2), help="[default: 1,2]")
    add("--tokens", metavar="N", type=int, help="tokens decoded each time [default: 64; 16 with --quick]")
    add("--depths", metavar="N,…", type=numbers, default=(16, 512, 896), help="[default: 16,512,896]")
    add("--quick", action="store_true", help="see that everything works: figures are no good")
    add(
        "--max-foreign",
        metavar="SHARE",
        type=float,
        default=0.1,
        help="a round is done again if other programs took more of the CPUs [default: 0.1]",
    )
    add("--checkpoint", metavar="DIR", type=Path, help="GPT-2 folder [default: random, 124M]")
    add("--bin-dir", metavar="DIR", type=Path, help="use these programs [default: cargo build --release]")
    add("--folder", metavar="DIR", type=Path, help="peers and models [default: target/peers]")
    add("--results", metavar="DIR", type=Path, help="raw rounds as JSON [default: FOLDER/results]")
    add("--scratch", metavar="DIR", type=Path, help="for the large models [default: FOLDER/scratch]")
    add("--output", metavar="DIR", type=Path, help="page and plot [default: docs/benchmarks; FOLDER/page with --quick]")
    add("--report-only", action="store_true", help="write page and plot from the results that are there")
    return result


def parse(arguments: list[str] | None = None) -> Options:
    args = parser().parse_args(arguments)
    folder = absolute(args.folder or REPOSITORY / "target" / "peers")
    page = folder / "page" if args.quick else REPOSITORY / "docs" / "benchmarks"
    parts = args.only or tuple(name for name in PARTS if name not in NOT_BY_DEFAULT)
    if platform.machine() != "x86_64":
        parts = tuple(name for name in parts if name != "avx2")
    return Options(
        parts=parts,
        match=args.match,
        rounds=args.rounds or (3 if args.quick else 7),
        threads=args.threads,
        tokens=args.tokens or (16 if args.quick else 64),
        depths=args.depths,
        max_foreign=args.max_foreign,
        checkpoint=args.checkpoint and absolute(args.checkpoint),
        bin_dir=args.bin_dir and absolute(args.bin_dir),
        folder=folder,
        results=absolute(args.results or folder / ("quick" if args.quick else "results")),
        scratch=absolute(args.scratch or folder / "scratch"),
        output=absolute(args.output or page),
        venv=from_environment("PEERS_VENV"),
        llama_avx2=from_environment("PEERS_LLAMA_AVX2"),
        report_only=args.report_only,
        quick=args.quick,
    )


def from_environment(name: str) -> Path | None:
    return absolute(Path(os.environ[name])) if os.environ.get(name) else None


def absolute(path: Path) -> Path:
    return path.expanduser().absolute()
