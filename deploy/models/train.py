#!/usr/bin/env python3
"""Train tessera-demo: first its tokenizer, then the model. Needs torch, tokenizers and numpy; a CPU will do.

    python3 train.py --out /tmp/demo             about an hour on two cores
    python3 train.py --out /tmp/demo --resume    go on from the last checkpoint
    python3 train.py --out /tmp/demo --minutes 40   be done in 40 minutes, with fewer steps if need be
"""

import argparse
import json
import math
import os
import random
import time

import tokenizers
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn as nn
import torch.nn.functional as F
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

import make_data
from chat import TEMPLATE, render, render_parts

SEED = make_data.SEED
VOCAB, DIM, HEADS, KV_HEADS, HEAD_DIM, FFN, LAYERS, CONTEXT = 2048, 128, 16, 8, 32, 512, 4, 1024
EPS, THETA = 1e-5, 10000.0
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# the "qwen2" rule: letters with at most one sign before them, single digits, runs of signs, white space
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")


# --- tokenizer ------------------------------------------------------------------------------------

def train_tokenizer(path):
    rng = random.Random(SEED)
    texts = []
    for _ in range(40000):
        msgs, tools = make_data.conversation(rng)
        texts.append(msgs if isinstance(msgs, str) else "".join(t for t, _ in render_parts(msgs, tools)))
    # the words and countries of the lists are met often: let most of them be one token
    texts += [" " + w for w in make_data.WORDS] * 900 + [" " + c for c in make_data.CAPITAL] * 600
    texts += list(make_data.STORIES.values()) * 12
    for s in SPECIAL:
        texts = [t.replace(s, "\n") for t in texts]
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(SPLIT), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tok.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCAB - len(SPECIAL), initial_alphabet=alphabet, show_progress=False))
    tok.add_special_tokens(SPECIAL)
    assert tok.get_vocab_size() == VOCAB and tok.token_to_id(SPECIAL[0]) == VOCAB - 3
    tok.save(path)


def encode(tok, msgs, tools):
    """token ids, and 1 for those the model itself must write"""
    if isinstance(msgs, str):
        ids = tok.encode(msgs).ids + [VOCAB - 3]
        return ids, [1] * len(ids)
    ids, own = [], []
    for text, answer in render_parts(msgs, tools):
        part = tok.encode(text).ids
        ids += part
        own += [int(answer)] * len(part)
    return ids, own


# --- model ----------------------------------------------------------------------------------------

def rotate(x, cos, sin):
    """Rotary embedding on the pairs (2i, 2i+1). x: [batch, heads, time, HEAD_DIM]"""
    a, b = x[..., 0::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)


def attend(q, k, v):
    """Causal attention. On a CPU the plain form in bf16 is the fastest up to some 150 positions."""
    t = q.shape[2]
    if t > 160:
        return F.scaled_dot_product_attention(q.float(), k.float(), v.float(), is_causal=True)
    q, k = (q * HEAD_DIM ** -.5).to(v.dtype), k.to(v.dtype)
    later = torch.full((t, t), -1e9, dtype=v.dtype).triu(1)
    return torch.matmul((torch.matmul(q, k.transpose(-1, -2)) + later).softmax(-1, dtype=v.dtype), v)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn_norm, self.ffn_norm = nn.RMSNorm(DIM, EPS), nn.RMSNorm(DIM, EPS)
        self.q, self.k = nn.Linear(DIM, HEADS * HEAD_DIM, bias=False), nn.Linear(DIM, KV_HEADS * HEAD_DIM, bias=False)
        self.v, self.o = nn.Linear(DIM, KV_HEADS * HEAD_DIM, bias=False), nn.Linear(HEADS * HEAD_DIM, DIM, bias=False)
        self.gate, self.up = nn.Linear(DIM, FFN, bias=False), nn.Linear(DIM, FFN, bias=False)
        self.down = nn.Linear(FFN, DIM, bias=False)

    def forward(self, x, cos, sin):
        b, t, _ = x.shape
        h = self.attn_norm(x)
        q = rotate(self.q(h).view(b, t, HEADS, HEAD_DIM).transpose(1, 2), cos, sin)
        k = rotate(self.k(h).view(b, t, KV_HEADS, HEAD_DIM).transpose(1, 2), cos, sin)
        v = self.v(h).view(b, t, KV_HEADS, HEAD_DIM).transpose(1, 2)
        n = HEADS // KV_HEADS
        a = attend(q, k.repeat_interleave(n, 1), v.repeat_interleave(n, 1))
        x = x + self.o(a.transpose(1, 2).reshape(b, t, -1))
        h = self.ffn_norm(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(VOCAB, DIM)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.RMSNorm(DIM, EPS)
        for name, p in self.named_parameters():
            if p.dim() == 2:
                std = .05 if "embed" in name else p.shape[1] ** -.5
                nn.init.normal_(p, std=std / (2 * LAYERS) ** .5 if name.endswith(("o.weight", "down.weight")) else std)
        angle = torch.outer(torch.arange(CONTEXT).float(), THETA ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM))
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, ids, positions, chosen=None):
        """Logits of every position, or only of the chosen ones."""
        cos, sin = self.cos[positions].unsqueeze(1), self.sin[positions].unsqueeze(1)
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x, cos, sin)
        x = self.norm(x)
        return F.linear(x if chosen is None else x[chosen], self.embed.weight)


# --- batches --------------------------------------------------------------------------------------

def batches(tok, rng, tokens_per_batch, pool=3000):
    """Conversations of like length together, so that little is computed for padding."""
    while True:
        rows = []
        while len(rows) < pool:
            row = encode(tok, *make_data.conversation(rng))
            if len(row[0]) <= CONTEXT:
                rows.append(row)
        rows.sort(key=lambda r: len(r[0]) + rng.random() * 4)
        out, batch = [], []
        for r in rows:
            if batch and (len(batch) + 1) * len(r[0]) > tokens_per_batch:
                out.append(batch)
                batch = []
            batch.append(r)
        rng.shuffle(out)   # the last, partly filled batch is left out
        for b in out:
            yield collate(b, rng)


def collate(rows, rng=None):
    width = max(len(r[0]) for r in rows)
    ids = torch.full((len(rows), width), VOCAB - 3)
    weight = torch.zeros(len(rows), width)
    positions = torch.arange(width).repeat(len(rows), 1)
    for i, (x, own) in enumerate(rows):
        n = len(x)
        ids[i, :n] = torch.tensor(x)
        weight[i, :n] = torch.tensor(own) * .75 + .25
        # A rotary embedding only knows distances. To make distances up to CONTEXT familiar without long rows,
        # some rows pretend that there is more text between two of their turns than there is.
        if rng and rng.random() < .25:
            starts = [j for j, t in enumerate(x) if t == VOCAB - 2][1:]
            if starts:
                positions[i, rng.choice(starts):] += rng.randint(0, CONTEXT - width)
    return ids, weight, positions


@torch.no_grad()
def held_out(model, tok, rows):
    """kind -> [right, all]: which evaluation answers greedy decoding would reproduce exactly"""
    score, data = {}, []
    for r in rows:
        ids = tok.encode(render(r["messages"], r.get("tools"))).ids
        answer = tok.encode(r["expect"]).ids + [VOCAB - 1]
        data.append((ids + answer, [0] * len(ids) + [1] * len(answer), r["kind"]))
    data.sort(key=lambda d: len(d[0]))
    for i in range(0, len(data), 16):
        part = data[i:i + 16]
        ids, _, positions = collate([d[:2] for d in part])
        best = model(ids, positions).argmax(-1)
        for j, (x, own, kind) in enumerate(part):
            n = score.setdefault(kind, [0, 0])
            n[0] += all(best[j, t - 1] == x[t] for t in range(1, len(x)) if own[t])
            n[1] += 1
    return score


def check_template():
    try:
        import jinja2
    except ImportError:
        return
    env = jinja2.Environment()
    env.filters["tojson"] = make_data.dumps
    rng = random.Random(1)
    for _ in range(500):
        msgs, tools = make_data.conversation(rng)
        if not isinstance(msgs, str):
            a = env.from_string(TEMPLATE).render(messages=msgs, tools=tools, add_generation_prompt=True)
            assert a == render(msgs, tools), (a, render(msgs, tools))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--out", required=True)
    ap.add_argument("--steps", type=int, default=3300)
    ap.add_argument("--minutes", type=float, default=1e9, help="end after this time; the rate falls accordingly")
    ap.add_argument("--lr", type=float, default=3e-3)
    ap.add_argument("--batch", type=int, default=8192, help="tokens in a batch")
    ap.add_argument("--resume", action="store_true")
    ap.add_argument("--seed", type=int, default=SEED)
    ap.add_argument("--procs", type=int, default=2, help="processes of one thread each, which share every batch")
    a = ap.parse_args()
    os.makedirs(a.out, exist_ok=True)
    check_template()
    if not os.path.exists(os.path.join(a.out, "tokenizer.json")):
        train_tokenizer(os.path.join(a.out, "tokenizer.json"))
    meeting = os.path.join(a.out, "meeting")
    if os.path.exists(meeting):
        os.remove(meeting)
    mp.spawn(train, (a, meeting), a.procs)


def train(rank, a, meeting):
    dist.init_process_group("gloo", init_method="file://" + os.path.abspath(meeting), rank=rank, world_size=a.procs)
    torch.set_num_threads(1)
    torch.manual_seed(a.seed)
    tok = Tokenizer.from_file(os.path.join(a.out, "tokenizer.json"))
    rows = [json.loads(x) for x in open(os.path.join(make_data.HERE, "eval.jsonl"), encoding="utf-8")]

    model = Model()
    matrices = [p for p in model.blocks.parameters() if p.dim() == 2]
    others = [model.embed.weight] + [p for p in model.parameters() if p.dim() < 2]
    opts = [torch.optim.Muon(matrices, lr=a.lr, weight_decay=.05, adjust_lr_fn="match_rms_adamw"),
            torch.optim.AdamW(others, lr=a.lr, betas=(.9, .98), weight_decay=0.)]
    step, last = 0, os.path.join(a.out, "last.pt")
    if a.resume:
        state = torch.load(last)
        model.load_state_dict(state["model"])
        for o, saved in zip(opts, state["opts"]):
            o.load_state_dict(saved)
        step = state["step"]
    first = step / a.steps
    log = open(os.path.join(a.out, "log.txt"), "a")

    def say(text):
        if rank == 0:
            print(text, flush=True)
            print(text, file=log, flush=True)

    say(f"torch {torch.__version__}, tokenizers {tokenizers.__version__}, seed {a.seed}, "
        f"{a.steps} steps of {a.batch} tokens, lr {a.lr}, "
        f"{sum(p.numel() for p in model.parameters())} parameters, from step {step}")
    start, seen, mean = time.time(), 0, []
    for ids, weight, positions in batches(tok, random.Random(a.seed + step), a.batch):
        if len(ids) < a.procs:
            continue
        seen += ids.numel()
        ids, weight, positions = ids[rank::a.procs], weight[rank::a.procs, 1:], positions[rank::a.procs]
        passed = torch.tensor((time.time() - start) / 60 / a.minutes)
        dist.broadcast(passed, 0)
        done = min(1, max(step / a.steps, first + (1 - first) * passed.item()))
        lr = a.lr * min(1, (step + 1) / 100) * (.01 + .99 * .5 * (1 + math.cos(math.pi * done)))
        for o in opts:
            for g in o.param_groups:
                g["lr"] = lr
        chosen = (weight == 1) | ((weight > 0) & (torch.rand(weight.shape) < .2))   # answers, and a fifth of the rest
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(ids[:, :-1], positions[:, :-1], chosen)
        loss, w = F.cross_entropy(logits.float(), ids[:, 1:][chosen], reduction="none"), weight[chosen]
        own = loss[w == 1].mean()
        loss = (loss * w).sum() / w.sum()
        model.zero_grad(set_to_none=True)
        loss.backward()
        grads = torch.cat([p.grad.flatten() for p in model.parameters()])
        dist.all_reduce(grads)
        grads *= 1 / a.procs
        for p, g in zip(model.parameters(), grads.split([p.numel() for p in model.parameters()])):
            p.grad.copy_(g.view_as(p))
        nn.utils.clip_grad_norm_(model.parameters(), 1.)
        for o in opts:
            o.step()
        step += 1
        end = step == a.steps or done >= 1
        mean.append(own.item())
        if step % 50 == 0 or end:
            took = time.time() - start
            say(f"step {step:5d}  loss on answers {sum(mean) / len(mean):.4f}  "
                f"{took / 60:.1f} min, {seen / took:.0f} tokens/s")
            mean = []
        if step % 250 == 0 or end:
            parts, score = [None] * a.procs, {}
            dist.all_gather_object(parts, held_out(model, tok, rows[rank::a.procs]))
            for part in parts:
                for kind, n in part.items():
                    score[kind] = [x + y for x, y in zip(score.get(kind, [0, 0]), n)]
            right, total = map(sum, zip(*score.values()))
            say(f"step {step:5d}  held out {right / total:.1%}: "
                + ", ".join(f"{k} {r / n:.0%}" for k, (r, n) in score.items()))
        if rank == 0 and (step % 100 == 0 or end):
            state = {"model": model.state_dict(), "opts": [o.state_dict() for o in opts], "step": step}
            torch.save(state, last + ".new")
            os.replace(last + ".new", last)
        if end:
            break


if __name__ == "__main__":
    main()
