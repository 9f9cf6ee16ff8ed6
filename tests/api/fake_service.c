#include "tests/api/fake_service.h"
#include "base/clock.h"
#include "base/mailbox.h"
#include "base/rng.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

struct live {
    struct gen_request q;
    int32_t *prompt;
    token_event_fn on_event;
    void *user;
    struct fake_plan plan;
    int32_t k;   /* most tokens said of a choice */
    int32_t *ks; /* [n] of each: they may have begun elsewhere */
    bool *over; /* [n] */
    bool announced;
    struct live *next;
};

struct command {
    enum { SUBMIT, CANCEL, RELEASE, QUIT } kind;
    struct live *live;
    uint64_t id;
};

struct fake {
    const struct eng_tokenizer *t;
    struct mailbox *in;
    pthread_t thread;
    pthread_mutex_t lock;
    struct fake_plan plan; /* under lock */
    enum service_state state;
    char text[512];
    struct gen_request last;
    int32_t *last_prompt;
    struct sampling last_sampling;
    char *last_grammar;
    struct live *list; /* [fake] */
    uint64_t draws;
    _Atomic int32_t n_submitted, n_cancelled, n_live;
};

float fake_logit(int32_t i, int32_t v)
{
    return (float)((i * 31 + v * 17) % 97) / 16.0f;
}

struct result_token fake_token(int32_t id, int32_t k, int32_t n_vocab, int32_t n_logprobs)
{
    struct result_token t = {.id = id, .logprob = -1.0f / 3.0f * (float)(k + 1)};
    for (int32_t i = 0; i < n_logprobs; i++)
        t.top[t.n_top++] = (struct result_logprob){1 + (id + i) % (n_vocab - 1),
                                                   -0.1f * (float)(i + 1) - (float)k};
    return t;
}

void fake_vector(enum step_pool pool, const int32_t *prompt, int32_t n, float v[FAKE_DIM])
{
    double sum = 0;
    for (int32_t i = 0; i < n; i++) sum += prompt[i];
    v[0] = pool == POOL_MEAN ? (float)(sum / n) : (float)prompt[n - 1];
    v[1] = (float)n;
    v[2] = pool == POOL_MEAN ? -1.0f / 3 : 1.0f / 7;
    v[3] = 0;
}

static void finish(struct live *l, int32_t choice, enum seq_finish why, enum err err,
                   const char *text)
{
    struct token_event e = {.kind = EVENT_FINISH,
                            .request = l->q.id,
                            .choice = choice,
                            .engine = l->plan.engine,
                            .finish = why,
                            .err = err,
                            .text = text,
                            .n_prompt = l->q.n_prompt,
                            .n_generated = l->k,
                            .n_cached = l->plan.n_cached,
                            .queued_us = 1000,
                            .prefill_us = 20000,
                            .decode_us = 30000};
    if (choice >= 0) l->over[choice] = true;
    l->on_event(l->user, &e);
}

static void finish_all(struct live *l, enum err err, const char *text)
{
    for (int32_t c = 0; c < l->q.n; c++)
        if (!l->over[c]) finish(l, c, FINISH_NONE, err, text);
}

static bool ended(const struct live *l)
{
    for (int32_t c = 0; c < l->q.n; c++)
        if (!l->over[c]) return false;
    return true;
}

/* Element v of row i beats element w: larger, or as large and its id lower. */
static bool beats(int32_t i, int32_t v, int32_t w)
{
    float a = fake_logit(i, v), b = fake_logit(i, w);
    return a > b || (a == b && v < w);
}

static struct result_score fake_score(int32_t i, int32_t id, int32_t n_vocab, int32_t n_top,
                                      struct result_logprob *top)
{
    double sum = 0;
    struct result_score s = {.id = id, .rank = 1, .n_top = n_top, .top = top};
    for (int32_t v = 0; v < n_vocab; v++) sum += exp((double)fake_logit(i, v));
    s.logprob = (float)((double)fake_logit(i, id) - log(sum));
    for (int32_t v = 0; v < n_vocab; v++) {
        int32_t rank = 0;
        for (int32_t w = 0; w < n_vocab; w++) rank += beats(i, w, v);
        if (v == id) s.rank = rank + 1;
        if (rank < n_top)
            top[rank] = (struct result_logprob){v, (float)((double)fake_logit(i, v) - log(sum))};
    }
    return s;
}

static void say_scores(struct fake *f, struct live *l)
{
    int32_t n_vocab = eng_tokenizer_size(f->t), n = l->q.n_prompt - 1,
            n_top = l->q.sampling.n_prompt_logprobs;
    struct result_score *s = xcalloc((size_t)n + 1, sizeof *s);
    struct result_logprob *top = xcalloc((size_t)(n + 1) * (size_t)(n_top + 1), sizeof *top);
    for (int32_t i = 0; i < n; i++)
        s[i] = fake_score(i, l->prompt[i + 1], n_vocab, n_top, top + i * n_top);
    for (int32_t at = 0; at < n; at += 3) { /* as chunked prefill would */
        struct token_event e = {.kind = EVENT_SCORES,
                                .request = l->q.id,
                                .engine = l->plan.engine,
                                .n_scores = MIN(3, n - at),
                                .scores = s + at};
        l->on_event(l->user, &e);
    }
    free(s);
    free(top);
}

static bool is_stop(const struct sampling *s, int32_t id)
{
    for (int32_t i = 0; i < s->n_stop_ids; i++)
        if (s->stop_ids[i] == id) return true;
    return false;
}

static void say_token(struct fake *f, struct live *l, int32_t c)
{
    const struct sampling *s = &l->q.sampling;
    size_t n = l->plan.say.n ? l->plan.say.n : (size_t)l->q.n_prompt;
    const int32_t *ids = l->plan.say.n ? l->plan.say.ids : l->prompt;
    int32_t end = eng_tokenizer_eos(f->t);
    int32_t k = l->ks[c]++;
    int32_t id = (size_t)k < n || s->ignore_eos ? ids[(size_t)k % n] : end;
    struct result_token t = fake_token(id, k, eng_tokenizer_size(f->t), s->n_logprobs);
    struct token_event e = {.kind = EVENT_TOKEN,
                            .request = l->q.id,
                            .choice = c,
                            .engine = l->plan.engine,
                            .token = &t};
    if (is_stop(s, id))
        e.finish = FINISH_STOP;
    else if (k + 1 == s->max_tokens)
        e.finish = FINISH_LENGTH;
    l->k = MAX(l->k, k + 1);
    l->on_event(l->user, &e);
    if (e.finish != FINISH_NONE) finish(l, c, e.finish, OK, NULL);
}

static void step(struct fake *f, struct live *l)
{
    if (l->q.pool) {
        float v[FAKE_DIM];
        fake_vector(l->q.pool, l->prompt, l->q.n_prompt, v);
        struct token_event e = {
            .kind = EVENT_POOLED, .request = l->q.id, .engine = l->plan.engine, .n_pooled = FAKE_DIM, .pooled = v};
        l->on_event(l->user, &e);
        finish(l, 0, FINISH_STOP, OK, NULL);
        return;
    }
    if (!l->announced && l->q.sampling.n_prompt_logprobs >= 0) say_scores(f, l);
    l->announced = true;
    for (int32_t c = 0; c < l->q.n; c++) {
        if (l->over[c]) continue;
        if (l->plan.jitter && !(rng_at(l->plan.jitter, f->draws++, 0, 0) & 3)) clock_sleep_us(50);
        say_token(f, l, c);
    }
    if (l->plan.fail_after && l->k == l->plan.fail_after)
        finish_all(l, ERR_UNAVAILABLE, "rank 1 stopped answering");
}

static void drop(struct fake *f, struct live **at)
{
    struct live *l = *at;
    *at = l->next;
    free(l->prompt);
    free(l->over);
    free(l->ks);
    free(l);
    atomic_fetch_sub(&f->n_live, 1);
}

static bool obey(struct fake *f, struct command *c)
{
    bool go_on = c->kind != QUIT;
    struct live **end = &f->list;
    if (c->kind == RELEASE)
        for (struct live *l = f->list; l; l = l->next) l->plan.hold = false;
    if (c->kind == CANCEL)
        for (struct live *l = f->list; l; l = l->next)
            if (l->q.id == c->id && !ended(l)) {
                atomic_fetch_add(&f->n_cancelled, 1);
                finish_all(l, ERR_CANCELLED, "cancelled");
            }
    if (c->kind == SUBMIT) {
        while (*end) end = &(*end)->next;
        *end = c->live;
    }
    free(c);
    return go_on;
}

static bool busy(const struct fake *f)
{
    for (const struct live *l = f->list; l; l = l->next)
        if (!l->plan.hold || ended(l)) return true;
    return false;
}

static void *fake_main(void *arg)
{
    struct fake *f = arg;
    bool go_on = true;
    while (go_on) {
        struct command *c = mailbox_get(f->in, busy(f) ? 0 : -1);
        if (c) go_on = obey(f, c);
        if (c) continue;
        int64_t wait = 0;
        for (struct live **at = &f->list; *at;) {
            struct live *l = *at;
            if (!l->plan.hold && !ended(l)) step(f, l);
            wait = MAX(wait, l->plan.token_us);
            if (ended(l))
                drop(f, at);
            else
                at = &l->next;
        }
        if (wait) clock_sleep_us(wait);
    }
    for (struct live *l = f->list; l; l = l->next) finish_all(l, ERR_CANCELLED, "closing");
    while (f->list) drop(f, &f->list);
    return NULL;
}

static void order(struct fake *f, struct command c)
{
    struct command *m = xmalloc(sizeof *m);
    *m = c;
    mailbox_put(f->in, m);
}

static void remember(struct fake *f, const struct gen_request *r)
{
    free(f->last_prompt);
    sampling_free(&f->last_sampling);
    f->last_prompt = xcalloc((size_t)r->n_prompt + 1, sizeof *f->last_prompt);
    memcpy(f->last_prompt, r->prompt, sizeof *r->prompt * (size_t)r->n_prompt);
    f->last = *r;
    f->last.prompt = f->last_prompt;
    f->last.sampling = f->last_sampling = sampling_copy(&r->sampling);
    free(f->last_grammar);
    f->last.grammar.text = f->last_grammar =
        xstrndup(r->grammar.text ? r->grammar.text : "", (size_t)r->grammar.n);
}

static void do_submit(void *self, const struct gen_request *r, token_event_fn on_event, void *user)
{
    struct fake *f = self;
    struct live *l = xcalloc(1, sizeof *l);
    *l = (struct live){.q = *r, .on_event = on_event, .user = user};
    pthread_mutex_lock(&f->lock);
    l->plan = f->plan;
    remember(f, r);
    pthread_mutex_unlock(&f->lock);
    atomic_fetch_add(&f->n_submitted, 1);
    if (l->plan.refuse) { /* inside submit: the contract allows it */
        finish(l, -1, FINISH_NONE, l->plan.refuse, l->plan.refusal);
        free(l);
        return;
    }
    l->prompt = xcalloc((size_t)r->n_prompt, sizeof *l->prompt);
    memcpy(l->prompt, r->prompt, sizeof *l->prompt * (size_t)r->n_prompt);
    l->over = xcalloc((size_t)r->n, sizeof *l->over);
    l->ks = xcalloc((size_t)r->n, sizeof *l->ks);
    for (int32_t c = 0; r->known && c < r->n; c++) {
        l->over[c] = r->known[c].over;
        l->ks[c] = r->known[c].n;
    }
    l->q.known = NULL; /* the caller's */
    atomic_fetch_add(&f->n_live, 1);
    order(f, (struct command){.kind = SUBMIT, .live = l});
}

static void do_cancel(void *self, uint64_t id)
{
    order(self, (struct command){.kind = CANCEL, .id = id});
}

static void do_status(void *self, struct service_status *out)
{
    struct fake *f = self;
    pthread_mutex_lock(&f->lock);
    *out = (struct service_status){
        .state = f->state,
        .max_context = 4096,
        .sched = {.n_running = 3, .n_waiting = 2, .n_blocks = 100, .n_blocks_used = 25}};
    memcpy(out->text, f->text, sizeof out->text);
    pthread_mutex_unlock(&f->lock);
}

static void do_health(void *self, struct buf *out)
{
    (void)self;
    buf_puts(out, "{\"replicas\":1}");
}

static void do_metrics(void *self, struct buf *out)
{
    (void)self;
    buf_puts(out, "tessera:ranks 2\n");
}

struct fake *fake_open(const struct eng_tokenizer *t)
{
    struct fake *f = xcalloc(1, sizeof *f);
    f->t = t;
    f->state = SERVICE_READY;
    f->in = mailbox_open();
    pthread_mutex_init(&f->lock, NULL);
    pthread_create(&f->thread, NULL, fake_main, f);
    return f;
}

void fake_close(struct fake *f)
{
    if (!f) return;
    order(f, (struct command){.kind = QUIT});
    pthread_join(f->thread, NULL);
    for (struct command *c; (c = mailbox_get(f->in, 0));) obey(f, c);
    while (f->list) drop(f, &f->list);
    mailbox_close(f->in);
    pthread_mutex_destroy(&f->lock);
    free(f->last_prompt);
    sampling_free(&f->last_sampling);
    free(f->last_grammar);
    free(f);
}

struct crd_service fake_service(struct fake *f)
{
    static const struct crd_service_ops ops = {do_submit, do_cancel, do_status, NULL, do_health,
                                               do_metrics};
    return (struct crd_service){&ops, f};
}

void fake_set(struct fake *f, const struct fake_plan *plan)
{
    pthread_mutex_lock(&f->lock);
    f->plan = *plan;
    pthread_mutex_unlock(&f->lock);
}

void fake_set_state(struct fake *f, enum service_state state, const char *text)
{
    pthread_mutex_lock(&f->lock);
    f->state = state;
    strncpy(f->text, text, sizeof f->text - 1);
    pthread_mutex_unlock(&f->lock);
}

void fake_release(struct fake *f)
{
    order(f, (struct command){.kind = RELEASE});
}
int32_t fake_submitted(struct fake *f)
{
    return atomic_load(&f->n_submitted);
}
int32_t fake_cancelled(struct fake *f)
{
    return atomic_load(&f->n_cancelled);
}
int32_t fake_live(struct fake *f)
{
    return atomic_load(&f->n_live);
}

struct gen_request fake_last(struct fake *f)
{
    pthread_mutex_lock(&f->lock);
    struct gen_request r = f->last;
    pthread_mutex_unlock(&f->lock);
    return r;
}
