#!/usr/bin/env python3
"""Golden files: tiny SentencePiece models with maps of characters, and the ids that SentencePiece itself gives for the texts of
make_tokenizers.py; the same map as a step of a tokenizer.json, with the ids of the `tokenizers` package.

    python3 -m venv v && v/bin/pip install sentencepiece==0.2.3 tokenizers==0.23.3
    v/bin/python make_sentencepiece.py [DATA]       DATA: a folder with the real models of REAL

It writes beside itself

    NAME.model              what a checkpoint has as tokenizer.model
    sentencepiece.json      {"ids": {NAME or PATH: [[id, ...], ...]}, "decoded": {NAME: [text, ...]}}, in the order of ids.json's texts
    unigram-map.json        and its ids in ids.json (by make_tokenizers.py)
"""

import io
import json
import os
import sys
import unicodedata

import sentencepiece

import make_tokenizers
from make_tokenizers import META, OTHERS, SCRIPTS

assert sentencepiece.__version__ == "0.2.3"
HERE = os.path.dirname(os.path.abspath(__file__))
TEXTS = SCRIPTS + OTHERS
REAL = ["tokenizers/spm/test_model.model"]


def rules():
    """As much of nmt_nfkc as the texts need, and keys of several characters that share beginnings."""
    out = {}
    for c in [*range(0xA0, 0x250), *range(0x300, 0x370), *range(0x1E00, 0x1F00), *range(0x2100, 0x2200), *range(0x2460, 0x2500), *range(0x3300, 0x3400),
              *range(0xFB00, 0xFB07), *range(0xFF00, 0xFFF0), *range(0x1D504, 0x1D540)]:
        to = unicodedata.normalize("NFKC", chr(c))
        if to != chr(c):
            out[chr(c)] = to
    for base in "aeiouAEIOUncyo":
        for mark in "\u0300\u0301\u0302\u0303\u0308\u030A":
            both = base + mark
            if len(unicodedata.normalize("NFC", both)) == 1:
                out[both] = unicodedata.normalize("NFC", both)
    for k in range(0xFF66, 0xFF9E):
        for mark in "\uFF9E\uFF9F":
            both = chr(k) + mark
            if len(unicodedata.normalize("NFKC", both)) == 1:
                out[both] = unicodedata.normalize("NFKC", both)
    out["\u1112\u1161\u11ab"] = "\ud55c"
    out["o\u0308\u0323"] = "\u1ecd\u0308"
    for space in "\t\n\r\u00a0\u2003\u3000\u2028\u0085":
        out[space] = " "
    for nothing in "\x01\x1f\x7f\u200b\u200d\ufeff":
        out[nothing] = ""
    return out


def write_rules(path):
    with open(path, "w") as f:
        for src, to in sorted(rules().items()):
            print(" ".join(f"{ord(c):X}" for c in src), " ".join(f"{ord(c):X}" for c in to), sep="\t", file=f)


def train(name, rule_file, **switches):
    model = io.BytesIO()
    normal = {"normalization_rule_tsv": rule_file} if switches.pop("map") else {"normalization_rule_name": "identity"}
    sentences = [t.replace("\0", "").replace("\n", " ") for i, t in enumerate(TEXTS) if i % 3] * 3   # the scripts of the others are unknown
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(sentences), model_writer=model, character_coverage=0.98,
                                             hard_vocab_limit=False, self_test_sample_size=0,
                                             num_threads=1, minloglevel=2, **normal, **switches)
    with open(os.path.join(HERE, name + ".model"), "wb") as f:
        f.write(model.getvalue())
    return model.getvalue()


KINDS = {
    "sp-unigram-map": dict(model_type="unigram", vocab_size=900, map=True, byte_fallback=True, user_defined_symbols=["<tool>", "\u2581\u2581meta", "12"]),
    "sp-unigram-plain": dict(model_type="unigram", vocab_size=600, map=False, remove_extra_whitespaces=False, add_dummy_prefix=False,
                             user_defined_symbols=["mask"], control_symbols=["<|im_start|>"]),
    "sp-bpe-map": dict(model_type="bpe", vocab_size=900, map=True, byte_fallback=True),
}


def fields(data):
    """The fields of a protobuf message: (number, value)."""
    at = 0
    def varint():
        nonlocal at
        v = shift = 0
        while True:
            c = data[at]
            at += 1
            v |= (c & 0x7F) << shift
            shift += 7
            if c < 0x80:
                return v
    while at < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            n = {1: 8, 5: 4}.get(key & 7) or varint()
            yield key >> 3, data[at:at + n]
            at += n


def charsmap(model):
    normal = next(v for k, v in fields(model) if k == 3)
    return next(v for k, v in fields(normal) if k == 2)


def main():
    rule_file = os.path.join(HERE, "rules.tsv")
    write_rules(rule_file)
    golden = {"ids": {}, "decoded": {}}
    models = {name: train(name, rule_file, **dict(kind)) for name, kind in KINDS.items()}
    os.remove(rule_file)
    if len(sys.argv) > 1:
        models |= {path: open(os.path.join(sys.argv[1], path), "rb").read() for path in REAL}
    for name, model in models.items():
        sp = sentencepiece.SentencePieceProcessor(model_proto=model)
        ids = [sp.encode(t) for t in TEXTS]
        golden["ids"][name] = ids
        known = [all(not sp.is_unknown(i) for i in line) for line in ids]
        golden["decoded"][name] = [sp.decode(line) if k and t[:1] != META else None for t, line, k in zip(TEXTS, ids, known)]   # one space is dropped here
        print(f"{name:36} {sp.get_piece_size()} pieces, {sum(map(len, ids))} ids, map of {len(charsmap(model)) if name != 'sp-unigram-plain' else 0} bytes")
    with open(os.path.join(HERE, "sentencepiece.json"), "w") as f:
        json.dump(golden, f, ensure_ascii=False, separators=(",", ":"))
        f.write("\n")
    make_tokenizers.use_map(charsmap(models["sp-unigram-map"]))
    sys.argv = [sys.argv[0], HERE, "--only", "unigram-map"]
    make_tokenizers.main()


if __name__ == "__main__":
    main()
