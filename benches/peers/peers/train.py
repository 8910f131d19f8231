"""Trains a small GPT-2 on the sources of Python's standard library: `benches/peers/train -o DIR`

A second model and a second kind of text, to see whether what quantization loses on the bundled model is a
property of that model. Everything comes from the Python that runs this: nothing is downloaded. In the folder
lie a Hugging Face checkpoint, and `train.txt`, `calibration.txt` and `valid.txt`, of different files.
"""

import argparse
import json
import math
import shutil
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING

from . import cpu
from .documents import END, ids_of
from .options import REPOSITORY

if TYPE_CHECKING:
    import numpy as np

TOKENIZER = REPOSITORY / "examples" / "model"
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "special_tokens_map.json")
# Folders that are not the library's own prose and code.
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idlelib", "__pycache__", "lib2to3"}
# One file in so many is kept for each of valid.txt and calibration.txt.
KEPT_EVERY = 12
# As many characters of each: some 60,000 tokens, of a tokenizer that was made for stories.
TEXT_BYTES = 100_000
# Windows of valid.txt that tell whether the model has learned anything.
JUDGED_WINDOWS = 64


def sources(folder: Path) -> list[Path]:
    """The library's files, in an order that does not depend on the file system."""
    found = (path for path in folder.rglob("*.py") if not SKIPPED & set(path.relative_to(folder).parts))
    return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


def split(texts: list[str], kept_every: int = KEPT_EVERY) -> dict[str, list[str]]:
    """Which file goes where; no file is in two of them."""
    parts: dict[str, list[str]] = {"train": [], "calibration": [], "valid": []}
    for i, text in enumerate(texts):
        name = {kept_every // 2: "calibration", kept_every - 1: "valid"}.get(i % kept_every, "train")
        parts[name].append(text)
    return parts


def joined(texts: list[str], most: int | None = None) -> str:
    """Documents with separators between; about `most` characters, from all parts of all of them."""
    if most is not None:
        share = most // max(len(texts), 1)
        spare = sorted(texts, key=len)
        left = most
        for i, text in enumerate(spare):
            share = left // (len(spare) - i)
            if len(text) >= share:
                break
            left -= len(text)
        texts = [text[:share] for text in texts]
    return f"\n{END}\n".join(text.strip("\n") for text in texts) + "\n"


def write_texts(folder: Path) -> dict[str, str]:
    library = Path(sysconfig.get_path("stdlib"))
    texts = [path.read_text(encoding="utf-8", errors="ignore") for path in sources(library)]
    parts = split([text for text in texts if len(text) > 500])
    result = {
        name: joined(texts, None if name == "train" else TEXT_BYTES) for name, texts in parts.items()
    }
    for name, text in result.items():
        (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return result


def unigram_perplexity(counted: "np.ndarray", measured: "np.ndarray", vocab_size: int) -> float:
    """Of predicting each token by nothing but how often it comes: what a model must be far below to be one."""
    import numpy as np

    counts = np.bincount(counted, minlength=vocab_size) + 0.5
    return float(np.exp(-np.log(counts / counts.sum())[measured].mean()))


def perplexity(model, ids: "np.ndarray", length: int) -> float:
    """Of the first windows, without overlap: rough, `pocketgpt perplexity` has the exact one."""
    import numpy as np
    import torch

    count = min(len(ids) // length, JUDGED_WINDOWS)
    windows = torch.from_numpy(ids[: count * length].reshape(count, length))
    with torch.no_grad():
        losses = [model(part, labels=part).loss.item() for part in windows.split(1)]
    return float(np.exp(np.mean(losses)))


def train(options: argparse.Namespace, ids: "np.ndarray", valid: "np.ndarray") -> dict[str, float]:
    import numpy as np
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    generator = np.random.default_rng(options.seed)
    vocab_size = len(json.loads((TOKENIZER / "vocab.json").read_text()))
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=vocab_size,
            n_positions=options.n_positions,
            n_embd=options.n_embd,
            n_layer=options.n_layer,
            n_head=options.n_head,
            bos_token_id=vocab_size - 1,
            eos_token_id=vocab_size - 1,
            **dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0),
        )
    )
    decayed = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95))
    begun, done, tokens, loss_mean = time.process_time(), 0.0, 0, float("nan")
    step = 0
    # Products in bfloat16 are three times as fast where the CPU has them, and many times slower where not.
    halved = torch.autocast("cpu", torch.bfloat16, enabled=cpu.has("avx512_bf16") or cpu.has("amx_bf16"))
    while done < 1:
        # Warm up for a fiftieth of the time, then along a cosine to a twentieth.
        rate = min(done * 50 + 0.02, 0.05 + 0.475 * (1 + math.cos(math.pi * done)))
        for group in optimizer.param_groups:
            group["lr"] = options.rate * rate
        starts = generator.integers(0, len(ids) - options.length - 1, options.batch)
        batch = torch.from_numpy(np.stack([ids[at : at + options.length] for at in starts]))
        with halved:
            loss = model(batch, labels=batch).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step, tokens = step + 1, tokens + batch.numel()
        loss_mean = loss.item() if step == 1 else 0.98 * loss_mean + 0.02 * loss.item()
        done = (time.process_time() - begun) / (60 * options.minutes)
        if step % 50 == 0:
            print(f"{100 * done:.0f} %, {tokens} tokens, loss {loss_mean:.3f}", flush=True)
    model.save_pretrained(options.output)
    # llama.cpp asks for what transformers no longer writes.
    path = options.output / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "n_ctx": options.n_positions}, indent=2) + "\n")
    seconds = time.process_time() - begun
    return {
        "tokens": tokens,
        "loss": loss_mean,
        "seconds": seconds,
        "valid_perplexity": perplexity(model, valid, options.length),
        "unigram_perplexity": unigram_perplexity(ids, valid, vocab_size),
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benches/peers/train", description=__doc__.partition("\n")[0])
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="DIR")
    parser.add_argument("--minutes", type=float, default=20, help="processor time [%(default)s]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--n-embd", type=int, default=512, help="a multiple of 256, for llama.cpp's K formats")
    parser.add_argument("--n-layer", type=int, default=3)
    parser.add_argument("--n-head", type=int, default=8)
    parser.add_argument("--n-positions", type=int, default=256)
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=1)
    return parser.parse_args(arguments)


def main() -> None:
    options = parse()
    import numpy as np

    options.output.mkdir(parents=True, exist_ok=True)
    texts = write_texts(options.output)
    ids, valid = (np.array(ids_of(TOKENIZER, texts[name]), np.int64) for name in ("train", "valid"))
    print(f"{len(ids)} tokens of text", flush=True)
    for name in TOKENIZER_FILES:
        shutil.copy(TOKENIZER / name, options.output / name)
    print(json.dumps(train(options, ids, valid)))


if __name__ == "__main__":
    main()
