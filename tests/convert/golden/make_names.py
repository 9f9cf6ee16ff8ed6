#!/usr/bin/env python3
"""Writes names.inc: the tensors and keys that llama.cpp's converter gives to the checkpoints of tests/model/golden.

    tests/convert/golden/make_names.py LLAMA_CPP > tests/convert/golden/names.inc      # needs torch, transformers; LLAMA_CPP: its source, 2026 or later

Only names, shapes of lists and values are taken over: facts that a program which reads GGUF depends on. The small checkpoints say a few things
that the converter does not read, or that mean nothing; those keys are left out below, each with its reason."""
import logging
import pathlib
import re
import shutil
import sys
import tempfile

SOURCE = pathlib.Path(sys.argv[1])
sys.path[:0] = [str(SOURCE), str(SOURCE / "gguf-py")]
import gguf  # noqa: E402
import torch  # noqa: E402
from conversion import ModelBase, ModelType, get_model_architecture, get_model_class  # noqa: E402

GOLDEN = pathlib.Path("tests/model/golden")
# of what the converter reads otherwise in newer files: Hugging Face's names of these keys are not those it looks for
UNSAID = {"minimax-m2": {"rotary_dim": 8, "scoring_func": "sigmoid"}, "cohere2": {"rotary_pct": 1.0}}
LEFT_OUT = {
    "cohere2": {"rope.dimension_count"},                                                # of the width over the heads, which is not the head's
    "falcon-40b": {"context_length", "feed_forward_length", "tensor_data_layout"},      # fixed numbers of the published ones; a name nobody reads
    "glm": {"attention.layer_norm_rms_epsilon", "context_length", "rope.dimension_count"},  # of an older class with other words
    "glm4moe": {"block_count", "nextn_predict_layers"}, "glm4moe-air": {"block_count", "nextn_predict_layers"},  # we leave that layer out
    "phi2": {"attention.head_count_kv", "feed_forward_length"},                         # fixed numbers of the published ones
    "llama4-dense": {"expert_count", "expert_used_count"},                              # zeros
}
SKIPPED = {"falcon-7b", "deepseek3-halves", "llava-next", "mistral3", "llama4-sees", "smollm3-odd"}  # not converted there, or not here, or as another


def without_words(self):
    self.gguf_writer.add_tokenizer_model("no_vocab")


def convert(path, out):
    shutil.copytree(GOLDEN / path.name, path.parent / "in" / path.name)
    source = path.parent / "in" / path.name
    if path.name == "gemma3":
        (source / "tokenizer.json").write_text('{"model": {"vocab": {}}, "added_tokens": []}')
    hparams = {**ModelBase.load_hparams(source, False), **UNSAID.get(path.name, {})}
    cls = get_model_class(get_model_architecture(hparams, ModelType.TEXT))
    mine = type(cls.__name__, (cls,), {"set_vocab": without_words, "model_arch": cls.model_arch})
    more = {"hparams": hparams} if path.name in UNSAID else {}
    with torch.inference_mode():
        mine(source, gguf.LlamaFileType.ALL_F32, out, **more).write()


def said(v):
    if isinstance(v, list):
        return "[" + ",".join(said(x) for x in v) + "]"
    return f"{v:.7g}" if isinstance(v, float) else str(int(v)) if isinstance(v, (bool, int)) else v


def line(name, path):
    reader = gguf.GGUFReader(path)
    arch = reader.fields["general.architecture"].contents()
    tensors = sorted({re.sub(r"^blk\.\d+\.", "*.", t.name) for t in reader.tensors})
    keys = []
    for key, field in sorted(reader.fields.items()):
        short = key.removeprefix(arch + ".")
        if short != key and short not in LEFT_OUT.get(name, ()):
            keys.append(f"{short}={said(field.contents())}")
    return f'NAMES("{name}", "{arch}",\n      "{" ".join(tensors)}",\n      "{" ".join(keys)}")'


logging.disable(logging.WARNING)
print("/* Written by make_names.py; not to be edited. */")
for d in sorted(p for p in GOLDEN.iterdir() if list(p.glob("*.safetensors"))):
    if d.name in SKIPPED:
        continue
    with tempfile.TemporaryDirectory() as tmp:
        try:
            convert(pathlib.Path(tmp) / d.name, pathlib.Path(tmp) / "out.gguf")
            print(line(d.name, pathlib.Path(tmp) / "out.gguf"))
        except Exception as e:
            sys.exit(f"{d.name}: {e!r}")
