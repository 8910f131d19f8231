"""How a worker process talks: one JSON object a line, requests on stdin, answers on stdout.

A request is `{"work": "decode", "depths": [16, 512], "tokens": 128}` or `{"work": "prefill", "tokens": 512}`.
The answer holds seconds: for each depth those of every token, or those of the prefill. Before the
clock runs some tokens are decoded, or the prompt is read, as `pocketgpt bench` does: every subject
meets the caches as its own work leaves them. `{"work": "logits", "ids": [1, 2]}` asks for
what follows these tokens. Every answer holds the process's peak memory as well.
"""

import json
import os
import signal
import sys
import time
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ..ids import random_ids

# After them the caches are what a peer's own work leaves behind: each token reads all the weights.
WARM_UP_TOKENS = 8


class Model(Protocol):
    """A loaded model."""

    def decode(self, depth: int, tokens: int) -> list[float]:
        """Seconds of each token made after `depth` tokens."""

    def prefill(self, tokens: int) -> float:
        """Seconds to read `tokens` tokens at once, and to know what follows the last."""

    def logits(self, ids: list[int]) -> list[float]:
        """What follows these tokens."""


class StepModel(ABC):
    """A model that is fed token by token from here."""

    vocab_size: int
    known = 0
    """Tokens in the cache."""

    @abstractmethod
    def clear(self) -> None:
        """Forgets every token."""

    @abstractmethod
    def feed(self, ids: list[int]) -> None:
        """Appends tokens and computes the logits that follow the last one; returns when they are there."""

    @abstractmethod
    def last_logits(self) -> list[float]:
        """Those after the last token fed."""

    def decode(self, depth: int, tokens: int) -> list[float]:
        ids = random_ids(depth + tokens, self.vocab_size)
        self.fill(ids[:depth])
        seconds = []
        for token in ids[depth:]:
            start = time.perf_counter()
            self.feed([token])
            seconds.append(time.perf_counter() - start)
        self.known = len(ids)
        return seconds

    def fill(self, ids: list[int]) -> None:
        """All texts begin alike, so what the cache holds already is kept unless it is too much."""
        if self.known > len(ids):
            self.clear()
            self.known = 0
        if self.known < len(ids):
            self.feed(ids[self.known :])

    def prefill(self, tokens: int) -> float:
        ids = random_ids(tokens, self.vocab_size)
        self.fill([])
        start = time.perf_counter()
        self.feed(ids)
        self.known = tokens
        return time.perf_counter() - start

    def logits(self, ids: list[int]) -> list[float]:
        """The last token is decoded after the others, so that the cache takes part."""
        self.fill([])
        self.feed(ids[:-1])
        self.feed(ids[-1:])
        self.known = len(ids)
        return self.last_logits()


def measure(model: Model, request: dict) -> dict:
    if request["work"] == "decode":
        depths, tokens = request["depths"], request["tokens"]
        model.decode(depths[0], WARM_UP_TOKENS)
        return {"token_seconds": [model.decode(depth, tokens) for depth in depths]}
    if request["work"] == "prefill":
        for _ in range(2):
            seconds = model.prefill(request["tokens"])
        return {"prefill_seconds": seconds}
    if request["work"] == "logits":
        return {"logits": model.logits(request["ids"])}
    raise ValueError(f"unknown work {request['work']}")


def peak_rss_bytes() -> int:
    """Since the process began."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def serve(load: Callable[[], tuple[Model, dict]]) -> None:
    """Answers requests until stdin ends. `load` makes the model; its settings go into the first line.

    Whatever libraries print goes to stderr: only answers reach the real stdout.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    imported = peak_rss_bytes()
    try:
        model, settings = load()
        ready = {"settings": settings, "rss_bytes_before_load": imported}
        print(json.dumps(ready), file=answers)
        for line in sys.stdin:
            answer = measure(model, json.loads(line))
            print(json.dumps(answer | {"peak_rss_bytes": peak_rss_bytes()}), file=answers)
    except Exception as error:
        traceback.print_exc()
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers)
        sys.exit(1)
