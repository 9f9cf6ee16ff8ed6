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

YARN = {**PLAIN, "rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "original_max_position_embeddings": 32}
LATENT = {"num_hidden_layers": 3, "num_key_value_heads": 4, "q_lora_rank": 20, "kv_lora_rank": 24, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
          "v_head_dim": 12, "first_k_dense_replace": 1, "moe_intermediate_size": 24, "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 1}

MANY = {"num_hidden_layers": 3, "first_k_dense_replace": 1, "moe_intermediate_size": 24, "n_routed_experts": 8, "num_experts_per_tok": 3, "n_shared_experts": 1}

# name: (model_type, GGUF architecture or None: no such file, config, tokens of the prompt)
FAMILIES = {
    "mixtral": ("mixtral", "llama", {**HEAD, "num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 40, "tie_word_embeddings": False}, 60),
    "qwen2moe": ("qwen2_moe", "qwen2moe", {"num_experts": 6, "num_experts_per_tok": 3, "moe_intermediate_size": 24, "norm_topk_prob": False,
                 "shared_expert_intermediate_size": 72}, 60),
    "qwen3moe": ("qwen3_moe", "qwen3moe", {**HEAD, "num_experts": 8, "num_experts_per_tok": 3, "moe_intermediate_size": 32,
                 "norm_topk_prob": True}, 60),
    "olmoe": ("olmoe", "olmoe", {"num_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 24, "norm_topk_prob": False}, 50),
    "llama-dynamic": ("llama", None, {"max_position_embeddings": 48, "rope_parameters": {**PLAIN, "rope_type": "dynamic", "factor": 2.0}}, 90),
    "llama-biases": ("llama", None, {"attention_bias": True, "mlp_bias": True}, 50),
    "mistral-window": ("mistral", "llama", {**HEAD, "sliding_window": 21}, 90),
    "gemma": ("gemma", "gemma", {**HEAD, "tie_word_embeddings": True}, 50),
    "gemma2": ("gemma2", "gemma2", {**HEAD, "num_hidden_layers": 3, "sliding_window": 16, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 5.0,
               "final_logit_softcapping": 8.0, "tie_word_embeddings": True}, 80),
    "gemma3": ("gemma3_text", "gemma3", {**HEAD, "num_hidden_layers": 6, "intermediate_size": 32, "sliding_window": 16, "query_pre_attn_scalar": 16,
               "tie_word_embeddings": True, "rope_parameters": {"full_attention": {**PLAIN, "rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                                                                "sliding_attention": PLAIN}}, 80),
    "phi3": ("phi3", "phi3", {"tie_word_embeddings": True, "sliding_window": 40, "original_max_position_embeddings": 64,
             "rope_parameters": {**PLAIN, "rope_type": "longrope", "partial_rotary_factor": 0.75, "original_max_position_embeddings": 64,
                                 "long_factor": [1.0, 3.5, 9.0], "short_factor": [1.0, 1.2, 1.5]}}, 100),
    "phi3-short": ("phi3", "phi3", {"original_max_position_embeddings": 64,
                   "rope_parameters": {**PLAIN, "rope_type": "longrope", "original_max_position_embeddings": 64,
                                       "long_factor": [1.0, 3.5, 9.0, 20.0], "short_factor": [1.0, 1.2, 1.5, 1.7]}}, 60),
    "phi2": ("phi", "phi2", {"hidden_act": "gelu_new", "rope_parameters": {**PLAIN, "partial_rotary_factor": 0.5}}, 50),
    "falcon-7b": ("falcon", "falcon", {"ffn_hidden_size": 64, "multi_query": True, "new_decoder_architecture": False, "parallel_attn": True, "bias": False,
                  "alibi": False}, 50),
    "falcon-40b": ("falcon", "falcon", {"hidden_size": 64, "ffn_hidden_size": 64, "num_kv_heads": 2, "new_decoder_architecture": True, "bias": False,
                   "alibi": False}, 50),
    "stablelm": ("stablelm", "stablelm", {"use_qkv_bias": True, "rope_parameters": {**PLAIN, "partial_rotary_factor": 0.25}, "num_key_value_heads": 4}, 50),
    "stablelm-parallel": ("stablelm", "stablelm", {"use_parallel_residual": True,
                          "rope_parameters": {**PLAIN, "partial_rotary_factor": 0.25}}, 50),
    "olmo2": ("olmo2", "olmo2", {}, 50),
    "olmo3": ("olmo3", "olmo2", {"num_hidden_layers": 4, "intermediate_size": 32, "sliding_window": 16,
              "rope_parameters": {"full_attention": YARN, "sliding_attention": PLAIN}}, 80),
    "exaone4": ("exaone4", "exaone4", {**HEAD, "num_hidden_layers": 4, "intermediate_size": 32, "sliding_window": 16}, 80),
    "exaone4-plain": ("exaone4", "exaone4", {**HEAD, "sliding_window": None, "layer_types": 2 * ["full_attention"], "tie_word_embeddings": True}, 50),
    "smollm3": ("smollm3", "smollm3", {"num_hidden_layers": 4, "intermediate_size": 32, "no_rope_layer_interval": 4, "tie_word_embeddings": True}, 50),
    "smollm3-odd": ("smollm3", None, {"num_hidden_layers": 3, "intermediate_size": 32, "no_rope_layers": [0, 1, 0], "attention_bias": True,
                    "tie_word_embeddings": False}, 50),
    "seed-oss": ("seed_oss", "seed_oss", {**HEAD, "attention_bias": True, "attention_out_bias": True}, 50),
    "ernie4_5": ("ernie4_5", "ernie4_5", {**HEAD, "tie_word_embeddings": True}, 50),
    "glm4moe": ("glm4_moe", "glm4moe", {**MANY, **HEAD, "attention_bias": True, "use_qk_norm": True, "n_group": 4, "topk_group": 2, "norm_topk_prob": True,
                "routed_scaling_factor": 2.5, "rope_parameters": {**PLAIN, "partial_rotary_factor": 0.5}}, 80),
    "glm4moe-air": ("glm4_moe", "glm4moe", {**MANY, **HEAD, "attention_bias": True, "use_qk_norm": False, "norm_topk_prob": True,
                    "rope_parameters": {**PLAIN, "partial_rotary_factor": 0.5}}, 80),
    "dots1": ("dots1", "dots1", {**MANY, **HEAD, "n_shared_experts": 2, "norm_topk_prob": True, "routed_scaling_factor": 1.5, "sliding_window": None}, 80),
    "minimax-m2": ("minimax_m2", "minimax-m2", {**HEAD, "intermediate_size": 24, "num_local_experts": 8, "num_experts_per_tok": 3,
                   "rope_parameters": {**PLAIN, "partial_rotary_factor": 0.5}}, 80),
    "granite": ("granite", "granite", {"embedding_multiplier": 6.0, "residual_multiplier": 0.7, "attention_multiplier": 0.2, "logits_scaling": 2.0}, 50),
    "glm": ("glm", "chatglm", {**HEAD, "attention_bias": True, "rope_parameters": {**PLAIN, "partial_rotary_factor": 0.5}}, 50),
    "glm4": ("glm4", "glm4", {**HEAD, "attention_bias": True, "rope_parameters": {**PLAIN, "partial_rotary_factor": 0.5}}, 50),
    "cohere": ("cohere", "command-r", {"logit_scale": 0.25, "use_qk_norm": True}, 50),
    "cohere2": ("cohere2", "cohere2", {**HEAD, "logit_scale": 0.25, "num_hidden_layers": 4, "intermediate_size": 32, "sliding_window": 16}, 80),
    "deepseek2-lite": ("deepseek_v2", "deepseek2", {**LATENT, "q_lora_rank": None, "topk_method": "greedy", "n_routed_experts": 6, "num_experts_per_tok": 2,
                       "n_shared_experts": 2, "routed_scaling_factor": 1.0, "rope_parameters": {**YARN, "mscale": 0.707, "mscale_all_dim": 0.707}}, 80),
    "deepseek2": ("deepseek_v2", "deepseek2", {**LATENT, "kv_lora_rank": 40, "topk_method": "group_limited_greedy", "n_group": 4, "topk_group": 2,
                  "routed_scaling_factor": 4.0, "rope_parameters": {**YARN, "mscale": 0.707, "mscale_all_dim": 0.707}}, 80),
    "deepseek3": ("deepseek_v3", "deepseek2", {**LATENT, "n_group": 4, "topk_group": 2, "norm_topk_prob": True, "routed_scaling_factor": 2.5,
                  "first_k_dense_replace": 2, "num_hidden_layers": 4, "num_mtp_layers": 0,
                  "rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 1.0}}, 80),
    "deepseek3-halves": ("deepseek_v3", None, {**LATENT, "n_group": 2, "topk_group": 1, "norm_topk_prob": False, "routed_scaling_factor": 1.5,
                         "rope_interleave": False, "rms_norm_eps": 1e-5, "num_mtp_layers": 0,
                         "rope_parameters": {**YARN, "mscale": 1.0, "mscale_all_dim": 0.5}}, 80),
    "gpt-oss": ("gpt_oss", "gpt-oss", {**HEAD, "num_local_experts": 4, "num_experts_per_tok": 2, "intermediate_size": 24, "sliding_window": 16,
                "rope_parameters": {**PLAIN, "rope_type": "yarn", "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
                                    "original_max_position_embeddings": 32}}, 80),
    "llama4": ("llama4_text", "llama4", {**HEAD, "num_hidden_layers": 4, "intermediate_size": 24, "intermediate_size_mlp": 40, "num_local_experts": 4,
               "interleave_moe_layer_step": 2, "attention_chunk_size": 16, "floor_scale": 8, "attn_scale": 0.3,
               "rope_parameters": {**PLAIN, "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 1.0,
                                   "original_max_position_embeddings": 32}}, 90),
    "llama4-dense": ("llama4_text", "llama4", {**HEAD, "intermediate_size": 24, "intermediate_size_mlp": 40, "num_local_experts": 0, "num_experts_per_tok": 0,
                     "interleave_moe_layer_step": 0, "moe_layers": [], "no_rope_layers": [1, 1], "layer_types": 2 * ["full_attention"],
                     "attention_chunk_size": 64, "attn_temperature_tuning": False, "tie_word_embeddings": True}, 80),
    "llama4-mixed": ("llama4_text", None, {**HEAD, "num_hidden_layers": 3, "intermediate_size": 24, "intermediate_size_mlp": 40, "num_local_experts": 3,
                     "num_experts_per_tok": 2, "moe_layers": [2], "no_rope_layers": [0, 1, 1], "use_qk_norm": False, "attention_chunk_size": 20,
                     "layer_types": ["full_attention", "chunked_attention", "full_attention"], "floor_scale": 16}, 80),
}

# Models that see, as directories: name: (model_type, text's model_type, text's config, config of the eyes, its own, tokens of the prompt)
EYES = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 16, "patch_size": 8}
SEEING = {
    "llava": ("llava", "llama", {"tie_word_embeddings": False}, {"model_type": "clip_vision_model", **EYES}, {"image_token_index": 95}, 40),
    "llava-next": ("llava_next", "mistral", {**HEAD, "sliding_window": None}, {"model_type": "clip_vision_model", **EYES},
                   {"image_token_index": 95, "image_grid_pinpoints": [[16, 32]]}, 40),
    "mistral3": ("mistral3", "mistral", {**HEAD, "sliding_window": None, "tie_word_embeddings": False}, {"model_type": "pixtral", **EYES, "head_dim": 4},
                 {"image_token_index": 95}, 40),
    "llama4-sees": ("llama4", "llama4_text", {**HEAD, "intermediate_size": 24, "intermediate_size_mlp": 40, "num_local_experts": 2, "no_rope_layer_interval": 2,
                    "attention_chunk_size": 16, "floor_scale": 8, "interleave_moe_layer_step": 2},
                    {**EYES, "vision_output_dim": 8, "projector_input_dim": 8, "projector_output_dim": 8}, {"image_token_index": 95}, 40),
}

# names that gguf's map does not know, or has for another architecture
MORE = {"model.layers.{}.mlp.fc1": "ffn_up", "model.layers.{}.mlp.fc2": "ffn_down", "model.layers.{}.mlp.gate_up_proj": "ffn_up",
        "transformer.h.{}.mlp.dense_h_to_4h": "ffn_up"}

# ---- the reference ----


def fill(model, name, kind):
    """Random weights: attention that looks somewhere, norms off what they are at rest, biases off zero."""
    gemma = model.config.model_type.startswith("gemma")
    for key, p in list(model.named_parameters()) + [b for b in model.named_buffers() if "correction" in b[0]]:
        rng = np.random.default_rng([zlib.crc32(name.encode()), zlib.crc32(key.encode())])
        x = rng.standard_normal(p.shape)
        if "norm" in key or "ln_" in key:
            x = 0.2 * x if key.endswith("bias") or gemma else 1 + 0.3 * x
        elif "correction" in key:
            x = 0.1 * x
        elif key.endswith("bias") or "sinks" in key:
            x = 0.5 * x
        elif "embed" in key:
            x = 0.4 * x
        else:
            gain = (3 if "lm_head" in key else 1.4 if re.search("[qk]_proj|qkv|query_key|_a_proj|_b_proj", key)
                    else 4 if re.search("gate.weight|router", key) else 1)
            x = gain / math.sqrt(p.shape[-1]) * x
        x = torch.from_numpy(x.astype(np.float32))
        p.data.copy_(x.bfloat16().float() if kind == "BF16" else x)


def reference(name, kind):
    family, _, sizes, n_prompt = FAMILIES[name]
    sizes = {**SIZES, "rope_parameters": PLAIN, **sizes}
    config = transformers.AutoConfig.for_model(family, **sizes)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").float().eval()
    fill(model, name, kind)
    seen = {m: set() for n, m in model.named_modules() if type(m).__name__.endswith("TopkRouter")}
    for m in seen:
        m.register_forward_hook(lambda m, _, out: seen[m].update(out[2].flatten().tolist()))
    ids = np.random.default_rng(zlib.crc32(name.encode())).integers(3, config.vocab_size, n_prompt)
    with torch.no_grad():
        logits = model(torch.from_numpy(ids)[None]).logits[0].numpy()
    for chosen in seen.values():
        assert len(chosen) == get(config, "num_experts", "num_local_experts"), (name, chosen)
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


def is_older(name):
    """Files before May 2025 have keys and values of heads in one matrix, and a head's sizes as those of any other."""
    return name == "deepseek2-lite"


def latent(name, c):
    key, value = c.qk_nope_head_dim + c.qk_rope_head_dim, c.v_head_dim
    keys = {"attention.kv_lora_rank": c.kv_lora_rank, "leading_dense_block_count": c.first_k_dense_replace, "expert_shared_count": c.n_shared_experts,
            "expert_weights_scale": c.routed_scaling_factor, "rope.scaling.yarn_log_multiplier": 0.1 * c.rope_parameters["mscale_all_dim"]}
    if c.q_lora_rank:
        keys["attention.q_lora_rank"] = c.q_lora_rank
    if is_older(name):
        return {**keys, "attention.key_length": key, "attention.value_length": value}
    if get(c, "n_group", default=1) > 1:
        keys.update({"expert_group_count": c.n_group, "expert_group_used_count": c.topk_group})
    v3 = c.model_type == "deepseek_v3"
    return {**keys, "attention.head_count_kv": 1, "attention.key_length": c.kv_lora_rank + c.qk_rope_head_dim, "attention.value_length": c.kv_lora_rank,
            "attention.key_length_mla": key, "attention.value_length_mla": value, "expert_gating_func": 2 if v3 else 1,
            "expert_weights_norm": v3 and c.norm_topk_prob}


def metadata(arch, name, c):
    heads = c.num_attention_heads
    head_dim = get(c, "head_dim", default=c.hidden_size // heads)
    rope = c.rope_parameters
    local = rope.get("sliding_attention")
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
    if arch == "falcon" and not c.new_decoder_architecture:
        keys["attention.head_count_kv"] = 1
    if hasattr(c, "rms_norm_eps"):
        keys["attention.layer_norm_rms_epsilon"] = c.rms_norm_eps
    else:
        keys["attention.layer_norm_epsilon"] = get(c, "layer_norm_eps", "layer_norm_epsilon")
    if arch == "llama4":
        keys.update({"feed_forward_length": c.intermediate_size_mlp, "interleave_moe_layer_step": c.interleave_moe_layer_step, "use_qk_norm": c.use_qk_norm,
                     "expert_feed_forward_length": c.intermediate_size, "attention.chunk_size": c.attention_chunk_size,
                     "attention.temperature_length": c.floor_scale, "attention.temperature_scale": c.attn_scale})
        if set(c.layer_types) == {"full_attention"}:
            keys["attention.sliding_window"] = 0   # and so rope everywhere
    if get(c, "num_experts", "num_local_experts"):
        keys["expert_count"] = get(c, "num_experts", "num_local_experts")
        keys["expert_used_count"] = c.num_experts_per_tok
        if hasattr(c, "moe_intermediate_size"):
            keys["expert_feed_forward_length"] = c.moe_intermediate_size
        if hasattr(c, "shared_expert_intermediate_size"):
            keys["expert_shared_feed_forward_length"] = c.shared_expert_intermediate_size
    if rope["rope_type"] in ("linear", "yarn"):
        keys["rope.scaling.type"] = rope["rope_type"]
        keys["rope.scaling.factor"] = float(rope["factor"])
    if "original_max_position_embeddings" in rope:
        keys["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
    if rope["rope_type"] == "longrope":
        scale = c.max_position_embeddings / rope["original_max_position_embeddings"]
        keys["rope.scaling.attn_factor"] = math.sqrt(1 + math.log(scale) / math.log(rope["original_max_position_embeddings"]))
    if arch == "deepseek2":
        keys.update(latent(name, c))
    if arch in ("glm4moe", "dots1"):
        keys.update({"leading_dense_block_count": c.first_k_dense_replace, "expert_shared_count": c.n_shared_experts, "expert_gating_func": 2,
                     "expert_weights_scale": c.routed_scaling_factor, "expert_weights_norm": c.norm_topk_prob, "expert_group_count": c.n_group,
                     "expert_group_used_count": c.topk_group})
    if arch == "minimax-m2":
        keys.update({"expert_gating_func": 2, "expert_feed_forward_length": c.intermediate_size})
    if local and arch != "olmo2":
        keys["rope.freq_base_swa"] = local["rope_theta"]
    if get(c, "sliding_window"):
        keys["attention.sliding_window"] = c.sliding_window
    if arch == "granite":
        keys.update({"embedding_scale": c.embedding_multiplier, "residual_scale": c.residual_multiplier, "attention.scale": c.attention_multiplier,
                     "logit_scale": c.logits_scaling})
    if arch in ("command-r", "cohere2"):
        keys["logit_scale"] = c.logit_scale
    if arch == "gemma2":
        keys["attn_logit_softcapping"], keys["final_logit_softcapping"] = c.attn_logit_softcapping, c.final_logit_softcapping
    if arch == "stablelm":
        keys["use_parallel_residual"] = c.use_parallel_residual
    return b"".join(v for v in [pair("general.architecture", arch), pair("general.name", name + ", random")] +
                    [pair(f"{arch}.{k}", v) for k, v in keys.items()]), len(keys) + 2


def pairs_adjacent(w, n_head):
    """rows of every head from (i, i + d/2) to (2i, 2i + 1)"""
    return w.reshape(n_head, 2, -1, *w.shape[1:]).swapaxes(1, 2).reshape(w.shape)


def changed(arch, c, name, x):
    """What converters do to values."""
    if arch in ("llama", "granite", "smollm3") and re.search(r"attn_[qk]\.", name):
        return pairs_adjacent(x, c.num_attention_heads if "attn_q." in name else c.num_key_value_heads)
    if arch.startswith("gemma") and name.endswith("norm.weight"):
        return x + 1
    if arch == "falcon" and "attn_qkv" in name and c.new_decoder_architecture:   # from groups of (queries, key, value) to all of each
        hd = c.hidden_size // c.num_attention_heads
        x = x.reshape(c.num_kv_heads, -1, hd, x.shape[-1])
        return np.concatenate([x[:, :-2].reshape(-1, x.shape[-1]), x[:, -2].reshape(-1, x.shape[-1]), x[:, -1].reshape(-1, x.shape[-1])])
    return x


def gpt_oss(key, x):
    """Experts of gpt-oss: gate and up rows alternate, and matrices lie with their inputs first."""
    layer = (key.split(".") + 2 * [""])[2]
    if key.endswith("gate_up_proj"):
        x = x.swapaxes(1, 2)
        return {f"blk.{layer}.ffn_gate_exps.weight": x[:, ::2], f"blk.{layer}.ffn_up_exps.weight": x[:, 1::2]}
    if key.endswith("gate_up_proj_bias"):
        return {f"blk.{layer}.ffn_gate_exps.bias": x[:, ::2], f"blk.{layer}.ffn_up_exps.bias": x[:, 1::2]}
    if key.endswith("down_proj"):
        return {f"blk.{layer}.ffn_down_exps.weight": x.swapaxes(1, 2)}
    if key.endswith("down_proj_bias"):
        return {f"blk.{layer}.ffn_down_exps.bias": x}
    return {f"blk.{layer}.attn_sinks.weight": x} if key.endswith("sinks") else {}


def llama4(key, x):
    """Experts of Llama 4: matrices lie with their inputs first, up behind gate."""
    layer = (key.split(".") + 2 * [""])[2]
    if key.endswith("experts.gate_up_proj"):
        x = x.swapaxes(1, 2)
        half = x.shape[1] // 2
        return {f"blk.{layer}.ffn_gate_exps.weight": x[:, :half], f"blk.{layer}.ffn_up_exps.weight": x[:, half:]}
    return {f"blk.{layer}.ffn_down_exps.weight": x.swapaxes(1, 2)} if key.endswith("experts.down_proj") else {}


def llama3_divisors(rope, dim):
    """Long waves are slowed by the factor, short ones kept; Llama 4's two bounds are one."""
    assert rope["low_freq_factor"] == rope["high_freq_factor"]
    waves = [2 * math.pi * rope["rope_theta"] ** (2 * i / dim) for i in range(dim // 2)]
    return np.array([rope["factor"] if w > rope["original_max_position_embeddings"] / rope["low_freq_factor"] else 1 for w in waves], np.float32)


def heads_apart(c, x):
    """Of each head the rows of keys, turned, and those of values."""
    x = x.reshape(c.num_attention_heads, c.qk_nope_head_dim + c.v_head_dim, -1)
    return x[:, :c.qk_nope_head_dim].swapaxes(1, 2), x[:, c.qk_nope_head_dim:]


def tensors(arch, name_of_model, c, saved):
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
        special = gpt_oss(key, x) if arch == "gpt-oss" else llama4(key, x) if arch == "llama4" else {}
        if special:
            out.update(special)
            continue
        key = key.replace("e_score_correction_bias", "e_score_correction.bias")
        part, suffix = key.rsplit(".", 1)
        more = MORE.get(re.sub(r"\.\d+\.", ".{}.", part))
        layer = re.search(r"\.(\d+)\.", part)
        name = f"blk.{layer[1]}.{more}.{suffix}" if more else names.get_name(key, try_suffixes=(".weight", ".bias"))
        assert name, key
        if name.endswith("attn_kv_b.weight") and not is_older(name_of_model):
            out[name.replace("kv_b", "k_b")], out[name.replace("kv_b", "v_b")] = heads_apart(c, x)
            continue
        out[name if "." in name.rsplit(".", 1)[-1] or name.endswith((".weight", ".bias")) else name + ".weight"] = changed(arch, c, name, x)
    for name, parts in stacks.items():
        out[name] = np.stack([parts[e] for e in range(len(parts))])
    return out


def write_gguf(path, arch, name, c, saved):
    keys, n_keys = metadata(arch, name, c)
    infos, blobs, offset = [], [], 0
    ts = tensors(arch, name, c, saved)
    for tensor, x in ts.items():
        x = np.ascontiguousarray(x.squeeze() if tensor.endswith("inp_shexp.weight") else x, np.float32)
        infos.append(string(tensor) + struct.pack(f"<I{x.ndim}Q", x.ndim, *reversed(x.shape)) + struct.pack("<IQ", 0, offset))
        blobs.append(x.tobytes() + bytes(-x.nbytes % 32))
        offset += len(blobs[-1])
    factors = {}   # of rope: tensors, not keys
    if c.rope_parameters.get("rope_type") == "longrope":
        factors = {f"rope_factors_{what}.weight": np.array(c.rope_parameters[what + "_factor"], np.float32) for what in ("long", "short")}
    if c.rope_parameters.get("rope_type") == "llama3":
        factors = {"rope_freqs.weight": llama3_divisors(c.rope_parameters, c.head_dim)}
    for tensor, x in factors.items():
        infos.append(string(tensor) + struct.pack("<IQIQ", 1, len(x), 0, offset))
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


def make_seeing(name, out, write_logits):
    """A model that sees, asked about words alone: its directory, and its logits."""
    kind, text, sizes, eyes, own, n_prompt = SEEING[name]
    text = {"model_type": text, "rope_parameters": PLAIN, **SIZES, **sizes}
    config = transformers.AutoConfig.for_model(kind, text_config=text, vision_config=eyes, tie_word_embeddings=text.get("tie_word_embeddings", False), **own)
    model = transformers.AutoModelForImageTextToText.from_config(config, attn_implementation="eager").float().eval()
    fill(model, name, "BF16")
    ids = np.random.default_rng(zlib.crc32(name.encode())).integers(3, 95, n_prompt)
    with torch.no_grad():
        logits = model(input_ids=torch.from_numpy(ids)[None]).logits[0].numpy()
    write_dir(os.path.join(out, name), *saved_by(model))
    write_logits(os.path.join(out, name) + "-bf16.logits", ids, logits)


def write_dir(path, saved, config):
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    config.pop("dtype", None)
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(config, f, indent=1)
        f.write("\n")
    safetensors.torch.save_file({k: v.bfloat16().contiguous() for k, v in saved.items()}, os.path.join(path, "model.safetensors"),
                                metadata={"format": "pt"})


def make(name, out, write_logits):
    arch = FAMILIES[name][1]
    path = os.path.join(out, name)
    if arch:
        c, model, ids, logits = reference(name, "F32")
        saved, _ = saved_by(model)
        write_gguf(path + ".gguf", arch, name, c, {k: v.float().numpy() for k, v in saved.items()})
        write_logits(path + ".logits", ids, logits)
        size = os.path.getsize(path + ".gguf")
        print(f"{name:14} {size:7} bytes, logits within [{logits.min():.2f}, {logits.max():.2f}], deviation {logits.std():.2f}")
    c, model, ids, logits = reference(name, "BF16")
    write_dir(path, *saved_by(model))
    write_logits(path + "-bf16.logits", ids, logits)
