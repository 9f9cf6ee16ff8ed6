"""Start and stop real tessera processes for the system tests. Standard library only."""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time

BIN = os.environ.get("TESSERA_BIN", "build/release/bin/tessera")
DEMO = os.environ.get("TESSERA_DEMO", "deploy/models/tessera-demo-q8_0.gguf")


def mpi_env():
    env = dict(os.environ)
    if os.geteuid() == 0:
        env["OMPI_ALLOW_RUN_AS_ROOT"] = env["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return env


def free_port(family=socket.AF_INET, host="127.0.0.1"):
    with socket.socket(family) as s:
        s.bind((host, 0))
        return s.getsockname()[1]


def run(*args, stdin=None, env=None, timeout=60):
    """A command to its end: (exit code, stdout, stderr)."""
    p = subprocess.run([BIN, *map(str, args)], input=stdin, capture_output=True, timeout=timeout, env=env or mpi_env())
    return p.returncode, p.stdout, p.stderr.decode(errors="replace")


def children(pid):
    """All live descendants of a process."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found += [int(entry)] + children(int(entry))
    return found


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def started(pid):
    """When a process began, in ticks since the machine did: numbers come again, this with them does not. None: it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return int(f.read().rsplit(")", 1)[1].split()[19])
    except OSError:
        return None


def cpu_ticks(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


class Server:
    """`tessera serve` on a free port; a context manager that ends it and checks that nothing is left."""

    def __init__(self, *args, model=DEMO, prefix=(), env=None, wait=True):
        self.port = self.free_port()
        self.log = tempfile.TemporaryFile()
        self.shm_before = set(os.listdir("/dev/shm"))
        self.proc = subprocess.Popen([*prefix, BIN, "serve", model, "--port", str(self.port), *map(str, args)], stderr=self.log,
                                     stdout=self.log, env=env or mpi_env())
        if wait:
            self.wait_ready()

    def free_port(self):
        return free_port()

    def text(self):
        self.log.seek(0)
        return self.log.read().decode(errors="replace")

    def wait_ready(self, seconds=40):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.proc.poll() is not None:
                raise AssertionError("the server ended: " + self.text())
            try:
                if self.get("/health")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.05)
        raise AssertionError("not ready: " + self.text())

    def request(self, method, path, body=None, headers=None, timeout=60):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        c.request(method, path, data, {"Content-Type": "application/json", **(headers or {})})
        r = c.getresponse()
        raw = r.read()
        c.close()
        return r.status, raw, dict(r.getheaders())

    def get(self, path):
        return self.request("GET", path)

    def post(self, path, body, **kw):
        status, raw, _ = self.request("POST", path, body, **kw)
        return status, json.loads(raw)

    def stream(self, path, body, timeout=60):
        """Yields each event's JSON (or "[DONE]") as it arrives."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        c.request("POST", path, json.dumps({**body, "stream": True}), {"Content-Type": "application/json"})
        r = c.getresponse()
        assert r.status == 200, r.read()
        for line in r:
            if line.startswith(b"data: "):
                text = line[6:].strip().decode()
                yield text if text == "[DONE]" else json.loads(text)
        c.close()

    def workers(self):
        """Process ids of the ranks, by rank."""
        health = json.loads(self.get("/health")[1])
        return [r["pid"] for r in health["cluster"]["replicas"][0]["ranks"]]

    def shm_left(self, seconds=3):
        """Names in shared memory that were not there before; ranks of others that run beside us have theirs for moments only."""
        end = time.monotonic() + seconds
        while True:
            names = {n for n in os.listdir("/dev/shm") if re.match(r"tessera-[0-9a-f]{16}-\d+-", n)} - self.shm_before
            if not names or time.monotonic() > end:
                return names
            time.sleep(0.05)

    def stop(self, sig=signal.SIGTERM, seconds=40):
        pids = [self.proc.pid] + children(self.proc.pid)
        if self.proc.poll() is None:
            self.proc.send_signal(sig)
        code = self.proc.wait(seconds)
        end = time.monotonic() + 5
        while any(alive(p) for p in pids) and time.monotonic() < end:
            time.sleep(0.02)
        left = [p for p in pids if alive(p)]
        assert not left, f"processes left behind: {left}\n{self.text()}"
        shm = self.shm_left()
        assert not shm, f"shared memory left behind: {shm}"
        with socket.socket() as s:
            assert s.connect_ex(("127.0.0.1", self.port)) != 0, "the port is still open"
        return code

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        try:
            self.stop()
        finally:
            if kind:
                print(self.text(), file=sys.stderr)
            self.log.close()
