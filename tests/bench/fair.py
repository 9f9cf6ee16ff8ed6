#!/usr/bin/env python3
"""What fairness gives and costs on a real server: one light key beside 32 heavy ones.

    tests/bench/fair.py [--seconds 20] [--rounds 3] [--model FILE] [-- options of tessera serve]

Heavy keys keep 3 to 5 requests of unlike lengths open, no two with a common prefix; the light one asks for 8 tokens four times a second.
Twice the same load: each key its own (token-fair shares), and all as one key (first come, first served). In turn, so that what else the machine does meets both. Standard library only."""
import argparse
import collections
import json
import os
import re
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from cluster import DEMO, Server  # noqa: E402

HEAVY = 32
STORY = "Once upon a time there was a lighthouse at the end of the world. "


def jain(shares):
    return sum(shares) ** 2 / (len(shares) * sum(x * x for x in shares))


def quantile(values, q):
    return sorted(values)[min(int(q * len(values)), len(values) - 1)] if values else float("nan")


class Load:
    """The same requests whoever's they are."""

    def __init__(self, server, key_of, seconds):
        self.s, self.key_of, self.ttft = server, key_of, []
        self.end = threading.Event()
        self.threads = [threading.Thread(target=self.heavy, args=(i, k), daemon=True) for i in range(HEAVY) for k in range(3 + i % 3)]
        self.threads.append(threading.Thread(target=self.light, daemon=True))
        for t in self.threads:
            t.start()
        time.sleep(1.5)  # until the queue is as long as it gets
        before, t0, keys = self.counts(), time.monotonic(), self.keys()
        self.ttft.clear()
        time.sleep(seconds)
        after, t1, later = self.counts(), time.monotonic(), self.keys()
        self.tokens_per_s = (after - before) / (t1 - t0)
        self.shares = [later[k] - keys[k] for k in later if k.startswith("heavy")]
        self.end.set()
        for t in self.threads:
            t.join(30)

    def get_metrics(self):
        return self.s.request("GET", "/metrics", None, {"Authorization": "Bearer " + self.key_of("light")})[1].decode()

    def counts(self):
        m = self.get_metrics()
        return sum(float(re.search(name + r"\{.*?\} (\S+)", m).group(1)) for name in ("vllm:prompt_tokens_total", "vllm:generation_tokens_total"))

    def keys(self):
        of = collections.defaultdict(float)
        for key, v in re.findall(r'tessera:key_(?:prompt|generation)_tokens_total\{key="(.*?)"\} (\S+)', self.get_metrics()):
            of[key] += float(v)
        return of

    def heavy(self, i, k):
        n = 0
        while not self.end.is_set():
            n += 1
            body = {"prompt": f"{n} {i} {k} " + STORY * (2 + i % 3), "max_tokens": 40 + 24 * (i % 4), "ignore_eos": True}
            self.s.request("POST", "/v1/completions", body, {"Authorization": "Bearer " + self.key_of(f"heavy{i}")})

    def light(self):
        import http.client
        while not self.end.is_set():
            t0 = time.monotonic()
            c = http.client.HTTPConnection("127.0.0.1", self.s.port, timeout=60)
            c.request("POST", "/v1/completions", json.dumps({"prompt": "Hello", "max_tokens": 8, "ignore_eos": True, "stream": True}),
                      {"Content-Type": "application/json", "Authorization": "Bearer " + self.key_of("light")})
            r = c.getresponse()
            for line in r:
                if line.startswith(b"data:"):
                    self.ttft.append(time.monotonic() - t0)
                    break
            r.read()
            c.close()
            self.end.wait(max(0, 0.25 - (time.monotonic() - t0)))


def measure(model, seconds, rounds, options, both=True):
    """{"fair": [Load], "one key": [Load]}"""
    got = {"fair": [], "one key": []}
    with tempfile.TemporaryDirectory() as d:
        path = os.path.join(d, "keys")
        with open(path, "w") as f:
            f.write("light the-key-of-light\nall the-key-of-all\n" + "".join(f"heavy{i} the-key-of-heavy{i}\n" for i in range(HEAVY)))
        os.chmod(path, 0o600)
        with Server("--api-keys", path, "--max-seqs", 16, "--speculate", 0, *options, model=model) as s:
            for _ in range(rounds):
                got["fair"].append(Load(s, lambda name: "the-key-of-" + name, seconds))
                if both:
                    got["one key"].append(Load(s, lambda name: "the-key-of-all", seconds))
    return got


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--seconds", type=float, default=20)
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--model", default=DEMO)
    p.add_argument("options", nargs="*")
    a = p.parse_args()
    got = measure(a.model, a.seconds, a.rounds, a.options or ["--threads", "1"])
    for how, loads in got.items():
        ttft = [t for g in loads for t in g.ttft]
        rates = sorted(g.tokens_per_s for g in loads)
        index = "  ".join(f"{jain(g.shares):.4f}" for g in loads) if how == "fair" else "-"
        print(f"{how:8}  {rates[len(rates) // 2]:7.0f} tokens/s ({rates[0]:.0f} to {rates[-1]:.0f})  light TTFT median {quantile(ttft, .5) * 1e3:.0f} ms, "
              f"p95 {quantile(ttft, .95) * 1e3:.0f} ms, worst {max(ttft) * 1e3:.0f} ms of {len(ttft)}  Jain {index}")
    fair, one = (sorted(g.tokens_per_s for g in got[k])[len(got[k]) // 2] for k in ("fair", "one key"))
    print(f"throughput with fair shares: {100 * (fair / one - 1):+.1f} %")


if __name__ == "__main__":
    main()
