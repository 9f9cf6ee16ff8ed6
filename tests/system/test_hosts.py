"""Several hosts: network namespaces of our own with an sshd each, and mpirun reaching them through a hostfile. Needs root, ip and sshd;
nothing outside these namespaces is touched."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from cluster import BIN, DEMO, mpi_env, run

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"
NET = "10.77.0"
LAN_SWITCH = os.path.join(os.path.dirname(os.path.abspath(BIN)), "lan_switch")
MAKE = os.path.join(os.path.dirname(os.path.abspath(BIN)), "make_model")


def sh(*args, **kw):
    return subprocess.run(args, check=True, capture_output=True, **kw)


def why_not():
    if os.geteuid() != 0:
        return "not root"
    for tool in ("ip", "unshare", "ssh-keygen", "ssh"):
        if not shutil.which(tool):
            return f"no {tool} here"
    if not os.path.exists(SSHD):
        return "no sshd here (openssh-server)"
    try:
        sh("ip", "netns", "add", "tsprobe")
        sh("ip", "netns", "del", "tsprobe")
    except subprocess.CalledProcessError as e:
        return "no network namespaces here: " + e.stderr.decode().strip()
    return None


class Hosts:
    """n hosts h0..: one namespace, one name, one sshd each, all on one bridge; or, switch=(Mbit/s, microseconds), on a switch with that rate and
    delay (tools/lan_switch.c). before(hosts, i): shell commands that run first of all on host i, in its own mount namespace."""

    def __init__(self, n, before=None, switch=None):
        self.net, self.switch = "10.78.0" if switch else NET, None
        self.n, self.pre, self.before = n, f"ts{os.getpid() % 10000}", before or (lambda hosts, i: "")
        self.dir = tempfile.mkdtemp(prefix="tessera-hosts-")
        os.makedirs("/run/sshd", exist_ok=True)
        d = self.dir
        for key in ("id", "hk"):
            sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{d}/{key}")
        shutil.copy(f"{d}/id.pub", f"{d}/auth")
        os.chmod(f"{d}/auth", 0o600)
        for i in range(n):
            sh("ip", "netns", "add", self.name(i))
        if switch:
            self.switch = subprocess.Popen([LAN_SWITCH, *map(str, switch), *map(self.name, range(n))], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            if self.switch.stdout.readline() != b"ready\n":
                raise RuntimeError("lan_switch did not start")
        else:
            sh("ip", "netns", "add", self.pre + "sw")
            sh("ip", "-n", self.pre + "sw", "link", "add", "br0", "type", "bridge")
            sh("ip", "-n", self.pre + "sw", "link", "set", "br0", "up")
        for i in range(n):
            self.add(i)
        with open(f"{d}/rsh", "w") as f:
            f.write(f"#!/bin/sh\nexec ssh -i {d}/id -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR \"$@\"\n")
        os.chmod(f"{d}/rsh", 0o755)
        with open(f"{d}/hosts", "w") as f:
            f.write("".join(f"{self.net}.{i + 1} slots=1\n" for i in range(n)))

    def add(self, i):
        h, d = self.name(i), self.dir
        if not self.switch:
            sh("ip", "-n", h, "link", "set", "lo", "up")
            sh("ip", "-n", h, "link", "add", "eth0", "index", "100", "type", "veth", "peer", "name", f"p{i}", "netns", self.pre + "sw")
            sh("ip", "-n", self.pre + "sw", "link", "set", f"p{i}", "master", "br0", "up")
            sh("ip", "-n", h, "addr", "add", f"{self.net}.{i + 1}/24", "dev", "eth0")
            sh("ip", "-n", h, "link", "set", "eth0", "up")
        with open(f"{d}/sshd{i}.conf", "w") as f:
            f.write(f"ListenAddress {self.net}.{i + 1}\nHostKey {d}/hk\nAuthorizedKeysFile {d}/auth\nPidFile {d}/sshd{i}.pid\nUsePAM no\n"
                    "StrictModes no\nPermitRootLogin prohibit-password\nPasswordAuthentication no\nMaxStartups 100\n")
        self.revive(i)

    def revive(self, i):
        h = self.name(i)
        sh("ip", "netns", "exec", h, "unshare", "-u", "sh", "-c", f"hostname {h}; {self.before(self, i)} exec {SSHD} -f {self.dir}/sshd{i}.conf")

    def tell(self, line):
        self.switch.stdin.write(line.encode() + b"\n")
        self.switch.stdin.flush()

    def name(self, i):
        return f"{self.pre}h{i}"

    def inside(self, i, *args):
        return ["ip", "netns", "exec", self.name(i), "unshare", "-u", "sh", "-c",
                f'hostname {self.name(i)}; {self.before(self, i)} exec "$@"', "x", *map(str, args)]

    def mpirun_args(self):
        return (f"--mca plm_rsh_agent {self.dir}/rsh --mca oob_tcp_if_include {self.net}.0/24 --mca btl tcp,self "
                f"--mca btl_tcp_if_include {self.net}.0/24 --mca mpi_yield_when_idle 1")

    def pids(self, i):
        return [int(p) for p in subprocess.run(["ip", "netns", "pids", self.name(i)], capture_output=True).stdout.split()]

    def close(self):
        for i in range(self.n):
            for p in self.pids(i):
                try:
                    os.kill(p, signal.SIGKILL)
                except OSError:
                    pass
        for i in range(self.n):
            subprocess.run(["ip", "netns", "del", self.name(i)], capture_output=True)
        if self.switch:
            self.switch.stdin.close()
            self.switch.wait(5)
            self.switch.stdout.close()
        else:
            subprocess.run(["ip", "netns", "del", self.pre + "sw"], capture_output=True)
        shutil.rmtree(self.dir, ignore_errors=True)


def hide_model(hosts, i):
    """The model lies on the first host only: the others see an empty directory in its place."""
    return "" if i == 0 else f"mount -t tmpfs none {hosts.dir}/models;"


class Serving(unittest.TestCase):
    N, BEFORE, SWITCH, PROMPT = 3, None, None, "Tell me the story of the fox."

    @classmethod
    def setUpClass(cls):
        cls.h = Hosts(cls.N, cls.BEFORE, cls.SWITCH)

    @classmethod
    def tearDownClass(cls):
        cls.h.close()

    def curl(self, path, *args):
        p = subprocess.run(self.h.inside(0, "curl", "-s", "-m", 20, "http://127.0.0.1:8200" + path, *args), capture_output=True)
        return p.stdout

    def serve(self, *args, model=None):
        log = tempfile.TemporaryFile()
        cmd = self.h.inside(0, os.path.abspath(BIN), "serve", os.path.abspath(model or DEMO), "--hostfile", f"{self.h.dir}/hosts", "--threads", 1, "--port",
                            8200, "--mpirun-args", self.h.mpirun_args(), *args)
        p = self.running = subprocess.Popen(cmd, stdout=log, stderr=log, env=mpi_env())
        for _ in range(300):
            if p.poll() is not None or b'"status":"ok"' in self.curl("/health"):
                break
            time.sleep(0.1)
        log.seek(0)
        self.assertIsNone(p.poll(), log.read().decode())
        return p, log

    running = None

    def tearDown(self):
        """What a failed test leaves running must not fail the next."""
        if self.running:
            self.running.terminate()
            self.running.wait(30)
            self.running = None

    def ranks(self):
        return json.loads(self.curl("/health"))["cluster"]["replicas"][0]["ranks"]

    def stop(self, p, log):
        self.running = None
        p.send_signal(signal.SIGTERM)
        self.assertEqual(p.wait(30), 0)
        log.close()
        time.sleep(0.3)
        for i in range(self.N):
            self.assertLessEqual(len(self.h.pids(i)), 1, "only the sshd is left on each host")

    def alone(self):
        """What one process says."""
        code, out, err = run("generate", DEMO, "--prompt", self.PROMPT, "--max-tokens", 40, "--seed", 8, "--logprobs", 1, "--ignore-eos", "--log-level", "warn")
        self.assertEqual(code, 0, err)
        return out.decode().rsplit("\n", 2)[0]

    def ask(self):
        body = {"prompt": self.PROMPT, "max_tokens": 40, "seed": 8, "logprobs": 1, "ignore_eos": True}
        return json.loads(self.curl("/v1/completions", "-d", json.dumps(body)))["choices"]


class OverSsh(Serving):
    def test_three_hosts_give_the_bits_of_one(self):
        answers = []
        for cut in (("--tp", 3), ("--pp", 3)):
            p, log = self.serve(*cut)
            answers.append(self.ask())
            hosts = {r["host"] for r in json.loads(self.curl("/health"))["cluster"]["replicas"][0]["ranks"]}
            self.assertEqual(hosts, {self.h.name(i) for i in range(3)})
            self.stop(p, log)
        self.assertEqual(answers[0], answers[1])
        self.assertEqual(self.alone(), answers[0][0]["text"])

    def test_two_ranks_on_a_host_speak_for_each_other(self):
        """Slots of 2, 1 and 2: shared memory inside a host, MPI between hosts. The same bits; under --exact off fewer bytes, and ranks that agree."""
        with open(f"{self.h.dir}/hosts", "w") as f:
            f.write("".join(f"{self.h.net}.{i + 1} slots={n}\n" for i, n in enumerate((2, 1, 2))))
        want, sent = self.alone(), {}
        try:
            for name, args in (("hier", ("--tp", 5)), ("flat", ("--tp", 5, "--wire", "mpi")), ("q8", ("--tp", 5, "--exact", "off", "--wire-type", "q8"))):
                p, log = self.serve(*args)
                text = self.ask()[0]["text"]
                time.sleep(1.3)  # ranks report once a second
                sent[name] = sum(float(line.rsplit(" ", 1)[1]) for line in self.curl("/metrics").decode().splitlines()
                                 if line.startswith("tessera:rank_comm_bytes_total"))
                health = json.loads(self.curl("/health"))
                self.assertEqual(health["cluster"]["exact"], name != "q8")
                if name != "q8":
                    self.assertEqual(text, want)
                self.assertGreater(len(text), 20)
                self.stop(p, log)
        finally:
            with open(f"{self.h.dir}/hosts", "w") as f:
                f.write("".join(f"{self.h.net}.{i + 1} slots=1\n" for i in range(self.N)))
        self.assertTrue(0 < sent["q8"] < sent["hier"], sent)

    def test_hosts_are_taken_in_the_order_that_the_planner_finds_best(self):
        """The hostfile says 0, 1, 2; by the topology the first and the last are near each other, and the middle one would only slow them down."""
        a, b, c = (f"{self.h.net}.{i + 1}" for i in range(3))
        topo = f"{self.h.dir}/topo"
        for first, last, middle in ((a, c, 0.2), (c, a, 0.2), (a, c, 10)):  # the fast one last, then first; a middle one that is worth its link
            with open(topo, "w") as f:
                f.write("tessera topology 1\n")
                for name, speed in ((first, 2), (b, middle), (last, 20)):
                    f.write(f"host {name} cores=2\ncpu c{name} cores=2 memory=40MiB read={speed}GB/s ops={speed * 50}G\n")
                f.write(f"wire latency=200us rate=1Gbit/s\nlink {a} {c} latency=5us rate=25Gbit/s\n")
            p, log = self.serve("--topo", topo, "--context", 128)
            text = self.ask()[0]["text"]
            hosts = [r["host"] for r in self.ranks()]
            log.seek(0)
            said = [line for line in log.read().decode().splitlines() if "taken in another order than the hostfile's" in line]
            self.assertEqual(len(said), 1)
            order = [self.h.name(int(ip.rsplit(".", 1)[1]) - 1) for ip in re.findall(r" ([\d.]+):1", said[0].split("hostfile's:")[1])]
            self.assertEqual(hosts, order)
            if middle < 1:
                self.assertEqual(set(hosts), {self.h.name(0), self.h.name(2)})
            self.assertEqual(text, self.alone())
            self.stop(p, log)

    def test_a_host_that_dies_is_named(self):
        p, log = self.serve("--tp", 3, "--recovery-timeout", 0)
        rank = [r for r in json.loads(self.curl("/health"))["cluster"]["replicas"][0]["ranks"] if r["host"] == self.h.name(2)][0]
        os.kill(rank["pid"], signal.SIGKILL)
        for _ in range(100):
            text = self.curl("/health").decode()
            if self.h.name(2) in text and '"status":"ok"' not in text:
                break
            time.sleep(0.05)
        else:
            self.fail(text)
        p.send_signal(signal.SIGTERM)
        self.assertEqual(p.wait(30), 0)
        log.close()


class GivenCuts(Serving):
    N = 2

    def test_equal_parts_of_unequal_machines_are_warned_about(self):
        """And ranks that are as many as a host's cores: what a hostfile of other programs says."""
        a, b = (f"{self.h.net}.{i + 1}" for i in range(2))
        topo, hosts = f"{self.h.dir}/topo", f"{self.h.dir}/hosts"
        for fast in (20, 2):
            with open(topo, "w") as f:
                f.write("tessera topology 1\n" + "".join(f"host {h} cores=2\ncpu c cores=2 memory=1GiB read={g}GB/s ops={50 * g}G\n"
                                                         for h, g in ((a, 2), (b, fast)))
                        + "wire latency=20us rate=10Gbit/s\n")
            p, log = self.serve("--tp", 2, "--topo", topo)
            log.seek(0)
            said = [line for line in log.read().decode().splitlines() if "the cut was asked for" in line]
            self.assertEqual(len(said), fast > 2, said)
            if fast > 2:
                self.assertIn("their speed by 10.0", said[0])
            self.assertEqual(self.ask()[0]["text"], self.alone())
            self.stop(p, log)
        with open(hosts, "w") as f:
            f.write(f"{a} slots=5\n{b} slots=1\n")
        p, log = self.serve()
        log.seek(0)
        self.assertIn(f"{self.h.name(0)} has 5 ranks on its", log.read().decode())
        self.stop(p, log)


class TwoNetworks(Serving):
    """The first host's first interface is of a network that the others are not on."""
    N = 2

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        h = cls.h.name(0)
        sh("ip", "-n", h, "link", "add", "campus", "index", "50", "type", "bridge")  # before eth0, which is number 100
        sh("ip", "-n", h, "addr", "add", "10.79.0.1/24", "dev", "campus")
        sh("ip", "-n", h, "link", "set", "campus", "up")

    def test_the_worker_plane_is_where_the_other_hosts_are(self):
        p, log = self.serve("--tp", 2)
        log.seek(0)
        self.assertIn(f"the worker plane listens on {self.h.net}.1", log.read().decode())
        self.assertEqual(self.ask()[0]["text"], self.alone())
        self.stop(p, log)

    def test_hosts_on_two_networks_are_refused_with_both_addresses(self):
        with open(f"{self.h.dir}/apart", "w") as f:
            f.write(f"{self.h.net}.2\n10.79.0.7\n")
        p = subprocess.run(self.h.inside(0, os.path.abspath(BIN), "serve", os.path.abspath(DEMO), "--hostfile", f"{self.h.dir}/apart", "--port", 8200,
                                         "--mpirun-args", self.h.mpirun_args()), capture_output=True, env=mpi_env(), timeout=30)
        said = p.stderr.decode()
        self.assertEqual(p.returncode, 2, said)
        for word in (f"{self.h.net}.2 from its address {self.h.net}.1", "10.79.0.7 from 10.79.0.1", "--listen"):
            self.assertIn(word, said)


class OneHasTheModel(Serving):
    BEFORE = staticmethod(lambda hosts, i: f"mkdir -p {hosts.dir}/models; " + hide_model(hosts, i))

    def test_hosts_without_the_file_get_it_over_the_wire(self):
        model = f"{self.h.dir}/models/demo.gguf"
        os.makedirs(os.path.dirname(model), exist_ok=True)
        shutil.copy(DEMO, model)
        p, log = self.serve("--tp", 3, model=model)
        self.assertEqual(self.ask()[0]["text"], self.alone())
        r = {x["host"]: x for x in self.ranks()}
        self.assertGreater(r[self.h.name(0)]["read_bytes"], 1_900_000)
        for i in (1, 2):
            self.assertEqual(r[self.h.name(i)]["read_bytes"], 0)
            self.assertGreater(r[self.h.name(i)]["received_bytes"], 500_000)
        log.seek(0)
        self.assertIn("is not on this host: it comes over the network from rank 0", log.read().decode())
        self.stop(p, log)


class SlowLinks(Serving):
    def shape(self, rate):
        for i in range(self.N):
            sh("ip", "netns", "exec", self.h.name(i), "tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "64kb", "latency", "50ms")

    @unittest.skipUnless(shutil.which("tc"), "no tc here (iproute2)")
    def test_a_tenth_of_a_gigabit_changes_no_bit(self):
        self.shape("100mbit")
        try:
            p, log = self.serve("--tp", 3)
            self.assertEqual(self.ask()[0]["text"], self.alone())
            self.stop(p, log)
        finally:
            for i in range(self.N):
                sh("ip", "netns", "exec", self.h.name(i), "tc", "qdisc", "del", "dev", "eth0", "root")


@unittest.skipUnless(os.path.exists(LAN_SWITCH) and os.path.exists("/dev/net/tun"), "no TAP devices or no lan_switch here")
class FarLinks(Serving):
    SWITCH = (1000, 200)

    def test_a_gigabit_and_a_fifth_of_a_millisecond_change_no_bit(self):
        """And a wire that is cut and comes back costs time only."""
        p, log = self.serve("--tp", 3)
        self.assertEqual(self.ask()[0]["text"], self.alone())
        threading.Timer(0.05, lambda: self.h.tell("cut 2")).start()
        threading.Timer(0.6, lambda: self.h.tell("join 2")).start()
        self.assertEqual(self.ask()[0]["text"], self.alone())
        self.stop(p, log)


@unittest.skipUnless(os.path.exists(LAN_SWITCH) and os.path.exists("/dev/net/tun"), "no TAP devices or no lan_switch here")
@unittest.skipUnless(os.path.exists(MAKE), "no make_model beside the program")
class LongPrompt(Serving):
    N, SWITCH = 2, (1000, 200)

    def test_what_a_stage_hands_on_leaves_while_nothing_else_is_to_do(self):
        """A prompt in one step: its rows are more than a connection's buffers hold, and MPI moves the rest only while it is asked to."""
        model = f"{self.h.dir}/wide.gguf"
        sh(MAKE, "--arch", "llama", "--layers", "3", "--width", "4096", "--heads", "32", "--kv-heads", "4", "--ffn", "512", "--vocab", "1000", "--type", "q4_0",
           "--context", "2048", "--out", model)
        args = ["generate", model, "--prompt", "q7 Zx " * 300, "--max-tokens", "1", "--temperature", "0", "--threads", "1", "--context", "2048",
                "--max-batch-tokens", "2048"]
        code, want, err = run(*args)
        self.assertEqual(code, 0, err)
        p = subprocess.run(self.h.inside(0, os.path.abspath(BIN), *args, "--pp", 2, "--log-level", "debug", "--hostfile",
                                         f"{self.h.dir}/hosts", "--mpirun-args", self.h.mpirun_args()),
                           capture_output=True, env=mpi_env(), timeout=120)
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertIn(b"rank 1", p.stderr)
        self.assertNotIn(b"stalls", p.stderr)
        self.assertEqual(p.stdout, want)


@unittest.skipUnless(os.path.exists(LAN_SWITCH) and os.path.exists("/dev/net/tun"), "no TAP devices or no lan_switch here")
class SlowLoad(Serving):
    """Only the first host has the file, and the wire is slow: what moves is not given up, and links are known as they are."""
    N, SWITCH = 2, (1, 200)
    BEFORE = staticmethod(lambda hosts, i: f"mkdir -p {hosts.dir}/models; " + hide_model(hosts, i))

    def test_a_load_longer_than_its_timeout_that_moves(self):
        model = f"{self.h.dir}/models/demo.gguf"
        os.makedirs(os.path.dirname(model), exist_ok=True)
        shutil.copy(DEMO, model)
        begin = time.monotonic()
        try:
            p, log = self.serve("--tp", 2, "--load-timeout", 5, "--exact", "off", model=model)
        except AssertionError as e:
            if "waiting for workers to join" in str(e):
                self.skipTest("this machine is too busy to start two ranks in five seconds: that is no load")
            raise
        took = time.monotonic() - begin
        log.seek(0)
        said = log.read().decode()
        self.assertGreater(float(re.search(r"on 2 rank\(s\), loaded in ([\d.]+) s", said).group(1)), 5, "the load was to take longer than --load-timeout")
        self.assertLess(took, 30)
        # so slow a wire was measured, and sums shrink for it: nobody said anything of links
        self.assertIn("sums travel between hosts as q8", said)
        self.stop(p, log)


class Replanning(Serving):
    """A host goes for good: its replica comes back on the others, spare ones first, and the stream goes on with the same bits."""
    def lose_host(self, *args):
        want = None
        p, log = self.serve(*args)
        try:
            body = {"prompt": "Tell me the story of the fox.", "max_tokens": 900, "ignore_eos": True, "seed": 5, "temperature": 0.9}
            want = json.loads(self.curl("/v1/completions", "-d", json.dumps(body)))["choices"][0]["text"]
            ranks = json.loads(self.curl("/health"))["cluster"]["replicas"][0]["ranks"]
            asked = subprocess.Popen(self.h.inside(0, "curl", "-s", "-m", 60, "http://127.0.0.1:8200/v1/completions", "-d", json.dumps(body)),
                                     stdout=subprocess.PIPE)
            time.sleep(0.2)
            for pid in self.h.pids(1):  # the host is dead: its sshd, its rank
                os.kill(pid, signal.SIGKILL)
            got = json.loads(asked.communicate()[0])
            self.assertEqual(got.get("choices", [{}])[0].get("text"), want, got)
            health = json.loads(self.curl("/health"))
            hosts = sorted(r["host"] for r in health["cluster"]["replicas"][0]["ranks"])
            self.assertEqual([a["host"] for a in health["cluster"]["hosts_aside"]], [f"{self.h.net}.2"])
            log.seek(0)
            said = log.read().decode()
            self.assertIn(f"host {self.h.net}.2 is set aside", said)
            print([l for l in said.splitlines() if "recovered in" in l])
            return len(ranks), hosts
        finally:
            self.h.revive(1)
            p.send_signal(signal.SIGTERM)
            self.assertEqual(p.wait(30), 0)
            log.close()

    def test_a_spare_host_takes_its_place(self):
        n, hosts = self.lose_host("--tp", 2)
        self.assertEqual(n, 2)
        self.assertEqual(hosts, [self.h.name(0), self.h.name(2)])

    def test_the_hosts_that_are_left_do_with_another_cut(self):
        n, hosts = self.lose_host()
        self.assertEqual(n, 3)
        self.assertEqual(hosts, [self.h.name(0), self.h.name(2)])


class Hanging(Serving):
    """What stops without a word, told apart by what can be seen from outside."""
    def hang(self, disturb, repair=None):
        """The sentence of /health after `disturb` in the middle of an answer."""
        p, log = self.serve("--tp", 3, "--stall-timeout", 3, "--recovery-timeout", 0, "--comm-timeout", 60)
        try:
            ranks = json.loads(self.curl("/health"))["cluster"]["replicas"][0]["ranks"]
            body = {"prompt": "Tell me the story of the fox.", "max_tokens": 1000, "ignore_eos": True, "n": 16}
            asked = subprocess.Popen(self.h.inside(0, "curl", "-s", "-m", 40, "http://127.0.0.1:8200/v1/completions", "-d", json.dumps(body)),
                                     stdout=subprocess.PIPE)
            time.sleep(1.3)
            disturb(ranks)
            begin = time.monotonic()
            while time.monotonic() < begin + 25:
                health = json.loads(self.curl("/health"))
                if health["status"] != "ok":
                    break
                time.sleep(0.1)
            self.assertNotEqual(health["status"], "ok")
            said = health["error"]["message"]
            print(f"after {time.monotonic() - begin:.1f} s: {said}")
            answer = json.loads(asked.communicate()[0])
            self.assertEqual(answer["error"]["message"], said)  # the stream ends with the same sentence
            return said
        finally:
            if repair:
                repair()
            p.send_signal(signal.SIGTERM)
            self.assertEqual(p.wait(30), 0)
            log.close()
            for i in range(1, 3):  # ranks that were cut off leave by themselves when their stream is gone; the stopped one cannot
                for pid in self.h.pids(i)[1:]:
                    try:
                        os.kill(pid, signal.SIGKILL)
                    except OSError:
                        pass

    def test_a_stopped_process_on_a_host_that_answers(self):
        said = self.hang(lambda ranks: os.kill([r["pid"] for r in ranks if r["host"] == self.h.name(2)][0], signal.SIGSTOP))
        self.assertRegex(said, rf"rank \d \({self.h.name(2)}, cpu \w+, pid \d+\) stalls: no progress past step \d+, (layer \d+|outside the "
                         rf"layers), for [\d.]+ s")
        self.assertIn("its host answers, so the process is stopped", said)
        self.assertRegex(said, r"rank \d waits for it in \S+ #\d+ \((layer \d+|outside the layers)\)")

    def test_a_link_that_carries_nothing(self):
        port = lambda state: sh("ip", "-n", self.h.pre + "sw", "link", "set", "p2", state)
        said = self.hang(lambda ranks: port("down"), lambda: port("up"))
        self.assertIn(self.h.name(2), said)
        self.assertRegex(said, "nothing comes back from its host|there is no way to its host")

    def test_our_own_link_is_down(self):
        port = lambda state: sh("ip", "-n", self.h.name(0), "link", "set", "eth0", state)
        said = self.hang(lambda ranks: port("down"), lambda: port("up"))
        self.assertRegex(said, f"{self.h.name(1)}|{self.h.name(2)}")
        self.assertIn("there is no way to its host (Network is unreachable)", said)

    def test_a_link_between_two_workers_is_cut(self):
        hole = lambda verb: sh("ip", "-n", self.h.name(1), "route", verb, "blackhole", f"{self.h.net}.3/32")
        said = self.hang(lambda ranks: hole("add"), lambda: hole("del"))
        self.assertRegex(said, f"the link between {self.h.name(1)} and {self.h.name(2)}|the link between {self.h.name(2)} and {self.h.name(1)}")


if __name__ == "__main__":
    reason = why_not()
    if reason:
        print("skipped:", reason)
        sys.exit(77)
    unittest.main(verbosity=2)
