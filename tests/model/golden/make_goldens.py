#!/usr/bin/env python3
"""Golden files: tiny random models of each family and the logits that Hugging Face transformers gives them.

    python3 -m venv v && v/bin/pip install torch numpy transformers==5.23.0 gguf==0.19.0
    v/bin/python make_goldens.py [OUTDIR [NAME ...]]

The files are in the tree; the tests read those and need no Python. Run this only to add or change a
model. For each it writes

    NAME.gguf    GGUF v3, weights F32, F16 or BF16 (rounded before the reference sees them)
    NAME/        the same as a Hugging Face checkpoint: config.json, and for the models of WHOLE also the weights as
                 safetensors (llama-llama3 in two shards); the tests make the others' weights from NAME.gguf
    NAME.logits  little-endian: i32 n_prompt, n_rows, n_vocab; i32 ids[n_prompt]; i32 positions[n_rows];
                 f32 logits[n_rows][n_vocab]: the reference's rows at those positions of the one prompt

Everything but the reference is written here from the formats' descriptions: GGUF (ggml/the GGUF specification), the
names and shapes of GGUF's tensors, and two facts about converted Llamas: q and k rows are permuted from
half-rotation (i, i + d/2) to adjacent pairs (2i, 2i + 1), and Llama 3's frequency scaling becomes a tensor of
divisors, rope_freqs.weight.
"""

import json
import math
import os
import struct
import sys
import zlib

import numpy as np
import safetensors.torch
import torch
import transformers

import families

assert transformers.__version__ == "5.23.0", "other versions may compute other last bits"

U32, F32, STRING = 4, 6, 8                     # types of values
FILE_TYPE = {"F32": 0, "F16": 1, "BF16": 30}   # types of tensors
ALIGN = 32

LINEAR = {"rope_type": "linear", "factor": 4.0}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}

# name: (family, type, layers' sizes, prompt, rope)
SIZES = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2,
         "head_dim": 32, "vocab_size": 288, "tie_word_embeddings": True, "rms_norm_eps": 1e-5}
ODD = {"hidden_size": 42, "intermediate_size": 76, "num_attention_heads": 3, "num_key_value_heads": 1,
       "head_dim": 20, "vocab_size": 131}
MODELS = {
    "llama-gqa": ("llama", "F32", {"head_dim": 8, "num_attention_heads": 8, "tie_word_embeddings": False}, 48, {}),
    "llama-tied": ("llama", "F16", {}, 40, {}),
    "llama-odd": ("llama", "F32", ODD, 70, {"rope_theta": 500.0}),
    "llama-linear": ("llama", "F16", {}, 72, LINEAR),
    "llama-llama3": ("llama", "F16", {}, 100, LLAMA3),
    "mistral": ("mistral", "BF16", {"num_attention_heads": 3, "num_key_value_heads": 1}, 64, {"rope_theta": 1e6}),
    "qwen2": ("qwen2", "F16", {"head_dim": 16, "rms_norm_eps": 1e-6}, 56, {"rope_theta": 1e6}),
    "qwen2-yarn": ("qwen2", "F16", {"hidden_size": 96, "num_attention_heads": 3, "num_key_value_heads": 3}, 100, YARN),
    "qwen3": ("qwen3", "BF16", {"rms_norm_eps": 1e-6}, 60, {"rope_theta": 1e6}),
}

WHOLE = {"llama-odd": 1, "llama-llama3": 2, "mistral": 1, "qwen2": 1, "qwen3": 1}   # files of weights

OLD = {"llama-gqa", "llama-llama3", "llama-linear", "mistral", "qwen2-yarn"}   # config.json as transformers 4 wrote it

# ---- the reference ----


def rounded(x, kind):
    """x as the file will hold it, widened again"""
    if kind == "F16":
        return x.half().float()
    return x.bfloat16().float() if kind == "BF16" else x


def fill(model, name, kind, tied):
    """Random weights: attention that looks somewhere, norms off one, biases off zero. numpy's generator, so that
    the same files come from any torch."""
    for key, p in model.named_parameters():
        rng = np.random.default_rng([zlib.crc32(name.encode()), zlib.crc32(key.encode())])
        x = rng.standard_normal(p.shape)
        if "norm" in key:
            x = 1 + 0.3 * x
        elif key.endswith("bias"):
            x = 0.5 * x
        elif "embed" in key:
            x = (0.4 if tied else 1.0) * x
        else:
            gain = 3 if "lm_head" in key else 1.4 if "q_proj" in key or "k_proj" in key else 1
            x = gain / math.sqrt(p.shape[-1]) * x
        x = torch.from_numpy(x.astype(np.float32))
        p.data.copy_(rounded(x, kind) if p.ndim == 2 else x)


def reference(name):
    family, kind, sizes, n_prompt, rope = MODELS[name]
    sizes = {**SIZES, **sizes, "num_hidden_layers": 2, "max_position_embeddings": 128}
    if family == "qwen2":
        assert sizes.pop("head_dim") * sizes["num_attention_heads"] == sizes["hidden_size"]
    rope = {"rope_type": "default", "rope_theta": 10000.0, **rope}
    extra = {"sliding_window": None} if family == "mistral" else {}
    config = transformers.AutoConfig.for_model(family, rope_parameters=rope, pad_token_id=None, **sizes, **extra)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    fill(model, name, kind, config.tie_word_embeddings)
    ids = np.random.default_rng(zlib.crc32(name.encode())).integers(0, config.vocab_size, n_prompt)
    with torch.no_grad():
        logits = model(torch.from_numpy(ids)[None]).logits[0].numpy()
    return config, model, ids, logits


# ---- GGUF ----


def string(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def pair(key, kind, v):
    return string(key) + struct.pack("<I", kind) + (string(v) if kind == STRING else struct.pack("<I" if kind == U32 else "<f", v))


def metadata(arch, name, c, head_dim):
    rope = c.rope_parameters
    keys = [
        pair("general.architecture", STRING, arch),
        pair("general.name", STRING, name + ", random"),
        pair(arch + ".context_length", U32, c.max_position_embeddings),
        pair(arch + ".embedding_length", U32, c.hidden_size),
        pair(arch + ".block_count", U32, c.num_hidden_layers),
        pair(arch + ".feed_forward_length", U32, c.intermediate_size),
        pair(arch + ".attention.head_count", U32, c.num_attention_heads),
        pair(arch + ".attention.head_count_kv", U32, c.num_key_value_heads),
        pair(arch + ".attention.layer_norm_rms_epsilon", F32, c.rms_norm_eps),
        pair(arch + ".rope.freq_base", F32, rope["rope_theta"]),
    ]
    if head_dim * c.num_attention_heads != c.hidden_size:
        keys.append(pair(arch + ".attention.key_length", U32, head_dim))
        keys.append(pair(arch + ".attention.value_length", U32, head_dim))
        keys.append(pair(arch + ".rope.dimension_count", U32, head_dim))
    if rope["rope_type"] in ("linear", "yarn"):
        keys.append(pair(arch + ".rope.scaling.type", STRING, rope["rope_type"]))
        keys.append(pair(arch + ".rope.scaling.factor", F32, rope["factor"]))
    if rope["rope_type"] == "yarn":
        keys.append(pair(arch + ".rope.scaling.original_context_length", U32, rope["original_max_position_embeddings"]))
    return keys


def llama3_divisors(rope, head_dim):
    """Llama 3.1: long waves are slowed by the factor, short ones kept, those between blended."""
    orig, factor = rope["original_max_position_embeddings"], rope["factor"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    out = []
    for i in range(head_dim // 2):
        turns = orig / (2 * math.pi * rope["rope_theta"] ** (2 * i / head_dim))
        keep = min(max((turns - low) / (high - low), 0), 1)
        out.append(1 / ((1 - keep) / factor + keep))
    return np.array(out, np.float32)


def pairs_adjacent(w, n_head):
    """rows of every head from (i, i + d/2) to (2i, 2i + 1)"""
    return w.reshape(n_head, 2, -1, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


NAMES = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
         "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
TOPS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def tensors(arch, c, model, head_dim):
    if c.rope_parameters["rope_type"] == "llama3":
        yield "rope_freqs.weight", llama3_divisors(c.rope_parameters, head_dim)
    for key, p in model.named_parameters():
        part, suffix = key.rsplit(".", 1)
        x = p.detach().numpy()
        if part in TOPS:
            yield TOPS[part] + "." + suffix, x
            continue
        _, _, layer, what = part.split(".", 3)
        if arch == "llama" and what in ("self_attn.q_proj", "self_attn.k_proj"):
            x = pairs_adjacent(x, c.num_attention_heads if "q_proj" in what else c.num_key_value_heads)
        yield f"blk.{layer}.{NAMES[what]}.{suffix}", x


def encoded(x, kind):
    if kind == "F16":
        return x.astype("<f2").tobytes()
    if kind == "BF16":
        return (x.view(np.uint32) >> 16).astype("<u2").tobytes()   # exact: x was rounded
    return x.astype("<f4").tobytes()


def write_gguf(path, arch, name, kind, c, model):
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    keys = metadata(arch, name, c, head_dim)
    infos, blobs, offset = [], [], 0
    for tensor, x in tensors(arch, c, model, head_dim):
        k = kind if x.ndim == 2 else "F32"
        blob = encoded(np.ascontiguousarray(x, np.float32), k)
        infos.append(string(tensor) + struct.pack(f"<I{x.ndim}Q", x.ndim, *reversed(x.shape)) +
                     struct.pack("<IQ", FILE_TYPE[k], offset))
        blobs.append(blob + bytes(-len(blob) % ALIGN))
        offset += len(blobs[-1])
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(keys)) + b"".join(keys) + b"".join(infos)
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % ALIGN) + b"".join(blobs))


# ---- Hugging Face's layout ----


def write_hf(path, name, kind, c, model):
    os.makedirs(path, exist_ok=True)
    c.architectures = [type(model).__name__]
    config = c.to_diff_dict()
    if name in OLD:
        rope = config.pop("rope_parameters")
        config["rope_theta"] = rope.pop("rope_theta")
        config["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
        f.write("\n")
    if name not in WHOLE:
        return
    as_kind = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[kind]
    saved = {k: (p.detach().to(as_kind) if p.ndim == 2 else p.detach()).contiguous()
             for k, p in model.named_parameters()}
    n = WHOLE[name]
    if n == 1:
        safetensors.torch.save_file(saved, os.path.join(path, "model.safetensors"), metadata={"format": "pt"})
        return
    where = {}
    for i in range(n):
        part = dict(list(saved.items())[i::n])
        file = f"model-{i + 1:05}-of-{n:05}.safetensors"
        safetensors.torch.save_file(part, os.path.join(path, file), metadata={"format": "pt"})
        where.update({k: file for k in part})
    with open(os.path.join(path, "model.safetensors.index.json"), "w") as f:
        json.dump({"metadata": {"total_size": sum(p.nbytes for p in saved.values())}, "weight_map": where}, f, indent=1)


CHAT = ("{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


def write_words(path):
    """The smallest tokenizer: the 256 bytes (GPT-2's letters for them), three control tokens, no merge."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {b: chr(b) for b in plain}
    letters.update({b: chr(256 + i) for i, b in enumerate(b for b in range(256) if b not in plain)})
    added = [{"id": 256 + i, "content": s, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for i, s in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])]
    step = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True}
    model = {"type": "BPE", "vocab": {letters[b]: b for b in range(256)}, "merges": []}
    with open(os.path.join(path, "tokenizer.json"), "w") as f:
        json.dump({"version": "1.0", "added_tokens": added, "normalizer": {"type": "NFC"}, "pre_tokenizer": step, "post_processor": step,
                   "decoder": step, "model": model}, f)
        f.write("\n")
    with open(os.path.join(path, "tokenizer_config.json"), "w") as f:
        json.dump({"bos_token": None, "eos_token": "<|im_end|>", "add_bos_token": False, "chat_template": CHAT}, f, indent=1)
        f.write("\n")
    with open(os.path.join(path, "generation_config.json"), "w") as f:
        json.dump({"eos_token_id": [258, 256]}, f)
        f.write("\n")


def write_logits(path, ids, logits):
    n = len(ids)
    rows = sorted({0, 1, 7, 16, 31, 32, n // 2, min(64, n - 2), n - 2, n - 1})
    with open(path, "wb") as f:
        f.write(struct.pack("<3i", n, len(rows), logits.shape[1]))
        f.write(ids.astype("<i4").tobytes() + np.array(rows, "<i4").tobytes() + logits[rows].astype("<f4").tobytes())


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    torch.set_num_threads(1)
    wanted = set(sys.argv[2:]) or {*MODELS, *families.FAMILIES, *families.SEEING}
    for name in families.FAMILIES:
        if name in wanted:
            families.make(name, out, write_logits)
    for name in families.SEEING:
        if name in wanted:
            families.make_seeing(name, out, write_logits)
    for name, (family, kind, *_) in MODELS.items():
        if name not in wanted:
            continue
        config, model, ids, logits = reference(name)
        arch = "llama" if family == "mistral" else family
        path = os.path.join(out, name)
        write_gguf(path + ".gguf", arch, name, kind, config, model)
        write_hf(path, name, kind, config, model)
        write_logits(path + ".logits", ids, logits)
        if name == "qwen3":
            write_words(path)   # so that it can be served
        print(f"{name:14} {os.path.getsize(path + '.gguf'):7} bytes, logits within "
              f"[{logits.min():.2f}, {logits.max():.2f}], deviation {logits.std():.2f}")


if __name__ == "__main__":
    main()
