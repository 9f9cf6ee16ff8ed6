#!/usr/bin/env python3
"""Writes blocks.inc: for each type the FNV-1a sum of the values of 512 blocks of random bytes, as a built libggml-base
decodes them (tests/file/test_dequant.c makes the same bytes). MXFP4, which older ones do not have, follows the
definition of the OCP Microscaling formats: FP4 E2M1 values times 2^(e - 127).

    tests/file/golden/make_blocks.py /path/to/libggml-base.so > tests/file/golden/blocks.inc
"""
import ctypes
import struct
import sys

MASK = (1 << 64) - 1
BLOCKS, SEED = 512, 99


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


lib = ctypes.CDLL(sys.argv[1])
lib.ggml_init.argtypes = [InitParams]
lib.ggml_init.restype = ctypes.c_void_p
lib.ggml_init(InitParams(1 << 20, None, False))  # fills its table of f16


def mix(x):  # splitmix64: base/rng.h
    x = (x + 0x9E3779B97F4A7C15) & MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


FP4 = [0, 0.5, 1, 1.5, 2, 3, 4, 6]


def mxfp4(p):
    codes = [b & 15 for b in p[1:]] + [b >> 4 for b in p[1:]]
    values = [(-FP4[c & 7] if c & 8 else FP4[c]) * 2.0 ** (p[0] - 127) for c in codes]
    return struct.pack("<32f", *[v + 0.0 for v in values])  # no negative zero


def ggml(name, p, n):
    src = ctypes.create_string_buffer(p, len(p))
    out = (ctypes.c_float * n)()
    getattr(lib, "dequantize_row_" + name)(src, out, ctypes.c_int64(n))
    return bytes(out)


# our name, ggml's number and name, values, bytes, upper bytes of f16 numbers
TYPES = [
    ("Q4_0", 2, "q4_0", 32, 18, [1]), ("Q4_1", 3, "q4_1", 32, 20, [1, 3]), ("Q5_0", 6, "q5_0", 32, 22, [1]),
    ("Q5_1", 7, "q5_1", 32, 24, [1, 3]), ("Q8_0", 8, "q8_0", 32, 34, [1]), ("Q2_K", 10, "q2_K", 256, 84, [81, 83]),
    ("Q3_K", 11, "q3_K", 256, 110, [109]), ("Q4_K", 12, "q4_K", 256, 144, [1, 3]),
    ("Q5_K", 13, "q5_K", 256, 176, [1, 3]), ("Q6_K", 14, "q6_K", 256, 210, [209]),
    ("IQ2_XXS", 16, "iq2_xxs", 256, 66, [1]), ("IQ2_XS", 17, "iq2_xs", 256, 74, [1]),
    ("IQ3_XXS", 18, "iq3_xxs", 256, 98, [1]), ("IQ1_S", 19, "iq1_s", 256, 50, [1]),
    ("IQ4_NL", 20, "iq4_nl", 32, 18, [1]), ("IQ3_S", 21, "iq3_s", 256, 110, [1]),
    ("IQ2_S", 22, "iq2_s", 256, 82, [1]), ("IQ4_XS", 23, "iq4_xs", 256, 136, [1]),
    ("IQ1_M", 29, "iq1_m", 256, 56, [55]), ("TQ1_0", 34, "tq1_0", 256, 54, [53]),
    ("TQ2_0", 35, "tq2_0", 256, 66, [65]), ("MXFP4", 39, None, 32, 17, []),
]
print("/* Written by make_blocks.py; not to be edited. */")
for ours, number, name, n, size, uppers in TYPES:
    total, at = 0xCBF29CE484222325, 0
    for _ in range(BLOCKS):
        p = bytearray(mix(((number << 32 | SEED << 24) + at + k) & MASK) & 255 for k in range(size))
        at += size
        for u in uppers:
            p[u] &= 0xBF
        if not name:
            p[0] = min(p[0], 250)
        for (bits,) in struct.iter_unpack("<I", mxfp4(bytes(p)) if not name else ggml(name, bytes(p), n)):
            total = ((total ^ bits) * 0x100000001B3) & MASK
    print("GOLDEN(%s, 0x%016x)" % (ours, total))
