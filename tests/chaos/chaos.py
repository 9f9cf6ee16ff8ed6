"""Chaos: ranks, their mpirun, the coordinator or all of them are killed, stopped or cut off, the disk under the journal fills, at random moments of
loading, prefill, decode and drain, the disk under the cache of packed weights fills or its files are damaged, while sixteen streams of every kind
and a request for embeddings are open. Every stream must end byte-equal to an undisturbed run, and nothing
may be left behind: processes, shared memory, ports, file descriptors.

    python3 tests/chaos/chaos.py [--rounds N] [--seed S] [--cut "--tp 2 --pp 2"] [--only FAULT,FAULT] [--hosts]

--hosts: the same over two network namespaces joined by a bridge, whose links go down and up (root only).
"""
import argparse
import http.client
import json
import os
import random
import re
import resource
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "system"))
from cluster import BIN, DEMO, Server, alive, children, started  # noqa: E402

PROMPTS = ["Tell me the story of the fox.", "Count from 8 to 12.", "Spell the word lantern.", "What is 7 + 5?", "Tell me the story of the whale.",
           "Once upon a time", "The capital of France is", "word " * 60]
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 30}, "age": {"type": "integer"}, "tags": {
    "type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 3, "maxItems": 9}}, "required": ["name", "age", "tags"],
    "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {
    "city": {"type": "string", "maxLength": 40}, "days": {"type": "integer"}}, "required": ["city", "days"], "additionalProperties": False}}}


def kinds(rng):
    """Sixteen requests: greedy, seeded, penalised, logprobs, n > 1, JSON schema, tools; chat, completions, messages, responses; a long prompt."""
    out = []
    for i in range(16):
        body = {"max_tokens": rng.choice([100, 300, 700]), "temperature": rng.choice([0, 0, 0.8, 1.3]), "seed": i, "stream": True}
        if rng.random() < 0.3:
            body["top_p"] = 0.9
        if rng.random() < 0.3:
            body["frequency_penalty"] = 0.6
        prompt = rng.choice(PROMPTS)
        messages = [{"role": "user", "content": prompt}]
        if i % 8 in (0, 4):
            out.append(("/v1/completions", {**body, "prompt": prompt, "logprobs": 1, "ignore_eos": True}))
        elif i % 8 == 1:
            out.append(("/v1/chat/completions", {**body, "messages": messages, "ignore_eos": True}))
        elif i % 8 == 2:
            out.append(("/v1/chat/completions", {**body, "messages": messages, "max_tokens": 300, "response_format": {
                "type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}}}))
        elif i % 8 == 3:
            out.append(("/v1/chat/completions", {**body, "messages": messages, "max_tokens": 300, "tools": [TOOL], "tool_choice": "required"}))
        elif i % 8 == 5:
            out.append(("/v1/chat/completions", {**body, "messages": messages, "n": 2, "logprobs": True, "top_logprobs": 2, "ignore_eos": True}))
        elif i % 8 == 6:
            out.append(("/v1/completions", {**body, "prompt": "number " * rng.choice([200, 400]) + prompt, "max_tokens": 200, "ignore_eos": True}))
        else:
            plain = {k: v for k, v in body.items() if k in ("temperature", "stream", "top_p")}
            if i == 7:
                out.append(("/v1/messages", {**plain, "max_tokens": 200, "messages": messages, "temperature": 0}))
            else:
                out.append(("/v1/responses", {**plain, "max_output_tokens": 200, "input": prompt, "temperature": 0}))
    out.append(("/v1/embeddings", {"input": [rng.choice(PROMPTS) for _ in range(40)]}))
    return out


def whole_events(raw):
    return raw[:raw.rindex(b"\n\n") + 2] if b"\n\n" in raw else b""


def same(raw, name):
    """The events of an answer without what its name and the clock make of it; of several choices each by itself, for how they alternate is nobody's
    promise."""
    raw = raw.replace(name.encode(), b"NAME")
    raw = re.sub(rb',?"timings":\{[^}]*\}', b"", raw)  # of several choices the one that ends last has them, and which does is a matter of time
    raw = re.sub(rb'"created(_at)?":\d+', b"", raw)
    raw = re.sub(rb'"(cached_tokens|cache_read_input_tokens|input_tokens)":\d+', b"", raw)  # what the prefix cache gave is no part of the answer
    raw = re.sub(rb"chatcmpl-tool-[0-9a-f]{32}", b"TOOL", raw)
    raw = re.sub(rb"(?m)^: ping\n\n", b"", raw)
    choices = {}
    for event in raw.split(b"\n\n"):
        body = re.sub(rb"(?m)^id: \d+\n", b"", event)
        at = re.search(rb'"choices":\[\{"index":(\d+)', body)
        choices.setdefault(at.group(1) if at else b"", []).append(body)
    return choices


class Client(threading.Thread):
    """One stream, read to its end whatever happens to its connection."""

    def __init__(self, chaos, name, path, body):
        super().__init__()
        self.chaos, self.name_, self.path, self.body = chaos, name, path, body
        self.raw, self.lost, self.error, self.begun = b"", 0, None, threading.Event()

    def read(self, method, path, body=None, headers=None):
        c = http.client.HTTPConnection("127.0.0.1", self.chaos.port, timeout=120 * self.chaos.patience)
        try:
            c.request(method, path, json.dumps(body) if body else None, {"X-Request-Id": self.name_, **(headers or {})})
            r = c.getresponse()
            if r.status == 204:
                return True
            if r.status != 200:
                self.error = (r.status, r.read()[:300])
                return False
            self.error = None
            while piece := r.read1(65536):
                self.raw += piece
                self.begun.set()
            return True
        except (http.client.HTTPException, OSError) as e:
            self.error = repr(e)
            return False
        finally:
            c.close()

    def run(self):
        done = self.read("POST", self.path, self.body)
        self.begun.set()
        end = time.monotonic() + 60 * self.chaos.patience
        while not done and time.monotonic() < end:
            self.lost += 1
            self.raw = whole_events(self.raw)
            unknown = isinstance(self.error, tuple) and self.error[0] == 404
            if self.chaos.unwritten and (unknown or self.body.get("n", 1) > 1):
                self.raw = b""  # it was answered while the disk was full: docs/api.md says what is lost with the coordinator then
            last = self.raw.count(b"id: ") and int(re.findall(rb"(?m)^id: (\d+)$", self.raw)[-1])
            if unknown and not self.raw:
                done = self.read("POST", self.path, self.body)  # it was killed before it had accepted the request, as far as is written
            else:
                done = self.read("GET", f"/v1/requests/{self.name_}/events", headers={"Last-Event-ID": str(last)})
            if not done:
                time.sleep(0.05)
        if done:
            self.error = None


class Cache:
    """A directory for packed weights on a small disk of its own, where one may be mounted (root); else a plain one, whose disk never fills."""

    def __init__(self, path):
        self.path, self.filler = path, os.path.join(path, "filler")
        os.mkdir(path)
        self.own = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tessera-chaos", path], capture_output=True).returncode == 0

    def files(self):
        return [os.path.join(self.path, n) for n in os.listdir(self.path) if n.endswith(".tiles")]

    def fill(self, spare=0):
        """But for so many bytes."""
        with open(self.filler, "ab", buffering=0) as f:
            try:
                while True:
                    f.write(bytes(1 << 14))
            except OSError:
                f.truncate(max(f.tell() - spare, 0))

    def empty(self):
        if os.path.exists(self.filler):
            os.unlink(self.filler)

    def damage(self, rng):
        """One file is cut short, another has a byte changed."""
        files = sorted(self.files())
        for k, f in enumerate(rng.sample(files, min(2, len(files)))):
            try:
                with open(f, "r+b") as h:
                    n = os.path.getsize(f)
                    if k:
                        h.seek(rng.randrange(n))
                        h.write(b"x")
                    else:
                        h.truncate(n // 2)
            except FileNotFoundError:
                pass  # replaced just now
        return bool(files)

    def close(self):
        if self.own:
            subprocess.run(["umount", "-l", self.path])


class Chaos:
    def __init__(self, rng, cut, state, args, patience=1, cache=None):
        self.patience, self.cache, self.from_cache = patience, cache, 0
        self.rng, self.cut, self.state, self.args = rng, cut, state, args
        self.seen, self.fds, self.n, self.net, self.last = {}, {}, 0, None, []  # seen: when each process began
        self.s = self.start()
        self.port = self.s.port

    def start(self, port=None, wait=True):
        class Fixed(Server):
            def free_port(inner):
                return port or super().free_port()
        s = Fixed("--threads", 1, "--stall-timeout", 2 * self.patience, "--recovery-timeout", 60 * self.patience,
                  "--drain-timeout", 30 * self.patience, "--state-dir", self.state, "--journal", "on", *self.cut, *self.args, wait=wait)
        if wait:
            self.note(s)
        return s

    def note(self, s):
        ranks = json.loads(s.get("/health")[1])["cluster"]["replicas"][0]["ranks"]
        self.last = [r["pid"] for r in ranks]
        self.from_cache += any(r["cached_bytes"] for r in ranks)
        self.see([*self.last, *children(s.proc.pid), s.proc.pid])

    def see(self, pids):
        self.seen.update((p, began) for p in pids if (began := started(p)) is not None)

    def ours(self):
        """Of the processes that were seen, those that live: a number may be another's by now."""
        return [p for p, began in self.seen.items() if alive(p) and started(p) == began]

    def pids(self):
        try:
            self.last = self.s.workers()
        except (OSError, http.client.HTTPException, KeyError, ValueError):
            pass  # it drains: they are the ones it had
        return [p for p in self.last if p and alive(p)]

    def mpirun(self):
        try:
            with open(os.path.join(self.state, "replica-0")) as f:
                return [int(line.split()[1]) for line in f if line.startswith("mpirun") and int(line.split()[1])]
        except OSError:
            return []

    # ---- faults: each returns what it did, or None ----

    def kill(self, pid, sig):
        try:
            os.kill(pid, sig)
            return True
        except ProcessLookupError:
            return False

    def rank_kill(self):
        pids = self.pids()
        return pids and self.kill(self.rng.choice(pids), signal.SIGKILL) and "rank killed"

    def all_ranks_kill(self):
        pids = self.pids()
        for p in pids:
            self.kill(p, signal.SIGKILL)
        return pids and "all ranks killed"

    def rank_stop(self):
        pids = self.pids()
        return pids and self.kill(self.rng.choice(pids), signal.SIGSTOP) and "rank stopped"

    def rank_pause(self):
        pids = self.pids()
        if not pids or not self.kill(pid := self.rng.choice(pids), signal.SIGSTOP):
            return None
        time.sleep(0.3)
        self.kill(pid, signal.SIGCONT)  # a short stop is no loss
        return "rank paused"

    def mpirun_kill(self):
        pids = self.mpirun()
        return pids and self.kill(pids[0], signal.SIGKILL) and "mpirun killed"

    def load_kill(self):
        """A loss, and another while the next job loads."""
        if not self.rank_kill():
            return None
        end = time.monotonic() + 10
        while time.monotonic() < end:
            time.sleep(0.02)
            fresh = [p for p in children(self.s.proc.pid) if self.seen.get(p) != started(p) and alive(p)]
            if len(fresh) > 1:
                self.see(fresh)
                time.sleep(self.rng.random() * 0.3)
                self.kill(self.rng.choice(fresh[1:]), signal.SIGKILL)
                return "rank killed, and one that was loading"
        return "rank killed"

    def coordinator_kill(self, also=lambda: None, pause=0.0):
        old = self.s
        old.proc.kill()
        also()
        old.proc.wait()
        time.sleep(pause)
        self.s = self.start(port=self.port, wait=False)
        self.s.shm_before = old.shm_before
        old.log.close()
        self.s.wait_ready(40 * self.patience)
        return "coordinator killed"

    def coordinator_kill_late(self):
        self.coordinator_kill(pause=1.0)
        return "coordinator killed, the next one a second later"

    def coordinator_kill_twice(self):
        self.coordinator_kill()
        time.sleep(self.rng.random() * 0.1)
        self.coordinator_kill()
        return "coordinator killed twice"

    def coordinator_and_rank_kill(self):
        pids = self.pids()
        self.coordinator_kill(also=lambda: pids and self.kill(self.rng.choice(pids), signal.SIGKILL))
        return "coordinator and a rank killed"

    def link(self, up):
        namespace, name = self.net.split(":")
        subprocess.run(["ip", "-n", namespace, "link", "set", name, "up" if up else "down"], check=True)

    def link_short(self):
        """Shorter than anybody's patience: the kernel sends again, nobody is lost."""
        self.link(False)
        time.sleep(self.rng.random())
        self.link(True)
        return "link down for a moment"

    def link_long(self):
        """Longer than every patience: the rank behind it is lost, and comes back when the link does."""
        self.link(False)
        time.sleep(6 + 8 * self.rng.random())
        self.link(True)
        return "link down for long"

    def disk_full(self):
        """Nothing may be written any more, in the middle of a record; later there is room again. What was said meanwhile is written then."""
        pid = self.s.proc.pid
        size = os.path.getsize(os.path.join(self.state, "journal"))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (size + 30, resource.RLIM_INFINITY))
        self.unwritten = True  # until it is written anew, a second later at most: a kill may come before
        time.sleep(0.3)
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return "disk full"

    def disk_full_and_coordinator_kill(self):
        """What was not written is computed again: the same."""
        size = os.path.getsize(os.path.join(self.state, "journal"))
        resource.prlimit(self.s.proc.pid, resource.RLIMIT_FSIZE, (size + 30, resource.RLIM_INFINITY))
        self.unwritten = True
        time.sleep(0.2)
        self.coordinator_kill()
        return "disk full, then coordinator killed"

    def cache_full(self):
        """Nothing is in the cache, and little or nothing may be, later less: the ranks load from the model all the same, and what they cannot write
        whole is dropped."""
        for f in self.cache.files():
            os.unlink(f)
        self.cache.fill(spare=self.rng.choice([0, 1 << 20, 2 << 20, 3 << 20]))
        said = self.rank_kill()
        time.sleep(0.3 + 0.3 * self.rng.random())
        self.cache.fill()
        time.sleep(0.7)
        self.cache.empty()
        return said and "cache full, a rank killed"

    def cache_damaged(self):
        return self.cache.damage(self.rng) and self.rank_kill() and "cache damaged, a rank killed"

    FAULTS = ("rank_kill", "all_ranks_kill", "rank_stop", "rank_pause", "mpirun_kill", "load_kill", "coordinator_kill", "coordinator_kill_late",
              "coordinator_kill_twice", "coordinator_and_rank_kill", "disk_full", "disk_full_and_coordinator_kill", "cache_full", "cache_damaged")

    # ---- rounds ----

    def await_journal(self, seconds=5):
        """After a full disk the journal is written anew within a second of there being room; what is accepted before is not in it."""
        end = time.monotonic() + seconds
        while json.loads(self.s.get("/health")[1])["cluster"]["journal"]["state"] != "ok":
            assert time.monotonic() < end, "the journal is not written again"
            time.sleep(0.05)

    def ask_all(self, requests, disturb=None, begun=False):
        """begun: all have been accepted before anything happens."""
        self.n += 1
        self.await_journal()
        self.unwritten = False
        clients = [Client(self, f"r{self.n}q{i}-{self.rng.randrange(1 << 30)}", *r) for i, r in enumerate(requests)]
        for c in reversed(clients):  # embeddings, of which nothing is said before the end, first
            c.start()
        for c in clients if begun else ():
            c.begun.wait(60 * self.patience)
        said = disturb() if disturb else None
        for c in clients:
            c.join()
        bad = [(c.name_, c.error) for c in clients if c.error]
        assert not bad, f"not read to their end: {bad}\n{self.s.text()}"
        self.lost = sum(c.lost > 0 for c in clients)
        return [same(c.raw, c.name_) for c in clients], said

    def round(self, requests, want, faults):
        def disturb():
            said = []
            for _ in range(self.rng.choice([1, 1, 2])):
                time.sleep(self.rng.random() * 0.5)  # prefill and decode
                what = getattr(self, self.rng.choice(faults))()
                if what:
                    said.append(what)
            return said
        begin = time.monotonic()
        got, said = self.ask_all(requests, disturb)
        for i, (w, g) in enumerate(zip(want, got)):
            if g != w:
                for c in sorted(set(w) | set(g)):
                    for a, b in zip(w.get(c, []), g.get(c, [])):
                        assert a == b, f"{self.cut}, after {said}: request {i} {requests[i]}, choice {c}\nwanted {a}\ngot    {b}\n{self.s.text()}"
                assert g == w, f"{self.cut}, after {said}: request {i} {requests[i]}: " \
                               f"wanted {[(c, len(v)) for c, v in w.items()]} events, got {[(c, len(v)) for c, v in g.items()]}\n{self.s.text()}"
        self.s.wait_ready(40 * self.patience)
        self.note(self.s)
        self.check_leaks()
        self.check_reports()
        return said, time.monotonic() - begin

    def check_reports(self):
        """Of sanitizers, by whichever process."""
        logs = [self.s.text()] + [open(os.path.join(self.state, n), errors="replace").read() for n in os.listdir(self.state) if n.endswith(".log")]
        for log in logs:
            assert "ERROR: AddressSanitizer" not in log and "WARNING: ThreadSanitizer" not in log and "runtime error:" not in log, log[-20000:]

    def check_leaks(self):
        """No descriptor more than the first time a process was looked at, but for what it keeps to be read again."""
        for pid in [self.s.proc.pid, *self.s.workers()]:
            n = len(os.listdir(f"/proc/{pid}/fd"))
            first = self.fds.setdefault((pid, started(pid)), n)
            assert n <= first + 8, f"process {pid}: {first} descriptors, now {n}"
        shm = self.s.shm_left()
        assert not shm, f"shared memory left behind: {shm}"

    def drain(self, requests, want, faults):
        """SIGTERM with all streams open, a rank lost meanwhile: each ends as it would have, then the server is gone."""
        def disturb():
            self.s.proc.send_signal(signal.SIGTERM)
            time.sleep(self.rng.random() * 0.2)
            return [getattr(self, self.rng.choice(faults))() or "nothing"]
        got, said = self.ask_all(requests, disturb, begun=True)
        for i, (w, g) in enumerate(zip(want, got)):
            assert g == w, f"drain after {said}: request {i} {requests[i]}\nwanted {w}\ngot    {g}\n{self.s.text()}"
        code = self.s.proc.wait(40 * self.patience)
        assert code == 0, self.s.text()
        return said

    def close(self):
        self.s.stop(seconds=40 * self.patience)
        self.s.log.close()
        end = time.monotonic() + 10 * self.patience
        while (left := self.ours()) and time.monotonic() < end:
            time.sleep(0.05)
        assert not left, f"processes left behind: {left}"
        left = set(os.listdir(self.state)) - {"lock", "journal"} - {f"workers-{i}.log" for i in range(8)}
        assert not left, f"left in the state directory: {left}"


def two_hosts(a):
    """Run ourselves on the first of two hosts: the coordinator and a rank there, the other rank behind a link."""
    from test_hosts import Hosts, why_not
    if why := why_not():
        print(f"skipped: {why}")
        sys.exit(77)
    h = Hosts(2)
    try:
        cut = shlex.join(["--pp", "2", "--hostfile", f"{h.dir}/hosts", "--mpirun-args", h.mpirun_args()])
        env = {**os.environ, "TESSERA_BIN": os.path.abspath(BIN), "TESSERA_DEMO": os.path.abspath(DEMO)}
        p = subprocess.run(h.inside(0, sys.executable, os.path.abspath(__file__), "--rounds", a.rounds, "--seed", a.seed, "--cut", cut, "--link",
                                    f"{h.pre}sw:p1", "--only", a.only or "link_short,link_long,coordinator_kill,rank_kill"), env=env)
        assert p.returncode == 0, "the run on the first host failed"
    finally:
        h.close()


def main():
    ap = argparse.ArgumentParser()
    ap.add_argument("--rounds", type=int, default=6)
    ap.add_argument("--minutes", type=float, help="instead of --rounds: so long")
    ap.add_argument("--patience", type=float, default=1, help="times longer than usual that anything may take (sanitizers)")
    ap.add_argument("--seed", type=int, default=int(time.time()))
    ap.add_argument("--cut")
    ap.add_argument("--only")
    ap.add_argument("--hosts", action="store_true")
    ap.add_argument("--link", help="set by --hosts: NAMESPACE:LINK that faults may take down")
    a = ap.parse_args()
    rng = random.Random(a.seed)
    if a.hosts:
        return two_hosts(a)
    cut = shlex.split(a.cut) if a.cut else rng.choice([["--tp", "2"], ["--pp", "2"], ["--tp", "4"], ["--tp", "2", "--pp", "2"]])
    kv = rng.choice([4096, 8192])
    print(f"seed {a.seed}: {' '.join(cut)}, KV cache {kv}", flush=True)
    requests = kinds(rng)
    faults = a.only.split(",") if a.only else Chaos.FAULTS
    folder = tempfile.mkdtemp(prefix="tessera-chaos-")
    counts, all_of_them, cache = {}, [], Cache(os.path.join(folder, "cache"))
    if not cache.own:
        faults = [f for f in faults if f != "cache_full"]
        print("no disk of its own for the cache (that takes root): it is never full", flush=True)
    try:
        calm = Chaos(random.Random(0), ["--tp", "1"], os.path.join(folder, "calm"), [], a.patience)
        want, _ = calm.ask_all(requests)
        calm.close()
        c = Chaos(rng, cut, os.path.join(folder, "state"), ["--kv-tokens", kv, "--shard-cache", cache.path], a.patience, cache)
        all_of_them.append(c)
        c.net = a.link
        begin, r = time.monotonic(), -1
        while (time.monotonic() - begin < 60 * a.minutes) if a.minutes else r + 1 < a.rounds:
            r += 1
            said, took = c.round(requests, want, faults)
            for what in said:
                counts[what] = counts.get(what, 0) + 1
            print(f"round {r}: {', '.join(said) or 'nothing'}: all 17 byte-equal in {took:.2f} s"
                  + (f", {c.lost} of them read on after their connection was lost" if c.lost else ""), flush=True)
        said = c.drain(requests, want, ["rank_kill", "rank_pause", "mpirun_kill"])
        print(f"drain: {', '.join(said)}: all 17 byte-equal, exit 0", flush=True)
        c.close()
        left = [n for n in os.listdir(cache.path) if not n.endswith((".tiles", ".tiles.new"))]  # .new: of a rank that was killed while it wrote
        assert not left, f"left in the cache: {left}"
    except BaseException:
        for c in all_of_them:  # after a failure nothing is stopped in order
            lives = c.s.proc.poll() is None
            for pid in [*c.ours(), *([*children(c.s.proc.pid), c.s.proc.pid] if lives else [])]:
                c.kill(pid, signal.SIGKILL)
        raise
    finally:
        cache.close()
        shutil.rmtree(folder, ignore_errors=True)
    print(f"seed {a.seed}: {r + 1} rounds and a drain, every stream byte-equal, nothing left behind, weights from the cache in {c.from_cache}; "
          + ", ".join(f"{n} x {what}" for what, n in sorted(counts.items())))


if __name__ == "__main__":
    main()
