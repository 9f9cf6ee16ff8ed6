#!/usr/bin/env python3
"""Golden files of LoRA adapters: random adapters of the tiny models of make_goldens.py, as PEFT saves them, and the logits that
transformers with PEFT gives.

    python3 -m venv v && v/bin/pip install torch numpy transformers==5.23.0 gguf==0.19.0 peft==0.21.2
    v/bin/python make_lora.py [OUTDIR [NAME ...]]

For each NAME below, beside the files of its model:

    lora/NAME/          adapter_config.json, adapter_model.safetensors (F32)
    lora/NAME.logits    as make_goldens.py describes it: the model of NAME.gguf with the adapter
    lora/NAME-bf16.logits   the same of the checkpoint's weights, where they are others (families.py)
    lora/NAME.tokens    of models that can be served: what greedy decoding says after PROMPT, ids in JSON, of the model alone and with each adapter
"""

import json
import os
import sys
import zlib

import numpy as np
import peft
import torch

import families
import make_goldens

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = ATTENTION + ["gate_proj", "up_proj", "down_proj"]

# name: (model, rank, alpha, by the root of the rank, modules)
ADAPTERS = {
    "llama-gqa": ("llama-gqa", 4, 8, False, ALL),
    "llama-odd": ("llama-odd", 5, 7, True, ALL),
    "mistral": ("mistral", 3, 6, False, ATTENTION),
    "qwen2": ("qwen2", 4, 4, False, ["q_proj", "v_proj", "down_proj"]),
    "qwen3": ("qwen3", 8, 16, False, ALL),
    "qwen3-second": ("qwen3", 2, 3, True, ["q_proj", "v_proj", "o_proj"]),
    "gemma2": ("gemma2", 4, 8, False, ALL),
    "phi3": ("phi3", 4, 8, False, ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"]),
    "phi2": ("phi2", 4, 8, False, ["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"]),
    "falcon-40b": ("falcon-40b", 4, 8, False, ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]),
    "olmo2": ("olmo2", 4, 8, False, ALL),
    "smollm3": ("smollm3", 4, 8, False, ALL),
    "granite": ("granite", 4, 8, False, ALL),
    "glm4": ("glm4", 4, 8, False, ATTENTION + ["gate_up_proj", "down_proj"]),
    "qwen3moe": ("qwen3moe", 4, 8, False, ATTENTION),
}
SERVED = "qwen3"
PROMPT = "Two adapters and their base in one batch"


def reference(model, kind):
    if model in make_goldens.MODELS:
        return make_goldens.reference(model)
    return families.reference(model, kind)


def adapted(name, kind):
    """The model of an adapter, with it."""
    base, rank, alpha, by_root, modules = ADAPTERS[name]
    config, model, ids, _ = reference(base, kind)
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, use_rslora=by_root, target_modules=modules, lora_dropout=0.0, bias="none")
    model = peft.get_peft_model(model, config).eval()
    for key, p in model.named_parameters():
        if "lora_" not in key:
            continue
        rng = np.random.default_rng([zlib.crc32(name.encode()), zlib.crc32(key.encode())])
        x = rng.standard_normal(p.shape) / np.sqrt(p.shape[1])
        p.data.copy_(torch.from_numpy(x.astype(np.float32)) * (0.5 if "lora_B" in key else 1))
    return model, ids


def logits_of(model, ids):
    with torch.no_grad():
        return model(torch.from_numpy(ids)[None]).logits[0].numpy()


def greedy(model, ids, n):
    ids = list(ids)
    for _ in range(n):
        ids.append(int(logits_of(model, np.array(ids))[-1].argmax()))
    return ids[-n:]


def save(model, path):
    model.save_pretrained(path)
    os.remove(os.path.join(path, "README.md"))
    file = os.path.join(path, "adapter_config.json")
    with open(file) as f:
        config = json.load(f)
    config["base_model_name_or_path"] = None
    config["target_modules"].sort()   # a set's order is nobody's
    with open(file, "w") as f:
        json.dump(config, f, indent=1)
        f.write("\n")


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    out = os.path.join(sys.argv[1] if len(sys.argv) > 1 else here, "lora")
    wanted = set(sys.argv[2:]) or set(ADAPTERS)
    torch.set_num_threads(1)
    os.makedirs(out, exist_ok=True)
    for name in ADAPTERS:
        if name not in wanted:
            continue
        path = os.path.join(out, name)
        model, ids = adapted(name, "F32")
        save(model, path)
        logits = logits_of(model, ids)
        make_goldens.write_logits(path + ".logits", ids, logits)
        with model.disable_adapter():
            moved = np.abs(logits - logits_of(model, ids)).max() / np.abs(logits).max()
        if ADAPTERS[name][0] in families.FAMILIES:
            model, ids = adapted(name, "BF16")
            make_goldens.write_logits(path + "-bf16.logits", ids, logits_of(model, ids))
        print(f"{name:14} {os.path.getsize(path + '/adapter_model.safetensors'):6} bytes, moves logits by {moved:.2f} of the largest")
    if SERVED in wanted:
        ids = np.frombuffer(PROMPT.encode(), np.uint8).astype(np.int64)   # its tokenizer's ids are bytes
        said = {}
        for name in ("qwen3", "qwen3-second"):
            model, _ = adapted(name, "F32")
            said[name] = greedy(model, ids, 24)
            with model.disable_adapter():
                said["base"] = greedy(model, ids, 24)
        with open(os.path.join(out, SERVED + ".tokens"), "w") as f:
            json.dump({"prompt": PROMPT, **said}, f)
            f.write("\n")
        print({k: v[:6] for k, v in said.items()})


if __name__ == "__main__":
    main()
