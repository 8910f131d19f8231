"""What llama.cpp's `llama-imatrix` measures: for each matrix the mean square of every input, over a text."""

from pathlib import Path

import numpy as np

from .documents import ids_of
from .gguf_model import tensor_name


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
