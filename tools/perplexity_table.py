#!/usr/bin/env python3
"""What each type costs: perplexities of a model's files of every type beside the one that they were made of, as a table for docs/models.md.

    tools/perplexity_table.py build/release/bin/tessera MODEL.gguf TEXT [--imatrix]

Files are made in a folder that is removed; with --imatrix also with an importance matrix measured over the first half of TEXT, and
everything is then scored on the second half."""
import json
import os
import subprocess
import sys
import tempfile

TYPES = ["Q8_0", "Q6_K", "Q5_K_M", "Q5_0", "Q4_K_M", "Q4_K_S", "IQ4_XS", "IQ4_NL", "Q4_0", "Q3_K_L", "Q3_K_M", "Q3_K_S", "Q2_K"]
tessera, model, text = sys.argv[1:4]
with_imatrix = "--imatrix" in sys.argv


def run(*args):
    return subprocess.run([tessera, *args], check=True, capture_output=True, text=True).stdout


def score(path, text):
    out = json.loads(run("perplexity", path, "--file", text, "--json", "--device", "cpu", "--threads", "1", "--log-level", "error", "--chunk", "256"))
    return out["perplexity"]


with tempfile.TemporaryDirectory() as tmp:
    words = open(text, encoding="utf-8").read()
    half = words.find("\n", len(words) // 2) + 1
    scored, measured = text, None
    if with_imatrix:
        scored, measured = os.path.join(tmp, "scored.txt"), os.path.join(tmp, "measured.txt")
        open(measured, "w", encoding="utf-8").write(words[:half])
        open(scored, "w", encoding="utf-8").write(words[half:])
        run("imatrix", model, "-f", measured, "-o", os.path.join(tmp, "imatrix.gguf"), "--chunk", "256")
    base, size = score(model, scored), os.path.getsize(model)
    print("| type | MB | perplexity | of the first |%s" % (" with importance | of the first |" if with_imatrix else ""))
    print("|---|---|---|---|%s" % ("---|---|" if with_imatrix else ""))
    print("| as it is | %.2f | %.4f | |%s" % (size / 1e6, base, " | |" if with_imatrix else ""))
    for t in TYPES:
        row = []
        for importance in ([False, True] if with_imatrix else [False]):
            out = os.path.join(tmp, "out.gguf")
            run("quantize", model, out, t, *(["--imatrix", os.path.join(tmp, "imatrix.gguf")] if importance else []))
            p, size = score(out, scored), os.path.getsize(out)
            row += ["%.4f" % p, "%+.2f %%" % (100 * (p / base - 1))]
            os.unlink(out)
        print("| %s | %.2f | %s |" % (t, size / 1e6, " | ".join(row)), flush=True)
