/* ahead.c: see ahead.h. A ring of buffers between one reading thread and the step thread; `lock` guards the counters. */
#include "engine/model/ahead.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 3 };

struct eng_ahead {
    const struct eng_model_file *f;
    const struct eng_deal_item *items;
    int32_t n, rank;
    const struct eng_team *team;
    uint8_t *slot[SLOTS];
    pthread_t thread;
    bool runs;
    pthread_mutex_t lock;
    pthread_cond_t turned;
    int64_t n_read, n_taken;      /* [lock] items read; items given back */
    bool stop;                    /* [lock] */
    enum err err;                 /* [lock] */
    char text[512];
    _Atomic int64_t bytes;        /* relaxed: a count */
};

static int64_t item_row_bytes(const struct eng_model_file *f, const struct eng_deal_item *x)
{
    return (int64_t)(x->b1 - x->b0) * dtype_block_bytes(eng_model_file_tensor(f, x->tensor)->type);
}

static enum err read_item(struct eng_ahead *a, const struct eng_deal_item *x, uint8_t *dst)
{
    const struct model_tensor *t = eng_model_file_tensor(a->f, x->tensor);
    int64_t run = item_row_bytes(a->f, x), row = dtype_bytes(t->type, t->dims[0]), rows = x->row1 - x->row0;
    enum err e = OK;
    if (run == row) e = eng_model_file_read(a->f, t, x->row0 * row, rows * row, dst);
    for (int64_t r = 0; r < rows && run != row && !e; r++)
        e = eng_model_file_read(a->f, t, (x->row0 + r) * row + (int64_t)x->b0 * dtype_block_bytes(t->type), run,
                                dst + r * run);
    atomic_fetch_add_explicit(&a->bytes, e ? 0 : rows * run, memory_order_relaxed);
    return e;
}

static void *reader_main(void *arg)
{
    struct eng_ahead *a = arg;
    eng_team_beside(a->team);
    for (int32_t i = 0; i < a->n; i++) {
        if (a->items[i].reader != a->rank) continue;
        pthread_mutex_lock(&a->lock);
        while (!a->stop && a->n_read - a->n_taken == SLOTS) pthread_cond_wait(&a->turned, &a->lock);
        bool stop = a->stop;
        int64_t k = a->n_read;
        pthread_mutex_unlock(&a->lock);
        if (stop) break;
        enum err e = read_item(a, &a->items[i], a->slot[k % SLOTS]);
        pthread_mutex_lock(&a->lock);
        if (e) {
            a->err = e;
            snprintf(a->text, sizeof a->text, "%s", err_text());
        }
        a->n_read++;
        pthread_cond_signal(&a->turned);
        pthread_mutex_unlock(&a->lock);
        if (e) break;
    }
    return NULL;
}

enum err eng_ahead_open(struct eng_ahead **out, const struct eng_model_file *f, const struct eng_deal_item items[], int32_t n,
                        int32_t rank, const struct eng_team *team)
{
    enum err rc = OK;
    int64_t most = 0;
    struct eng_ahead *a = xcalloc(1, sizeof *a);
    *a = (struct eng_ahead){.f = f, .items = items, .n = n, .rank = rank, .team = team};
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->turned, NULL);
    for (int32_t i = 0; i < n; i++)
        if (items[i].reader == rank) most = MAX(most, item_row_bytes(f, &items[i]) * (items[i].row1 - items[i].row0));
    for (int32_t i = 0; i < SLOTS && most; i++)
        if (!(a->slot[i] = malloc((size_t)most)))
            TRY(err_raise(ERR_NO_MEMORY, "no %.1f MB to read the model through", (double)most * SLOTS / 1e6));
    if (most && pthread_create(&a->thread, NULL, reader_main, a)) TRY(err_raise(ERR_SYSTEM, "cannot start the reading thread"));
    a->runs = most > 0;
    *out = a, a = NULL;
out:
    eng_ahead_close(a);
    return rc;
}

enum err eng_ahead_next(struct eng_ahead *a, const uint8_t **data)
{
    enum err e = OK;
    _Static_assert(SLOTS >= 2, "one slot is held by the caller");
    pthread_mutex_lock(&a->lock);
    if (*data) { /* the one before goes back */
        a->n_taken++;
        pthread_cond_signal(&a->turned);
    }
    while (a->n_read == a->n_taken) pthread_cond_wait(&a->turned, &a->lock);
    if (a->err && a->n_read == a->n_taken + 1) e = err_raise(a->err, "%s", a->text);
    *data = a->slot[a->n_taken % SLOTS];
    pthread_mutex_unlock(&a->lock);
    return e;
}

int64_t eng_ahead_bytes(struct eng_ahead *a) { return atomic_load_explicit(&a->bytes, memory_order_relaxed); }

void eng_ahead_close(struct eng_ahead *a)
{
    if (!a) return;
    pthread_mutex_lock(&a->lock);
    a->stop = true;
    pthread_cond_signal(&a->turned);
    pthread_mutex_unlock(&a->lock);
    if (a->runs) pthread_join(a->thread, NULL);
    pthread_mutex_destroy(&a->lock);
    pthread_cond_destroy(&a->turned);
    for (int32_t i = 0; i < SLOTS; i++) free(a->slot[i]);
    free(a);
}
