"""Whole experts on ranks of a real mpirun: the same bytes for every cut; the plan says how they are dealt, and who asked."""
import json
import os
import subprocess
import tempfile
import unittest

from cluster import BIN, run

MAKE = os.path.join(os.path.dirname(BIN), "make_model")
QUIET = ("--log-level", "warn", "--threads", 1)


@unittest.skipUnless(os.path.exists(MAKE), "no make_model beside the program")
class Experts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.TemporaryDirectory()
        cls.model = os.path.join(cls.dir.name, "experts.gguf")
        subprocess.run([MAKE, "--arch", "qwen3moe", "--experts", "12", "--used", "3", "--expert-ffn", "512", "--type", "q8_0", "--out", cls.model],
                       check=True, stdout=subprocess.DEVNULL)

    @classmethod
    def tearDownClass(cls):
        cls.dir.cleanup()

    def logits(self, *args):
        path = os.path.join(self.dir.name, "logits")
        code, _, err = run("generate", self.model, "--prompt", "Tell me about experts", "--max-tokens", 8, "--seed", 3, "--ignore-eos",
                           "--logits", path, *args, *QUIET)
        self.assertEqual(code, 0, err)
        with open(path, "rb") as f:
            return f.read()

    def test_whole_ones_give_the_same_bytes_for_every_cut(self):
        rows = [self.logits("--experts", "whole", *cut) for cut in (("--tp", 1), ("--tp", 2), ("--tp", 3, "--wire", "mpi"), ("--tp", 2, "--pp", 2))]
        self.assertGreater(len(rows[0]), 1000)
        for other in rows[1:]:
            self.assertEqual(other, rows[0])
        cut = self.logits("--tp", 2)
        self.assertEqual(cut, self.logits("--tp", 1))
        self.assertNotEqual(cut, rows[0])  # sums in another order; or they were never dealt whole

    def test_the_plan_says_how_they_are_dealt(self):
        def plan(*args):
            code, out, err = run("plan", self.model, "--tp", 2, "--pp", 1, *args)
            self.assertEqual(code, 0, err)
            return out.decode()
        self.assertIn("experts   cut inside, a part of all 12", plan())
        self.assertIn("experts   whole, each of the 12", plan("--experts", "whole"))
        said = json.loads(plan("--experts", "whole", "--json"))
        self.assertEqual(said["experts"], "whole")
        self.assertGreater(said["experts_tok_s"]["cut"], 0)
        self.assertEqual(json.loads(plan("--json"))["experts"], "cut")


if __name__ == "__main__":
    unittest.main()
