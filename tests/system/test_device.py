"""--device: what is said where there is no GPU; and, with the emulated plug-in, a cluster whose ranks compute on a device."""
import json
import os
import re
import signal
import tempfile
import time
import unittest

from cluster import DEMO, Server, run
from test_restart import Durable, frames, read_out, read_some

EMULATED = os.environ.get("TESSERA_TEST_PLUGIN", "")
NCCL = os.environ.get("TESSERA_TEST_NCCL", "")
ASK = ("generate", DEMO, "--prompt", "The lighthouse keeper", "--max-tokens", 4, "--temperature", 0, "--ignore-eos")
STORY = {"prompt": "<|im_start|>user\nTell me the story of the lighthouse.<|im_end|>\n<|im_start|>assistant\n", "max_tokens": 16, "ignore_eos": True}
QUIET = ("--log-level", "warn", "--threads", 1)


def text_of(event):
    return event["choices"][0]["text"] if event != "[DONE]" and event.get("choices") else ""


class with_env:
    """Environment of the processes started inside."""

    def __init__(self, **env):
        self.env = env

    def __enter__(self):
        self.before = {k: os.environ.get(k) for k in self.env}
        os.environ.update(self.env)

    def __exit__(self, *_):
        for k, v in self.before.items():
            if v is None:
                os.environ.pop(k)
            else:
                os.environ[k] = v


class Refused(unittest.TestCase):
    def sentence(self, *args, **env):
        with with_env(**env):
            code, out, err = run(*ASK, *QUIET, *args)
        self.assertEqual(code, 2, err)
        self.assertEqual(out, b"")
        self.assertEqual(err.count("\n"), 1, err)
        return err

    def test_a_name_that_is_none(self):
        self.assertIn("--device gpu is not known: use auto, cpu, cuda or cuda:N", self.sentence("--device", "gpu"))

    def test_a_plugin_that_is_not_there(self):
        self.assertIn("/nowhere.so cannot be loaded", self.sentence("--device", "cuda", TESSERA_CUDA_PLUGIN="/nowhere.so"))

    @unittest.skipUnless(EMULATED, "the CUDA kernels are not emulated in this build")
    def test_no_driver_an_old_one_too_few_devices(self):
        p = EMULATED
        self.assertIn("this machine has no NVIDIA driver", self.sentence("--device", "cuda", TESSERA_CUDA_PLUGIN=p, CUDA_EMU_DRIVER="0"))
        self.assertIn("is for CUDA 12.2, this build needs 13", self.sentence("--device", "cuda", TESSERA_CUDA_PLUGIN=p, CUDA_EMU_DRIVER="12020"))
        self.assertIn("no CUDA-capable device", self.sentence("--device", "cuda", TESSERA_CUDA_PLUGIN=p, CUDA_EMU_DEVICES="0"))
        self.assertIn("this machine has 1 CUDA device(s)", self.sentence("--device", "cuda:1", TESSERA_CUDA_PLUGIN=p))

    @unittest.skipUnless(EMULATED, "the CUDA kernels are not emulated in this build")
    def test_adapters_are_refused_before_anything_is_loaded(self):
        golden = "tests/model/golden/"
        ask = ("generate", golden + "qwen3", "--prompt", "a", "--max-tokens", 2, *QUIET, "--lora", f"first={golden}lora/qwen3")
        for more, rank in (("--device", "cuda"), 0), (("--device", "auto"), 0), (("--tp", 2), 0):
            with self.subTest(more=more), with_env(TESSERA_CUDA_PLUGIN=EMULATED, CUDA_EMU_DEVICES="1"):
                code, out, err = run(*ask, *more)
                self.assertEqual((code, out), (1, b""), err)
                self.assertIn(f"--lora: rank {rank} computes on cuda:0", err)
                self.assertIn("adapters are computed on the CPU only: --device cpu", err)
                self.assertNotIn("Traceback", err)
        with with_env(TESSERA_CUDA_PLUGIN=EMULATED, CUDA_EMU_DEVICES="1"):
            code, out, err = run(*ask, "--device", "cpu")
            self.assertEqual(code, 0, err)

    def test_auto_falls_back_to_the_cpu(self):
        with with_env(TESSERA_CUDA_PLUGIN="/nowhere.so"):
            code, out, err = run(*ASK, *QUIET)
        self.assertEqual(code, 0, err)


@unittest.skipUnless(EMULATED, "the CUDA kernels are not emulated in this build")
class Computed(unittest.TestCase):
    def logits(self, *args):
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, "logits")
            code, _, err = run(*ASK, "--logits", path, "--log-level", "debug", "--threads", 1, *args, timeout=150)
            self.assertEqual(code, 0, err)
            with open(path, "rb") as f:
                return f.read(), err

    def test_ranks_on_devices_give_the_cpus_bytes(self):
        want, _ = self.logits("--device", "cpu")
        with with_env(TESSERA_CUDA_PLUGIN=EMULATED, CUDA_EMU_DEVICES="1"):
            one, err = self.logits("--device", "cuda")
            self.assertIn("cuda:0 emulated device 0", err)
            shared, _ = self.logits("--device", "cuda", "--tp", 2)
            mixed, err = self.logits("--tp", 2)
            self.assertIn("cuda:0 emulated device 0", err)
            self.assertIn("cpu ", err)
        with with_env(TESSERA_CUDA_PLUGIN=EMULATED, CUDA_EMU_DEVICES="2"):
            staged, err = self.logits("--pp", 2)
            self.assertIn("cuda:1 emulated device 1", err)
        self.assertGreater(len(want), 10000)
        for got in (one, shared, mixed, staged):
            self.assertEqual(got, want)

    def begun_ahead(self, *how, **env):
        """The text, and of each rank how many steps it began ahead."""
        with with_env(TESSERA_CUDA_PLUGIN=EMULATED, **env):
            code, out, err = run(*ASK[:4], "--max-tokens", 16, "--ignore-eos", "--device", "cuda", "--log-level", "debug", "--threads", 1, *how, timeout=150)
        self.assertEqual(code, 0, err)
        return out, [int(n) for n in re.findall(r"([0-9]+) of [0-9]+ steps were begun before the tokens of the one before had come", err)]

    def test_the_next_step_is_begun_before_the_tokens_have_come(self):
        draw = ("--temperature", 1, "--seed", 5)
        for sampling in (draw, draw + ("--top-k", 20, "--top-p", 0.9)):
            text, on = self.begun_ahead(*sampling, CUDA_EMU_DEVICES="1", TESSERA_AHEAD="on")
            waited, off = self.begun_ahead(*sampling, CUDA_EMU_DEVICES="1", TESSERA_AHEAD="off")
            self.assertEqual(len(on), 1)
            self.assertGreater(on[0], 0)
            self.assertEqual(off, [])
            self.assertEqual(text, waited)

    @unittest.skipUnless(NCCL, "there is no stand-in for NCCL in this build")
    def test_ranks_that_share_a_model_begin_the_next_step_too(self):
        draw = ("--temperature", 1, "--seed", 5, "--tp", 2)
        for way in ("nccl", "host"):
            env = {"CUDA_EMU_DEVICES": "2", "CUDA_EMU_ASYNC": "1", "TESSERA_NCCL": NCCL, "TESSERA_SUMS": way}
            text, on = self.begun_ahead(*draw, TESSERA_AHEAD="on", **env)
            waited, off = self.begun_ahead(*draw, TESSERA_AHEAD="off", **env)
            self.assertEqual(len(on), 2)
            self.assertGreater(min(on), 0)
            self.assertEqual(off, [])
            self.assertEqual(text, waited)

    @unittest.skipUnless(NCCL, "there is no stand-in for NCCL in this build")
    def test_streams_survive_a_rank_lost_with_the_next_step_begun(self):
        kinds = [{**STORY, "temperature": 0}, {**STORY, "temperature": 0.9, "seed": 4, "top_k": 20, "top_p": 0.95}]
        env = {"CUDA_EMU_DEVICES": "2", "CUDA_EMU_ASYNC": "1", "TESSERA_NCCL": NCCL, "TESSERA_SUMS": "host"}
        with with_env(TESSERA_CUDA_PLUGIN=EMULATED, **env):
            with Server("--tp", 2, "--threads", 1, "--device", "cuda", "--speculate", 0, "--stall-timeout", 3) as s:
                whole = [s.post("/v1/completions", k)[1]["choices"][0]["text"] for k in kinds]
                for n, (rank, how) in enumerate(((1, signal.SIGKILL), (0, signal.SIGSTOP))):
                    streams = [s.stream("/v1/completions", k, timeout=120) for k in kinds]
                    texts = ["".join(text_of(next(e)) for _ in range(2)) for e in streams]
                    os.kill(s.workers()[rank], how)
                    for i, events in enumerate(streams):
                        self.assertEqual(texts[i] + "".join(text_of(e) for e in events), whole[i], s.text())
                    until = time.monotonic() + 40
                    while s.text().count("recovered in") <= n and time.monotonic() < until:
                        time.sleep(0.05)
                self.assertEqual(s.text().count("recovered in"), 2, s.text())

    @unittest.skipUnless(NCCL, "there is no stand-in for NCCL in this build")
    def test_ranks_with_the_next_step_begun_park_for_another_coordinator(self):
        body = {**STORY, "temperature": 0.9, "seed": 4}
        env = {"CUDA_EMU_DEVICES": "2", "CUDA_EMU_ASYNC": "1", "TESSERA_NCCL": NCCL, "TESSERA_SUMS": "host"}
        with with_env(TESSERA_CUDA_PLUGIN=EMULATED, **env), tempfile.TemporaryDirectory() as d:
            how = (os.path.join(d, "state"), "--tp", 2, "--device", "cuda", "--speculate", 0, "--journal", "on")
            s = Durable(*how)
            pids = s.workers()
            want = read_out(s.open_stream("undisturbed", body))
            read_some(s.open_stream("disturbed", body), 2)
            s.kill()
            with Durable(*how, port=s.port) as t:
                self.assertEqual(t.workers(), pids)
                self.assertEqual(frames(t.events("disturbed")[1]), frames(want), t.text())

    @unittest.skipUnless(NCCL, "there is no stand-in for NCCL in this build")
    def test_ranks_on_cards_of_their_own_sum_there(self):
        want, _ = self.logits("--device", "cpu")
        for way, sentence in (("nccl", "by NCCL, exactly"), ("host", "by exchange in the host's memory, exactly"), ("host2", "by exchange in the host's memory in two shots, exactly"),
                              ("memory", "by way of the host's memory"), ("", "us for 32 kB")):
            with with_env(TESSERA_CUDA_PLUGIN=EMULATED, CUDA_EMU_DEVICES="2", TESSERA_NCCL=NCCL, TESSERA_SUMS=way):
                cards, err = self.logits("--tp", 2)
            self.assertIn("the cards of this host sum ", err)
            self.assertIn(sentence, err)
            self.assertEqual(cards, want)
        with with_env(TESSERA_CUDA_PLUGIN=EMULATED, CUDA_EMU_DEVICES="2", TESSERA_NCCL="/nowhere/libnccl.so.2", TESSERA_SUMS="nccl"):
            _, err = self.logits("--tp", 2)
        self.assertIn("the cards of this host sum by way of its memory: rank 0: NCCL cannot be loaded", err)

    def test_replicas_of_one_machine_share_its_cards_out(self):
        with with_env(TESSERA_CUDA_PLUGIN=EMULATED, CUDA_EMU_DEVICES="2"):
            with Server("--replicas", "2", "--threads", "1") as s:
                until = time.monotonic() + 40
                seen = []
                while len(seen) < 2 and time.monotonic() < until: # /health is 200 from the first replica on
                    time.sleep(0.1)
                    replicas = json.loads(s.get("/health")[1])["cluster"]["replicas"]
                    seen = sorted(r["device"].split()[0] for p in replicas for r in p["ranks"] if r.get("device"))
        self.assertEqual(seen, ["cuda:0", "cuda:1"])

    def test_a_card_too_small_is_said_with_the_numbers(self):
        with with_env(TESSERA_CUDA_PLUGIN=EMULATED, CUDA_EMU_BYTES="1000000"):
            code, _, err = run(*ASK, *QUIET, "--device", "cuda")
        self.assertNotEqual(code, 0)
        self.assertIn("GB are free for it", err)


if __name__ == "__main__":
    unittest.main()
