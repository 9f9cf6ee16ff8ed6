/* encode.c: see encode.h. A range of numbers written in digits (UTF-8's are 6 bits, \u's are 4)
 * splits at its first digit: below, a run of whole blocks, above. */
#include "engine/grammar/encode.h"

#include "base/rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void eng_encoder_open(struct encoder *e, struct draft *d, struct arena *a)
{
    *e = (struct encoder){.d = d, .a = a};
}

void eng_encoder_close(struct encoder *e)
{
    map64_free(&e->by_dfa);
    map64_free(&e->by_set);
    free(e->sets);
    *e = (struct encoder){0};
}

/* ---- digits ---- */

static void hex_digit(struct draft *d, int32_t from, uint32_t lo, uint32_t hi, int32_t to)
{
    if (lo < 10) eng_draft_bytes(d, from, (uint8_t)('0' + lo), (uint8_t)('0' + MIN(hi, 9u)), to);
    if (hi < 10) return;
    lo = MAX(lo, 10u);
    eng_draft_bytes(d, from, (uint8_t)('a' + lo - 10), (uint8_t)('a' + hi - 10), to);
    eng_draft_bytes(d, from, (uint8_t)('A' + lo - 10), (uint8_t)('A' + hi - 10), to);
}

struct digits {
    int bits;
    int left;
    uint8_t lead;
}; /* digits after the first; what is added to the first (UTF-8) */

static void digit(struct draft *d, const struct digits *g, int32_t from, uint32_t lo, uint32_t hi,
                  int32_t to)
{
    if (g->bits == 4)
        hex_digit(d, from, lo, hi, to);
    else
        eng_draft_bytes(d, from, (uint8_t)(g->lead + lo), (uint8_t)(g->lead + hi), to);
}

static void range(struct draft *d, struct digits g, int32_t from, uint32_t lo, uint32_t hi,
                  int32_t to)
{
    if (!g.left) {
        digit(d, &g, from, lo, hi, to);
        return;
    }
    int shift = g.left * g.bits;
    uint32_t mask = (1u << shift) - 1, first = lo >> shift, last = hi >> shift;
    struct digits rest = {g.bits, g.left - 1, 0x80};
    if (first == last || (lo & mask)) {
        int32_t mid = eng_draft_state(d);
        digit(d, &g, from, first, first, mid);
        range(d, rest, mid, lo & mask, first == last ? hi & mask : mask, to);
        if (first == last) return;
        first++;
    }
    bool cut = (hi & mask) != mask;
    if (first + cut <= last) {
        int32_t mid = eng_draft_state(d);
        digit(d, &g, from, first, last - cut, mid);
        range(d, rest, mid, 0, mask, to);
    }
    if (cut) {
        int32_t mid = eng_draft_state(d);
        digit(d, &g, from, last, last, mid);
        range(d, rest, mid, 0, hi & mask, to);
    }
}

static void utf8(struct draft *d, int32_t from, uint32_t lo, uint32_t hi, int32_t to)
{
    static const struct {
        uint32_t end;
        int left;
        uint8_t lead;
    } forms[] = {{0x80, 0, 0}, {0x800, 1, 0xC0}, {0x10000, 2, 0xE0}, {0x110000, 3, 0xF0}};
    for (size_t i = 0; i < COUNT_OF(forms) && lo <= hi; i++) {
        if (lo >= forms[i].end) continue;
        range(d, (struct digits){6, forms[i].left, forms[i].lead}, from, lo,
              MIN(hi, forms[i].end - 1), to);
        lo = forms[i].end;
    }
}

/* ---- JSON escapes ---- */

static int32_t after(struct draft *d, int32_t from, const char *text)
{
    int32_t s = eng_draft_state(d);
    eng_draft_text(d, from, text, strlen(text), s);
    return s;
}

static void hex4(struct draft *d, int32_t from, uint32_t lo, uint32_t hi, int32_t to)
{
    range(d, (struct digits){4, 3, 0}, after(d, from, "\\u"), lo, hi, to);
}

/* Highs [h0,h1] each with lows [l0,l1]. */
static void surrogates(struct draft *d, int32_t from, uint32_t h0, uint32_t h1, uint32_t l0,
                       uint32_t l1, int32_t to)
{
    int32_t mid = eng_draft_state(d);
    hex4(d, from, 0xD800 + h0, 0xD800 + h1, mid);
    hex4(d, mid, 0xDC00 + l0, 0xDC00 + l1, to);
}

static void escaped(struct draft *d, int32_t from, uint32_t lo, uint32_t hi, int32_t to)
{
    if (lo < 0x10000) hex4(d, from, lo, MIN(hi, 0xFFFFu), to);
    if (hi < 0x10000) return;
    lo = MAX(lo, 0x10000u) - 0x10000;
    hi -= 0x10000;
    uint32_t h0 = lo >> 10, h1 = hi >> 10, l0 = lo & 0x3FF, l1 = hi & 0x3FF;
    if (h0 == h1)
        surrogates(d, from, h0, h0, l0, l1, to);
    else {
        if (l0) surrogates(d, from, h0, h0, l0, 0x3FF, to), h0++;
        if (l1 != 0x3FF) surrogates(d, from, h1, h1, 0, l1, to), h1--;
        if (h0 <= h1) surrogates(d, from, h0, h1, 0, 0x3FF, to);
    }
}

static const char shorts[][2] = {{'\b', 'b'}, {'\f', 'f'}, {'\n', 'n'},  {'\r', 'r'},
                                 {'\t', 't'}, {'"', '"'},  {'\\', '\\'}, {'/', '/'}};

/* lo..hi without ", \ and what lies below space. */
static void plain(struct draft *d, int32_t from, uint32_t lo, uint32_t hi, int32_t to)
{
    static const uint32_t gaps[] = {0x22, 0x5C};
    lo = MAX(lo, 0x20u);
    for (size_t i = 0; i < COUNT_OF(gaps); i++) {
        if (lo > gaps[i]) continue;
        if (lo < gaps[i] && lo <= hi) utf8(d, from, lo, MIN(hi, gaps[i] - 1), to);
        lo = gaps[i] + 1;
    }
    if (lo <= hi) utf8(d, from, lo, hi, to);
}

static void json_char(struct draft *d, int32_t from, const struct charset *set, int32_t to)
{
    bool wide = set->n && set->r[set->n - 1].hi > 0x7F;
    int32_t slash = eng_draft_state(d);
    eng_draft_bytes(d, from, '\\', '\\', slash);
    for (size_t i = 0; i < COUNT_OF(shorts); i++)
        if (eng_charset_has(set, (uint8_t)shorts[i][0]))
            eng_draft_bytes(d, slash, (uint8_t)shorts[i][1], (uint8_t)shorts[i][1], to);
    for (int32_t i = 0; i < set->n; i++) {
        plain(d, from, set->r[i].lo, set->r[i].hi, to);
        uint32_t hi = wide ? set->r[i].hi : MIN(set->r[i].hi, 0x1Fu);
        if (set->r[i].lo <= hi) escaped(d, from, set->r[i].lo, hi, to);
    }
}

/* ---- sets ---- */

static bool same(const struct charset *a, const struct charset *b)
{
    return a->n == b->n && !memcmp(a->r, b->r, (size_t)a->n * sizeof *a->r);
}

static int32_t set_rule(struct encoder *e, const struct charset *set, bool json)
{
    uint64_t h = json;
    for (int32_t i = 0; i < set->n; i++)
        h = rng_mix(h ^ ((uint64_t)set->r[i].lo << 32 | set->r[i].hi));
    for (int32_t i; (i = map64_get(&e->by_set, h)) >= 0; h++)
        if (e->sets[i].json == json && same(&e->sets[i].set, set)) return e->sets[i].rule;
    int32_t rule = eng_draft_rule(e->d), end = eng_draft_state(e->d), start = e->d->rules[rule];
    eng_draft_accept(e->d, end);
    if (json)
        json_char(e->d, start, set, end);
    else
        for (int32_t i = 0; i < set->n; i++) utf8(e->d, start, set->r[i].lo, set->r[i].hi, end);
    if (e->n_sets == e->cap_sets) {
        e->cap_sets = MAX(16, 2 * e->cap_sets);
        e->sets = xrealloc(e->sets, (size_t)e->cap_sets * sizeof *e->sets);
    }
    struct encoded_set *s = &e->sets[e->n_sets];
    *s = (struct encoded_set){.json = json, .rule = rule};
    for (int32_t i = 0; i < set->n; i++) eng_charset_add(&s->set, e->a, set->r[i].lo, set->r[i].hi);
    map64_put(&e->by_set, h, e->n_sets++);
    return rule;
}

/* Nothing to escape and one byte each: no rule is needed. */
static bool is_plain(const struct charset *set, bool json)
{
    for (int32_t i = 0; i < set->n; i++) {
        const struct char_range *r = &set->r[i];
        if (r->hi > 0x7F) return false;
        if (json && (r->lo < 0x20 || (r->lo <= '"' && r->hi >= '"') ||
                     (r->lo <= '\\' && r->hi >= '\\') || (r->lo <= '/' && r->hi >= '/')))
            return false;
    }
    return true;
}

void eng_encode_char(struct encoder *e, int32_t from, const struct charset *set, bool json,
                     int32_t to)
{
    if (!is_plain(set, json)) {
        eng_draft_call(e->d, from, set_rule(e, set, json), to);
        return;
    }
    for (int32_t i = 0; i < set->n; i++)
        eng_draft_bytes(e->d, from, (uint8_t)set->r[i].lo, (uint8_t)set->r[i].hi, to);
}

/* Quotes are part of the rule: then a mask sees the whole string at once (mask.h). */
static void encode_state(struct encoder *e, const struct dfa *s, int32_t i, int32_t first,
                         int32_t end, bool json, bool *done)
{
    const struct dfa_state *x = &s->states[i];
    for (int32_t k = 0; k < x->n; k++) done[k] = false;
    for (int32_t k = 0; k < x->n && !e->d->full; k++) {
        struct charset set = {0};
        if (done[k]) continue;
        for (int32_t m = k; m < x->n; m++) {
            if (s->edges[x->first + m].to != s->edges[x->first + k].to) continue;
            eng_charset_add(&set, e->a, s->edges[x->first + m].lo, s->edges[x->first + m].hi);
            done[m] = true;
        }
        eng_encode_char(e, first + i, &set, json, first + s->edges[x->first + k].to);
    }
    if (x->accept && json)
        eng_draft_bytes(e->d, first + i, '"', '"', end);
    else if (x->accept)
        eng_draft_accept(e->d, first + i);
}

int32_t eng_encode_dfa(struct encoder *e, const struct dfa *s, bool json)
{
    uint64_t key = (uint64_t)(uintptr_t)s << 1 | json;
    int32_t rule = map64_get(&e->by_dfa, key);
    if (rule >= 0) return rule;
    rule = eng_draft_rule(e->d);
    map64_put(&e->by_dfa, key, rule);
    int32_t first = e->d->n_states;
    bool *done = xmalloc((size_t)s->n_edges + 1);
    for (int32_t i = 0; i < s->n_states; i++) eng_draft_state(e->d);
    int32_t end = eng_draft_state(e->d);
    eng_draft_accept(e->d, end);
    if (!e->d->full && json)
        eng_draft_bytes(e->d, e->d->rules[rule], '"', '"', first);
    else if (!e->d->full)
        eng_draft_empty(e->d, e->d->rules[rule], first);
    for (int32_t i = 0; i < s->n_states && !e->d->full; i++)
        encode_state(e, s, i, first, end, json, done);
    free(done);
    return rule;
}

void eng_encode_literal(struct draft *d, int32_t from, const char *p, size_t n, int32_t to)
{
    char *text = xmalloc(6 * n + 3), *at = text;
    *at++ = '"';
    for (size_t i = 0; i < n; i++) {
        const char *known = NULL;
        for (size_t k = 0; k + 1 < COUNT_OF(shorts); k++) /* '/' stands for itself */
            if (shorts[k][0] == p[i]) known = &shorts[k][1];
        if (known)
            *at++ = '\\', *at++ = *known;
        else if ((uint8_t)p[i] < 0x20)
            at += snprintf(at, 7, "\\u%04x", p[i]);
        else
            *at++ = p[i];
    }
    *at++ = '"';
    eng_draft_text(d, from, text, (size_t)(at - text), to);
    free(text);
}
