"""What a running worker takes: its packed weights, its KV cache and at most 150 MB more, at every width, whether the weights came from the file or
from the cache of packed ones. The weights outweigh the 150 MB, so a second copy of them would be seen."""
import json
import os
import shutil
import subprocess
import tempfile
import time
import unittest

from cluster import BIN, Server, run

MAKE = os.path.join(os.path.dirname(BIN), "make_model")
MORE = 150e6
HEADER = 8e6  # names, words and what the system reads ahead; the weights are more than twenty times as much


def status(pid, key):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) * 1024 for line in f if line.startswith(key + ":"))


@unittest.skipUnless(os.path.exists(MAKE), "no make_model beside the program")
class Memory(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="tessera-memory-")
        cls.model = cls.dir + "/m.gguf"
        subprocess.run([MAKE, "--arch", "llama", "--layers", "12", "--width", "1024", "--heads", "16", "--kv-heads", "4", "--ffn", "4096", "--vocab", "32000",
                        "--type", "q8_0", "--out", cls.model], check=True, capture_output=True)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.dir, ignore_errors=True)

    def work(self, s):
        """Long prompts side by side, every way of choosing a token, and scores of a prompt."""
        prompt = [5 + i % 30000 for i in range(900)]
        for extra in ({"temperature": 0}, {"temperature": 1}, {"top_p": 0.9, "logprobs": 5}, {"top_k": 40, "n": 4}, {"echo": True, "logprobs": 2}):
            code, answer = s.post("/v1/completions", {"prompt": prompt, "max_tokens": 8, "ignore_eos": True, **extra})
            self.assertEqual(code, 200, answer)

    def check(self, s, width):
        ranks = json.loads(s.get("/health")[1])["cluster"]["replicas"][0]["ranks"]
        self.assertEqual(len(ranks), width)
        until = time.time() + 60
        while not all(r["rss_bytes"] for r in ranks) and time.time() < until:  # said every second of work
            self.work(s)
            ranks = json.loads(s.get("/health")[1])["cluster"]["replicas"][0]["ranks"]
        for r in ranks:
            most, now = status(r["pid"], "VmHWM"), status(r["pid"], "VmRSS")
            self.assertGreater(r["weight_bytes"] * width, MORE, "too small a model to see a second copy")
            self.assertGreater(now, r["weight_bytes"], "weights must be counted")
            self.assertGreater(r["rss_bytes"], r["weight_bytes"], "what a rank says of itself")
            self.assertLess(r["rss_bytes"], most + (1 << 20))
            for what, bytes_ in (("at most", most), ("now", now)):
                over = bytes_ - r["weight_bytes"] - r["kv_bytes"]
                print(f"rank {r['rank']} of {width}, {what}: {bytes_ / 1e6:.0f} MB, of which weights {r['weight_bytes'] / 1e6:.0f}, KV "
                      f"{r['kv_bytes'] / 1e6:.0f}, else {over / 1e6:.0f}")
                self.assertLess(over, MORE)

    def test_weights_and_kv_and_little_else(self):
        for width in (1, 2):
            with Server("--context", 1024, "--kv-tokens", 4096, "--tp", width, model=self.model) as s:
                self.work(s)
                self.check(s, width)

    def resident(self):
        """Bytes of the model file that the system has read and keeps."""
        out = subprocess.run(["fincore", "--bytes", "--noheadings", "--output", "RES", self.model], check=True, capture_output=True, text=True)
        return int(out.stdout)

    def forget(self):
        with open(self.model, "rb+") as f:
            os.fsync(f.fileno())
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    @unittest.skipUnless(shutil.which("fincore"), "no fincore (util-linux)")
    def test_what_does_not_fit_is_refused_before_a_weight_is_read(self):
        self.forget()
        if self.resident():
            self.skipTest("this file system forgets nothing")
        code, _, text = run("serve", self.model, "--port", 0, "--context", 1024, "--kv-tokens", 10 ** 9)
        self.assertNotEqual(code, 0)
        self.assertIn("does not fit", text)
        self.assertLess(self.resident(), HEADER)
        with Server("--context", 1024, "--kv-tokens", 4096, model=self.model) as s:  # and what is read would be seen
            weights = json.loads(s.get("/health")[1])["cluster"]["replicas"][0]["ranks"][0]["weight_bytes"]
            self.assertGreater(self.resident(), weights / 2)

    def test_the_same_from_the_cache_of_packed_weights(self):
        cache = self.dir + "/cache"
        for start in range(2):
            with Server("--context", 1024, "--kv-tokens", 4096, "--shard-cache", cache, model=self.model) as s:
                self.work(s)
                if start:
                    ranks = json.loads(s.get("/health")[1])["cluster"]["replicas"][0]["ranks"]
                    self.assertGreater(ranks[0]["cached_bytes"], 0.9 * ranks[0]["weight_bytes"])
                weights = json.loads(s.get("/health")[1])["cluster"]["replicas"][0]["ranks"][0]["weight_bytes"]
                for _ in range(600):  # it is written while the model is already served
                    if sum(os.path.getsize(os.path.join(cache, f)) for f in os.listdir(cache) if f.endswith(".tiles")) > 0.9 * weights:
                        break
                    time.sleep(0.1)
                self.check(s, 1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
