"""`tessera quantize` and `imatrix` as people use them: a checkpoint's directory and GGUF files in, a GGUF file out that serves;
and what is wrong is said in one sentence that leaves no file behind."""
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import tempfile
import time
import unittest

from cluster import BIN, Server, mpi_env, run

WORDS = "tests/model/golden/qwen3"  # its tokenizer: 256 bytes and three control tokens
DEMO_F16 = "deploy/models/tessera-demo-f16.gguf"
STORIES = "deploy/models/stories.txt"
QUIET = ("--log-level", "warn", "--threads", 1)
D, KV, FFN, VOCAB, LAYERS = 256, 128, 512, 272, 2


def write_checkpoint(path, ffn=FFN):
    """A Qwen 3 of random bf16 weights whose rows are whole super-blocks."""
    os.mkdir(path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(os.path.join(WORDS, name), path)
    config = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": D, "intermediate_size": ffn, "num_hidden_layers": LAYERS,
              "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "vocab_size": VOCAB, "rms_norm_eps": 1e-6, "max_position_embeddings": 256,
              "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "hidden_act": "silu", "eos_token_id": 258}
    with open(os.path.join(path, "config.json"), "w") as f:
        json.dump(config, f)
    shapes = {"model.embed_tokens.weight": (VOCAB, D), "lm_head.weight": (VOCAB, D), "model.norm.weight": (D,)}
    for i in range(LAYERS):
        p = f"model.layers.{i}."
        shapes |= {p + "input_layernorm.weight": (D,), p + "post_attention_layernorm.weight": (D,), p + "self_attn.q_norm.weight": (64,),
                   p + "self_attn.k_norm.weight": (64,), p + "self_attn.q_proj.weight": (D, D), p + "self_attn.k_proj.weight": (KV, D),
                   p + "self_attn.v_proj.weight": (KV, D), p + "self_attn.o_proj.weight": (D, D), p + "mlp.gate_proj.weight": (ffn, D),
                   p + "mlp.up_proj.weight": (ffn, D), p + "mlp.down_proj.weight": (D, ffn)}
    draw, header, data = random.Random(5), {}, bytearray()
    exponents = bytes(0x3D | (b & 1) << 7 for b in range(256))   # sign and exponent: values of 1/32 to 1/8
    for name, shape in shapes.items():
        n = shape[0] * (shape[1] if len(shape) > 1 else 1)
        values = bytearray(struct.pack("<H", 0x3F80) * n)        # norms: one
        if len(shape) > 1:
            values[0::2], values[1::2] = draw.randbytes(n), draw.randbytes(n).translate(exponents)
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [len(data), len(data) + 2 * n]}
        data += values
    text = json.dumps(header).encode()
    with open(os.path.join(path, "model.safetensors"), "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)


class Quantize(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.dir = os.path.join(cls.folder.name, "checkpoint")
        write_checkpoint(cls.dir)

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def setUp(self):
        self.work = tempfile.TemporaryDirectory()

    def tearDown(self):
        self.work.cleanup()

    def path(self, name):
        return os.path.join(self.work.name, name)

    def quantize(self, *args):
        code, out, err = run("quantize", *args)
        self.assertEqual(code, 0, err)
        return out.decode()

    def refused(self, code, err, *say):
        self.assertNotEqual(code, 0)
        self.assertLess(code, 128, err)
        lines = err.strip().splitlines()
        self.assertEqual(len(lines), 1, err)
        self.assertTrue(lines[0].startswith("tessera: "), err)
        for word in say:
            self.assertIn(word, lines[0])

    def types(self, path):
        code, out, err = run("inspect", path, "--tensors")
        self.assertEqual(code, 0, err)
        return out.decode()

    def text(self, path, *cut):
        code, out, err = run("generate", path, "--prompt", "Once", "--max-tokens", 12, "--temperature", 0, "--ignore-eos", *cut, *QUIET)
        self.assertEqual(code, 0, err)
        return out

    def test_a_checkpoint_becomes_files_that_serve(self):
        for name, types in (("Q4_K_M", ("Q4_K", "Q6_K")), ("Q5_K_S", ("Q5_K",)), ("Q8_0", ("Q8_0",)), ("BF16", ("BF16",))):
            with self.subTest(type=name):
                out = self.path(name + ".gguf")
                self.assertIn(out, self.quantize(self.dir, out, name))
                shown = self.types(out)
                for t in types:
                    self.assertIn(t, shown)
                self.assertEqual(self.text(out, "--tp", 2), self.text(out))
        self.assertEqual(self.text(self.path("BF16.gguf")), self.text(self.dir))
        with Server("--threads", 1, model=self.path("Q4_K_M.gguf")) as s:
            status, body = s.post("/v1/completions", {"prompt": "Once", "max_tokens": 4, "ignore_eos": True})
            self.assertEqual((status, body["usage"]["completion_tokens"]), (200, 4), body)

    def test_a_gguf_file_becomes_another(self):
        wide, small, twice = self.path("f16.gguf"), self.path("q3.gguf"), self.path("q8.gguf")
        self.quantize(self.dir, wide, "F16")
        self.assertNotIn("quantised before", self.quantize(wide, small, "q3_k_m"))     # in any case of letters
        self.assertIn("Q3_K", self.types(small))
        self.assertLess(os.path.getsize(small) * 2.5, os.path.getsize(wide))
        self.assertIn("quantised before", self.quantize(small, twice, "Q8_0"))
        self.text(twice)

    def test_importance_is_measured_and_used(self):
        for name in ("imatrix.gguf", "imatrix.dat"):
            matrix, out, plain = self.path(name), self.path(name + ".q4.gguf"), self.path(name + ".plain.gguf")
            code, said, err = run("imatrix", DEMO_F16, "-f", STORIES, "-o", matrix, "--chunk", 128, "--chunks", 4, timeout=120)
            self.assertEqual(code, 0, err)
            self.assertIn("over 4 chunks of 128 tokens", said.decode())
            self.quantize(DEMO_F16, out, "Q4_K_S", "--imatrix", matrix)
            self.quantize(DEMO_F16, plain, "Q4_K_S")
            with open(out, "rb") as a, open(plain, "rb") as b:
                self.assertNotEqual(a.read()[-100000:], b.read()[-100000:])
            self.text(out)

    def test_what_is_wrong_is_said_in_one_sentence(self):
        there, out = self.path("there.gguf"), self.path("out.gguf")
        self.quantize(self.dir, there, "Q8_0")
        before = os.stat(there)
        for args, say in (((self.dir, out, "Q4_K_X"), ("'Q4_K_X' is no type", "Q4_K_M")), ((there, there, "Q4_0"), (there, "there already")),
                          ((self.dir, there, "Q4_0"), ("there already",)), ((there, out), ("too few arguments",)),
                          ((self.path("none"), out, "Q4_0"), ("none", "No such file")), ((STORIES, out, "Q4_0"), ("stories.txt",)),
                          ((there, self.path("no/folder.gguf"), "Q4_0"), ("cannot create", "No such file")),
                          ((there, out, "Q4_0", "--imatrix", there), ("no importance matrix",)),
                          ((there, out, "Q4_0", "--imatrix", self.path("none")), ("none", "No such file")),
                          ((WORDS, out, "Q2_K", "--imatrix", STORIES), ("stories.txt",))):
            with self.subTest(args=args[1:]):
                code, _, err = run("quantize", *args)
                self.refused(code, err, *say)
                self.assertEqual(sorted(os.listdir(self.work.name)), ["there.gguf"])
        self.assertEqual((os.stat(there).st_size, os.stat(there).st_mtime_ns), (before.st_size, before.st_mtime_ns))
        for args, say in ((("-f", STORIES, "-o", there), "there already"), (("-f", self.path("none")), "No such file"), ((), "-f FILE"),
                          (("-f", STORIES, "-o", self.path("no/folder.gguf")), "cannot write")):
            code, _, err = run("imatrix", DEMO_F16, *args)
            self.refused(code, err, say)

    def test_another_models_importance_is_refused(self):
        matrix, out = self.path("imatrix.gguf"), self.path("out.gguf")
        code, _, err = run("imatrix", DEMO_F16, "-f", STORIES, "-o", matrix, "--chunk", 128, "--chunks", 1)
        self.assertEqual(code, 0, err)
        code, _, err = run("quantize", self.dir, out, "Q4_K_M", "--imatrix", matrix)
        self.refused(code, err, "measured with another model")
        self.assertEqual(os.listdir(self.work.name), ["imatrix.gguf"])

    def test_a_write_that_fails_leaves_nothing(self):
        def small_files():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (200000, 200000))
        p = subprocess.run([BIN, "quantize", self.dir, self.path("out.gguf"), "Q8_0"], capture_output=True, timeout=60, env=mpi_env(), preexec_fn=small_files)
        self.refused(p.returncode, p.stderr.decode(), "cannot write", "File too large")
        self.assertEqual(os.listdir(self.work.name), [])

    def test_a_full_disk_is_seen_before_anything_is_written(self):
        if subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode:
            self.skipTest("no namespaces here")
        script = ('mount -t tmpfs -o size=500k none "$1" || exit 99; "$2" quantize "$3" "$1/out.gguf" F16; code=$?; ls "$1" >&2; exit $code')
        p = subprocess.run(["unshare", "-rm", "sh", "-c", script, "sh", self.work.name, os.path.abspath(BIN), self.dir], capture_output=True, timeout=60,
                           env=mpi_env())
        if p.returncode == 99:
            self.skipTest("no file system in memory here")
        self.refused(p.returncode, p.stderr.decode(), "needs ", "has 0.5 MB left")

    def test_who_is_interrupted_leaves_nothing(self):
        large = self.path("large")
        write_checkpoint(large, 8192)
        for _ in range(10):
            p = subprocess.Popen([BIN, "quantize", large, self.path("out.gguf"), "Q3_K_M", "--threads", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                 env=mpi_env())
            until = time.time() + 20
            while time.time() < until and p.poll() is None and not any(n.endswith(".part") for n in os.listdir(self.work.name)):
                time.sleep(0.001)
            p.send_signal(signal.SIGINT)
            _, err = p.communicate(timeout=20)
            if p.returncode:
                break
            os.remove(self.path("out.gguf"))    # it was done before the signal came
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("stopped", err.decode())
        self.assertEqual(os.listdir(self.work.name), ["large"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
