"""The cluster as its users meet it: real processes, real HTTP."""
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import unittest

from cluster import BIN, DEMO, Server, alive, children, cpu_ticks, free_port, mpi_env, run, started

ASK = {"messages": [{"role": "user", "content": "What is the capital of France?"}], "temperature": 0, "max_tokens": 40}
STORY = {"prompt": "<|im_start|>user\nTell me the story of the lighthouse.<|im_end|>\n<|im_start|>assistant\n", "temperature": 0,
         "max_tokens": 200, "ignore_eos": True}


def text_of(events):
    out = ""
    for e in events:
        if e != "[DONE]" and e.get("choices"):
            c = e["choices"][0]
            out += c.get("text") or (c.get("delta") or {}).get("content") or ""
    return out


class Serving(unittest.TestCase):
    """One server with two ranks for the tests that leave it whole."""

    @classmethod
    def setUpClass(cls):
        cls.s = Server("--tp", 2, "--threads", 1, "--served-model-name", "demo, gpt-4o")

    @classmethod
    def tearDownClass(cls):
        assert cls.s.stop() == 0, cls.s.text()

    def test_it_answers_right(self):
        status, body = self.s.post("/v1/chat/completions", ASK)
        self.assertEqual(status, 200, body)
        self.assertIn("Paris", body["choices"][0]["message"]["content"])
        self.assertEqual(body["choices"][0]["finish_reason"], "stop")

    def test_a_model_has_every_name_it_was_given(self):
        self.assertEqual([m["id"] for m in json.loads(self.s.get("/v1/models")[1])["data"]], ["demo", "gpt-4o"])
        status, body = self.s.post("/v1/chat/completions", {**ASK, "model": "gpt-4o"})
        self.assertEqual((status, body["model"]), (200, "demo"))
        self.assertEqual(self.s.post("/v1/chat/completions", {**ASK, "model": "gpt-4"})[0], 404)
        code, _, err = run("serve", DEMO, "--port", 0, "--served-model-name", "a,,b")
        self.assertEqual(code, 2)
        self.assertIn("'a,,b' is no list of up to 16 names", err)

    def test_a_stream_says_what_the_document_says(self):
        whole = self.s.post("/v1/completions", STORY)[1]["choices"][0]["text"]
        events = list(self.s.stream("/v1/completions", {**STORY, "stream_options": {"include_usage": True}}))
        self.assertEqual(text_of(events), whole)
        self.assertEqual(events[-1], "[DONE]")
        self.assertEqual(events[-2]["usage"]["completion_tokens"], 200)

    def test_many_at_once_get_what_each_gets_alone(self):
        prompts = [f"What is {i} + {i + 2}?" for i in range(16)]
        body = lambda p: {"messages": [{"role": "user", "content": p}], "seed": 5, "max_tokens": 24, "logprobs": True, "top_logprobs": 2}
        alone = [self.s.post("/v1/chat/completions", body(p))[1]["choices"] for p in prompts]
        got = [None] * len(prompts)

        def ask(i):
            got[i] = self.s.post("/v1/chat/completions", body(prompts[i]))[1]["choices"]

        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(prompts))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        for a, g in zip(alone, got):
            self.assertEqual(json.dumps(a), json.dumps(g))  # texts and every digit of the logprobs

    def test_a_second_time_hits_the_prefix_cache_with_the_same_bits(self):
        prompt = "<|im_start|>user\n" + "one two three four five " * 12 + "<|im_end|>\n<|im_start|>assistant\n"
        body = {"prompt": prompt, "max_tokens": 8, "temperature": 0, "logprobs": 3}
        first, second = self.s.post("/v1/completions", body)[1], self.s.post("/v1/completions", body)[1]
        self.assertEqual(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0)
        self.assertGreater(second["usage"]["prompt_tokens_details"]["cached_tokens"], 15)
        self.assertEqual(json.dumps(first["choices"]), json.dumps(second["choices"]))

    def test_metrics_have_vllm_names_and_count(self):
        self.s.post("/v1/chat/completions", ASK)
        text = self.s.get("/metrics")[1].decode()
        self.assertIn("tessera:rank_comm_bytes_total", text)
        kinds = dict(l.split()[2:4] for l in text.splitlines() if l.startswith("# TYPE "))
        self.assertEqual(len(kinds), sum(l.startswith("# TYPE ") for l in text.splitlines()))  # none twice
        theirs = {
            "gauge": "num_requests_running num_requests_waiting num_requests_waiting_by_reason kv_cache_usage_perc engine_sleep_state "
                     "cache_config_info engine_healthy",
            "counter": "prefix_cache_queries_total prefix_cache_hits_total num_preemptions_total prompt_tokens_total prompt_tokens_by_source_total "
                       "prompt_tokens_cached_total prompt_tokens_recomputed_total generation_tokens_total request_success_total "
                       "spec_decode_num_drafts_total spec_decode_num_draft_tokens_total spec_decode_num_accepted_tokens_total",
            "histogram": "request_prompt_tokens request_generation_tokens request_max_num_generation_tokens request_params_max_tokens "
                         "request_prefill_kv_computed_tokens request_params_n iteration_tokens_total time_to_first_token_seconds "
                         "inter_token_latency_seconds request_time_per_output_token_seconds e2e_request_latency_seconds request_queue_time_seconds "
                         "request_inference_time_seconds request_prefill_time_seconds request_decode_time_seconds request_num_preemptions",
        }
        want = {"vllm:" + name: kind for kind, names in theirs.items() for name in names.split()}
        self.assertEqual({k: v for k, v in kinds.items() if k.startswith("vllm:")}, want)
        http = {"http_requests_total": "counter", "http_request_duration_seconds": "histogram", "http_request_size_bytes": "summary",
                "http_response_size_bytes": "summary"}
        self.assertEqual({k: v for k, v in kinds.items() if k.startswith("http_")}, http)
        self.assertRegex(text, r'vllm:cache_config_info\{model_name="[^"]+",engine="0",block_size="16",cache_dtype="f16",'
                               r'enable_prefix_caching="True",num_gpu_blocks="[1-9][0-9]*",kv_cache_size_tokens="[1-9][0-9]*"\} 1\n')
        self.assertRegex(text, r'http_requests_total\{handler="/v1/chat/completions",method="POST",status="2xx"\} [1-9]')
        self.assertIn('vllm:engine_healthy{model_name="demo",engine="0"} 1\n', text)
        sent = [float(l.split()[-1]) for l in text.splitlines() if l.startswith("tessera:rank_comm_bytes_total{")]
        weights = [float(l.split()[-1]) for l in text.splitlines() if l.startswith("tessera:rank_weight_bytes{")]
        self.assertEqual(len(sent), 2)
        self.assertLess(max(weights), 0.6 * sum(weights))

    def test_every_metric_of_the_dashboard_is_there(self):
        self.s.post("/v1/chat/completions", ASK)
        there = {re.match(r"[\w:]+", l).group() for l in self.s.get("/metrics")[1].decode().splitlines() if l and not l.startswith("#")}
        with open("deploy/grafana/tessera.json") as f:
            asked = {name for p in json.load(f)["panels"] for t in p.get("targets", ()) for name in re.findall(r"(?:vllm:|tessera:|http_)\w+", t["expr"])}
        self.assertGreater(len(asked), 20)
        self.assertEqual(asked - there, set())

    def test_a_client_that_leaves_frees_its_place(self):
        c = socket.create_connection(("127.0.0.1", self.s.port))
        body = json.dumps({**STORY, "max_tokens": 900, "stream": True}).encode()
        c.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        c.recv(2000)
        c.close()
        end = time.monotonic() + 10
        while time.monotonic() < end:
            running = [l for l in self.s.get("/metrics")[1].decode().splitlines() if l.startswith("vllm:num_requests_running{")]
            if running and float(running[0].split()[-1]) == 0:
                return
            time.sleep(0.1)
        self.fail("still running: " + str(running))

    def test_more_than_fits_is_queued_and_finished(self):
        got = []
        body = {**STORY, "max_tokens": 300}
        alone = self.s.post("/v1/completions", body)[1]["choices"][0]["text"]
        threads = [threading.Thread(target=lambda: got.append(self.s.post("/v1/completions", body)[1]["choices"][0]["text"])) for _ in range(80)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(set(got), {alone})

    def test_zz_idle_costs_nothing(self):
        self.s.post("/v1/chat/completions", ASK)
        pids = [self.s.proc.pid, *children(self.s.proc.pid)]  # mpirun too
        self.assertTrue(set(self.s.workers()) < set(pids))
        time.sleep(2)
        before = [cpu_ticks(p) for p in pids]
        time.sleep(3)
        used = [a - b for a, b in zip([cpu_ticks(p) for p in pids], before)]
        ticks = os.sysconf("SC_CLK_TCK") * 3
        self.assertTrue(all(u <= ticks * 0.01 + 1 for u in used), f"ticks used in 3 s: {used}")


class Launching(unittest.TestCase):
    def test_the_log_says_how_busy_it_is_while_it_is(self):
        with Server("--log-stats", 0.5) as s:
            lines = lambda: re.findall(r"sched: .*tok/s generated, (.*) of prompts; 0 running, 0 waiting; KV 0 % in use", s.text())
            s.post("/v1/chat/completions", ASK)
            end = time.monotonic() + 10
            while not lines() and time.monotonic() < end:
                time.sleep(0.05)
            self.assertEqual(len(lines()), 1, s.text())
            self.assertGreater(float(lines()[0]), 0)  # the first prompt, too
            time.sleep(1.2)
            self.assertEqual(len(lines()), 1, s.text())

    def test_a_host_that_starts_nothing_is_named_with_its_line(self):
        with tempfile.NamedTemporaryFile("w") as f:
            f.write("# two\nlocalhost slots=1\nno-such-host.invalid slots=1\nlocalhost slots=1\n")
            f.flush()
            code, _, err = run("serve", DEMO, "--hostfile", f.name, "--listen", "127.0.0.1:0", "--port", free_port())
        self.assertNotEqual(code, 0)
        self.assertIn("the hostfile, line 3: no process can be started on no-such-host.invalid", err)
        self.assertNotIn("the hostfile, line 2", err)
        self.assertEqual(err.count("on line 2 and again on line 4: taken as one host with 2 slots"), 1, err)  # said once, by the one who acts on it

    @unittest.skipIf(len(os.sched_getaffinity(0)) < 2 or not shutil.which("taskset"), "two processors and taskset are needed")
    def test_ranks_of_a_stage_that_share_processors_are_spread_over_them(self):
        """Ranks of a stage compute at the same time: two of them on one processor beside an idle one would take twice as long. Stages alone may move."""
        two = set(sorted(os.sched_getaffinity(0))[:2])
        for cut, spread in ((("--tp", 2, "--pp", 2), True), (("--tp", 1, "--pp", 3), False)):
            with Server(*cut, "--threads", 1, prefix=("taskset", "-c", ",".join(map(str, two)))) as s:
                at = [os.sched_getaffinity(pid) for pid in s.workers()]
            if spread:
                self.assertEqual([len(a) for a in at], [1, 1, 1, 1], at)
                self.assertEqual([at[0] | at[1], at[2] | at[3]], [two, two], at)
            else:
                self.assertEqual(at, [two, two, two])

    def test_under_mpirun(self):
        prefix = ["mpirun", "-q", "--oversubscribe", "--bind-to", "none", "-n", "2"]
        with Server("--threads", 1, prefix=prefix) as s:
            self.assertIn("Paris", s.post("/v1/chat/completions", ASK)[1]["choices"][0]["message"]["content"])
            self.assertEqual(len(s.workers()), 2)

    def test_workers_that_join_by_themselves(self):
        with tempfile.NamedTemporaryFile("w") as key:
            key.write("a key of enough length")
            key.flush()
            port = free_port()
            args = ["--launch", "external", "--ranks", 2, "--listen", f"127.0.0.1:{port}", "--cluster-key-file", key.name]
            with Server(*args, wait=False) as s:
                self.assertEqual(self.wait_status(s), 503)
                w = subprocess.Popen(["mpirun", "-q", "--oversubscribe", "--bind-to", "none", "-n", "2", BIN, "worker", "--join",
                                      f"127.0.0.1:{port}", "--cluster-key-file", key.name, "--threads", "1"], env=mpi_env())
                s.wait_ready()
                self.assertIn("Paris", s.post("/v1/chat/completions", ASK)[1]["choices"][0]["message"]["content"])
                s.proc.send_signal(signal.SIGTERM)
                s.proc.wait(20)
                self.assertEqual(w.wait(20), 0)

    def test_ranks_that_do_not_come_are_missed_aloud(self):
        port, env = free_port(), {**mpi_env(), "TESSERA_CLUSTER_KEY": "a key that is long enough"}
        with Server("--launch", "external", "--ranks", 2, "--listen", f"127.0.0.1:{port}", env=env, wait=False) as s:
            self.wait_status(s)
            rank = ["-n", "1", BIN, "worker", "--threads", "1", "--join"]
            w = subprocess.Popen(["mpirun", "-q", "--oversubscribe", "--bind-to", "none", *rank, f"127.0.0.1:{port}", ":", *rank, f"127.0.0.1:{free_port()}"],
                                 env=env, stderr=subprocess.PIPE)
            end = time.monotonic() + 12
            while "1 of 2 rank(s) have joined after" not in s.text():
                self.assertLess(time.monotonic(), end, s.text())
                time.sleep(0.1)
            self.assertIn(f"do the others reach 127.0.0.1:{port} (", s.text())
            s.proc.send_signal(signal.SIGTERM)
            s.proc.wait(20)
            self.assertNotIn(b"error worker", w.communicate(timeout=40)[1])

    def test_a_job_that_the_coordinator_ends_is_no_error_of_its_ranks(self):
        port, env = free_port(), {**mpi_env(), "TESSERA_CLUSTER_KEY": "a key that is long enough"}
        with Server("--launch", "external", "--tp", 2, "--listen", f"127.0.0.1:{port}", env=env, wait=False) as s:
            self.wait_status(s)
            w = subprocess.run([BIN, "worker", "--join", f"127.0.0.1:{port}"], capture_output=True, timeout=30, env=env)
            self.assertNotEqual(w.returncode, 0)  # whoever starts ranks again does so
            self.assertIn(f"127.0.0.1:{port} closed the connection: leaving", w.stderr.decode())
            self.assertNotIn(" error ", w.stderr.decode())

    def wait_status(self, s):
        for _ in range(200):
            try:
                return s.get("/health")[0]
            except OSError:
                time.sleep(0.05)
        return None

    def test_a_wrong_key_is_refused_with_one_sentence(self):
        port = free_port()
        env = {**mpi_env(), "TESSERA_CLUSTER_KEY": "the right key, long enough"}
        with Server("--launch", "external", "--ranks", 1, "--listen", f"127.0.0.1:{port}", env=env, wait=False) as s:
            self.wait_status(s)
            w = subprocess.run([BIN, "worker", "--join", f"127.0.0.1:{port}"], capture_output=True, timeout=30,
                               env={**mpi_env(), "TESSERA_CLUSTER_KEY": "a wrong key, also long enough"})
            self.assertNotEqual(w.returncode, 0)
            self.assertIn("cluster key", w.stderr.decode())
            self.assertEqual(s.get("/health")[0], 503)

    def test_a_file_key_that_others_can_read_is_refused(self):
        with tempfile.NamedTemporaryFile("w") as key:
            key.write("a key of enough length")
            key.flush()
            os.chmod(key.name, 0o644)
            p = subprocess.run([BIN, "worker", "--join", "127.0.0.1:1", "--cluster-key-file", key.name], capture_output=True, timeout=30, env=mpi_env())
            self.assertNotEqual(p.returncode, 0)
            self.assertIn("chmod", p.stderr.decode())


class Losing(unittest.TestCase):
    def lose(self, rank):
        with Server("--tp", 2, "--threads", 1, "--recovery-timeout", 0) as s:
            pid = s.workers()[rank]
            events = s.stream("/v1/completions", {**STORY, "max_tokens": 950})
            seen = [next(events) for _ in range(5)]
            self.assertTrue(all("choices" in e for e in seen))
            os.kill(pid, signal.SIGKILL)
            rest = list(events)
            self.assertEqual(rest[-1], "[DONE]")
            # mpirun ends the other rank within milliseconds, so either may be seen to go first
            self.assertRegex(rest[-2]["error"]["message"], r"rank [01] .*is gone")
            status, raw, _ = s.get("/health")
            self.assertEqual(status, 503)
            self.assertIn(b"rank", raw)
            status, body = s.post("/v1/chat/completions", ASK)
            self.assertEqual(status, 503)
            self.assertIn("message", body["error"])

    def test_killing_rank_0_ends_streams_and_health(self):
        self.lose(0)

    def test_killing_rank_1_ends_streams_and_health(self):
        self.lose(1)

    def recover(self, rank, sig, *args):
        """Streams of several kinds are open when a rank is lost; each goes on to the text of an undisturbed run."""
        kinds = [{**STORY, "max_tokens": 400}, {**STORY, "max_tokens": 400, "temperature": 0.9, "seed": 4, "top_p": 0.95},
                 {**STORY, "max_tokens": 300, "temperature": 1.5, "seed": 9, "logprobs": 2}, {**STORY, "max_tokens": 300, "frequency_penalty": 0.7}]
        with Server("--tp", 2, "--threads", 1, *args) as s:
            whole = [s.post("/v1/completions", k)[1]["choices"][0] for k in kinds]
            got, started = [None] * len(kinds), threading.Barrier(len(kinds) + 1)

            def follow(i):
                events = s.stream("/v1/completions", kinds[i])
                seen = [next(events) for _ in range(4)]
                started.wait()
                got[i] = seen + list(events)

            threads = [threading.Thread(target=follow, args=(i,)) for i in range(len(kinds))]
            for t in threads:
                t.start()
            started.wait()
            begin = time.monotonic()
            old = s.workers()[rank]
            os.kill(old, sig)
            for t in threads:
                t.join()
            for w, events in zip(whole, got):
                self.assertEqual(events[-1], "[DONE]")
                self.assertFalse([e for e in events if "error" in e], s.text())
                self.assertEqual(text_of(events), w["text"])
            logprobs = [p for e in got[2] if e != "[DONE]" and e["choices"] and e["choices"][0]["logprobs"] for p in e["choices"][0]["logprobs"]["token_logprobs"]]
            self.assertEqual(logprobs, whole[2]["logprobs"]["token_logprobs"])
            self.assertRegex(s.text(), r"recovered in [\d.]+ s: detected [\d.]+, relaunched [\d.]+, loaded [\d.]+, prefilled [\d.]+; 4 sequence")
            self.assertFalse(alive(old))
            self.assertEqual(s.get("/health")[0], 200)
            text = s.text()
            print(f"all streams ended {time.monotonic() - begin:.2f} s after the loss: {[l for l in s.text().splitlines() if 'recovered' in l][0]}")
            return text

    def test_streams_survive_a_killed_rank_0(self):
        self.recover(0, signal.SIGKILL)

    def test_streams_survive_a_killed_rank_1(self):
        self.recover(1, signal.SIGKILL)

    def test_streams_survive_a_stopped_rank_and_the_hang_is_named(self):
        said = self.recover(1, signal.SIGSTOP, "--stall-timeout", 2)
        self.assertRegex(said, r"rank 1 \(\S+, cpu \w+, pid \d+\) stalls: no progress past step \d+, (layer \d+|outside the layers), .*the process is stopped \(SIGSTOP\)")
        self.assertRegex(said, r"rank 0 waits for it in \w+ #\d+ \((layer \d+|outside the layers)\)")

    def test_a_stopped_rank_does_not_outlive_the_server(self):
        with Server("--tp", 2, "--threads", 1) as s:
            pid = s.workers()[0]
            os.kill(pid, signal.SIGSTOP)
        self.assertFalse(alive(pid))

    def lose_one(self, s, bodies):
        """The texts of streams in whose middle a rank is killed."""
        got, begun, pid = [None] * len(bodies), threading.Barrier(len(bodies) + 1), s.workers()[1]

        def one(i):
            events = s.stream("/v1/completions", bodies[i], timeout=90)
            first = next(events)
            begun.wait(30)
            got[i] = text_of([first, *events])

        threads = [threading.Thread(target=one, args=(i,)) for i in range(len(bodies))]
        for t in threads:
            t.start()
        begun.wait(30)
        os.kill(pid, signal.SIGKILL)
        for t in threads:
            t.join()
        return got

    def test_streams_wait_for_a_new_job_of_workers_that_join_by_themselves(self):
        port, env = free_port(), {**mpi_env(), "TESSERA_CLUSTER_KEY": "a key that is long enough"}
        kinds = [{**STORY, "max_tokens": 900}, {**STORY, "max_tokens": 900, "temperature": 0.9, "seed": 4}]
        with Server("--launch", "external", "--ranks", 2, "--listen", f"127.0.0.1:{port}", env=env, wait=False) as s:
            loop = subprocess.Popen(["deploy/restart-loop.sh", "mpirun", "-q", "--oversubscribe", "--bind-to", "none", "-n", "2", BIN, "worker", "--join",
                                     f"127.0.0.1:{port}", "--threads", "1"], env=env, stderr=subprocess.DEVNULL)
            try:
                s.wait_ready()
                whole = [s.post("/v1/completions", k)[1]["choices"][0]["text"] for k in kinds]
                got = self.lose_one(s, kinds)
                self.assertEqual(got, whole, s.text())
                self.assertIn("recovered in", s.text())
                s.proc.send_signal(signal.SIGTERM)
                self.assertEqual(s.proc.wait(20), 0)
                self.assertEqual(loop.wait(20), 0)  # they were sent home
            finally:
                loop.terminate()
                loop.wait()

    def test_streams_wait_for_a_new_job_under_mpirun(self):
        port, env = free_port(), {**mpi_env(), "TESSERA_CLUSTER_KEY": "a key that is long enough"}
        kinds = [{**STORY, "max_tokens": 900}, {**STORY, "max_tokens": 900, "temperature": 0.9, "seed": 4}]
        prefix = ["deploy/restart-loop.sh", "mpirun", "-q", "--oversubscribe", "--bind-to", "none", "-n", "2"]
        with Server("--threads", 1, "--listen", f"127.0.0.1:{port}", prefix=prefix, env=env) as s:
            whole = [s.post("/v1/completions", k)[1]["choices"][0]["text"] for k in kinds]
            got = self.lose_one(s, kinds)
            self.assertEqual(got, whole, s.text())
            self.assertIn("this job joins it", s.text())
            code, _, err = run("drain", "--port", s.port)
            self.assertEqual(code, 0, err)
            self.assertEqual(s.proc.wait(20), 0)

    def test_what_cannot_recover_ends_with_one_error(self):
        with tempfile.TemporaryDirectory() as d:
            model = os.path.join(d, "model.gguf")
            with open(DEMO, "rb") as src, open(model, "wb") as dst:
                dst.write(src.read())
            with Server("--tp", 2, "--threads", 1, "--recovery-timeout", 2, model=model) as s:
                events = s.stream("/v1/completions", {**STORY, "max_tokens": 950})
                next(events)
                os.unlink(model)
                os.kill(s.workers()[1], signal.SIGKILL)
                rest = list(events)
                self.assertEqual(rest[-1], "[DONE]")
                self.assertIn("--recovery-timeout", rest[-2]["error"]["message"])

    def test_a_replaced_model_file_is_not_mixed_in(self):
        with tempfile.TemporaryDirectory() as d:
            model = os.path.join(d, "model.gguf")
            for src in (DEMO, DEMO.replace("q8_0", "f16")):
                with open(src, "rb") as f, open(model + ".new", "wb") as out:
                    out.write(f.read())
                if src == DEMO:
                    os.rename(model + ".new", model)
            with Server("--tp", 2, "--threads", 1, "--recovery-timeout", 2, model=model) as s:
                events = s.stream("/v1/completions", {**STORY, "max_tokens": 950})
                next(events)
                os.rename(model + ".new", model)
                os.kill(s.workers()[1], signal.SIGKILL)
                rest = list(events)
                self.assertIn("error", rest[-2])
                self.assertIn("fingerprint", s.text())

    def test_attempts_come_further_and_further_apart_until_the_cause_is_gone(self):
        with tempfile.TemporaryDirectory() as d:
            model = os.path.join(d, "model.gguf")
            shutil.copy(DEMO, model)
            with Server("--tp", 2, "--threads", 1, "--recovery-timeout", 1, model=model) as s:
                before = s.post("/v1/completions", STORY)[1]["choices"]
                os.rename(model, model + ".away")
                os.kill(s.workers()[1], signal.SIGKILL)
                end = time.monotonic() + 60
                while s.text().count("are started again in") < 5 and time.monotonic() < end:
                    time.sleep(0.1)
                os.rename(model + ".away", model)
                s.wait_ready(60)
                self.assertEqual(s.post("/v1/completions", STORY)[1]["choices"], before)
                pauses = re.findall(r"^(\S+) .* its workers are started again in (\S+) s", s.text(), re.M)
            told = [float(p) for _, p in pauses]
            self.assertEqual(told[:5], [0.2, 0.4, 0.8, 1.6, 3.2])
            at = [sum(float(x) * y for x, y in zip(t.split(":"), (3600, 60, 1))) for t, _ in pauses]
            for i in range(4):  # each is kept, whatever the replica says meanwhile
                self.assertGreaterEqual((at[i + 1] - at[i]) % 86400, told[i])

    def test_it_can_be_ended_while_its_workers_cannot_come_back(self):
        for moment in (0.3, 1.5, 1.65, 1.8, 1.95, 2.1, 2.3):  # between and during attempts
            with tempfile.TemporaryDirectory() as d:
                model = os.path.join(d, "model.gguf")
                with open(DEMO, "rb") as src, open(model, "wb") as dst:
                    dst.write(src.read())
                with Server("--tp", 2, "--threads", 1, "--recovery-timeout", 1, model=model) as s:
                    os.unlink(model)
                    os.kill(s.workers()[1], signal.SIGKILL)
                    time.sleep(moment)
                    s.proc.send_signal(signal.SIGTERM)
                    s.proc.wait(30)

    def test_a_drain_that_takes_too_long_ends_streams_with_a_sentence(self):
        with Server("--tp", 2, "--threads", 1, "--drain-timeout", 0) as s:
            events = s.stream("/v1/completions", {**STORY, "max_tokens": 950})
            next(events)
            s.proc.send_signal(signal.SIGTERM)
            rest = list(events)
            self.assertEqual(rest[-1], "[DONE]")
            self.assertIn("--drain-timeout", rest[-2]["error"]["message"])

    def test_sigterm_lets_running_answers_finish(self):
        with Server("--tp", 2, "--threads", 1) as s:
            events = s.stream("/v1/completions", {**STORY, "max_tokens": 600})
            next(events)
            s.proc.send_signal(signal.SIGTERM)
            rest = list(events)
            self.assertEqual(rest[-1], "[DONE]")
            self.assertNotIn("error", rest[-2])
            self.assertEqual(s.proc.wait(30), 0)

    @unittest.skipUnless(shutil.which("openssl"), "openssl is needed")
    def test_workers_that_serve_starts_speak_tls_too(self):
        with tempfile.TemporaryDirectory() as d:
            for name in ("a", "b"):
                subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{d}/{name}.key", "-out", f"{d}/{name}.pem", "-days", "2",
                                "-subj", "/CN=here", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
            tls = [os.path.relpath(d + "/a.pem"), os.path.relpath(d + "/a.key"), os.path.relpath(d + "/a.pem")]
            with Server("--tp", 2, "--threads", 1, "--tls-cert", tls[0], "--tls-key", tls[1], "--tls-ca", tls[2]) as s:
                self.assertEqual(s.post("/v1/completions", {"prompt": "x", "max_tokens": 1})[0], 200)
            code, _, err = run("serve", DEMO, "--port", free_port(), "--tls-cert", tls[0], "--tls-key", d + "/b.key", "--tls-ca", tls[2])
            self.assertNotEqual(code, 0)
            self.assertIn("do certificate and key belong together?", err)

    def test_a_terminal_that_closes_lets_running_answers_finish(self):
        with Server("--tp", 2, "--threads", 1) as s:
            events = s.stream("/v1/completions", {**STORY, "max_tokens": 600})
            next(events)
            for _ in range(3):  # the kernel's and the shell's
                s.proc.send_signal(signal.SIGHUP)
                time.sleep(0.02)
            rest = list(events)
            self.assertEqual(rest[-1], "[DONE]")
            self.assertNotIn("error", rest[-2])
            self.assertEqual(s.proc.wait(30), 0)
        with Server("--threads", 1, prefix=["nohup"]) as s:
            s.proc.send_signal(signal.SIGHUP)
            time.sleep(0.5)
            self.assertEqual(s.get("/health")[0], 200)

    def test_ctrl_c_while_loading_leaves_nothing(self):
        for delay in (0.0, 0.1, 0.3, 0.5):
            s = Server("--tp", 2, "--threads", 1, wait=False)
            time.sleep(delay)
            s.stop(signal.SIGINT)
            s.log.close()

    def test_a_second_ctrl_c_ends_the_workers_that_have_not_joined(self):
        for delay in (0.1, 0.2, 0.3, 0.5):
            s = Server("--tp", 2, "--threads", 1, wait=False)
            until = time.time() + 30
            while not children(s.proc.pid) and time.time() < until:
                time.sleep(0.01)
            time.sleep(delay)
            job = [(p, started(p)) for p in children(s.proc.pid)]
            s.proc.send_signal(signal.SIGINT)
            time.sleep(0.002)
            s.proc.send_signal(signal.SIGINT)
            self.assertIn(s.proc.wait(timeout=30), (0, 130))
            until = time.time() + 15  # they would look for their coordinator twice as long
            while any(started(p) == at and alive(p) for p, at in job) and time.time() < until:
                time.sleep(0.05)
            self.assertEqual([p for p, at in job if started(p) == at and alive(p)], [])
            s.log.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
