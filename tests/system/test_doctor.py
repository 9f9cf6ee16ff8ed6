"""`tessera doctor` against staged faults: each is named, with its host, and nothing else is; a
healthy host and a healthy cluster raise no alarm. The clusters are network namespaces (see
test_hosts.py); without root, ip or sshd only the tests of a single host run."""
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

from cluster import BIN, DEMO, children, mpi_env, run
from test_hosts import NET, Hosts, sh, why_not

REASON = why_not()


def alarms(report):
    """(severity, check, where) of all that is worse than a note."""
    return [(f["severity"], f["check"], f["where"]) for f in report["findings"]
            if f["severity"] in ("warn", "fail")]


def sentence(report, check):
    """All of the findings of one check that are worse than a note, as text."""
    return "\n".join(json.dumps(f) for f in report["findings"]
                     if f["check"] == check and f["severity"] in ("warn", "fail"))


class OneHost(unittest.TestCase):
    def doctor(self, *args, limits=(), env=None):
        def tighten():
            for what, value in limits:
                resource.setrlimit(what, (value, value))
        p = subprocess.run([BIN, "doctor", *map(str, args), "--json"], capture_output=True,
                           timeout=60, env=env or mpi_env(), preexec_fn=tighten)
        self.assertTrue(p.stdout, p.stderr)
        return p.returncode, json.loads(p.stdout)

    def test_this_healthy_host_raises_no_alarm(self):
        code, report = self.doctor(DEMO)
        self.assertEqual((code, alarms(report)), (0, []), report)
        self.assertEqual(report["collective"]["state"], "ok")
        code, out, err = run("doctor", DEMO)
        self.assertEqual(code, 0, err)
        self.assertIn(b"healthy", out)

    def test_this_machine_is_recorded_under_its_own_name(self):
        with tempfile.TemporaryDirectory() as d:
            code, _ = self.doctor("--reduce=off", "--record", f"{d}/here.topo")
            with open(f"{d}/here.topo") as f:
                self.assertIn(f"host {os.uname().nodename} ", f.read())
            self.assertEqual(code, 0)
            code, out, err = run("doctor", "--reduce=off", "--record", "/nowhere/x.topo")
            self.assertEqual(code, 2)
            self.assertIn("cannot write /nowhere/x.topo", err)

    def test_slots_are_cards_first_and_what_is_left_shares_the_processors(self):
        with tempfile.TemporaryDirectory() as d:
            with open(f"{d}/topo", "w") as f:
                f.write("tessera topology 1\nhost box cores=8\ncpu cpu cores=8 memory=8GiB read=80GB/s ops=9T\n"
                        + "".join(f"gpu card{i} memory=8GiB read=84GB/s ops=9T\n" for i in range(2)))
            for slots, want in ((1, {"card0"}), (2, {"card0", "card1"}), (4, {"card0", "card1", "cpu/0", "cpu/1"})):
                with open(f"{d}/hosts", "w") as f:
                    f.write(f"box slots={slots}\n")
                code, out, err = run("plan", DEMO, "--topo", f"{d}/topo", "--hostfile", f"{d}/hosts", "--tp", slots, "--json")
                self.assertEqual(code, 0, err)
                self.assertEqual({r["device"] for r in json.loads(out)["ranks"]}, want)

    def test_facts_are_one_line(self):
        code, out, err = run("doctor", "--facts", DEMO)
        self.assertEqual((code, out.count(b"\n")), (0, 1), err)
        facts = json.loads(out)
        self.assertEqual(facts["model_bytes"], os.path.getsize(DEMO))
        self.assertEqual(facts["host"], os.uname().nodename)

    def test_a_model_that_is_missing_is_named(self):
        code, report = self.doctor("/nowhere/model.gguf", "--reduce=off")
        self.assertEqual((code, [a[:2] for a in alarms(report)]), (2, [("fail", "model")]))
        self.assertIn("No such file", sentence(report, "model"))

    def test_tiny_limits_are_named(self):
        limits = ((resource.RLIMIT_NOFILE, 200), (resource.RLIMIT_MEMLOCK, 16384))
        code, report = self.doctor(DEMO, "--reduce=off", limits=limits)
        self.assertEqual((code, [a[:2] for a in alarms(report)]),
                         (2, [("fail", "limits"), ("warn", "limits")]))
        for seen in ("nofile 200", "memlock 16 KiB"):
            self.assertIn(seen, sentence(report, "limits"))

    def test_a_host_without_open_mpi_is_named(self):
        with tempfile.TemporaryDirectory() as d:
            for tool in ("sh", "getent"):
                os.symlink(shutil.which(tool), f"{d}/{tool}")
            code, report = self.doctor(DEMO, env={**mpi_env(), "PATH": d})
        self.assertEqual((code, sorted({a[:2] for a in alarms(report)})),
                         (2, [("fail", "all-reduce"), ("fail", "versions")]))
        self.assertIn("openmpi-bin", sentence(report, "versions"))

    def test_an_mpirun_that_hangs_meets_a_deadline(self):
        with tempfile.TemporaryDirectory() as d:
            with open(f"{d}/mpirun", "w") as f:
                f.write("#!/bin/sh\ncase $1 in --version) echo 'mpirun (Open MPI) 4.1.4';; "
                        "*) exec sleep 1000;; esac\n")
            os.chmod(f"{d}/mpirun", 0o755)
            start = time.monotonic()
            code, report = self.doctor(DEMO, "--timeout", 1,
                                       env={**mpi_env(), "PATH": f"{d}:{os.environ['PATH']}"})
        self.assertEqual((code, [a[:2] for a in alarms(report)]), (2, [("fail", "all-reduce")]))
        self.assertIn("hangs", sentence(report, "all-reduce"))
        self.assertLess(time.monotonic() - start, 20)

    def test_a_bad_hostfile_is_refused(self):
        code, _, err = run("doctor", "--hostfile", "/nowhere/hosts")
        self.assertEqual(code, 2)
        self.assertIn("/nowhere/hosts", err)


@unittest.skipIf(REASON, REASON)
class SeveralHosts(unittest.TestCase):
    def cluster(self, n, fault=None):
        """n hosts with names that resolve and a model of their own path; fault(hosts, i): more
        commands."""
        def before(h, i):
            return (f"mount --bind {h.dir}/names /etc/hosts; " + (fault(h, i) if fault else ""))
        self.files = tempfile.mkdtemp(prefix="tessera-doctor-")
        self.model = f"{self.files}/model.gguf"
        shutil.copy(DEMO, self.model)
        real_mkdtemp = tempfile.mkdtemp

        def with_names(*a, **kw): # the names must be there before the first host starts
            d = real_mkdtemp(*a, **kw)
            pre = f"ts{os.getpid() % 10000}"
            with open(f"{d}/names", "w") as f:
                f.write("127.0.0.1 localhost\n")
                f.writelines(f"{NET}.{i + 1} {pre}h{i}\n" for i in range(n))
            return d
        tempfile.mkdtemp = with_names
        try:
            self.h = Hosts(n, before)
        finally:
            tempfile.mkdtemp = real_mkdtemp
        self.addCleanup(shutil.rmtree, self.files, True)
        self.addCleanup(self.h.close)

    def doctor(self, *args, mpi="", seconds=90):
        agent = f"--mca plm_rsh_agent {self.h.dir}/rsh --mca mpi_yield_when_idle 1 " + mpi
        cmd = self.h.inside(0, os.path.abspath(BIN), "doctor", self.model, "--hostfile",
                            f"{self.h.dir}/hosts", "--mpirun-args", agent, "--json", *args)
        p = subprocess.run(cmd, capture_output=True, timeout=seconds, env=mpi_env())
        self.assertTrue(p.stdout, p.stderr.decode())
        self.assertEqual(children(os.getpid()), [], "nothing is left running here")
        self.settled()
        return p.returncode, json.loads(p.stdout)

    def settled(self):
        for i in range(self.h.n):
            for _ in range(100):
                left = self.commands(i)
                if not left:
                    break
                time.sleep(0.1)
            self.assertFalse(left, f"left on host {i}")

    def commands(self, i):
        """What runs on a host besides its sshd and what it is told to hang with."""
        found = []
        for pid in self.h.pids(i):
            try:
                with open(f"/proc/{pid}/cmdline") as f:
                    line = f.read().replace("\0", " ")
            except OSError:
                continue
            if "sshd" not in line and "sleep 1000" not in line:
                found.append(line)
        return found

    def name(self, i):
        return f"{self.h.name(i)} ({NET}.{i + 1})"

    def test_a_healthy_cluster_raises_no_alarm(self):
        self.cluster(3)
        code, report = self.doctor()
        self.assertEqual((code, alarms(report)), (0, []), json.dumps(report, indent=1))
        self.assertEqual([h["facts"]["host"] for h in report["hosts"]],
                         [self.h.name(i) for i in range(3)])
        chosen = {(p["from"], p["to"]) for p in report["paths"] if p["chosen"]}
        self.assertEqual(len(chosen), 6, "every pair, both ways")
        self.assertEqual((report["collective"]["state"], report["collective"]["ranks"]), ("ok", 3))

    def test_machines_and_links_are_recorded_for_the_planner(self):
        """Written as the hostfile names the hosts, so that plan and serve know them by it."""
        self.cluster(3)
        rack = f"{self.files}/rack.topo"
        code, report = self.doctor("--reduce=off", "--record", rack)
        self.assertEqual((code, alarms(report)), (0, []), json.dumps(report, indent=1))
        with open(rack) as f:
            lines = [line.split() for line in f]
        self.assertEqual([w[1] for w in lines if w[0] == "host"], [f"{NET}.{i + 1}" for i in range(3)])
        self.assertEqual(sorted(tuple(sorted(w[1:3])) for w in lines if w[0] == "link"),
                         [(f"{NET}.{a}", f"{NET}.{b}") for a, b in ((1, 2), (1, 3), (2, 3))])
        reads = [w for line in lines if line[0] == "cpu" for w in line if w.startswith("read=")]
        self.assertEqual(len(reads), 3)
        code, out, err = run("plan", DEMO, "--topo", rack, "--hostfile", f"{self.h.dir}/hosts", "--context", 512, "--json")
        self.assertEqual(code, 0, err)
        hosts = {r["host"] for r in json.loads(out)["ranks"]}
        self.assertTrue(hosts and hosts <= {f"{NET}.{i + 1}" for i in range(3)}, out)

    def test_another_model_and_tiny_limits_are_named_with_their_host(self):
        def fault(h, i):
            if i == 1: # cut short
                return (f"head -c 1000000 {self.model} > {self.files}/short; "
                        f"mount --bind {self.files}/short {self.model}; ")
            if i == 2: # one byte of the head, and limits
                return (f"(printf X; tail -c +2 {self.model}) > {self.files}/other; "
                        f"mount --bind {self.files}/other {self.model}; "
                        "ulimit -n 200; ulimit -l 16; ")
            return ""
        self.cluster(3, fault)
        code, report = self.doctor("--reduce=off")
        self.assertEqual(code, 2)
        self.assertEqual(alarms(report), [("fail", "model", self.name(1)),
                                          ("fail", "model", self.name(2)),
                                          ("fail", "limits", self.name(2)),
                                          ("warn", "limits", self.name(2))], report["findings"])
        self.assertIn("1000000 bytes", sentence(report, "model"))
        self.assertIn("head", sentence(report, "model"))

    def test_names_that_lead_to_loopback_are_named(self):
        def fault(h, i):
            with open(f"{h.dir}/debian", "w") as f:
                f.write(f"127.0.0.1 localhost\n127.0.1.1 {h.name(1)}\n")
            return f"mount --bind {h.dir}/debian /etc/hosts; " if i == 1 else ""
        self.cluster(2, fault)
        code, report = self.doctor("--reduce=off")
        self.assertEqual((code, alarms(report)), (1, [("warn", "names", self.name(1))]))
        self.assertIn("127.0.1.1", sentence(report, "names"))
        self.assertIn(f"{NET}.2", sentence(report, "names"))

    def test_a_name_that_hides_another_host_is_named(self):
        def fault(h, i): # on the first host, the second one's name means the first
            with open(f"{h.dir}/hiding", "w") as f:
                f.write(f"127.0.0.1 localhost\n{NET}.1 {h.name(0)}\n127.0.0.1 {h.name(1)}\n")
            return f"mount --bind {h.dir}/hiding /etc/hosts; " if i == 0 else ""
        self.cluster(2, fault)
        with open(f"{self.h.dir}/hosts", "w") as f:
            f.write(f"{self.h.name(0)}\n{self.h.name(1)} slots=1\n")
        code, report = self.doctor("--reduce=off")
        self.assertEqual((code, [a[:2] for a in alarms(report)]), (2, [("fail", "names")]))
        self.assertIn(f"{self.h.name(1)} -> 127.0.0.1", sentence(report, "names"))

    def test_a_signal_ends_it_and_all_it_started(self):
        self.cluster(2)
        cmd = self.h.inside(0, os.path.abspath(BIN), "doctor", self.model, "--hostfile",
                            f"{self.h.dir}/hosts", "--mpirun-args",
                            f"--mca plm_rsh_agent {self.h.dir}/rsh")
        p = subprocess.Popen(cmd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             env=mpi_env())
        time.sleep(0.4)
        p.send_signal(signal.SIGTERM)
        self.assertNotEqual(p.wait(15), 0)
        self.settled()

    def test_a_blocked_way_is_named_with_both_ends(self):
        def fault(h, i): # ssh from the first host still works; the other two do not meet
            return f"ip route add blackhole {NET}.3/32; " if i == 1 else ""
        self.cluster(3, fault)
        code, report = self.doctor("--reduce=off")
        self.assertEqual(code, 2)
        self.assertEqual({a for a in alarms(report)},
                         {("fail", "network", f"{self.name(1)} -> {self.name(2)}"),
                          ("fail", "network", f"{self.name(2)} -> {self.name(1)}")})

    def test_a_host_that_is_gone_is_named_and_the_others_are_looked_at(self):
        self.cluster(3)
        sh("ip", "-n", self.h.name(2), "link", "set", "eth0", "down")
        code, report = self.doctor("--timeout", "5")
        self.assertEqual((code, alarms(report)), (2, [("fail", "start", f"{NET}.3")]))
        self.assertIn("ssh", sentence(report, "start"))
        self.assertEqual((report["collective"]["state"], report["collective"]["ranks"]), ("ok", 2))

    def test_another_version_and_a_wrong_clock_are_named(self):
        self.cluster(2)
        wrapper = f"{self.files}/tessera"
        with open(wrapper, "w") as f: # it lies on the second host: an hour ahead, and older
            f.write(f"""#!/bin/sh
[ "$(hostname)" = {self.h.name(1)} ] || exec {os.path.abspath(BIN)} "$@"
{os.path.abspath(BIN)} "$@" | sed -u -e 's/"version":"[^"]*"/"version":"0.0.9"/' \
    -e 's/"unix_us":\\([0-9]*\\)[0-9]\\{{10\\}}/"unix_us":\\19999999999/'
""")
        os.chmod(wrapper, 0o755)
        code, report = self.doctor("--reduce=off", "--program", wrapper)
        self.assertEqual((code, alarms(report)), (2, [("fail", "versions", self.name(1)),
                                                      ("warn", "clock", self.name(1))]), report)
        self.assertIn("0.0.9", sentence(report, "versions"))

    def test_a_binary_that_is_missing_or_hangs_is_named(self):
        self.cluster(3)
        wrapper = f"{self.files}/tessera"
        with open(wrapper, "w") as f:
            f.write(f"""#!/bin/sh
case $(hostname) in
{self.h.name(1)}) echo 'libfoo.so.1: cannot open shared object file' >&2; exit 127;;
{self.h.name(2)}) [ $1 = version ] || exec sleep 1000;;
esac
exec {os.path.abspath(BIN)} "$@"
""")
        os.chmod(wrapper, 0o755)
        code, report = self.doctor("--timeout", "4", "--program", wrapper)
        self.assertEqual((code, alarms(report)), (2, [("fail", "start", f"{NET}.2"),
                                                      ("fail", "start", f"{NET}.3")]), report)
        self.assertIn("libfoo.so.1", sentence(report, "start"))
        self.assertIn("hangs", sentence(report, "start"))

    def test_an_interface_that_leads_nowhere_and_unequal_mtus_are_named(self):
        def fault(h, i): # docker's: the same address on every host
            return "ip link add docker0 type bridge; ip addr add 172.17.0.1/16 dev docker0; " \
                   "ip link set docker0 up; " if not os.path.exists(f"{h.dir}/sshd{i}.pid") else ""
        self.cluster(2, fault)
        sh("ip", "-n", self.h.name(1), "link", "set", "eth0", "mtu", "1400")
        code, report = self.doctor("--reduce=off")
        self.assertEqual(code, 1, report["findings"])
        self.assertEqual({a[1] for a in alarms(report)}, {"network", "mtu"})
        self.assertIn("docker0 172.17.0.1", sentence(report, "network"))
        self.assertIn("1400", sentence(report, "mtu"))
        code, report = self.doctor("--reduce=off", mpi=f"--mca btl_tcp_if_include {NET}.0/24")
        self.assertEqual({a[1] for a in alarms(report)}, {"mtu"}, report["findings"])


if __name__ == "__main__":
    if REASON:
        print("tests of several hosts skipped:", REASON)
    unittest.main(verbosity=2)
