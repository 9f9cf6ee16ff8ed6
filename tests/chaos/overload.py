"""Overload: ten times more clients than the server has room for, for minutes. Every accepted request must finish, everybody else be told when to come
again (429 or 503 with Retry-After), and memory stay flat.

    python3 tests/chaos/overload.py [--minutes M] [--clients N]
"""
import argparse
import http.client
import json
import os
import random
import sys
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from cluster import Server  # noqa: E402


def rss_mb(pid):
    with open(f"/proc/{pid}/statm") as f:
        return int(f.read().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--minutes", type=float, default=10)
    ap.add_argument("--clients", type=int, default=160)
    a = ap.parse_args()
    counts, lock, until = {"done": 0, "refused": 0, "bad": []}, threading.Lock(), time.monotonic() + 60 * a.minutes
    with Server("--tp", 2, "--threads", 1, "--max-seqs", 8, "--max-waiting", 8, "--replay-memory", "1M") as s:
        def client(i):
            rng = random.Random(i)
            while time.monotonic() < until:
                body = {"prompt": "Once upon a time " * rng.randrange(1, 20), "max_tokens": rng.randrange(5, 60), "ignore_eos": True, "stream": True, "seed": i}
                c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=120)
                try:
                    c.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
                    r = c.getresponse()
                    raw = r.read()
                    refused = r.status in (429, 503) and r.getheader("Retry-After")
                    done = r.status == 200 and raw.endswith(b"data: [DONE]\n\n") and b'"error"' not in raw
                    with lock:
                        counts["refused"] += bool(refused)
                        counts["done"] += done
                        if not refused and not done:
                            counts["bad"].append((r.status, raw[-300:]))
                    if refused:
                        time.sleep(rng.random() * 0.5)
                except OSError as e:
                    with lock:
                        counts["bad"].append(repr(e))
                finally:
                    c.close()

        threads = [threading.Thread(target=client, args=(i,), daemon=True) for i in range(a.clients)]
        for t in threads:
            t.start()
        pids, first, k = [s.proc.pid, *s.workers()], None, 0
        while time.monotonic() < until:
            time.sleep(min(15, max(until - time.monotonic(), 0.1)))
            now = [rss_mb(p) for p in pids]
            k += 1
            if k == 2 or first is None:
                first = now  # caches are warm by then
            print(f"{60 * a.minutes - (until - time.monotonic()):6.0f} s: {counts['done']} finished, {counts['refused']} told to come again, "
                  f"{len(counts['bad'])} bad; RSS MB: {' '.join(f'{x:.1f}' for x in now)}", flush=True)
        for t in threads:
            t.join(120)
        assert not counts["bad"], counts["bad"][:5]
        last = [rss_mb(p) for p in pids]
        for f, n in zip(first, last):
            assert n < f * 1.1 + 4, f"memory grew: {first} -> {last} MB"
    print(f"{a.clients} clients for {a.minutes} minutes: {counts['done']} finished, {counts['refused']} told to come again, none lost; "
          f"RSS MB {' '.join(f'{x:.1f}' for x in first)} -> {' '.join(f'{x:.1f}' for x in last)}")


if __name__ == "__main__":
    main()
