/* vocab.c: the vocabulary's storage and its hash.
 *
 * A model file is not trusted: ids outside the vocabulary are refused, duplicate texts are allowed
 * (the lowest id wins), empty texts exist but are never found, scores that are no numbers lose
 * every comparison. */
#include "engine/text/vocab.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { MAX_TOKENS = 1 << 24 };

static uint32_t hash(const char *p, size_t n) { return (uint32_t)XXH3_64bits(p, n); }

static enum err check_ids(const struct eng_vocab_src *src)
{
    const struct {
        const char *name;
        int32_t id;
    } special[] = {{"BOS", src->bos}, {"EOS", src->eos}, {"EOT", src->eot}, {"unknown", src->unk}};
    for (size_t i = 0; i < COUNT_OF(special); i++)
        if (special[i].id < -1 || special[i].id >= src->n_tokens)
            return err_raise(ERR_BAD_FILE,
                             "the vocabulary's %s token is id %d, but ids go from 0 to %d: "
                             "convert the model again",
                             special[i].name, special[i].id, src->n_tokens - 1);
    for (int32_t i = 0; i < src->n_eog; i++)
        if (src->eog[i] < 0 || src->eog[i] >= src->n_tokens)
            return err_raise(ERR_BAD_FILE,
                             "the token %d that ends a generation is outside the vocabulary of %d",
                             src->eog[i], src->n_tokens);
    for (int32_t i = 0; src->types && i < src->n_tokens; i++)
        if (src->types[i] < 0 || src->types[i] > TOKEN_BYTE)
            return err_raise(ERR_BAD_FILE,
                             "token %d has type %d; known types are 1 (normal) to 6 (byte)", i,
                             src->types[i]);
    return OK;
}

static enum err copy_texts(struct vocab *v, const struct eng_vocab_src *src)
{
    uint64_t total = 0;
    for (int32_t i = 0; i < src->n_tokens; i++) {
        total += src->tokens[i].n;
        if (src->tokens[i].n > UINT32_MAX || total > UINT32_MAX)
            return err_raise(ERR_BAD_FILE, "the vocabulary's texts exceed 4 GiB at token %d", i);
        v->max_len = MAX(v->max_len, src->tokens[i].n);
    }
    v->text = xmalloc((size_t)total + 1);
    v->off = xmalloc(sizeof *v->off * ((size_t)src->n_tokens + 1));
    uint32_t at = 0;
    for (int32_t i = 0; i < src->n_tokens; i++) {
        v->off[i] = at;
        if (src->tokens[i].n) memcpy(v->text + at, src->tokens[i].p, src->tokens[i].n);
        at += (uint32_t)src->tokens[i].n;
    }
    v->off[src->n_tokens] = at;
    return OK;
}

static void build_hash(struct vocab *v)
{
    uint32_t cap = 16;
    while (cap < (uint32_t)v->n * 2) cap *= 2;
    v->mask = cap - 1;
    v->slot = xcalloc(cap, sizeof *v->slot);
    for (int32_t id = 0; id < v->n; id++) {
        struct text_span s = vocab_text(v, id);
        if (!s.n || vocab_find(v, s.p, s.n) >= 0) continue;
        uint32_t at = hash(s.p, s.n) & v->mask;
        while (v->slot[at]) at = (at + 1) & v->mask;
        v->slot[at] = (uint32_t)id + 1;
    }
}

static bool is_byte_name(struct text_span s)
{
    unsigned b;
    char t[7] = "";
    if (s.n != 6) return false;
    memcpy(t, s.p, 6);
    return sscanf(t, "<0x%2X>", &b) == 1 && t[5] == '>';
}

/* Files without types: what the texts themselves say. */
static uint8_t guess_type(const struct vocab *v, int32_t id, bool spm)
{
    struct text_span s = vocab_text(v, id);
    if (id == v->bos || id == v->eos || id == v->eot) return TOKEN_CONTROL;
    if (id == v->unk) return TOKEN_UNKNOWN;
    if (spm && is_byte_name(s)) return TOKEN_BYTE;
    if (s.n > 4 && !memcmp(s.p, "<|", 2) && !memcmp(s.p + s.n - 2, "|>", 2)) return TOKEN_CONTROL;
    return TOKEN_NORMAL;
}

enum err vocab_open(struct vocab *v, const struct eng_vocab_src *src, bool spm)
{
    enum err rc = OK;
    *v = (struct vocab){.bos = src->bos, .eos = src->eos, .eot = src->eot, .unk = src->unk};
    if (src->n_tokens <= 0 || src->n_tokens > MAX_TOKENS || !src->tokens)
        return err_raise(ERR_BAD_FILE, "a vocabulary of %d tokens; 1 to %d are possible",
                         src->n_tokens, MAX_TOKENS);
    TRY(check_ids(src));
    TRY(copy_texts(v, src));
    v->n = src->n_tokens;
    v->type = xmalloc((size_t)v->n);
    v->score = xcalloc((size_t)v->n, sizeof *v->score);
    for (int32_t i = 0; i < v->n; i++) {
        if (src->types)
            v->type[i] = src->types[i] ? (uint8_t)src->types[i] : (uint8_t)TOKEN_NORMAL;
        else
            v->type[i] = guess_type(v, i, spm);
        if (src->scores) v->score[i] = isnan(src->scores[i]) ? -INFINITY : src->scores[i];
    }
    build_hash(v);
    vocab_special_open(v, src, spm);
out:
    if (rc) vocab_close(v);
    return rc;
}

void vocab_close(struct vocab *v)
{
    free(v->text);
    free(v->off);
    free(v->type);
    free(v->score);
    free(v->slot);
    trie_free(&v->trie);
    free(v->eog);
    *v = (struct vocab){0};
}

int32_t vocab_find(const struct vocab *v, const char *p, size_t n)
{
    if (!n || n > v->max_len) return -1;
    for (uint32_t at = hash(p, n) & v->mask; v->slot[at]; at = (at + 1) & v->mask) {
        int32_t id = (int32_t)(v->slot[at] - 1);
        struct text_span s = vocab_text(v, id);
        if (s.n == n && !memcmp(s.p, p, n)) return id;
    }
    return -1;
}

int32_t vocab_find_plain(const struct vocab *v, const char *p, size_t n)
{
    int32_t id = vocab_find(v, p, n);
    return id >= 0 && (v->type[id] == TOKEN_NORMAL || v->type[id] == TOKEN_USER) ? id : -1;
}
