"""Golden files of the families beyond plain Llama and Qwen: run by make_goldens.py, which see for the formats of files.

For each NAME below:

    NAME.gguf, NAME.logits           weights F32
    NAME/, NAME-bf16.logits          the checkpoint as save_pretrained writes it, weights BF16 (rounded before the reference sees them)

The reference names its tensors; GGUF's names for them are those of llama.cpp's `gguf` package, an independent description of the convention. What
converters do to the values besides is written here.
"""

import json
import math
import os
import re
import shutil
import struct
import tempfile
import zlib

import gguf
import numpy as np
import safetensors.torch
import torch
import transformers

U32, F32, BOOL, STRING, ARRAY = 4, 6, 7, 8, 9

SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 96,
         "num_hidden_layers": 2, "max_position_embeddings": 128, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2}
HEAD = {"head_dim": 16}
PLAIN = {"rope_type": "default", "rope_theta": 10000.0}

# name: (model_type, GGUF architecture, config, tokens of the prompt)
FAMILIES = {
    "mixtral": ("mixtral", "llama", {**HEAD, "num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 40, "tie_word_embeddings": False}, 60),
    "qwen2moe": ("qwen2_moe", "qwen2moe", {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 24, "norm_topk_prob": False,
                 "shared_expert_intermediate_size": 72}, 60),
    "qwen3moe": ("qwen3_moe", "qwen3moe", {**HEAD, "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32,
                 "norm_topk_prob": True}, 60),
}

# ---- the reference ----


def fill(model, name, kind):
    """Random weights: attention that looks somewhere, norms off what they are at rest, biases off zero."""
    gemma = model.config.model_type.startswith("gemma")
    for key, p in list(model.named_parameters()) + [b for b in model.named_buffers() if "correction" in b[0]]:
        rng = np.random.default_rng([zlib.crc32(name.encode()), zlib.crc32(key.encode())])
        x = rng.standard_normal(p.shape)
        if "norm" in key or "ln_" in key:
            x = 0.2 * x if key.endswith("bias") or gemma else 1 + 0.3 * x
        elif key.endswith("bias") or "sinks" in key or "correction" in key:
            x = 0.5 * x
        elif "embed" in key:
            x = 0.4 * x
        else:
            gain = 3 if "lm_head" in key else 1.4 if re.search("[qk]_proj|qkv|query_key", key) else 4 if re.search("gate.weight|router", key) else 1
            x = gain / math.sqrt(p.shape[-1]) * x
        x = torch.from_numpy(x.astype(np.float32))
        p.data.copy_(x.bfloat16().float() if kind == "BF16" else x)


def reference(name, kind):
    family, _, sizes, n_prompt = FAMILIES[name]
    sizes = {**SIZES, "rope_parameters": PLAIN, **sizes}
    config = transformers.AutoConfig.for_model(family, **sizes)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    fill(model, name, kind)
    ids = np.random.default_rng(zlib.crc32(name.encode())).integers(3, config.vocab_size, n_prompt)
    with torch.no_grad():
        logits = model(torch.from_numpy(ids)[None]).logits[0].numpy()
    return config, model, ids, logits


# ---- GGUF ----


def string(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


def pair(key, v):
    if isinstance(v, bool):
        return string(key) + struct.pack("<IB", BOOL, v)
    if isinstance(v, int):
        return string(key) + struct.pack("<II", U32, v)
    if isinstance(v, float):
        return string(key) + struct.pack("<If", F32, v)
    if isinstance(v, list):
        return string(key) + struct.pack("<IIQ", ARRAY, BOOL, len(v)) + bytes(v)
    return string(key) + struct.pack("<I", STRING) + string(v)


def get(c, *names, default=None):
    for n in names:
        if getattr(c, n, None) is not None:
            return getattr(c, n)
    return default


def metadata(arch, name, c):
    heads = c.num_attention_heads
    head_dim = get(c, "head_dim", default=c.hidden_size // heads)
    rope = c.rope_parameters
    rope = rope.get("full_attention", rope)
    keys = {
        "context_length": c.max_position_embeddings,
        "embedding_length": c.hidden_size,
        "block_count": c.num_hidden_layers,
        "feed_forward_length": get(c, "intermediate_size", "ffn_hidden_size"),
        "attention.head_count": heads,
        "attention.head_count_kv": get(c, "num_key_value_heads", "num_kv_heads", default=heads),
        "attention.key_length": head_dim,
        "attention.value_length": head_dim,
        "rope.freq_base": float(rope["rope_theta"]),
        "rope.dimension_count": int(head_dim * rope.get("partial_rotary_factor", 1)),
    }
    if hasattr(c, "rms_norm_eps"):
        keys["attention.layer_norm_rms_epsilon"] = c.rms_norm_eps
    else:
        keys["attention.layer_norm_epsilon"] = get(c, "layer_norm_eps", "layer_norm_epsilon")
    if get(c, "num_experts", "num_local_experts"):
        keys["expert_count"] = get(c, "num_experts", "num_local_experts")
        keys["expert_used_count"] = c.num_experts_per_tok
        if hasattr(c, "moe_intermediate_size"):
            keys["expert_feed_forward_length"] = c.moe_intermediate_size
        if hasattr(c, "shared_expert_intermediate_size"):
            keys["expert_shared_feed_forward_length"] = c.shared_expert_intermediate_size
    return b"".join(v for v in [pair("general.architecture", arch), pair("general.name", name + ", random")] +
                    [pair(f"{arch}.{k}", v) for k, v in keys.items()]), len(keys) + 2


def pairs_adjacent(w, n_head):
    """rows of every head from (i, i + d/2) to (2i, 2i + 1)"""
    return w.reshape(n_head, 2, -1, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def changed(arch, c, name, x):
    """What converters do to values."""
    if arch in ("llama", "granite") and re.search(r"attn_[qk]\.", name):
        return pairs_adjacent(x, c.num_attention_heads if "attn_q." in name else c.num_key_value_heads)
    return x


def tensors(arch, c, saved):
    """GGUF's tensors of what save_pretrained wrote"""
    names = gguf.get_tensor_name_map({v: k for k, v in gguf.MODEL_ARCH_NAMES.items()}[arch], c.num_hidden_layers)
    stacks = {}
    out = {}
    for key, x in saved.items():
        m = re.match(r"(model\.layers\.\d+)\.(?:mlp|block_sparse_moe)\.experts\.(\d+)\.(\w+)\.weight", key)
        if m:
            what = {"w1": "gate", "w2": "down", "w3": "up", "gate_proj": "gate", "down_proj": "down", "up_proj": "up"}[m[3]]
            stacks.setdefault(f"blk.{m[1].split('.')[-1]}.ffn_{what}_exps.weight", {})[int(m[2])] = x
            continue
        name = names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert name, key
        out[name if "." in name.rsplit(".", 1)[-1] or name.endswith((".weight", ".bias")) else name + ".weight"] = changed(arch, c, name, x)
    for name, parts in stacks.items():
        out[name] = np.stack([parts[e] for e in range(len(parts))])
    return out


def write_gguf(path, arch, name, c, saved):
    keys, n_keys = metadata(arch, name, c)
    infos, blobs, offset = [], [], 0
    ts = tensors(arch, c, saved)
    for tensor, x in ts.items():
        x = np.ascontiguousarray(x.squeeze() if tensor.endswith("inp_shexp.weight") else x, np.float32)
        infos.append(string(tensor) + struct.pack(f"<I{x.ndim}Q", x.ndim, *reversed(x.shape)) + struct.pack("<IQ", 0, offset))
        blobs.append(x.tobytes() + bytes(-x.nbytes % 32))
        offset += len(blobs[-1])
    head = b"GGUF" + struct.pack("<IQQ", 3, len(infos), n_keys) + keys + b"".join(infos)
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % 32) + b"".join(blobs))


# ---- all files of one ----


def saved_by(model):
    with tempfile.TemporaryDirectory() as d:
        model.save_pretrained(d)
        with open(os.path.join(d, "config.json")) as f:
            config = json.load(f)
        return safetensors.torch.load_file(os.path.join(d, "model.safetensors")), config


def make(name, out, write_logits):
    arch = FAMILIES[name][1]
    path = os.path.join(out, name)
    c, model, ids, logits = reference(name, "F32")
    saved, _ = saved_by(model)
    write_gguf(path + ".gguf", arch, name, c, {k: v.float().numpy() for k, v in saved.items()})
    write_logits(path + ".logits", ids, logits)
    size = os.path.getsize(path + ".gguf")
    print(f"{name:14} {size:7} bytes, logits within [{logits.min():.2f}, {logits.max():.2f}], deviation {logits.std():.2f}")
    c, model, ids, logits = reference(name, "BF16")
    saved, config = saved_by(model)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    config.pop("dtype", None)
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
        f.write("\n")
    safetensors.torch.save_file({k: v.bfloat16().contiguous() for k, v in saved.items()}, os.path.join(path, "model.safetensors"),
                                metadata={"format": "pt"})
    write_logits(path + "-bf16.logits", ids, logits)
