/* bench_engine.c: `tessera bench engine`: every combination of threads and test on one loaded model,
 * each figure beside the machine's own limit measured in the same run. */
#include "cli/adapters.h"
#include "cli/bench.h"
#include "cli/choices.h"
#include "cli/commands.h"

#include "base/buf.h"
#include "base/conf.h"
#include "engine/bench/limits.h"
#include "engine/bench/ranks.h"
#include "engine/bench/shape.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAX_LIST = 16, MAX_RUNS = 64, MADE_SEED = 1, SHORT_DEPTH = 128, LONG_DEPTH = 2048, LARGEST_CACHE = 1 << 30 /* of a processor, bytes */ };

struct options {
    const char *threads, *batch, *prompt, *depth, *isa, *device, *shape, *type, *lora;
    int64_t tp, steps, runs;
    int32_t kv_type, activations, exact, experts;
    bool profile, json;
};

/* Without the planner nothing chooses: no "auto". */
#define BENCH_EXPERTS_NAMES "cut|whole"
enum { BENCH_EXPERTS_CUT, BENCH_EXPERTS_WHOLE };

#define O(f) offsetof(struct options, f)
static const struct conf_opt table[] = {
    {"threads", CONF_STR, O(threads), "0", 0, 0, "N,...",
     "compute threads of a rank; 0: all processors"},
    {"shape", CONF_STR, O(shape), NULL, 0, 0, "NAME",
     "instead of MODEL: weights made up in memory, as large as those of llama3-8b, llama3-70b, ..."},
    {"type", CONF_STR, O(type), "q4_k", 0, 0, "TYPE", "of these weights: bf16, q8_0, q4_0, q4_k, ..."},
    {"tp", CONF_INT, O(tp), "1", 1, 64, "N", "ranks, as threads of this process"},
    {"batch", CONF_STR, O(batch), "1,4,8,16,32", 0, 0, "N,...", "sequences that generate together"},
    {"prompt", CONF_STR, O(prompt), NULL, 0, 0, "N,...",
     "prompt tokens computed in one step; default 128,512, within the model's context"},
    {"depth", CONF_STR, O(depth), NULL, 0, 0, "N,...",
     "positions before a generated token, one sequence; default 2048, within the model's context"},
    {"steps", CONF_INT, O(steps), "16", 1, 1000, "N", "generated tokens per run"},
    {"runs", CONF_INT, O(runs), "3", 1, MAX_RUNS, "N", "of each test; the median counts"},
    {"kv-type", CONF_ENUM, O(kv_type), "f16", 0, 0, KV_TYPE_NAMES, "type of the KV cache"},
    {"activations", CONF_ENUM, O(activations), "q8", 0, 0, ACTIVATIONS_NAMES,
     "inputs of quantised matmuls; f32 is the oracle mode"},
    {"exact", CONF_ENUM, O(exact), "on", 0, 0, EXACT_NAMES,
     "off: products of bf16 and f16 weights, and on cards the attention of prompts, may round more, where that is faster"},
    {"experts", CONF_ENUM, O(experts), "cut", 0, 0, BENCH_EXPERTS_NAMES, "of --tp ranks: each expert cut inside, or whole on one of them"},
    {"lora", CONF_LIST, O(lora), NULL, 0, 0, "NAME=PATH", "LoRA adapters beside the model, as of serve, taken by the sequences in turn; may be given again"},
    {"device", CONF_STR, O(device), "cpu", 0, 0, "NAME", "where ranks compute: cpu, cuda (dealt round), cuda:N, auto"},
    {"isa", CONF_STR, O(isa), "auto", 0, 0, "NAME", "kernels: auto, ref, or those of an instruction set: avx2, avxvnni, avx512, amx; neon, dotprod, i8mm"},
    {"profile", CONF_FLAG, O(profile), NULL, 0, 0, "on|off", "where the time goes, of thread 0"},
    {"json", CONF_FLAG, O(json), NULL, 0, 0, "on|off", "one JSON document instead of the table"},
    {0},
};
static const struct conf_opt *const groups[] = {table, NULL};
static const struct conf_table conf = {
    "bench engine", "bench engine MODEL|--shape NAME [options]",
    "Speed of the engine alone: no coordinator, no HTTP. Prompts and generated tokens are made up,\n"
    "KV caches are filled beforehand. Limits of the machine are measured in the same run:\n"
    "weights per second are set against the read bandwidth, operations against the multiply-add\n"
    "rate of the arithmetic that the weights' type uses (int8 products or f32).\n"
    "  tessera bench engine model.gguf --threads 1,2 --profile\n"
    "  tessera bench engine --shape llama3-70b --type q4_k --device cuda", groups, 0, 1};

/* The tests of one thread count. */
struct lists { int32_t threads[MAX_LIST], batch[MAX_LIST], prompt[MAX_LIST], depth[MAX_LIST]; };
struct counts { int32_t threads, batch, prompt, depth; };

struct test {
    const char *name;                /* "prompt", "decode" */
    int32_t n_seqs, n_in, pos, n_steps;
};

struct row {
    struct test t;
    int32_t n_threads;
    double seconds;                  /* of one step, the median run's */
    struct eng_times times;
    int64_t n_times;                 /* steps in it */
};

struct bench {
    const struct options *o;
    struct bench_ranks *ranks;
    struct adapters adapters;
    struct bench_limits limits;
    struct eng_engine_info info;
    int32_t short_depth;             /* of the tests of many sequences */
    bool int8;                       /* the arithmetic of most weights */
    bool above_limit;                /* some row read faster than the memory did */
    struct buf rows;                 /* JSON objects, separated by commas */
};

/* ---- measuring ---- */

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static enum err measure(struct bench *b, const struct test *t, struct row *r)
{
    enum err rc = OK;
    double runs[MAX_RUNS] = {0}, s;
    int32_t n = (int32_t)b->o->runs;
    *r = (struct row){.t = *t};
    TRY(bench_ranks_step(b->ranks, t->n_seqs, t->n_in, t->pos, &s));
    bench_ranks_times(b->ranks, &r->times);
    for (int32_t i = 0; i < n; i++)
        for (int32_t k = 0; k < t->n_steps; k++) {
            TRY(bench_ranks_step(b->ranks, t->n_seqs, t->n_in, t->pos + k * t->n_in, &s));
            runs[i] += s / t->n_steps;
        }
    bench_ranks_times(b->ranks, &r->times);
    r->n_times = (int64_t)n * t->n_steps;
    qsort(runs, (size_t)n, sizeof *runs, by_value);
    r->seconds = runs[n / 2];
out:
    return rc;
}

/* ---- showing ---- */

static double tokens_s(const struct row *r) { return r->t.n_seqs * r->t.n_in / r->seconds; }
static double bytes_s(const struct bench *b, const struct row *r)
{
    return (double)b->info.step_bytes / r->seconds;
}
static double ops_s(const struct bench *b, const struct row *r)
{
    double n = r->t.n_seqs;
    return 2 * (n * r->t.n_in * (double)b->info.layer_weights + n * (double)b->info.head_weights) /
           r->seconds;
}
static double peak(const struct bench *b)
{
    return b->int8 ? b->limits.dot_ops_s : b->limits.fma_ops_s;
}

static const char *const op_names[ENG_OP_COUNT] = {
    [ENG_OP_NORM] = "norm", [ENG_OP_MATMUL] = "matmul", [ENG_OP_ROPE] = "rope",
    [ENG_OP_ATTENTION] = "attention", [ENG_OP_GATE] = "gate", [ENG_OP_WAIT] = "wait",
    [ENG_OP_COLLECTIVE] = "collective", [ENG_OP_HEAD] = "head", [ENG_OP_OTHER] = "other"};

static void print_profile(const struct row *r)
{
    int64_t all = 0;
    for (int32_t i = 0; i < ENG_OP_COUNT; i++) all += r->times.ns[i];
    printf("         us/step:");
    for (int32_t i = 0; i < ENG_OP_COUNT; i++)
        if (r->times.ns[i])
            printf(" %s %.0f (%.1f%%)", op_names[i], (double)r->times.ns[i] / 1e3 / (double)r->n_times,
                   100.0 * (double)r->times.ns[i] / (double)MAX(all, 1));
    printf("\n");
}

static void show(struct bench *b, const struct row *r)
{
    double gbs = bytes_s(b, r), ops = ops_s(b, r);
    if (!b->o->json) {
        printf("%-7s %4d %5d %6d %7d %10.2f %9.2f %8.2f %5.0f%% %9.1f %5.0f%%\n", r->t.name,
               r->t.n_seqs, r->t.n_in, r->t.pos, r->n_threads, tokens_s(r), r->seconds * 1e3,
               gbs / 1e9, 100 * gbs / b->limits.read_bytes_s, ops / 1e9, 100 * ops / peak(b));
        if (b->o->profile) print_profile(r);
        if (gbs > 1.1 * b->limits.read_bytes_s) b->above_limit = true;
        fflush(stdout);
        return;
    }
    buf_printf(&b->rows, "%s\n    {\"test\": \"%s\", \"sequences\": %d, \"tokens_each\": %d, \"depth\": %d, \"threads\": %d,\n",
               b->rows.len ? "," : "", r->t.name,
               r->t.n_seqs, r->t.n_in, r->t.pos, r->n_threads);
    buf_printf(&b->rows, "     \"tokens_per_s\": %.6g, \"step_s\": %.6g, \"weight_bytes_per_s\": %.6g, \"share_of_read\": %.6g,\n",
               tokens_s(r), r->seconds, gbs,
               gbs / b->limits.read_bytes_s);
    buf_printf(&b->rows, "     \"ops_per_s\": %.6g, \"share_of_multiply_add\": %.6g,\n     \"seconds_by_op\": {", ops, ops / peak(b));
    for (int32_t i = 0; i < ENG_OP_COUNT; i++)
        buf_printf(&b->rows, "%s\"%s\": %.6g", i ? ", " : "", op_names[i], (double)r->times.ns[i] * 1e-9 / (double)r->n_times);
    buf_puts(&b->rows, "}}");
}

static void show_head(const struct bench *b)
{
    if (b->o->json) return;
    printf("%lld rank(s) x %d thread(s), %s, kernels %s, %.1f MB of weights a step, loaded in %.2f s\n"
           "limits: read %.2f GB/s, int8 %.0f GOP/s, f32 %.0f GFLOP/s\n"
           "%-7s %4s %5s %6s %7s %10s %9s %8s %6s %9s %6s\n",
           (long long)b->o->tp, b->limits.n_threads / (int32_t)b->o->tp, b->info.device, b->info.isa,
           (double)b->info.step_bytes / 1e6, b->info.load_seconds, b->limits.read_bytes_s / 1e9,
           b->limits.dot_ops_s / 1e9, b->limits.fma_ops_s / 1e9, "test", "seqs", "each", "depth",
           "threads", "tok/s", "ms/step", "GB/s", "read", b->int8 ? "GOP/s" : "GFLOP/s", "peak");
}

/* ---- the command ---- */

static enum err measure_all(struct bench *b, const struct lists *l, const struct counts *n,
                            int32_t n_threads)
{
    enum err rc = OK;
    struct row r;
    int32_t steps = (int32_t)b->o->steps;
    for (int32_t i = 0; i < n->prompt; i++) {
        TRY(measure(b, &(struct test){"prompt", 1, l->prompt[i], 0, 1}, &r));
        r.n_threads = n_threads;
        show(b, &r);
    }
    for (int32_t i = 0; i < n->batch; i++) {
        TRY(measure(b, &(struct test){"decode", l->batch[i], 1, b->short_depth, steps}, &r));
        r.n_threads = n_threads;
        show(b, &r);
    }
    for (int32_t i = 0; i < n->depth; i++) {
        TRY(measure(b, &(struct test){"decode", 1, 1, l->depth[i], steps}, &r));
        r.n_threads = n_threads;
        show(b, &r);
    }
out:
    return rc;
}

/* Is most of a step's arithmetic done on int8 codes? */
static enum err find_arithmetic(const struct options *o, const char *model, bool *int8)
{
    struct eng_model_file *f = NULL;
    int64_t quant = 0, all = 0;
    enum err e = eng_model_file_open(&f, model);
    for (int64_t i = 0; !e && i < eng_model_file_n_tensors(f); i++) {
        const struct model_tensor *t = eng_model_file_tensor(f, i);
        if (t->type >= DTYPE_COUNT) continue;
        all += t->dims[0] * t->dims[1];
        if (dtype_block(t->type) > 1) quant += t->dims[0] * t->dims[1];
    }
    *int8 = o->activations == ACTIVATIONS_Q8 && quant > all / 2;
    eng_model_file_close(f);
    return e;
}

static enum err one_thread_count(struct bench *b, const char *model, const struct lists *l,
                                 const struct counts *n, int32_t n_threads)
{
    enum err rc;
    const struct options *o = b->o;
    int32_t seqs = 1, context = b->short_depth, step = 32;
    for (int32_t i = 0; i < n->batch; i++) seqs = MAX(seqs, l->batch[i]);
    for (int32_t i = 0; i < n->prompt; i++) step = MAX(step, l->prompt[i]);
    for (int32_t i = 0; i < n->depth; i++) context = MAX(context, l->depth[i]);
    context = MAX(context + (int32_t)o->steps, step);
    struct bench_ranks_conf c = {.path = model, .isa = o->isa, .device = o->device, .made = o->shape ? MADE_SEED : 0, .tp = (int32_t)o->tp,
                                 .n_threads = n_threads, .n_seqs = seqs, .context = context,
                                 .max_step_tokens = MAX(step, seqs), .kv_type = (enum kv_type)o->kv_type,
                                 .oracle = o->activations == ACTIVATIONS_F32, .rounded = o->exact == EXACT_OFF,
                                 .whole_experts = o->experts == BENCH_EXPERTS_WHOLE, .adapters = adapters_of(&b->adapters)};
    TRY(bench_ranks_open(&b->ranks, &c));
    bench_ranks_info(b->ranks, &b->info);
    if (strcmp(b->info.device, "cpu") != 0) TRY(bench_limits_device(&b->limits, o->device));
    else
        TRY(bench_limits_measure(&b->limits, b->info.isa, n_threads * (int32_t)o->tp,
                                 bench_ranks_cpus(b->ranks)));
    show_head(b);
    TRY(measure_all(b, l, n, n_threads));
out:
    bench_ranks_close(b->ranks);
    b->ranks = NULL;
    return rc;
}

static enum err read_lists(const struct options *o, struct lists *l, struct counts *n)
{
    enum err rc;
    long cpus = MAX(sysconf(_SC_NPROCESSORS_ONLN), 1L);
    TRY(bench_list("threads", o->threads, 0, 512, l->threads, MAX_LIST, &n->threads));
    TRY(bench_list("batch", o->batch, 1, LIMIT_SLOTS, l->batch, MAX_LIST, &n->batch));
    if (o->prompt) TRY(bench_list("prompt", o->prompt, 1, LIMIT_STEP_TOKENS, l->prompt, MAX_LIST, &n->prompt));
    if (o->depth) TRY(bench_list("depth", o->depth, 1, LIMIT_CONTEXT / 2, l->depth, MAX_LIST, &n->depth));
    for (int32_t i = 0; i < n->threads; i++)
        if (!l->threads[i]) l->threads[i] = (int32_t)MAX(cpus / o->tp, 1);
out:
    return rc;
}

/* What was not asked for goes by the model's context. */
static enum err within_context(struct bench *b, const char *model, struct lists *l, struct counts *n)
{
    enum err rc;
    struct model_info info;
    TRY(eng_engine_model_info(model, &info));
    int32_t most = info.context - (int32_t)b->o->steps;
    if (most < 1)
        TRY(err_raise(ERR_BAD_CONFIG, "--steps %lld leaves no room in a context of %d tokens: fewer than that are needed",
                      (long long)b->o->steps, info.context));
    b->short_depth = MIN(SHORT_DEPTH, most);
    if (!b->o->depth) l->depth[n->depth++] = MIN(LONG_DEPTH, most);
    if (!b->o->prompt) l->prompt[n->prompt++] = MIN(128, info.context);
    if (!b->o->prompt && info.context > 128) l->prompt[n->prompt++] = MIN(512, info.context);
out:
    return rc;
}

/* As JSON; control characters, which no sane path has, are left out. */
static void print_string(const char *s)
{
    putchar('"');
    for (; *s; s++) {
        if (*s == '"' || *s == '\\') putchar('\\');
        if ((unsigned char)*s >= ' ') putchar(*s);
    }
    putchar('"');
}

/* The file that is given, or the header of the shape; *fd stays open as long as it is used. */
static enum err find_model(const struct options *o, int n_args, const char **model, char path[64], int *fd)
{
    enum err rc;
    enum dtype type;
    if (!o->shape == !n_args) return err_raise(ERR_BAD_CONFIG, "one of MODEL and --shape is needed: shapes are %s", bench_shape_names());
    if (!o->shape) return cmd_model(model);
    TRY(bench_shape_type(o->type, &type));
    TRY(bench_shape_open(o->shape, type, path, fd));
    *model = path;
out:
    return rc;
}

int bench_engine(int argc, char **argv)
{
    enum err rc;
    struct options o = {0};
    struct lists l = {0};
    struct counts n = {0};
    const char *args[1];
    int n_args;
    bool help;
    struct bench b = {.o = &o};
    char path[64];
    int fd = -1;
    TRY(conf_parse(&conf, argc, argv, &o, args, &n_args, &help));
    if (help) {
        conf_help(&conf);
        return 0;
    }
    TRY(read_lists(&o, &l, &n));
    TRY(find_model(&o, n_args, &args[0], path, &fd));
    TRY(within_context(&b, args[0], &l, &n));
    TRY(adapters_open(&b.adapters, o.lora, args[0]));
    TRY(find_arithmetic(&o, args[0], &b.int8));
    for (int32_t i = 0; i < n.threads; i++) TRY(one_thread_count(&b, args[0], &l, &n, l.threads[i]));
    if (b.above_limit)
        printf("(read above 100 %%: %s)\n", b.info.weight_bytes < LARGEST_CACHE
                                                ? "so small a model's weights stay in the processor's caches from step to step; the limit is that of memory"
                                                : "the memory was slower while its limit was measured; others use this machine too");
    if (o.json) {
        printf("{\n  \"model\": ");
        print_string(o.shape ? o.shape : args[0]);
        printf(",\n  \"device\": \"%s\", \"ranks\": %d, \"kernels\": \"%s\",\n", b.info.device, (int)o.tp, b.info.isa);
        printf("  \"read_bytes_per_s\": %.6g, \"int8_ops_per_s\": %.6g, \"f32_ops_per_s\": %.6g, \"weight_bytes_per_step\": %lld,\n", b.limits.read_bytes_s,
               b.limits.dot_ops_s, b.limits.fma_ops_s, (long long)b.info.step_bytes);
        printf("  \"rows\": [%s]\n}\n", buf_str(&b.rows));
    }
out:
    if (fd >= 0) close(fd);
    adapters_free(&b.adapters);
    buf_free(&b.rows);
    return rc ? cmd_fail(rc) : 0;
}
