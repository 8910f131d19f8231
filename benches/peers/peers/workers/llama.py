"""llama.cpp, by its C API: `python -m peers.workers.llama FILE --threads N …`"""

import argparse
import os

import llama_cpp
import numpy as np

from .protocol import StepModel, serve

# ggml_type of ggml.h, and bits per number
KV_TYPES = {"f32": (0, 32), "f16": (1, 16), "q8_0": (8, 8.5)}
N_CTX, N_BATCH = 1024, 512


class Llama(StepModel):
    def __init__(self, args: argparse.Namespace):
        llama_cpp.llama_backend_init()
        model_params = llama_cpp.llama_model_default_params()
        model_params.use_extra_bufts = not args.no_repack
        self.model = llama_cpp.llama_model_load_from_file(args.file.encode(), model_params)
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {args.file}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = N_CTX
        params.n_batch = params.n_ubatch = N_BATCH
        params.n_threads = params.n_threads_batch = args.threads
        params.type_k = params.type_v = KV_TYPES[args.kv][0]
        params.flash_attn_type = int(args.flash_attention)
        params.no_perf = True
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp refuses these settings: {args}")
        self.memory = llama_cpp.llama_get_memory(self.context)
        vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(vocab)
        kv_numbers = 2 * llama_cpp.llama_model_n_layer(self.model) * N_CTX
        kv_numbers *= llama_cpp.llama_model_n_embd(self.model)
        self.kv_bytes = int(kv_numbers * KV_TYPES[args.kv][1] / 8)

    def clear(self) -> None:
        llama_cpp.llama_memory_clear(self.memory, False)

    def feed(self, ids: list[int]) -> None:
        for start in range(0, len(ids), N_BATCH):
            part = ids[start : start + N_BATCH]
            tokens = (llama_cpp.llama_token * len(part))(*part)
            batch = llama_cpp.llama_batch_get_one(tokens, len(part))
            if status := llama_cpp.llama_decode(self.context, batch):
                raise RuntimeError(f"llama_decode: {status}")
        llama_cpp.llama_synchronize(self.context)

    def last_logits(self) -> list[float]:
        return self.last_logits_array().tolist()

    def last_logits_array(self) -> np.ndarray:
        pointer = llama_cpp.llama_get_logits_ith(self.context, -1)
        return np.ctypeslib.as_array(pointer, (self.vocab_size,))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--kv", choices=KV_TYPES, default="f16")
    parser.add_argument("--flash-attention", action="store_true")
    parser.add_argument("--no-repack", action="store_true", help="use the weights as they are mapped")
    return parser.parse_args()


def settings(args: argparse.Namespace, model: Llama) -> dict:
    # "CPU : SSE3 = 1 | SSSE3 = 1 | …"
    told = llama_cpp.llama_print_system_info().decode().partition(":")[2]
    features = [part.split("=")[0].strip() for part in told.split("|") if "= 1" in part]
    return {
        "version": f"llama-cpp-python {llama_cpp.__version__}",
        "build": " ".join(features),
        "kv": args.kv,
        "kv_bytes": model.kv_bytes,
        "flash_attention": args.flash_attention,
        "repack": not args.no_repack,
        "n_batch": N_BATCH,
        "file_bytes": os.path.getsize(args.file),
    }


def load() -> tuple[Llama, dict]:
    args = arguments()
    model = Llama(args)
    return model, settings(args, model)


if __name__ == "__main__":
    serve(load)
