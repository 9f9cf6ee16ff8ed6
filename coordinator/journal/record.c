/* record.c: see record.h. */
#include "coordinator/journal/record.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

enum { VERSION = 1, RESUMABLE = 1 };

/* ---- writing ---- */

void record_file_head(struct buf *out, uint64_t fit)
{
    buf_puts(out, "TSRJ");
    buf_u32(out, VERSION);
    buf_u64(out, fit);
}

/* The record's beginning; its length is put in by finish(). */
static size_t begin(struct buf *out, enum record_kind kind, uint64_t request)
{
    size_t at = out->len;
    buf_u32(out, 0);
    buf_u32(out, (uint32_t)kind);
    buf_u64(out, request);
    return at;
}

static void finish(struct buf *out, size_t at)
{
    size_t n = out->len - at - RECORD_HEAD;
    for (size_t i = 0; i < 4; i++) out->data[at + i] = (uint8_t)(n >> (8 * i));
    buf_u64(out, XXH3_64bits(out->data + at, out->len - at));
}

void record_put_accept(struct buf *out, uint64_t request, const struct record_accept *a)
{
    size_t at = begin(out, RECORD_ACCEPT, request), n_id = strlen(a->id);
    buf_u8(out, a->endpoint);
    buf_u8(out, a->resumable ? RESUMABLE : 0);
    buf_u64(out, a->tenant);
    buf_f32(out, a->weight);
    buf_u64(out, (uint64_t)a->created);
    buf_u64(out, a->seed);
    buf_u32(out, (uint32_t)a->max_tokens);
    buf_u8(out, (uint8_t)n_id);
    buf_put(out, a->id, n_id);
    buf_put(out, a->body, a->n_body);
    finish(out, at);
}

static void put_token(struct buf *out, const struct result_token *t)
{
    buf_u32(out, (uint32_t)t->id);
    buf_f32(out, t->logprob);
    buf_u8(out, (uint8_t)t->n_top);
    for (int32_t i = 0; i < t->n_top; i++) {
        buf_u32(out, (uint32_t)t->top[i].id);
        buf_f32(out, t->top[i].logprob);
    }
}

void record_put_prompt(struct buf *out, uint64_t request, int32_t sub, const struct record_score t[], int32_t n)
{
    size_t at = begin(out, RECORD_PROMPT, request);
    buf_u32(out, (uint32_t)sub);
    buf_u32(out, (uint32_t)n);
    for (int32_t i = 0; i < n; i++) {
        put_token(out, &t[i].token);
        buf_u32(out, (uint32_t)t[i].rank);
    }
    finish(out, at);
}

void record_put_event(struct buf *out, uint64_t request, int32_t sub, const struct token_event *e)
{
    bool token = e->kind == EVENT_TOKEN;
    size_t at = begin(out, token ? RECORD_TOKEN : RECORD_FINISH, request);
    buf_u32(out, (uint32_t)sub);
    buf_u32(out, (uint32_t)e->choice);
    buf_u8(out, (uint8_t)e->finish);
    if (token) {
        put_token(out, e->token);
    } else {
        buf_u32(out, (uint32_t)e->err);
        buf_u32(out, (uint32_t)e->n_prompt);
        buf_u32(out, (uint32_t)e->n_generated);
        buf_u32(out, (uint32_t)e->n_cached);
        buf_u32(out, (uint32_t)e->n_preempted);
        buf_u64(out, (uint64_t)e->queued_us);
        buf_u64(out, (uint64_t)e->prefill_us);
        buf_u64(out, (uint64_t)e->decode_us);
        const char *text = e->text ? e->text : "";
        buf_put(out, text, MIN(strlen(text), sizeof((struct record_event *)0)->text - 1));
    }
    finish(out, at);
}

void record_put_end(struct buf *out, uint64_t request, int64_t now_s)
{
    size_t at = begin(out, RECORD_END, request);
    buf_u64(out, (uint64_t)now_s);
    finish(out, at);
}

/* ---- reading ---- */

enum err record_check_file(const uint8_t *p, size_t n, uint64_t *fit)
{
    struct rd r = rd_of(p, n);
    const void *magic = rd_bytes(&r, 4);
    uint32_t version = rd_u32(&r);
    *fit = rd_u64(&r);
    if (r.bad || memcmp(magic, "TSRJ", 4)) return err_raise(ERR_BAD_CONFIG, "it is not a journal of tessera");
    if (version != VERSION) return err_raise(ERR_BAD_CONFIG, "it is a journal of version %u, this release writes version %d", version, VERSION);
    return OK;
}

static bool read_accept(struct rd *r, struct record_accept *a)
{
    a->endpoint = rd_u8(r);
    uint8_t flags = rd_u8(r);
    a->resumable = flags & RESUMABLE;
    a->tenant = rd_u64(r);
    a->weight = rd_f32(r);
    a->created = (int64_t)rd_u64(r);
    a->seed = rd_u64(r);
    a->max_tokens = (int32_t)rd_u32(r);
    size_t n_id = rd_u8(r);
    const char *id = rd_bytes(r, n_id);
    if (r->bad || n_id >= sizeof a->id || (flags & ~RESUMABLE) || !(a->weight > 0) || a->weight > 1e9f || a->max_tokens < 1) return false;
    if (memchr(id, 0, n_id)) return false;
    memcpy(a->id, id, n_id);
    a->id[n_id] = 0;
    a->n_body = rd_left(r);
    a->body = rd_bytes(r, a->n_body);
    return true;
}

static bool read_token(struct rd *r, struct result_token *t)
{
    t->id = (int32_t)rd_u32(r);
    t->logprob = rd_f32(r);
    t->n_top = rd_u8(r);
    if (t->n_top > LIMIT_LOGPROBS || t->id < 0) return false;
    for (int32_t i = 0; i < t->n_top; i++) {
        t->top[i].id = (int32_t)rd_u32(r);
        t->top[i].logprob = rd_f32(r);
        if (t->top[i].id < 0) return false;
    }
    return !r->bad;
}

bool record_prompt_token(struct rd *r, struct record_score *out)
{
    if (!read_token(r, &out->token)) return false;
    out->rank = (int32_t)rd_u32(r);
    return !r->bad && out->rank >= 0;
}

static bool read_finish(struct rd *r, struct record_event *out)
{
    struct token_event *e = &out->event;
    e->err = (enum err)rd_u32(r);
    e->n_prompt = (int32_t)rd_u32(r);
    e->n_generated = (int32_t)rd_u32(r);
    e->n_cached = (int32_t)rd_u32(r);
    e->n_preempted = (int32_t)rd_u32(r);
    e->queued_us = (int64_t)rd_u64(r);
    e->prefill_us = (int64_t)rd_u64(r);
    e->decode_us = (int64_t)rd_u64(r);
    size_t n = rd_left(r);
    if (r->bad || n >= sizeof out->text || (e->err && !strcmp(err_name(e->err), "UNKNOWN"))) return false;
    const void *text = rd_bytes(r, n);
    if (n) memcpy(out->text, text, n);
    out->text[n] = 0;
    e->text = out->text;
    return true;
}

static bool read_event(struct rd *r, struct record_event *out)
{
    struct token_event *e = &out->event;
    bool token = out->kind == RECORD_TOKEN;
    out->sub = (int32_t)rd_u32(r);
    e->kind = token ? EVENT_TOKEN : EVENT_FINISH;
    e->choice = (int32_t)rd_u32(r);
    uint8_t finish = rd_u8(r);
    if (r->bad || out->sub < 0 || e->choice < (token ? 0 : -1) || finish > FINISH_LENGTH) return false;
    e->finish = (enum seq_finish)finish;
    e->token = token ? &out->token : NULL;
    return token ? read_token(r, &out->token) && !rd_left(r) : read_finish(r, out);
}

static bool read_prompt(struct rd *r, struct record_event *out)
{
    struct record_score t;
    out->sub = (int32_t)rd_u32(r);
    out->n_prompt = (int32_t)rd_u32(r);
    out->prompt_bytes = rd_left(r);
    out->prompt = r->p;
    if (r->bad || out->sub < 0 || out->n_prompt < 0) return false;
    for (int32_t i = 0; i < out->n_prompt; i++)
        if (!record_prompt_token(r, &t)) return false;
    return !rd_left(r);
}

static bool read_payload(struct rd *r, struct record_event *out)
{
    switch (out->kind) {
    case RECORD_ACCEPT: return read_accept(r, &out->accept);
    case RECORD_PROMPT: return read_prompt(r, out);
    case RECORD_TOKEN:
    case RECORD_FINISH: return read_event(r, out);
    case RECORD_END: out->ended_s = (int64_t)rd_u64(r); return !r->bad && !rd_left(r);
    }
    return false;
}

bool record_next(struct rd *r, struct record_event *out, size_t *bytes)
{
    struct rd at = *r;
    const uint8_t *begin = at.p;
    uint32_t n = rd_u32(&at), kind = rd_u32(&at);
    memset(out, 0, offsetof(struct record_event, token));
    out->request = rd_u64(&at);
    const void *payload = n <= RECORD_MAX ? rd_bytes(&at, n) : NULL;
    uint64_t sum = rd_u64(&at);
    if (at.bad || (!payload && n) || n > RECORD_MAX || sum != XXH3_64bits(begin, RECORD_HEAD + (size_t)n)) return false;
    if (kind < RECORD_ACCEPT || kind > RECORD_END) return false;
    out->kind = (enum record_kind)kind;
    struct rd body = rd_of(payload ? payload : begin, n);
    out->n_prompt = 0;
    if (!read_payload(&body, out)) return false;
    *bytes = (size_t)(at.p - begin);
    r->p = at.p;
    return true;
}
