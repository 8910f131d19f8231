"""The programs that are compared: ours, a whole run per measurement, and peers in worker processes."""

import contextlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

HERE = Path(__file__).resolve().parent.parent


class Failed(Exception):
    """A subject could not do the work."""


class Subject(Protocol):
    name: str
    settings: dict
    """For the reader of the figures: version, encoding, options."""
    pid: int | None
    """Of a process that lives on between measurements."""

    def start(self) -> None: ...

    def measure(self) -> dict[str, float]:
        """Figures by name, the same names for all subjects of a comparison."""

    def stop(self) -> None: ...


class Alone:
    """A subject whose processes do not outlive a measurement."""

    name: str
    pid = None

    def __init__(self, name: str):
        self.name = name
        self.settings: dict = {}

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass


@dataclass(frozen=True)
class Speeds:
    """Tokens made after each of `depths` tokens, and prompts of `prefill` tokens read at once, both in
    tokens per second."""

    depths: tuple[int, ...] = ()
    tokens: int = 64
    prefill: int = 0

    def figures(self, decode: list[float], prefill: float | None) -> dict[str, float]:
        names = [f"decode at {depth}" for depth in self.depths]
        figures = dict(zip(names, decode, strict=True))
        if self.prefill:
            figures[f"prefill {self.prefill}"] = prefill
        return figures


def run_json(command: list[str]) -> dict:
    """What a program of ours prints with --json."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")
    return json.loads(done.stdout)


class Pocketgpt(Alone):
    """One run of `pocketgpt bench` per measurement: opening the file takes next to nothing."""

    def __init__(self, name: str, binary: Path, file: Path, threads: int, work: Speeds, *options: str):
        super().__init__(name)
        self.work = work
        self.command = [str(binary), "bench", "--json", "--no-baseline", "--repeat", "1"]
        self.command += ["--threads", str(threads), "-m", str(file), *options]
        self.command += ["-p", str(work.prefill or 1), "-n", str(work.tokens if work.depths else 1)]
        self.command += ["--depth", ",".join(map(str, work.depths or (0,)))]
        if work.prefill:
            # All of a prompt at once, as the peers read it.
            self.command += ["--batch", str(work.prefill)]

    def measure(self) -> dict[str, float]:
        report = run_json(self.command)
        kept = ("isa", "kv", "file_bytes", "weight_bytes_per_token")
        self.settings = {key: report[key] for key in kept}
        decode = [result["decode_tokens_per_second"] for result in report["decode"]]
        decode = decode[: len(self.work.depths)]
        return self.work.figures(decode, report["prefill_tokens_per_second"])


class Process:
    """A worker process, which keeps its model loaded and sleeps between requests."""

    def __init__(self, python: Path, module: str, *options: str, log: Path, environment: dict[str, str]):
        self.command = [str(python), "-m", f"peers.workers.{module}", *options]
        self.log = log
        self.environment = worker_environment(environment)
        self.process: subprocess.Popen | None = None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    def start(self) -> dict:
        """Returns once the model is loaded, with what the worker says of itself."""
        pipe = subprocess.PIPE
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command, stdin=pipe, stdout=pipe, stderr=log, text=True, env=self.environment
            )
        return self.answer()

    def stop(self) -> None:
        if self.process:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
            try:
                self.process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process.stdout.close()
            self.process = None

    def ask(self, **request) -> dict:
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the worker ended"}
        if "error" in answer:
            raise Failed(f"{' '.join(self.command)}: {answer['error']} (see {self.log})")
        return answer


def worker_environment(environment: dict[str, str]) -> dict[str, str]:
    """With the workers' package on PYTHONPATH, behind what is there."""
    paths = [environment.get("PYTHONPATH", ""), str(HERE)]
    python_path = os.pathsep.join(path for path in paths if path)
    return {**os.environ, **environment, "PYTHONPATH": python_path}


class Worker:
    """A peer's speeds."""

    def __init__(self, name: str, process: Process, work: Speeds):
        self.name = name
        self.process = process
        self.work = work
        self.settings: dict = {}

    @property
    def pid(self) -> int | None:
        return self.process.pid

    def start(self) -> None:
        self.settings = self.process.start()["settings"]

    def stop(self) -> None:
        self.process.stop()

    def measure(self) -> dict[str, float]:
        decode, prefill = [], None
        if self.work.depths:
            request = {"depths": list(self.work.depths), "tokens": self.work.tokens}
            runs = self.process.ask(work="decode", **request)["token_seconds"]
            decode = [len(seconds) / sum(seconds) for seconds in runs]
        if self.work.prefill:
            answer = self.process.ask(work="prefill", tokens=self.work.prefill)
            prefill = self.work.prefill / answer["prefill_seconds"]
        return self.work.figures(decode, prefill)
