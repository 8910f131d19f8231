#!/usr/bin/env python3
"""Reads a .pgpt file: a second reader, written from format.md. Needs numpy.

    python3 docs/read_pgpt.py MODEL.pgpt            lists the tensors
    python3 docs/read_pgpt.py MODEL.pgpt OUT.npz    writes them, dequantized, row after row
"""
import json
import struct
import sys
import zlib

import numpy as np

ROLES = {0: "wte.weight", 1: "wpe.weight", 2: "ln_f.weight", 3: "ln_f.bias", 4: "lm_head.weight",
         16: "ln_1.weight", 17: "ln_1.bias", 18: "attn.c_attn.weight", 19: "attn.c_attn.bias",
         20: "attn.c_proj.weight", 21: "attn.c_proj.bias", 22: "ln_2.weight", 23: "ln_2.bias",
         24: "mlp.c_fc.weight", 25: "mlp.c_fc.bias", 26: "mlp.c_proj.weight", 27: "mlp.c_proj.bias"}
ENCODINGS = ["f32", "f16", "q8", "q4", "q3"]
CONFIG = ["vocab_size", "n_ctx", "n_embd", "n_layer", "n_head", "n_inner", "activation", "flags",
          "layer_norm_epsilon", "bos_token_id", "eos_token_id"]


def up(n, to):
    return -(-n // to) * to


def dequantize(data, encoding, packing, rows, cols):
    """Bytes of a tensor to [rows, cols] f32."""
    floats = {"f32": "<f4", "f16": "<f2"}.get(encoding)
    if packing == 0:
        return np.frombuffer(data, floats).astype(np.float32).reshape(rows, cols)
    blocks, groups = up(rows, 16) // 16, up(cols, 32) // 32
    records = np.frombuffer(data, np.uint8).reshape(blocks, -1)
    if floats:  # [blocks, cols, 16]
        used = 16 * cols * np.dtype(floats).itemsize
        w = np.ascontiguousarray(records[:, :used]).view(floats).reshape(blocks, cols, 16)
        return w.transpose(0, 2, 1).reshape(blocks * 16, cols)[:rows].astype(np.float32)
    s = np.ascontiguousarray(records[:, :64]).view("<f4").reshape(blocks, 16, 1, 1)
    b = records[:, 64:64 + 16 * groups]
    b = b if encoding == "q8" else b.view(np.int8)  # [blocks, groups, 16] -> [blocks, 16, groups]
    b = b.reshape(blocks, groups, 16).transpose(0, 2, 1)[..., None].astype(np.float32)
    w = records[:, 64 + up(16 * groups, 64):]
    if encoding == "q8":  # [blocks, cols / 4, 16, 4]
        q = w.view(np.int8).reshape(blocks, groups * 8, 16, 4)
    elif encoding == "q3":  # [blocks, groups, 3, 16, 4], two of three bits; the fourth in the last bits
        w = w.reshape(blocks, groups, 3, 16, 4)
        last = sum((w[:, :, i:i + 1] >> 3 & 17) << i for i in range(3))
        w = np.concatenate([w, last], axis=2).reshape(blocks, groups * 4, 16, 1, 4)
        q = np.concatenate([w & 7, w >> 4 & 7], axis=3).astype(np.int8) - 4
    else:  # [blocks, cols / 8, 16, 4], two nibbles -> [blocks, cols / 8, 16, 2, 4]
        w = w.reshape(blocks, groups * 4, 16, 1, 4)
        q = np.concatenate([w & 15, w >> 4], axis=3).astype(np.int8) - 8
    q = q.swapaxes(1, 2).reshape(blocks, 16, groups, 32).astype(np.float32)
    return (q * b * s).reshape(blocks * 16, groups * 32)[:rows, :cols]


class Tokenizer:
    def __init__(self, data):
        version, kind, flags, n_tokens, n_merges, n_added, blob_len = struct.unpack_from("<HHIIIII", data)
        assert (version, kind) == (1, 1) and len(data) == 1096 + 8 * (n_tokens + n_merges + n_added) + blob_len
        at = 64

        def table(dtype, count):
            nonlocal at
            at += count * np.dtype(dtype).itemsize
            return np.frombuffer(data, dtype, count, at - count * np.dtype(dtype).itemsize)

        self.add_prefix_space = flags & 1 == 1
        self.byte_ids = table("<u4", 256)
        offsets = table("<u4", n_tokens + 1)
        self.merge_index = table("<u4", n_tokens + 1)
        merges = table("<u8", n_merges)
        self.merged, self.rank, self.right = merges & 0x1FFFFF, merges >> 21 & 0x1FFFFF, merges >> 42
        added = table("<u4", 2 * n_added).reshape(-1, 2)
        self.tokens = [data[at + a:at + b] for a, b in zip(offsets[:-1].tolist(), offsets[1:].tolist())]
        self.added = {self.tokens[id]: (int(id), int(flags)) for id, flags in added}

    def merge(self, left, right):
        """(rank, id) of what two neighbours become, or None: a binary search."""
        first, end = self.merge_index[left:left + 2].tolist()
        i = first + int(np.searchsorted(self.right[first:end], right))
        return (int(self.rank[i]), int(self.merged[i])) if i < end and self.right[i] == right else None

    def word(self, data):
        """Ids of one word: lowest rank first, leftmost of equal ranks."""
        ids = [int(self.byte_ids[byte]) for byte in data]
        while True:
            found = ((self.merge(*pair), at) for at, pair in enumerate(zip(ids, ids[1:])))
            best = min(((m[0], at, m[1]) for m, at in found if m), default=None)
            if best is None:
                return ids
            ids[best[1]:best[1] + 2] = [best[2]]


def read(path):
    """(config, metadata, tokenizer or None, [(role, layer, encoding, array)])"""
    with open(path, "rb") as file:
        data = file.read()
    magic, version, file_len = struct.unpack_from("<4sIQ", data)
    assert magic == b"PGPT" and version == 1 and file_len == len(data)
    assert zlib.crc32(data[:124]) == struct.unpack_from("<I", data, 124)[0]
    spans = [struct.unpack_from("<QQ", data, 16 + 16 * i) for i in range(5)]
    sections = [data[offset:offset + length] for offset, length in spans[:4]]
    assert [zlib.crc32(s) for s in sections] == list(struct.unpack_from("<4I", data, 96))
    config = dict(zip(CONFIG, struct.unpack_from("<8IfII", sections[0])))
    tensors = []
    for at in range(0, 64 * struct.unpack_from("<I", data, 112)[0], 64):
        role, layer, encoding, packing, group, rows, cols, offset, length, crc, codebook = \
            struct.unpack_from("<HHBBHIIQQII", sections[1], at)
        assert encoding < 5 and packing < 2 and group == (32 if encoding > 1 else 0) and codebook == 0
        raw = data[offset:offset + length]
        assert zlib.crc32(raw) == crc
        name = ENCODINGS[encoding]
        layer = None if layer == 0xFFFF else layer
        tensors.append((ROLES[role], layer, name, dequantize(raw, name, packing, rows, cols)))
    tokenizer = Tokenizer(sections[2]) if sections[2] else None
    return config, sections[3].decode(), tokenizer, tensors


if __name__ == "__main__":
    config, metadata, tokenizer, tensors = read(sys.argv[1])
    print(json.dumps(config), metadata.strip(), f"{len(tokenizer.tokens) if tokenizer else 0} tokens", sep="\n")
    named = {role if layer is None else f"h.{layer}.{role}": array for role, layer, _, array in tensors}
    for (_, _, encoding, array), name in zip(tensors, named):
        print(f"{name:28} {encoding} {'x'.join(map(str, array.shape)):>12} {array.flat[0]:+.6f}")
    if len(sys.argv) > 2:
        np.savez(sys.argv[2], **named)
