#!/usr/bin/env python3
"""`tessera bench scaling` over hosts and links that are made for it: network namespaces on this machine, each a host with its own sshd, and between
them shared memory, plain veth, or a 10 or 1 Gbit/s wire; beside distributed-llama on the same links where it is given.

  tests/bench/scaling.py MODEL.gguf [--widths 1,2,3,4] [--pp 1] [--links shm,veth,10g,1g] [--users 1,8] [--threads 1]
                         [--dllama PROGRAM --dllama-model M --dllama-tokenizer T]     (tests/bench/dllama_model.py makes the two)

The "hosts" share this machine's processors: with more ranks than processors a row says what the links cost, not what more machines would bring.
The planner is told so (--one-machine): each rank has its part of what the machine can do. Links: 10g and 1g are tools/lan_switch (20 and 200 us one way, and
the rate) where there are TAP devices, else a token bucket (tc tbf) that has the rate but not the delay. Needs root, ip, sshd; what cannot be
made here is skipped with a word. One line of JSON per cell on stdout, a table on stderr."""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from cluster import BIN, mpi_env  # noqa: E402
from test_hosts import Hosts, LAN_SWITCH, sh, why_not  # noqa: E402

# rate in Mbit/s and delay in us; None: as the kernel has it
LINKS = {"shm": None, "veth": None, "10g": (10000, 20), "1g": (1000, 200)}


def own_core(hosts, i):
    """Each host is a processor of its own, in turn: otherwise all of them would bind their ranks to this machine's first."""
    cores = sorted(os.sched_getaffinity(0))
    return f"taskset -cp {cores[i % len(cores)]} $$ >/dev/null;"


def make_hosts(link, n):
    """n hosts on such links, and what they are made of; or (None, why not)."""
    if link == "shm":
        return None, "one host"
    rate = LINKS[link]
    if not rate:
        return Hosts(n, before=own_core), "veth"
    if os.path.exists(LAN_SWITCH) and os.path.exists("/dev/net/tun"):
        return Hosts(n, before=own_core, switch=rate), f"lan_switch {rate[0]} Mbit/s {rate[1]} us"
    if not shutil.which("tc"):
        raise OSError("neither TAP devices nor tc here")
    h = Hosts(n, before=own_core)
    for i in range(n):
        sh("ip", "netns", "exec", h.name(i), "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", f"{rate[0]}mbit", "burst",
           "128kb", "latency", "50ms")
    return h, f"tc tbf {rate[0]} Mbit/s, no delay"


def tessera(hosts, width, stages):
    """Cells of one link and cut."""
    cmd = [os.path.abspath(BIN), "bench", "scaling", os.path.abspath(args.model), "--widths", str(width), "--pp", str(stages), "--users",
           args.users, "--tokens", str(args.tokens),
           "--prompt", str(args.prompt), "--seconds", str(args.seconds), "--threads", str(args.threads), "--log-level", "warn", "--json", *args.more.split()]
    if hosts:
        cmd = hosts.inside(0, *cmd, "--hostfile", f"{hosts.dir}/hosts", "--mpirun-args", hosts.mpirun_args(), "--one-machine")
    p = subprocess.run(cmd, capture_output=True, text=True, env=mpi_env(), timeout=1200)
    if p.returncode or args.verbose:
        print(p.stderr, file=sys.stderr)
    return [json.loads(line) for line in p.stdout.splitlines()]


def dllama(hosts, width):
    """Tokens per second of one sequence; None: this width is none of its."""
    if not args.dllama or width & (width - 1):
        return None
    base = ["--nthreads", str(args.threads)]
    here = [f"{hosts.net}.{i + 1}:9998" if hosts else f"127.0.0.1:{9998 + i}" for i in range(1, width)]
    workers = []
    try:
        for i, at in enumerate(here, 1):
            cmd = [args.dllama, "worker", "--port", at.split(":")[1], *base]
            workers.append(subprocess.Popen(hosts.inside(i, *cmd) if hosts else cmd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        time.sleep(0.5)
        cmd = [args.dllama, "inference", "--model", args.dllama_model, "--tokenizer", args.dllama_tokenizer, "--buffer-float-type", "q80", "--prompt", "a" * 31,
               "--steps", str(args.prompt + args.tokens), "--max-seq-len", "1024", "--temperature", "0", *base]
        if here:
            cmd += ["--workers", *here]
        p = subprocess.run(hosts.inside(0, *cmd) if hosts else cmd, capture_output=True, text=True, timeout=600, errors="replace")
        found = re.findall(r"tokens/s:\s*([\d.]+)", p.stdout)
        if p.returncode or len(found) < 2:
            print(p.stdout[-500:] + p.stderr[-500:], file=sys.stderr)
            return None
        return float(found[1])
    finally:
        for w in workers:
            w.kill()
            w.wait()


def cell(link, width, stages):
    ranks = width * stages
    try:
        hosts, how = make_hosts(link, ranks)
    except (OSError, RuntimeError, subprocess.CalledProcessError) as e:
        print(f"{link}, {ranks} ranks: skipped, {e}", file=sys.stderr)
        return
    try:
        cells = tessera(hosts, width, stages)
        other = dllama(hosts, width) if stages == 1 else None
    finally:
        if hosts:
            hosts.close()
    for c in cells:
        peer = other if c["users"] == 1 else None
        print(json.dumps({"link": link, "how": how, **c, "dllama_tok_s": peer}), flush=True)
        print(f"{link:5} {width:5} {stages:6} {c['users']:5} {c['tok_s']:8.1f} {c['planned_tok_s']:8.1f} {100 * (c['tok_s'] / c['planned_tok_s'] - 1):+6.0f}% "
              f"{100 * c['comm']:7.0f}% {100 * c['planned_comm']:7.0f}% {peer or 0:8.1f}  {c['wrong']}", file=sys.stderr, flush=True)


def main():
    print(f"{'link':5} {'width':>5} {'stages':>6} {'users':>5} {'tok/s':>8} {'planned':>8} {'apart':>7} {'between':>8} {'planned':>8} "
          f"{'dllama':>8}  wrong term",
          file=sys.stderr)
    for link in args.links.split(","):
        for stages in map(int, args.pp.split(",")):
            for width in map(int, args.widths.split(",")):
                if link == "shm" or width * stages > 1:
                    cell(link, width, stages)


if __name__ == "__main__":
    a = argparse.ArgumentParser()
    a.add_argument("model")
    a.add_argument("--widths", default="1,2,3,4")
    a.add_argument("--pp", default="1", help="numbers of pipeline stages; a cut has a width's ranks in each")
    a.add_argument("--links", default="shm,veth,10g,1g")
    a.add_argument("--users", default="1,8")
    a.add_argument("--tokens", type=int, default=96)
    a.add_argument("--prompt", type=int, default=32)
    a.add_argument("--seconds", type=float, default=3)
    a.add_argument("--threads", type=int, default=1)
    a.add_argument("--verbose", action="store_true", help="what each run says")
    a.add_argument("--more", default="", help="more arguments for tessera bench scaling")
    a.add_argument("--dllama", help="distributed-llama's program")
    a.add_argument("--dllama-model")
    a.add_argument("--dllama-tokenizer")
    args = a.parse_args()
    reason = why_not()
    if reason and args.links != "shm":
        print(f"only one host: {reason}", file=sys.stderr)
        args.links = "shm"
    main()
