"""deploy/slurm under a real Slurm of one machine that plays two nodes: the job serves, survives a killed worker, and ends when told. Needs root and
the packages slurmctld, slurmd, slurm-client and munge; all daemons are ours, on ports of their own."""
import glob
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest

from cluster import BIN, DEMO, alive, children, free_port, mpi_env, run

SBATCH = os.path.abspath("deploy/slurm/tessera.sbatch")


def why_not():
    if os.geteuid() != 0:
        return "not root"
    for tool in ("slurmctld", "slurmd", "sbatch", "srun", "munged"):
        if not shutil.which(tool):
            return f"no {tool} here (Debian: slurmctld slurmd slurm-client munge)"
    if not glob.glob("/usr/lib/*/slurm*/mpi_pmix*.so"):
        return "this Slurm knows no PMIx"
    return None


class Slurm:
    def __init__(self):
        self.dir = d = tempfile.mkdtemp(prefix="tessera-slurm-")
        os.chmod(d, 0o755)
        self.daemons = []
        host = socket.gethostname().split(".")[0]
        ports = [free_port() for _ in range(3)]
        with open(f"{d}/munge.key", "wb") as f:
            f.write(os.urandom(128))
        os.chmod(f"{d}/munge.key", 0o400)
        with open(f"{d}/slurm.conf", "w") as f:
            f.write(f"""ClusterName=tessera
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={d}/munge.socket
CredType=cred/munge
SlurmctldPort={ports[0]}
StateSaveLocation={d}/state
SlurmdSpoolDir={d}/spool.%n
SlurmctldPidFile={d}/slurmctld.pid
SlurmdPidFile={d}/slurmd.%n.pid
SlurmctldLogFile={d}/slurmctld.log
SlurmdLogFile={d}/slurmd.%n.log
TmpFS={d}/tmp.%n
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=3
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
NodeName=n[0-1] NodeHostname={host} NodeAddr=127.0.0.1 Port=[{ports[1]}-{ports[1] + 1}] CPUs=2 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP OverSubscribe=YES
""")
        os.makedirs(f"{d}/state")
        self.env = {**mpi_env(), "SLURM_CONF": f"{d}/slurm.conf"}
        self.start("munged", "--foreground", "--force", f"--socket={d}/munge.socket", f"--key-file={d}/munge.key", f"--pid-file={d}/munge.pid",
                   f"--log-file={d}/munge.log", f"--seed-file={d}/munge.seed")
        self.wait(lambda: os.path.exists(f"{d}/munge.socket"), "munged")
        self.start("slurmctld", "-D", "-c")
        for n in ("n0", "n1"):
            os.makedirs(f"{d}/tmp.{n}")
            os.makedirs(f"{d}/spool.{n}")
            self.start("slurmd", "-D", "-N", n, "-c")
        self.wait(lambda: self.ask("sinfo", "-h", "-o", "%D %t") == "2 idle", "two idle nodes")

    def start(self, *cmd):
        log = open(f"{self.dir}/{cmd[0]}.out", "ab")
        self.daemons.append(subprocess.Popen(cmd, env=self.env, stdout=log, stderr=log))
        log.close()

    def ask(self, *cmd):
        return subprocess.run(cmd, env=self.env, capture_output=True, text=True, timeout=20).stdout.strip()

    def wait(self, what, name, seconds=20):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if what():
                return
            time.sleep(0.1)
        raise AssertionError(f"{name}: not within {seconds} s\n" + self.logs())

    def logs(self):
        out = ""
        for f in sorted(os.listdir(self.dir)):
            if f.endswith((".log", ".out")):
                with open(f"{self.dir}/{f}", errors="replace") as g:
                    out += f"== {f}\n" + g.read()[-3000:]
        return out

    def close(self):
        self.ask("scancel", "--full", "--user=root")
        time.sleep(0.5)
        left = [p for d in self.daemons for p in children(d.pid)]
        for d in reversed(self.daemons):
            d.terminate()
        for d in reversed(self.daemons):
            try:
                d.wait(5)
            except subprocess.TimeoutExpired:
                d.kill()
                d.wait()
        for p in left:
            if alive(p):
                os.kill(p, signal.SIGKILL)
        shutil.rmtree(self.dir, ignore_errors=True)


class Job(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.s = Slurm()

    @classmethod
    def tearDownClass(cls):
        cls.s.close()

    def curl(self, path, *args):
        return subprocess.run(["curl", "-s", "-m", "20", f"http://127.0.0.1:{self.port}{path}", *args], capture_output=True).stdout

    def test_a_job_serves_survives_and_ends(self):
        s, self.port, plane = self.s, free_port(), free_port()
        env = {**s.env, "TESSERA": os.path.abspath(BIN), "TESSERA_ADDRESS": "127.0.0.1", "TESSERA_PLANE_PORT": str(plane), "OMPI_MCA_btl_tcp_if_include": "lo",
               "OMPI_MCA_mpi_yield_when_idle": "1", "OMPI_MCA_btl": "tcp,self", "OMPI_MCA_pml": "ob1"}
        out = subprocess.run(["sbatch", "--parsable", "-N", "2", "--export=ALL", f"--output={s.dir}/job.log", SBATCH, os.path.abspath(DEMO), "--port",
                              str(self.port), "--threads", "1"], env=env, capture_output=True, text=True)
        self.assertEqual(out.returncode, 0, out.stderr)
        job = out.stdout.strip()
        s.wait(lambda: b'"status":"ok"' in self.curl("/health"), "serving", 40)
        ranks = json.loads(self.curl("/health"))["cluster"]["replicas"][0]["ranks"]
        self.assertEqual(len(ranks), 2)
        body = json.dumps({"prompt": "Tell me the story of the fox.", "max_tokens": 30, "seed": 8, "ignore_eos": True})
        said = json.loads(self.curl("/v1/completions", "-d", body))["choices"][0]["text"]
        code, alone, err = run("generate", DEMO, "--prompt", "Tell me the story of the fox.", "--max-tokens", 30, "--seed", 8, "--ignore-eos",
                               "--log-level", "warn")
        self.assertEqual((code, alone.decode().rsplit("\n", 1)[0]), (0, said), err)
        os.kill(ranks[1]["pid"], signal.SIGKILL)  # the step ends, and is started again
        s.wait(lambda: b'"status":"ok"' not in self.curl("/health"), "the loss being seen")
        s.wait(lambda: b'"status":"ok"' in self.curl("/health"), "being back", 40)
        self.assertEqual(json.loads(self.curl("/v1/completions", "-d", body))["choices"][0]["text"], said)
        s.ask("scancel", "--signal=TERM", "--batch", job)
        s.wait(lambda: not s.ask("squeue", "-h", "-j", job), "the job's end", 30)


if __name__ == "__main__":
    reason = why_not()
    if reason:
        print("skipped:", reason)
        sys.exit(77)
    unittest.main(verbosity=2)
