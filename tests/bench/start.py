#!/usr/bin/env python3
"""How long a start takes, first and second, in its parts.

  tests/bench/start.py MODEL.gguf [--cache DIR] [--rounds 3] [--args "--tp 2 --threads 1"]

Four kinds, in turn: "first": nothing packed yet, the file on the disk (its pages are put out of memory before) or still in memory; "second": from the
cache of packed weights, its files on the disk or in memory, as the first start leaves them. Seconds: of the slowest rank, until its weights are there; from the
program's start until it serves; until the first token of a request that waits for it. Standard library only; one line of JSON per start."""
import argparse
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

BIN = os.environ.get("TESSERA_BIN", "build/release/bin/tessera")


def put_out(*paths):
    """Their pages leave memory."""
    for path in paths:
        fd = os.open(path, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


def files(d):
    return [os.path.join(d, f) for f in os.listdir(d)] if os.path.isdir(d) else []


def read_all(*paths):
    for path in paths:
        with open(path, "rb") as f:
            while f.read(1 << 24):
                pass


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def ask(port, method, path, body=None):
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        c.request(method, path, body, {"Content-Type": "application/json"})
        r = c.getresponse()
        return r.status, r.read()
    finally:
        c.close()


def start(keep_until_written):
    """One start: seconds to weights, to serving, to the first token."""
    port, env = free_port(), dict(os.environ)
    if os.geteuid() == 0:
        env["OMPI_ALLOW_RUN_AS_ROOT"] = env["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    log = tempfile.TemporaryFile()
    t0 = time.monotonic()
    p = subprocess.Popen([BIN, "serve", args.model, "--port", str(port), "--shard-cache", args.cache, "--context", "2048", "--log-level",
                          "debug", *args.args.split()],
                         stdout=log, stderr=log, env=env)
    try:
        serves = None
        while serves is None:
            if p.poll() is not None:
                log.seek(0)
                raise SystemExit(log.read().decode(errors="replace"))
            try:
                if ask(port, "GET", "/health")[0] == 200:
                    serves = time.monotonic() - t0
            except OSError:
                pass
            time.sleep(0.002)
        model = json.loads(ask(port, "GET", "/v1/models")[1])["data"][0]["id"]
        status, _ = ask(port, "POST", "/v1/completions", json.dumps({"model": model, "prompt": "a", "max_tokens": 1, "temperature": 0}))
        token = time.monotonic() - t0
        if status != 200:
            raise SystemExit(f"the request was answered with {status}")
        size = -1
        while keep_until_written:  # behind the back of the server
            time.sleep(0.7)
            before, size = size, sum(os.path.getsize(f) for f in files(args.cache))
            keep_until_written = size != before or any(f.endswith(".new") for f in files(args.cache))
    finally:
        p.send_signal(signal.SIGINT)
        p.wait(60)
    log.seek(0)
    text = log.read().decode(errors="replace")
    found = re.findall(r"weights are there after ([\d.]+) s: ([\d.]+) MB read, ([\d.]+) from other ranks, ([\d.]+) from the cache, of which "
                       r"([\d.]+) mapped", text)
    weights = [float(x[0]) for x in found]
    return {"weights_s": max(weights), "serves_s": round(serves, 3), "first_token_s": round(token, 3), "read_mb": sum(float(x[1]) for x in found),
            "cached_mb": sum(float(x[3]) for x in found), "mapped_mb": sum(float(x[4]) for x in found)}


def say(kind, where, r):
    print(json.dumps({"start": kind, "file": where, **r}), flush=True)
    print(f"{kind:7} {where:9} weights {r['weights_s']:7.3f} s  serves {r['serves_s']:7.3f} s  first token {r['first_token_s']:7.3f} s",
          file=sys.stderr, flush=True)


def main():
    for i in range(args.rounds):
        shutil.rmtree(args.cache, ignore_errors=True)
        put_out(args.model)
        say("first", "disk", start(False))
        read_all(args.model)
        shutil.rmtree(args.cache, ignore_errors=True)
        say("first", "memory", start(True))
        os.sync()  # what is still on its way to the disk is not the second start's
        say("second", "memory", start(False))
        put_out(*files(args.cache))
        say("second", "disk", start(False))
    shutil.rmtree(args.cache, ignore_errors=True)


if __name__ == "__main__":
    a = argparse.ArgumentParser()
    a.add_argument("model")
    a.add_argument("--cache", default=os.path.join(tempfile.gettempdir(), f"tessera-start-{os.getpid()}"))
    a.add_argument("--rounds", type=int, default=3)
    a.add_argument("--args", default="", help="more arguments for tessera serve")
    args = a.parse_args()
    main()
