#!/usr/bin/env python3
"""A model and a tokenizer for distributed-llama with made-up weights, to be measured beside a GGUF file of the same shape (tools/make_model).

  tests/bench/dllama_model.py OUT.m OUT.t [--layers 22 --width 2048 --heads 32 --kv-heads 4 --ffn 5632 --vocab 32000]

Its format, as its converter writes it: pairs of key and value, then the embedding in f32, each layer's q, k, v, o, gate, down, up in Q40 (blocks of
32: an f16 scale, 16 bytes) with two norms in f32, the last norm, the output matrix."""
import argparse
import os
import struct

BLOCKS = 1 << 14


def q40(f, n):
    """n values: the same run of random blocks over and over, with a scale that keeps activations small."""
    run = b"".join(struct.pack("<e", 0.002) + os.urandom(16) for _ in range(BLOCKS))
    whole = n // 32 * 18
    for at in range(0, whole, len(run)):
        f.write(run[:min(len(run), whole - at)])


def f32(f, n, value):
    one = struct.pack("<f", value) * min(n, 1 << 16)
    for at in range(0, n * 4, len(one)):
        f.write(one[:min(len(one), n * 4 - at)])


def pairs(magic, values):
    data = b"".join(struct.pack("<ii", k, v) for k, v in values)
    return struct.pack("<ii", magic, 8 + len(data)) + data


def model(a):
    head = a.width // a.heads
    with open(a.model, "wb") as f:
        f.write(pairs(0xA00ABCD, [(0, 0), (1, 0xABCD00), (2, a.width), (3, a.ffn), (4, a.layers), (5, a.heads), (6, a.kv_heads), (7, 0), (8, 0), (9, a.vocab),
                                  (10, 2048), (11, 1), (12, 10000), (13, 2), (20, 5)]))
        f32(f, a.vocab * a.width, 0.01)
        for _ in range(a.layers):
            for rows, cols in ((a.width, a.width), (head * a.kv_heads, a.width), (head * a.kv_heads, a.width), (a.width, a.width), (a.ffn, a.width),
                               (a.width, a.ffn), (a.ffn, a.width)):
                q40(f, rows * cols)
            f32(f, a.width, 1)
            f32(f, a.width, 1)
        f32(f, a.width, 1)
        q40(f, a.vocab * a.width)


def tokenizer(a):
    words = [bytes([i]) if 32 <= i < 127 else b"<%d>" % i for i in range(a.vocab)]  # no half of a character: its decoder ends at such
    with open(a.tokenizer, "wb") as f:
        f.write(pairs(0x567124, [(3, a.vocab - 2), (0, 1), (1, len(words)), (2, max(map(len, words))), (9, 1), (10, 0)]))
        f.write(struct.pack("<i", a.vocab - 1))
        for w in words:
            f.write(struct.pack("<fI", 0.0, len(w)) + w)


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("model")
    p.add_argument("tokenizer")
    for name, value in (("layers", 22), ("width", 2048), ("heads", 32), ("kv-heads", 4), ("ffn", 5632), ("vocab", 32000)):
        p.add_argument("--" + name, type=int, default=value)
    args = p.parse_args()
    model(args)
    tokenizer(args)
