"""Two thousand streams that wait beside sixty-four that speak, on one gateway thread of a real server: who speaks goes on, what a sleeper costs, and
that nothing is left of those who leave."""
import json
import re
import resource
import select
import socket
import time
import unittest

from cluster import Server

IDLE, BUSY, MOST_KIB = 2000, 64, 60


def rss_kib(pid):
    with open(f"/proc/{pid}/status") as f:
        return int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))


def ask(port, **body):
    s = socket.create_connection(("127.0.0.1", port))
    data = json.dumps({"prompt": "Once upon a time", "stream": True, **body}).encode()
    s.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
    return s


class Many(unittest.TestCase):
    def test_sleepers_beside_speakers(self):
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        if most < IDLE + BUSY + 100:
            self.skipTest(f"{most} open files are allowed")
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        with Server("--threads", 1, "--max-seqs", BUSY, "--kv-tokens", BUSY * 1024) as s:
            busy = [ask(s.port, max_tokens=900, ignore_eos=True) for _ in range(BUSY)]
            for c in busy:
                self.assertIn(b"200 OK", c.recv(4096))
            before = rss_kib(s.proc.pid)
            idle = [ask(s.port, max_tokens=4) for _ in range(IDLE)]
            for c in idle:  # a second later they begin, so as to be kept alive
                self.assertIn(b"200 OK", c.recv(4096))
            each = (rss_kib(s.proc.pid) - before) / IDLE
            print(f"{each:.1f} KiB for each of {IDLE} waiting streams")
            self.assertLess(each, MOST_KIB)
            m = s.get("/metrics")[1].decode()
            self.assertEqual(float(re.search(r"vllm:num_requests_running\{.*?\} (\S+)", m).group(1)), BUSY)
            spoken, end = set(), time.monotonic() + 20
            while len(spoken) < BUSY and time.monotonic() < end:
                for c in select.select(busy, [], [], 1)[0]:
                    if b"data:" in c.recv(65536):
                        spoken.add(c)
            self.assertEqual(len(spoken), BUSY)
            for c in idle + busy:
                c.close()
            end = time.monotonic() + 20
            while "num_requests_waiting" in m and time.monotonic() < end:
                m = s.get("/metrics")[1].decode()
                if all(float(v) == 0 for v in re.findall(r"vllm:num_requests_(?:running|waiting)\{.*?\} (\S+)", m)):
                    return
                time.sleep(0.1)
            self.fail("requests of clients that left still run or wait")


if __name__ == "__main__":
    unittest.main(verbosity=2)
