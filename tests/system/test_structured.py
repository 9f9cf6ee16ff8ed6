"""Structured output through the whole system: answers are of the form that was asked for, whatever the cut, streamed or not."""
import json
import re
import tempfile
import unittest

from cluster import Server, run

ASK = [{"role": "user", "content": "What is the capital of Spain?"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}, "country": {"enum": ["Spain", "France"]},
                                           "people": {"type": "integer", "minimum": 1, "maximum": 9000000},
                                           "tags": {"type": "array", "items": {"type": "string", "pattern": "^[a-z]{2,8}$"}, "minItems": 1, "maxItems": 3}},
          "required": ["city", "country", "people", "tags"], "additionalProperties": False}
FORMAT = {"type": "json_schema", "json_schema": {"name": "capital", "strict": True, "schema": SCHEMA}}


def check(text):
    v = json.loads(text)
    assert list(v) == ["city", "country", "people", "tags"], text
    assert len(v["city"]) <= 20 and v["country"] in ("Spain", "France") and 1 <= v["people"] <= 9000000, text
    assert isinstance(v["people"], (int, float)) and v["people"] == int(v["people"]), text
    assert 1 <= len(v["tags"]) <= 3 and all(re.fullmatch("[a-z]{2,8}", t) for t in v["tags"]), text


def chat(s, **more):
    status, r = s.post("/v1/chat/completions", {"messages": ASK, "seed": 5, "max_tokens": 160, **more})
    assert status == 200, r
    return r


class Structured(unittest.TestCase):
    def test_answers_are_of_the_schema_whatever_the_cut(self):
        seen = []
        for cut in (("--tp", 1), ("--tp", 2), ("--tp", 2, "--pp", 2)):
            with Server(*cut, "--threads", 1) as s:
                got = []
                for temperature in (0, 0.8):
                    r = chat(s, response_format=FORMAT, temperature=temperature, n=3 if temperature else 1, logprobs=True)
                    for c in r["choices"]:
                        check(c["message"]["content"])
                        self.assertEqual(c["finish_reason"], "stop")
                        got.append(c["message"]["content"])
                streamed = "".join(e["choices"][0]["delta"].get("content") or "" for e in s.stream(
                    "/v1/chat/completions", {"messages": ASK, "seed": 5, "max_tokens": 160, "temperature": 0, "response_format": FORMAT})
                    if e != "[DONE]" and e["choices"])
                self.assertEqual(streamed, got[0])
                seen.append(got)
        self.assertEqual(seen[0], seen[1])
        self.assertEqual(seen[0], seen[2])

    def test_every_form(self):
        with Server("--tp", 1, "--threads", 1) as s:
            for more, form in (({"structured_outputs": {"regex": "[A-Z][a-z]+ is (the )?capital\\."}}, r"[A-Z][a-z]+ is (the )?capital\."),
                               ({"structured_outputs": {"choice": ["Lisbon", "Paris"]}}, "Lisbon|Paris"),
                               ({"guided_choice": ["yes", "no"]}, "yes|no"),
                               ({"guided_grammar": 'root ::= "<" [a-z]{1,9} ">"'}, "<[a-z]{1,9}>"),
                               ({"guided_regex": "[0-9]{3}"}, "[0-9]{3}")):
                for temperature in (0, 1):
                    r = chat(s, temperature=temperature, **more)
                    self.assertRegex(r["choices"][0]["message"]["content"], f"^(?:{form})$")
            for ignore in (False, True):
                r = chat(s, response_format={"type": "json_object"}, temperature=1, max_tokens=60, ignore_eos=ignore, min_tokens=5)
                self.assertIsInstance(json.loads(r["choices"][0]["message"]["content"]), dict)
            status, r = s.post("/v1/completions", {"prompt": "The capital", "max_tokens": 40, "guided_json": {"type": "array", "items": {"type": "boolean"}}})
            self.assertEqual(status, 200)
            self.assertTrue(all(isinstance(x, bool) for x in json.loads(r["choices"][0]["text"])))

    def test_a_text_ends_within_its_budget(self):
        with Server("--tp", 1, "--threads", 1) as s:
            for budget in (110, 140):
                for seed in range(6):
                    r = chat(s, response_format=FORMAT, temperature=1.5, seed=seed, max_tokens=budget)
                    check(r["choices"][0]["message"]["content"])

    def test_what_cannot_be_is_refused(self):
        with Server("--tp", 1, "--threads", 1) as s:
            bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"properties": {"a": {"unevaluatedItems": False}}}}}
            status, r = s.post("/v1/chat/completions", {"messages": ASK, "response_format": bad})
            self.assertEqual((status, r["error"]["param"]), (400, "response_format"))
            self.assertIn("#/properties/a/unevaluatedItems", r["error"]["message"])
            chat(s, max_tokens=4)

    def test_the_command(self):
        code, out, _ = run("grammar", "--choice", "abc|abd", stdin=b"abx\n")
        self.assertEqual(code, 1)
        self.assertIn(b"refused at byte 2 (line 1, column 3), 0x78; allowed there: 'c', 'd'", out)
        self.assertEqual(run("grammar", "--json", stdin=b'{"a": [1, 2]}\n')[0], 0)
        code, _, err = run("grammar", "--regex", "(a", stdin=b"")
        self.assertEqual(code, 1)
        self.assertIn("byte 2", err)
        self.assertEqual(run("grammar", stdin=b"")[0], 2)
        with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
            json.dump({"type": "structural_tag", "structures": [{"begin": "<f>", "schema": {"type": "integer"}, "end": "</f>"}], "triggers": ["<f>"]}, f)
            f.flush()
            self.assertEqual(run("grammar", "--structural-tag", f.name, stdin=b"So <f>1</f>.")[0], 0)
            code, out, _ = run("grammar", "--structural-tag", f.name, stdin=b"So <f>x</f>.")
            self.assertEqual(code, 1)
            self.assertIn(b"refused at byte 6 (line 1, column 7), 0x78; allowed there: '-', '0'..'9'", out)


if __name__ == "__main__":
    unittest.main(verbosity=2)
