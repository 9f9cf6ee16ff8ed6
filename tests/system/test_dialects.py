"""Anthropic's and Ollama's own Python clients against the gateway, as their users write them: test_dialects.py anthropic|ollama."""
import json
import sys
import unittest

from cluster import Server

WHICH = sys.argv.pop(1) if len(sys.argv) > 1 else ""
ASK = [{"role": "user", "content": "What is the capital of Spain?"}]
WEATHER = [{"role": "user", "content": "What is the weather in Rome?"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
DESCRIPTION = "Get the current weather of a city"


class WithServer(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.s = Server("--tp", 2, "--threads", 1)
        cls.url = f"http://127.0.0.1:{cls.s.port}"
        cls.model = json.loads(cls.s.get("/v1/models")[1])["data"][0]["id"]

    @classmethod
    def tearDownClass(cls):
        assert cls.s.stop() == 0, cls.s.text()


class Anthropic(WithServer):
    tools = [{"name": "get_weather", "description": DESCRIPTION, "input_schema": SCHEMA}]

    def setUp(self):
        import anthropic
        self.anthropic = anthropic
        self.c = anthropic.Anthropic(base_url=self.url, api_key="none", max_retries=0)
        self.addCleanup(self.c.close)

    def test_a_message(self):
        m = self.c.messages.create(model=self.model, max_tokens=40, temperature=0, messages=ASK)
        self.assertIn("Madrid", m.content[0].text)
        self.assertEqual((m.type, m.role, m.stop_reason), ("message", "assistant", "end_turn"))
        self.assertGreater(m.usage.output_tokens, 0)

    def test_a_stream(self):
        with self.c.messages.stream(model=self.model, max_tokens=40, temperature=0, messages=ASK) as stream:
            text = "".join(stream.text_stream)
            final = stream.get_final_message()
        whole = self.c.messages.create(model=self.model, max_tokens=40, temperature=0, messages=ASK)
        self.assertEqual(text, whole.content[0].text)
        self.assertEqual(final.stop_reason, "end_turn")
        self.assertEqual(final.usage.output_tokens, whole.usage.output_tokens)

    def test_a_tool_is_used_and_answered(self):
        for streamed in (False, True):
            how = dict(model=self.model, max_tokens=60, temperature=0, messages=WEATHER, tools=self.tools)
            if streamed:
                with self.c.messages.stream(**how) as stream:
                    m = stream.get_final_message()
            else:
                m = self.c.messages.create(**how)
            self.assertEqual(m.stop_reason, "tool_use")
            use = [b for b in m.content if b.type == "tool_use"][0]
            self.assertEqual((use.name, use.input), ("get_weather", {"city": "Rome"}))
        result = {"type": "tool_result", "tool_use_id": use.id, "content": '{"temperature": 21, "sky": "sunny"}'}
        m = self.c.messages.create(model=self.model, max_tokens=60, temperature=0, tools=self.tools,
                                   messages=WEATHER + [{"role": "assistant", "content": m.content}, {"role": "user", "content": [result]}])
        self.assertIn("sunny", m.content[0].text)

    def test_counting(self):
        n = self.c.messages.count_tokens(model=self.model, messages=ASK).input_tokens
        m = self.c.messages.create(model=self.model, max_tokens=1, messages=ASK)
        self.assertEqual(n, m.usage.input_tokens + m.usage.cache_read_input_tokens)

    def test_errors(self):
        with self.assertRaises(self.anthropic.NotFoundError):
            self.c.messages.create(model="nobody", max_tokens=1, messages=ASK)
        with self.assertRaises(self.anthropic.BadRequestError) as e:
            self.c.messages.create(model=self.model, max_tokens=1, messages=ASK, temperature=-1)
        self.assertEqual(e.exception.body["error"]["type"], "invalid_request_error")


class Ollama(WithServer):
    tools = [{"type": "function", "function": {"name": "get_weather", "description": DESCRIPTION, "parameters": SCHEMA}}]
    greedy = {"temperature": 0, "num_predict": 60}

    def setUp(self):
        import ollama
        self.ollama = ollama
        self.c = ollama.Client(host=self.url)

    def test_chat(self):
        whole = self.c.chat(self.model, ASK, options=self.greedy)
        self.assertIn("Madrid", whole.message.content)
        self.assertTrue(whole.done)
        parts = list(self.c.chat(self.model, ASK, options=self.greedy, stream=True))
        self.assertEqual("".join(p.message.content for p in parts), whole.message.content)
        self.assertEqual([p.done for p in parts], [False] * (len(parts) - 1) + [True])
        self.assertEqual(parts[-1].eval_count, whole.eval_count)

    def test_generate(self):
        r = self.c.generate(self.model + ":latest", "What is the capital of Spain?", options=self.greedy)
        self.assertIn("Madrid", r.response)
        self.assertEqual(r.done_reason, "stop")
        raw = self.c.generate(self.model, "Once upon a time", raw=True, options={"num_predict": 3, "temperature": 0})
        self.assertEqual((raw.done_reason, raw.eval_count), ("length", 3))

    def test_a_tool_is_used_and_answered(self):
        for streamed in (False, True):
            r = self.c.chat(self.model, WEATHER, tools=self.tools, options=self.greedy, stream=streamed)
            message = [p for p in r if p.message.tool_calls][0].message if streamed else r.message
            call = message.tool_calls[0].function
            self.assertEqual((call.name, dict(call.arguments)), ("get_weather", {"city": "Rome"}))
        r = self.c.chat(self.model, [*WEATHER, message, {"role": "tool", "content": '{"temperature": 21, "sky": "sunny"}', "tool_name": "get_weather"}],
                        tools=self.tools, options=self.greedy)
        self.assertIn("sunny", r.message.content)

    def test_embeddings(self):
        texts = ["What is the capital of Spain?", "Once upon a time"]
        r = self.c.embed(self.model, texts)
        self.assertEqual(len(r.embeddings), 2)
        self.assertGreater(r.prompt_eval_count, 5)
        self.assertAlmostEqual(sum(x * x for x in r.embeddings[0]), 1, 5)
        old = self.c.embeddings(self.model, texts[1]).embedding
        scale = sum(x * x for x in old) ** 0.5
        for a, b in zip(old, r.embeddings[1]):
            self.assertAlmostEqual(a / scale, b, 5)

    def test_format_is_kept(self):
        r = self.c.chat(self.model, ASK, format=SCHEMA, options=self.greedy)
        self.assertIsInstance(json.loads(r.message.content)["city"], str)

    def test_a_model_is_loaded_ahead(self):
        for path in ("/api/generate", "/api/chat"):
            status, raw, _ = self.s.request("POST", path, {"model": self.model + ":latest"})
            self.assertEqual((status, json.loads(raw)["done_reason"]), (200, "load"))
        self.assertEqual(self.c.generate(self.model, "").done_reason, "load")
        self.assertEqual(self.s.request("HEAD", "/")[0], 200)

    def test_models(self):
        self.assertEqual([m.model for m in self.c.list().models], [self.model])
        self.assertEqual(self.c.list().models[0].details.quantization_level, "Q8_0")
        self.assertEqual(self.c.ps().models[0].model, self.model)
        shown = self.c.show(self.model)
        self.assertIn("tools", shown.capabilities)
        self.assertEqual(shown.modelinfo["general.architecture"], "llama")
        self.assertIn("<tool_call>", shown.template)

    def test_errors(self):
        with self.assertRaises(self.ollama.ResponseError) as e:
            self.c.chat("nobody", ASK)
        self.assertEqual(e.exception.status_code, 404)


if __name__ == "__main__":
    unittest.main(verbosity=2, defaultTest={"anthropic": "Anthropic", "ollama": "Ollama"}.get(WHICH))
