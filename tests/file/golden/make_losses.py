#!/usr/bin/env python3
"""Writes losses.inc: what a built libggml-base loses when it quantises seeded rows, bell-shaped and heavy-tailed, plain
and by importance: the sum of (importance x) squared differences. tests/file/test_encode.c makes the same rows.

    tests/file/golden/make_losses.py /path/to/libggml-base.so > tests/file/golden/losses.inc
"""
import ctypes
import math
import struct
import sys

MASK = (1 << 64) - 1
ROWS, COLS, SEED = 32, 1024, 4711
TYPES = [("Q4_0", 2), ("Q4_1", 3), ("Q5_0", 6), ("Q5_1", 7), ("Q8_0", 8), ("Q2_K", 10), ("Q3_K", 11), ("Q4_K", 12),
         ("Q5_K", 13), ("Q6_K", 14), ("IQ4_NL", 20), ("IQ4_XS", 23)]


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


lib = ctypes.CDLL(sys.argv[1])
lib.ggml_init.argtypes = [InitParams]
lib.ggml_init.restype = ctypes.c_void_p
lib.ggml_init(InitParams(1 << 20, None, False))  # fills its table of f16
lib.ggml_quantize_chunk.restype = ctypes.c_size_t


def mix(x):  # splitmix64: base/rng.h
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


class Stream:
    def __init__(self, key):
        self.at = key << 32

    def normal(self):  # twelve uniforms of 16 bits
        total = 0
        for _ in range(3):
            bits = mix(self.at)
            self.at += 1
            total += sum(bits >> s & 0xFFFF for s in (0, 16, 32, 48))
        return (total + 6) / 65536 - 6


def f32(v):
    return struct.unpack("<f", struct.pack("<f", v))[0]


def rows(heavy):
    s = Stream(SEED + heavy)
    out = []
    for _ in range(ROWS * COLS):
        x = s.normal()
        if heavy:  # Student's t, three degrees
            a, b, c = s.normal(), s.normal(), s.normal()
            x = x / math.sqrt((a * a + b * b + c * c) / 3)
        out.append(f32(x * 0.03125))
    return out


def importance():
    s = Stream(SEED + 2)
    return [f32(s.normal() ** 2 + 0.01) for _ in range(COLS)]


weights = importance()
print("/* Written by make_losses.py; not to be edited. Type, bell-shaped plain and by importance, heavy-tailed likewise. */")
tables = [rows(0), rows(1)]
for name, number in TYPES:
    figures = []
    for x in tables:
        for w in (None, weights):
            n = ROWS * COLS
            src = (ctypes.c_float * n)(*x)
            dst = ctypes.create_string_buffer(n * 4)
            imatrix = (ctypes.c_float * COLS)(*w) if w else None
            lib.ggml_quantize_chunk(number, src, dst, ctypes.c_int64(0), ctypes.c_int64(ROWS), ctypes.c_int64(COLS), imatrix)
            back = (ctypes.c_float * n)()
            fn = {2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 10: "q2_K", 11: "q3_K", 12: "q4_K", 13: "q5_K",
                  14: "q6_K", 20: "iq4_nl", 23: "iq4_xs"}[number]
            getattr(lib, "dequantize_row_" + fn)(dst, back, ctypes.c_int64(n))
            figures.append(sum((w[i % COLS] if w else 1) * (x[i] - back[i]) ** 2 for i in range(n)))
    print("LOSS(%s, %s)" % (name, ", ".join("%.6e" % f for f in figures)))
