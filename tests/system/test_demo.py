"""The demo model's score, asked through the real cluster: at least 90 % in each kind and 95 % overall (evaluate.py's own exit status)."""
import subprocess
import sys
import unittest

from cluster import Server


class Demo(unittest.TestCase):
    def test_the_score_holds_through_two_ranks(self):
        with Server("--tp", 2, "--threads", 1) as s:
            p = subprocess.run([sys.executable, "-B", "deploy/models/evaluate.py", "--base-url", f"http://127.0.0.1:{s.port}/v1"],
                               capture_output=True, text=True, timeout=200)
        print(p.stdout)
        self.assertEqual(p.returncode, 0, p.stdout + p.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
