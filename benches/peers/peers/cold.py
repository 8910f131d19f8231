"""From the start of a process to its first token."""

import json
import subprocess
import time
from pathlib import Path

from .ids import random_ids
from .subjects import Alone, Failed, Process, run_json

PROMPT_TOKENS = 16
WHOLE, MODEL = "whole process", "without Python's start and imports"


def prompt(binary: Path, file: Path) -> str:
    """A text of 16 tokens."""
    words = "the quick brown fox jumps over the lazy dog and runs away from all of the others there".split()
    text = " ".join(words)
    tokens = run_json([str(binary), "tokenize", "-m", str(file), "--json", text])["tokens"]
    return text.encode()[: tokens[PROMPT_TOKENS - 1]["end_byte"]].decode()


class ColdPocketgpt(Alone):
    """The command line, until it ends: one token is all that it makes. There is no part to leave out."""

    def __init__(self, name: str, binary: Path, file: Path, threads: int):
        super().__init__(name)
        self.command = [str(binary), "generate", "-m", str(file), "--threads", str(threads), "-n", "1"]
        self.command += ["--strategy", "greedy", "--quiet", "--no-echo", prompt(binary, file)]

    def measure(self) -> dict[str, float]:
        start = time.perf_counter()
        done = subprocess.run(self.command, capture_output=True)
        milliseconds = 1e3 * (time.perf_counter() - start)
        if done.returncode or not done.stdout:
            raise Failed(f"{' '.join(self.command)}: {done.stderr.decode().strip()}")
        return {WHOLE: milliseconds, MODEL: milliseconds}


class ColdLlama(Alone):
    """llama.cpp by its API from Python, until it tells that the token is there."""

    def __init__(self, name: str, process: Process, vocab_size: int):
        super().__init__(name)
        ids = map(str, random_ids(PROMPT_TOKENS, vocab_size))
        self.process = process
        self.command = [*process.command, "--ids", *ids]

    def measure(self) -> dict[str, float]:
        start = time.perf_counter()
        with subprocess.Popen(
            self.command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=self.process.environment,
        ) as running:
            line = running.stdout.readline()
            milliseconds = 1e3 * (time.perf_counter() - start)
        if not line:
            raise Failed(f"{' '.join(self.command)}: ended with exit code {running.returncode}")
        return {WHOLE: milliseconds, MODEL: 1e3 * json.loads(line)["seconds_after_imports"]}
