/* unigram.c: see unigram.h. The best way to each position is known when it is reached, so one walk from the left suffices. */
#include "engine/text/unigram.h"

#include "engine/text/rules.h"
#include "engine/text/utf8.h"

#include <float.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 1 << 22 };

static const double UNKNOWN_PENALTY = 10;

/* May a text become this token? */
static bool is_piece(const struct unigram *u, int32_t id)
{
    uint8_t type = u->v->type[id];
    if (u->sentencepiece) return type == TOKEN_NORMAL || type == TOKEN_USER;
    return type != TOKEN_CONTROL && type != TOKEN_UNUSED;
}

/* SentencePiece: among the scores of plain pieces only; of the highest it begins to look at the smallest number above 0. */
static void find_limits(struct unigram *u)
{
    float least = u->sentencepiece ? FLT_MAX : (float)u->score[0];
    u->most = FLT_MIN;
    u->unknown = u->score[0];
    for (int32_t id = 0; id < u->n; id++) {
        u->unknown = MIN(u->unknown, u->score[id]);
        if (u->v->type[id] != TOKEN_NORMAL) continue;
        least = MIN(least, (float)u->score[id]);
        u->most = MAX(u->most, (float)u->score[id]);
    }
    u->unknown = u->sentencepiece ? (double)(least - (float)UNKNOWN_PENALTY) : u->unknown - UNKNOWN_PENALTY;
}

enum err unigram_open(struct unigram *u, const struct vocab *v, const struct eng_vocab_src *src)
{
    enum err rc = OK;
    *u = (struct unigram){.v = v, .n = MIN(src->n_log_probs, v->n), .sentencepiece = src->rules->sentencepiece};
    if (v->unk < 0 || !u->n) TRY(err_raise(ERR_BAD_FILE, "a vocabulary of %d pieces without an unknown token", u->n));
    u->score = xmalloc((size_t)u->n * sizeof *u->score);
    memcpy(u->score, src->log_probs, (size_t)u->n * sizeof *u->score);
    find_limits(u);
    for (int32_t id = 0; id < u->n; id++) {
        struct text_span s = vocab_text(v, id);
        if (s.n > TRIE_MAX_LEN) TRY(err_raise(ERR_BAD_FILE, "piece %d has %zu bytes, at most %d are accepted", id, s.n, TRIE_MAX_LEN));
        if (s.n && vocab_find(v, s.p, s.n) != id) TRY(err_raise(ERR_BAD_FILE, "piece %d is there twice", id));
        if (is_piece(u, id)) trie_add(&u->pieces, s.p, s.n, id);
    }
    for (unsigned b = 0; b < 256; b++) {
        char name[8];
        snprintf(name, sizeof name, "<0x%02X>", b);
        u->byte_id[b] = src->rules->byte_fallback ? vocab_find(v, name, 6) : -1;
    }
out:
    if (rc) unigram_close(u);
    return rc;
}

void unigram_close(struct unigram *u)
{
    trie_free(&u->pieces);
    free(u->score);
    *u = (struct unigram){0};
}

void unigram_work_free(struct unigram_work *w)
{
    free(w->at);
    *w = (struct unigram_work){0};
}

static void offer(const struct unigram *u, struct unigram_work *w, size_t from, size_t to, double score, int32_t id)
{
    struct unigram_node *t = &w->at[to];
    if (u->sentencepiece) score = (double)(float)score;
    if (t->from < 0 || score > t->score) *t = (struct unigram_node){score, (int32_t)from, id};
}

/* A piece of n bytes. */
static double score_of(const struct unigram *u, int32_t id, size_t n)
{
    bool taken = u->sentencepiece && u->v->type[id] == TOKEN_USER;
    return taken ? (double)((float)n * u->most) - 0.1 : u->score[id];
}

/* The best way to each position of p[n]. */
static void walk(const struct unigram *u, struct unigram_work *w, const char *p, size_t n)
{
    if (w->cap <= n) {
        w->cap = MAX(n + 1, w->cap * 2);
        w->at = xrealloc(w->at, sizeof *w->at * w->cap);
    }
    for (size_t i = 0; i <= n; i++) w->at[i].from = -1;
    w->at[0].score = 0;
    for (size_t at = 0, len; at < n; at += len) {
        double here = w->at[at].score;
        bool whole = false; /* the character alone is a piece */
        (void)utf8_step((const uint8_t *)p + at, n - at, &len);
        int32_t node = 0;
        for (size_t i = at; i < n && (node = trie_step(&u->pieces, node, (uint8_t)p[i]));) {
            int32_t id = u->pieces.at[node].value;
            i++;
            if (id < 0) continue;
            offer(u, w, at, i, score_of(u, id, i - at) + here, id);
            whole |= i - at == len;
        }
        if (whole) continue;
        double unknown = u->sentencepiece ? (double)((float)u->unknown + (float)here) : u->unknown + here;
        offer(u, w, at, at + len, unknown, u->v->unk);
    }
}

/* Each position of the best way to n learns where the next one is, instead of the last. */
static void turn_round(struct unigram_work *w, size_t n)
{
    int32_t next = (int32_t)n;
    for (int32_t at = (int32_t)n; at >= 0;) {
        int32_t from = w->at[at].from;
        w->at[at].from = next;
        next = at;
        at = from;
    }
}

static void put_unknown(const struct unigram *u, const char *p, size_t n, struct eng_tokens *out)
{
    int32_t id = u->sentencepiece ? -1 : vocab_find(u->v, p, n);
    bool piece = id >= 0 && id < u->n && u->v->type[id] != TOKEN_CONTROL, bytes = !piece;
    for (size_t i = 0; i < n && bytes; i++) bytes = u->byte_id[(uint8_t)p[i]] >= 0;
    for (size_t i = 0; i < n && bytes; i++) eng_tokens_push(out, u->byte_id[(uint8_t)p[i]]);
    if (!bytes) eng_tokens_push(out, piece ? id : u->v->unk);
}

static void encode(const struct unigram *u, struct unigram_work *w, const char *p, size_t n, struct eng_tokens *out)
{
    walk(u, w, p, n);
    turn_round(w, n);
    for (size_t at = 0, end; at < n; at = end) {
        end = (size_t)w->at[at].from;
        int32_t id = w->at[end].id;
        if (id != u->v->unk) {
            eng_tokens_push(out, id);
            continue;
        }
        while (end < n && w->at[w->at[end].from].id == u->v->unk) end = (size_t)w->at[end].from;
        put_unknown(u, p + at, end - at, out);
    }
}

void unigram_encode_word(const struct unigram *u, struct unigram_work *w, const char *p, size_t n, struct eng_tokens *out)
{
    while (n > MOST) {
        size_t cut = MOST;
        while (cut > MOST - 4 && ((uint8_t)p[cut] & 0xC0) == 0x80) cut--;
        encode(u, w, p, cut, out);
        p += cut, n -= cut;
    }
    if (n) encode(u, w, p, n, out);
}
