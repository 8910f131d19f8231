"""How a worker process talks: one JSON object a line, requests on stdin, answers on stdout.

A request is `{"work": "decode", "depths": [16, 512], "tokens": 128}` or `{"work": "prefill", "tokens": 512}`.
The answer holds seconds: for each depth those of every token, or those of the prefill. Each request does
the work once uncounted and then once counted, as `pocketgpt bench --repeat 1` does, so that every
subject meets the caches as its own work leaves them.
"""

import json
import os
import sys
import time
import traceback
from typing import Protocol

from ..ids import random_ids


class Model(Protocol):
    """A loaded model with a cache of keys and values."""

    vocab_size: int
    n_ctx: int

    def clear(self) -> None:
        """Forgets every token."""

    def feed(self, ids: list[int]) -> None:
        """Appends tokens and computes the logits that follow the last one; returns when they are there."""


def decode(model: Model, depth: int, tokens: int) -> list[float]:
    """Seconds of each token made after `depth` tokens."""
    ids = random_ids(depth + tokens, model.vocab_size)
    model.clear()
    if depth:
        model.feed(ids[:depth])
    seconds = []
    for token in ids[depth:]:
        start = time.perf_counter()
        model.feed([token])
        seconds.append(time.perf_counter() - start)
    return seconds


def prefill(model: Model, tokens: int) -> float:
    """Seconds to read `tokens` tokens at once."""
    ids = random_ids(tokens, model.vocab_size)
    model.clear()
    start = time.perf_counter()
    model.feed(ids)
    return time.perf_counter() - start


def measure(model: Model, request: dict) -> dict:
    if request["work"] == "decode":
        for _ in range(2):
            runs = [decode(model, depth, request["tokens"]) for depth in request["depths"]]
        return {"token_seconds": runs}
    if request["work"] == "prefill":
        for _ in range(2):
            seconds = prefill(model, request["tokens"])
        return {"prefill_seconds": seconds}
    raise ValueError(f"unknown work {request['work']}")


def serve(load) -> None:
    """Answers requests until stdin ends. `load` makes the model; its settings go into the first line.

    Whatever libraries print goes to stderr: only answers reach the real stdout.
    """
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    try:
        model, settings = load()
        print(json.dumps({"ready": True, "settings": settings}), file=answers)
        for line in sys.stdin:
            print(json.dumps(measure(model, json.loads(line))), file=answers)
    except Exception as error:
        traceback.print_exc()
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers)
        sys.exit(1)
