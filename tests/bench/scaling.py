#!/usr/bin/env python3
"""Tokens per second and the share of time between ranks, for 1 to 4 ranks, on links of several kinds, beside what the planner predicts.

  tests/bench/scaling.py MODEL [--widths 1,2,3,4] [--links shm,veth,10g,1g] [--users 1,8] [--tokens 48] [--threads 1]

Each "host" is a network namespace with one rank (shm: all ranks on this host), so the ranks share this machine's processors: with more ranks than
processors the figure says what the links cost, not what more machines would bring. Links: veth as it is; 10g and 1g through tools/lan_switch (20 us
and 200 us one way). Needs root, ip, sshd. One line of JSON per cell on stdout, a table on stderr."""
import argparse
import concurrent.futures
import json
import os
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from cluster import BIN, mpi_env  # noqa: E402
from test_hosts import Hosts  # noqa: E402

LINKS = {"shm": None, "veth": (None, 30, 20e9), "10g": ((10000, 20), 40, 10e9), "1g": ((1000, 200), 220, 1e9)}


def post(hosts, body):
    cmd = ["curl", "-s", "-m", "300", "http://127.0.0.1:8300/v1/completions", "-d", json.dumps(body)]
    return json.loads(subprocess.run(hosts.inside(0, *cmd) if hosts else cmd, capture_output=True).stdout)


def get(hosts, path):
    cmd = ["curl", "-s", "-m", "10", "http://127.0.0.1:8300" + path]
    return subprocess.run(hosts.inside(0, *cmd) if hosts else cmd, capture_output=True, text=True).stdout


def waited(hosts):
    """Seconds in collectives, summed over ranks."""
    return sum(float(l.rsplit(" ", 1)[1]) for l in get(hosts, "/metrics").splitlines() if l.startswith("tessera:rank_comm_wait_seconds_total{"))


def measure(hosts, args, users):
    def one(i):
        prompt = [(i * 131 + k * 17) % 250 + 3 for k in range(args.prompt)]
        r = post(hosts, {"prompt": prompt, "max_tokens": args.tokens, "temperature": 0, "ignore_eos": True})
        return r["usage"]["completion_tokens"]
    with concurrent.futures.ThreadPoolExecutor(users) as pool:
        list(pool.map(one, range(users)))  # warm
        time.sleep(1.2)
        before, t0 = waited(hosts), time.monotonic()
        n = sum(pool.map(one, range(users)))
        wall = time.monotonic() - t0
    time.sleep(1.2)
    return n / wall, (waited(hosts) - before) / wall


def topology(link, width, limits):
    """The same machine as the planner sees it: the processors are shared by the ranks."""
    share = min(1.0, limits["cores"] / width)
    text = "tessera topology 1\n"
    for i in range(width):
        if link != "shm" or i == 0:
            text += f"host h{i} cores=1 threads=1 disk=2GB/s\n"
        text += f"cpu c{i} cores=1 memory=8GiB read={limits['read'] * share / 1e9:.1f}GB/s ops={limits['ops'] * share / 1e12:.3f}T\n"
        if link == "shm" and i == 0:
            text += "local latency=2us rate=8GB/s\n"
    if link != "shm":
        _, us, bits = LINKS[link]
        text += f"wire latency={us}us rate={bits / 1e9:.0f}Gbit/s\n"
    return text


def predicted(args, link, width, users, limits):
    with tempfile.NamedTemporaryFile("w", suffix=".topo") as f:
        f.write(topology(link, width, limits))
        f.flush()
        p = subprocess.run([BIN, "plan", args.model, "--topo", f.name, "--tp", str(width), "--context", str(args.context), "--json"], capture_output=True,
                           text=True)
    if p.returncode:
        return None, None
    for d in json.loads(p.stdout)["decode"]:
        if d["users"] == users:
            return d["tok_s"], d["comm"]
    return None, None


def main():
    a = argparse.ArgumentParser()
    a.add_argument("model")
    a.add_argument("--widths", default="1,2,3,4")
    a.add_argument("--links", default="shm,veth,10g,1g")
    a.add_argument("--users", default="1,8")
    a.add_argument("--tokens", type=int, default=48)
    a.add_argument("--prompt", type=int, default=32)
    a.add_argument("--context", type=int, default=512)
    a.add_argument("--threads", type=int, default=1)
    a.add_argument("--serve", default="", help="more arguments for tessera serve")
    args = a.parse_args()
    bench = json.loads(subprocess.run([BIN, "bench", "engine", args.model, "--threads", "1", "--batch", "1", "--prompt", "16", "--depth", "16",
                                       "--runs", "1", "--steps", "2", "--json"], capture_output=True, text=True).stdout or "{}")
    limits = {"read": bench.get("read_bytes_per_s", 20e9), "ops": bench.get("int8_ops_per_s", 1e12), "cores": len(os.sched_getaffinity(0))}
    print(f"one core reads {limits['read'] / 1e9:.1f} GB/s, {limits['ops'] / 1e12:.2f} T int8 operations/s; {limits['cores']} cores", file=sys.stderr)
    print(f"{'link':6} {'ranks':5} {'users':5} {'tok/s':>8} {'planned':>8} {'between ranks':>14} {'planned':>8}", file=sys.stderr)
    for link in args.links.split(","):
        for width in map(int, args.widths.split(",")):
            if link != "shm" and width == 1:
                continue
            hosts = None if link == "shm" else Hosts(width, switch=LINKS[link][0])
            try:
                cmd = [os.path.abspath(BIN), "serve", os.path.abspath(args.model), "--port", "8300", "--threads", str(args.threads), "--context",
                       str(args.context), "--tp", str(width), *args.serve.split()]
                if hosts:
                    cmd = hosts.inside(0, *cmd, "--hostfile", f"{hosts.dir}/hosts", "--mpirun-args", hosts.mpirun_args())
                with tempfile.TemporaryFile() as log:
                    p = subprocess.Popen(cmd, stdout=log, stderr=log, env=mpi_env())
                    for _ in range(600):
                        if p.poll() is not None or '"status":"ok"' in get(hosts, "/health"):
                            break
                        time.sleep(0.1)
                    try:
                        for users in map(int, args.users.split(",")):
                            tok_s, wait = measure(hosts, args, users)
                            plan, comm = predicted(args, link, width, users, limits)
                            cell = {"link": link, "ranks": width, "users": users, "tok_s": round(tok_s, 2), "comm": round(wait / width, 3),
                                    "planned_tok_s": plan, "planned_comm": comm}
                            print(json.dumps(cell), flush=True)
                            print(f"{link:6} {width:5} {users:5} {tok_s:8.1f} {plan or 0:8.1f} {100 * wait / width:12.0f} % {100 * (comm or 0):6.0f} %", file=sys.stderr)
                    finally:
                        p.terminate()
                        p.wait(30)
            finally:
                if hosts:
                    hosts.close()


if __name__ == "__main__":
    main()
