#!/usr/bin/env python3
"""README.md and docs/cluster.md as somebody who wants to act on them needs them: links lead somewhere, every page of docs/ is listed, lines are short, and
every `tessera COMMAND --option` there, and in the systemd unit, is one that the program has.

check_readme.py PROGRAM"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/cluster.md", "docs/promises.md")
WIDTH = 160
wrong = []


def links(page, text):
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target and not (ROOT / page).parent.joinpath(target).exists():
            wrong.append(f"{page}: a link to {target}, which is not there")


def options_of(program, command, seen={}):
    if command not in seen:
        out = subprocess.run([program, command, "--help"], capture_output=True, text=True).stdout
        seen[command] = set(re.findall(r"--([a-z][a-z0-9-]*)", out))
        if not seen[command]:
            wrong.append(f"no `tessera {command} --help`")
    return seen[command]


def commands(program, where, text):
    """Command lines with their options, up to a comment or the end of the line."""
    n = 0
    for command, rest in re.findall(r"tessera (serve|plan|doctor|worker|generate|reload|drain|pull|status|list|rm) ([^#`|\n]*)", text):
        rest = re.sub(r'"[^"]*"', "", rest)
        for option in re.findall(r"(?<=\s)--([a-z][a-z0-9-]*)", " " + rest):
            n += 1
            if option not in options_of(program, command):
                wrong.append(f"{where}: `tessera {command}` has no --{option}")
    return n


def unit(program):
    path = ROOT / "deploy/systemd/tessera.service"
    text = path.read_text()
    n = commands(program, path.name, re.sub(r"\\\n\s*", "", text))
    if not re.search(r"(?m)^\[Unit\]$", text) or not re.search(r"(?m)^ExecStart=tessera ", text) or not re.search(r"(?m)^WantedBy=", text):
        wrong.append(f"{path.name}: no unit with ExecStart and WantedBy")
    if shutil.which("systemd-analyze"):
        with tempfile.TemporaryDirectory() as d:  # the program and the user of the unit need not be on this machine
            copy = pathlib.Path(d) / path.name
            copy.write_text(re.sub(r"(?m)^User=.*\n", "", text).replace("ExecStart=tessera ", "ExecStart=/bin/true "))
            p = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True)
            if p.returncode or path.name in p.stderr:
                wrong.append(f"{path.name}: systemd says: {p.stderr.strip()}")
    return n


def main():
    program, n = sys.argv[1], 0
    for page in PAGES:
        text = (ROOT / page).read_text()
        links(page, text)
        n += commands(program, page, text)
        wrong.extend(f"{page}:{i}: {len(line)} columns, at most {WIDTH}" for i, line in enumerate(text.splitlines(), 1) if len(line) > WIDTH)
    readme = (ROOT / "README.md").read_text()
    wrong.extend(f"README.md does not list docs/{p.name}" for p in (ROOT / "docs").glob("*.md") if f"](docs/{p.name})" not in readme)
    in_unit = unit(program)
    for w in wrong:
        print(w)
    print(f"{n} options named in {len(PAGES)} pages, {in_unit} in the unit, {len(wrong)} wrong")
    return 1 if wrong or n < 20 or in_unit < 5 else 0


if __name__ == "__main__":
    sys.exit(main())
