"""Loading by real processes: the kernel's own count of bytes read agrees with ours, every byte of the file is read once by all ranks together, and a
second start finds packed weights in the cache."""
import json
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
import unittest

from cluster import BIN, Server, mpi_env

MAKE = os.path.join(os.path.dirname(BIN), "make_model")


def ranks(server):
    return json.loads(server.get("/health")[1])["cluster"]["replicas"][0]["ranks"]


def kernel_read(pid):
    """Bytes that a process has asked read() and its kin for."""
    with open(f"/proc/{pid}/io") as f:
        return int(dict(line.split(": ") for line in f.read().splitlines())["rchar"])


def tensor_bytes(path):
    out = subprocess.run([BIN, "inspect", path, "--tensors", "--keys", "off"], check=True, capture_output=True, text=True).stdout
    return sum(int(n) for n in re.findall(r"(\d+) bytes at", out))


@unittest.skipUnless(os.path.exists(MAKE), "no make_model beside the program")
class Loading(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.dir = tempfile.mkdtemp(prefix="tessera-load-")
        cls.model = cls.dir + "/m.gguf"
        subprocess.run([MAKE, "--arch", "llama", "--layers", "6", "--width", "1024", "--heads", "16", "--kv-heads", "4", "--ffn", "3072", "--vocab", "4000",
                        "--type", "q8_0", "--context", "8192", "--out", cls.model], check=True, capture_output=True)
        cls.bytes = tensor_bytes(cls.model)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.dir, ignore_errors=True)

    def test_every_byte_is_read_once_and_the_kernel_agrees(self):
        for cut in (("--tp", 3), ("--tp", 2, "--pp", 2)):
            with Server("--context", 512, *cut, model=self.model) as s:
                r = ranks(s)
                read = sum(x["read_bytes"] for x in r)
                self.assertLess(abs(read - self.bytes), self.bytes / 100)
                for x in r:
                    extra = kernel_read(x["pid"]) - x["read_bytes"]  # headers, libraries, MPI's own files
                    self.assertGreater(extra, 0)
                    self.assertLess(extra, 8 << 20, x)

    def test_a_second_start_finds_what_was_packed(self):
        cache = self.dir + "/cache"
        with Server("--context", 512, "--tp", 2, "--shard-cache", cache, model=self.model) as s:
            self.assertEqual(sum(x["cached_bytes"] for x in ranks(s)), 0)
            size = -1
            for _ in range(60):  # it is written while the model is already served
                before, size = size, sum(f.stat().st_size for f in os.scandir(cache) if f.name.endswith(".tiles"))
                if size == before and size > self.bytes * 0.9:
                    break
                time.sleep(0.2)
        with Server("--context", 512, "--tp", 2, "--shard-cache", cache, model=self.model) as s:
            r = ranks(s)
            self.assertLess(sum(x["read_bytes"] for x in r), self.bytes / 50)
            self.assertGreater(sum(x["cached_bytes"] for x in r), self.bytes * 0.95)
            for x in r:
                self.assertLess(kernel_read(x["pid"]), x["cached_bytes"] * 1.1 + (8 << 20))

    def test_only_a_start_without_progress_is_given_up(self):
        """An mpirun that starts nothing: named after --load-timeout. (tests/system/test_hosts.py has a load that is slow but moves.)"""
        bin_dir = self.dir + "/bin"
        os.makedirs(bin_dir, exist_ok=True)
        with open(bin_dir + "/mpirun", "w") as f:
            f.write("#!/bin/sh\nexec sleep 60\n")
        os.chmod(bin_dir + "/mpirun", 0o755)
        p = subprocess.run([BIN, "generate", self.model, "--prompt", "x", "--load-timeout", "1"], capture_output=True, text=True, timeout=30,
                           env={**mpi_env(), "PATH": bin_dir + ":" + os.environ["PATH"]})
        self.assertNotEqual(p.returncode, 0)
        self.assertIn("no progress for 1 s: waiting for workers to join (--load-timeout)", p.stderr)

    def test_a_running_server_says_which_term_was_wrong(self):
        """A topology that makes this machine a thousand times too fast. Five seconds of decoding are compared."""
        topo = self.dir + "/lies.topo"
        with open(topo, "w") as f:
            f.write(f"tessera topology 1\nhost {socket.gethostname()} cores=2\ncpu cpu cores=2 memory=8GiB read=40TB/s ops=1000T\n")
        with Server("--context", 8192, "--kv-tokens", 8192, "--threads", 1, "--speculate", 0, "--topo", topo, model=self.model) as s:
            end = time.monotonic() + 60
            while "wrong is" not in s.text() and time.monotonic() < end:
                for _ in s.stream("/v1/completions", {"prompt": [5, 6, 7], "max_tokens": 8000, "temperature": 0, "ignore_eos": True}):
                    if time.monotonic() > end or "wrong is" in s.text():
                        break
            self.assertRegex(s.text(), r"warn .*replica 0: a step of 1 sequence\(s\) takes [\d.]+ ms, predicted [\d.]+: computing .*; wrong "
                             r"is the processors' speed")


if __name__ == "__main__":
    unittest.main(verbosity=2)
