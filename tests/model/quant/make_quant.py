#!/usr/bin/env python3
"""Golden files of quantised checkpoints: tiny random Llamas in each published format, what the format's own code makes of their
weights, and the logits that Hugging Face transformers gives those.

    python3 -m venv v && v/bin/pip install torch numpy transformers==5.23.0 compressed-tensors==0.20.0
    v/bin/pip install --no-deps auto-gptq==0.7.1 bitsandbytes==0.49.0; v/bin/pip download --no-deps --no-binary :all: autoawq==0.2.9   # unpack awq/ into v
    v/bin/python make_quant.py [OUTDIR [NAME ...]]

The files are in the tree; the tests read those and need no Python. For each NAME:

    NAME/config.json, NAME/model.safetensors    the checkpoint
    NAME.sums      a line for each tensor: its name as GGUF has it, its shape, and the CRC-32 of the reference's values as f32
    NAME.logits    as tests/model/golden/make_goldens.py describes it; the reference runs on those values in float32

Codes are made here by plain rounding; what they mean is asked of the reference: `dequantise` of each format below.
"""

import importlib.util
import json
import os
import re
import sys
import zlib

import numpy as np
import safetensors.torch
import torch
import transformers
from compressed_tensors.compressors import BaseCompressor
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32, unpack_from_int32
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "golden"))
from make_goldens import NAMES, TOPS, write_logits  # noqa: E402

assert transformers.__version__ == "5.23.0", "other versions may compute other last bits"

SMALL = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 96,
         "num_hidden_layers": 2, "max_position_embeddings": 128, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2,
         "pad_token_id": None}
BLOCKS = {**SMALL, "hidden_size": 160, "intermediate_size": 192, "head_dim": 32, "num_hidden_layers": 1}
WIDE = {**SMALL, "hidden_size": 128, "intermediate_size": 256, "head_dim": 32, "num_hidden_layers": 1}

# ---- FP8 ----


def to_fp8(w, scale, kind=torch.float8_e4m3fn):
    most = torch.finfo(kind).max
    return (w / scale).clamp(-most, most).to(kind)


def spread(scale, w, block):
    """The scale of each value, where one holds for a block; the last blocks may be cut."""
    return scale.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)[: w.shape[0], : w.shape[1]]


def fp8_dequantise(codes, scale, block, dtype):
    """As DeepSeek's weight_dequant: f32 code times f32 scale, stored as the model's type. Where blocks are whole, transformers' own code must
    say the same."""
    full = (codes.float() * spread(scale.float(), codes, block)).to(dtype)
    if codes.shape[0] % block[0] == 0 and codes.shape[1] % block[1] == 0:
        from transformers.integrations.finegrained_fp8 import Fp8Dequantize

        theirs = Fp8Dequantize._dequantize_one(object.__new__(Fp8Dequantize), codes, scale, dtype)
        assert torch.equal(theirs, full)
    return full


class Fp8:
    """quant_method fp8: blocks ([128, 128]), or one scale for all (None)"""

    def __init__(self, block, name, scale_dtype=torch.float32):
        self.block, self.name, self.scale_dtype = block, name, scale_dtype

    def config(self):
        return {"quant_method": "fp8", "activation_scheme": "dynamic" if self.block else "static", "fmt": "e4m3",
                "weight_block_size": list(self.block) if self.block else None, "modules_to_not_convert": ["lm_head"]}

    def quantise(self, module, w, dtype):
        b = self.block or w.shape
        rows, cols = -(-w.shape[0] // b[0]), -(-w.shape[1] // b[1])
        scale = torch.tensor([[w[i * b[0]:(i + 1) * b[0], j * b[1]:(j + 1) * b[1]].abs().max() for j in range(cols)] for i in range(rows)]) / 448
        scale = scale.to(self.scale_dtype)
        codes = to_fp8(w, spread(scale.float(), w, b))
        files = {"weight": codes, self.name: scale if self.block else scale[0, 0]}
        if not self.block:
            files["input_scale"] = torch.tensor(0.02)
        return files, fp8_dequantise(codes, scale, b, dtype)


class Fbgemm:
    """quant_method fbgemm_fp8: a scale for each row"""

    def config(self):
        return {"quant_method": "fbgemm_fp8", "activation_scale_ub": 1200.0, "modules_to_not_convert": ["lm_head"]}

    def quantise(self, module, w, dtype):
        scale = w.abs().amax(1, keepdim=True) / 448
        codes = to_fp8(w, scale)
        return {"weight": codes, "weight_scale": scale, "input_scale_ub": torch.tensor([1200.0])}, fp8_dequantise(codes, scale, (1, w.shape[1]), dtype)


class Plain8:
    """FP8 without a scale and without a word in config.json"""

    def __init__(self, kind):
        self.kind = kind

    def config(self):
        return None

    def quantise(self, module, w, dtype):
        codes = to_fp8(w, 1.0, self.kind)
        return {"weight": codes}, codes.to(torch.bfloat16)


# ---- GPTQ, AWQ ----


def source_of(package, file):
    """A module of a package that is not imported whole: only its arithmetic is wanted."""
    where = importlib.util.find_spec(package).submodule_search_locations[0]
    spec = importlib.util.spec_from_file_location(package + "_part", os.path.join(where, file))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def int_codes(w, bits, group, symmetric):
    """scales and zero points [rows, groups] of the groups of columns"""
    g = w.reshape(w.shape[0], -1, group)
    if symmetric:
        return (g.abs().amax(2) / (2 ** (bits - 1) - 0.5)), torch.full(g.shape[:2], float(2 ** (bits - 1)))
    low, high = g.amin(2).clamp(max=0), g.amax(2).clamp(min=0)
    scale = (high - low) / (2**bits - 1)
    return scale, (-low / scale).round().clamp(1, 2**bits - 1)


class Gptq:
    """Packed and widened by auto_gptq's QuantLinear: its product in float32 where codes are kept, in the scales' own type where they are not."""

    def __init__(self, bits, group, symmetric=True, order=False, v2=False, old=False, kept=True):
        self.bits, self.group, self.symmetric, self.order, self.v2, self.kept = bits, group, symmetric, order, v2, kept
        self.beside = "quantize_config.json" if old else None

    def config(self):
        c = {"bits": self.bits, "group_size": self.group, "damp_percent": 0.01, "desc_act": self.order, "static_groups": False, "sym": self.symmetric,
             "true_sequential": True, "lm_head": False}
        return c if self.beside else {"quant_method": "gptq", "checkpoint_format": "gptq_v2" if self.v2 else "gptq", **c}

    def quantise(self, module, w, dtype):
        linear_of = source_of("auto_gptq", "nn_modules/qlinear/qlinear_cuda.py").QuantLinear
        rows, cols = w.shape
        group = self.group if self.group > 0 else cols
        order = torch.arange(cols)
        if self.order:
            order = torch.from_numpy(np.random.default_rng(cols).permutation(cols))
        scales, zeros = int_codes(w[:, order], self.bits, group, self.symmetric)
        scales = scales.to(dtype)
        g_idx = torch.empty(cols, dtype=torch.int32)
        g_idx[order] = (torch.arange(cols) // group).int()
        linear = torch.nn.Linear(cols, rows, bias=False)
        linear.weight.data = w.to(dtype)
        packed = linear_of(self.bits, group, cols, rows, False, weight_dtype=dtype)
        packed.pack(linear, scales, zeros.clone(), g_idx)
        files = {k: getattr(packed, k) for k in ("qweight", "qzeros", "scales", "g_idx")}
        kind = torch.float32 if self.kept else dtype
        packed.scales = packed.scales.to(kind)
        meaning = packed(torch.eye(cols, dtype=kind)).t().contiguous()
        if self.v2:   # zero points as they are: what v1 would store of one more
            more = linear_of(self.bits, group, cols, rows, False, weight_dtype=dtype)
            more.pack(linear, scales, zeros + 1, g_idx)
            files["qzeros"] = more.qzeros
        return files, meaning


class Awq:
    """Packed by hand in the order of awq's packing_utils, widened by its dequantize_gemm in float32."""

    def __init__(self, group, old=False):
        self.group, self.beside, self.kept = group, "quant_config.json" if old else None, True

    def config(self):
        if self.beside:
            return {"zero_point": True, "q_group_size": self.group, "w_bit": 4, "version": "GEMM"}
        return {"quant_method": "awq", "bits": 4, "group_size": self.group, "zero_point": True, "version": "gemm", "modules_to_not_convert": None}

    def quantise(self, module, w, dtype):
        awq = source_of("awq", "utils/packing_utils.py")
        scales, zeros = int_codes(w, 4, self.group, False)
        scales = scales.to(dtype)
        full = lambda x: x.float().repeat_interleave(self.group, 1)  # noqa: E731
        codes = (w / full(scales) + full(zeros)).round().clamp(0, 15).int()

        def pack(x):   # [rows, n] -> [n, rows / 8]
            lanes = x.int().t().reshape(x.shape[1], -1, 8)[:, :, awq.AWQ_ORDER].numpy().astype(np.uint32)
            words = (lanes << np.arange(0, 32, 4, dtype=np.uint32)).sum(2).astype(np.uint32)
            return torch.from_numpy(np.ascontiguousarray(words).view(np.int32))

        files = {"qweight": pack(codes), "qzeros": pack(zeros), "scales": scales.t().contiguous()}
        meaning = awq.dequantize_gemm(files["qweight"], files["qzeros"], files["scales"].float(), 4, self.group).t().contiguous()
        assert torch.equal(meaning, (codes - full(zeros)) * full(scales))
        return files, meaning


# ---- compressed-tensors: codes and meaning both by its own code ----


def ct_scale(w, args):
    """symmetric or not, as its observers do by minimum and maximum"""
    groups = {"tensor": w.reshape(1, -1), "channel": w, "group": w.reshape(-1, args.group_size or w.shape[1])}
    if args.strategy == "block":
        b = args.block_structure
        s = torch.tensor([[w[i:i + b[0], j:j + b[1]].abs().max() for j in range(0, w.shape[1], b[1])] for i in range(0, w.shape[0], b[0])])
        return s / 448, None
    g = groups[args.strategy]
    if args.type == "float":
        scale, zero = g.abs().amax(1) / 448, None
    elif args.symmetric:
        scale, zero = g.abs().amax(1) / (2 ** (args.num_bits - 1) - 0.5), None
    else:
        low, high = g.amin(1).clamp(max=0), g.amax(1).clamp(min=0)
        scale = (high - low) / (2 ** args.num_bits - 1)
        zero = (-(2 ** (args.num_bits - 1)) - low / scale).round().clamp(-(2 ** (args.num_bits - 1)), 2 ** (args.num_bits - 1) - 1)
    shape = (1,) if args.strategy == "tensor" else (w.shape[0], -1)
    return scale.reshape(shape), None if zero is None else zero.reshape(shape).to(torch.int8)


class Compressed:
    def __init__(self, fmt, groups, ignore=("lm_head",), extra=None, kept=True):
        self.fmt, self.ignore, self.extra, self.kept = fmt, list(ignore), extra or {}, kept
        self.groups = {name: (targets, QuantizationArgs(**args)) for name, (targets, args) in groups.items()}

    def config(self):
        groups = {name: {"targets": targets, "weights": args.model_dump(mode="json"), "input_activations": None, "output_activations": None}
                  for name, (targets, args) in self.groups.items()}
        return {"quant_method": "compressed-tensors", "format": self.fmt, "config_groups": groups, "ignore": self.ignore,
                "kv_cache_scheme": None, "quantization_status": "compressed", "sparsity_config": {}, "version": "0.20.0", **self.extra}

    def args_of(self, module):
        for i in self.ignore:
            if re.match(i[3:], module) if i.startswith("re:") else i == module:
                return None
        for targets, args in sorted(self.groups.values(), key=lambda g: g[0][0] == "Linear"):
            for t in targets:
                if t == "Linear" or (re.match(t[3:], module) if t.startswith("re:") else t == module):
                    return args
        return None

    def quantise(self, module, w, dtype):
        args = self.args_of(module)
        if args is None:
            return None
        scale, zero = ct_scale(w, args)
        scale = scale.to(dtype)
        scheme = QuantizationScheme(targets=["Linear"], weights=args)
        compressor = BaseCompressor.get_value_from_registry(self.fmt)
        state = {"weight": w.to(dtype), "weight_scale": scale}
        if zero is not None:
            state["weight_zero_point"] = zero
        packed = compressor.compress(state, scheme)
        files = {k: v.contiguous() for k, v in packed.items()}
        wide = {k: v.float() if v.dtype in (torch.bfloat16, torch.float16) else v for k, v in packed.items()}
        # where codes are kept their meaning is the product in float32; else they are widened to the model's type
        kept = self.kept and args.type == "int"
        meaning = compressor.decompress(wide if kept else packed, scheme)["weight"]
        return files, meaning if kept else meaning.to(dtype)


class CompressedOrder(Compressed):
    """activation order "group": columns are quantised in another order, which weight_g_idx tells"""

    def config(self):   # the package no longer writes this, but files have it
        c = super().config()
        c["config_groups"]["group_0"]["weights"]["actorder"] = "group"
        return c

    def quantise(self, module, w, dtype):
        cols, group = w.shape[1], next(iter(self.groups.values()))[1].group_size
        order = torch.from_numpy(np.random.default_rng(cols).permutation(cols))
        g_idx = torch.empty(cols, dtype=torch.int32)
        g_idx[order] = (torch.arange(cols) // group).int()
        files, meaning = super().quantise(module, w[:, order], dtype)
        files["weight_g_idx"] = g_idx
        back = torch.argsort(order)
        codes = unpack_from_int32(files["weight_packed"], 4, torch.Size(w.shape))[:, back].contiguous()
        files["weight_packed"] = pack_to_int32(codes, 4)
        return files, meaning[:, back]


class Fp4(Compressed):
    """compressed-tensors' NVFP4 and MXFP4, or the same codes under other names: ModelOpt multiplies by a factor where it divides, Quark's
    MXFP4 has a "weight" """

    def __init__(self, kind, by="compressed-tensors"):
        nv = kind == "nvfp4"
        args = {"num_bits": 4, "type": "float", "symmetric": True, "strategy": "tensor_group" if nv else "group", "group_size": 16 if nv else 32}
        super().__init__(kind + "-pack-quantized", {"group_0": (["Linear"], args)})
        self.by, self.nv = by, nv
        self.beside = "hf_quant_config.json" if by == "modelopt" else None

    def config(self):
        if self.by == "modelopt":
            return {"producer": {"name": "modelopt", "version": "0.29.0"},
                    "quantization": {"quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "group_size": 16, "exclude_modules": ["lm_head"]}}
        if self.by == "quark":
            return {"quant_method": "quark", "exclude": ["lm_head"], "layer_quant_config": {}, "global_quant_config": {
                "weight": {"dtype": "fp4", "qscheme": "per_group", "group_size": 32, "scale_format": "e8m0", "ch_axis": -1}, "input_tensors": None}}
        return super().config()

    def quantise(self, module, w, dtype):
        args = next(iter(self.groups.values()))[1]
        scheme, groups = QuantizationScheme(targets=["Linear"], weights=args), w.reshape(w.shape[0], -1, args.group_size)
        compressor = BaseCompressor.get_value_from_registry(self.fmt)
        most = groups.abs().amax(2)
        if not self.nv:
            state = {"weight": w.to(dtype), "weight_scale": torch.exp2(torch.floor(torch.log2(most / 6)) + 1).to(dtype)}
        else:
            factor = (448 * 6 / w.abs().max()).reshape(1)
            if self.by == "modelopt":   # a power of two: the same values whether one multiplies or divides
                factor = torch.exp2(torch.floor(torch.log2(factor)))
            state = {"weight": w.to(dtype), "weight_scale": (most / 6 * factor).to(torch.float8_e4m3fn).to(dtype), "weight_global_scale": factor}
        packed = compressor.compress(state, scheme)
        meaning = compressor.decompress(dict(packed), scheme)["weight"].to(dtype)
        if not self.nv:
            meaning = meaning + 0.0   # GGUF's MXFP4 has no -0
        files = {k: v.contiguous() for k, v in packed.items()}
        if self.by == "modelopt":
            files = {"weight": files["weight_packed"], "weight_scale": files["weight_scale"], "weight_scale_2": 1 / files["weight_global_scale"][0],
                     "input_scale": torch.tensor(0.02)}
        if self.by == "quark":
            files = {"weight": files["weight_packed"], "weight_scale": files["weight_scale"]}
        return files, meaning


class ModelOpt8:
    """ModelOpt's FP8: one scale, and the word in a file beside config.json"""

    beside = "hf_quant_config.json"

    def config(self):
        return {"producer": {"name": "modelopt", "version": "0.15.0"},
                "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]}}

    def quantise(self, module, w, dtype):
        scale = w.abs().max() / 448
        codes = to_fp8(w, scale)
        return {"weight": codes, "weight_scale": scale, "input_scale": torch.tensor(0.02)}, fp8_dequantise(codes, scale.reshape(1, 1), w.shape, dtype)


class Bnb:
    """bitsandbytes' 4 bits, by its own code (on the CPU), as transformers saves them"""

    def __init__(self, kind, nested, block=64):
        self.kind, self.nested, self.block = kind, nested, block

    def config(self):
        return {"quant_method": "bitsandbytes", "load_in_4bit": True, "load_in_8bit": False, "bnb_4bit_quant_type": self.kind, "_load_in_4bit": True,
                "bnb_4bit_use_double_quant": self.nested, "bnb_4bit_compute_dtype": "bfloat16", "bnb_4bit_quant_storage": "uint8", "llm_int8_skip_modules": None}

    def quantise(self, module, w, dtype):
        import bitsandbytes.functional as bnb

        codes, state = bnb.quantize_4bit(w.to(dtype), blocksize=self.block, compress_statistics=self.nested, quant_type=self.kind)
        files = {"weight": codes, **{f"weight.{k}": v for k, v in state.as_dict(packed=True).items()}}
        scales = bnb.dequantize_blockwise(state.absmax, state.state2) + state.offset if self.nested else state.absmax
        lanes = torch.stack([codes.reshape(-1) >> 4, codes.reshape(-1) & 15], 1).reshape(-1)
        meaning = (state.code[lanes.long()] * scales.repeat_interleave(self.block)[: lanes.numel()]).reshape(w.shape).to(dtype)
        state.shape = torch.Size([w.numel() // self.block, self.block])   # flat, as on a GPU: on processors the package cuts each row into blocks anew
        assert torch.equal(meaning.reshape(state.shape), bnb.dequantize_4bit(codes, state))
        return files, meaning


FP8 = {"num_bits": 8, "type": "float"}
W4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}
W8 = {"num_bits": 8, "type": "int", "strategy": "channel"}
FORMATS = {
    # name: (format, sizes, dtype)
    "gptq-4": (Gptq(4, 128), WIDE, torch.float16),
    "gptq-4-asym": (Gptq(4, 32, symmetric=False), SMALL, torch.float16),
    "gptq-4-order": (Gptq(4, 32, order=True, kept=False), SMALL, torch.float16),
    "gptq-4-order-whole": (Gptq(4, -1, order=True), SMALL, torch.float16),
    "gptq-4-v2": (Gptq(4, 32, symmetric=False, v2=True), SMALL, torch.float16),
    "gptq-3": (Gptq(3, -1, old=True), SMALL, torch.float16),
    "gptq-2": (Gptq(2, 32, symmetric=False), SMALL, torch.float16),
    "gptq-8": (Gptq(8, 32), SMALL, torch.bfloat16),
    "gptq-8-asym": (Gptq(8, 32, symmetric=False, kept=False), SMALL, torch.float16),
    "gptq-4-group-16": (Gptq(4, 16, kept=False), SMALL, torch.float16),
    "awq-4": (Awq(128), WIDE, torch.float16),
    "awq-4-old": (Awq(32, old=True), SMALL, torch.float16),
    "ct-w4": (Compressed("pack-quantized", {"group_0": (["Linear"], {**W4, "symmetric": True})}), SMALL, torch.bfloat16),
    "ct-w4-asym": (Compressed("pack-quantized", {"group_0": (["Linear"], {**W4, "symmetric": False})}), SMALL, torch.bfloat16),
    "ct-w4-channel": (Compressed("pack-quantized", {"group_0": (["Linear"], {**W4, "strategy": "channel", "group_size": None, "symmetric": False})}),
                      SMALL, torch.float16),
    "ct-w4-order": (CompressedOrder("pack-quantized", {"group_0": (["Linear"], {**W4, "symmetric": True})}, kept=False), SMALL,
                    torch.bfloat16),
    "ct-w8": (Compressed("pack-quantized", {"group_0": (["Linear"], {**W8, "symmetric": True})}), SMALL, torch.bfloat16),
    "ct-mixed": (Compressed("pack-quantized", {"group_0": (["re:.*mlp\\.(up|gate)_proj$"], {**W4, "symmetric": True}),
                                               "group_1": (["Linear"], {**W8, "strategy": "group", "group_size": 32, "symmetric": True})},
                            ["re:.*down_proj"]), SMALL, torch.bfloat16),
    "ct-int8": (Compressed("int-quantized", {"group_0": (["Linear"], {**W8, "symmetric": True})}), SMALL, torch.bfloat16),
    "ct-int8-asym": (Compressed("int-quantized", {"group_0": (["Linear"], {**W8, "symmetric": False})}, kept=False), SMALL, torch.bfloat16),
    "ct-int8-f32": (Compressed("int-quantized", {"group_0": (["Linear"], {**W8, "symmetric": True, "strategy": "tensor"})}), SMALL, torch.float32),
    "fp8-block": (Fp8((128, 128), "weight_scale_inv"), BLOCKS, torch.bfloat16),
    "fp8-block-bf16-scales": (Fp8((32, 64), "weight_scale_inv", torch.bfloat16), SMALL, torch.bfloat16),
    "fp8-block-e8m0-scales": (Fp8((32, 32), "weight_scale_inv", torch.float8_e8m0fnu), SMALL, torch.bfloat16),
    "fp8-tensor": (Fp8(None, "weight_scale"), SMALL, torch.float16),
    "fp8-rows": (Fbgemm(), SMALL, torch.bfloat16),
    "fp8-e4m3": (Plain8(torch.float8_e4m3fn), SMALL, torch.bfloat16),
    "fp8-e5m2": (Plain8(torch.float8_e5m2), SMALL, torch.float32),
    "ct-nvfp4": (Fp4("nvfp4"), SMALL, torch.bfloat16),
    "ct-mxfp4": (Fp4("mxfp4"), SMALL, torch.bfloat16),
    "modelopt-nvfp4": (Fp4("nvfp4", "modelopt"), SMALL, torch.bfloat16),
    "quark-mxfp4": (Fp4("mxfp4", "quark"), SMALL, torch.bfloat16),
    "modelopt-fp8": (ModelOpt8(), SMALL, torch.bfloat16),
    "bnb-nf4": (Bnb("nf4", True), WIDE, torch.bfloat16),
    "bnb-nf4-plain": (Bnb("nf4", False), SMALL, torch.float16),
    "bnb-fp4": (Bnb("fp4", True, 128), SMALL, torch.bfloat16),
    "ct-fp8-tensor": (Compressed("float-quantized", {"group_0": (["Linear"], {**FP8, "strategy": "tensor"})}), SMALL, torch.bfloat16),
    "ct-fp8-channel": (Compressed("float-quantized", {"group_0": (["Linear"], {**FP8, "strategy": "channel"})},
                                  ["lm_head", "re:.*o_proj$", "model.layers.1.mlp.up_proj"]), SMALL, torch.bfloat16),
    "ct-fp8-block": (Compressed("float-quantized", {"group_0": (["re:.*layers\\.\\d+\\.(self_attn|mlp)\\..*"],
                                                                 {**FP8, "strategy": "block", "block_structure": [32, 32]})}), SMALL, torch.bfloat16),
}

# ---- MXFP4: gpt-oss's experts ----


def mxfp4(w):
    """blocks and scales of [experts, rows, columns], and what transformers makes of them, as its model has them: [experts, columns, rows]"""
    from transformers.integrations.mxfp4 import FP4_VALUES, convert_moe_packed_tensors

    values = torch.tensor(FP4_VALUES)
    g = w.reshape(*w.shape[:2], -1, 32)
    exponent = torch.floor(torch.log2(g.abs().amax(-1) / 6)).add(1).clamp(-127, 127)
    scaled = g / torch.exp2(exponent)[..., None]
    codes = (scaled[..., None] - values).abs().argmin(-1).to(torch.uint8)
    blocks = codes[..., 0::2] | codes[..., 1::2] << 4
    scales = (exponent + 127).to(torch.uint8)
    return blocks, scales, convert_moe_packed_tensors(blocks, scales, dtype=torch.bfloat16).float()


GPT_OSS = {"hidden_size": 64, "intermediate_size": 32, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 96,
           "num_hidden_layers": 2, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": 16, "max_position_embeddings": 128,
           "tie_word_embeddings": False, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
           "rope_parameters": {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
                               "original_max_position_embeddings": 32}}
PARTS = {"input_layernorm.weight": "attn_norm.weight", "post_attention_layernorm.weight": "post_attention_norm.weight", "self_attn.sinks": "attn_sinks.weight",
         "mlp.router.weight": "ffn_gate_inp.weight", "mlp.router.bias": "ffn_gate_inp.bias",
         **{f"self_attn.{a}_proj.{s}": f"attn_{b}.{s}" for a, b in (("q", "q"), ("k", "k"), ("v", "v"), ("o", "output")) for s in ("weight", "bias")}}


def make_gpt_oss(name, out):
    import families

    rng = np.random.default_rng(zlib.crc32(name.encode()))
    config = transformers.GptOssConfig(**GPT_OSS)
    config._attn_implementation = "eager"
    model = transformers.GptOssForCausalLM(config).float().eval()
    families.fill(model, name, "BF16")
    files, sums = {}, []

    def note(key, x):
        sums.append(f"{key} {'x'.join(map(str, x.shape))} {zlib.crc32(np.ascontiguousarray(x.float().numpy(), '<f4').tobytes()):08x}\n")

    with torch.no_grad():
        for key, p in model.named_parameters():
            layer, _, what = key.removeprefix("model.layers.").partition(".")
            if key.endswith(("experts.gate_up_proj", "experts.down_proj")):
                blocks, scales, wide = mxfp4(p.transpose(1, 2))
                files[key + "_blocks"], files[key + "_scales"] = blocks, scales
                p.copy_(wide)
                rows = wide.transpose(1, 2)
                parts = {"gate": rows[:, 0::2], "up": rows[:, 1::2]} if "gate_up" in key else {"down": rows}
                for part, x in parts.items():
                    note(f"blk.{layer}.ffn_{part}_exps.weight", x)
            elif "experts" in key:
                files[key] = p.bfloat16()
                parts = {"gate": p[:, 0::2], "up": p[:, 1::2]} if "gate_up" in key else {"down": p}
                for part, x in parts.items():
                    note(f"blk.{layer}.ffn_{part}_exps.bias", x)
            else:
                files[key] = p.bfloat16()
                note(f"blk.{layer}.{PARTS[what]}" if "layers" in key else TOPS[key[:-7]] + ".weight", p)
        ids = rng.integers(3, config.vocab_size, 60)
        logits = model(torch.from_numpy(ids)[None]).logits[0].numpy()
    path = os.path.join(out, name)
    os.makedirs(path, exist_ok=True)
    config.architectures = ["GptOssForCausalLM"]
    said = {**config.to_diff_dict(), "quantization_config": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "lm_head"]}}
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(said, f, indent=1)
        f.write("\n")
    safetensors.torch.save_file({k: v.contiguous() for k, v in files.items()}, os.path.join(path, "model.safetensors"), metadata={"format": "pt"})
    with open(path + ".sums", "w") as f:
        f.writelines(sums)
    write_logits(path + ".logits", ids, logits)
    print(f"{name:24} {os.path.getsize(os.path.join(path, 'model.safetensors')):7} bytes, logits deviate by {logits.std():.2f}")


# ---- all ----


def gguf_name(key):
    part, suffix = key.rsplit(".", 1)
    if part in TOPS:
        return f"{TOPS[part]}.{suffix}"
    _, _, layer, what = part.split(".", 3)
    return f"blk.{layer}.{NAMES[what]}.{suffix}"


def make(name, out):
    fmt, sizes, dtype = FORMATS[name]
    torch.manual_seed(0)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    config = transformers.LlamaConfig(**sizes, rope_parameters={"rope_type": "default", "rope_theta": 10000.0})
    config._attn_implementation = "eager"
    model = transformers.LlamaForCausalLM(config).float().eval()
    files, sums = {}, []
    with torch.no_grad():
        for key, p in model.named_parameters():
            w = torch.from_numpy(rng.standard_normal(p.shape, np.float32) * np.float32(1.6 / np.sqrt(p.shape[-1])) if p.ndim == 2
                                 else (1 + 0.1 * rng.standard_normal(p.shape)).astype(np.float32)).to(dtype)
            module = key.rsplit(".", 1)[0]
            made = fmt.quantise(module, w.float(), dtype) if p.ndim == 2 and "layers" in key else None
            if made is None:
                files[key] = w
            else:
                files.update({f"{module}.{k}": v for k, v in made[0].items()})
            p.copy_((made[1] if made else w).float())
            sums.append(f"{gguf_name(key)} {'x'.join(map(str, p.shape))} {zlib.crc32(p.numpy().astype('<f4').tobytes()):08x}\n")
        ids = rng.integers(3, config.vocab_size, 60)
        logits = model(torch.from_numpy(ids)[None]).logits[0].numpy()
    if isinstance(fmt, (Fp8,)):   # what an FP8 cache would be scaled by: not ours to look at
        files["model.layers.0.self_attn.k_scale"] = torch.tensor(0.5)
    path = os.path.join(out, name)
    os.makedirs(path, exist_ok=True)
    config.architectures = ["LlamaForCausalLM"]
    config.dtype = dtype
    said = config.to_diff_dict()
    beside = getattr(fmt, "beside", None)
    if beside:
        with open(os.path.join(path, beside), "w") as f:
            json.dump(fmt.config(), f, indent=1)
            f.write("\n")
    elif fmt.config():
        said["quantization_config"] = fmt.config()
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(said, f, indent=1)
        f.write("\n")
    safetensors.torch.save_file({k: v.contiguous() for k, v in files.items()}, os.path.join(path, "model.safetensors"), metadata={"format": "pt"})
    with open(path + ".sums", "w") as f:
        f.writelines(sums)
    write_logits(path + ".logits", ids, logits)
    print(f"{name:24} {os.path.getsize(os.path.join(path, 'model.safetensors')):7} bytes, logits deviate by {logits.std():.2f}")


def main():
    out = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    torch.set_num_threads(1)
    for name in FORMATS:
        if name in sys.argv[2:] or len(sys.argv) < 3:
            make(name, out)
    if "gpt-oss-mxfp4" in sys.argv[2:] or len(sys.argv) < 3:
        make_gpt_oss("gpt-oss-mxfp4", out)


if __name__ == "__main__":
    main()
