"""CTranslate2: `python -m peers.workers.ctranslate2 FOLDER --threads N`

It has no call for a single step, so tokens are timed where its own greedy loop reports them. The end
of the text is forbidden by `min_length`.
"""

import argparse
import json
import os
import time
from pathlib import Path

import ctranslate2
import numpy as np

from ..ids import random_ids
from .protocol import serve


class Generator:
    def __init__(self, path: str, threads: int, compute_type: str):
        self.generator = ctranslate2.Generator(
            path, device="cpu", compute_type=compute_type, inter_threads=1, intra_threads=threads
        )
        self.vocabulary = json.loads((Path(path) / "vocabulary.json").read_text())

    def times(self, prompt: int, tokens: int) -> tuple[float, list[float]]:
        """When the prompt went in, and when each token came out."""
        words = [self.vocabulary[id_] for id_ in random_ids(prompt, len(self.vocabulary))]
        times: list[float] = []
        start = time.perf_counter()
        self.generator.generate_batch(
            [words],
            max_length=tokens,
            min_length=tokens,
            sampling_topk=1,
            include_prompt_in_result=False,
            callback=lambda _: times.append(time.perf_counter()),
        )
        assert len(times) == tokens, f"{len(times)} tokens came, {tokens} were wanted"
        return start, times

    def decode(self, depth: int, tokens: int) -> list[float]:
        """The first token comes with the prompt: it is made without a step of its own."""
        _, times = self.times(depth, tokens + 1)
        return [b - a for a, b in zip(times, times[1:])]

    def prefill(self, tokens: int) -> float:
        start, times = self.times(tokens, 1)
        return times[0] - start

    def logits(self, ids: list[int]) -> list[float]:
        words = [self.vocabulary[id_] for id_ in ids]
        logits = self.generator.forward_batch([words])
        return np.asarray(logits)[0, -1].tolist()


def load():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--compute-type", default="int8")
    args = parser.parse_args()
    model = Generator(args.file, args.threads, args.compute_type)
    settings = {
        "version": ctranslate2.__version__,
        "compute_type": model.generator.compute_type,
        "isa": os.environ.get("CT2_FORCE_CPU_ISA", "its own choice"),
        "file_bytes": (Path(args.file) / "model.bin").stat().st_size,
    }
    return model, settings


if __name__ == "__main__":
    serve(load)
