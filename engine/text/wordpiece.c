/* wordpiece.c: see wordpiece.h. A piece has at most TRIE_MAX_LEN bytes, so a word costs at most that many steps for each of its bytes. */
#include "engine/text/wordpiece.h"

#include "engine/text/rules.h"

#include <stdlib.h>
#include <string.h>

static enum err add_piece(struct wordpiece *w, struct text_span mark, int32_t id)
{
    struct text_span s = vocab_text(w->v, id);
    if (s.n > TRIE_MAX_LEN) return err_raise(ERR_BAD_FILE, "piece %d has %zu bytes, at most %d are accepted", id, s.n, TRIE_MAX_LEN);
    trie_add(&w->first, s.p, s.n, id);
    if (!w->same && s.n > mark.n && !memcmp(s.p, mark.p, mark.n)) trie_add(&w->inner, s.p + mark.n, s.n - mark.n, id);
    return OK;
}

static void find_pieces(struct wordpiece *w, const struct eng_text_rules *r)
{
    w->is_piece = xcalloc((size_t)w->v->n + 1, 1);
    for (int32_t id = 0; id < w->v->n; id++) w->is_piece[id] = w->v->type[id] == TOKEN_NORMAL || w->v->type[id] == TOKEN_USER;
    for (int32_t i = 0; i < r->n_added; i++)
        if (r->added[i].foreign) w->is_piece[r->added[i].id] = false;
}

enum err wordpiece_open(struct wordpiece *w, const struct vocab *v, const struct eng_vocab_src *src)
{
    enum err rc = OK;
    const struct eng_text_rules *r = src->rules;
    *w = (struct wordpiece){.v = v, .whole = !strcmp(src->model, "wordlevel"), .same = !r->inner.n, .most_chars = r->most_chars};
    if (v->unk < 0) return err_raise(ERR_BAD_FILE, "the unknown token of a vocabulary of words is not in it: unk_token must name one of its tokens");
    find_pieces(w, r);
    for (int32_t id = 0; id < v->n && !w->whole; id++)
        if (w->is_piece[id]) TRY(add_piece(w, r->inner, id));
out:
    if (rc) wordpiece_close(w);
    return rc;
}

void wordpiece_close(struct wordpiece *w)
{
    free(w->is_piece);
    trie_free(&w->first);
    trie_free(&w->inner);
    *w = (struct wordpiece){0};
}

static bool too_long(const struct wordpiece *w, const char *p, size_t n)
{
    int64_t chars = 0;
    for (size_t i = 0; i < n; i++) chars += ((uint8_t)p[i] & 0xC0) != 0x80;
    return chars > w->most_chars;
}

/* Pieces until none stands where the last one ended; returns that place. */
static size_t put_pieces(const struct wordpiece *w, const char *p, size_t n, struct eng_tokens *out)
{
    size_t at = 0, len = 0;
    for (; at < n; at += len) {
        int32_t id = trie_longest(at && !w->same ? &w->inner : &w->first, p + at, n - at, &len);
        if (id < 0) break;
        eng_tokens_push(out, id);
    }
    return at;
}

void wordpiece_encode_word(const struct wordpiece *w, const char *p, size_t n, struct eng_tokens *out)
{
    size_t before = out->n;
    if (w->whole) {
        int32_t id = vocab_find(w->v, p, n);
        eng_tokens_push(out, id >= 0 && w->is_piece[id] ? id : w->v->unk);
        return;
    }
    if (!too_long(w, p, n) && put_pieces(w, p, n, out) == n) return;
    out->n = before;
    eng_tokens_push(out, w->v->unk);
}
