"""Writes a GPT-2 checkpoint as GGUF, and lets llama.cpp quantize it.

llama.cpp's own converter refuses a tokenizer that it does not know, and that of a random model is one;
names, shapes and metadata here are those that it writes for GPT-2.
"""

import ctypes
import json
from pathlib import Path

import gguf
import numpy as np
from safetensors import safe_open

# llama_ftype of llama.h
FILE_TYPES = {
    "q4_0": 2,
    "q8_0": 7,
    "q3_k_m": 12,
    "q4_k_s": 14,
    "q4_k_m": 15,
    "q5_k_m": 17,
    "q6_k": 18,
    "iq4_nl": 25,
    "iq4_xs": 30,
}

LAYER_NAMES = {
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
TOP_NAMES = {
    "wte.weight": "token_embd.weight",
    "wpe.weight": "position_embd.weight",
    "ln_f.weight": "output_norm.weight",
    "ln_f.bias": "output_norm.bias",
    "lm_head.weight": "output.weight",
}


def tensor_name(name: str) -> str | None:
    """GGUF's name of a tensor, None if the checkpoint only keeps it for old programs."""
    name = name.removeprefix("transformer.")
    if name in TOP_NAMES:
        return TOP_NAMES[name]
    if name.endswith((".attn.bias", ".attn.masked_bias")):
        return None
    _, layer, *path, kind = name.split(".")
    return f"blk.{layer}.{LAYER_NAMES['.'.join(path)]}.{kind}"


def tensor_data(name: str, data: np.ndarray) -> np.ndarray:
    """Matrices of Conv1D are [in, out]; GGUF wants [out, in]."""
    is_conv1d = data.ndim == 2 and (".attn.c_" in name or ".mlp.c_" in name)
    return np.ascontiguousarray((data.T if is_conv1d else data).astype(np.float32))


def write_f32(checkpoint: Path, target: Path) -> None:
    """Converts a Hugging Face folder (single file) without loss."""
    config = json.loads((checkpoint / "config.json").read_text())
    writer = gguf.GGUFWriter(target, "gpt2")
    writer.add_name(checkpoint.name)
    writer.add_block_count(config["n_layer"])
    writer.add_context_length(config["n_positions"])
    writer.add_embedding_length(config["n_embd"])
    writer.add_feed_forward_length(config.get("n_inner") or 4 * config["n_embd"])
    writer.add_head_count(config["n_head"])
    writer.add_layer_norm_eps(config["layer_norm_epsilon"])
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    add_tokenizer(writer, checkpoint)
    with safe_open(checkpoint / "model.safetensors", "np") as tensors:
        for name in tensors.keys():
            target_name = tensor_name(name)
            if target_name is not None:
                writer.add_tensor(target_name, tensor_data(name, tensors.get_tensor(name)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def add_tokenizer(writer: gguf.GGUFWriter, checkpoint: Path) -> None:
    tokenizer = json.loads((checkpoint / "tokenizer.json").read_text())
    tokens = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    special = {token["content"] for token in tokenizer["added_tokens"]}
    kinds = [gguf.TokenType.CONTROL if t in special else gguf.TokenType.NORMAL for t in tokens]
    merges = [m if isinstance(m, str) else " ".join(m) for m in tokenizer["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    end = tokenizer["model"]["vocab"].get("<|endoftext|>", len(tokens) - 1)
    writer.add_bos_token_id(end)
    writer.add_eos_token_id(end)


def quantize(
    source: Path,
    target: Path,
    kind: str,
    pure: bool = False,
    importance: dict[str, np.ndarray] | None = None,
) -> None:
    """llama.cpp's own quantization, as its llama-quantize does it.

    `importance` is what its `--imatrix` reads: by GGUF's name of a matrix, the mean square of each input.
    """
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = FILE_TYPES[kind]
    params.pure = pure
    kept = {name: np.ascontiguousarray(x, np.float32) for name, x in (importance or {}).items()}
    if kept:
        floats = ctypes.POINTER(ctypes.c_float)
        # The last one has no name: the end.
        entries = (llama_cpp.llama_model_imatrix_data * (len(kept) + 1))()
        for entry, (name, x) in zip(entries, kept.items()):
            entry.name, entry.data, entry.size = name.encode(), x.ctypes.data_as(floats), x.size
        params.imatrix = entries
    failed = llama_cpp.llama_model_quantize(
        str(source).encode(), str(target).encode(), ctypes.byref(params)
    )
    if failed:
        raise RuntimeError(f"llama.cpp cannot quantize {source} to {kind}")
