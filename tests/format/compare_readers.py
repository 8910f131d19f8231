#!/usr/bin/env python3
"""Compares docs/read_pgpt.py with the runtime, bit for bit. Needs numpy and cargo.

    python3 tests/format/compare_readers.py MODEL.pgpt...

The runtime's numbers come from `cargo run --example dump_tensors`; `--dump PROGRAM` names it built.
Tokens are compared as well, and the ids of a text in ASCII: the classes of other letters are
`pretokenize.rs`'s business, not the file's.
"""
import argparse
import pathlib
import re
import struct
import subprocess
import sys
import tempfile

import numpy as np

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "docs"))
import read_pgpt  # noqa: E402

TEXT = "Hello, hello!  The quick brown fox's 12 dogs aren't\n\n  here... xyzzy_42 \t(well, maybe)"
WORDS = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", re.ASCII)


def compare(path, dump):
    config, _, tokenizer, tensors = read_pgpt.read(path)
    with tempfile.TemporaryDirectory() as folder:
        out = pathlib.Path(folder) / "dump"
        subprocess.run([*dump, path, out, TEXT], check=True, cwd=REPOSITORY)
        data = out.read_bytes()
    at = 0
    for role, layer, _, array in tensors:
        theirs = np.frombuffer(data, "<u4", array.size, at)
        ours = np.ascontiguousarray(array).view(np.uint32).reshape(-1)
        assert np.array_equal(ours, theirs), f"{path}: {role} of layer {layer} differs"
        at += 4 * array.size
    ids = []
    if tokenizer:
        for token in tokenizer.tokens:
            length = struct.unpack_from("<I", data, at)[0]
            assert data[at + 4:at + 4 + length] == token, f"{path}: token {token}"
            at += 4 + length
        text = " " + TEXT if tokenizer.add_prefix_space else TEXT
        ids = [id for word in WORDS.findall(text) for id in tokenizer.word(word.encode())]
        assert ids == np.frombuffer(data, "<u4", len(ids), at).tolist(), f"{path}: ids of the text"
        at += 4 * len(ids)
    assert at == len(data), f"{path}: the runtime has more"
    weights = sum(array.size for _, _, _, array in tensors)
    print(f"{path}: {len(tensors)} tensors, {weights} numbers, {len(ids)} ids of a text: the same bits")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("models", nargs="+")
    parser.add_argument("--dump", help="a built dump_tensors")
    args = parser.parse_args()
    cargo = ["cargo", "run", "-q", "-p", "pocketgpt-runtime", "--example", "dump_tensors", "--"]
    for model in args.models:
        compare(str(pathlib.Path(model).resolve()), [args.dump] if args.dump else cargo)
