#!/usr/bin/env python3
"""Score tessera-demo on eval.jsonl: phrasings that it never saw in training. Needs numpy
(none with --base-url).

    python3 evaluate.py tessera-demo-q8_0.gguf                  with the small forward pass below
    python3 evaluate.py --base-url http://127.0.0.1:8000/v1     asking a running gateway
    python3 evaluate.py tessera-demo-f16.gguf --ask "Tell me the story of the whale."

Decoding is greedy. An answer is right when its text equals the expected one; for JSON and for tool
calls, when the parsed values are equal. The exit status is 1 if a kind is below 90 % or all together
below 95 %.
"""

import argparse
import json
import os
import re
import struct
import sys
import time
import urllib.request

try:
    import numpy as np
except ImportError:      # asking a gateway needs none
    np = None

from chat import dumps, render

HERE = os.path.dirname(os.path.abspath(__file__))


# --- GGUF -----------------------------------------------------------------------------------------

class Reader:
    def __init__(self, path):
        self.data, self.at = open(path, "rb").read(), 0

    def unpack(self, form):
        v = struct.unpack_from("<" + form, self.data, self.at)
        self.at += struct.calcsize("<" + form)
        return v[0] if len(v) == 1 else v

    def string(self):
        n = self.unpack("Q")
        self.at += n
        return self.data[self.at - n:self.at].decode()

    def value(self, kind):
        if kind == 8:
            return self.string()
        if kind == 9:
            kind, n = self.unpack("IQ")
            return [self.value(kind) for _ in range(n)]
        return self.unpack("BbHhIif?__Qqd"[kind])


def load(path):
    """(keys, tensors as float32)"""
    r = Reader(path)
    magic, version, n_tensors, n_keys = r.unpack("4sIQQ")
    assert magic == b"GGUF" and version == 3, path
    keys = {}
    for _ in range(n_keys):
        key = r.string()
        keys[key] = r.value(r.unpack("I"))
    infos = []
    for _ in range(n_tensors):
        name = r.string()
        dims = [r.unpack("Q") for _ in range(r.unpack("I"))]
        infos.append((name, dims[::-1], *r.unpack("IQ")))
    start = r.at + -r.at % keys.get("general.alignment", 32)
    tensors = {}
    for name, shape, kind, offset in infos:
        n, at = int(np.prod(shape)), start + offset
        if kind == 8:
            b = np.frombuffer(r.data, np.dtype([("d", "<f2"), ("q", "i1", 32)]), n // 32, at)
            x = b["d"].astype(np.float32)[:, None] * b["q"]
        else:
            x = np.frombuffer(r.data, {0: "<f4", 1: "<f2"}[kind], n, at)
        tensors[name] = x.astype(np.float32).reshape(shape)
    return keys, tensors


# --- tokenizer ------------------------------------------------------------------------------------

def byte_alphabet():
    """The letters by which GPT-2 vocabularies write the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = [b for b in range(256) if b not in plain]
    return {b: chr(b) for b in plain} | {b: chr(256 + i) for i, b in enumerate(extra)}


class Tokenizer:
    # The "qwen2" rule. Python's re has no \p{L}; [^\W\d_] is the same for all text met here.
    SPLIT = re.compile(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|(?:[^\r\n\w]|_)?[^\W\d_]+|\d| ?(?:[^\s\w]|_)+[\r\n]*"
                       r"|\s*[\r\n]+|\s+(?!\S)|\s+")

    def __init__(self, keys):
        self.tokens = keys["tokenizer.ggml.tokens"]
        self.ids = {t: i for i, t in enumerate(self.tokens)}
        self.rank = {tuple(m.split(" ")): i for i, m in enumerate(keys["tokenizer.ggml.merges"])}
        self.control = [t for t, k in zip(self.tokens, keys["tokenizer.ggml.token_type"]) if k == 3]
        self.to_letter = byte_alphabet()
        self.to_byte = {c: b for b, c in self.to_letter.items()}
        self.known = {}

    def piece(self, text):
        if text not in self.known:
            parts = [self.to_letter[b] for b in text.encode()]
            while len(parts) > 1:
                best = min(zip(parts, parts[1:]), key=lambda p: self.rank.get(p, 1 << 30))
                if best not in self.rank:
                    break
                merged, i = [], 0
                while i < len(parts):
                    step = 2 if tuple(parts[i:i + 2]) == best else 1
                    merged.append("".join(parts[i:i + step]))
                    i += step
                parts = merged
            self.known[text] = [self.ids[p] for p in parts]
        return self.known[text]

    def encode(self, text):
        out = []
        for part in re.split("(" + "|".join(map(re.escape, self.control)) + ")", text):
            if part in self.control:
                out.append(self.ids[part])
            else:
                for m in self.SPLIT.finditer(part):
                    out += self.piece(m.group())
        return out

    def decode(self, ids):
        text = "".join(self.tokens[i] for i in ids)
        return bytes(self.to_byte[c] for c in text).decode("utf-8", "replace")


# --- forward pass ---------------------------------------------------------------------------------

class Model:
    def __init__(self, path):
        self.keys, self.w = load(path)
        k = lambda name: self.keys["llama." + name]
        self.layers, self.context = k("block_count"), k("context_length")
        self.heads, self.kv_heads = k("attention.head_count"), k("attention.head_count_kv")
        self.width, self.eps = k("attention.key_length"), k("attention.layer_norm_rms_epsilon")
        self.tok = Tokenizer(self.keys)
        self.end = self.keys["tokenizer.ggml.eos_token_id"]
        angle = np.outer(np.arange(self.context), k("rope.freq_base") ** (-np.arange(0, self.width, 2) / self.width))
        self.cos, self.sin = np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)

    def norm(self, x, name):
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.eps) * self.w[name + ".weight"]

    def rotate(self, x, at):
        """x: [time, heads, width], turned in the pairs (2i, 2i+1)"""
        c, s = self.cos[at:at + len(x), None], self.sin[at:at + len(x), None]
        y = np.empty_like(x)
        y[..., 0::2] = x[..., 0::2] * c - x[..., 1::2] * s
        y[..., 1::2] = x[..., 0::2] * s + x[..., 1::2] * c
        return y

    def forward(self, ids, cache, at):
        """Logits after the last of ids, which stand at position at and after."""
        t, n = len(ids), at + len(ids)
        x = self.w["token_embd.weight"][ids]
        for i in range(self.layers):
            mul = lambda v, name: v @ self.w[f"blk.{i}.{name}.weight"].T
            h = self.norm(x, f"blk.{i}.attn_norm")
            q = self.rotate(mul(h, "attn_q").reshape(t, self.heads, self.width), at)
            keys, values = cache[i]
            keys[:, at:n] = self.rotate(mul(h, "attn_k").reshape(t, self.kv_heads, self.width), at).transpose(1, 0, 2)
            values[:, at:n] = mul(h, "attn_v").reshape(t, self.kv_heads, self.width).transpose(1, 0, 2)
            q = q.reshape(t, self.kv_heads, -1, self.width).transpose(1, 2, 0, 3)      # kv head, its query heads, time
            s = q @ keys[:, None, :n].transpose(0, 1, 3, 2) / np.float32(self.width ** .5)
            s += np.triu(np.full((t, n), -np.inf, np.float32), at + 1)
            s = np.exp(s - s.max(-1, keepdims=True))
            a = (s / s.sum(-1, keepdims=True)) @ values[:, None, :n]
            x = x + mul(a.transpose(2, 0, 1, 3).reshape(t, -1), "attn_output")
            h = self.norm(x, f"blk.{i}.ffn_norm")
            g = mul(h, "ffn_gate")
            x = x + mul(g / (1 + np.exp(-g)) * mul(h, "ffn_up"), "ffn_down")
        return self.w["token_embd.weight"] @ self.norm(x[-1], "output_norm")

    def chat(self, messages, tools=None, most=512):
        """(text, tool calls)"""
        ids, out = self.tok.encode(render(messages, tools)), []
        cache = [np.zeros((2, self.kv_heads, self.context, self.width), np.float32) for _ in range(self.layers)]
        at, step = 0, ids
        while len(out) < most and at + len(step) < self.context:
            best = int(self.forward(step, cache, at).argmax())
            if best == self.end:
                break
            at, step = at + len(step), [best]
            out.append(best)
        text = self.tok.decode(out)
        return text, find_calls(text)


def find_calls(text):
    calls = []
    for body in re.findall(r"<tool_call>\n(.*?)\n</tool_call>", text, re.S):
        try:
            calls.append(json.loads(body))
        except ValueError:
            return None
    return calls


# --- gateway --------------------------------------------------------------------------------------

class Gateway:
    def __init__(self, url, model, key):
        self.url, self.model, self.key = url.rstrip("/"), model, key

    def chat(self, messages, tools=None, most=512):
        sent, open_ids = [], []
        for i, m in enumerate(messages):   # the API wants ids, and arguments as text
            m = dict(m)
            if m.get("tool_calls"):
                open_ids = [f"call_{i}_{j}" for j in range(len(m["tool_calls"]))]
                m["tool_calls"] = [{"id": id, "type": "function", "function": {
                    "name": c["function"]["name"], "arguments": dumps(c["function"]["arguments"])}}
                    for id, c in zip(open_ids, m["tool_calls"])]
            elif m["role"] == "tool":
                m["tool_call_id"] = open_ids.pop(0)
            sent.append(m)
        body = {"model": self.model, "messages": sent, "temperature": 0, "max_tokens": most}
        if tools:
            body["tools"] = tools
        head = {"Content-Type": "application/json"} | ({"Authorization": "Bearer " + self.key} if self.key else {})
        request = urllib.request.Request(self.url + "/chat/completions", json.dumps(body).encode(), head)
        m = json.load(urllib.request.urlopen(request, timeout=300))["choices"][0]["message"]
        calls = [c["function"] for c in m.get("tool_calls") or []]
        return m.get("content") or "", [{"name": c["name"], "arguments": json.loads(c["arguments"])} for c in calls]


# --- score ----------------------------------------------------------------------------------------

def is_right(row, text, calls):
    try:
        if row["match"] == "tool":
            return calls == find_calls(row["expect"])
        if row["match"] == "json":
            return json.loads(text) == json.loads(row["expect"])
    except ValueError:
        return False
    return text.strip() == row["expect"]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("gguf", nargs="?", default=os.path.join(HERE, "tessera-demo-q8_0.gguf"))
    ap.add_argument("--base-url", help="an OpenAI-compatible endpoint, ending in /v1")
    ap.add_argument("--model", default="tessera-demo", help="the model's name at the gateway")
    ap.add_argument("--api-key", default=os.environ.get("OPENAI_API_KEY"))
    ap.add_argument("--kind", help="only this kind")
    ap.add_argument("--limit", type=int, help="at most this many of each kind")
    ap.add_argument("--wrong", action="store_true", help="show what went wrong")
    ap.add_argument("--ask", help="ask one question and print the answer")
    a = ap.parse_args()
    model = Gateway(a.base_url, a.model, a.api_key) if a.base_url else Model(a.gguf)
    if a.ask:
        print(model.chat([{"role": "user", "content": a.ask}])[0])
        return 0
    table, start = {}, time.time()
    for line in open(os.path.join(HERE, "eval.jsonl"), encoding="utf-8"):
        row = json.loads(line)
        n = table.setdefault(row["kind"], [0, 0]) if a.kind in (None, row["kind"]) else None
        if n is None or (a.limit and n[0] >= a.limit):
            continue
        text, calls = model.chat(row["messages"], row.get("tools"))
        ok = is_right(row, text, calls)
        n[0], n[1] = n[0] + 1, n[1] + ok
        if a.wrong and not ok:
            print(f"{row['kind']}: {row['messages'][-1]['content']!r}\n  expected {row['expect']!r}\n"
                  f"  answered {text!r} {calls or ''}")
    total = [sum(x) for x in zip(*table.values())]
    print(f"{'kind':<16} {'n':>5} {'right':>6} {'percent':>8}")
    for kind, (n, right) in [*table.items(), ("overall", total)]:
        print(f"{kind:<16} {n:>5} {right:>6} {100 * right / n:>7.1f}%")
    print(f"{time.time() - start:.0f} s")
    return int(any(r < .9 * n for n, r in table.values()) or total[1] < .95 * total[0])


if __name__ == "__main__":
    sys.exit(main())
