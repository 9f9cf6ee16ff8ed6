"""The commands that talk to a running server: `tessera chat` and `tessera bench serve`, with ours and with one that misbehaves."""
import contextlib
import http.server
import json
import os
import pty
import re
import select
import signal
import subprocess
import threading
import time
import unittest

from cluster import BIN, Server, mpi_env, run

QUESTION = "What is the capital of France?"


@contextlib.contextmanager
def fake(answer):
    """A server of one's own: answer(handler) writes what it likes to a POST."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = b'{"object":"list","data":[{"id":"fake-model"}]}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self):
            self.body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer(self)

        def events(self, *events):
            self.send_response(200)
            self.send_header("Content-Type", "text/event-stream")
            self.end_headers()
            for e in events:
                self.wfile.write(b"data: " + (e if isinstance(e, bytes) else json.dumps(e).encode()) + b"\n\n")

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as s:
        threading.Thread(target=s.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{s.server_port}"
        s.shutdown()


def delta(**what):
    return {"choices": [{"delta": what}]}


class Terminal:
    """A command on a terminal of its own."""

    def __init__(self, *args):
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.execve(BIN, [BIN, *map(str, args)], mpi_env())
        self.text = ""

    def until(self, pattern, seconds=20):
        end = time.monotonic() + seconds
        while not (found := re.search(pattern, self.text)):
            if time.monotonic() > end:
                raise AssertionError(f"no {pattern!r} in {self.text!r}")
            if select.select([self.fd], [], [], 0.1)[0]:
                self.text += os.read(self.fd, 4096).decode(errors="replace")
        self.text = self.text[found.end():]
        return found

    def type(self, keys):
        os.write(self.fd, keys.encode())

    def end(self):
        """The exit code."""
        with contextlib.suppress(OSError):
            while os.read(self.fd, 4096):
                pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Chat(unittest.TestCase):
    def generated(self):
        return float(re.search(r"vllm:generation_tokens_total\{.*?\} (\S+)", self.server.request("GET", "/metrics")[1].decode()).group(1))

    @classmethod
    def setUpClass(cls):
        cls.server = Server("--threads", 1)
        cls.server.__enter__()

    @classmethod
    def tearDownClass(cls):
        cls.server.__exit__(None, None, None)

    def test_one_answer(self):
        want = self.server.post("/v1/chat/completions", {"messages": [{"role": "user", "content": QUESTION}],
                                                         "temperature": 0})[1]["choices"][0]["message"]["content"]
        ask = ("chat", "--port", self.server.port, "--temperature", 0)
        code, out, err = run(*ask, QUESTION, "--timings")
        self.assertEqual((code, out.decode()), (0, want + "\n"), err)
        self.assertRegex(err, r"^\(\d+ tokens, the first after [\d.]+ s")
        self.assertEqual(run(*ask, stdin=QUESTION.encode())[:2], (code, out))
        self.assertEqual(run(*ask[:1], "--url", f"http://localhost:{self.server.port}/v1/", *ask[3:], QUESTION)[:2], (code, out))
        code, out, err = run(*ask, QUESTION, "--max-tokens", 3)
        self.assertEqual(code, 0)
        self.assertTrue(want.startswith(out.decode().rstrip("\n")), out)
        self.assertIn("--max-tokens", err)

    def test_refusals(self):
        port = ("--port", self.server.port)
        for args, stdin, words in (((*port, "--model", "another", "Hi"), b"", "404 The model `another` does not exist"), (port, b"", "standard input is empty"),
                                   (port, b"\xff\xfe", "not UTF-8"), (("--port", 1, "Hi"), b"", "no server answers"),
                                   (("--url", "localhost", "Hi"), b"", "http://HOST:PORT")):
            code, out, err = run("chat", *args, stdin=stdin)
            self.assertEqual((code, out, err.count("\n")), (1, b"", 1), err)
            self.assertIn(words, err)

    def test_a_conversation(self):
        t = Terminal("chat", "--port", self.server.port, "--temperature", 0)
        t.until(r"tessera-demo at http://127.0.0.1:\d+; /help")
        t.until(">>> ")
        t.type("/nonsense\n")
        t.until(r"There is no /nonsense here(.|\n)*/clear(.|\n)*>>> ")
        t.type(QUESTION + "\n")
        first = t.until(r"\n((.|\n)*?)>>> ").group(1)
        self.assertGreater(len(first), 4)
        t.type("/clear\n")
        t.until(">>> ")
        t.type('"""' + QUESTION + '"""')
        t.type("\n")
        self.assertEqual(t.until(r"\n((.|\n)*?)>>> ").group(1), first)
        t.type("\x04")
        self.assertEqual(t.end(), 0)

    def test_bench(self):
        before = self.generated()
        code, out, err = run("bench", "serve", "--port", self.server.port, "--users", "1,3", "--requests", 6, "--prompt-tokens", 50, "--tokens", 7)
        rows = [line.split() for line in out.decode().splitlines()[3:]]
        self.assertEqual(code, 0, err)
        self.assertEqual([r[:3] for r in rows], [["1", "6", "0"], ["3", "6", "0"]])
        for r in rows:
            self.assertTrue(40 < float(r[3]) < 60, r)  # tokens of a prompt, about 50
            self.assertEqual(len(r), 15)
        self.assertEqual(self.generated() - before, 2 * 6 * 7 + 1)
        code, out, err = run("bench", "serve", "--port", self.server.port, "--rate", 50, "--requests", 5, "--api", "chat", "--tokens", 4, "--json")
        j = json.loads(out)[0]
        self.assertEqual((code, j["answered"], j["failed"], j["completion_tokens"]), (0, 5, 0, 20), err)
        for name in ("ttft", "itl", "tpot", "e2e"):
            self.assertLessEqual(j[name]["p50"], j[name]["p99"])
        self.assertLessEqual(j["ttft"]["p99"], j["e2e"]["p99"])

    def test_bench_says_what_failed(self):
        code, out, err = run("bench", "serve", "--port", self.server.port, "--users", 2, "--requests", 4, "--prompt-tokens", 100000)
        self.assertEqual(code, 1, err)
        self.assertRegex(out.decode(), r"\n +2 +0 +4 .*\n +the first that failed: 400 This model's maximum context length")
        code, _, err = run("bench", "serve", "--port", self.server.port, "--prompt-tokens", 10, "--shared-tokens", 10)
        self.assertEqual(code, 2)
        self.assertIn("--shared-tokens", err)


class Misbehaviour(unittest.TestCase):
    def test_an_answer_does_not_steer_the_terminal(self):
        with fake(lambda h: h.events(delta(reasoning_content="hm"), delta(content="a\x1b[2Jb\x07\x9bc\u00e9\n\td"), b"[DONE]")) as url:
            self.assertEqual(run("chat", "--url", url, "Hi"), (0, "hm\n\na\\x1b[2Jb\\x07\\xc2\\x9bc\u00e9\n\td\n".encode(), ""))

    def test_a_server_that_leaves(self):
        with fake(lambda h: h.events(delta(content="Half an"))) as url:
            code, out, err = run("chat", "--url", url, "Hi")
            self.assertEqual((code, out), (1, b"Half an\n"))
            self.assertIn("left in the middle of the answer", err)

    def test_an_error_in_the_stream(self):
        with fake(lambda h: h.events(delta(content="Half"), {"error": {"message": "out of luck"}}, b"[DONE]")) as url:
            code, _, err = run("chat", "--url", url, "Hi")
            self.assertEqual(code, 1)
            self.assertIn("broke the answer off: out of luck", err)

    def test_no_json(self):
        with fake(lambda h: h.events(b"<html>")) as url:
            code, _, err = run("chat", "--url", url, "Hi")
            self.assertEqual((code, err.count("\n")), (1, 1))
            self.assertIn("no JSON object: <html>", err)

    def test_ctrl_c_ends_an_answer_and_the_conversation_goes_on(self):
        asked = []

        def answer(h):
            asked.append(h.body["messages"])
            h.events(delta(content="word"))
            for _ in range(100 if len(asked) == 1 else 0):
                time.sleep(0.1)
                try:
                    h.wfile.write(b": still here\n\n")
                except OSError:
                    return
            h.events(b"[DONE]")

        with fake(answer) as url:
            t = Terminal("chat", "--url", url, "--system", "Be brief.")
            t.until(">>> ")
            t.type("One\n")
            t.until("word")
            t.type("\x03")
            t.until(">>> ")
            t.type("Two\\\nmore\n")
            t.until(r"word\r\n>>> ")
            t.type("\x03")
            self.assertEqual(t.end(), 130)
        say = [(m["role"], m["content"]) for m in asked[1]]
        self.assertEqual(say, [("system", "Be brief."), ("user", "One"), ("assistant", "word"), ("user", "Two\nmore")])

    def test_bench_counts_what_fails(self):
        seen = []

        def answer(h):
            seen.append(h.body)
            if not h.body.get("stream"):
                body = b'{"usage":{"prompt_tokens":512}}'
                h.send_response(200)
                h.send_header("Content-Length", str(len(body)))
                h.end_headers()
                h.wfile.write(body)
            elif len(seen) % 2:
                h.events({"choices": [{"text": "a"}]}, {"choices": [{"text": "b"}], "usage": {"prompt_tokens": 9, "completion_tokens": 2}}, b"[DONE]")
            else:
                h.events({"choices": [{"text": "a"}]})

        with fake(answer) as url:
            code, out, err = run("bench", "serve", "--url", url, "--users", 1, "--requests", 6, "--json")
            j = json.loads(out)[0]
            self.assertEqual((code, j["answered"], j["failed"], j["completion_tokens"]), (1, 3, 3, 6), err)
            self.assertIn("left in the middle", j["first_failure"])
        prompts = [b["prompt"] for b in seen]
        self.assertEqual(len(set(prompts)), len(prompts))

    def test_ctrl_c_ends_a_benchmark(self):
        begun = threading.Event()

        def answer(h):
            if not h.body.get("stream"):
                h.events()  # no JSON: refused
                return
            begun.set()
            time.sleep(5)

        with fake(answer) as url:
            p = subprocess.Popen([BIN, "bench", "serve", "--url", url], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            _, err = p.communicate(timeout=20)
            self.assertEqual(p.returncode, 1)
            self.assertIn(b"not as tessera does", err)

        def slow(h):
            if h.body.get("stream"):
                begun.set()
                time.sleep(5)
                return
            body = b'{"usage":{"prompt_tokens":512}}'
            h.send_response(200)
            h.send_header("Content-Length", str(len(body)))
            h.end_headers()
            h.wfile.write(body)

        with fake(slow) as url:
            p = subprocess.Popen([BIN, "bench", "serve", "--url", url], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            self.assertTrue(begun.wait(20))
            p.send_signal(signal.SIGINT)
            out, err = p.communicate(timeout=20)
            self.assertEqual(p.returncode, 130, err)
            self.assertRegex(out.decode(), r"\n +1 +0 +0 ")


if __name__ == "__main__":
    unittest.main()
