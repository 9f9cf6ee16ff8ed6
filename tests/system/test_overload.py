"""Ten times more clients than places: every accepted request is finished, the others are told to come back, a light key gets in, memory stays flat.

    python3 tests/system/test_overload.py [SECONDS]      8 by default; more by hand
"""
import http.client
import json
import random
import sys
import tempfile
import threading
import time
import unittest

from cluster import Server

SECONDS = 8
PLACES, RUNNING, CLIENTS = 24, 8, 320  # ten times what runs and waits


def rss(pid):
    with open(f"/proc/{pid}/status") as f:
        return [int(l.split()[1]) * 1024 for l in f if l.startswith("VmRSS")][0]


class Overload(unittest.TestCase):
    def test_ten_times_more_clients_than_places(self):
        with tempfile.NamedTemporaryFile("w") as keys:
            keys.write("heavy secret-of-the-heavy-one\nlight secret-of-the-light-one\n")
            keys.flush()
            with Server("--threads", 1, "--max-seqs", RUNNING, "--max-waiting", PLACES, "--replay-seconds", 0, "--api-keys", keys.name) as s:
                self.crowd(s)

    def one(self, s, key, rng, tally, lock):
        """A request; half of them streams, some of which are left in the middle."""
        c = http.client.HTTPConnection("127.0.0.1", s.port, timeout=120)
        stream, leave = rng.random() < 0.5, rng.random() < 0.1
        body = {"prompt": f"Once upon a time {rng.random()}", "max_tokens": rng.choice([4, 16, 64]), "stream": stream, "ignore_eos": True}
        c.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json", "Authorization": "Bearer " + key})
        r = c.getresponse()
        if r.status == 200 and leave:
            r.read(40)
            kind = "left"
        else:
            raw = r.read()
            kind = r.status
            if r.status == 200:
                whole = (raw.rstrip().endswith(b"data: [DONE]") and b'"error"' not in raw if stream
                         else json.loads(raw)["usage"]["completion_tokens"] == body["max_tokens"])
                kind = 200 if whole else "broken"
            elif not (r.status in (429, 503) and r.getheader("Retry-After")):
                kind = f"odd {r.status} {raw[:200]}"
        c.close()
        with lock:
            tally[kind] = tally.get(kind, 0) + 1
        return kind

    def crowd(self, s):
        tally, light, lock, stop = {}, {}, threading.Lock(), threading.Event()

        def client(i, key, mine):
            rng = random.Random(i)
            while not stop.is_set():
                if self.one(s, key, rng, mine, lock) != 200:
                    time.sleep(rng.random() * 0.5)

        threads = [threading.Thread(target=client, args=(i, "secret-of-the-heavy-one", tally)) for i in range(CLIENTS)]
        threads.append(threading.Thread(target=client, args=(999, "secret-of-the-light-one", light)))
        for t in threads:
            t.start()
        health = json.loads(s.request("GET", "/health", None, {"Authorization": "Bearer secret-of-the-light-one"})[1])
        pids = [s.proc.pid, *(r["pid"] for r in health["cluster"]["replicas"][0]["ranks"])]
        time.sleep(min(SECONDS / 2, 30))
        before = [rss(p) for p in pids]
        time.sleep(SECONDS - min(SECONDS / 2, 30))
        after = [rss(p) for p in pids]
        stop.set()
        for t in threads:
            t.join()
        print(f"{SECONDS} s, {CLIENTS} clients: {tally}, the light key {light}; RSS {[b // 10**5 / 10 for b in before]} -> "
              f"{[a // 10**5 / 10 for a in after]} MB")
        self.assertFalse([k for k in [*tally, *light] if k not in (200, 429, 503, "left")], (tally, light))
        self.assertGreater(tally[200], 0)
        self.assertGreater(tally.get(429, 0) + tally.get(503, 0), tally[200] / 10, "this was no overload")
        self.assertGreater(light.get(200, 0), 3 * (light.get(429, 0) + light.get(503, 0)), "a light key gets in")
        for b, a in zip(before, after):
            self.assertLess(a - b, 6e6, "memory grows")


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1].isdigit():
        SECONDS = int(sys.argv.pop(1))
    unittest.main(verbosity=2)
