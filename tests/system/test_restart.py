"""A coordinator that is killed, and the one that comes after it: real processes, real HTTP."""
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from cluster import BIN, DEMO, Server, alive, children, cpu_ticks, free_port, mpi_env, run

OTHER = DEMO.replace("q8_0", "f16")
STORY = {"prompt": "Once upon a time", "max_tokens": 600, "temperature": 0.8, "seed": 3, "ignore_eos": True, "logprobs": 2}


def frames(raw):
    """Whole events only, without what a clock or a request's name makes different."""
    raw = raw[:raw.rindex(b"\n\n") + 2] if b"\n\n" in raw else b""
    raw = re.sub(rb'"timings":\{[^}]*\}', b"", raw)
    return re.sub(rb'"(id|created)":[^,]*', b"", raw)


class Durable(Server):
    """A server with a state directory, which outlives it when it is killed."""

    def __init__(self, state, *args, port=None, **kw):
        self.state = state
        self.want_port = port
        super().__init__("--threads", 1, "--state-dir", state, *args, **kw)

    def free_port(self):
        return self.want_port or free_port()

    def kill(self):
        self.proc.kill()
        self.proc.wait()

    def open_stream(self, name, body=STORY, path="/v1/completions", **headers):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        c.request("POST", path, json.dumps({**body, "stream": True}), {"X-Request-Id": name, **headers})
        r = c.getresponse()
        r.keep = c  # the connection lives as long as the answer
        assert r.status == 200, r.read()
        return r

    def events(self, name, after=0):
        status, raw, _ = self.request("GET", f"/v1/requests/{name}/events", headers={"Last-Event-ID": str(after)})
        return status, raw


def read_some(r, n):
    got = b""
    while got.count(b"\n\n") < n:
        piece = r.read1(2000)
        assert piece, "the stream ended early"
        got += piece
    return got


def read_out(r):
    got = b""
    try:
        while piece := r.read1(65536):
            got += piece
    except (http.client.HTTPException, OSError):
        pass
    return got


def is_rank(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read().split(b"\0")[1:2] == [b"worker"]
    except OSError:
        return False


def gone(pids, seconds):
    end = time.monotonic() + seconds
    while any(alive(p) for p in pids) and time.monotonic() < end:
        time.sleep(0.02)
    return [p for p in pids if alive(p)]


class Restart(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="tessera-state-")
        self.state = os.path.join(self.dir, "state")

    def tearDown(self):
        shutil.rmtree(self.dir)

    def test_answers_go_on_with_the_same_workers(self):
        for cut in (("--tp", 2), ("--pp", 2), ("--tp", 2, "--replicas", 2)):
            with self.subTest(cut=cut):
                s = Durable(self.state, *cut, "--journal", "on")
                pids = s.workers()
                want = read_out(s.open_stream("undisturbed"))
                first, second = s.open_stream("first"), s.open_stream("second")
                got = read_some(first, 60)
                read_some(second, 10)
                s.kill()
                got += read_out(first)
                got = got[:got.rindex(b"\n\n") + 2]
                begin = time.monotonic()
                with Durable(self.state, *cut, "--journal", "on", port=s.port) as t:
                    took = time.monotonic() - begin
                    self.assertEqual(t.workers(), pids, "other workers")
                    journal = json.loads(t.get("/health")[1])["cluster"]["journal"]
                    self.assertEqual((journal["state"], journal["reason"]), ("ok", ""))
                    self.assertGreaterEqual(journal["requests"], 3)
                    status, rest = t.events("first", got.count(b"\n\n"))
                    self.assertEqual(status, 200)
                    self.assertEqual(frames(got + rest), frames(want))
                    status, whole = t.events("second")
                    self.assertEqual(frames(whole), frames(want))
                    status, old = t.events("undisturbed")  # one that had ended, too
                    self.assertEqual(frames(old), frames(want))
                    self.assertIn("taking over", t.text())
                print(f"{cut}: serving again after {took:.2f} s")
                self.assertEqual(gone(pids, 5), [])
                self.assertEqual(set(os.listdir(self.state)) - {"lock", "journal", "workers-0.log", "workers-1.log"}, set())

    def test_it_may_be_killed_again_and_again(self):
        s = Durable(self.state, "--tp", 2, "--journal", "on")
        pids = s.workers()
        want = read_out(s.open_stream("want"))
        got = read_some(s.open_stream("again"), 5)
        got = got[:got.rindex(b"\n\n") + 2]  # whole events: what is read on begins with the next
        for _ in range(4):
            s.kill()
            s = Durable(self.state, "--tp", 2, "--journal", "on", port=s.port)
            c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=60)
            c.request("GET", "/v1/requests/again/events", headers={"Last-Event-ID": str(got.count(b"\n\n"))})
            r = c.getresponse()
            if r.status == 204:
                break
            got += read_some(r, 20)
            got = got[:got.rindex(b"\n\n") + 2]
        with s:
            self.assertEqual(s.workers(), pids)
            got += s.events("again", got.count(b"\n\n"))[1]
            self.assertEqual(frames(got), frames(want))

    def test_a_second_coordinator_is_refused(self):
        with Durable(self.state, "--tp", 1) as s:
            p = subprocess.run([BIN, "serve", DEMO, "--port", str(free_port()), "--state-dir", self.state], capture_output=True, env=mpi_env(), timeout=30)
            self.assertNotEqual(p.returncode, 0)
            self.assertIn(f"in use by another coordinator (pid {s.proc.pid})", p.stderr.decode())
            self.assertEqual(s.get("/health")[0], 200)
        p = subprocess.run([BIN, "serve", DEMO, "--port", str(free_port()), "--journal", "on"], capture_output=True, env=mpi_env(), timeout=30)
        self.assertIn("--state-dir", p.stderr.decode())

    def test_workers_that_nobody_takes_over_leave(self):
        s = Durable(self.state, "--tp", 2, "--rejoin-timeout", 2)
        pids = s.workers()
        r = s.open_stream("one")
        read_some(r, 20)
        s.kill()
        begin = time.monotonic()
        time.sleep(0.5)
        before = [cpu_ticks(p) for p in pids]
        time.sleep(0.5)
        self.assertLess(max(cpu_ticks(p) - b for p, b in zip(pids, before)), 10, "they went on computing")
        self.assertEqual(gone(pids, 10), [])
        self.assertGreater(time.monotonic() - begin, 1.5)
        with Durable(self.state, "--tp", 2, port=s.port) as t:  # and what is left stops nobody
            self.assertEqual(t.post("/v1/completions", {**STORY, "max_tokens": 3})[0], 200)

    def test_another_cut_ends_the_old_job_first(self):
        s = Durable(self.state, "--tp", 2)
        pids = s.workers()
        s.kill()
        with Durable(self.state, "--pp", 2, port=s.port) as t:
            self.assertEqual(gone(pids, 0), [])
            self.assertNotEqual(t.workers(), pids)
            self.assertIn("is ended first", t.text())

    def test_workers_that_joined_by_themselves(self):
        env = {**mpi_env(), "TESSERA_CLUSTER_KEY": "a key that both sides were given"}
        listen = f"127.0.0.1:{free_port()}"
        args = ("--launch", "external", "--listen", listen, "--ranks", 2, "--pp", 2, "--journal", "on")
        s = Durable(self.state, *args, env=env, wait=False)
        job = subprocess.Popen(["mpirun", "-q", "--oversubscribe", "--bind-to", "none", "--mca", "btl", "self,tcp", "--mca", "btl_tcp_if_include", "lo", "-n",
                                "2", BIN, "worker", "--join", listen, "--threads", "1"], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            s.wait_ready()
            pids = s.workers()
            want = read_out(s.open_stream("want"))
            got = read_some(s.open_stream("one"), 30)
            s.kill()
            with Durable(self.state, *args, port=s.port, env=env) as t:
                self.assertEqual(t.workers(), pids)
                n = got.count(b"\n\n")
                self.assertEqual(frames(got[:got.rindex(b"\n\n") + 2] + t.events("one", n)[1]), frames(want))
            self.assertEqual(gone(pids, 5), [])
        finally:
            job.kill()
            job.wait()

    def reloading(self, **kw):
        return Durable(self.state, "--tp", 2, "--journal", "on", "--served-model-name", "m", "--admin-socket", self.dir + "/admin", **kw)

    def test_a_reload_is_remembered(self):
        """Killed after a reload, and started again as it was at first: it goes on with the model that was served, its workers and its answers."""
        s = self.reloading()
        old = s.workers()
        before = read_out(s.open_stream("before"))
        self.assertEqual(run("reload", OTHER, "--admin-socket", self.dir + "/admin")[0], 0)
        pids = s.workers()
        self.assertEqual(gone(old, 10), [])
        self.assertEqual(set(os.listdir(self.state)) - {"lock", "workers-0.log"}, {"now", "key.1", "replica-0.1", "plan-0.1", "journal.1"})
        want = read_out(s.open_stream("want"))
        self.assertNotEqual(frames(want), frames(before))
        for _ in range(2):
            got = read_some(s.open_stream("one"), 30)
            s.kill()
            got = got[:got.rindex(b"\n\n") + 2]
            s = self.reloading(port=s.port)
            self.assertEqual(s.workers(), pids)
            self.assertIn("is served again", s.text())
            self.assertEqual(frames(got + s.events("one", got.count(b"\n\n"))[1]), frames(want))
            s.request("DELETE", "/v1/requests/one")
        s.open_stream("kept").read()
        self.assertEqual(run("reload", DEMO, "--admin-socket", self.dir + "/admin")[0], 0)  # and once more
        with s:
            self.assertEqual(frames(read_out(s.open_stream("again"))), frames(before))
            self.assertEqual(gone(pids, 10), [])
            for name in ("want", "kept"):  # of the model that has gone, the first one told by another coordinator
                self.assertEqual(frames(s.events(name)[1]), frames(want))
        self.assertEqual(set(os.listdir(self.state)), {"lock", "journal", "workers-0.log"})

    def test_a_model_of_a_reload_that_has_gone(self):
        copy = os.path.join(self.dir, "copy.gguf")
        shutil.copy(OTHER, copy)
        s = self.reloading()
        want = self.says(s)
        self.assertEqual(run("reload", copy, "--admin-socket", self.dir + "/admin")[0], 0)
        pids = s.workers()
        self.assertNotEqual(self.says(s), want)
        s.kill()
        os.unlink(copy)
        with self.reloading(port=s.port) as t:
            self.assertIn("cannot be read (No such file or directory)", t.text())
            self.assertEqual(gone(pids, 10), [])
            self.assertEqual(self.says(t), want)
            with open(self.state + "/now") as f:
                self.assertEqual(f.read(), f"1\n{os.path.abspath(DEMO)}\n")
        self.assertEqual(set(os.listdir(self.state)), {"lock", "journal", "workers-0.log"})

    def says(self, s):
        return json.dumps(s.post("/v1/completions", {**STORY, "max_tokens": 40})[1]["choices"])

    def test_a_kill_in_the_middle_of_a_reload(self):
        """Whenever it comes: one of the two models is served, whole, and nothing of the other is left."""
        answers = {}
        for m in (DEMO, OTHER):
            with Server("--threads", 1, "--served-model-name", "m", model=m) as s:
                answers[self.says(s)] = m
        self.assertEqual(len(answers), 2)
        served = []
        for delay in (0.02, 0.3, 0.6, 0.9, 1.2):
            s = self.reloading()
            p = subprocess.Popen([BIN, "reload", OTHER, "--admin-socket", self.dir + "/admin"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(delay)
            every = children(s.proc.pid)
            s.kill()
            p.wait(10)
            with self.reloading(port=s.port) as t:
                served.append(answers[self.says(t)])
                ranks = [i for i in every if is_rank(i)]
                self.assertEqual(gone([i for i in ranks if i not in t.workers()], 10), [])
            self.assertEqual(gone(every, 10), [])
            self.assertEqual(set(os.listdir(self.state)), {"lock", "journal", "workers-0.log"})
        print(f"served after the kill: {[os.path.basename(m) for m in served]}")

    def test_a_rank_that_died_with_the_coordinator(self):
        s = Durable(self.state, "--tp", 2, "--journal", "on")
        pids = s.workers()
        want = read_out(s.open_stream("want"))
        got = read_some(s.open_stream("one"), 30)
        s.kill()
        os.kill(pids[1], signal.SIGKILL)
        with Durable(self.state, "--tp", 2, "--journal", "on", port=s.port) as t:
            self.assertEqual(gone(pids, 0), [])
            n = got.count(b"\n\n")
            self.assertEqual(frames(got[:got.rindex(b"\n\n") + 2] + t.events("one", n)[1]), frames(want))


if __name__ == "__main__":
    unittest.main(verbosity=2, warnings="ignore")
