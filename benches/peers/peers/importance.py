"""What llama.cpp's `llama-imatrix` measures: for each matrix the mean square of every input, over a text."""

from pathlib import Path

import numpy as np

from .gguf_model import tensor_name

END = "<|endoftext|>"


def ids_of(checkpoint: Path, text: str) -> list[int]:
    """Each document behind the token that ends texts."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    end = tokenizer.token_to_id(END)
    documents = [part.strip("\n") for part in text.split(END)]
    ids: list[int] = []
    for encoded in tokenizer.encode_batch([part for part in documents if part.strip()]):
        ids += [*([] if end is None else [end]), *encoded.ids]
    return ids


def importance(checkpoint: Path, text: str, windows_at_once: int = 4) -> dict[str, np.ndarray]:
    """By GGUF's names. As with `llama-imatrix`, not for the head, and windows are the whole context."""
    import torch
    from transformers import GPT2LMHeadModel
    from transformers.pytorch_utils import Conv1D

    model = GPT2LMHeadModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    squares: dict[str, torch.Tensor] = {}
    rows = 0

    def watch(name: str):
        def see(module, inputs) -> None:
            flat = inputs[0].reshape(-1, inputs[0].shape[-1])
            squares[name] = squares.get(name, 0) + flat.square().sum(0, dtype=torch.float64)

        return see

    for name, module in model.named_modules():
        if isinstance(module, Conv1D):
            module.register_forward_pre_hook(watch(tensor_name(f"{name}.weight")))
    length = model.config.n_positions
    ids = ids_of(checkpoint, text)
    ids = torch.tensor(ids[: max(len(ids) // length, 1) * length])
    with torch.no_grad():
        for batch in ids.reshape(-1, min(length, len(ids))).split(windows_at_once):
            model.transformer(batch, use_cache=False)
            rows += batch.numel()
    return {name: (sum_ / rows).numpy().astype(np.float32) for name, sum_ in squares.items()}
