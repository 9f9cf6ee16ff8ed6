/* convert.c: see convert.h. A tensor goes in pieces of PIECE values: the threads read, widen and encode a share of its rows
 * each, then the piece is written. */
#include "engine/convert/convert.h"

#include "base/base.h"
#include "engine/convert/plan.h"
#include "engine/file/dequant.h"
#include "engine/file/encode.h"

#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 8 << 20, QUANTIZATION_VERSION = 2 };

struct conv_tensor *conv_add(struct conv_plan *p, const char *name, int32_t n_dims, const int64_t dims[])
{
    if (p->n == p->cap) {
        p->cap = MAX(256, 2 * p->cap);
        p->at = xrealloc(p->at, (size_t)p->cap * sizeof *p->at);
    }
    struct conv_tensor *t = &p->at[p->n++];
    *t = (struct conv_tensor){.name = arena_strndup(&p->arena, name, strlen(name)), .n_dims = n_dims};
    for (int32_t i = 0; i < MODEL_MAX_DIMS; i++) t->dims[i] = i < n_dims ? dims[i] : 1;
    return t;
}

/* ---- a GGUF file's keys and tensors ---- */

/* Files of gpt-oss that an earlier tessera wrote have a name that no other program looks for, and lack a key. */
static const char *mended_name(const struct conv_plan *p, const struct eng_model_file *in, const char *name, char out[96])
{
    int layer, n = 0;
    if (strcmp(p->model.arch, "gpt-oss") || sscanf(name, "blk.%6d.ffn_norm.weight%n", &layer, &n) != 1 || !n || name[n]) return name;
    snprintf(out, 96, "blk.%d.post_attention_norm.weight", layer);
    return eng_model_file_tensor_find(in, out) ? name : out;
}

static void mend_keys(const struct conv_plan *p, const struct eng_model_file *in)
{
    const struct model_kv *width = eng_model_file_find(in, "gpt-oss.feed_forward_length");
    if (!strcmp(p->model.arch, "gpt-oss") && width && width->kind == KV_INT && !eng_model_file_find(in, "gpt-oss.expert_feed_forward_length"))
        eng_gguf_out_u32(p->out, "gpt-oss.expert_feed_forward_length", (uint32_t)width->i);
}

static bool is_key(const struct model_kv *kv, const char *key) { return kv->key.n == strlen(key) && !memcmp(kv->key.p, key, kv->key.n); }

static enum err read_model(struct conv_plan *p, const struct eng_model_file *in)
{
    enum err rc;
    char *arch = NULL, key[128];
    int64_t layers, heads, kv, experts;
    TRY(eng_model_file_string(in, "general.architecture", &arch));
    p->model.arch = arch ? arena_strndup(&p->arena, arch, strlen(arch)) : "";
    snprintf(key, sizeof key, "%.64s.block_count", p->model.arch);
    TRY(eng_model_file_int(in, key, 0, 0, INT32_MAX, &layers));
    snprintf(key, sizeof key, "%.64s.expert_count", p->model.arch);
    TRY(eng_model_file_int(in, key, 0, 0, INT32_MAX, &experts));
    snprintf(key, sizeof key, "%.64s.attention.head_count", p->model.arch);
    const struct model_kv *v = eng_model_file_find(in, key); /* some have one for each layer */
    heads = v && v->kind == KV_INT ? v->i : 0;
    snprintf(key, sizeof key, "%.64s.attention.head_count_kv", p->model.arch);
    v = eng_model_file_find(in, key);
    kv = v && v->kind == KV_INT ? v->i : heads;
    int64_t width, head;
    snprintf(key, sizeof key, "%.64s.embedding_length", p->model.arch);
    TRY(eng_model_file_int(in, key, 0, 0, INT32_MAX, &width));
    snprintf(key, sizeof key, "%.64s.attention.key_length", p->model.arch);
    TRY(eng_model_file_int(in, key, heads > 0 ? width / heads : 0, 0, INT32_MAX, &head));
    static const char *const values[] = {"attention.value_length", "attention.value_length_mla"}; /* what a head gives to the output */
    for (size_t i = 0; i < COUNT_OF(values); i++) {
        snprintf(key, sizeof key, "%.64s.%s", p->model.arch, values[i]);
        TRY(eng_model_file_int(in, key, head, 0, INT32_MAX, &head));
    }
    p->model.head_dim = (int32_t)head;
    p->model.n_layers = (int32_t)layers;
    p->model.n_expert = (int32_t)experts;
    p->model.n_heads = (int32_t)CLAMP(heads, 0, 1 << 20);
    p->model.n_kv_heads = (int32_t)CLAMP(kv, 0, 1 << 20);
    p->model.has_output = eng_model_file_tensor_find(in, "output.weight") != NULL;
out:
    free(arch);
    return rc;
}

enum err conv_plan_gguf(struct conv_plan *p, const struct eng_model_file *in)
{
    static const char *const dropped[] = {"general.file_type", "general.quantization_version", "general.alignment", "split.no", "split.count",
                                          "split.tensors.count", "quantize.imatrix.file"};
    for (int64_t i = 0; i < eng_model_file_n_kv(in); i++) {
        const struct model_kv *kv = eng_model_file_kv(in, i);
        bool drop = false;
        for (size_t k = 0; k < COUNT_OF(dropped); k++) drop |= is_key(kv, dropped[k]);
        if (!drop) eng_gguf_out_kv(p->out, kv);
    }
    mend_keys(p, in);
    for (int64_t i = 0; i < eng_model_file_n_tensors(in); i++) {
        const struct model_tensor *t = eng_model_file_tensor(in, i);
        if (t->part_of) continue;
        if (t->type >= DTYPE_COUNT)
            return err_raise(ERR_UNSUPPORTED, "tensor %s is of type %s, number %u, which cannot be read: known are %s", t->name, dtype_ggml_name(t->ggml_type),
                             t->ggml_type, dtype_all_names());
        char name[96];
        struct conv_tensor *c = conv_add(p, mended_name(p, in, t->name, name), t->n_dims, t->dims);
        c->parts = arena_alloc(&p->arena, sizeof *c->parts);
        c->parts[0] = t;
        c->n_parts = 1;
    }
    return OK;
}

/* ---- one tensor ---- */

struct job {
    const struct eng_convert_conf *c;
    const struct conv_tensor *t;
    const struct eng_imatrix_entry *weights; /* or NULL */
    int64_t row0, n;          /* of this piece */
    uint8_t *to;
    bool as_it_is;            /* bytes are copied */
    bool measure;
    double *squares, *errors; /* [threads] */
    _Atomic int failed;
    enum err err;             /* and text: written by the thread that set failed */
    char text[512];
};

static void fail(struct job *j, enum err e)
{
    if (atomic_exchange(&j->failed, 1)) return;
    j->err = e;
    snprintf(j->text, sizeof j->text, "%s", err_text());
}

/* q, k and v in one, group by group in a checkpoint (Falcon). */
static int64_t row_of_group(const struct conv_tensor *t, int64_t r)
{
    int64_t per = t->group_heads + 2, head = t->dims[1] / (t->n_groups * per), h = r / head, q = (int64_t)t->n_groups * t->group_heads;
    int64_t from = h < q ? h / t->group_heads * per + h % t->group_heads : (h - q) % t->n_groups * per + t->group_heads + (h - q) / t->n_groups;
    return from * head + r % head;
}

/* Rope turns pairs of rows that a checkpoint has in the two halves of a head; n rows, or values of their bias. */
static int64_t row_of_pair(const struct conv_tensor *t, int64_t r, int64_t n)
{
    int64_t head = n / t->pair_heads, in = r % head;
    return r / head * head + in / 2 + in % 2 * (head / 2);
}

static bool is_turned_bias(const struct conv_tensor *t) { return t->pair_heads && t->n_dims == 1; }

/* Which row of its part is row r. */
static int64_t source_row(const struct conv_tensor *t, int64_t r)
{
    if (t->n_groups) return row_of_group(t, r);
    return t->pair_heads && !is_turned_bias(t) ? row_of_pair(t, r, t->dims[1]) : r;
}

static enum err read_row(const struct job *j, int64_t row, uint8_t *raw)
{
    const struct conv_tensor *t = j->t;
    int64_t per = conv_rows(t) / t->n_parts;
    const struct model_tensor *from = t->parts[row / per];
    int64_t bytes = dtype_bytes(from->type, t->dims[0]);
    return eng_model_file_read(j->c->in, from, source_row(t, row % per) * bytes, bytes, raw);
}

static enum err check_finite(const struct job *j, const float *x, int64_t row)
{
    float most = 0;
    bool bad = false;
    for (int64_t i = 0; i < j->t->dims[0]; i++) {
        most = MAX(most, fabsf(x[i]));
        bad |= !isfinite(x[i]);
    }
    if (bad) return err_raise(ERR_BAD_FILE, "tensor %s has a value in row %lld that is not a number: the file is damaged, fetch it again", j->t->name, (long long)row);
    if (j->t->type == DTYPE_F16 && most > 65504.0f)
        return err_raise(ERR_UNSUPPORTED, "tensor %s has values up to %g, which F16 does not reach: use BF16", j->t->name, (double)most);
    return OK;
}

/* Importance of the columns that a row is multiplied with: its matrix's own. */
static const float *importance_of(const struct job *j, int64_t row, float *means, int64_t *of)
{
    if (!j->weights) return NULL;
    int64_t i = row / (conv_rows(j->t) / j->weights->n_mat);
    if (*of == i) return means;
    if (!eng_imatrix_means(j->weights, i, means)) return NULL;
    *of = i;
    return means;
}

static enum err do_rows(struct job *j, int64_t lo, int64_t hi, int32_t thread)
{
    enum err rc = OK;
    const struct conv_tensor *t = j->t;
    int64_t cols = t->dims[0], out_row = dtype_bytes(t->type, cols), of = -1;
    enum dtype from = t->values ? DTYPE_F32 : t->parts[0]->type;
    uint8_t *raw = xmalloc((size_t)dtype_bytes(from, cols));
    float *x = xmalloc((size_t)cols * sizeof *x), *y = xmalloc((size_t)cols * sizeof *y), *means = xmalloc((size_t)cols * sizeof *means);
    for (int64_t r = lo; r < hi && !atomic_load(&j->failed); r++) {
        int64_t row = j->row0 + r;
        uint8_t *to = j->to + r * out_row;
        if (t->values) {
            memcpy(x, t->values + row * cols, (size_t)cols * sizeof *x);
        } else if (j->as_it_is) {
            TRY(read_row(j, row, to));
            continue;
        } else {
            TRY(read_row(j, row, raw));
            eng_dequant_row(from, raw, is_turned_bias(t) ? y : x, cols);
            for (int64_t i = 0; i < cols && is_turned_bias(t); i++) x[i] = y[row_of_pair(t, i, cols)];
        }
        for (int64_t i = 0; i < cols && t->plus != 0; i++) x[i] += t->plus;
        TRY(check_finite(j, x, row));
        eng_encode_row(t->type, x, importance_of(j, row, means, &of), to, cols);
        if (!j->measure) continue;
        eng_dequant_row(t->type, to, y, cols);
        for (int64_t i = 0; i < cols; i++) {
            double e = (double)x[i] - (double)y[i];
            j->squares[thread] += (double)x[i] * (double)x[i];
            j->errors[thread] += e * e;
        }
    }
out:
    free(raw);
    free(x);
    free(y);
    free(means);
    return rc;
}

static void rows_main(void *arg, int32_t thread, int32_t n_threads)
{
    struct job *j = arg;
    int64_t lo, hi;
    eng_team_range(j->n, 1, thread, n_threads, &lo, &hi);
    enum err e = lo < hi ? do_rows(j, lo, hi, thread) : OK;
    if (e) fail(j, e);
}

static enum err find_importance(const struct eng_convert_conf *c, const struct conv_tensor *t, const struct eng_imatrix_entry **out)
{
    const struct eng_imatrix_entry *e = c->imatrix ? eng_imatrix_find(c->imatrix, t->name) : NULL;
    *out = NULL;
    if (!e) return OK;
    int64_t values = e->cols * e->n_mat, mats = conv_rows(t) / MAX(t->dims[1], 1);
    if (values != t->dims[0] * mats && values != t->dims[0])
        return err_raise(ERR_BAD_CONFIG, "the importance matrix has %lld values for %s, which has %lld columns: it was measured with another model",
                         (long long)values, t->name, (long long)t->dims[0]);
    *out = e;
    return OK;
}

static bool is_quantised(const struct conv_tensor *t) { return !t->values && dtype_block(t->parts[0]->type) > 1; }

static enum err do_tensor(struct job *j, struct conv_plan *p, struct eng_convert_stats *s)
{
    enum err rc = OK;
    const struct conv_tensor *t = j->t;
    struct eng_imatrix_entry split; /* an old file's entry of all experts, seen matrix by matrix */
    int64_t rows = conv_rows(t), out_row = dtype_bytes(t->type, t->dims[0]);
    int32_t n_threads = eng_team_size(j->c->team);
    j->as_it_is = !t->values && t->plus == 0 && t->parts[0]->type == t->type && !is_turned_bias(t);
    j->measure = dtype_block(t->type) > 1 && !j->as_it_is;
    TRY(find_importance(j->c, t, &j->weights));
    float *counts = NULL;
    if (j->weights && j->weights->n_mat == 1 && j->weights->cols > t->dims[0]) {
        int64_t n = j->weights->cols / t->dims[0];
        counts = xmalloc((size_t)n * sizeof *counts);
        for (int64_t i = 0; i < n; i++) counts[i] = j->weights->counts[0];
        split = (struct eng_imatrix_entry){.cols = t->dims[0], .n_mat = n, .sums = j->weights->sums, .counts = counts};
        j->weights = &split;
    }
    s->n_requantised += j->measure && is_quantised(t);
    s->n_without_importance += j->measure && j->c->imatrix && !j->weights;
    int64_t step = MAX(PIECE / t->dims[0], 1);
    j->to = xmalloc((size_t)(MIN(step, rows) * out_row));
    for (int64_t r = 0; r < rows && !rc; r += j->n) {
        j->row0 = r;
        j->n = MIN(step, rows - r);
        eng_team_run(j->c->team, rows_main, j);
        rc = atomic_load(&j->failed) ? err_raise(j->err, "%s", j->text) : eng_gguf_out_put(p->out, j->to, j->n * out_row);
        s->out_bytes += j->n * out_row;
        if (!rc && j->c->progress && !j->c->progress(j->c->user, s->out_bytes, eng_gguf_out_bytes(p->out), t->name)) rc = err_raise(ERR_CANCELLED, "stopped");
    }
    free(j->to);
    free(counts);
    for (int32_t i = 0; i < n_threads; i++) {
        s->squares += j->squares[i];
        s->errors += j->errors[i];
        j->squares[i] = j->errors[i] = 0;
    }
out:
    return rc;
}

/* ---- all of them ---- */

static enum err check_importance(const struct eng_convert_conf *c, const struct conv_plan *p)
{
    int64_t known = 0;
    for (int64_t i = 0; c->imatrix && i < p->n; i++) known += eng_imatrix_find(c->imatrix, p->at[i].name) != NULL;
    return c->imatrix && !known ? err_raise(ERR_BAD_CONFIG, "%s: the importance matrix names no tensor of this model", c->imatrix_path) : OK;
}

static enum err lay_out(const struct eng_convert_conf *c, struct conv_plan *p)
{
    for (int64_t i = 0; i < p->n; i++) {
        struct conv_tensor *t = &p->at[i];
        enum dtype now = t->values ? DTYPE_F32 : t->parts[0]->type;
        t->type = eng_qmix_type(c->mix, &p->model, t->name, t->dims, now);
        bool same = !t->values && t->plus == 0 && t->type == t->parts[0]->type;
        if (!same && !eng_encode_has(t->type))
            return err_raise(ERR_UNSUPPORTED, "tensor %s would have to be written as %s, for which there is no encoder", t->name, dtype_name(t->type));
        if (t->dims[0] % dtype_block(t->type))
            return err_raise(ERR_UNSUPPORTED, "tensor %s has rows of %lld values, %s needs a multiple of %d", t->name, (long long)t->dims[0], dtype_name(t->type),
                             dtype_block(t->type));
        eng_gguf_out_tensor(p->out, t->name, t->type, t->n_dims, t->dims);
    }
    return OK;
}

enum err eng_convert(const struct eng_convert_conf *c, struct eng_convert_stats *out)
{
    enum err rc;
    struct conv_plan p = {.out = eng_gguf_out_open()};
    struct eng_convert_stats s = {.in_bytes = eng_model_file_bytes(c->in)};
    struct job j = {.c = c};
    j.squares = xcalloc((size_t)eng_team_size(c->team), sizeof *j.squares);
    j.errors = xcalloc((size_t)eng_team_size(c->team), sizeof *j.errors);
    p.model.has_imatrix = c->imatrix != NULL;
    TRY(read_model(&p, c->in));
    TRY(eng_model_file_is_dir(c->in) ? conv_plan_hf(&p, c->in) : conv_plan_gguf(&p, c->in));
    if (!p.n) TRY(err_raise(ERR_BAD_FILE, "%s has no tensors: there is nothing to quantise", eng_model_file_path(c->in)));
    TRY(check_importance(c, &p));
    eng_gguf_out_u32(p.out, "general.file_type", c->mix->file_type);
    eng_gguf_out_u32(p.out, "general.quantization_version", QUANTIZATION_VERSION);
    if (c->imatrix_path) eng_gguf_out_str(p.out, "quantize.imatrix.file", c->imatrix_path, strlen(c->imatrix_path));
    TRY(lay_out(c, &p));
    TRY(eng_gguf_out_begin(p.out, c->out));
    for (int64_t i = 0; i < p.n; i++) {
        j.t = &p.at[i];
        TRY(do_tensor(&j, &p, &s));
    }
    TRY(eng_gguf_out_finish(p.out));
    s.n_tensors = p.n;
    s.no_words = p.no_words;
    s.out_bytes = eng_gguf_out_bytes(p.out);
    *out = s;
out:
    eng_gguf_out_close(p.out);
    arena_free(&p.arena);
    free(p.at);
    free(j.squares);
    free(j.errors);
    return rc;
}
