"""Sampling through the whole system: every field does what it says, and the answers are the same whatever the cut."""
import json
import math
import unittest

from cluster import Server

PROMPT = "Wind of seven green"
ASK = [{"role": "user", "content": "What is the capital of Spain?"}]
SAMPLERS = (
    {"typical_p": 0.7}, {"xtc_probability": 0.8, "xtc_threshold": 0.05}, {"dry_multiplier": 0.8, "dry_allowed_length": 1, "repetition_penalty": 0.8},
    {"bad_words": ["was", "the", "a"]}, {"repeat_penalty": 1.3, "repeat_last_n": 8}, {"frequency_penalty": 1.2, "presence_penalty": 0.4},
    {"min_tokens": 12, "ignore_eos": False}, {"top_k": 20, "top_p": 0.9, "min_p": 0.02}, {"logit_bias": {"30": 5, "31": -100}},
    {"allowed_token_ids": list(range(20, 400))},
)


def complete(s, **more):
    status, r = s.post("/v1/completions", {"prompt": PROMPT, "max_tokens": 16, "seed": 4, "temperature": 2.0, "ignore_eos": True, **more})
    assert status == 200, r
    return r


class Sampling(unittest.TestCase):
    def test_every_sampler_is_the_same_whatever_the_cut(self):
        seen = []
        for cut in (("--tp", 1), ("--tp", 2, "--pp", 2)):
            with Server(*cut, "--threads", 1) as s:
                got = []
                for more in SAMPLERS:
                    r = complete(s, n=2, logprobs=2, prompt_logprobs=2, return_token_ids=True, **more)
                    got.append([{k: c[k] for k in ("text", "logprobs", "token_ids", "prompt_logprobs", "finish_reason")} for c in r["choices"]])
                seen.append(got)
        self.assertEqual(json.dumps(seen[0]), json.dumps(seen[1]))
        self.assertGreater(len({g[0]["text"] for g in seen[0]}), len(SAMPLERS) // 2)
        for c in seen[0][9]:
            self.assertTrue(all(20 <= i < 400 for i in c["token_ids"]))
        for c in seen[0][3]:
            self.assertFalse({"was", "the", "a"} & set(c["text"].split()))
        for c in seen[0][6]:
            self.assertGreaterEqual(len(c["token_ids"]), 12)

    def test_prompts_are_scored(self):
        with Server("--tp", 1, "--threads", 1) as s:
            tokens = s.post("/tokenize", {"prompt": PROMPT})[1]["tokens"]
            # a prompt is scored the same whether its prefix is known or not
            first = complete(s, echo=True, logprobs=3, max_tokens=0)
            again = complete(s, echo=True, logprobs=3, max_tokens=0)
            self.assertEqual(first["choices"], again["choices"])
            c = first["choices"][0]
            self.assertEqual((c["text"], c["finish_reason"], first["usage"]["completion_tokens"]), (PROMPT, "length", 0))
            self.assertEqual(len(c["logprobs"]["tokens"]), len(tokens))
            self.assertIsNone(c["logprobs"]["token_logprobs"][0])
            self.assertEqual(first["usage"]["prompt_tokens_details"]["cached_tokens"], 0)
            r = complete(s, prompt_logprobs=3)
            scores = r["choices"][0]["prompt_logprobs"]
            self.assertEqual(len(scores), len(tokens))
            self.assertIsNone(scores[0])
            for token, score, logprob in zip(tokens[1:], scores[1:], c["logprobs"]["token_logprobs"][1:]):
                mine = score[str(token)]
                self.assertEqual(mine["logprob"], logprob)
                self.assertGreaterEqual(mine["rank"], 1)
                self.assertIsInstance(mine["decoded_token"], str)
                ranks = sorted(x["rank"] for x in score.values())
                self.assertEqual(ranks[:3], [1, 2, 3])
                self.assertEqual(len(score), 3 if mine["rank"] <= 3 else 4)
            # the generated token's logprob is what scoring it as a prompt says
            r = complete(s, logprobs=0, max_tokens=4, temperature=0, return_token_ids=True)
            ids = r["choices"][0]["token_ids"]
            whole = complete(s, prompt=tokens + ids, echo=True, logprobs=0, max_tokens=0)
            self.assertEqual(whole["choices"][0]["logprobs"]["token_logprobs"][len(tokens):], r["choices"][0]["logprobs"]["token_logprobs"])
            status, r = s.post("/v1/chat/completions", {"messages": ASK, "max_tokens": 4, "prompt_logprobs": 0})
            self.assertEqual((status, len(r["prompt_logprobs"])), (200, r["usage"]["prompt_tokens"]))
            self.assertTrue(all(len(x) == 1 for x in r["prompt_logprobs"][1:]))

    def test_best_of_shows_the_likeliest(self):
        with Server("--tp", 1, "--threads", 1) as s:
            everything = complete(s, n=6, logprobs=0, temperature=1.9)
            best = complete(s, n=2, best_of=6, logprobs=0, temperature=1.9)
            mean = lambda c: sum(c["logprobs"]["token_logprobs"]) / len(c["logprobs"]["token_logprobs"])
            ranked = sorted(everything["choices"], key=mean, reverse=True)
            self.assertEqual([c["text"] for c in best["choices"]], [c["text"] for c in ranked[:2]])
            self.assertEqual([c["index"] for c in best["choices"]], [0, 1])
            self.assertEqual(best["usage"]["completion_tokens"], everything["usage"]["completion_tokens"])
            plain = complete(s, best_of=3, temperature=1.9)
            self.assertEqual((len(plain["choices"]), plain["choices"][0]["logprobs"]), (1, None))
            two = complete(s, prompt=[PROMPT, "Two"], best_of=3, temperature=1.9)
            self.assertEqual([c["index"] for c in two["choices"]], [0, 1])

    def test_stops_seeds_and_ids(self):
        with Server("--tp", 1, "--threads", 1) as s:
            a, b, c = (complete(s, seed=k, max_tokens=24)["choices"][0]["text"] for k in (1, 1, 2))
            self.assertEqual(a, b)
            self.assertNotEqual(a, c)
            text = "Once upon a time"
            def complete_text(**more):
                return complete(s, prompt=text, temperature=0, **more)
            r = complete_text(return_token_ids=True)["choices"][0]
            stop = r["token_ids"][2]
            self.assertNotIn(stop, r["token_ids"][:2])
            cut = complete_text(stop_token_ids=[stop], return_token_ids=True)["choices"][0]
            self.assertEqual((cut["finish_reason"], cut["stop_reason"], cut["token_ids"]), ("stop", stop, r["token_ids"][:3]))
            with_stop = complete_text(stop_token_ids=[stop], include_stop_str_in_output=True)["choices"][0]
            self.assertTrue(with_stop["text"].startswith(cut["text"]) and len(with_stop["text"]) > len(cut["text"]))
            word = r["text"].split()[0]
            self.assertEqual(complete_text(stop=[word])["choices"][0]["stop_reason"], word)
            self.assertTrue(complete_text(stop=[word], include_stop_str_in_output=True)["choices"][0]["text"].endswith(word))
            kept = complete(s, truncate_prompt_tokens=3, return_token_ids=True)["choices"][0]["prompt_token_ids"]
            self.assertEqual(kept, s.post("/tokenize", {"prompt": PROMPT})[1]["tokens"][-3:])
            long = complete(s, prompt=list(range(20, 120)) * 100, truncate_prompt_tokens=-1, max_tokens=8)
            self.assertEqual(long["usage"]["completion_tokens"], 8)
            names = complete(s, logprobs=0, return_tokens_as_token_ids=True, temperature=0, return_token_ids=True)["choices"][0]
            self.assertEqual(names["logprobs"]["tokens"], [f"token_id:{i}" for i in names["token_ids"]])
            for more in ({"temperature": 1.4, "n": 3}, {"temperature": 0.9, "logprobs": 1}):
                r = complete(s, max_tokens=40, **more)
                self.assertTrue(all(math.isfinite(x) and x <= 0 for c in r["choices"] if c["logprobs"] for x in c["logprobs"]["token_logprobs"]))


if __name__ == "__main__":
    unittest.main(verbosity=2)
