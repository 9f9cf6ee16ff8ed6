"""What `cmake --install` and `cpack` put on a machine, and the shell's completion. $TESSERA_BUILD: the build directory."""
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

from cluster import BIN, DEMO, mpi_env

BUILD = os.environ.get("TESSERA_BUILD", "build/release")
INSTALLED = ("bin/tessera", "lib/systemd/system/tessera.service", "share/bash-completion/completions/tessera", "share/man/man1/tessera.1",
             "share/tessera/grafana/tessera.json", "share/tessera/slurm/tessera.sbatch", "share/tessera/restart-loop.sh",
             "share/doc/tessera/README.md", "share/doc/tessera/LICENSE", "share/doc/tessera/docs/cluster.md")


def call(*args, **env):
    p = subprocess.run(args, capture_output=True, text=True, timeout=120, env={**mpi_env(), **env})
    assert p.returncode == 0, (args, p.stdout, p.stderr)
    return p.stdout


def under(root):
    return {str(p.relative_to(root)) for p in pathlib.Path(root).rglob("*") if not p.is_dir()}


class Install(unittest.TestCase):
    def test_everything_lands_below_the_prefix_and_answers_there(self):
        with tempfile.TemporaryDirectory() as d:
            call("cmake", "--install", BUILD, "--prefix", d)
            self.assertEqual(set(INSTALLED) - under(d), set())
            self.assertEqual("lib/tessera/libtessera_cuda.so" in under(d), os.path.exists(f"{BUILD}/bin/libtessera_cuda.so"))
            out = call(f"{d}/bin/tessera", "generate", DEMO, "--chat", "--prompt", "What is the capital of Italy?", "--temperature", "0", "--threads", "1",
                       "--device", "cpu", "--log-level", "warn")
            self.assertIn("Rome", out)

    @unittest.skipUnless(shutil.which("dpkg-shlibdeps"), "no dpkg-shlibdeps here")
    def test_a_package_names_all_that_it_needs(self):
        with tempfile.TemporaryDirectory() as d:
            call("cpack", "-G", "DEB", "--config", f"{BUILD}/CPackConfig.cmake", "-B", d)
            package, = pathlib.Path(d).glob("*.deb")
            self.assertRegex(package.name, r"^tessera_[0-9.]+_[a-z0-9]+\.deb$")
            needs = call("dpkg-deb", "-f", str(package), "Depends")
            for name in ("openmpi-bin", "openssh-client", "libc6", "libopenmpi", "libgrpc", "libmicrohttpd", "libhwloc", "libcurl"):
                self.assertRegex(needs, rf"(^|, ){re.escape(name)}", needs)
            call("dpkg-deb", "-R", str(package), f"{d}/out")
            self.assertEqual({f"usr/{name}" for name in INSTALLED} - under(f"{d}/out"), set())
            # they start nothing; cpack has them run ldconfig where there is a plug-in
            for name in (n for n in under(f"{d}/out/DEBIAN") if n.endswith(("inst", "rm"))):
                with open(f"{d}/out/DEBIAN/{name}") as f:
                    self.assertEqual([line for line in map(str.strip, f) if line and not line.startswith(("#", "set ", "if ", "fi"))], ["ldconfig"], name)
            self.assertEqual(call(f"{d}/out/usr/bin/tessera", "version"), call(BIN, "version"))


class Completion(unittest.TestCase):
    def complete(self, line, **env):
        """What a bash that has read the script offers at the end of a line."""
        script = """source deploy/completion/tessera.bash
            read -ra COMP_WORDS <<<"$1"; [[ $1 == *' ' ]] && COMP_WORDS+=(''); COMP_WORDS[0]=$2
            COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _tessera; printf '%s\n' "${COMPREPLY[@]}" """
        return call("bash", "--norc", "-c", script, "bash", line, BIN, **env).split()

    def test_commands(self):
        self.assertEqual(self.complete("tessera pu"), ["pull"])
        self.assertLess({"serve", "doctor", "drain", "version"}, set(self.complete("tessera ")))
        self.assertEqual(self.complete("tessera bench s"), ["step", "scaling", "serve"])

    def test_options_are_those_of_the_command(self):
        self.assertEqual(sorted(self.complete("tessera serve --kv")), ["--kv-tokens", "--kv-type"])
        self.assertEqual(self.complete("tessera serve model.gguf --hostf"), ["--hostfile"])
        self.assertEqual(self.complete("tessera drain --kv"), [])
        self.assertEqual(self.complete("tessera bench engine --sha"), ["--shape"])

    def test_values_are_those_of_the_option(self):
        self.assertEqual(self.complete("tessera serve --launch "), ["managed", "external"])
        self.assertLess({"f16", "q8_0", "fp8", "fp8_e4m3"}, set(self.complete("tessera serve --kv-type ")))
        self.assertEqual(self.complete("tessera serve --kv-type q"), ["q8_0"])
        self.assertEqual(self.complete("tessera serve --prefix-cache o"), ["on", "off"])
        self.assertEqual(self.complete("tessera serve --context "), [])
        self.assertEqual(self.complete("tessera serve --launch = ex"), ["external"])  # as bash hands on --launch=ex
        self.assertEqual(self.complete("tessera serve --launch ="), ["managed", "external"])

    def test_models_are_those_that_were_pulled(self):
        with tempfile.TemporaryDirectory() as d:
            os.makedirs(f"{d}/org/name")
            for quant in ("Q4_0", "Q8_0"):
                pathlib.Path(f"{d}/org/name/m-{quant}.gguf").write_bytes(b"x")
            for line, offered in (("tessera rm or", ["org/name:Q4_0", "org/name:Q8_0"]), ("tessera serve org/name : Q8", ["Q8_0"]),  # parted as bash does
                                  ("tessera rm org/name :", ["Q4_0", "Q8_0"]), ("tessera rm other", [])):
                self.assertEqual(self.complete(line, TESSERA_MODELS=d), offered, line)

    def test_the_script_is_bash_without_a_mistake(self):
        call("bash", "-n", "deploy/completion/tessera.bash")


if __name__ == "__main__":
    unittest.main()
