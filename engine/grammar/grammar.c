/* grammar.c: see grammar.h: sources into programs, states over machines. */
#include "engine/grammar/grammar.h"

#include "engine/grammar/gbnf.h"
#include "engine/grammar/mask.h"
#include "engine/grammar/parts.h"
#include "engine/grammar/regex.h"
#include "engine/grammar/schema.h"
#include "engine/grammar/shortest.h"

#include <stdlib.h>
#include <string.h>

struct eng_grammar {
    struct program *p;
    struct machine m;
    struct masker k;
    const struct eng_grammar_vocab *v;
    struct eng_grammar_state **states; /* the open ones: their sets survive a compaction */
    int32_t n_states, cap_states;
};

struct eng_grammar_state {
    struct eng_grammar *g;
    int32_t set;
    int32_t index; /* among g->states */
    bool ended;
};

/* ---- sources ---- */

static enum err parse_json(const struct grammar_source *src, const char *what, json_t **out)
{
    json_error_t je;
    *out = json_loadb(src->text ? src->text : "", (size_t)src->n, JSON_DECODE_ANY | JSON_ALLOW_NUL,
                      &je);
    return *out ? OK
                : err_raise(ERR_BAD_REQUEST, "the %s is not JSON: line %d, column %d: %s", what,
                            je.line, je.column, je.text);
}

static enum err build_choice(struct encoder *e, struct eng_dfas *dfas, const json_t *list)
{
    enum err rc;
    struct dfa_word *w = arena_alloc(e->a, (json_array_size(list) + 1) * sizeof *w);
    const struct dfa *d;
    int32_t n = 0;
    size_t i;
    json_t *s;
    if (!json_is_array(list) || !json_array_size(list))
        return err_raise(ERR_BAD_REQUEST, "a choice is a list of at least one string");
    json_array_foreach((json_t *)list, i, s)
    {
        if (!json_is_string(s)) return err_raise(ERR_BAD_REQUEST, "choice %zu is not a string", i);
        w[n++] = (struct dfa_word){json_string_value(s), json_string_length(s)};
    }
    TRY(eng_dfa_words(dfas, w, n, &d));
    eng_encode_dfa(e, d, false);
out:
    return rc;
}

static enum err build_regex(struct encoder *e, struct eng_dfas *dfas,
                            const struct grammar_source *src)
{
    const struct dfa *d;
    enum err rc = eng_regex_compile(dfas, src->text ? src->text : "", (size_t)src->n, true, &d);
    if (!rc) eng_encode_dfa(e, d, false);
    return rc;
}

static enum err build(struct encoder *e, struct eng_dfas *dfas, const struct grammar_source *src)
{
    enum err rc = OK;
    json_t *j = NULL;
    switch (src->kind) {
    case GRAMMAR_JSON:
        return eng_schema_build(e, dfas, json_true(), src->flags, !(src->flags & GRAMMAR_COMPACT));
    case GRAMMAR_JSON_OBJECT:
        j = json_pack("{ss}", "type", "object");
        rc = eng_schema_build(e, dfas, j, src->flags, !(src->flags & GRAMMAR_COMPACT));
        break;
    case GRAMMAR_SCHEMA:
        TRY(parse_json(src, "JSON Schema", &j));
        rc = eng_schema_build(e, dfas, j, src->flags, false);
        break;
    case GRAMMAR_CHOICE:
        TRY(parse_json(src, "choice", &j));
        rc = build_choice(e, dfas, j);
        break;
    case GRAMMAR_REGEX:
        return build_regex(e, dfas, src);
    case GRAMMAR_GBNF:
        return eng_gbnf_build(e, src->text ? src->text : "", (size_t)src->n);
    case GRAMMAR_PARTS:
        TRY(parse_json(src, "description of parts", &j));
        rc = eng_parts_build(e, dfas, j, src->flags);
        break;
    case GRAMMAR_NONE:
        rc = err_raise(ERR_BAD_REQUEST, "no kind of grammar is given");
    }
out:
    json_decref(j);
    return rc;
}

enum err eng_grammar_compile(struct eng_grammar **out, const struct grammar_source *src,
                             const struct eng_grammar_vocab *vocab)
{
    enum err rc;
    struct arena a = {0};
    struct draft d = {0};
    struct eng_dfas dfas;
    struct encoder e;
    struct program *p;
    eng_dfas_open(&dfas, &a);
    eng_encoder_open(&e, &d, &a);
    TRY(build(&e, &dfas, src));
    TRY(eng_program_finish(&p, &d));
    struct eng_grammar *g = xcalloc(1, sizeof *g);
    g->p = p;
    g->v = vocab;
    eng_machine_open(&g->m, p);
    if (vocab) eng_masker_open(&g->k, &g->m, vocab);
    *out = g;
out:
    eng_draft_free(&d);
    eng_encoder_close(&e);
    arena_free(&a);
    return rc;
}

void eng_grammar_close(struct eng_grammar *g)
{
    if (!g) return;
    ASSERT(!g->n_states);
    if (g->v) eng_masker_close(&g->k);
    eng_machine_close(&g->m);
    eng_program_close(g->p);
    free(g->states);
    free(g);
}

void eng_grammar_size(const struct eng_grammar *g, struct grammar_size *out)
{
    *out = (struct grammar_size){g->p->n_states, g->p->n_edges + g->p->n_calls, g->p->n_rules,
                                 g->m.n_sets, g->m.n_frames};
}

/* ---- states ---- */

static struct eng_grammar_state *add_state(struct eng_grammar *g)
{
    struct eng_grammar_state *s = xcalloc(1, sizeof *s);
    if (g->n_states == g->cap_states) {
        g->cap_states = MAX(8, 2 * g->cap_states);
        g->states = xrealloc(g->states, (size_t)g->cap_states * sizeof *g->states);
    }
    s->g = g;
    s->index = g->n_states;
    return g->states[g->n_states++] = s;
}

struct eng_grammar_state *eng_grammar_state_open(struct eng_grammar *g)
{
    int32_t start = eng_machine_start(&g->m);
    struct eng_grammar_state *s = add_state(g);
    s->set = start;
    return s;
}

struct eng_grammar_state *eng_grammar_state_copy(const struct eng_grammar_state *s)
{
    struct eng_grammar_state *to = add_state(s->g);
    to->set = s->set;
    to->ended = s->ended;
    return to;
}

void eng_grammar_state_close(struct eng_grammar_state *s)
{
    if (!s) return;
    struct eng_grammar *g = s->g;
    g->states[s->index] = g->states[--g->n_states];
    g->states[s->index]->index = s->index;
    free(s);
}

/* Between two calls of the outside nothing but the states refers to sets. */
static void tidy(struct eng_grammar *g)
{
    if (!eng_machine_large(&g->m)) return;
    int32_t **sets = xmalloc(((size_t)g->n_states + 1) * sizeof *sets);
    for (int32_t i = 0; i < g->n_states; i++) sets[i] = &g->states[i]->set;
    eng_machine_compact(&g->m, sets, g->n_states);
    if (g->v) eng_masker_forget(&g->k);
    free(sets);
}

size_t eng_grammar_advance(struct eng_grammar_state *s, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;
    tidy(s->g);
    for (size_t i = 0; i < n; i++) {
        int32_t to = s->ended ? SET_DEAD : eng_machine_step(&s->g->m, s->set, p[i]);
        if (to < 0) return i;
        s->set = to;
    }
    return n;
}

bool eng_grammar_advance_token(struct eng_grammar_state *s, int32_t id)
{
    const struct eng_grammar_vocab *v = s->g->v;
    if (!v || id < 0 || id >= v->n || s->ended) return false;
    if (v->is_eog[id / 64] >> (id % 64) & 1) return s->ended = eng_grammar_accepts(s);
    size_t n = v->off[id + 1] - v->off[id];
    int32_t before = s->set;
    if (!n) return false;
    tidy(s->g);
    before = s->set;
    for (size_t i = 0; i < n; i++) {
        int32_t to = eng_machine_step(&s->g->m, s->set, v->bytes[v->off[id] + i]);
        if (to < 0) return s->set = before, false;
        s->set = to;
    }
    return true;
}

bool eng_grammar_accepts(const struct eng_grammar_state *s)
{
    return s->ended || (s->g->m.sets[s->set].flags & SET_ACCEPTS);
}
bool eng_grammar_ended(const struct eng_grammar_state *s)
{
    return s->ended;
}
int32_t eng_grammar_need(const struct eng_grammar_state *s)
{
    return s->ended ? 0 : s->g->m.sets[s->set].need;
}

static const uint64_t *nothing(struct eng_grammar *g)
{
    memset(g->k.scratch, 0, ((size_t)g->v->n / 64 + 1) * sizeof *g->k.scratch);
    return g->k.scratch;
}

const uint64_t *eng_grammar_mask(struct eng_grammar_state *s)
{
    ASSERT(s->g->v);
    tidy(s->g);
    return s->ended ? nothing(s->g) : eng_masker_mask(&s->g->k, s->set);
}

bool eng_grammar_mask_known(const struct eng_grammar_state *s)
{
    return s->ended || eng_masker_knows(&s->g->k, s->set);
}

const uint64_t *eng_grammar_mask_within(struct eng_grammar_state *s, int32_t n_tokens)
{
    ASSERT(s->g->v);
    tidy(s->g);
    return s->ended ? nothing(s->g) : eng_masker_mask_within(&s->g->k, s->set, n_tokens);
}

int32_t eng_grammar_need_tokens(struct eng_grammar_state *s, const struct eng_grammar_vocab *v, int32_t most)
{
    tidy(s->g);
    return s->ended ? 0 : eng_shortest_tokens(&s->g->m, v, s->set, most);
}

static void put_byte(struct buf *out, int b)
{
    if (b > 0x20 && b < 0x7F)
        buf_printf(out, "'%c'", b);
    else if (b == ' ')
        buf_puts(out, "space");
    else if (b == '\n')
        buf_puts(out, "line feed");
    else
        buf_printf(out, "byte 0x%02x", b);
}

void eng_grammar_explain(struct eng_grammar_state *s, struct buf *out)
{
    size_t before = out->len;
    tidy(s->g);
    for (int b = 0; b < 256 && !s->ended; b++) {
        int last = b;
        if (eng_machine_step(&s->g->m, s->set, (uint8_t)b) < 0) continue;
        while (last < 255 && eng_machine_step(&s->g->m, s->set, (uint8_t)(last + 1)) >= 0) last++;
        if (out->len > before) buf_puts(out, ", ");
        put_byte(out, b);
        if (last > b) buf_puts(out, last > b + 1 ? ".." : ", "), put_byte(out, last);
        b = last;
    }
    if (eng_grammar_accepts(s))
        buf_puts(out, out->len > before ? ", the end of the text" : "the end of the text");
}
