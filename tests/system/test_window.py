"""Models whose layers have windows, served from a KV cache that could not hold one text whole: the same answers on every cut, beside others and
alone, with a prefix from the cache, and behind the loss of a rank."""
import os
import re
import signal
import subprocess
import tempfile
import threading
import unittest

from cluster import BIN, Server, run

MAKE = os.path.join(os.path.dirname(BIN), "make_model")
CONTEXT, WINDOW = 1024, 48
BODY = {"prompt": "b" * 300, "max_tokens": 700, "temperature": 0, "ignore_eos": True, "logprobs": 0}


def make(name, *args):
    path = os.path.join(SCRATCH.name, name)
    subprocess.run([MAKE, "--out", path, "--context", str(CONTEXT), "--window", str(WINDOW), *args], check=True, capture_output=True)
    return path


def setUpModule():
    global SCRATCH, SOME, ALL
    SCRATCH = tempfile.TemporaryDirectory()
    SOME = make("some.gguf", "--arch", "gemma3", "--layers", "12", "--width", "128")  # two layers see everything
    ALL = make("all.gguf", "--layers", "4", "--width", "128")


def tearDownModule():
    SCRATCH.cleanup()


def tokens_of(answer):
    return answer["choices"][0]["logprobs"]["token_logprobs"]  # all bits of them


def blocks(s):
    return s.post("/v1/completions", {**BODY, "prompt": "a", "max_tokens": 1})[0] and {
        k: int(v) for k, v in re.findall(r'tessera:kv_blocks\{engine="0",state="(\w+)"\} (\d+)', s.get("/metrics")[1].decode())}


@unittest.skipUnless(os.path.exists(MAKE), "no make_model beside the program")
class Window(unittest.TestCase):
    def ask(self, model, *args, **body):
        with Server("--threads", 1, "--context", CONTEXT, "--kv-tokens", CONTEXT, *args, model=model) as s:
            status, answer = s.post("/v1/completions", {**BODY, **body}, timeout=120)
            self.assertEqual(status, 200, answer)
            self.assertEqual(answer["usage"]["completion_tokens"], BODY["max_tokens"])
            return tokens_of(answer), blocks(s)["all"]

    def test_a_text_goes_far_past_its_window_on_every_cut(self):
        for model, rows in ((SOME, 6), (ALL, 1)):
            one, n = self.ask(model)
            self.assertLess(n, CONTEXT // 16 * rows)  # what all of it would take
            for cut in (("--tp", 2), ("--pp", 2)):
                other, m = self.ask(model, *cut)
                self.assertEqual((one, n), (other, m), cut)
            self.assertEqual(one, self.ask(model, "--max-batch-tokens", 32)[0])

    def test_a_prefix_ends_with_a_window_that_is_still_there(self):
        for model in (SOME, ALL):
            with Server("--threads", 1, "--context", CONTEXT, "--kv-tokens", 4 * CONTEXT, model=model) as s:
                body = {**BODY, "max_tokens": 60}
                first = s.post("/v1/completions", body)[1]
                second = s.post("/v1/completions", body)[1]
                self.assertEqual(tokens_of(first), tokens_of(second))
                usage = second["usage"]
                self.assertGreater(usage["prompt_tokens_details"]["cached_tokens"], max(2 * WINDOW, usage["prompt_tokens"] - 32))

    def test_texts_crowd_a_small_pool_and_survive_a_rank(self):
        bodies = [{**BODY, "prompt": "xyz"[i % 3] * (100 + 40 * i), "max_tokens": 400} for i in range(5)]
        with Server("--threads", 1, "--context", CONTEXT, "--kv-tokens", 16 * CONTEXT, model=SOME) as s:
            want = [tokens_of(s.post("/v1/completions", b, timeout=120)[1]) for b in bodies]
        with Server("--threads", 1, "--context", CONTEXT, "--kv-tokens", CONTEXT, "--tp", 2, model=SOME) as s:
            got = [None] * len(bodies)

            def one(i):
                got[i] = tokens_of(s.post("/v1/completions", bodies[i], timeout=120)[1])

            threads = [threading.Thread(target=one, args=(i,)) for i in range(len(bodies))]
            for t in threads:
                t.start()
            while not re.search(r"tessera:generation_tokens_total\S* [1-9]|generation_tokens_total\{[^}]*\} [1-9]", s.get("/metrics")[1].decode()):
                pass
            os.kill(s.workers()[1], signal.SIGKILL)
            for t in threads:
                t.join()
            self.assertEqual(want, got)
            m = s.get("/metrics")[1].decode()
            self.assertGreater(float(re.search(r"vllm:num_preemptions_total\{.*?\} (\S+)", m).group(1)), 0)
            self.assertLessEqual(float(re.search(r"vllm:kv_cache_usage_perc\{.*?\} (\S+)", m).group(1)), 1)

    def test_plan_says_what_is_kept(self):
        code, out, err = run("plan", SOME, "--context", CONTEXT, "--ranks", 1)
        self.assertEqual(code, 0, err)
        kept, whole = map(float, re.search(rb"keep the last 48 tokens: KV of a user ([\d.]+) MB instead of ([\d.]+)", out).groups())
        self.assertLess(kept, 0.35 * whole)


if __name__ == "__main__":
    unittest.main(verbosity=2)
