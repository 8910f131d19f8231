"""llama.cpp, by its C API: `python -m peers.workers.llama FILE --threads N …`"""

import argparse
import ctypes

import llama_cpp

from .protocol import serve

KV_TYPES = {"f32": 0, "f16": 1, "q8_0": 8}
N_CTX, N_BATCH = 1024, 512


class Llama:
    def __init__(self, path: str, threads: int, kv: str, flash_attention: bool):
        llama_cpp.llama_backend_init()
        model_params = llama_cpp.llama_model_default_params()
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), model_params)
        if not self.model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = N_CTX
        params.n_batch = params.n_ubatch = N_BATCH
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = KV_TYPES[kv]
        params.flash_attn_type = int(flash_attention)
        params.no_perf = True
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp refuses kv {kv}, flash attention {flash_attention}")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.n_ctx = N_CTX

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


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--kv", choices=KV_TYPES, default="f16")
    parser.add_argument("--flash-attention", action="store_true")
    return parser.parse_args()


def load():
    args = arguments()
    model = Llama(args.file, args.threads, args.kv, args.flash_attention)
    settings = {
        "version": llama_cpp.__version__,
        "system": llama_cpp.llama_print_system_info().decode(),
        "kv": args.kv,
        "flash_attention": args.flash_attention,
    }
    return model, settings


if __name__ == "__main__":
    serve(load)
