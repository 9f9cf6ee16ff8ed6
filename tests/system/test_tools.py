"""Tool calls through the whole system: with tool_choice "required" every answer is calls whose arguments are of the schemas offered,
whatever the model says. The prompts are those of the Berkeley Function-Calling Leaderboard, where the shared data is there.

TESSERA_BFCL=N takes every N-th prompt (default 12; 1: all)."""
import concurrent.futures
import json
import os
import sys
import unittest

from cluster import Server

SHARED = os.environ.get("TESSERA_SHARED", "../shared")
BFCL = os.path.join(SHARED, "data/prompts/bfcl")
EVERY = int(os.environ.get("TESSERA_BFCL", "12"))
# The data set names Python's types.
TYPES = {"dict": "object", "float": "number", "tuple": "array", "list": "array"}
WEATHER = {"type": "function", "function": {"name": "get_weather", "description": "The weather", "parameters": {
    "type": "object", "properties": {"city": {"type": "string", "maxLength": 12}, "unit": {"enum": ["C", "F"]},
                                     "days": {"type": "integer", "minimum": 1, "maximum": 7}},
    "required": ["city", "unit"], "additionalProperties": False}}}
ADD = {"type": "function", "function": {"name": "add", "parameters": {
    "type": "object", "properties": {"a": {"type": "number"}, "b": {"type": "number"}}, "required": ["a", "b"], "additionalProperties": False}}}
ASK = [{"role": "user", "content": "What is the weather in Madrid?"}]


def to_schema(node):
    if isinstance(node, list):
        return [to_schema(x) for x in node]
    if not isinstance(node, dict):
        return node
    out = {}
    for key, value in node.items():
        if key == "properties":
            out[key] = {name: to_schema(s) for name, s in value.items()}
        elif key == "type" and isinstance(value, str):
            if value != "any":
                out[key] = TYPES.get(value, value)
        elif key in ("enum", "default", "required", "description"):
            out[key] = value
        else:
            out[key] = to_schema(value)
    return out


def prompts():
    for name in ("BFCL_v4_simple_python.json", "BFCL_v4_parallel.json"):
        with open(os.path.join(BFCL, name)) as f:
            for i, line in enumerate(f):
                if i % EVERY == 0:
                    p = json.loads(line)
                    tools = [{"type": "function", "function": {"name": f["name"], "description": f["description"], "parameters": to_schema(f["parameters"])}}
                             for f in p["function"]]
                    yield p["id"], p["question"][0], tools


def calls_of(message):
    return [(c["function"]["name"], json.loads(c["function"]["arguments"])) for c in message["tool_calls"]]


def strings_of(stream):
    """The calls of a stream: (name, arguments text) by index."""
    calls = {}
    for e in stream:
        for c in (e["choices"] if e != "[DONE]" else []):
            for d in c["delta"].get("tool_calls", []):
                call = calls.setdefault(d["index"], ["", ""])
                call[0] += d["function"].get("name", "")
                call[1] += d["function"]["arguments"]
    return [tuple(c) for _, c in sorted(calls.items())]


class Tools(unittest.TestCase):
    def check(self, message, tools, validator):
        known = {t["function"]["name"]: t["function"]["parameters"] for t in tools}
        calls = calls_of(message)
        self.assertTrue(calls)
        self.assertIsNone(message["content"])
        for name, arguments in calls:
            self.assertIn(name, known)
            validator(known[name]).validate(arguments)
        return calls

    def test_required_whatever_the_cut_streamed_or_not(self):
        from jsonschema import Draft202012Validator
        seen = []
        for cut in (("--tp", 1), ("--tp", 2), ("--tp", 2, "--pp", 2)):
            with Server(*cut, "--threads", 1) as s:
                body = {"messages": ASK, "tools": [WEATHER, ADD], "tool_choice": "required", "seed": 3, "max_tokens": 120}
                status, r = s.post("/v1/chat/completions", {**body, "n": 3, "temperature": 1, "logprobs": True})
                self.assertEqual(status, 200, r)
                for c in r["choices"]:
                    self.check(c["message"], body["tools"], Draft202012Validator)
                    self.assertEqual(c["finish_reason"], "tool_calls")
                got = [c["message"]["tool_calls"] for c in r["choices"]]
                streamed = strings_of(s.stream("/v1/chat/completions", {**body, "temperature": 1}))
                self.assertEqual(streamed, [(c["function"]["name"], c["function"]["arguments"]) for c in got[0]])
                seen.append([[c["function"] for c in calls] for calls in got])
        self.assertEqual(seen[0], seen[1])
        self.assertEqual(seen[0], seen[2])

    def test_named_single_and_tight(self):
        from jsonschema import Draft202012Validator
        with Server("--tp", 1, "--threads", 1) as s:
            body = {"messages": ASK, "tools": [WEATHER, ADD], "temperature": 1.3}
            for seed in range(4):
                for choice in ("add", "get_weather"):
                    status, r = s.post("/v1/chat/completions",
                                       {**body, "seed": seed, "max_tokens": 100, "tool_choice": {"type": "function", "function": {"name": choice}}})
                    self.assertEqual(status, 200, r)
                    self.assertEqual([n for n, _ in self.check(r["choices"][0]["message"], body["tools"], Draft202012Validator)], [choice])
                status, r = s.post("/v1/chat/completions", {**body, "seed": seed, "max_tokens": 150, "tool_choice": "required", "parallel_tool_calls": False})
                self.assertEqual(len(self.check(r["choices"][0]["message"], body["tools"], Draft202012Validator)), 1)
            # the smallest budget that is taken is enough, and one token less is refused
            status, r = s.post("/v1/chat/completions", {**body, "max_tokens": 1, "tool_choice": "required"})
            self.assertEqual((status, r["error"]["param"]), (400, "max_tokens"), r)
            least = int(r["error"]["message"].split("takes ")[1].split()[0])
            self.assertGreater(least, 5)
            for budget in range(least, least + 4):
                for seed in range(4):
                    status, r = s.post("/v1/chat/completions", {**body, "seed": seed, "max_tokens": budget, "tool_choice": "required"})
                    self.assertEqual(status, 200, r)
                    self.check(r["choices"][0]["message"], body["tools"], Draft202012Validator)
            status, r = s.post("/v1/chat/completions", {**body, "max_tokens": least - 1, "tool_choice": "required"})
            self.assertEqual(status, 400)
            status, r = s.post("/v1/messages", {"messages": ASK, "max_tokens": 120, "temperature": 1, "tool_choice": {"type": "any"}, "tools": [
                {"name": "add", "input_schema": ADD["function"]["parameters"]}]})
            self.assertEqual((status, r["stop_reason"], r["content"][0]["type"]), (200, "tool_use", "tool_use"), r)
            Draft202012Validator(ADD["function"]["parameters"]).validate(r["content"][0]["input"])
            status, r = s.post("/v1/responses", {"input": "Add 1 and 2", "max_output_tokens": 120, "tool_choice": "required", "tools": [
                {"type": "function", "name": "add", "parameters": ADD["function"]["parameters"]}]})
            self.assertEqual((status, r["output"][0]["type"]), (200, "function_call"), r)

    def test_bfcl_answers_are_of_the_schemas_offered(self):
        if not os.path.isdir(BFCL):
            self.skipTest(f"{BFCL} is not there")
        from jsonschema import Draft202012Validator
        counts = {"asked": 0, "calls": 0, "refused": 0, "too long": 0}
        with Server("--tp", 1, "--threads", 2) as s:
            def one(p):
                name, messages, tools = p
                body = {"messages": messages, "tools": tools, "tool_choice": "required", "temperature": 0.8, "seed": 1, "max_tokens": 200}
                status, r = s.post("/v1/chat/completions", body, timeout=120)
                return name, tools, status, r
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                for name, tools, status, r in pool.map(one, prompts()):
                    with self.subTest(name):
                        counts["asked"] += 1
                        if status == 400 and r["error"]["param"] in ("input_tokens", "max_tokens"):
                            counts["too long"] += 1  # for the demo model's context
                            continue
                        self.assertEqual(status, 200, r)
                        counts["calls"] += len(self.check(r["choices"][0]["message"], tools, Draft202012Validator))
                        self.assertEqual(r["choices"][0]["finish_reason"], "tool_calls")
        print("bfcl:", counts, file=sys.stderr)
        self.assertGreater(counts["asked"] - counts["too long"], counts["asked"] // 2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
