"""Tokens guessed ahead: texts that repeat themselves come in fewer steps, and are the same to the last bit of every log-probability, on every cut,
beside others, drawn or not, and behind the loss of a rank."""
import os
import re
import signal
import subprocess
import tempfile
import threading
import unittest

from cluster import BIN, Server

MAKE = os.path.join(os.path.dirname(BIN), "make_model")
BODY = {"prompt": "abc abc abc abc", "max_tokens": 300, "temperature": 0, "ignore_eos": True, "logprobs": 0}
BODIES = [BODY, {**BODY, "temperature": 0.2, "seed": 3}, {**BODY, "repetition_penalty": 1.1}, {**BODY, "prompt": "x", "top_k": 2, "temperature": 1, "seed": 4}]


def setUpModule():
    global SCRATCH, MODEL
    SCRATCH = tempfile.TemporaryDirectory()
    MODEL = os.path.join(SCRATCH.name, "model.gguf")
    subprocess.run([MAKE, "--out", MODEL, "--context", "1024", "--layers", "4", "--width", "128"], check=True, capture_output=True)


def tearDownModule():
    SCRATCH.cleanup()


def said(answer):
    return answer["choices"][0]["text"], answer["choices"][0]["logprobs"]["token_logprobs"]  # all bits of them


def counters(s):
    m = s.get("/metrics")[1].decode()
    return [int(re.search(rf"vllm:spec_decode_num_{name}_total\{{.*?\}} (\d+)", m).group(1)) for name in ("drafts", "draft_tokens", "accepted_tokens")]


def serve(*args):
    return Server("--threads", 1, "--context", 1024, "--kv-tokens", 4096, *args, model=MODEL)


@unittest.skipUnless(os.path.exists(MAKE), "no make_model beside the program")
class Speculate(unittest.TestCase):
    def test_guesses_save_steps_and_do_not_show(self):
        with serve("--speculate", 0) as s:
            want = [said(s.post("/v1/completions", b, timeout=120)[1]) for b in BODIES]
            self.assertEqual(counters(s), [0, 0, 0])
        for args in ((), ("--tp", 2), ("--pp", 2), ("--speculate", 2)):
            with serve(*args) as s:
                got = [said(s.post("/v1/completions", b, timeout=120)[1]) for b in BODIES]
                self.assertEqual(want, got, args)
                steps, guesses, right = counters(s)
                self.assertGreater(right, 20, args)  # greedily, random weights fall into loops
                self.assertGreaterEqual(guesses, right)
                self.assertLess(steps, guesses)

    def test_together_and_behind_the_loss_of_a_rank(self):
        bodies = [{**b, "max_tokens": 600} for b in BODIES]
        with serve("--speculate", 0) as s:
            want = [said(s.post("/v1/completions", b, timeout=120)[1]) for b in bodies]
        with serve("--tp", 2) as s:
            got = [None] * len(bodies)

            def one(i):
                got[i] = said(s.post("/v1/completions", bodies[i], timeout=120)[1])

            threads = [threading.Thread(target=one, args=(i,)) for i in range(len(bodies))]
            for t in threads:
                t.start()
            while counters(s)[2] == 0 and any(t.is_alive() for t in threads):
                pass
            os.kill(s.workers()[1], signal.SIGKILL)
            for t in threads:
                t.join()
            self.assertEqual(want, got)


class Predicted(unittest.TestCase):
    """OpenAI's `prediction`: what the answer may well say."""

    def test_a_prediction_saves_steps_and_does_not_show(self):
        ask = {"messages": [{"role": "user", "content": "Tell me the story of the lighthouse."}], "temperature": 0, "max_tokens": 120}
        with Server("--threads", 1) as s:
            path, plain = "/v1/chat/completions", s.post("/v1/chat/completions", ask)[1]
            self.assertNotIn("completion_tokens_details", plain["usage"])
            text = plain["choices"][0]["message"]["content"]
            for said, least in ((text, 0.4), (text.replace("the", "a"), 0), ([{"type": "text", "text": "Nothing of this."}], 0)):
                before = counters(s)
                answer = s.post(path, {**ask, "prediction": {"type": "content", "content": said}})[1]
                self.assertEqual(answer["choices"][0]["message"]["content"], text)
                details, n = answer["usage"]["completion_tokens_details"], answer["usage"]["completion_tokens"]
                steps, guesses, right = (b - a for a, b in zip(before, counters(s)))
                self.assertEqual((right, guesses - right), (details["accepted_prediction_tokens"], details["rejected_prediction_tokens"]))
                self.assertGreaterEqual(right, least * n)


if __name__ == "__main__":
    unittest.main(verbosity=2)
