"""The programs that are compared: ours, a whole run per measurement, and peers in worker processes."""

import json
import os
import subprocess
from pathlib import Path
from typing import Protocol

from .work import Work

HERE = Path(__file__).parent.parent


class Failed(Exception):
    """A subject could not do the work."""


class Subject(Protocol):
    name: str
    settings: dict
    pid: int | None
    """Of a process that lives on between measurements."""

    def start(self) -> None: ...

    def measure(self, work: Work) -> dict[str, float]:
        """Tokens per second by name of the work."""

    def stop(self) -> None: ...


class Pocketgpt:
    """One run of `pocketgpt bench` per measurement: opening the file takes next to nothing."""

    def __init__(self, name: str, binary: Path, file: Path, threads: int, *options: str):
        self.name = name
        self.command = [str(binary), "bench", "--json", "--repeat", "1"]
        self.command += ["--threads", str(threads), "-m", str(file), *options]
        self.settings: dict = {}
        self.pid = None

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def measure(self, work: Work) -> dict[str, float]:
        depths = work.depths or (0,)
        amounts = ["-p", str(work.prefill or 1), "-n", str(work.tokens if work.depths else 1)]
        command = [*self.command, *amounts, "--depth", ",".join(map(str, depths))]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"{' '.join(command)}: {done.stderr.strip()}")
        report = json.loads(done.stdout)
        self.settings = {key: report[key] for key in ("isa", "kv", "file_bytes")}
        speeds = {}
        if work.depths:
            for result in report["decode"]:
                speeds[f"decode at {result['depth']}"] = result["decode_tokens_per_second"]
        if work.prefill:
            speeds[f"prefill {work.prefill}"] = report["prefill_tokens_per_second"]
        return speeds


class Worker:
    """A peer in a Python process of its own, which keeps its model loaded and sleeps between requests."""

    def __init__(self, name: str, python: Path, module: str, *options: str, log: Path | None = None):
        self.name = name
        self.command = [str(python), "-m", f"peers.workers.{module}", *options]
        self.log = log
        self.settings: dict = {}
        self.process: subprocess.Popen | None = None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    def start(self) -> None:
        stderr = self.log.open("a") if self.log else subprocess.DEVNULL
        pipe = subprocess.PIPE
        environment = {**os.environ, "PYTHONPATH": str(HERE)}
        self.process = subprocess.Popen(
            self.command, stdin=pipe, stdout=pipe, stderr=stderr, text=True, env=environment
        )
        self.settings = self.answer()["settings"]

    def stop(self) -> None:
        if self.process:
            self.process.stdin.close()
            self.process.wait()
            self.process = None

    def ask(self, request: dict) -> dict:
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the worker ended"}
        if "error" in answer:
            where = f" (see {self.log})" if self.log else ""
            raise Failed(f"{self.name}: {answer['error']}{where}")
        return answer

    def measure(self, work: Work) -> dict[str, float]:
        speeds = {}
        if work.depths:
            request = {"work": "decode", "depths": list(work.depths), "tokens": work.tokens}
            runs = self.ask(request)["token_seconds"]
            for depth, seconds in zip(work.depths, runs, strict=True):
                speeds[f"decode at {depth}"] = len(seconds) / sum(seconds)
        if work.prefill:
            answer = self.ask({"work": "prefill", "tokens": work.prefill})
            speeds[f"prefill {work.prefill}"] = work.prefill / answer["prefill_seconds"]
        return speeds
