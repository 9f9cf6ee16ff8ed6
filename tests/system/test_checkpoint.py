"""A Hugging Face checkpoint's directory where a GGUF file could stand: every command takes it."""
import json
import os
import shutil
import tempfile
import unittest

from cluster import Server, run

MODEL = "tests/model/golden/qwen3"  # random weights; 256 bytes and three control tokens
QUIET = ("--log-level", "warn", "--threads", 1)


class Checkpoint(unittest.TestCase):
    def test_inspect(self):
        code, out, err = run("inspect", MODEL, "--tensors")
        self.assertEqual(code, 0, err)
        for word in (b"safetensors", b"4 query and 2 KV heads", b"blk.1.attn_q_norm.weight", b"byte-level BPE", b"BF16"):
            self.assertIn(word, out)

    def test_tokenize_and_back(self):
        text = "Grüße, 世界! <|im_end|>".encode()
        code, ids, err = run("tokenize", MODEL, stdin=text)
        self.assertEqual(code, 0, err)
        self.assertEqual(json.loads(ids), [*"Grüße, 世界! ".encode(), 258])
        code, back, err = run("tokenize", MODEL, "--decode", stdin=ids)
        self.assertEqual((code, back), (0, text), err)

    def test_generate_gives_the_same_bytes_for_every_cut(self):
        rows = []
        with tempfile.TemporaryDirectory() as d:
            for cut in (("--tp", 1), ("--tp", 2), ("--pp", 2)):
                path = os.path.join(d, "logits")
                code, _, err = run("generate", MODEL, "--prompt", "Tell me", "--max-tokens", 8, "--seed", 3, "--ignore-eos",
                                   "--logits", path, *cut, *QUIET)
                self.assertEqual(code, 0, err)
                with open(path, "rb") as f:
                    rows.append(f.read())
        self.assertGreater(len(rows[0]), 1000)
        self.assertEqual(rows[1], rows[0])
        self.assertEqual(rows[2], rows[0])

    def test_serve_answers_a_chat(self):
        with Server("--tp", 2, "--threads", 1, model=MODEL) as s:
            status, body = s.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 8})
            self.assertEqual(status, 200, body)
            self.assertEqual(body["usage"]["prompt_tokens"], len("user\nhi") + len("assistant\n") + 4)
            status, models, _ = s.get("/v1/models")
            self.assertIn(b"qwen3", models)

    def test_what_the_model_advises_is_the_default(self):
        ask = {"prompt": "Tell me", "max_tokens": 12, "ignore_eos": True}
        with tempfile.TemporaryDirectory() as d:
            copy = os.path.join(d, "model")
            shutil.copytree(MODEL, copy)
            with open(os.path.join(copy, "generation_config.json"), "w") as f:
                json.dump({"do_sample": True, "temperature": 0.0, "top_k": 20, "repetition_penalty": 1.5}, f)
            with Server("--threads", 1, model=copy) as s:
                self.assertIn('"temperature":0,"top_k":20,"repetition_penalty":1.5', s.text())
                known = json.loads(s.get("/v1/cluster")[1])["sampling_defaults"]
                self.assertEqual((known["temperature"], known["top_k"], known["top_p"]), (0, 20, 1))
                advised = s.post("/v1/completions", ask)[1]["choices"][0]["text"]
                said = s.post("/v1/completions", {**ask, "temperature": 0, "repetition_penalty": 1.5})[1]["choices"][0]["text"]
                plain = s.post("/v1/completions", {**ask, "temperature": 0, "repetition_penalty": 1})[1]["choices"][0]["text"]
                self.assertEqual(advised, said)
                self.assertNotEqual(advised, plain)
            with Server("--threads", 1, "--generation-config", "none", model=copy) as s:
                self.assertNotIn("sampling defaults:", s.text())
                known = json.loads(s.get("/v1/cluster")[1])["sampling_defaults"]
                self.assertEqual((known["temperature"], known["top_k"], known["repetition_penalty"]), (1, 0, 1))

    def test_what_is_wrong_is_said_in_one_sentence(self):
        with tempfile.TemporaryDirectory() as d:
            copy = os.path.join(d, "model")
            shutil.copytree(MODEL, copy)
            os.remove(os.path.join(copy, "model.safetensors"))
            for args, word in ((("serve", copy), "no weights"), (("serve", d), "without config.json"),
                               (("tokenize", "tests/model/golden/qwen2"), "none of tokenizer.json")):
                code, _, err = run(*args, stdin=b"")
                self.assertNotEqual(code, 0)
                self.assertIn(word, err.strip().splitlines()[-1])


if __name__ == "__main__":
    unittest.main(verbosity=2)
