"""The commands: what they print, and the one sentence they end with when something is wrong."""
import json
import math
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
import unittest

from cluster import BIN, DEMO, Server, free_port, mpi_env, run


def have_ipv6():
    try:
        free_port(socket.AF_INET6, "::1")
    except OSError:
        return False
    return True


QUIET = ("--log-level", "warn", "--threads", 1)


class Small(unittest.TestCase):
    """A model of a few kilobytes with a context of 128 tokens."""
    model = "tests/model/golden/qwen3"

    def test_a_benchmark_stays_within_its_context(self):
        code, out, err = run("bench", "engine", self.model, "--threads", 1, "--runs", 1, "--json", timeout=200)
        self.assertEqual(code, 0, err)
        rows = json.loads(out)["rows"]
        self.assertEqual({r["tokens_each"] for r in rows if r["test"] == "prompt"}, {128})
        self.assertEqual({r["depth"] for r in rows if r["test"] == "decode"}, {128 - 16})
        code, _, err = run("bench", "engine", self.model, "--depth", 500, timeout=200)
        self.assertNotEqual(code, 0)
        code, _, err = run("bench", "engine", self.model, "--steps", 128)
        self.assertNotEqual(code, 0)
        self.assertIn("--steps 128 leaves no room in a context of 128 tokens", err)

    def test_a_plan_has_units_that_say_something(self):
        code, out, err = run("plan", DEMO, "--topo", "tests/machines/vm-2core.topo")
        self.assertEqual(code, 0, err)
        text = out.decode()
        self.assertRegex(text, r"[1-9][0-9.]* M parameters\n")
        self.assertIn("of MB", text)
        self.assertIn("memory in MB", text)


class Generate(unittest.TestCase):
    def test_one_prompt(self):
        code, out, err = run("generate", DEMO, "--chat", "--prompt", "What is the capital of Italy?", "--temperature", 0, *QUIET)
        self.assertEqual(code, 0, err)
        self.assertIn(b"Rome", out)

    def test_a_prompt_for_a_chat_model_is_given_a_hint(self):
        ask = ("generate", DEMO, "--prompt", "hello", "--max-tokens", 1, "--threads", 1)
        hint = "this model has a chat template: with --chat"
        self.assertEqual(run(*ask)[2].count(hint), 1)
        self.assertNotIn(hint, run(*ask, "--chat")[2])

    def test_logits_are_the_same_bytes_for_every_cut(self):
        rows = []
        with tempfile.TemporaryDirectory() as d:
            hosts = os.path.join(d, "hosts")
            with open(hosts, "w") as f:
                f.write("localhost slots=3\n")
            for cut in (("--hostfile", hosts), ("--tp", 3), ("--tp", 16), ("--tp", 1), ("--tp", 2), ("--tp", 4), ("--pp", 2),
                        ("--tp", 2, "--pp", 2), ("--tp", 2, "--wire", "mpi"),
                        ("--tp", 1, "--max-batch-tokens", 16), ("--tp", 1, "--isa", "ref")):
                path = os.path.join(d, "logits")
                code, _, err = run("generate", DEMO, "--prompt", "Tell me the story of the lighthouse, please, once more.", "--max-tokens", 12,
                                   "--seed", 3, "--ignore-eos", "--logits", path, *cut, *QUIET)
                self.assertEqual(code, 0, err)
                with open(path, "rb") as f:
                    rows.append(f.read())
        self.assertGreater(len(rows[0]), 10000)
        for r in rows[1:]:
            self.assertEqual(r, rows[0])

    def test_logits_that_were_cut_short_are_no_success(self):
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, "logits")
            p = subprocess.Popen([BIN, "generate", DEMO, "--prompt", "Once", "--logits", path, "--max-tokens", "1000", "--ignore-eos", "--isa", "ref",  # slowly
                                  *map(str, QUIET)], env=mpi_env(), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            until = time.time() + 60
            while not (os.path.exists(path) and os.path.getsize(path)) and p.poll() is None and time.time() < until:
                time.sleep(0.005)
            p.send_signal(signal.SIGINT)
            _, err = p.communicate(timeout=60)
            self.assertEqual(p.returncode, 130, err.decode())
            self.assertIn("cancelled", err.decode())
            rows = os.path.getsize(path) / 4 / 2048
            self.assertEqual(rows, int(rows))
            self.assertLess(rows, 1000)

    def test_perplexity_is_that_of_the_logits_and_of_every_cut(self):
        text = "Tell me the story of the lighthouse. What is the capital of Italy? " * 2
        with tempfile.TemporaryDirectory() as d:
            path, logits = os.path.join(d, "text"), os.path.join(d, "logits")
            with open(path, "w") as f:
                f.write(text)
            code, out, err = run("tokenize", DEMO, stdin=text.encode())
            self.assertEqual(code, 0, err)
            ids = json.loads(out)
            self.assertEqual(run("generate", DEMO, "--prompt", text, "--max-tokens", 1, "--logits", logits, *QUIET)[0], 0)
            with open(logits, "rb") as f:
                raw = f.read()
            n = 2048
            self.assertGreaterEqual(len(raw), len(ids) * n * 4)
            nll = 0.0
            for i in range(len(ids) - 1):
                row = struct.unpack_from(f"{n}f", raw, i * n * 4)
                top = max(row)
                nll += top + math.log(sum(math.exp(v - top) for v in row)) - row[ids[i + 1]]

            def score(*args):
                code, out, err = run("perplexity", DEMO, "--file", path, "--json", *args, *QUIET)
                self.assertEqual(code, 0, err)
                return json.loads(out)
            one = score()
            self.assertEqual(one["tokens"], len(ids) - 1)
            self.assertAlmostEqual(one["nll"], nll / (len(ids) - 1), 6)
            self.assertEqual(score("--tp", 3)["nll"], one["nll"])
            for wire, off in (("f16", 0.1), ("q8", 0.3)):
                got = score("--tp", 3, "--wire", "mpi", "--exact", "off", "--wire-type", wire)
                self.assertNotEqual(got["nll"], one["nll"])
                self.assertAlmostEqual(got["nll"], one["nll"], delta=off)
            code, _, err = run("perplexity", DEMO, "--file", path, "--wire-type", "q8", *QUIET)
            self.assertEqual(code, 2)
            self.assertIn("needs --exact off", err)

    def test_a_batch_goes_on_where_it_stopped(self):
        with tempfile.TemporaryDirectory() as d:
            src, dst = os.path.join(d, "in.jsonl"), os.path.join(d, "out.jsonl")
            lines = [{"custom_id": f"q{i}", "method": "POST", "url": "/v1/chat/completions",
                      "body": {"messages": [{"role": "user", "content": f"What is {i} + 1?"}], "temperature": 0, "max_tokens": 16}} for i in range(10)]
            lines.append({"custom_id": "bad", "method": "POST", "url": "/v1/completions", "body": {"prompt": "x", "temperature": -1}})
            with open(src, "w") as f:
                f.write("".join(json.dumps(l) + "\n" for l in lines[:4]))
            self.assertEqual(run("generate", DEMO, "--prompts", src, "--output", dst, *QUIET)[0], 0)
            with open(dst, "a") as f:
                f.write('{"custom_id": "q5", "resp')  # a crash in the middle of a line
            with open(src, "w") as f:
                f.write("".join(json.dumps(l) + "\n" for l in lines))
            self.assertEqual(run("generate", DEMO, "--prompts", src, "--output", dst, *QUIET)[0], 0)
            with open(dst) as f:
                got = [json.loads(l) for l in f]
            self.assertEqual(sorted(g["custom_id"] for g in got), sorted(l["custom_id"] for l in lines))
            status = {g["custom_id"]: g["response"]["status_code"] for g in got}
            self.assertEqual(status["bad"], 400)
            self.assertTrue(all(v == 200 for k, v in status.items() if k != "bad"))


    def test_two_lines_of_one_id_are_refused(self):
        with tempfile.TemporaryDirectory() as d:
            src, dst = os.path.join(d, "in.jsonl"), os.path.join(d, "out.jsonl")
            line = json.dumps({"custom_id": "a", "url": "/v1/completions", "body": {"prompt": "x", "max_tokens": 1}}) + "\n"
            for text, expected in ((line + "\n" + line, 1), (line, 0), (line + "\n" + line, 1)):  # the last time line 1 is answered already
                with open(src, "w") as f:
                    f.write(text)
                code, _, err = run("generate", DEMO, "--prompts", src, "--output", dst, *QUIET)
                self.assertEqual(code, expected, err)
                self.assertEqual("line 3: custom_id 'a' is that of line 1 too" in err, bool(expected), err)

    def test_answers_before_a_bad_line_are_kept(self):
        with tempfile.TemporaryDirectory() as d:
            src, dst = os.path.join(d, "in.jsonl"), os.path.join(d, "out.jsonl")
            good = [json.dumps({"custom_id": f"q{i}", "url": "/v1/completions", "body": {"prompt": "x", "max_tokens": 4}}) for i in range(4)]
            for bad, say in (("{", "line 4 is no JSON"), (json.dumps({"custom_id": "y"}), "line 4: a batch line needs")):
                with open(src, "w") as f:
                    f.write("\n".join([*good[:3], bad, good[3]]) + "\n")
                code, _, err = run("generate", DEMO, "--prompts", src, "--output", dst, "--concurrency", 64, *QUIET)
                self.assertEqual(code, 1, err)
                self.assertIn(say, err)
                self.assertIn("3 answer(s) are in " + dst, err)
                with open(dst) as f:
                    self.assertEqual(sorted(json.loads(line)["custom_id"] for line in f), ["q0", "q1", "q2"])
            with open(src, "w") as f:
                f.write("\n".join(good) + "\n")
            code, _, err = run("generate", DEMO, "--prompts", src, "--output", dst, *QUIET)
            self.assertEqual(code, 0, err)
            with open(dst) as f:
                self.assertEqual(sorted(json.loads(line)["custom_id"] for line in f), ["q0", "q1", "q2", "q3"])

    def test_a_refusal_names_the_option(self):
        code, _, err = run("generate", DEMO, "--prompt", "x", "--max-tokens", 100000, *QUIET)
        self.assertEqual(code, 1, err)
        self.assertIn("--max-tokens is too large: 100000. This model's", err)
        self.assertNotIn("max_", err)

    def test_a_file_that_is_not_ours_is_never_touched(self):
        with tempfile.TemporaryDirectory() as d:
            src, dst = os.path.join(d, "in.jsonl"), os.path.join(d, "notes.md")
            line = json.dumps({"custom_id": "a", "url": "/v1/completions", "body": {"prompt": "x", "max_tokens": 1}}) + "\n"
            with open(src, "w") as f:
                f.write(line)
            for text in ("# my notes\nimportant\n", "one line without an end", line):
                with open(dst, "w") as f:
                    f.write(text)
                code, _, err = run("generate", DEMO, "--prompts", src, "--output", dst, *QUIET)
                self.assertNotEqual(code, 0)
                self.assertIn("notes.md", err)
                with open(dst) as f:
                    self.assertEqual(f.read(), text)
            for bad in ((src, src), (d, dst), (os.path.join(d, "none"), dst)):
                self.assertNotEqual(run("generate", DEMO, "--prompts", bad[0], "--output", bad[1], *QUIET)[0], 0)
            with open(src) as f:
                self.assertEqual(f.read(), line)


class Text(unittest.TestCase):
    def test_tokenize_and_back(self):
        text = "Grüße, 世界! 12 + 30 = 42\n\n  <|im_end|> end".encode()
        self.assertEqual(run("tokenize", DEMO, text.decode())[:2], run("tokenize", DEMO, stdin=text)[:2])
        code, ids, err = run("tokenize", DEMO, stdin=text)
        self.assertEqual(code, 0, err)
        self.assertIsInstance(json.loads(ids), list)
        code, back, err = run("tokenize", DEMO, "--decode", stdin=ids)
        self.assertEqual((code, back), (0, text), err)

    def test_render_a_conversation(self):
        ask = {"messages": [{"role": "user", "content": "Hi"}], "tools": [{"type": "function", "function": {"name": "get_time"}}]}
        code, out, err = run("render", DEMO, stdin=json.dumps(ask).encode())
        self.assertEqual(code, 0, err)
        self.assertIn(b'"name": "get_time"', out)
        self.assertTrue(out.endswith(b"<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"), out)
        with Server() as s:
            self.assertEqual(s.post("/apply-template", ask)[1]["prompt"].encode(), out)
        code, out, _ = run("render", "chatml", "--add-generation-prompt=off", stdin=json.dumps(ask).encode())
        self.assertEqual((code, out), (0, b"<|im_start|>user\nHi<|im_end|>\n"))

    def test_render_a_request(self):
        body = {"model": "any", "messages": [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]}
        code, out, err = run("render", DEMO, "--request", stdin=json.dumps(body).encode())
        self.assertEqual(code, 0, err)
        self.assertTrue(out.endswith(b"<|im_start|>assistant\n") and b"b<|im_end|>" in out and b"type" not in out, out)

    def test_inspect(self):
        code, out, err = run("inspect", DEMO, "--tensors")
        self.assertEqual(code, 0, err)
        for word in (b"16 query and 8 KV heads", b"Q8_0", b"token_embd.weight", b"general.architecture"):
            self.assertIn(word, out)

    def test_what_a_file_calls_itself_steers_no_terminal(self):
        with open(DEMO, "rb") as f:
            data = f.read()
        at = data.index(b"tessera-demo", data.index(b"general.name"))
        data = data[:at] + b"te\x1b[2J\x9b\ndemo" + data[at + 12:]
        data = data.replace(b"general.license", b"general.\x1b[32mse", 1)
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, "hostile.gguf")
            with open(path, "wb") as f:
                f.write(data)
            for args in (("inspect", path, "--tensors"), ("plan", path, "--topo", "tests/machines/vm-2core.topo")):
                code, out, err = run(*args)
                self.assertEqual(code, 0, err)
                self.assertIn(b"te\\x1b[2J\\x9b\\ndemo", out)
                self.assertNotIn(b"\x1b", out)
                self.assertNotIn(b"\ndemo", out)
            code, out, err = run("plan", path, "--topo", "tests/machines/vm-2core.topo", "--json")
            self.assertEqual(json.loads(out)["model"], "te\\x1b[2J\\x9b\\ndemo")
            with open(path, "wb") as f: # a tensor that is missing is named in a sentence
                f.write(data.replace(b"blk.0.attn_q.weight", b"blk.0.a\x1b[31m.weight", 1))
            code, out, err = run("inspect", path, "--tensors")
            self.assertIn(b"blk.0.a\\x1b[31m.weight", out)
            self.assertNotIn(b"\x1b", out)
            code, out, err = run("plan", path, "--context", 100000000, "--topo", "\x1b[31m")
            self.assertNotIn("\x1b", err)

    def test_a_mistyped_word_is_told_what_was_meant(self):
        for args, says in ((("serv",), "is serve meant?"), (("serve", DEMO, "--prot", "1"), "is --port meant?"),
                           (("serve", DEMO, "--max-model-len", "99"), "here it is --context"), (("frobnicate",), "is no command (tessera --help"),
                           (("ps",), "here it is: tessera status"), (("ls",), "here it is: tessera list"),
                           (("help", "serv"), "is serve meant?"), (("pull", "name"), "such as Qwen/")):
            code, _, err = run(*args)
            self.assertEqual((code, err.count("\n")), (2, 1), err)
            self.assertIn(says, err)

    def test_help_of_a_command_is_its_page(self):
        code, out, _ = run("help", "serve")
        self.assertEqual((code, out), run("serve", "--help")[:2])
        self.assertIn(b"--hostfile", out)

    def test_slots_after_a_colon_are_refused(self):
        with tempfile.NamedTemporaryFile("w") as f:
            f.write("localhost:2\n")
            f.flush()
            for args in (("plan", DEMO), ("doctor",), ("serve", DEMO)):
                code, _, err = run(*args, "--hostfile", f.name)
                self.assertEqual(code, 2, err)
                self.assertIn("line 1: 'localhost:2': in a hostfile slots are written 'localhost slots=2'", err)

    def test_a_pulled_model_may_be_asked_for_as_it_was_pulled(self):
        with tempfile.TemporaryDirectory() as d:
            os.makedirs(os.path.join(d, "org/name"))
            os.symlink(os.path.abspath(DEMO), os.path.join(d, "org/name/m-q8_0.gguf"))
            env = {**mpi_env(), "TESSERA_MODELS": d}
            ask = lambda s, name: s.post("/v1/completions", {"model": name, "prompt": "x", "max_tokens": 1})[0]
            with Server("--threads", 1, model="org/name:Q8_0", env=env) as s:
                self.assertEqual([ask(s, n) for n in ("org/name:Q8_0", "org/name:q8_0", "org/name", "tessera-demo")], [200] * 4)
                self.assertEqual([ask(s, n) for n in ("org/name:Q4_0", "org/nam", "name")], [404] * 3)
                self.assertEqual(len(json.loads(s.get("/v1/models")[1])["data"]), 1)  # and is listed once
            with Server("--threads", 1, "--served-model-name", "mine", model="org/name:Q8_0", env=env) as s:
                self.assertEqual((ask(s, "mine"), ask(s, "org/name")), (200, 404))

    def test_a_name_that_was_not_pulled_is_said_to_be_none(self):
        for args in (("bench", "engine", "org/none"), ("render", "org/none"), ("reload", "org/none")):
            code, _, err = run(*args, stdin=b"")
            self.assertNotEqual(code, 0)
            self.assertIn("tessera pull org/none", err)

    def test_a_text_that_is_not_there_is_missed_before_the_model_loads(self):
        code, _, err = run("perplexity", DEMO, "--file", "/no/such/text")
        self.assertEqual((code, err), (1, "tessera: cannot read /no/such/text: No such file or directory\n"))

    def test_an_answer_comes_without_a_word_of_loading(self):
        code, _, err = run("generate", DEMO, "--chat", "--prompt", "Hi", "--max-tokens", 2, "--threads", 1)
        self.assertEqual(code, 0, err)
        self.assertNotIn("holds", err)

    def test_help_is_there_for_every_command(self):
        for c in ("serve", "generate", "plan", "worker", "tokenize", "inspect"):
            code, out, _ = run(c, "--help")
            self.assertEqual(code, 0)
            self.assertIn(b"usage: tessera " + c.encode(), out)
            self.assertLessEqual(max(map(len, out[out.index(b"--"):].splitlines())), 120)


class Inspect(unittest.TestCase):
    def test_it_shows_what_each_rank_would_hold(self):
        code, out, err = run("inspect", DEMO, "--keys", "off", "--tp", 3, "--pp", 2)
        self.assertEqual(code, 0, err)
        rows = re.findall(r"^  (\d)\s+(\d)\s+(\d)-(\d)\s+(\d+)\s+(\d+)\s+(\d+)\s+(\d+)\s+([\d.]+) MB", out.decode(), re.M)
        self.assertEqual([r[:4] for r in rows], [(str(k), str(k // 3), "02"[k // 3], "13"[k // 3]) for k in range(6)])
        for stage in (rows[:3], rows[3:]):
            self.assertEqual([sum(int(r[c]) for r in stage) for c in (4, 5, 6, 7)], [16, 8, 512, 2048])
        code, out, err = run("inspect", DEMO, "--keys", "off", "--pp", 9)
        self.assertNotEqual(code, 0)
        self.assertIn("use --pp 4 or fewer", err)


class Plan(unittest.TestCase):
    def test_this_machine(self):
        with tempfile.TemporaryDirectory() as d:
            path = os.path.join(d, "here.topo")
            code, out, err = run("plan", DEMO, "--record", path)
            self.assertEqual(code, 0, err)
            self.assertIn(b"1 rank on 1 host", out)
            code, out, err = run("plan", DEMO, "--topo", path, "--ranks", 3, "--tp", 3, "--json")
            self.assertEqual(code, 0, err)
            self.assertEqual(len(json.loads(out)["ranks"]), 3)

    def test_what_it_says_of_the_cache_is_what_serve_holds(self):
        for args in ((), ("--context", 256), ("--context", 256, "--kv-tokens", 5000)):
            code, out, err = run("plan", DEMO, "--tp", 2, "--json", *args)
            self.assertEqual(code, 0, err)
            plan = json.loads(out)
            with Server("--tp", 2, *args) as s:
                end = time.monotonic() + 10  # the log may say so a moment after /health does
                while not (said := re.search(r"KV cache: (\d+) tokens = (\d+) user", s.text())) and time.monotonic() < end:
                    time.sleep(0.02)
                ranks = json.loads(s.get("/health")[1])["cluster"]["replicas"][0]["ranks"]
                self.assertEqual(int(said.group(1)), plan["kv_tokens"], args)
                self.assertEqual([r["kv_bytes"] for r in ranks], [r["kv_bytes"] for r in plan["ranks"]])
                for r, p in zip(ranks, plan["ranks"]):
                    self.assertLess(abs(r["weight_bytes"] - p["weight_bytes"]), r["weight_bytes"] / 50)
            code, out, err = run("plan", DEMO, "--tp", 2, *args)
            self.assertIn(f"KV cache for {plan['kv_tokens']} tokens: {said.group(2)} user", out.decode())

    def test_a_cluster_from_a_file(self):
        code, out, err = run("plan", DEMO, "--topo", "tests/machines/four-unequal.topo", "--json")
        self.assertEqual(code, 0, err)
        plan = json.loads(out)
        self.assertEqual(sum(r["heads"] for r in plan["ranks"] if r["stage"] == 0), 16)
        self.assertEqual([d["users"] for d in plan["decode"]], [1, 8, 32])


class BadInput(unittest.TestCase):
    """Each ends with one sentence that names the thing, and a code that is not 0."""

    def refuse(self, *args, say, stdin=None):
        code, _, err = run(*args, stdin=stdin)
        self.assertNotEqual(code, 0, args)
        self.assertLess(code, 128, err)
        last = err.strip().splitlines()[-1]
        self.assertTrue(last.startswith("tessera: "), err)
        for word in say:
            self.assertIn(word, last)

    def test_models(self):
        with tempfile.TemporaryDirectory() as d:
            with open(DEMO, "rb") as f:
                whole = f.read()
            def file(name, data):
                path = os.path.join(d, name)
                with open(path, "wb") as f:
                    f.write(data)
                return path
            self.refuse("serve", os.path.join(d, "none.gguf"), say=["none.gguf", "No such file"])
            self.refuse("serve", d, say=[d])
            self.refuse("serve", file("empty", b""), say=["empty"])
            self.refuse("serve", file("text", b"hello, I am no model"), say=["text"])
            self.refuse("serve", file("cut", whole[:5000]), say=["cut"])
            self.refuse("serve", file("short", whole[:-1000]), say=["short"])
            self.refuse("serve", file("counts", whole[:8] + struct.pack("<Q", 1 << 60) + whole[16:]), say=["counts"])
            arch = whole.index(b"general.architecture")
            at = whole.index(b"llama", arch)
            self.refuse("serve", file("arch", whole[:at] + b"klama" + whole[at + 5:]), say=["klama", "qwen2"])
            name = whole.index(b"blk.1.attn_k.weight")
            self.refuse("serve", file("tensor", whole[:name] + b"blk.1.attn_j.weight" + whole[name + 19:]), say=["blk.1.attn_k.weight"])

    def test_options(self):
        self.refuse("serve", say=["too few arguments"])
        self.refuse("serve", DEMO, "--frobnicate", say=["--frobnicate"])
        self.refuse("serve", DEMO, "--tp", "0x", say=["--tp"])
        self.refuse("serve", DEMO, "--tp", "70", say=["--tp"])
        self.refuse("serve", DEMO, "--ranks", "0", "--tp", "-1", say=["--tp"])
        self.refuse("serve", DEMO, "--tp", "17", say=["--tp 17", "16 parts"])
        self.refuse("serve", DEMO, "--pp", "9", say=["stages", "--pp"])
        self.refuse("serve", DEMO, "--context", "100000", say=["--context"])
        self.refuse("serve", DEMO, "--kv-type", "f8", say=["--kv-type", "f16|f32|q8_0"])
        self.refuse("serve", DEMO, "--hostfile", "/nonexistent/hosts", say=["/nonexistent/hosts"])
        self.refuse("serve", DEMO, "--launch", "external", say=["cluster key"])
        self.refuse("serve", DEMO, "--isa", "avx9", say=["avx9"])
        self.refuse("serve", DEMO, "--kv-tokens", "16", say=["--kv-tokens"])
        self.refuse("generate", DEMO, say=["--prompt"])
        self.refuse("plan", DEMO, "--topo", "/nonexistent/x.topo", say=["/nonexistent/x.topo"])
        self.refuse("plan", DEMO, "--topo", "README.md", say=["README.md", "first line of a topology"])
        self.refuse("plan", DEMO, "--topo", "tests/machines/vm-2core.topo", "--users", 1024, "--context", 1024, say=["GB are missing", "--context 512"])
        self.refuse("serve", DEMO, "--topo", "/nonexistent/x.topo", say=["/nonexistent/x.topo"])
        self.refuse("worker", say=["--join"])
        self.refuse("tokenize", DEMO, "--decode", say=["JSON"], stdin=b"not json")
        self.refuse("render", DEMO, say=["not JSON"], stdin=b"{")
        self.refuse("render", DEMO, say=["object"], stdin=b"[]")
        self.refuse("render", "/nonexistent.jinja", say=["/nonexistent.jinja"], stdin=b"{}")
        self.refuse("render", DEMO, "--request", say=["messages: Field required"], stdin=b"{}")
        self.refuse("render", "chatml", "--request", say=["needs a MODEL"], stdin=b"{}")
        self.refuse("render", "nope", say=["built-in templates are chatml"], stdin=b"{}")
        self.refuse("serve", DEMO, "--api-keys", "/nonexistent/keys", say=["/nonexistent/keys"])
        self.refuse("serve", DEMO, "--api-key-env", "NO_SUCH_VARIABLE", say=["--api-key-env", "NO_SUCH_VARIABLE"])
        self.refuse("serve", DEMO, "--https-cert", DEMO, say=["both a certificate and its key"])
        self.refuse("serve", DEMO, "--chat-template", "tests", say=["--chat-template", "cannot read tests", "directory"])
        with tempfile.NamedTemporaryFile() as f:
            f.write(b" " * (5 << 20))
            f.flush()
            self.refuse("serve", DEMO, "--chat-template", f.name, say=["--chat-template", f.name, "no template"])
        for command in (("generate", DEMO, "--prompt", "x"), ("serve", DEMO), ("doctor",)):
            self.refuse(*command, "--mpirun-args", "-q " * 65, say=["--mpirun-args has 65 words, at most 64"])

    def test_a_topology_may_say_a_link_more_than_once(self):
        host = "host box%d cores=2\ncpu package0 cores=2 memory=16GiB read=10GB/s ops=100G\n"
        with tempfile.TemporaryDirectory() as d:
            hosts, topo = os.path.join(d, "hosts"), os.path.join(d, "topo")
            with open(hosts, "w") as f:
                f.write("box1\nme@box1\nbox2\nme@box2\n")
            for n, fits in ((504, True), (2016, False)):
                with open(topo, "w") as f:
                    f.write("tessera topology 1\n" + host % 1 + host % 2 + "link box1 box2 latency=20us rate=10Gbit/s\n" * n)
                if fits:
                    code, _, err = run("plan", DEMO, "--hostfile", hosts, "--topo", topo)
                    self.assertEqual(code, 0, err)
                else:
                    self.refuse("plan", DEMO, "--hostfile", hosts, "--topo", topo, say=["more than 2016 links"])

    def test_too_large_a_cache_is_refused_before_loading(self):
        self.refuse("serve", DEMO, "--kv-tokens", "900000000", say=["--kv-tokens", "fit"])

    def test_a_port_in_use_is_named(self):
        with Server() as s:
            self.refuse("serve", DEMO, "--port", s.port, say=[str(s.port), "in use"])

    def test_an_address_is_checked_before_anything_starts(self):
        for listen, why in (("[::1", "bracket is not closed"), ("::1", "stands in brackets"), ("fd00::2:7000", "stands in brackets"),
                            ("127.0.0.1:99999", "'99999' is no port"), ("127.0.0.1:abc", "'abc' is no port"), (":7000", "needed HOST:PORT")):
            self.refuse("serve", DEMO, "--listen", listen, say=["--listen", why])
            self.refuse("doctor", "--listen", listen, say=["--listen", why])
        for host, why in (("box:8000", "without a port"), ("[::1]:8000", "without a port"), ("", "needed HOST:PORT")):
            self.refuse("serve", DEMO, "--host", host, say=["--host", why])
        for join in ("::1:7000", "127.0.0.1", "127.0.0.1:0", "[::1]"):
            self.refuse("worker", "--join", join, say=["--join"])
        self.refuse("serve", DEMO, "--listen", "127.0.0.1:65535", "--replicas", 2, say=["65535 is the last"])

    @unittest.skipUnless(have_ipv6(), "this machine has no IPv6")
    def test_ipv6_everywhere(self):
        key = {**mpi_env(), "TESSERA_CLUSTER_KEY": "a key that both sides were given"}
        listen = f"[::1]:{free_port(socket.AF_INET6, '::1')}"
        with Server("--host", "[::1]", "--launch", "external", "--ranks", 1, "--listen", listen, "--threads", 1, env=key, wait=False) as s:
            until = time.monotonic() + 20  # a job of its own finds it
            while "waiting for workers" not in s.text() and listen not in s.text() and time.monotonic() < until:
                time.sleep(0.05)
            job = subprocess.Popen(["mpirun", "-q", "--oversubscribe", "--bind-to", "none", "-n", "1", BIN, "serve", DEMO, "--listen", listen,
                                    "--threads", "1"],
                                   env=key, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            try:
                until = time.monotonic() + 30
                while "ready:" not in s.text() and s.proc.poll() is None and time.monotonic() < until:
                    time.sleep(0.05)
                self.assertIn(f"ready: http://[::1]:{s.port}/v1", s.text())
                code, out, err = run("status", "--url", f"http://[::1]:{s.port}")
                self.assertEqual(code, 0, err)
                self.assertIn(b"replica 0 ready, 1 rank(s)", out)
            finally:
                s.proc.send_signal(signal.SIGTERM)
                said = job.communicate(timeout=30)[0].decode(errors="replace")
            self.assertIn(f"a coordinator lives at {listen}: this job joins it", said)

    def test_nobody_to_join(self):
        env = {**os.environ, "TESSERA_CLUSTER_KEY": "a key that is long enough"}
        code, _, err = run("worker", "--join", "127.0.0.1:9", "--join-timeout", 1, env=env)
        self.assertNotEqual(code, 0)
        self.assertIn("127.0.0.1:9", err)


class Store(unittest.TestCase):
    def test_what_was_pulled_is_listed_and_removed(self):
        with tempfile.TemporaryDirectory() as d:
            env = {**mpi_env(), "TESSERA_MODELS": d}
            code, out, err = run("list", env=env)
            self.assertEqual((code, out), (0, b""))
            self.assertIn("tessera pull", err)
            os.makedirs(os.path.join(d, "org/name"))
            for quant, size in (("Q8_0", 3000), ("Q4_0", 20)):
                with open(os.path.join(d, f"org/name/m-{quant}.gguf"), "wb") as f:
                    f.write(bytes(size))
            self.assertRegex(run("list", env=env)[1].decode(), r"\norg/name:Q4_0 +Q4_0 +20 B +\d{4}-.*\norg/name:Q8_0 +Q8_0 +3.0 kB +\d{4}-.*\n$")
            known = json.loads(run("list", "--json", env=env)[1])
            self.assertEqual([(m["name"], m["bytes"], m["unfinished"]) for m in known["models"]],
                             [("org/name:Q4_0", 20, False), ("org/name:Q8_0", 3000, False)])
            self.assertEqual(run("list", "--names", env=env)[1], b"org/name:Q4_0\norg/name:Q8_0\n")
            self.assertEqual(run("rm", "org/name", env=env)[0], 2)  # which?
            code, out, err = run("rm", "org/name:Q8_0", env=env)
            self.assertEqual((code, out), (0, b"removed org/name:Q8_0: 1 files, 3.0 kB (3000 bytes)\n"), err)
            self.assertEqual(run("list", "--names", env=env)[1], b"org/name:Q4_0\n")
            self.assertEqual(run("rm", "org/name", env=env)[0], 0)
            code, _, err = run("rm", "org/name", env=env)
            self.assertEqual((code, "tessera list says what is" in err), (1, True), err)
            for bad in (DEMO, "name"):
                code, _, err = run("rm", bad, env=env)
                self.assertEqual(code, 2, err)
            self.assertTrue(os.path.exists(DEMO))

    def test_a_server_goes_on_with_a_model_that_was_removed(self):
        with tempfile.TemporaryDirectory() as d:
            os.makedirs(os.path.join(d, "org/name"))
            shutil.copy(DEMO, os.path.join(d, "org/name/m-q8_0.gguf"))
            env = {**mpi_env(), "TESSERA_MODELS": d}
            ask = {"model": "org/name", "prompt": "Once", "max_tokens": 8, "temperature": 0, "ignore_eos": True}
            with Server("--threads", 1, "--prefix-cache", "off", model="org/name", env=env) as s:
                before = s.post("/v1/completions", ask)[1]["choices"][0]["text"]
                self.assertEqual(run("rm", "org/name", env=env)[0], 0)
                self.assertEqual(s.post("/v1/completions", ask)[1]["choices"][0]["text"], before)


class Streams(unittest.TestCase):
    def test_what_could_not_be_printed_is_no_success(self):
        for args in (("inspect", DEMO), ("tokenize", DEMO, "hi"), ("--help",), ("serve", "--help"), ("version",), ("plan", DEMO)):
            with open("/dev/full", "w") as full:
                p = subprocess.run([BIN, *args], stdout=full, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, env=mpi_env(), timeout=60)
            self.assertEqual(p.returncode, 1, args)
            self.assertIn("standard output", p.stderr.decode())

    def test_who_reads_no_further_is_no_failure(self):
        p = subprocess.run(["bash", "-c", f"trap '' PIPE; {BIN} --help | true; exit ${{PIPESTATUS[0]}}"], stderr=subprocess.PIPE, timeout=60)
        self.assertEqual((p.returncode, p.stderr), (0, b""))

    def test_a_closed_stream_is_not_the_next_file(self):
        with tempfile.TemporaryDirectory() as d:
            p = subprocess.run(["bash", "-c", f"{BIN} quantize deploy/models/tessera-demo-f16.gguf {d}/out.gguf Q8_0 <&- >&- 2>&-"], timeout=60)
            self.assertEqual(p.returncode, 0)
            with open(f"{d}/out.gguf", "rb") as f:
                self.assertEqual(f.read(4), b"GGUF")
            self.assertEqual(run("inspect", f"{d}/out.gguf")[0], 0)

    def test_a_batch_without_line_ends_does_not_take_all_memory(self):
        with tempfile.TemporaryDirectory() as d:
            code, _, err = run("generate", DEMO, "--prompts", "/dev/zero", "--output", d + "/out.jsonl", "--threads", 1)
        self.assertEqual(code, 1, err)
        self.assertIn("/dev/zero line 1 is longer than 64 MB", err)

    def test_keys_that_cannot_be_read_are_refused(self):
        with tempfile.TemporaryDirectory() as d:
            code, _, err = run("serve", DEMO, "--port", 0, "--api-keys", d)
        self.assertEqual(code, 1, err)
        self.assertIn(f"cannot read the keys in {d}: Is a directory", err)


class Status(unittest.TestCase):
    def test_a_server_says_what_it_does(self):
        with Server("--threads", 1, "--tp", 2, "--api-keys", self.keys()) as s:
            code, out, err = run("status", "--port", s.port, env={**mpi_env(), "TESSERA_API_KEY": "key-of-anna"})
            self.assertEqual(len(re.findall(r"\n +[01] +ready .* [0-9.]+$", out.decode(), re.M)), 2,
                             "each says its memory before it has worked: " + out.decode())
            s.request("POST", "/v1/completions", {"prompt": "Once", "max_tokens": 4, "ignore_eos": True}, {"Authorization": "Bearer key-of-anna"})
            env = {**mpi_env(), "TESSERA_API_KEY": "key-of-anna", "http_proxy": "http://127.0.0.1:9"}  # which is not asked
            code, out, err = run("status", "--port", s.port, env=env)
            self.assertEqual(code, 0, err)
            text = out.decode()
            for said in (r"^server +http://127.0.0.1:\d+: ok, tessera [0-9.]+, up \d+ s\n", r"\nmodel +tessera-demo, sequences of up to \d+ tokens\n",
                         r"\nrequests +0 running, 0 waiting\n", r"\nKV cache +\d+ of [1-9]\d* blocks in use \(\d+ %\)", r"\nspeed +0.0 tokens/s",
                         r"\nreplica 0 +ready, 2 rank\(s\) in 1 stage", r"\n +0 +ready ", r"\n +1 +ready "):
                self.assertRegex(text, said)
            code, out, err = run("status", "--url", f"http://localhost:{s.port}/", "--json", env=env)
            j = json.loads(out)
            self.assertEqual((code, j["status"], j["tokens"]["generated"], j["tokens_per_second"]["generated"]), (0, "ok", 4, 0), err)
            self.assertGreater(j["uptime_seconds"], 0)
            code, out, err = run("status", "--port", s.port)  # a stranger
            self.assertEqual(code, 0, err)
            self.assertIn(": ok\n", out.decode())
            self.assertIn("--key-env", out.decode())

    def keys(self):
        f = tempfile.NamedTemporaryFile("w", suffix=".keys")
        self.addCleanup(f.close)
        f.write("anna key-of-anna\n")
        f.flush()
        return f.name

    @unittest.skipUnless(shutil.which("openssl"), "no openssl here")
    def test_a_certificate_of_ones_own_is_named(self):
        with tempfile.TemporaryDirectory() as d:
            cert, key = os.path.join(d, "cert.pem"), os.path.join(d, "key.pem")
            subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=localhost",
                            "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
            with Server("--threads", 1, "--https-cert", cert, "--https-key", key, wait=False) as s:
                ask = ("status", "--url", f"https://localhost:{s.port}")
                for _ in range(200):
                    code, out, err = run(*ask, "--https-ca", cert)
                    if code == 0:
                        break
                    time.sleep(0.1)
                self.assertEqual(code, 0, err)
                self.assertIn(": ok, ", out.decode())
                code, _, err = run(*ask)
                self.assertEqual(code, 1)
                self.assertIn("--https-ca", err)

    def test_its_speed_is_what_was_generated_meanwhile(self):
        with Server("--threads", 1) as s:
            stream = s.stream("/v1/completions", {"prompt": "Once", "max_tokens": 1000, "ignore_eos": True, "n": 16})
            next(stream)
            code, out, err = run("status", "--port", s.port, "--json")
            j = json.loads(out)
            self.assertEqual((code, j["requests"]["running"] > 0), (0, True), err)
            self.assertGreater(j["tokens_per_second"]["generated"], 1)
            stream.close()

    def test_a_server_that_does_not_serve_is_no_success(self):
        with Server("--launch", "external", "--ranks", 2, wait=False, env={**mpi_env(), "TESSERA_CLUSTER_KEY": "0" * 64}) as s:
            for _ in range(100):
                code, out, err = run("status", "--port", s.port)
                if out:
                    break
                time.sleep(0.1)
            self.assertEqual(code, 1, err)
            self.assertIn(": loading", out.decode())
            port = s.port
        code, out, err = run("status", "--port", port)
        self.assertEqual((code, out, err.count("\n")), (1, b"", 1), err)
        self.assertIn("no server answers", err)
        self.assertIn("--url", err)


if __name__ == "__main__":
    unittest.main(verbosity=2)
