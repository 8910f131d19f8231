"""ONNX Runtime: `python -m peers.workers.onnx FILE --threads N`"""

import argparse
import os

import numpy as np
import onnxruntime

from .protocol import StepModel, serve

N_CTX = 1024


class Session(StepModel):
    def __init__(self, path: str, threads: int):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(path, options, ["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        self.vocab_size = self.session.get_outputs()[0].shape[-1]
        self.length = 0
        self.bind_cache()

    def bind_cache(self) -> None:
        """Past and present are the same memory."""
        self.cache = []
        for info in self.session.get_inputs():
            if not info.name.startswith("past_"):
                continue
            shape = [N_CTX if size == "max_length" else size for size in info.shape]
            value = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(shape, np.float32))
            self.cache.append(value)
            self.binding.bind_ortvalue_input(info.name, value)
            self.binding.bind_ortvalue_output(info.name.replace("past", "present"), value)
        logits = np.zeros((1, 1, self.vocab_size), np.float32)
        self.logits_value = onnxruntime.OrtValue.ortvalue_from_numpy(logits)
        self.binding.bind_ortvalue_output("logits", self.logits_value)

    def clear(self) -> None:
        self.length = 0

    def feed(self, ids: list[int]) -> None:
        end = self.length + len(ids)
        inputs = {
            "input_ids": np.array([ids], np.int64),
            "position_ids": np.arange(self.length, end, dtype=np.int64)[None],
            "last_position": np.array([end - 1], np.int32),
            "total_length": np.array([end], np.int32),
        }
        for name, value in inputs.items():
            self.binding.bind_cpu_input(name, value)
        self.session.run_with_iobinding(self.binding)
        self.length = end

    def last_logits(self) -> list[float]:
        return self.logits_value.numpy()[0, 0].tolist()


def load():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    settings = {
        "version": onnxruntime.__version__,
        "kv": "f32 in place",
        "optimization": "all",
        "spinning": True,
        "file_bytes": os.path.getsize(args.file),
    }
    return Session(args.file, args.threads), settings


if __name__ == "__main__":
    serve(load)
