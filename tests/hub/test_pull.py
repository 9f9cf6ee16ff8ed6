#!/usr/bin/env python3
"""tessera pull against a hub of our own that drops connections, lies about ranges, sends wrong bytes, refuses tokens and runs dry."""
import email.utils
import hashlib
import http.server
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

TESSERA = os.environ["TESSERA_BIN"]
SMALL = b'{"architectures":["LlamaForCausalLM"]}'
BIG = bytes((i * 7 + i // 251) % 256 for i in range(300000))
PARTS = [BIG[:100000], BIG[100000:]]


class Hub(http.server.BaseHTTPRequestHandler):
    """One repository, org/model, of self.server.files; self.server.plan says how it misbehaves."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def answer(self, status, body=b"", **headers):
        self.send_response(status)
        for k, v in headers.items():
            self.send_header(k.replace("_", "-"), v)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        s = self.server
        s.seen.append((self.path, self.headers.get("Range"), self.headers.get("Authorization")))
        if s.plan.get("token") and self.headers.get("Authorization") != "Bearer " + s.plan["token"]:
            return self.answer(401, b"no")
        if self.path.startswith("/api/models/org/model/tree/main"):
            return self.listing()
        m = re.fullmatch(r"/(?:cdn/)?org/model/resolve/main/(.*)", self.path)
        name = m and m[1].replace("%20", " ")
        if not m or name not in s.files:
            return self.answer(404, b"nothing here")
        if s.plan.get("redirect") and not self.path.startswith("/cdn/"):
            return self.answer(302, Location=s.plan["redirect"] + "/cdn" + self.path)
        self.body(name, s.files[name])

    def listing(self):
        s = self.server
        if s.plan.get("list"):
            return self.answer(200, s.plan["list"])
        if s.plan.get("busy", 0) > 0:
            s.plan["busy"] -= 1
            return self.answer(503, b"later", Retry_After=s.plan.get("retry", "0"))
        entries = [{"type": "directory", "path": "sub", "size": 0, "oid": "0"}]
        for name, data in s.files.items():
            e = {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()}
            if len(data) > 1000:
                e["lfs"] = {"oid": s.plan.get("sums", {}).get(name) or hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 135}
                e["size"] = 135
            entries.append(e)
        if s.plan.get("pages") and "cursor" not in self.path:
            link = s.plan.get("link", '<{url}{path}&cursor=2>; rel="next"').format(url=s.url, path=self.path)
            return self.answer(200, json.dumps(entries[:2]).encode(), Link=link)
        self.answer(200, json.dumps(entries[2:] if s.plan.get("pages") else entries).encode())

    def body(self, name, data):
        s, first = self.server, 0
        if self.headers.get("Range"):
            first = int(re.fullmatch(r"bytes=(\d+)-", self.headers["Range"])[1])
        lie = s.plan.get("range", "honest")
        if first and lie == "ignored":
            first = 0
        if first > len(data) or (first and lie == "416"):
            return self.answer(416)
        begin = first + 1000 if first and lie == "shifted" else first
        send = s.plan.get("wrong", {}).get(name, data)[begin:]
        whole = len(send)
        drop = s.plan.get("drop")
        if drop and whole > drop and s.plan.get("drops", 1) > 0:
            s.plan["drops"] = s.plan.get("drops", 1) - 1
            send = send[:drop]
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
        self.send_header("Content-Length", str(whole + s.plan.get("more", 0)))
        self.end_headers()
        self.wfile.write(send + bytes(s.plan.get("more", 0)))
        if len(send) < whole:
            self.close_connection = True


class Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, address):
        pass   # clients that hang up are what is tested


def serve(files, **plan):
    s = Server(("127.0.0.1", 0), Hub)
    s.files, s.plan, s.seen, s.url = files, plan, [], f"http://127.0.0.1:{s.server_address[1]}"
    threading.Thread(target=s.serve_forever, daemon=True).start()
    return s


CHECKPOINT = {"config.json": SMALL, "tokenizer.json": b"{}", "README.md": b"words", "model-00001-of-00002.safetensors": PARTS[0],
              "model-00002-of-00002.safetensors": PARTS[1], "model.safetensors.index.json": b"{}", "consolidated.safetensors": BIG,
              "original/params.json": b"{}", "pytorch_model.bin": BIG}
WANTED = sorted(set(CHECKPOINT) - {"README.md", "consolidated.safetensors", "original/params.json", "pytorch_model.bin"})
GGUF = {"m-Q4_K_M.gguf": PARTS[0], "m-Q4_K_S.gguf": PARTS[1], "m-Q8_0.gguf": BIG, "mmproj-F16.gguf": PARTS[0],
        "BF16/m-BF16-00001-of-00002.gguf": PARTS[0], "BF16/m-BF16-00002-of-00002.gguf": PARTS[1]}
failures = []


def run(claim, hub, *args, model="org/model", ok=True, says=(), env=None, keep=None, limit=None, tries="3", mixed=False):
    root = keep or tempfile.mkdtemp(prefix="tessera-pull-")
    environ = {**os.environ, "TESSERA_MODELS": root, "HF_ENDPOINT": hub.url + "/", "HF_TOKEN": "", "HOME": root, **(env or {})}

    def limited():
        if limit:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    p = subprocess.run([TESSERA, "pull", model, "--tries", tries, "--pause-ms", "5", "--stall-timeout", "5", *args], env=environ, capture_output=True,
                       text=True, timeout=60, preexec_fn=limited)
    wrong = []
    if (p.returncode == 0) != ok:
        wrong.append(f"exit {p.returncode}")
    wrong += [f"'{s}' is not said" for s in says if s not in p.stderr]
    where = os.path.join(root, "org", "model")
    there = sorted(os.path.relpath(os.path.join(d, f), where) for d, _, files in os.walk(where) for f in files if f != ".lock" and ".tessera" not in d)
    for name in there:
        if not mixed and not os.path.basename(name).startswith(".") and name in hub.files and open(os.path.join(where, name), "rb").read() != hub.files[name]:
            wrong.append(f"{name} has other bytes")
    if wrong:
        failures.append(claim)
        print(f"FAILED {claim}: {', '.join(wrong)}\n{p.stderr}")
    else:
        print(f"ok     {claim}")
    return p, where, there, root


def expect(claim, good):
    if not good:
        failures.append(claim)
        print(f"FAILED {claim}")


def fetched(hub):
    return sorted(path.rsplit("/", 1)[1] for path, _, _ in hub.seen if "/resolve/" in path)


def flip(path, keep_time=False):
    """One bit of a file that is here, its size kept."""
    st = os.stat(path)
    with open(path, "r+b") as f:
        byte = f.read(1)[0]
        f.seek(0)
        f.write(bytes([byte ^ 1]))
    if keep_time:
        os.utime(path, ns=(st.st_atime_ns, st.st_mtime_ns))


def what_changed(root, where):
    """A folder that was pulled, and a hub whose files have the same sizes and other bytes."""
    shard = "model-00001-of-00002.safetensors"
    new = {**CHECKPOINT, "config.json": SMALL.replace(b"Llama", b"Lamma"), shard: PARTS[0][::-1]}
    hub = serve(new)
    run("what the hub has changed is fetched again", hub, keep=root, says=["config.json: the file that is here is not the one", "fetched anew"])
    expect("that and nothing else", fetched(hub) == ["config.json", shard])
    hub = serve(new)
    run("once", hub, keep=root)
    expect("and no more", not fetched(hub))
    flip(os.path.join(where, shard))
    flip(os.path.join(where, "config.json"))
    hub = serve(new)
    run("what somebody has written into is fetched again", hub, keep=root, says=["checking what is here"])
    expect("both", fetched(hub) == ["config.json", shard])
    flip(os.path.join(where, shard), keep_time=True)
    hub = serve(new)
    run("what a disk has damaged is found by --check", hub, "--check", keep=root, says=["checking what is here"])
    expect("that", fetched(hub) == [shard])
    os.utime(os.path.join(where, shard))
    hub = serve(new)
    run("a file that was only touched is summed", hub, keep=root, says=["checking what is here"])
    expect("and stays", not fetched(hub))
    shutil.rmtree(os.path.join(where, ".tessera"))
    hub = serve(new)
    run("of a folder of an older version what has a sum is summed", hub, keep=root, says=["checking what is here"])
    expect("and small files come again", fetched(hub) == ["config.json", "model.safetensors.index.json", "tokenizer.json"])
    part = os.path.join(where, ".config.json.part")
    with open(part, "wb") as f:
        f.write(b"other")
    os.unlink(os.path.join(where, "config.json"))
    run("a part of a small file, which no sum checks, is begun anew", serve(new), keep=root)


def what_is_unfinished():
    def inspect(root, model="org/model"):
        p = subprocess.run([TESSERA, "inspect", model], env={**os.environ, "TESSERA_MODELS": root}, capture_output=True, text=True)
        return "is not finished: tessera pull " + model in p.stderr

    missing = {"model-00002-of-00002.safetensors": bytes(200000)}
    _, _, _, root = run("a pull that breaks off", serve(CHECKPOINT, wrong=missing), ok=False)
    expect("leaves no model", inspect(root))
    run("until it is finished", serve(CHECKPOINT), keep=root)
    expect("then it is one", not inspect(root))
    new = {**CHECKPOINT, **{name: data[::-1] for name, data in CHECKPOINT.items() if name.startswith("model-")}}
    run("old and new shards side by side", serve(new, wrong=missing), ok=False, keep=root, mixed=True)
    expect("are none", inspect(root))
    run("until all are new", serve(new), keep=root)
    expect("then they are one", not inspect(root))
    _, _, _, root = run("a split file of which a part is missing", serve(GGUF, wrong={"BF16/m-BF16-00002-of-00002.gguf": bytes(200000)}),
                        model="org/model:BF16",
                        ok=False)
    expect("is none", inspect(root, "org/model:BF16"))
    run("another quantisation beside it", serve(GGUF), model="org/model:Q8_0", keep=root)
    expect("is a model", not inspect(root, "org/model:Q8_0"))
    expect("and does not finish it", inspect(root, "org/model:BF16"))


def main():
    hub = serve(CHECKPOINT)
    p, where, there, root = run("a checkpoint comes with config, words and safetensors, and nothing else", hub)
    expect("those files", there == WANTED)
    expect("the path is printed", p.stdout.strip() == where)
    n = len(hub.seen)
    run("what is here is not fetched again", hub, keep=root)
    expect("only the list was asked for", len(hub.seen) == n + 1)
    what_changed(root, where)
    what_is_unfinished()
    hub = serve(GGUF)
    p, where, there, root = run("a quantisation is one file", hub, model="org/model:q4_k_m")
    expect("that one", there == ["m-Q4_K_M.gguf"] and p.stdout.strip().endswith("m-Q4_K_M.gguf"))
    p, where, there, _ = run("parts in a folder of their own", hub, model="org/model:BF16")
    expect("both", there == ["BF16/m-BF16-00001-of-00002.gguf", "BF16/m-BF16-00002-of-00002.gguf"] and p.stdout.strip().endswith("00001-of-00002.gguf"))
    p, _, there, _ = run("unsaid it is Q4_K_M", hub)
    expect("that one", there == ["m-Q4_K_M.gguf"])
    run("a quantisation that is not there is refused with those that are", hub, model="org/model:Q2_K", ok=False, says=["no GGUF of 'Q2_K'", "m-Q8_0.gguf"])
    run("a model that is not there", hub, model="org/other", ok=False, says=["has no model org/other"])
    run("no name", hub, model="model", ok=False, says=["not ORG/NAME"])
    run("nothing that could be served", serve({"README.md": b"x"}), ok=False, says=["neither GGUF"])

    hub = serve(CHECKPOINT, drop=60000, drops=3)
    run("dropped connections go on where they stood", hub, says=["trying again"])
    expect("by ranges", any(r == "bytes=60000-" for _, r, _ in hub.seen))
    run("a server that always drops and knows no ranges is given up", serve(CHECKPOINT, drop=60000, drops=99, range="ignored"), ok=False)
    hub = serve(CHECKPOINT, drop=60000, drops=1, range="ignored")
    run("a server without ranges sends all again", hub)
    run("one that sends another range than was asked for is begun anew", serve(CHECKPOINT, drop=60000, drops=1, range="shifted"), says=["from the beginning"])
    run("one that always does so is given up", serve(CHECKPOINT, drop=60000, drops=99, range="shifted"), ok=False, says=["was asked for"])
    run("one that says the range cannot be", serve(CHECKPOINT, drop=60000, drops=1, range="416"))
    run("more bytes than the file has are refused", serve(CHECKPOINT, more=500), ok=False, says=["sends more than"])

    hub = serve(CHECKPOINT, wrong={"model-00001-of-00002.safetensors": bytes(100000)})
    _, where, there, root = run("wrong bytes are refused", hub, ok=False, says=["sha256", "promised"])
    expect("and do not lie there under the file's name", "model-00001-of-00002.safetensors" not in there)
    run("and when they are right they come", serve(CHECKPOINT), keep=root)
    run("a sum of another file is refused", serve(CHECKPOINT, sums={"model-00002-of-00002.safetensors": "0" * 64}), ok=False, says=["promised 000000"])

    run("no token", serve(CHECKPOINT, token="hf_secret"), ok=False, says=["it needs a token", "terms are accepted"])
    run("a wrong token", serve(CHECKPOINT, token="hf_secret"), ok=False, says=["the token was refused"], env={"HF_TOKEN": "hf_other"})
    run("the right token", serve(CHECKPOINT, token="hf_secret"), env={"HF_TOKEN": "hf_secret"})
    with tempfile.NamedTemporaryFile("w", suffix=".token") as f:
        f.write("hf_secret\n")
        f.flush()
        run("the right token in a file", serve(CHECKPOINT, token="hf_secret"), "--token-file", f.name)
    run("a token with a line in it", serve(CHECKPOINT), ok=False, says=["characters that no token has"], env={"HF_TOKEN": "a\r\nX: y"})
    run("a token is not sent without https", serve(CHECKPOINT), "--endpoint", "http://hub.example", ok=False, says=["without https"],
        env={"HF_TOKEN": "hf_secret"})
    other = serve(CHECKPOINT)
    hub = serve(CHECKPOINT, token="hf_secret", redirect=other.url.replace("127.0.0.1", "localhost"))
    run("redirects to another host are followed", hub, env={"HF_TOKEN": "hf_secret"})
    expect("without the token", other.seen and not any(a for _, _, a in other.seen))

    run("a busy hub is asked again", serve(CHECKPOINT, busy=2), says=["503", "try 2 of 3 follows", "try 3 of 3 follows"])
    run("a hub that stays busy is given up", serve(CHECKPOINT, busy=99), ok=False, says=["503"])
    begun = time.monotonic()
    run("Retry-After may be a date", serve(CHECKPOINT, busy=1, retry=email.utils.formatdate(time.time() + 3, usegmt=True)), says=["503"])
    expect("which is waited for", 1.5 < time.monotonic() - begun < 20)
    begun = time.monotonic()
    run("Retry-After that is neither", serve(CHECKPOINT, busy=2, retry="soon"), "--pause-ms", "400", says=["try 3 of 3"])
    expect("leaves the pauses that double", time.monotonic() - begun > 1.1)
    run("a list in pages", serve(CHECKPOINT, pages=True))
    _, _, there, _ = run("a mirror's list that goes on at the hub itself",
                         serve(CHECKPOINT, pages=True, link='<https://hub.example{path}&cursor=2>; rel="next"'))
    expect("is read from the mirror", there == WANTED)
    run("the same as a path, behind another link", serve(CHECKPOINT, pages=True, link='<{url}/x>; rel="prev", <{path}&cursor=2>; rel="next"'))
    run("a list that goes on elsewhere is not a whole one", serve(CHECKPOINT, pages=True, link='<https://hub.example/x?cursor=2>; rel="next"'), ok=False,
        says=["goes on at 'https://hub.example/x?cursor=2'"])
    run("nor one whose next page has no end", serve(CHECKPOINT, pages=True, link=f'<{{url}}{{path}}&cursor={"2" * 3000}>; rel="next"'),
        ok=False, says=["too long"])
    for what, text in {"no list": b"<html>", "a file that leads elsewhere": b'[{"type":"file","path":"../x.gguf","size":1}]',
                       "an absolute one": b'[{"type":"file","path":"/etc/x.gguf","size":1}]', "no size": b'[{"type":"file","path":"x.gguf"}]',
                       "a sum that is none": b'[{"type":"file","path":"x.gguf","size":9,"lfs":{"oid":"zz","size":9}}]',
                       "a part too few": b'[{"type":"file","path":"x-00001-of-00002.gguf","size":1}]'}.items():
        run(f"a hub's list: {what}", serve(CHECKPOINT, list=text), ok=False, says=["hub"])
    run("too little room is said before anything is fetched",
        serve(CHECKPOINT, list=json.dumps([{"type": "file", "path": "x.gguf", "size": 1 << 60}]).encode()), ok=False, says=["GB more"])
    _, where, there, root = run("a full disk keeps what came", serve(CHECKPOINT), ok=False, says=["what came is kept"], limit=50000)
    expect("as a part", any(t.endswith(".part") for t in there))
    hub = serve(CHECKPOINT)
    run("and goes on from there", hub, keep=root)
    expect("by a range", any(r for _, r, _ in hub.seen))
    gone = serve(CHECKPOINT)
    gone.shutdown()
    gone.server_close()
    run("no server", gone, ok=False, says=["127.0.0.1"])

    hub = serve(GGUF)
    _, _, _, root = run("pulled", hub, model="org/model:Q8_0")
    env = {**os.environ, "TESSERA_MODELS": root}
    p = subprocess.run([TESSERA, "inspect", "org/model"], env=env, capture_output=True, text=True)
    expect("other commands find it by its name", os.path.join(root, "org/model/m-Q8_0.gguf") in p.stderr)
    for c in (["bench", "engine"], ["render"]):
        p = subprocess.run([TESSERA, *c, "org/model"], env=env, capture_output=True, text=True, input="{}")
        expect(f"{c[0]} does", os.path.join(root, "org/model/m-Q8_0.gguf") in p.stderr)
    p = subprocess.run([TESSERA, "inspect", "org/nothing:Q8_0"], env=env, capture_output=True, text=True)
    expect("and say how to fetch what is not here", "tessera pull org/nothing:Q8_0" in p.stderr)
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    try:
        code = main()
    finally:
        for d in os.listdir(tempfile.gettempdir()):
            if d.startswith("tessera-pull-"):
                shutil.rmtree(os.path.join(tempfile.gettempdir(), d), ignore_errors=True)
    sys.exit(code)
