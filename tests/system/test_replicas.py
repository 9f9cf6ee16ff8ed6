"""Several replicas behind one gateway: routing, the loss of one, what /health and /metrics say."""
import json
import os
import random
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

from cluster import BIN, DEMO, Server, mpi_env, run

STORY = {"prompt": "<|im_start|>user\nTell me the story of the lighthouse.<|im_end|>\n<|im_start|>assistant\n", "temperature": 0,
         "max_tokens": 200, "ignore_eos": True}
KINDS = [{**STORY, "max_tokens": 500}, {**STORY, "max_tokens": 500, "temperature": 0.9, "seed": 4, "top_p": 0.95},
         {**STORY, "max_tokens": 400, "temperature": 1.5, "seed": 9, "logprobs": 2}, {**STORY, "max_tokens": 400, "n": 2, "temperature": 1, "seed": 3},
         {"prompt": "Give me JSON.", "max_tokens": 120, "temperature": 1.2, "seed": 6, "response_format": {"type": "json_object"}}]


def gather(events):
    """Text and logprobs of every choice, and errors."""
    texts, errors = {}, []
    for e in events:
        if e == "[DONE]":
            continue
        if "error" in e:
            errors.append(e["error"])
        for c in e.get("choices", []):
            t, l = texts.setdefault(c["index"], ([], []))
            t.append(c.get("text") or "")
            l += (c.get("logprobs") or {}).get("token_logprobs") or []
    return {i: ("".join(t), l) for i, (t, l) in sorted(texts.items())}, errors


def replicas(s):
    return json.loads(s.get("/health")[1])["cluster"]["replicas"]


def begun(s, k):
    """Choices whose first token came from replica k."""
    text = s.get("/metrics")[1].decode()
    return int(re.search(r'vllm:time_to_first_token_seconds_count\{model_name="[^"]*",engine="%d"\} (\d+)' % k, text).group(1))


def wait_all(s, seconds=40):
    """/health is 200 from the first replica on; until every one serves."""
    end = time.monotonic() + seconds
    while [r["state"] for r in replicas(s)] != ["ready"] * len(replicas(s)):
        assert time.monotonic() < end, s.text()
        time.sleep(0.02)


def neighbours():
    """A port whose next is free too, below those that the kernel gives to others."""
    while True:
        port = random.randrange(20000, 30000)
        try:
            for i in range(2):
                with socket.socket() as k:
                    k.bind(("127.0.0.1", port + i))
            return port
        except OSError:
            pass


class Together:
    """Streams of every kind, several of each, open at once."""

    def __init__(self, s, bodies):
        self.s, self.bodies, self.got, self.first = s, bodies, [None] * len(bodies), threading.Barrier(len(bodies) + 1)
        self.threads = [threading.Thread(target=self.one, args=(i,)) for i in range(len(bodies))]
        for t in self.threads:
            t.start()
        self.first.wait(60)  # every stream has begun

    def one(self, i):
        events = self.s.stream("/v1/completions", self.bodies[i], timeout=120)
        seen = [next(events)]
        self.first.wait(60)
        self.got[i] = gather(seen + list(events))

    def end(self):
        for t in self.threads:
            t.join()
        return self.got


class Replicas(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        with Server("--threads", 1) as s:
            cls.want = [gather(s.stream("/v1/completions", k)) for k in KINDS]

    def check(self, got, bodies, s):
        for g, b in zip(got, bodies):
            self.assertEqual(g[1], [], s.text())
            self.assertEqual(g, self.want[KINDS.index(b)])

    def test_one_is_lost_and_the_other_goes_on_with_its_streams(self):
        with Server("--replicas", 2, "--tp", 2, "--threads", 1) as s:
            wait_all(s)
            bodies = KINDS * 2
            together = Together(s, bodies)
            both = replicas(s)
            self.assertEqual([r["state"] for r in both], ["ready", "ready"])
            self.assertTrue(all(begun(s, k) >= 3 for k in (0, 1)), f"least load spreads them: {both}")
            os.kill(both[0]["ranks"][1]["pid"], signal.SIGKILL)
            while replicas(s)[0]["state"] == "ready":
                time.sleep(0.002)
            status, raw, _ = s.get("/health")
            self.assertEqual(status, 200, raw)  # one serves
            lost, other = json.loads(raw)["cluster"]["replicas"]
            self.assertEqual(other["state"], "ready")
            if lost["state"] == "lost":
                self.assertIn("rank", lost["reason"])
            self.check(together.end(), bodies, s)
            self.assertIn("other replicas go on", s.text())
            self.assertRegex(s.text(), r"replica 0 lost: .*; its open requests go on at another")
            wait_all(s)
            self.assertEqual(replicas(s)[0]["recoveries"], 1)
            text = s.get("/metrics")[1].decode()
            self.assertIn('tessera:recoveries_total{engine="0"} 1', text)
            self.assertIn('tessera:recoveries_total{engine="1"} 0', text)
            self.assertRegex(text, r'vllm:num_requests_running\{model_name="[^"]*",engine="1"\} 0')
            for k in (0, 1):  # each counts what it did itself
                self.assertRegex(text, r'vllm:iteration_tokens_total_count\{model_name="[^"]*",engine="%d"\} [1-9]' % k)
            moved = [l for l in text.splitlines() if l.startswith("tessera:requests_moved_total")][0]
            self.assertGreaterEqual(int(moved.split()[-1]), 3)

    def test_both_are_lost_and_the_first_back_takes_all(self):
        with Server("--replicas", 2, "--threads", 1) as s:
            wait_all(s)
            bodies = KINDS * 2
            together = Together(s, bodies)
            for r in replicas(s):
                os.kill(r["ranks"][0]["pid"], signal.SIGKILL)
            self.check(together.end(), bodies, s)
            s.wait_ready()

    def test_without_recovery_the_other_still_takes_over(self):
        with Server("--replicas", 2, "--threads", 1, "--recovery-timeout", 0) as s:
            wait_all(s)
            bodies = KINDS * 2
            together = Together(s, bodies)
            os.kill(replicas(s)[1]["ranks"][0]["pid"], signal.SIGKILL)
            self.check(together.end(), bodies, s)
            self.assertEqual(s.get("/health")[0], 200)
            self.assertEqual(s.post("/v1/completions", {**STORY, "max_tokens": 5})[0], 200)

    def test_a_prefix_goes_where_it_is_cached(self):
        with Server("--replicas", 2, "--threads", 1) as s:
            wait_all(s)
            prompts = [f"{w} " * 60 for w in ("one", "two", "three", "four")]
            for _ in range(3):
                for p in prompts:
                    last = s.post("/v1/completions", {"prompt": p, "max_tokens": 2, "temperature": 0})[1]
                    cached = last["usage"]["prompt_tokens_details"]["cached_tokens"]
            self.assertGreater(cached, 30)
            hits = [l for l in s.get("/metrics")[1].decode().splitlines() if l.startswith("vllm:prefix_cache_hits_total")]
            queries = [l for l in s.get("/metrics")[1].decode().splitlines() if l.startswith("vllm:prefix_cache_queries_total")]
            # of three rounds the second and third hit
            self.assertGreater(float(hits[0].split()[-1]), 0.5 * float(queries[0].split()[-1]))
            self.assertTrue(all(r["ranks"] for r in replicas(s)))

    def test_workers_that_join_by_themselves_have_a_port_each(self):
        port = neighbours()
        env = {**mpi_env(), "TESSERA_CLUSTER_KEY": "a key, long enough for this"}
        args = ["--launch", "external", "--replicas", 2, "--ranks", 1, "--listen", f"127.0.0.1:{port}", "--rejoin-timeout", 30]
        with Server(*args, env=env, wait=False) as s:
            end = time.monotonic() + 20
            while "those of replica 1" not in s.text() and time.monotonic() < end:
                time.sleep(0.02)
            jobs = [subprocess.Popen([BIN, "worker", "--join", f"127.0.0.1:{port + i}", "--threads", "1", "--bind", "off"], env=env) for i in range(2)]
            s.wait_ready()
            wait_all(s)
            bodies = KINDS * 2
            together = Together(s, bodies)
            jobs[0].kill()
            self.check(together.end(), bodies, s)
            s.proc.send_signal(signal.SIGTERM)
            s.proc.wait(20)
            self.assertEqual(jobs[1].wait(20), 0)
            jobs[0].wait(20)

    def test_one_mpi_job_is_one_replica(self):
        p = subprocess.run(["mpirun", "-q", "--oversubscribe", "--bind-to", "none", "-n", "2", BIN, "serve", DEMO, "--replicas", "2"],
                           capture_output=True, timeout=60, env=mpi_env())
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("one MPI job is one replica", p.stderr.decode())

    def test_batches_use_all_replicas(self):
        with tempfile.TemporaryDirectory() as d:
            with open(d + "/in.jsonl", "w") as f:
                for i in range(12):
                    f.write(json.dumps({"custom_id": str(i), "method": "POST", "url": "/v1/completions",
                                        "body": {"prompt": f"Count to {i}", "max_tokens": 16, "seed": i}}) + "\n")
            for n in (1, 2):
                code, _, err = run("generate", DEMO, "--replicas", n, "--threads", 1, "--prompts", d + "/in.jsonl", "--output", f"{d}/out{n}.jsonl")
                self.assertEqual(code, 0, err)
            texts = []
            for n in (1, 2):
                with open(f"{d}/out{n}.jsonl") as f:
                    rows = [json.loads(l) for l in f]
                texts.append({r["custom_id"]: r["response"]["body"]["choices"][0]["text"] for r in rows})
            self.assertEqual(texts[0], texts[1])


if __name__ == "__main__":
    unittest.main(verbosity=2)
