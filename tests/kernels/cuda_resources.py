#!/usr/bin/env python3
"""What ptxas gives each CUDA kernel, compared with the table of docs/gpu-kernels.md, which may not be passed.

    tests/kernels/cuda_resources.py [--nvcc NVCC] [--launcher ccache] [--arch 80,90] [--write]

A row of the table is a kernel with all its types and sizes, its numbers are the most of any of them on any of the architectures that the table
names. --write makes the rows anew, for those architectures; threads are ours to fill in. Another release of nvcc may give other numbers: then only
what a launch needs is checked.
"""
import argparse
import concurrent.futures
import math
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
KERNELS = os.path.join(ROOT, "engine", "kernels", "cuda")
TABLE = os.path.join(ROOT, "docs", "gpu-kernels.md")
FIELDS = ("registers", "frame", "spilled", "shared")  # spilled: bytes of stores
HEAD = "| kernel | threads | registers | frame | spilled | shared | blocks |"
REGISTERS, SHARED = 65536, 48 << 10  # of a multiprocessor, all that we build for; of a block, without asking for more
THREADS = 2048  # of a multiprocessor at most


def blocks(threads, registers):
    """Blocks of a multiprocessor as far as threads and registers go, which a warp gets by 256."""
    return min(THREADS // threads, REGISTERS // (math.ceil(registers * 32 / 256) * 256 * threads // 32))


def compiled(source, arch, nvcc, launcher, folder):
    """[(kernel, numbers)] of one file."""
    name = os.path.basename(source)
    cubin = os.path.join(folder, f"{name}.{arch}.cubin")
    p = subprocess.run([*launcher, nvcc, "-std=c++17", "-O3", "-fmad=false", f"-arch=sm_{arch}", "-cubin", "-Xptxas", "-v", "-I.", "-c",
                        os.path.relpath(source, ROOT), "-o", cubin], cwd=ROOT, capture_output=True, text=True)
    if p.returncode:
        sys.exit(f"{name} does not compile for sm_{arch}:\n{p.stdout}{p.stderr}")
    said = subprocess.run(["c++filt"], input=p.stdout + p.stderr, capture_output=True, text=True, check=True).stdout
    kernels = []
    for entry in re.split(r"Compiling entry function '", said)[1:]:
        kernel = re.search(r"::(\w+)(<.*?>)?\(", entry)
        frame = re.search(r"(\d+) bytes stack frame, (\d+) bytes spill stores", entry)
        used, shared = re.search(r"Used (\d+) registers", entry), re.search(r"(\d+) bytes smem", entry)
        if not (kernel and frame and used):
            sys.exit(f"{name}, sm_{arch}: ptxas says something that this script does not understand:\n{entry}")
        kernels.append((f"{name}: {kernel[1]}", (int(used[1]), int(frame[1]), int(frame[2]), int(shared[1]) if shared else 0)))
    return kernels


def measured(archs, nvcc, launcher):
    most = {}
    sources = sorted(os.path.join(KERNELS, f) for f in os.listdir(KERNELS) if f.endswith(".cu"))
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as pool:
        work = [pool.submit(compiled, s, a, nvcc, launcher, folder) for s in sources for a in archs]
        for kernel, numbers in (k for w in work for k in w.result()):
            most[kernel] = tuple(map(max, numbers, most.get(kernel, numbers)))
    return most


def table_of(text):
    """{kernel: (threads, numbers)}, the architectures and the release that the text tells of."""
    rows = {}
    for line in text.split(HEAD)[1].splitlines()[2:]:
        if not line.startswith("|"):
            break
        cells = [c.strip() for c in line.strip("|").split("|")]
        rows[cells[0].strip("`")] = (int(cells[1]), tuple(map(int, cells[2:6])))
    told = re.search(r"nvcc ([\d.]+) for sm_([\d, ]+\d)", text)
    return rows, re.findall(r"\d+", told[2]), told[1]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--nvcc", default="nvcc")
    p.add_argument("--launcher", default="")
    p.add_argument("--arch", help="default: those of the table")
    p.add_argument("--write", action="store_true")
    o = p.parse_args()
    text = open(TABLE, encoding="utf-8").read()
    rows, archs, release = table_of(text)
    have = re.search(r"release ([\d.]+)", subprocess.run([o.nvcc, "--version"], capture_output=True, text=True, check=True).stdout)[1]
    found = measured(archs if o.write or not o.arch else o.arch.split(","), o.nvcc, o.launcher.split())
    if o.write:
        lines = [HEAD, "|---|" + "---:|" * 6]
        for kernel, numbers in sorted(found.items()):
            threads = rows.get(kernel, (256,))[0]
            lines.append(f"| `{kernel}` | {threads} | " + " | ".join(map(str, numbers)) + f" | {blocks(threads, numbers[0])} |")
        before, after = text.split(HEAD)[0], text.split(HEAD)[1].splitlines()[2:]
        while after and after[0].startswith("|"):
            after.pop(0)
        before = re.sub(r"nvcc [\d.]+ for", f"nvcc {have} for", before)
        open(TABLE, "w", encoding="utf-8").write(before + "\n".join(lines + after) + "\n")
        return
    wrong = []
    for kernel, numbers in sorted(found.items()):
        threads, most = rows.get(kernel, (256, None))
        if blocks(threads, numbers[0]) < 1 or numbers[3] > SHARED:
            wrong.append(f"{kernel}: {threads} threads with {numbers[0]} registers each and {numbers[3]} bytes of shared memory cannot be launched")
        if not most:
            wrong.append(f"{kernel} is not in the table")
        elif have == release:
            wrong += [f"{kernel}: {what} {n}, the table says {m}" for what, n, m in zip(FIELDS, numbers, most) if n > m]
    wrong += [f"{kernel} is in the table only" for kernel in sorted(set(rows) - set(found))]
    for w in wrong:
        print(w)
    if wrong:
        sys.exit("docs/gpu-kernels.md: is it meant so? Then write it anew: tests/kernels/cuda_resources.py --write")
    print(f"{len(found)} kernels use no more than docs/gpu-kernels.md says" if have == release else
          f"nvcc {have}: {len(found)} kernels can be launched; the numbers of docs/gpu-kernels.md are those of {release}")


if __name__ == "__main__":
    main()
