"""Keys, limits, HTTPS and other origins, through a real server."""
import http.client
import json
import os
import ssl
import subprocess
import sys
import tempfile
import time
import unittest

from cluster import DEMO, Server, run

ASK = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0, "max_tokens": 30}
CHAT = "/v1/chat/completions"


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def listens_on(pid):
    """Addresses, as the kernel's table has them in hexadecimal, at which a process listens."""
    own, found = set(), []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            own.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            pass
    for table in ("tcp", "tcp6"):
        with open(f"/proc/{pid}/net/{table}") as f:
            for line in f.readlines()[1:]:
                word = line.split()
                if word[3] == "0A" and f"socket:[{word[9]}]" in own:
                    found.append(word[1].split(":")[0])
    return found


class Doors(unittest.TestCase):
    def test_without_a_hostfile_only_loopback_is_listened_on(self):
        """The gateway and the worker plane; of the sockets that Open MPI opens in ranks this says nothing."""
        with Server("--tp", 2, "--threads", 1) as s:
            doors = listens_on(s.proc.pid)
            self.assertEqual(len(doors), 2)
            self.assertLessEqual(set(doors), {"0100007F", "0000000000000000FFFF00000100007F"})  # 127.0.0.1, and the same as the sixth version writes it


class Access(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.TemporaryDirectory()
        cls.path = os.path.join(cls.dir.name, "keys")
        cls.write("anna key-of-anna\nslow key-of-slow rpm=2\nslower key-of-slower rpm=2\nfew key-of-few tpm=50\none key-of-one concurrency=1\n")
        env = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "MY_KEY": "key-of-the-env"}
        cls.s = Server("--threads", 1, "--api-keys", cls.path, "--api-key-env", "MY_KEY", "--cors-origins", "https://a.example, https://b.example",
                       "--usage-log", os.path.join(cls.dir.name, "usage"), "--log-level", "debug", env=env)

    @classmethod
    def tearDownClass(cls):
        assert cls.s.stop() == 0, cls.s.text()
        cls.dir.cleanup()

    @classmethod
    def write(cls, text):
        with open(cls.path, "w") as f:
            f.write(text)
        os.chmod(cls.path, 0o600)

    def ask(self, key, path=CHAT, body=ASK):
        status, raw, headers = self.s.request("POST", path, body, bearer(key) if key else {})
        return status, json.loads(raw), {k.lower(): v for k, v in headers.items()}

    def test_only_keys_come_in(self):
        self.assertEqual(self.ask("key-of-anna")[0], 200)
        self.assertEqual(self.ask("key-of-the-env")[0], 200)
        for key in (None, "key-of-ann", "key-of-annaa", ""):
            status, body, headers = self.ask(key)
            self.assertEqual(status, 401)
            self.assertEqual(set(body["error"]), {"message", "type", "param", "code"})
            self.assertIn("www-authenticate", headers)
        self.assertEqual(self.s.request("POST", CHAT, ASK, {"x-api-key": "key-of-anna"})[0], 200)
        for path in ("/metrics", "/v1/models", "/v1/cluster", "/nothing"):
            self.assertEqual(self.s.get(path)[0], 401, path)
        self.assertIn(b"--public-metrics", self.s.get("/metrics")[1])

    def test_strangers_learn_the_status_alone(self):
        for headers in ({}, bearer("key-of-ann")):
            status, raw, _ = self.s.request("GET", "/health", None, headers)
            self.assertEqual((status, json.loads(raw)), (200, {"status": "ok"}))
        status, raw, _ = self.s.request("GET", "/health", None, bearer("key-of-anna"))
        self.assertEqual(status, 200)
        self.assertEqual(len(json.loads(raw)["cluster"]["replicas"]), 1)

    def test_errors_come_in_the_dialect_of_the_path(self):
        self.assertEqual(self.ask(None, "/v1/messages")[1]["error"]["type"], "authentication_error")
        self.assertIsInstance(self.ask(None, "/api/chat")[1]["error"], str)

    def test_requests_per_minute(self):
        got = [self.ask("key-of-slow") for _ in range(3)]
        self.assertEqual([g[0] for g in got], [200, 200, 429])
        self.assertEqual(got[0][2]["x-ratelimit-limit-requests"], "2")
        self.assertEqual([g[2]["x-ratelimit-remaining-requests"] for g in got], ["1", "0", "0"])
        self.assertGreater(int(got[2][2]["retry-after"]), 20)
        self.assertIn("requests per minute", got[2][1]["error"]["message"])

    def test_tokens_per_minute(self):
        begin = time.monotonic()
        status, body, headers = self.ask("key-of-few")
        refilled = (time.monotonic() - begin) * 50 / 60  # at most, until the headers were written
        self.assertEqual(status, 200)
        self.assertEqual(headers["x-ratelimit-limit-tokens"], "50")
        left = 50 - body["usage"]["total_tokens"]
        self.assertTrue(left <= int(headers["x-ratelimit-remaining-tokens"]) <= left + refilled, headers)
        while status == 200:
            status, body, headers = self.ask("key-of-few")
        self.assertEqual(status, 429)
        self.assertIn("tokens per minute", body["error"]["message"])

    def lines(self, name):
        """What the usage log has of a request id, once it is there."""
        end = time.monotonic() + 5
        while time.monotonic() < end:
            with open(os.path.join(self.dir.name, "usage")) as f:
                found = [v for v in map(json.loads, f) if v["id"] == name]
            if found:
                return found
            time.sleep(0.02)
        self.fail(f"nothing in the usage log of {name}")

    def test_every_answer_is_in_the_usage_log(self):
        named = {**bearer("key-of-anna"), "X-Request-Id": "whole-1"}
        usage = json.loads(self.s.request("POST", CHAT, ASK, named)[1])["usage"]
        line, = self.lines("whole-1")
        self.assertEqual((line["key"], line["path"], line["status"]), ("anna", CHAT, 200))
        self.assertEqual((line["prompt_tokens"], line["completion_tokens"]), (usage["prompt_tokens"], usage["completion_tokens"]))
        self.assertEqual(line["cached_tokens"], usage["prompt_tokens_details"]["cached_tokens"])
        self.assertIn("whole-1 " + CHAT + ": 200", self.s.text())
        self.assertTrue(0 < line["first_token_seconds"] <= line["seconds"], line)
        self.s.request("POST", CHAT, {**ASK, "temperature": -1}, {**named, "X-Request-Id": "bad-1"})
        self.assertEqual([(v["status"], v["prompt_tokens"]) for v in self.lines("bad-1")], [(400, 0)])
        c = http.client.HTTPConnection("127.0.0.1", self.s.port, timeout=20)
        c.request("POST", "/v1/completions", json.dumps({"prompt": "Once upon a time", "max_tokens": 900, "ignore_eos": True, "stream": True}),
                  {**named, "Content-Type": "application/json", "X-Request-Id": "left-1"})
        c.getresponse().readline()
        c.close()
        line, = self.lines("left-1")
        self.assertEqual(line["status"], 499)
        self.assertGreater(line["prompt_tokens"], 0)
        self.s.request("POST", "/v1/embeddings", {"input": ["a", "b"]}, {**named, "X-Request-Id": "vectors-1"})
        self.assertEqual([v["completion_tokens"] for v in self.lines("vectors-1")], [0])

    def test_who_is_turned_away_is_in_the_usage_log_too(self):
        self.s.request("POST", CHAT, ASK, {**bearer("key-of-ann"), "X-Request-Id": "stranger-1"})
        self.assertEqual([(v["status"], v["key"], v["first_token_seconds"]) for v in self.lines("stranger-1")], [(401, None, None)])
        for i in range(3):  # rpm=2
            self.s.request("POST", CHAT, ASK, {**bearer("key-of-slower"), "X-Request-Id": f"fast-{i}"})
        self.assertEqual([(v["status"], v["key"]) for v in self.lines("fast-2")], [(429, "slower")])

    def test_one_at_once(self):
        story = {"prompt": "Once upon a time", "max_tokens": 900, "ignore_eos": True, "stream": True}
        c = http.client.HTTPConnection("127.0.0.1", self.s.port, timeout=60)
        c.request("POST", "/v1/completions", json.dumps(story), {**bearer("key-of-one"), "Content-Type": "application/json"})
        r = c.getresponse()
        self.assertEqual(r.status, 200)
        self.assertTrue(any(line.startswith(b"data: ") for line in r))  # it runs, and its rest is not read
        self.assertEqual(self.ask("key-of-one")[0], 429)
        c.close()
        end = time.monotonic() + 10
        while self.ask("key-of-one")[0] != 200:  # the gateway learns that its client has left
            self.assertLess(time.monotonic(), end)
            time.sleep(0.02)

    def test_zz_the_file_may_change(self):
        self.write("anna another-key\n")
        time.sleep(1.1)
        self.assertEqual(self.ask("another-key")[0], 200)
        self.assertEqual(self.ask("key-of-anna")[0], 401)
        self.write("this is no key file\n")
        time.sleep(1.1)
        self.assertEqual(self.ask("another-key")[0], 200)
        status, raw, _ = self.s.request("GET", "/metrics", None, bearer("another-key"))
        self.assertIn(b'tessera:key_generation_tokens_total{key="anna"}', raw)

    def test_other_origins(self):
        ask = {"Origin": "https://b.example", "Access-Control-Request-Method": "POST"}
        status, _, h = self.s.request("OPTIONS", CHAT, None, ask)
        self.assertEqual((status, h.get("Access-Control-Allow-Origin")), (204, "https://b.example"))
        self.assertIn("Authorization", h["Access-Control-Allow-Headers"])
        _, _, h = self.s.request("OPTIONS", CHAT, None, {**ask, "Origin": "https://c.example"})
        self.assertNotIn("Access-Control-Allow-Origin", h)
        _, _, h = self.s.request("POST", CHAT, ASK, {**bearer("key-of-anna"), "Origin": "https://a.example"})
        self.assertEqual(h.get("Access-Control-Allow-Origin"), "https://a.example")


class Fair(unittest.TestCase):
    def test_one_light_key_beside_32_heavy_ones(self):
        sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "bench"))
        import fair
        load = fair.measure(DEMO, 4, 1, ["--threads", "1"], both=False)["fair"][0]
        index, worst = fair.jain(load.shares), max(load.ttft)
        print(f"Jain {index:.4f}; worst TTFT of {len(load.ttft)}: {worst * 1e3:.0f} ms")
        self.assertEqual(len(load.shares), fair.HEAVY)
        self.assertGreaterEqual(index, 0.95)
        self.assertGreater(len(load.ttft), 3)
        self.assertLess(worst, 2)  # without shares of its own it waits for a hundred others


class Https(unittest.TestCase):
    def setUp(self):
        d = tempfile.TemporaryDirectory()
        self.addCleanup(d.cleanup)
        self.cert, self.key = os.path.join(d.name, "cert.pem"), os.path.join(d.name, "key.pem")
        self.make(self.cert, self.key)

    def make(self, cert, key, kind=("ec", "-pkeyopt", "ec_paramgen_curve:P-256")):
        try:
            subprocess.run(["openssl", "req", "-x509", "-newkey", *kind, "-nodes", "-days", "2", "-subj",
                            "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", cert], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as e:
            self.skipTest(f"no certificate could be made: {e}")

    def start(self):
        s = Server("--threads", 1, "--https-cert", self.cert, "--https-key", self.key, wait=False)
        self.addCleanup(s.log.close)
        self.addCleanup(s.stop)
        end = time.monotonic() + 40
        while self.fetch(s, self.trust(), "GET", "/health")[0] != 200:
            self.assertLess(time.monotonic(), end, s.text())
            time.sleep(0.05)
        return s

    def trust(self, cert=None):
        return ssl.create_default_context(cafile=cert or self.cert)

    def test_https(self):
        code, _, err = run("serve", DEMO, "--port", 0, "--https-cert", self.cert, "--https-key", self.cert)
        self.assertNotEqual(code, 0)
        self.assertIn("do they belong together", err)
        s = self.start()
        trust = self.trust()
        self.assertIn(b"Paris", self.fetch(s, trust, "POST", CHAT, ASK)[1])
        self.assertIn(b"[DONE]", self.fetch(s, trust, "POST", CHAT, {**ASK, "stream": True})[1])
        status, text = self.fetch(s, trust, "GET", "/health?" + "x" * 30000)
        self.assertEqual((status, json.loads(text)["error"]["code"]), (431, None))

    def test_certificates_are_replaced_while_it_runs(self):
        s = self.start()
        old = self.trust()
        kept = http.client.HTTPSConnection("127.0.0.1", s.port, timeout=30, context=old)
        self.addCleanup(kept.close)

        def ask_kept():
            kept.request("GET", "/health")
            return len(kept.getresponse().read()) > 0
        self.assertTrue(ask_kept())
        with open(self.cert) as f:
            first = f.read()
        with open(self.cert, "w") as f:  # half a file: what was there stays
            f.write(first[:len(first) // 2])
        for _ in range(3):
            self.assertEqual(self.fetch(s, old, "GET", "/health")[0], 200)
        self.assertEqual(s.text().count("the certificate of HTTPS stays as it was"), 1)
        fresh_cert, fresh_key = self.cert + ".new", self.key + ".new"
        self.make(fresh_cert, fresh_key, kind=("rsa:2048",))
        os.rename(fresh_cert, self.cert)  # its key is not there yet
        self.assertEqual(self.fetch(s, old, "GET", "/health")[0], 200)
        self.assertEqual(s.text().count("the certificate of HTTPS stays as it was"), 2)
        os.rename(fresh_key, self.key)
        new = self.trust()
        self.assertEqual(self.fetch(s, new, "GET", "/health")[0], 200)
        self.assertEqual(self.fetch(s, old, "GET", "/health")[0], 0)
        self.assertTrue(ask_kept())
        self.assertEqual(s.text().count("has changed: connections that begin from now on see it"), 1)

    def fetch(self, s, trust, method, path, body=None):
        c = http.client.HTTPSConnection("127.0.0.1", s.port, timeout=30, context=trust)
        try:
            c.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
            r = c.getresponse()
            return r.status, r.read()
        except OSError:
            return 0, b""
        finally:
            c.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
