"""Whether all subjects run the same model: their logits against ours in f32."""

import tempfile
from pathlib import Path

import numpy as np

from .ids import random_ids
from .subjects import Alone, Process, run_json


def sample(vocab_size: int) -> list[int]:
    return random_ids(48, vocab_size)


def pocketgpt_logits(binary: Path, file: Path, tokens: list[int]) -> np.ndarray:
    """What follows the tokens."""
    with tempfile.TemporaryDirectory() as folder:
        npy = Path(folder) / "logits.npy"
        ids = ",".join(map(str, tokens))
        run_json([str(binary), "logits", "-m", str(file), "--ids", ids, "--npy", str(npy), "--json"])
        return np.load(npy)


class PocketgptAgreement(Alone):
    def __init__(self, name: str, binary: Path, file: Path, tokens: list[int], reference: np.ndarray):
        super().__init__(name)
        self.binary, self.file = binary, file
        self.tokens, self.reference = tokens, reference

    def measure(self) -> dict[str, float]:
        return figures(pocketgpt_logits(self.binary, self.file, self.tokens), self.reference)


class WorkerAgreement(Alone):
    def __init__(self, name: str, process: Process, tokens: list[int], reference: np.ndarray):
        super().__init__(name)
        self.process = process
        self.tokens, self.reference = tokens, reference

    def measure(self) -> dict[str, float]:
        try:
            self.settings = self.process.start()["settings"]
            answer = self.process.ask(work="logits", ids=self.tokens)
        finally:
            self.process.stop()
        return figures(np.array(answer["logits"]), self.reference)


def figures(logits: np.ndarray, reference: np.ndarray) -> dict[str, float]:
    return {
        "correlation": float(np.corrcoef(logits, reference)[0, 1]),
        "same top token": float(np.argmax(logits) == np.argmax(reference)),
    }
