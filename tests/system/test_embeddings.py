"""Embeddings of a real server: the same bits whatever the cut, the neighbours, the chunks and what the prefix cache holds."""
import base64
import json
import math
import os
import signal
import struct
import tempfile
import threading
import time
import unittest

from cluster import Server, run, DEMO

TEXTS = ["What is the capital of Spain?", "Once upon a time there was a lighthouse at the end of the world. " * 6, "a",
         "The keeper of the lighthouse was old, and the sea was older still. " * 9]
URL = "/v1/embeddings"


def vectors(s, texts=TEXTS, **more):
    status, answer = s.post(URL, {"input": texts, "encoding_format": "base64", **more})
    assert status == 200, answer
    assert [d["index"] for d in answer["data"]] == list(range(len(answer["data"])))
    return [base64.b64decode(d["embedding"]) for d in answer["data"]]


def floats(raw):
    return struct.unpack(f"<{len(raw) // 4}f", raw)


class Embeddings(unittest.TestCase):
    def test_the_cut_does_not_show(self):
        want = {}
        cuts = (["--threads", 1], ["--tp", 2, "--threads", 1, "--max-batch-tokens", 16], ["--pp", 2, "--threads", 1, "--max-batch-tokens", 40],
                ["--threads", 2, "--isa", "avx2", "--max-batch-tokens", 64])
        for cut in cuts:
            with Server(*cut) as s:
                for pooling in ("last", "mean"):
                    got = vectors(s, pooling=pooling)
                    self.assertEqual(want.setdefault(pooling, got), got, (cut, pooling))
                    # again, one by one: by now the cache has their beginnings
                    self.assertEqual([vectors(s, t, pooling=pooling)[0] for t in TEXTS], got, (cut, pooling))
                self.among_others(s, want)
        self.assertNotEqual(want["last"], want["mean"])

    def among_others(self, s, want):
        """While others generate, and many ask at once."""
        got, threads = {}, []
        ask = {"prompt": "Once upon a time", "max_tokens": 60, "ignore_eos": True}
        for _ in range(4):
            threads.append(threading.Thread(target=s.post, args=("/v1/completions", ask)))
        for i in range(8):
            pooling = ("last", "mean")[i % 2]
            threads.append(threading.Thread(target=lambda i=i, p=pooling: got.__setitem__(i, (p, vectors(s, pooling=p)))))
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(len(got), 8)
        for pooling, v in got.values():
            self.assertEqual(v, want[pooling])

    def test_what_they_are(self):
        with Server("--threads", 1, "--pooling", "mean") as s:
            last, mean, unsaid = vectors(s, pooling="last"), vectors(s, pooling="mean"), vectors(s)
            self.assertEqual(unsaid, mean)
            for v in last + mean:
                self.assertAlmostEqual(math.fsum(x * x for x in floats(v)), 1, 5)
            # a mean has read every token itself, whatever the cache holds
            text = TEXTS[3]
            s.post(URL, {"input": text, "pooling": "last"})
            cached = {p: s.post(URL, {"input": text, "pooling": p})[1]["usage"]["prompt_tokens_details"]["cached_tokens"] for p in ("last", "mean")}
            self.assertEqual(cached["mean"], 0)
            self.assertGreater(cached["last"], 0)
            # floats and base64 are the same numbers, and a shorter vector the beginning of the longer one
            r = s.post(URL, {"input": TEXTS[0], "encoding_format": "float"})[1]
            self.assertEqual(tuple(struct.unpack("<f", struct.pack("<f", x))[0] for x in r["data"][0]["embedding"]), floats(mean[0]))
            short = floats(vectors(s, TEXTS[0], dimensions=8)[0])
            n = math.sqrt(math.fsum(x * x for x in floats(mean[0])[:8]))
            for a, b in zip(short, floats(mean[0])):
                self.assertAlmostEqual(a, b / n, 5)
            self.assertEqual(s.post(URL, {"input": "x", "dimensions": len(floats(mean[0])) + 1})[1]["error"]["param"], "dimensions")
            # token ids are what the text becomes
            ids = s.post("/tokenize", {"prompt": TEXTS[0]})[1]["tokens"]
            self.assertEqual(vectors(s, ids), mean[:1])
            self.assertEqual(vectors(s, [ids, ids]), [mean[0]] * 2)
            # the same in Ollama's words
            o = s.post("/api/embed", {"model": "x", "input": TEXTS})[0]
            self.assertEqual(o, 404)
            o = s.post("/api/embed", {"input": TEXTS})[1]
            self.assertEqual([struct.pack(f"<{len(v)}f", *v) for v in o["embeddings"]], mean)
            o = s.post("/api/embeddings", {"prompt": TEXTS[0]})[1]["embedding"]
            scale = math.sqrt(math.fsum(x * x for x in o))
            for a, b in zip(o, floats(mean[0])):
                self.assertAlmostEqual(a / scale, b, 5)
            metrics = s.get("/metrics")[1].decode()
            self.assertNotIn("vllm:prompt_tokens_total{model_name=\"tessera-demo\",engine=\"0\"} 0\n", metrics)

    def test_a_lost_worker_changes_nothing(self):
        texts = [f"{i}: " + TEXTS[1] * 3 for i in range(30)]
        with Server("--tp", 2, "--threads", 1, "--max-batch-tokens", 16) as s:
            want = {p: vectors(s, texts, pooling=p) for p in ("last", "mean")}
            for pooling in want:
                got = []
                salt = "once more " + pooling  # so that nothing of it is in the cache
                t = threading.Thread(target=lambda: got.append(vectors(s, texts, pooling=pooling, cache_salt=salt)))
                t.start()
                end = time.monotonic() + 20
                while not self.running(s) and time.monotonic() < end:
                    pass
                os.kill(s.workers()[1], signal.SIGKILL)
                t.join(60)
                self.assertEqual(got, [want[pooling]], pooling)
            self.assertIn('tessera:recoveries_total{engine="0"} 2\n', s.get("/metrics")[1].decode())

    def running(self, s):
        return json.loads(s.get("/v1/cluster")[1])["requests"]["running"] > 0

    def test_a_batch_file(self):
        line = {"custom_id": "a", "method": "POST", "url": URL, "body": {"input": TEXTS, "encoding_format": "base64"}}
        with tempfile.TemporaryDirectory() as d:
            asked, answered = os.path.join(d, "in"), os.path.join(d, "out")
            with open(asked, "w") as f:
                f.write(json.dumps(line) + "\n")
            code, _, err = run("generate", DEMO, "--prompts", asked, "--output", answered)
            self.assertEqual(code, 0, err)
            with open(answered, "rb") as f:
                out = f.read()
        answer = json.loads(out.splitlines()[0])["response"]
        self.assertEqual(answer["status_code"], 200)
        with Server("--threads", 1) as s:
            self.assertEqual([base64.b64decode(d["embedding"]) for d in answer["body"]["data"]], vectors(s))


if __name__ == "__main__":
    unittest.main(verbosity=2)
