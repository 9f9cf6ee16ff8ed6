"""LoRA adapters beside their base: several at once in one batch, named as models, the same answers over every cut and after a loss."""
import json
import os
import random
import re
import shutil
import signal
import struct
import tempfile
import threading
import unittest

from cluster import DEMO, Server, run
from test_restart import Durable, frames, read_out, read_some

GOLDEN = "tests/model/golden/"
MODEL = GOLDEN + "qwen3"
LORA = ("--lora", f"first={GOLDEN}lora/qwen3", "--lora", f"second={GOLDEN}lora/qwen3-second")
QUIET = ("--log-level", "warn", "--threads", 1)
with open(GOLDEN + "lora/qwen3.tokens") as file:
    SAID = json.load(file)  # by transformers and PEFT
KEY = {"base": "base", "first": "qwen3", "second": "qwen3-second"}


def ask(model, n=24, **more):
    return {"model": model, "prompt": SAID["prompt"], "max_tokens": n, "temperature": 0, "ignore_eos": True, "return_token_ids": True, **more}


def ids(answer):
    return answer["choices"][0]["token_ids"]


def gguf_string(s):
    return struct.pack("<Q", len(s)) + s.encode()


def random_adapter(path, seed, rank):
    """Of the demo model: all its layers' matrices, as a GGUF file."""
    out = run("inspect", DEMO, "--tensors")[1].decode()
    shapes = re.findall(r"^(blk\.\d+\.(?:attn_(?:q|k|v|output)|ffn_(?:gate|up|down))\.weight) +\S+ +\[(\d+), (\d+),", out, re.M)
    rng, infos, blobs, at = random.Random(seed), b"", b"", 0
    for name, cols, rows in shapes:
        for half, dims, size in (("a", (int(cols), rank), 1 / int(cols) ** 0.5), ("b", (rank, int(rows)), 0.3 / rank ** 0.5)):
            n = dims[0] * dims[1]
            infos += gguf_string(f"{name}.lora_{half}") + struct.pack("<IQQIQ", 2, *dims, 0, at)
            blob = struct.pack(f"<{n}f", *(rng.gauss(0, size) for _ in range(n)))
            blobs += blob + bytes(-len(blob) % 32)
            at = len(blobs)
    keys = b"".join(gguf_string(k) + struct.pack("<I", 8) + gguf_string(v) for k, v in
                    (("general.type", "adapter"), ("general.architecture", "llama"), ("adapter.type", "lora")))
    keys += gguf_string("adapter.lora.alpha") + struct.pack("<If", 6, 2.0 * rank)
    head = b"GGUF" + struct.pack("<IQQ", 3, 2 * len(shapes), 4) + keys + infos
    with open(path, "wb") as f:
        f.write(head + bytes(-len(head) % 32) + blobs)


def random_adapters(folder):
    for name, seed, rank in (("one", 1, 4), ("two", 2, 9)):
        random_adapter(os.path.join(folder, name + ".gguf"), seed, rank)
    return tuple(x for name in ("one", "two") for x in ("--lora", f"{name}={folder}/{name}.gguf"))


class Lora(unittest.TestCase):
    def test_the_engine_is_measured_with_adapters(self):
        few = ("--threads", 1, "--batch", "1,3", "--prompt", 8, "--depth", 16, "--steps", 2, "--runs", 1, "--json")
        code, out, err = run("bench", "engine", GOLDEN + "qwen3.gguf", *few, *LORA)
        self.assertEqual(code, 0, err)
        self.assertEqual([(r["test"], r["sequences"]) for r in json.loads(out)["rows"]], [("prompt", 1), ("decode", 1), ("decode", 3), ("decode", 1)])
        code, out, err = run("bench", "engine", GOLDEN + "qwen2.gguf", *few, *LORA)
        self.assertEqual((code, out), (1, b""), err)
        self.assertIn("another base", err)

    def together(self, s, base, n=24):
        """What base and adapters say at the same time, two requests of each."""
        names, got = [base, "first", "second"] * 2, {}

        def one(i):
            got[i] = s.post("/v1/completions", ask(names[i], n))

        threads = [threading.Thread(target=one, args=(i,)) for i in range(len(names))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for i, name in enumerate(names):
            status, body = got[i]
            self.assertEqual(status, 200, body)
            self.assertEqual(body["model"], name)
            yield name, ids(body)

    def test_two_adapters_and_their_base_in_one_batch(self):
        with tempfile.TemporaryDirectory() as d:
            log = os.path.join(d, "usage")
            with Server("--tp", 2, "--threads", 1, "--usage-log", log, *LORA, model=MODEL) as s:
                models = json.loads(s.get("/v1/models")[1])["data"]
                base = models[0]["id"]
                self.assertEqual([(m["id"], m["parent"]) for m in models], [(base, None), ("first", base), ("second", base)])
                for name, said in self.together(s, base):
                    self.assertEqual(said, SAID[KEY.get(name, "base")], name)
                # a prefix is another's no more than an adapter is: the same again finds it, with the same answer
                for name in (base, "first", "second"):
                    status, body = s.post("/v1/completions", ask(name))
                    self.assertGreater(body["usage"]["prompt_tokens_details"]["cached_tokens"], 0)
                    self.assertEqual(ids(body), SAID[KEY.get(name, "base")])
                status, body = s.post("/v1/chat/completions", {"model": "second", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4})
                self.assertEqual((status, body["model"]), (200, "second"))
                status, body = s.post("/v1/completions", ask("third"))
                self.assertEqual(status, 404, body)
                status, body = s.post("/v1/load_lora_adapter", {"lora_name": "third", "lora_path": "/x"})
                self.assertEqual(status, 404)
                self.assertIn("--lora NAME=PATH", body["error"]["message"])
                self.assertIn(b'vllm:lora_requests_info{', s.get("/metrics")[1])
            with open(log) as f:
                lines = [json.loads(line) for line in f]
            self.assertEqual({x.get("adapter") for x in lines if x["status"] == 200}, {None, "first", "second"})

    def test_a_first_prompt_finds_nothing_of_another_adapter(self):
        with Server("--threads", 1, *LORA, model=MODEL) as s:
            base = json.loads(s.get("/v1/models")[1])["data"][0]["id"]
            for name in ("first", base, "second"):
                status, body = s.post("/v1/completions", ask(name, 4))
                self.assertEqual((body["usage"].get("prompt_tokens_details") or {}).get("cached_tokens", 0), 0, name)
                self.assertEqual(ids(body), SAID[KEY.get(name, "base")][:4], name)

    def test_generate_gives_the_same_bytes_for_every_cut(self):
        rows = []
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, "logits")
            for cut in (("--tp", 1), ("--tp", 2), ("--pp", 2)):
                code, _, err = run("generate", MODEL, "--prompt", "Tell me", "--max-tokens", 8, "--seed", 3, "--ignore-eos", "--logits", path, *cut, *LORA[:2],
                                   *QUIET)
                self.assertEqual(code, 0, err)
                with open(path, "rb") as f:
                    rows.append(f.read())
            code, _, err = run("generate", MODEL, "--prompt", "Tell me", "--max-tokens", 8, "--seed", 3, "--ignore-eos", "--logits", path, *QUIET)
            self.assertEqual(code, 0, err)
            with open(path, "rb") as f:
                self.assertNotEqual(f.read(), rows[0])
        self.assertGreater(len(rows[0]), 1000)
        self.assertEqual(rows[1], rows[0])
        self.assertEqual(rows[2], rows[0])

    def story(self, model):
        return {"model": model, "prompt": "Once upon a time", "max_tokens": 400, "temperature": 0.8, "seed": 3, "ignore_eos": True}

    def test_answers_go_on_after_a_lost_rank(self):
        with tempfile.TemporaryDirectory() as d:
            lora = random_adapters(d)
            with Server("--tp", 2, "--threads", 1, *lora) as s:
                base = json.loads(s.get("/v1/models")[1])["data"][0]["id"]
                names = [base, "one", "two", "one"]
                whole = [s.post("/v1/completions", self.story(name))[1]["choices"][0]["text"] for name in names]
                self.assertEqual(len(set(whole)), 3)
                got, begun = [None] * len(names), threading.Barrier(len(names) + 1)

                def follow(i):
                    events = s.stream("/v1/completions", self.story(names[i]))
                    seen = [next(events) for _ in range(4)]
                    begun.wait(30)
                    got[i] = seen + list(events)

                threads = [threading.Thread(target=follow, args=(i,)) for i in range(len(names))]
                for t in threads:
                    t.start()
                begun.wait(30)
                os.kill(s.workers()[1], signal.SIGKILL)
                for t in threads:
                    t.join()
                for name, events, text in zip(names, got, whole):
                    self.assertEqual(events[-1], "[DONE]")
                    self.assertEqual({e["model"] for e in events[:-1]}, {name})
                    self.assertEqual("".join(c["text"] for e in events[:-1] for c in e["choices"]), text, s.text())

    def test_answers_go_on_under_another_coordinator(self):
        with tempfile.TemporaryDirectory() as d:
            options = ("--tp", 2, "--journal", "on", *random_adapters(d))
            s = Durable(os.path.join(d, "state"), *options)
            pids = s.workers()
            want = read_out(s.open_stream("undisturbed", self.story("two")))
            first = s.open_stream("first", self.story("two"))
            got = read_some(first, 30)
            s.kill()
            got += read_out(first)
            got = got[:got.rindex(b"\n\n") + 2]
            with Durable(os.path.join(d, "state"), *options, port=s.port) as t:
                self.assertEqual(t.workers(), pids, "other workers")
                status, rest = t.events("first", got.count(b"\n\n"))
                self.assertEqual(status, 200)
                self.assertEqual(frames(got + rest), frames(want))

    def test_replicas_have_them_too(self):
        with Server("--replicas", 2, "--threads", 1, *LORA, model=MODEL) as s:
            base = json.loads(s.get("/v1/models")[1])["data"][0]["id"]
            for name, said in self.together(s, base, 12):
                self.assertEqual(said, SAID[KEY.get(name, "base")][:12], name)

    def test_what_is_wrong_is_said_before_anything_is_loaded(self):
        with tempfile.TemporaryDirectory() as d:
            dora = os.path.join(d, "dora")
            shutil.copytree(GOLDEN + "lora/qwen3", dora)
            config = os.path.join(dora, "adapter_config.json")
            with open(config) as f:
                text = f.read()
            with open(config, "w") as f:
                f.write(text.replace('"use_dora": false', '"use_dora": true'))
            for said, word in ((f"a={dora}", "use_dora"), (f"a={GOLDEN}lora/llama-gqa", "another base"), ("nothing", "NAME=PATH"),
                               (f"a={d}/none", "cannot open"),
                               (f"a={GOLDEN}lora/qwen3,a={GOLDEN}lora/qwen3-second", "two adapters are called a"), (f"a={MODEL}", "is not a LoRA adapter")):
                for command in (("serve", MODEL), ("plan", MODEL), ("generate", MODEL, "--prompt", "x")):
                    code, _, err = run(*command, "--lora", said)
                    self.assertNotEqual(code, 0)
                    self.assertIn(word, err.strip().splitlines()[-1])
                    self.assertNotIn("starting", err)
        code, out, err = run("plan", MODEL, *LORA)
        self.assertEqual(code, 0, err)
        code, _, err = run("serve", GOLDEN + "lora/qwen3")
        self.assertIn("--lora", err.strip().splitlines()[-1])
        code, out, err = run("inspect", GOLDEN + "lora/qwen3")
        self.assertEqual(code, 0, err)
        self.assertIn(b"LoRA adapter", out)


if __name__ == "__main__":
    unittest.main(verbosity=2)
