#!/usr/bin/env python3
"""Writes engine/file/iq_tables.c: the grids of the IQ types, read out of a built libggml-base by decoding one block per
entry, so that what is written down is what the format's owner decodes.

    tools/make_iq_tables.py /path/to/libggml-base.so > engine/file/iq_tables.c
"""
import ctypes
import struct
import sys



class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool)]


lib = ctypes.CDLL(sys.argv[1])
lib.ggml_init.argtypes = [InitParams]
lib.ggml_init.restype = ctypes.c_void_p
lib.ggml_init(InitParams(1 << 20, None, False))  # fills its table of f16
ONE = struct.pack("<e", 1.0)


def decode(name, block):
    src = ctypes.create_string_buffer(block, len(block))
    out = (ctypes.c_float * 256)()
    getattr(lib, "dequantize_row_" + name)(src, out, ctypes.c_int64(256))
    return list(out)


def block(size, parts):
    b = bytearray(size)
    b[0:2] = ONE
    for at, value in parts.items():
        b[at] = value
    return bytes(b)


# name, entries, values per entry, bits per value, block of entry i, value -> level
GRIDS = [
    ("iq2xxs", "iq2_xxs", 256, 8, 2, lambda i: block(66, {2: i}), 0.125, [8, 25, 43]),
    ("iq2xs", "iq2_xs", 512, 8, 2, lambda i: block(74, {2: i & 255, 3: i >> 8}), 0.125, [8, 25, 43]),
    ("iq2s", "iq2_s", 1024, 8, 2, lambda i: block(82, {2: i & 255, 66: i >> 8}), 0.125, [8, 25, 43]),
    ("iq3xxs", "iq3_xxs", 256, 4, 3, lambda i: block(98, {2: i}), 0.25, [4, 12, 20, 28, 36, 44, 52, 62]),
    ("iq3s", "iq3_s", 512, 4, 3, lambda i: block(110, {2: i & 255, 66: i >> 8}), 1.0, [1, 3, 5, 7, 9, 11, 13, 15]),
    ("iq1s", "iq1_s", 2048, 8, 2, lambda i: block(50, {2: i & 255, 34: i >> 8}), 0.125, [-7, 1, 9]),
]

print("""/* iq_tables.c: the grids of the IQ types. Written by tools/make_iq_tables.py; not to be edited.
 *
 * An entry is a point of a lattice: levels of 4 or 8 values, the first in the lowest bits. */
#include "engine/file/iq_tables.h"
""")
for table, name, n, per, bits, make, unit, levels in GRIDS:
    print("const uint16_t eng_grid_%s[%d] = {" % (table, n))
    entries = []
    for i in range(n):
        y = decode(name, make(i))[:per]
        entries.append(sum(levels.index(round(v / unit)) << (bits * j) for j, v in enumerate(y)))
    for i in range(0, n, 12):
        print("    " + " ".join("0x%04x," % e for e in entries[i:i + 12]))
    print("};")
