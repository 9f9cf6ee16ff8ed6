/* constraint.c: see constraint.h. */
#include "engine/constraint.h"

#include "engine/grammar_vocab.h"
#include "engine/model_text.h"

#include <stdlib.h>
#include <string.h>

enum { KEPT = 32, MAX_EOG = GRAMMAR_VOCAB_EOG }; /* grammars kept when no sequence uses them */

struct compiled {
    struct compiled *next;
    struct grammar_source src; /* Own: text */
    struct eng_grammar *g;
    int32_t n_users;
    uint64_t used;
};

struct eng_constraints {
    const struct eng_model_file *file;
    int32_t n_vocab;
    struct eng_grammar_vocab *vocab; /* from the first grammar on */
    struct compiled *all;
    uint64_t clock;
    uint64_t *mask; /* [n_vocab / 64 + 1] the last one given out */
    int32_t eog[MAX_EOG], n_eog;
};

struct eng_constraint {
    struct eng_constraints *c;
    struct compiled *of;
    struct eng_grammar_state *state;
};

/* ---- a rank's ---- */

struct eng_constraints *eng_constraints_open(const struct eng_model_file *f, int32_t n_vocab)
{
    struct eng_constraints *c = xcalloc(1, sizeof *c);
    c->file = f;
    c->n_vocab = n_vocab;
    c->mask = xcalloc((size_t)n_vocab / 64 + 1, sizeof *c->mask);
    return c;
}

static void close_compiled(struct compiled *x)
{
    eng_grammar_close(x->g);
    free((void *)x->src.text);
    free(x);
}

void eng_constraints_close(struct eng_constraints *c)
{
    if (!c) return;
    for (struct compiled *x = c->all, *next; x; x = next) {
        next = x->next;
        close_compiled(x);
    }
    eng_grammar_vocab_close(c->vocab);
    free(c->mask);
    free(c);
}

static enum err open_vocab(struct eng_constraints *c)
{
    enum err rc;
    struct eng_tokenizer *t = NULL;
    TRY(eng_model_tokenizer(&t, c->file));
    c->n_eog = eng_tokenizer_eog(t, c->eog, MAX_EOG);
    c->vocab = eng_grammar_vocab_of(t, c->n_vocab);
out:
    eng_tokenizer_close(t);
    return rc;
}

enum err eng_constraints_texts(struct eng_constraints *c, const uint8_t **bytes,
                               const uint32_t **off)
{
    enum err rc = OK;
    if (!c->vocab) TRY(open_vocab(c));
    eng_grammar_vocab_bytes(c->vocab, bytes, off);
out:
    return rc;
}

/* Of those that nobody uses, the longest unused ones go. */
static void forget(struct eng_constraints *c)
{
    struct compiled **oldest = NULL;
    int32_t n = 0;
    for (struct compiled **x = &c->all; *x; x = &(*x)->next) {
        if ((*x)->n_users) continue;
        if (!oldest || (*x)->used < (*oldest)->used) oldest = x;
        n++;
    }
    if (n <= KEPT) return;
    struct compiled *x = *oldest;
    *oldest = x->next;
    close_compiled(x);
}

static bool same(const struct grammar_source *a, const struct grammar_source *b)
{
    return a->hash == b->hash && a->kind == b->kind && a->flags == b->flags && a->n == b->n &&
           (!a->n || !memcmp(a->text, b->text, (size_t)a->n));
}

static enum err compiled_of(struct eng_constraints *c, const struct grammar_source *g,
                            struct compiled **out)
{
    enum err rc = OK;
    struct compiled *x = NULL;
    for (struct compiled *k = c->all; k; k = k->next)
        if (same(&k->src, g)) return *out = k, OK;
    if (!c->vocab) TRY(open_vocab(c));
    x = xcalloc(1, sizeof *x);
    x->src = *g;
    x->src.text = g->n ? memcpy(xmalloc((size_t)g->n), g->text, (size_t)g->n) : NULL;
    /* the coordinator has compiled it by the same code */
    if (eng_grammar_compile(&x->g, &x->src, c->vocab))
        TRY(err_prefix(ERR_LINK_PROTOCOL, "a plan's grammar does not compile"));
    x->next = c->all;
    c->all = *out = x;
    x = NULL;
out:
    if (x) close_compiled(x);
    return rc;
}

/* ---- a sequence's ---- */

enum err eng_constraint_open(struct eng_constraint **out, struct eng_constraints *c,
                             const struct grammar_source *g, const int32_t *tokens, int32_t n)
{
    enum err rc;
    struct compiled *x;
    struct eng_constraint *s = NULL;
    TRY(compiled_of(c, g, &x));
    s = xcalloc(1, sizeof *s);
    *s = (struct eng_constraint){c, x, eng_grammar_state_open(x->g)};
    x->n_users++;
    x->used = ++c->clock;
    for (int32_t i = 0; i < n; i++)
        if (!eng_grammar_advance_token(s->state, tokens[i]))
            TRY(err_raise(ERR_LINK_PROTOCOL,
                          "token %d, the %dth generated one, is not of the sequence's grammar",
                          tokens[i], i));
    *out = s;
    s = NULL;
out:
    eng_constraint_close(s);
    return rc;
}

struct eng_constraint *eng_constraint_copy(const struct eng_constraint *s)
{
    if (!s) return NULL;
    struct eng_constraint *to = xcalloc(1, sizeof *to);
    *to = (struct eng_constraint){s->c, s->of, eng_grammar_state_copy(s->state)};
    s->of->n_users++;
    return to;
}

void eng_constraint_close(struct eng_constraint *s)
{
    if (!s) return;
    eng_grammar_state_close(s->state);
    s->of->n_users--;
    forget(s->c);
    free(s);
}

static void set(uint64_t *mask, int32_t n, const int32_t *ids, int32_t n_ids, bool on)
{
    for (int32_t i = 0; i < n_ids; i++) {
        if (ids[i] < 0 || ids[i] >= n) continue;
        uint64_t bit = 1ull << (ids[i] % 64);
        mask[ids[i] / 64] = on ? mask[ids[i] / 64] | bit : mask[ids[i] / 64] & ~bit;
    }
}

static bool any(const uint64_t *mask, int32_t n)
{
    uint64_t all = 0;
    for (int32_t i = 0; i <= n / 64; i++) all |= mask[i];
    return all;
}

/* Tokens of the text from `from`, then the ends, if they may come. */
static const uint64_t *with_ends(struct eng_constraint *s, const struct sampling *p,
                                 const uint64_t *from, bool *forced)
{
    struct eng_constraints *c = s->c;
    memcpy(c->mask, from, ((size_t)c->n_vocab / 64 + 1) * sizeof *c->mask);
    set(c->mask, c->n_vocab, c->eog, c->n_eog, false);
    set(c->mask, c->n_vocab, p->stop_ids, p->n_stop_ids, false);
    *forced = !any(c->mask, c->n_vocab);
    if (*forced || (eng_grammar_accepts(s->state) && !p->ignore_eos))
        set(c->mask, c->n_vocab, c->eog, c->n_eog, true);
    if (*forced || eng_grammar_accepts(s->state))
        set(c->mask, c->n_vocab, p->stop_ids, p->n_stop_ids, true);
    return c->mask;
}

const uint64_t *eng_constraint_mask(struct eng_constraint *s, const struct sampling *p,
                                    bool *forced)
{
    return with_ends(s, p, eng_grammar_mask(s->state), forced);
}

bool eng_constraint_ready(const struct eng_constraint *s)
{
    return eng_grammar_mask_known(s->state);
}

void eng_constraint_prepare(struct eng_constraint *s)
{
    (void)eng_grammar_mask(s->state);
}

bool eng_constraint_fits(const struct eng_constraint *s, int32_t token, int32_t n_left)
{
    const struct eng_grammar_vocab *v = s->c->vocab;
    struct eng_grammar_state *t = eng_grammar_state_copy(s->state);
    bool fits = !eng_grammar_advance_token(t, token) || eng_grammar_ended(t) ||
                eng_grammar_need(t) < n_left || eng_grammar_need_tokens(t, v, n_left) < n_left;
    eng_grammar_state_close(t);
    return fits || eng_grammar_need_tokens(s->state, v, n_left) > n_left;
}

const uint64_t *eng_constraint_mask_within(struct eng_constraint *s, const struct sampling *p,
                                           int32_t n_left)
{
    bool forced;
    const uint64_t *mask = with_ends(s, p, eng_grammar_mask_within(s->state, n_left - 1), &forced);
    return forced && !eng_grammar_accepts(s->state) ? NULL : mask;
}

bool eng_constraint_take(struct eng_constraint *s, int32_t token)
{
    eng_grammar_advance_token(s->state, token);
    return eng_grammar_ended(s->state);
}
