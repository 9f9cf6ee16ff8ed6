"""Chaos: ranks, or their mpirun, are killed or stopped at random moments while streams of every kind are open; every stream must end byte-equal to an undisturbed run,
and nothing may be left behind.

    python3 tests/chaos/chaos.py [--rounds N] [--seed S]
"""
import argparse
import os
import random
import signal
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from cluster import Server, alive, children  # noqa: E402

PROMPTS = ["Tell me the story of the fox.", "Count from 8 to 12.", "Spell the word lantern.", "What is 7 + 5?", "Tell me the story of the whale.",
           "Once upon a time", "The capital of France is", "word " * 60]


def kinds(rng):
    """Sixteen requests: greedy, seeded, penalised, with logprobs, n > 1, chat and completion."""
    out = []
    for i in range(16):
        body = {"max_tokens": rng.choice([100, 300, 700]), "temperature": rng.choice([0, 0, 0.8, 1.3]), "seed": i, "ignore_eos": True}
        if rng.random() < 0.3:
            body["frequency_penalty"] = 0.6
        if rng.random() < 0.3:
            body["top_p"] = 0.9
        if rng.random() < 0.2:
            body["n"] = 2
        prompt = rng.choice(PROMPTS)
        if i % 2:
            out.append(("/v1/chat/completions", {**body, "messages": [{"role": "user", "content": prompt}]}))
        else:
            out.append(("/v1/completions", {**body, "prompt": prompt, "logprobs": 1}))
    return out


def gather(events):
    """Text and logprobs of every choice of a stream."""
    texts, errors = {}, []
    for e in events:
        if e == "[DONE]":
            continue
        if "error" in e:
            errors.append(e["error"]["message"])
        for c in e.get("choices", []):
            text, lps = texts.setdefault(c["index"], ([], []))
            text.append(c.get("text") or (c.get("delta") or {}).get("content") or "")
            lps += (c.get("logprobs") or {}).get("token_logprobs") or []
    return {k: ("".join(t), l) for k, (t, l) in texts.items()}, errors


def run_all(s, requests, disturb=None):
    got = [None] * len(requests)

    def one(i):
        got[i] = gather(s.stream(*requests[i], timeout=120))

    threads = [threading.Thread(target=one, args=(i,)) for i in range(len(requests))]
    for t in threads:
        t.start()
    if disturb:
        disturb()
    for t in threads:
        t.join()
    return got


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--rounds", type=int, default=6)
    ap.add_argument("--seed", type=int, default=int(time.time()))
    a = ap.parse_args()
    rng = random.Random(a.seed)
    print(f"seed {a.seed}", flush=True)
    requests = kinds(rng)
    with Server("--threads", 1) as s:
        want = run_all(s, requests)
    assert not any(e for _, e in want), want
    cut = rng.choice([("--tp", 2), ("--pp", 2), ("--tp", 4), ("--tp", 2, "--pp", 2)])
    losses = 0
    with Server(*cut, "--threads", 1, "--stall-timeout", 2, "--kv-tokens", rng.choice([2048, 8192])) as s:
        for r in range(a.rounds):
            said = []

            def disturb():
                for _ in range(rng.choice([1, 1, 2])):
                    time.sleep(rng.random() * 0.4)
                    pids = [p for p in s.workers() if p and alive(p)]
                    if not pids:
                        continue
                    sig = rng.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP])
                    pid = rng.choice(pids + children(s.proc.pid)[:1])  # a rank, or mpirun itself
                    try:
                        os.kill(pid, sig)
                    except ProcessLookupError:
                        continue
                    said.append(sig.name + ("" if pid in pids else " mpirun"))
                    if sig == signal.SIGSTOP and rng.random() < 0.5:
                        time.sleep(0.3)
                        try:
                            os.kill(pid, signal.SIGCONT)  # a short stop is no loss
                        except ProcessLookupError:
                            pass
                        said[-1] += "+CONT"

            begin = time.monotonic()
            got = run_all(s, requests, disturb)
            losses += len(said)
            for i, (w, g) in enumerate(zip(want, got)):
                assert g == w, f"round {r}, {cut}, after {said}: request {i} {requests[i]}\nwanted {w}\ngot    {g}\n{s.text()}"
            s.wait_ready()
            print(f"round {r}: {' '.join(map(str, cut))}, {', '.join(said)}: 16 streams byte-equal in {time.monotonic() - begin:.2f} s", flush=True)
    print(f"{a.rounds} rounds, {losses} disturbances, every stream byte-equal, nothing left behind")


if __name__ == "__main__":
    main()
