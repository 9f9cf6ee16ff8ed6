#!/usr/bin/env python3
"""Write a checkpoint of train.py as tessera-demo-f16.gguf and tessera-demo-q8_0.gguf.

    python3 export.py --run /tmp/demo --to .

GGUF is a simple format: a header, a list of typed key-value pairs, a list of tensors, and their bytes, each
tensor at a multiple of 32. Needs numpy, and torch to read the checkpoint.
"""

import argparse
import json
import os
import struct

import numpy as np
import torch

import train
from chat import TEMPLATE

U32, F32, BOOL, STRING, ARRAY, I32 = 4, 6, 7, 8, 9, 5      # types of values
T_F32, T_F16, T_Q8_0 = 0, 1, 8                             # types of tensors
ALIGN = 32


def string(s):
    b = s.encode()
    return struct.pack("<Q", len(b)) + b


def value(kind, v):
    if kind == STRING:
        return string(v)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], v)


def pair(key, kind, v):
    return string(key) + struct.pack("<I", kind) + value(kind, v)


def array(key, kind, vs):
    return string(key) + struct.pack("<IIQ", ARRAY, kind, len(vs)) + b"".join(value(kind, v) for v in vs)


def q8_0(x):
    """Blocks of 32: the scale amax/127 as f16, then 32 signed bytes, rounded half away from zero."""
    x = np.ascontiguousarray(x, np.float32).reshape(-1, 32)
    d = np.abs(x).max(1, keepdims=True) / np.float32(127)
    y = x * np.divide(np.float32(1), d, out=np.zeros_like(d), where=d > 0)
    q = (np.sign(y) * np.floor(np.abs(y) + np.float32(.5))).astype(np.int8)
    out = np.empty(len(x), np.dtype([("d", "<f2"), ("q", "i1", 32)]))
    out["d"], out["q"] = d[:, 0], q
    return out.tobytes()


def tensors(state):
    """(name, array) with the names of the llama family"""
    yield "token_embd.weight", state["embed.weight"]
    yield "output_norm.weight", state["norm.weight"]
    names = {"attn_norm": "attn_norm", "q": "attn_q", "k": "attn_k", "v": "attn_v", "o": "attn_output",
             "ffn_norm": "ffn_norm", "gate": "ffn_gate", "up": "ffn_up", "down": "ffn_down"}
    for i in range(train.LAYERS):
        for ours, theirs in names.items():
            yield f"blk.{i}.{theirs}.weight", state[f"blocks.{i}.{ours}.weight"]


def write(path, state, tok, quantised):
    vocab = sorted(tok.get_vocab(True), key=tok.get_vocab(True).get)
    model = json.loads(tok.to_str())["model"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    end = {s: tok.token_to_id(s) for s in train.SPECIAL}
    keys = [
        pair("general.architecture", STRING, "llama"),
        pair("general.type", STRING, "model"),
        pair("general.name", STRING, "tessera-demo"),
        pair("general.description", STRING, "A tiny chat model to try tessera out, trained by the project on data of its own"),
        pair("general.size_label", STRING, "1.8M"),
        pair("general.license", STRING, "apache-2.0"),
        pair("general.file_type", U32, 7 if quantised else 1),
        pair("general.quantization_version", U32, 2),
        pair("general.alignment", U32, ALIGN),
        pair("llama.block_count", U32, train.LAYERS),
        pair("llama.context_length", U32, train.CONTEXT),
        pair("llama.embedding_length", U32, train.DIM),
        pair("llama.feed_forward_length", U32, train.FFN),
        pair("llama.attention.head_count", U32, train.HEADS),
        pair("llama.attention.head_count_kv", U32, train.KV_HEADS),
        pair("llama.attention.key_length", U32, train.HEAD_DIM),
        pair("llama.attention.value_length", U32, train.HEAD_DIM),
        pair("llama.attention.layer_norm_rms_epsilon", F32, train.EPS),
        pair("llama.rope.dimension_count", U32, train.HEAD_DIM),
        pair("llama.rope.freq_base", F32, train.THETA),
        pair("llama.vocab_size", U32, train.VOCAB),
        pair("tokenizer.ggml.model", STRING, "gpt2"),
        pair("tokenizer.ggml.pre", STRING, "qwen2"),
        array("tokenizer.ggml.tokens", STRING, vocab),
        array("tokenizer.ggml.token_type", I32, [3 if t in train.SPECIAL else 1 for t in vocab]),
        array("tokenizer.ggml.merges", STRING, merges),
        pair("tokenizer.ggml.eos_token_id", U32, end["<|im_end|>"]),
        pair("tokenizer.ggml.eot_token_id", U32, end["<|im_end|>"]),
        pair("tokenizer.ggml.padding_token_id", U32, end["<|endoftext|>"]),
        pair("tokenizer.ggml.add_bos_token", BOOL, False),
        pair("tokenizer.ggml.add_space_prefix", BOOL, False),
        pair("tokenizer.chat_template", STRING, TEMPLATE),
    ]
    infos, blobs, offset = [], [], 0
    for name, t in tensors(state):
        x = t.float().numpy()
        if x.ndim == 1:
            kind, blob = T_F32, x.astype("<f4").tobytes()
        elif quantised:
            kind, blob = T_Q8_0, q8_0(x)
        else:
            kind, blob = T_F16, x.astype("<f2").tobytes()
        dims = struct.pack(f"<I{x.ndim}Q", x.ndim, *reversed(x.shape))
        infos.append(string(name) + dims + struct.pack("<IQ", kind, offset))
        blobs.append(blob + bytes(-len(blob) % ALIGN))
        offset += len(blobs[-1])
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(keys)) + b"".join(keys) + b"".join(infos)
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % ALIGN) + b"".join(blobs))
    print(f"{path}: {os.path.getsize(path)} bytes, {len(infos)} tensors, {len(keys)} keys")


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--run", required=True, help="the folder that train.py wrote")
    ap.add_argument("--to", default=".")
    a = ap.parse_args()
    state = torch.load(os.path.join(a.run, "last.pt"))
    tok = train.Tokenizer.from_file(os.path.join(a.run, "tokenizer.json"))
    print(f"step {state['step']}")
    for name, quantised in ("f16", False), ("q8_0", True):
        write(os.path.join(a.to, f"tessera-demo-{name}.gguf"), state["model"], tok, quantised)


if __name__ == "__main__":
    main()
