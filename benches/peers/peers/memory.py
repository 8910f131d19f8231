"""Peak memory while decoding, in MB of a million bytes."""

from pathlib import Path

from .subjects import Alone, Process, run_json

TOKENS = 128
PEAK, EXTRA = "peak", "peak less file and KV cache"


def figures(peak: int, file: int, kv: int) -> dict[str, float]:
    return {PEAK: peak / 1e6, EXTRA: (peak - file - kv) / 1e6}


class PocketgptMemory(Alone):
    """`pocketgpt generate`, as a user runs it; file and cache as `pocketgpt plan` tells them."""

    def __init__(self, name: str, binary: Path, file: Path, threads: int):
        super().__init__(name)
        self.options = ["-m", str(file), "--threads", str(threads), "--json"]
        self.binary = str(binary)

    def measure(self) -> dict[str, float]:
        tokens = ["-n", str(TOKENS), "--ignore-eos", "--strategy", "greedy"]
        done = run_json([self.binary, "generate", *self.options, *tokens, "one two three"])
        plan = run_json([self.binary, "plan", *self.options])
        self.settings = {key: plan[key] for key in ("weights_bytes", "kv", "kv_cache_bytes")}
        return figures(done["peak_rss_bytes"], plan["weights_bytes"], plan["kv_cache_bytes"])


class WorkerMemory(Alone):
    """A new worker each time. What Python and its imports take is not counted."""

    def __init__(self, name: str, process: Process):
        super().__init__(name)
        self.process = process

    def measure(self) -> dict[str, float]:
        try:
            ready = self.process.start()
            answer = self.process.ask(work="decode", depths=[16], tokens=TOKENS)
        finally:
            self.process.stop()
        self.settings = ready["settings"]
        peak = answer["peak_rss_bytes"] - ready["rss_bytes_before_load"]
        return figures(peak, self.settings["file_bytes"], self.settings["kv_bytes"])
