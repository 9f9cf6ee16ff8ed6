#!/usr/bin/env python3
"""Writes mixes.inc: which type llama.cpp's quantiser gives to each tensor of small models of several depths and shapes.

    tests/convert/golden/make_mixes.py /path/to/libllama.so MAKE_MODEL > tests/convert/golden/mixes.inc

MAKE_MODEL is build/release/bin/make_model, which makes the models."""
import ctypes
import itertools
import os
import re
import struct
import subprocess
import sys
import tempfile

TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K",
         20: "IQ4_NL", 23: "IQ4_XS", 30: "BF16"}
MIXES = {"Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10, "Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15,
         "Q5_K_S": 16, "Q5_K_M": 17, "Q6_K": 18, "IQ4_NL": 25, "IQ4_XS": 30}
MODELS = {"llama32": "--arch llama --layers 32 --width 256 --heads 8 --kv-heads 2 --ffn 512 --vocab 320",
          "llama12": "--arch llama --layers 12 --width 256 --heads 8 --kv-heads 8 --ffn 512 --vocab 320 --tied on",
          "qwen28": "--arch qwen2 --layers 28 --width 224 --heads 7 --kv-heads 1 --ffn 608 --vocab 320"}


class Params(ctypes.Structure):
    _fields_ = [("nthread", ctypes.c_int32), ("ftype", ctypes.c_int), ("output_tensor_type", ctypes.c_int), ("token_embedding_type", ctypes.c_int),
                ("allow_requantize", ctypes.c_bool), ("quantize_output_tensor", ctypes.c_bool), ("only_copy", ctypes.c_bool), ("pure", ctypes.c_bool),
                ("keep_split", ctypes.c_bool), ("imatrix", ctypes.c_void_p), ("kv_overrides", ctypes.c_void_p)]


lib = ctypes.CDLL(sys.argv[1])
lib.llama_model_quantize_default_params.restype = Params
lib.llama_model_quantize.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(Params)]
SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}


def tensors(path):
    data = open(path, "rb").read()
    n_tensors, n_kv = struct.unpack_from("<QQ", data, 8)
    at = 24

    def text():
        nonlocal at
        (n,) = struct.unpack_from("<Q", data, at)
        at += 8 + n
        return data[at - n:at].decode("utf-8", "replace")

    def skip(kind):
        nonlocal at
        if kind == 8:
            text()
        elif kind == 9:
            elem, n = struct.unpack_from("<IQ", data, at)
            at += 12
            for _ in range(n):
                skip(elem)
        else:
            at += SCALARS[kind]

    for _ in range(n_kv):
        text()
        at += 4
        skip(struct.unpack_from("<I", data, at - 4)[0])
    found = {}
    for _ in range(n_tensors):
        name = text()
        (dims,) = struct.unpack_from("<I", data, at)
        (kind,) = struct.unpack_from("<I", data, at + 4 + 8 * dims)
        at += 4 + 8 * dims + 4 + 8
        found[name] = TYPES[kind]
    return found


print("/* Written by make_mixes.py; not to be edited. */")
with tempfile.TemporaryDirectory() as tmp:
    for model, args in MODELS.items():
        path = os.path.join(tmp, model + ".gguf")
        subprocess.run([sys.argv[2], *args.split(), "--type", "f16", "--embd-type", "f16", "--out", path], check=True, stdout=subprocess.DEVNULL)
        layers = int(re.search(r"--layers (\d+)", args)[1])
        for mix, number in MIXES.items():
            out = os.path.join(tmp, "out.gguf")
            p = lib.llama_model_quantize_default_params()
            p.ftype, p.nthread = number, 2
            if lib.llama_model_quantize(path.encode(), out.encode(), ctypes.byref(p)):
                sys.exit("llama_model_quantize failed")
            have = tensors(out)
            names = ["token_embd.weight", "output.weight"] + ["blk.%d.%s.weight" % (i, w) for w in
                     ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down") for i in range(layers)]
            runs = [(t, len(list(g))) for t, g in itertools.groupby(have[n] for n in names if n in have)]
            print('CHOICE("%s", "%s", "%s")' % (model, mix, " ".join("%s*%d" % r for r in runs)))
