/* pack_rows.c: see pack_rows.h. Threads take the rows that they will later multiply (eng_team_range), so that on a host
 * with several memories each finds them in its own. */
#include "engine/model/pack_rows.h"

#include "engine/kernels/table.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- from memory ---- */

struct rows_job {
    const struct eng_want *w;
    int64_t tile, n, run;
    const uint8_t *data;
};

static void pack_tile(const struct eng_want *w, int64_t tile, const uint8_t *data, int64_t run, int32_t n)
{
    const uint8_t *src[KRN_TILE];
    for (int32_t i = 0; i < n; i++) src[i] = data + i * run;
    krn_pack_tile(w->t->type, w->tiles + tile * w->tile_bytes, src, n, (int32_t)(w->k0 % dtype_block(w->t->type)),
                  (int32_t)(w->k1 - w->k0));
}

static void rows_main(void *arg, int32_t thread, int32_t n_threads)
{
    const struct rows_job *j = arg;
    int64_t lo, hi;
    eng_team_range(j->n, KRN_TILE, thread, n_threads, &lo, &hi);
    for (int64_t r = lo; r < hi; r += KRN_TILE)
        pack_tile(j->w, j->tile + r / KRN_TILE, j->data + r * j->run, j->run, (int32_t)MIN((int64_t)KRN_TILE, hi - r));
}

void eng_pack_rows(struct eng_team *team, const struct eng_want *w, int64_t tile, const uint8_t *data, int64_t n)
{
    struct rows_job j = {.w = w, .tile = tile, .n = n, .data = data, .run = eng_want_bytes(w) / (w->row1 - w->row0)};
    eng_team_run(team, rows_main, &j);
}

/* ---- from the file ---- */

struct file_job {
    const struct eng_model_file *f;
    const struct eng_want *w;
    int64_t run, run_off;        /* of one row: where the wanted columns lie */
    _Atomic int failed;
    char text[512];              /* written by the thread that set failed */
    enum err err;
};

static void fail(struct file_job *j, enum err e)
{
    if (atomic_exchange(&j->failed, 1)) return;
    j->err = e;
    snprintf(j->text, sizeof j->text, "%s", err_text());
}

static void file_main(void *arg, int32_t thread, int32_t n_threads)
{
    struct file_job *j = arg;
    const struct eng_want *w = j->w;
    int64_t lo, hi, row = dtype_bytes(w->t->type, w->t->dims[0]);
    bool whole = j->run == row;
    uint8_t *raw = malloc((size_t)j->run * KRN_TILE);
    if (!raw) {
        fail(j, err_raise(ERR_NO_MEMORY, "no memory to read %s", w->t->name));
        return;
    }
    eng_team_range(w->row1 - w->row0, KRN_TILE, thread, n_threads, &lo, &hi);
    for (int64_t r = lo; r < hi && !atomic_load(&j->failed); r += KRN_TILE) {
        int32_t n = (int32_t)MIN((int64_t)KRN_TILE, hi - r);
        enum err e = OK;
        if (whole) e = eng_model_file_read(j->f, w->t, (w->row0 + r) * row, n * row, raw);
        for (int32_t i = 0; i < n && !e && !whole; i++)
            e = eng_model_file_read(j->f, w->t, (w->row0 + r + i) * row + j->run_off, j->run, raw + i * j->run);
        if (e) fail(j, e);
        else pack_tile(w, r / KRN_TILE, raw, j->run, n);
    }
    free(raw);
}

enum err eng_pack_from_file(struct eng_team *team, const struct eng_model_file *f, const struct eng_want *w)
{
    int32_t per = dtype_block(w->t->type);
    struct file_job j = {.f = f, .w = w, .run = eng_want_bytes(w) / (w->row1 - w->row0),
                         .run_off = w->k0 / per * dtype_block_bytes(w->t->type)};
    eng_team_run(team, file_main, &j);
    return j.failed ? err_raise(j.err, "%s", j.text) : OK;
}
