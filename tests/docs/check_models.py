#!/usr/bin/env python3
"""Every test that docs/models.md names is in the tree and is one that ctest runs; every table has a cell with one.
With --ran LOG (build/.../Testing/Temporary/LastTest.log): and each of them ran there, or said why it skips.

A cell names `program: test`. The program is a tessera_test of some CMakeLists.txt under tests/, and the test a claim of its
source: a cmocka test's function or its given name, where GOLDEN(x, "claim") also makes "checkpoint_claim"."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]


def programs():
    """name of the program -> its sources' text"""
    found = {}
    for cmake in (ROOT / "tests").rglob("CMakeLists.txt"):
        text = cmake.read_text()
        for name, rest in re.findall(r"tessera_test\((\S+)\s+SOURCES\s+([^)]*)\)", text):
            var = re.search(r"\$\{(\w+)\}", name)
            loop = re.search(rf"foreach\({var[1]} ([^)]*)\)", text) if var else None
            for n in loop[1].split() if loop else [name]:
                sources = [s.replace(var[0], n) if var else s for s in rest.split() if s.endswith(".c")]
                found[n] = "".join((cmake.parent / s).read_text() for s in sources)
    return found


def is_claim(source, test):
    if re.search(rf"(cmocka_unit_test\w*|\bT)\(\s*{re.escape(test)}\b", source) or f'"{test}"' in source:
        return True
    if test.startswith("checkpoint_") and '"checkpoint_" claim' in source:
        return f'"{test[len("checkpoint_"):]}"' in source
    made = re.fullmatch(r"ids_of_(.*)_are_exact", test)
    return bool(made) and '"ids_of_" name "_are_exact"' in source and f'GOLDEN("{made[1]}")' in source


def ran(log):
    """name of the program -> the tests that its part of ctest's log tells of"""
    parts = re.split(r"^\d+/\d+ Testing: (\S+)$", pathlib.Path(log).read_text(errors="replace"), flags=re.M)
    return {name: set(re.findall(r"^\[ +(?:OK|SKIPPED) +\] (\S+)", text, flags=re.M)) for name, text in zip(parts[1::2], parts[2::2])}


def main():
    log = ran(sys.argv[2]) if sys.argv[1:2] == ["--ran"] else None
    doc = (ROOT / "docs/models.md").read_text()
    known, wrong = programs(), []
    named = re.findall(r"`([a-z0-9_]+): ([A-Za-z0-9_-]+)`", doc)
    for program, test in named:
        if program not in known:
            wrong.append(f"no test program '{program}' (for {test})")
        elif not is_claim(known[program], test):
            wrong.append(f"program '{program}' has no test '{test}'")
        elif log and test not in log.get(program, ()):
            wrong.append(f"test '{test}' of '{program}' did not run, or failed")
    rows = [line for line in doc.splitlines() if line.startswith("|") and "|--" not in line]
    empty = [r for r in rows if "`" in r and not re.search(r"`[a-z0-9_]+: ", r)]
    wrong += [f"a row without a test: {r}" for r in empty]
    for w in wrong:
        print("docs/models.md:", w)
    print(f"docs/models.md: {len(named)} tests named, {len(wrong)} wrong" + (", the others ran" if log else ""))
    return 1 if wrong or len(named) < 30 else 0


if __name__ == "__main__":
    sys.exit(main())
