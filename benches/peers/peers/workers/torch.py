"""torch with transformers: `python -m peers.workers.torch FOLDER --threads N --type float32|bfloat16|int8`

Calls the model step by step: `generate()` does the same with more around it, and is slower.
"""

import argparse

import torch
import transformers
from transformers import DynamicCache, GPT2LMHeadModel
from transformers.pytorch_utils import Conv1D

from .protocol import StepModel, serve


class Transformer(StepModel):
    def __init__(self, path: str, threads: int, kind: str):
        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        dtype = torch.bfloat16 if kind == "bfloat16" else torch.float32
        self.model = GPT2LMHeadModel.from_pretrained(path, dtype=dtype).eval()
        if kind == "int8":
            self.model = dynamic_int8(self.model)
        self.vocab_size = self.model.config.vocab_size
        self.clear()

    def clear(self) -> None:
        self.cache = DynamicCache()

    @torch.inference_mode()
    def feed(self, ids: list[int]) -> None:
        tokens = torch.tensor([ids])
        out = self.model(tokens, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        self.out = out.logits

    def last_logits(self) -> list[float]:
        return self.out[0, -1].float().tolist()


def dynamic_int8(model: GPT2LMHeadModel) -> torch.nn.Module:
    """Weights int8, activations quantized as they come. torch knows Linear, not GPT-2's Conv1D."""
    replace_conv1d(model)
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
    return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)


def replace_conv1d(module: torch.nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, Conv1D):
            linear = torch.nn.Linear(*child.weight.shape)
            linear.weight = torch.nn.Parameter(child.weight.T.contiguous())
            linear.bias = child.bias
            setattr(module, name, linear)
        else:
            replace_conv1d(child)


def load():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--type", choices=["float32", "bfloat16", "int8"], default="float32")
    parser.add_argument("--engine", choices=["fbgemm", "onednn"], default="fbgemm")
    args = parser.parse_args()
    torch.backends.quantized.engine = args.engine
    model = Transformer(args.file, args.threads, args.type)
    settings = {
        "version": f"{torch.__version__}, transformers {transformers.__version__}",
        "type": args.type,
        "attention": "sdpa",
        "loop": "eager",
    }
    if args.type == "int8":
        settings["engine"] = args.engine
    return model, settings


if __name__ == "__main__":
    serve(load)
