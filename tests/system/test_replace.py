"""Drain and replace: the admin socket, the port taken over, models changed without a dropped request."""
import hashlib
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
import unittest

from cluster import BIN, DEMO, Server, alive, children, free_port, mpi_env, run

OTHER = DEMO.replace("q8_0", "f16")
STORY = {"prompt": "<|im_start|>user\nTell me the story of the lighthouse.<|im_end|>\n<|im_start|>assistant\n", "temperature": 0,
         "max_tokens": 200, "ignore_eos": True, "logprobs": 1}


ADMIN = {"Authorization": "Bearer key-of-the-operators"}


def admin_keys(folder):
    """A file with the digest of the key above."""
    path = os.path.join(folder, "admins")
    with open(path, "w") as f:
        f.write("ops sha256:" + hashlib.sha256(b"key-of-the-operators").hexdigest() + "\n")
    return path


def operator(key):
    return {**mpi_env(), "TESSERA_ADMIN_KEY": key}


def gather(events):
    text, logprobs, errors = "", [], []
    for e in events:
        if e == "[DONE]":
            continue
        if "error" in e:
            errors.append(e["error"]["message"])
        for c in e.get("choices", []):
            text += c.get("text") or ""
            logprobs += (c.get("logprobs") or {}).get("token_logprobs") or []
    return text, logprobs, errors


class Draining(unittest.TestCase):
    def setUp(self):
        self.dir = tempfile.mkdtemp()
        self.socket = self.dir + "/admin"

    def tearDown(self):
        shutil.rmtree(self.dir)

    def test_drain_finishes_the_old_refuses_the_new_and_ends(self):
        with Server("--tp", 2, "--threads", 1, "--admin-socket", self.socket) as s:
            self.assertEqual(stat.S_IMODE(os.stat(self.socket).st_mode), 0o600)
            want = gather(s.stream("/v1/completions", STORY))
            events = s.stream("/v1/completions", STORY)
            first = next(events)
            p = subprocess.Popen([BIN, "drain", "--admin-socket", self.socket], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            end = time.monotonic() + 10
            while "stopping" not in s.text() and time.monotonic() < end:
                time.sleep(0.005)
            time.sleep(0.05)
            with self.assertRaises(OSError):  # no new connections
                s.get("/health")
            self.assertEqual(gather([first] + list(events)), want)
            out, err = p.communicate(timeout=30)
            self.assertEqual((p.returncode, err), (0, b""))
            self.assertIn(b"may finish", out)
            self.assertEqual(s.proc.wait(10), 0)
            self.assertFalse(os.path.exists(self.socket))

    def test_a_drain_that_takes_too_long_says_so(self):
        with Server("--threads", 1, "--admin-socket", self.socket, "--drain-timeout", 0) as s:
            events = s.stream("/v1/completions", {**STORY, "max_tokens": 1000})
            next(events)
            code, out, _ = run("drain", "--admin-socket", self.socket)
            self.assertEqual(code, 0)
            self.assertIn("the time is over", out.decode())
            self.assertIn("--drain-timeout", gather(events)[2][0])
            self.assertEqual(s.proc.wait(10), 0)

    def test_an_admin_key_drains(self):
        keys = admin_keys(self.dir)
        with Server("--tp", 2, "--threads", 1, "--admin-socket", "none", "--admin-keys", keys) as s:
            want = gather(s.stream("/v1/completions", STORY))
            for headers in ({}, {"Authorization": "Bearer another-admin-key"}):
                self.assertEqual(s.request("POST", "/admin/drain", b"", headers)[0], 401)
            events = s.stream("/v1/completions", STORY)
            first = next(events)
            code, out, err = run("drain", "--url", f"http://127.0.0.1:{s.port}", env=operator("key-of-the-operator"))
            self.assertEqual((code, out), (1, b""))
            self.assertIn("401 /admin/drain needs an admin key", err)
            code, out, err = run("drain", "--url", f"http://127.0.0.1:{s.port}", env=operator("key-of-the-operators"))
            self.assertEqual((code, json.loads(out)), (0, {"status": "draining"}), err)
            self.assertEqual(gather([first] + list(events)), want)
            self.assertEqual(s.proc.wait(10), 0)
            self.assertIn("ops asks: drain", s.text())

    def test_a_service_is_found_from_a_login_shell(self):
        service = {k: v for k, v in mpi_env().items() if k != "XDG_RUNTIME_DIR"}
        with Server("--threads", 1, env=service) as s:
            code, _, err = run("drain", "--port", s.port, env={**service, "XDG_RUNTIME_DIR": self.dir})
            self.assertEqual((code, s.proc.wait(10)), (0, 0), err)
            self.assertIn(f"asking the server at /tmp/tessera-{os.geteuid()}-{s.port}.sock", err)

    @unittest.skipUnless(os.geteuid() == 0 and shutil.which("setpriv"), "root and setpriv are needed")
    def test_root_may_drain_the_server_of_another_user(self):
        nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        if subprocess.run([*nobody, "sh", "-c", f"test -x '{BIN}' && test -r '{DEMO}'"]).returncode:
            self.skipTest("the program lies where other users do not get to")
        service = {k: v for k, v in mpi_env().items() if k != "XDG_RUNTIME_DIR"} | {"HOME": "/nonexistent"}
        with Server("--threads", 1, prefix=nobody, env=service) as s:
            code, _, err = run("drain", "--port", s.port)
            self.assertEqual((code, s.proc.wait(10)), (0, 0), err)

    def test_nobody_there(self):
        code, _, err = run("drain", "--admin-socket", self.socket)
        self.assertEqual(code, 1)
        self.assertIn("no server answers at " + self.socket, err)
        code, _, err = run("drain", "--port", 1)
        self.assertEqual(code, 1)
        for url, words in (("http://127.0.0.1:1", "no server answers"), ("https://127.0.0.1:1", "no server answers"), ("127.0.0.1:8000", "http://HOST:PORT"),
                           ("http://:1", "http://HOST:PORT"), ("http://[::1", "http://HOST:PORT"), ("http://a:123456", "http://HOST:PORT"),
                           ("http://127.0.0.1:1/v1", "no server answers"), ("http://127.0.0.1:1/?a=b", "http://HOST:PORT")):
            code, _, err = run("drain", "--url", url, env=operator("key-of-the-operators"))
            self.assertEqual(code, 1)
            self.assertIn(words, err)
        code, _, err = run("drain", "--url", "http://127.0.0.1:1")
        self.assertIn("TESSERA_ADMIN_KEY is not set", err)
        code, _, err = run("drain", "--url", "http://127.0.0.1:1", env=operator("two words"))
        self.assertIn("a character in it that no key has", err)

    def test_what_is_said_nonsense_is_refused_and_the_server_goes_on(self):
        with Server("--threads", 1, "--admin-socket", self.socket) as s:
            for line in (b"\n", b"shutdown now\n", b"reload \n", b"x" * 9000 + b"\n", b"drain"):
                with socket.socket(socket.AF_UNIX) as k:
                    k.connect(self.socket)
                    k.sendall(line)
                    k.settimeout(0.5)
                    try:
                        said = k.recv(1000)
                    except OSError:
                        said = b""
                    self.assertNotIn(b"ok", said)
            self.assertEqual(s.post("/v1/completions", {**STORY, "max_tokens": 3})[0], 200)

    def test_a_dead_servers_socket_is_taken_over_a_living_ones_is_not(self):
        with Server("--threads", 1, "--admin-socket", self.socket) as s:
            p = subprocess.run([BIN, "serve", DEMO, "--port", "0", "--admin-socket", self.socket], capture_output=True, timeout=30, env=mpi_env())
            self.assertNotEqual(p.returncode, 0)
            self.assertIn(b"another server", p.stderr)
            pids = [s.proc.pid] + children(s.proc.pid)
            s.proc.kill()
            s.proc.wait()
            end = time.monotonic() + 40
            while any(alive(p) for p in pids) and time.monotonic() < end:
                time.sleep(0.05)
        self.assertTrue(os.path.exists(self.socket))
        with Server("--threads", 1, "--admin-socket", self.socket):
            self.assertEqual(run("drain", "--admin-socket", self.socket)[0], 0)

    def test_a_second_server_waits_for_the_port_when_told(self):
        with Server("--threads", 1, "--admin-socket", self.socket) as s:
            p = subprocess.run([BIN, "serve", DEMO, "--port", str(s.port), "--admin-socket", "none"], capture_output=True, timeout=30, env=mpi_env())
            self.assertEqual(p.returncode, 1)
            self.assertIn(b"the port is in use", p.stderr)
            log = tempfile.TemporaryFile()
            second = subprocess.Popen([BIN, "serve", DEMO, "--port", str(s.port), "--threads", "1", "--port-timeout", "30", "--admin-socket",
                                       self.socket + "2"],
                                      stderr=log, env=mpi_env())
            time.sleep(0.3)
            events = s.stream("/v1/completions", STORY)
            first = next(events)
            drain = subprocess.Popen([BIN, "drain", "--admin-socket", self.socket])
            self.assertFalse(gather([first] + list(events))[2])
            self.assertEqual(drain.wait(20), 0)
            end = time.monotonic() + 20
            status = None
            while status != 200 and time.monotonic() < end:
                try:
                    status = s.get("/health")[0]
                except OSError:
                    time.sleep(0.05)
            self.assertEqual(status, 200)
            self.assertEqual(run("drain", "--admin-socket", self.socket + "2")[0], 0)
            self.assertEqual(second.wait(20), 0)


class Reloading(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.want = {}
        for m in (DEMO, OTHER):
            with Server("--threads", 1, model=m) as s:
                cls.want[m] = gather(s.stream("/v1/completions", STORY))
        assert cls.want[DEMO] != cls.want[OTHER]

    def asking(self, s, stop, got):
        """Requests one after another, until told to stop; each is of one model or the other, whole."""
        while not stop.is_set():
            got.append(gather(s.stream("/v1/completions", STORY, timeout=90)))

    def reload(self, s, where, model, *args):
        stop, got = threading.Event(), [[], [], []]
        threads = [threading.Thread(target=self.asking, args=(s, stop, g)) for g in got]
        for t in threads:
            t.start()
        while not all(got):
            time.sleep(0.02)
        result = run("reload", model, "--admin-socket", where)
        n = sum(len(g) for g in got)
        end = time.monotonic() + 30
        while sum(len(g) for g in got) < n + 6 and time.monotonic() < end:
            time.sleep(0.02)
        stop.set()
        for t in threads:
            t.join()
        return result, [a for g in got for a in g]

    def test_beside_the_old_one(self):
        with tempfile.TemporaryDirectory() as d:
            with Server("--threads", 1, "--tp", 2, "--served-model-name", "m", "--admin-socket", d + "/a") as s:
                old = s.workers()
                (code, out, err), answers = self.reload(s, d + "/a", OTHER)
                self.assertEqual(code, 0, err)
                self.assertIn(b"serving", out)
                kinds = [self.want[DEMO], self.want[OTHER]]
                self.assertTrue(all(a in kinds for a in answers), s.text())
                self.assertIn(kinds[0], answers)
                self.assertIn(kinds[1], answers)
                self.assertEqual(gather(s.stream("/v1/completions", STORY)), kinds[1])
                self.assertFalse(any(alive(p) for p in old))
                self.assertEqual(len(s.workers()), 2)
                os.kill(s.workers()[0], signal.SIGKILL)  # and it recovers as the first did
                self.assertEqual(gather(s.stream("/v1/completions", STORY)), kinds[1])

    def test_an_admin_key_reloads(self):
        with tempfile.TemporaryDirectory() as d:
            with Server("--threads", 1, "--served-model-name", "m", "--admin-socket", "none", "--admin-keys", admin_keys(d)) as s:
                status, raw, _ = s.request("POST", "/admin/reload", {"model": d + "/none.gguf"}, ADMIN)
                self.assertEqual(status, 400)
                self.assertIn("none.gguf", json.loads(raw)["error"]["message"])
                self.assertEqual(gather(s.stream("/v1/completions", STORY)), self.want[DEMO])
                status, raw, _ = s.request("POST", "/admin/reload", {"model": os.path.abspath(OTHER)}, ADMIN)
                self.assertEqual((status, json.loads(raw)), (200, {"status": "serving", "model": os.path.abspath(OTHER)}))
                self.assertEqual(gather(s.stream("/v1/completions", STORY)), self.want[OTHER])
                url = ("--url", f"http://localhost:{s.port}/")
                for model, words in ((DEMO if DEMO[0] != "/" else "relative.gguf", "absolute path"), (d + "/none.gguf", "none.gguf"),
                                     ("org/none", "tessera pull org/none")):
                    code, _, err = run("reload", model, *url, env=operator("key-of-the-operators"))
                    self.assertEqual(code, 1)
                    self.assertIn(words, err)
                code, out, err = run("reload", os.path.abspath(DEMO), *url, env=operator("key-of-the-operators"))
                self.assertEqual((code, json.loads(out)["model"]), (0, os.path.abspath(DEMO)), err)
                self.assertEqual(gather(s.stream("/v1/completions", STORY)), self.want[DEMO])
                self.assertEqual(run("reload", os.path.abspath(OTHER), *url, env=operator("key-of-the-operators"))[0], 0)
                self.assertEqual(gather(s.stream("/v1/completions", STORY)), self.want[OTHER])
                self.assertEqual(s.request("POST", "/admin/drain", b"", ADMIN)[0], 200)  # the new model's door is the same
                self.assertEqual(s.proc.wait(10), 0)

    def test_workers_that_join_by_themselves_are_not_ours_to_change(self):
        with tempfile.TemporaryDirectory() as d:
            port, env = free_port(), {**mpi_env(), "TESSERA_CLUSTER_KEY": "a key that both sides were given"}
            with Server("--launch", "external", "--ranks", 1, "--listen", f"127.0.0.1:{port}", "--admin-socket", d + "/b", env=env, wait=False) as s:
                job = subprocess.Popen(["mpirun", "-q", "--bind-to", "none", "-n", "1", BIN, "worker", "--join", f"127.0.0.1:{port}",
                                        "--threads", "1"], env=env,
                                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                s.wait_ready()
                code, _, err = run("reload", OTHER, "--admin-socket", d + "/b")
                self.assertEqual(code, 1)
                self.assertIn("reload needs workers that the server starts itself", err)
                self.assertIn("drain this one", err)  # the way that there is
                self.assertEqual(gather(s.stream("/v1/completions", STORY)), self.want[DEMO])
                self.assertEqual(run("drain", "--admin-socket", d + "/b")[0], 0)
                self.assertEqual(job.wait(20), 0)

    def test_a_model_that_cannot_be_served_changes_nothing(self):
        with tempfile.TemporaryDirectory() as d:
            bad = d + "/bad.gguf"
            with open(OTHER, "rb") as f, open(bad, "wb") as g:
                g.write(f.read(20000))
            with Server("--threads", 1, "--admin-socket", d + "/a") as s:
                (code, _, err), answers = self.reload(s, d + "/a", bad)
                self.assertEqual(code, 1)
                self.assertIn("bad.gguf", err)
                self.assertTrue(all(a == self.want[DEMO] for a in answers), s.text())
                self.assertEqual(run("reload", d + "/none", "--admin-socket", d + "/a")[0], 1)

    def test_when_both_do_not_fit_requests_wait(self):
        """A KV cache of more than half of the memory: it fits once. It is promised, not touched, so this costs nothing."""
        with open("/proc/meminfo") as f:
            free = [int(l.split()[1]) * 1024 for l in f if l.startswith("MemAvailable")][0]
        with Server("--threads", 1) as s:
            rank = json.loads(s.get("/health")[1])["cluster"]["replicas"][0]["ranks"][0]
        tokens = int(0.6 * free / (rank["kv_bytes"] / 8192))
        with tempfile.TemporaryDirectory() as d:
            with Server("--threads", 1, "--kv-tokens", tokens, "--admin-socket", d + "/a", "--state-dir", d + "/state", "--journal", "on") as s:
                old = s.workers()
                (code, out, err), answers = self.reload(s, d + "/a", OTHER)
                self.assertEqual(code, 0, err + s.text())
                self.assertIn(b"both do not fit", out)
                self.assertTrue(all(a in self.want.values() for a in answers), [a[2] for a in answers if a[2]])
                self.assertIn(self.want[DEMO], answers)
                self.assertIn(self.want[OTHER], answers)
                self.assertFalse(any(alive(p) for p in old))
                with open(d + "/state/now") as f:  # the first attempt, beside the old one, had number 1
                    self.assertEqual(f.read(), f"2\n{os.path.abspath(OTHER)}\n")
                self.assertEqual(set(os.listdir(d + "/state")) - {"lock", "now", "workers-0.log"},
                                 {n + ".2" for n in ("key", "plan-0", "replica-0", "journal")})
            self.assertEqual(set(os.listdir(d + "/state")), {"lock", "journal", "workers-0.log"})


if __name__ == "__main__":
    unittest.main(verbosity=2)
