"""Our own programs."""

import json
import subprocess
import sys
from pathlib import Path

from .options import REPOSITORY
from .rounds import note


def build() -> Path:
    """The folder with `pocketgpt` and `pocketgpt-quantize`, built anew if anything changed."""
    note("cargo build --release")
    packages = ["-p", "pocketgpt", "-p", "pocketgpt-quantize"]
    done = subprocess.run(["cargo", "build", "--release", *packages], cwd=REPOSITORY, stdout=sys.stderr)
    if done.returncode:
        sys.exit("cargo could not build pocketgpt")
    metadata = ["cargo", "metadata", "--no-deps", "--format-version", "1"]
    text = subprocess.run(metadata, cwd=REPOSITORY, capture_output=True, check=True).stdout
    return Path(json.loads(text)["target_directory"]) / "release"


def find(bin_dir: Path | None) -> tuple[Path, Path]:
    folder = bin_dir or build()
    programs = folder / "pocketgpt", folder / "pocketgpt-quantize"
    for program in programs:
        if not program.exists():
            sys.exit(f"{program}: missing; --bin-dir wants a folder with both programs")
    return programs
