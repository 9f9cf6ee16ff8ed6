"""The official OpenAI Python client against the gateway, as its users write it."""
import json
import sys
import threading
import unittest

try:
    import openai
except ImportError:
    print("skipped: the openai package is not installed")
    sys.exit(77)

from cluster import Server

QUESTION = [{"role": "user", "content": "What is the capital of Spain?"}]


class OpenAI(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.s = Server("--tp", 2, "--threads", 1)
        cls.c = openai.OpenAI(base_url=f"http://127.0.0.1:{cls.s.port}/v1", api_key="none", max_retries=0)
        cls.model = cls.c.models.list().data[0].id

    @classmethod
    def tearDownClass(cls):
        cls.c.close()
        assert cls.s.stop() == 0, cls.s.text()

    def test_chat(self):
        r = self.c.chat.completions.create(model=self.model, messages=QUESTION, temperature=0, max_completion_tokens=40)
        self.assertIn("Madrid", r.choices[0].message.content)
        self.assertEqual(r.choices[0].finish_reason, "stop")
        self.assertEqual(r.usage.total_tokens, r.usage.prompt_tokens + r.usage.completion_tokens)

    def test_a_tool_is_called_and_answered(self):
        tools = [{"type": "function", "function": {"name": "get_weather", "description": "Get the current weather of a city", "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]
        ask = [{"role": "user", "content": "What is the weather in Rome?"}]
        how = dict(model=self.model, temperature=0, max_tokens=60, tools=tools)
        r = self.c.chat.completions.create(messages=ask, **how)
        call = r.choices[0].message.tool_calls[0]
        self.assertEqual(r.choices[0].finish_reason, "tool_calls")
        self.assertIsNone(r.choices[0].message.content)
        self.assertEqual((call.function.name, json.loads(call.function.arguments)), ("get_weather", {"city": "Rome"}))
        with self.c.chat.completions.stream(messages=ask, **how) as stream:
            for _ in stream:
                pass
            m = stream.get_final_completion().choices[0].message
        self.assertEqual(m.tool_calls[0].function.arguments, call.function.arguments)
        r = self.c.chat.completions.create(messages=[*ask, r.choices[0].message, {"role": "tool", "tool_call_id": call.id,
                                                     "content": '{"temperature": 21, "sky": "sunny"}'}], **how)
        self.assertIn("sunny", r.choices[0].message.content)
        r = self.c.chat.completions.create(messages=ask, tool_choice="none", **how)
        self.assertIsNone(r.choices[0].message.tool_calls)

    def test_responses(self):
        tools = [{"type": "function", "name": "get_weather", "description": "Get the current weather of a city", "strict": False, "parameters": {
            "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}]
        how = dict(model=self.model, temperature=0, max_output_tokens=60, store=False)
        r = self.c.responses.create(input="What is the capital of Spain?", **how)
        self.assertIn("Madrid", r.output_text)
        self.assertEqual(r.status, "completed")
        with self.c.responses.stream(input="What is the capital of Spain?", **how) as stream:
            text = "".join(e.delta for e in stream if e.type == "response.output_text.delta")
            self.assertEqual(text, r.output_text)
            self.assertEqual(stream.get_final_response().output_text, text)
        ask = [{"role": "user", "content": "What is the weather in Rome?"}]
        r = self.c.responses.create(input=ask, tools=tools, **how)
        call = r.output[0]
        self.assertEqual((call.type, call.name, json.loads(call.arguments)), ("function_call", "get_weather", {"city": "Rome"}))
        r = self.c.responses.create(input=[*ask, call, {"type": "function_call_output", "call_id": call.call_id,
                                                        "output": '{"temperature": 21, "sky": "sunny"}'}], tools=tools, **how)
        self.assertIn("sunny", r.output_text)

    def test_logprobs_of_a_response(self):
        how = dict(model=self.model, input="What is the capital of Spain?", temperature=0, max_output_tokens=60,
                   include=["message.output_text.logprobs"], top_logprobs=2)
        r = self.c.responses.create(**how)
        part = r.output[0].content[0]
        self.assertEqual("".join(t.token for t in part.logprobs), part.text)
        self.assertEqual([t.logprob for t in part.logprobs], [t.top_logprobs[0].logprob for t in part.logprobs])
        events = list(self.c.responses.create(stream=True, **how))  # .stream() does not know of them yet
        deltas = [t for e in events if e.type == "response.output_text.delta" for t in e.logprobs]
        self.assertEqual([(t.token, t.logprob) for t in deltas], [(t.token, t.logprob) for t in part.logprobs])
        self.assertEqual(events[-1].response.output[0].content[0].logprobs, part.logprobs)

    def test_parse_gives_an_object(self):
        from pydantic import BaseModel

        class Capital(BaseModel):
            city: str
            population: int
            known_for: list[str]

        r = self.c.chat.completions.parse(model=self.model, messages=QUESTION, temperature=0, max_tokens=120, response_format=Capital)
        got = r.choices[0].message.parsed
        self.assertIsInstance(got, Capital)
        self.assertEqual(Capital.model_validate_json(r.choices[0].message.content), got)
        r = self.c.responses.parse(model=self.model, input="What is the capital of Spain?", temperature=0, max_output_tokens=120, text_format=Capital)
        self.assertIsInstance(r.output_parsed, Capital)

        class GetWeather(BaseModel):
            city: str

        r = self.c.chat.completions.parse(model=self.model, temperature=0, max_tokens=60, tools=[openai.pydantic_function_tool(GetWeather)],
                                          tool_choice="required", messages=[{"role": "user", "content": "What is the weather in Rome?"}])
        call = r.choices[0].message.tool_calls[0].function
        self.assertIsInstance(call.parsed_arguments, GetWeather)

    def test_embeddings(self):
        texts = ["What is the capital of Spain?", "Once upon a time"]
        r = self.c.embeddings.create(model=self.model, input=texts)  # the client asks for base64 and gives floats
        self.assertEqual([d.index for d in r.data], [0, 1])
        self.assertGreater(r.usage.prompt_tokens, 5)
        plain = self.c.embeddings.create(model=self.model, input=texts[1], encoding_format="float")
        self.assertEqual(len(plain.data[0].embedding), len(r.data[1].embedding))
        for a, b in zip(plain.data[0].embedding, r.data[1].embedding):
            self.assertAlmostEqual(a, b, 7)
        self.assertAlmostEqual(sum(x * x for x in r.data[0].embedding), 1, 5)
        self.assertEqual(len(self.c.embeddings.create(model=self.model, input=[[1, 2], [3]], dimensions=5).data[1].embedding), 5)
        with self.assertRaises(openai.BadRequestError) as e:
            self.c.embeddings.create(model=self.model, input="")
        self.assertEqual(e.exception.param, "input")

    def test_a_raw_answer_names_the_request(self):
        r = self.c.chat.completions.with_raw_response.create(model=self.model, messages=QUESTION, max_tokens=1, extra_headers={"X-Request-Id": "mine-1"})
        self.assertEqual(r.headers["x-request-id"], "mine-1")
        self.assertEqual(r.parse().id, "chatcmpl-mine-1")

    def test_sixteen_streams_at_once(self):
        whole = self.c.chat.completions.create(model=self.model, messages=QUESTION, temperature=0.7, seed=11, max_tokens=40).choices[0].message.content
        got = []

        def one():
            stream = self.c.chat.completions.create(model=self.model, messages=QUESTION, temperature=0.7, seed=11, max_tokens=40, stream=True,
                                                    stream_options={"include_usage": True})
            chunks = list(stream)
            assert chunks[0].choices[0].delta.role == "assistant"
            assert chunks[-1].usage.completion_tokens > 0 and not chunks[-1].choices
            got.append("".join(c.choices[0].delta.content or "" for c in chunks if c.choices))

        threads = [threading.Thread(target=one) for _ in range(16)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(got, [whole] * 16)

    def test_completions_n_stop_logprobs(self):
        r = self.c.completions.create(model=self.model, prompt="Once upon a time", max_tokens=12, n=3, seed=1, logprobs=2, temperature=4)
        self.assertEqual([c.index for c in r.choices], [0, 1, 2])
        self.assertGreater(len({c.text for c in r.choices}), 1)
        lp = r.choices[0].logprobs
        self.assertEqual(len(lp.tokens), len(lp.token_logprobs))
        self.assertTrue(all(v <= 0 for v in lp.token_logprobs))
        again = self.c.completions.create(model=self.model, prompt="Once upon a time", max_tokens=12, n=3, seed=1, logprobs=2, temperature=4)
        self.assertEqual([c.text for c in again.choices], [c.text for c in r.choices])
        full = self.c.completions.create(model=self.model, prompt="Once upon a time", max_tokens=40, temperature=0, extra_body={"ignore_eos": True})
        text = full.choices[0].text
        stop = text[8:11]
        cut = self.c.completions.create(model=self.model, prompt="Once upon a time", max_tokens=40, temperature=0, stop=[stop], extra_body={"ignore_eos": True})
        self.assertEqual(cut.choices[0].text, text[:text.index(stop)])
        self.assertEqual(cut.choices[0].finish_reason, "stop")

    def test_chat_logprobs(self):
        r = self.c.chat.completions.create(model=self.model, messages=QUESTION, temperature=0, logprobs=True, top_logprobs=3, max_tokens=5)
        content = r.choices[0].logprobs.content
        self.assertEqual("".join(bytes(t.bytes).decode() for t in content), r.choices[0].message.content)
        for t in content:
            self.assertEqual(len(t.top_logprobs), 3)
            self.assertEqual(t.logprob, t.top_logprobs[0].logprob)

    def test_errors_are_the_clients_own_exceptions(self):
        with self.assertRaises(openai.NotFoundError):
            self.c.chat.completions.create(model="no-such-model", messages=QUESTION)
        with self.assertRaises(openai.BadRequestError) as e:
            self.c.chat.completions.create(model=self.model, messages=QUESTION, temperature=-1)
        self.assertEqual(e.exception.param, "temperature")
        with self.assertRaises(openai.BadRequestError) as e:
            self.c.completions.create(model=self.model, prompt="word " * 5000)
        self.assertIn("maximum context length", str(e.exception))


if __name__ == "__main__":
    unittest.main(verbosity=2)
