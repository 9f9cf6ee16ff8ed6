/* cmd_inspect.c: `tessera inspect`: what a model file or a checkpoint's directory says of itself. Reads the header only. */
#include "cli/commands.h"

#include "base/conf.h"
#include "base/plain.h"
#include "engine/file/adapter.h"
#include "engine/model/shard.h"
#include "engine/model/spec.h"
#include "engine/model/weights.h"
#include "engine/model_text.h"
#include "proto/leaves.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options { bool tensors, keys; int64_t tp, pp; };

#define O(f) offsetof(struct options, f)
static const struct conf_opt table[] = {
    {"tensors", CONF_FLAG, O(tensors), NULL, 0, 0, "on|off", "list every tensor"},
    {"keys", CONF_FLAG, O(keys), "on", 0, 0, "on|off", "list the metadata"},
    {"tp", CONF_INT, O(tp), "0", 0, LIMIT_RANKS, "N",
     "what each rank would hold of an even cut: N tensor-parallel ranks per stage (tessera plan: of a planned one)"},
    {"pp", CONF_INT, O(pp), "0", 0, LIMIT_RANKS, "N", "the same: pipeline stages"},
    {0},
};
static const struct conf_opt *const groups[] = {table, NULL};
static const struct conf_table conf = {"inspect", "inspect MODEL [options]",
                                       "Header, metadata and tensors of a model (GGUF file or checkpoint's directory); reads no weights.", groups, 1, 1};

/* Of the file's own words. */
static void say(const char *text, size_t n, int width)
{
    char line[1024];
    printf("%-*s", width, plain(line, sizeof line, text, n));
}

static void print_text(struct model_str s)
{
    putchar('"');
    for (uint64_t i = 0; i < s.n && i < 60; i++) putchar(isprint((unsigned char)s.p[i]) ? s.p[i] : '.');
    printf(s.n > 60 ? "...\" (%llu bytes)" : "\"", (unsigned long long)s.n);
}

static void print_kv(const struct eng_spec *s, const struct model_info *info)
{
    const double layer = (double)s->n_kv_heads * (double)leaf_kv_row_bytes(&info->kv, KV_F16) / 1e3;
    int32_t n = 0;
    for (int32_t l = 0; l < s->n_layers && s->window && s->window < s->context; l++) n += s->local[l];
    printf("KV cache   %.1f KB per token (f16)", (s->n_layers - n) * layer);
    if (n) printf(", and %.1f KB for each of the last %d: so far %d of the layers see", n * layer, s->window, n);
    printf("\n");
}

static void print_value(const struct model_kv *kv)
{
    switch (kv->kind) {
    case KV_INT: printf("%lld", (long long)kv->i); break;
    case KV_FLOAT: printf("%g", kv->f); break;
    case KV_BOOL: printf("%s", kv->b ? "true" : "false"); break;
    case KV_STRING: print_text(kv->s); break;
    case KV_ARRAY: {
        uint64_t show = MIN(kv->a.n, 4);
        putchar('[');
        for (uint64_t i = 0; i < show; i++) {
            if (i) printf(", ");
            if (kv->a.kind == KV_STRING) print_text(eng_model_file_array_str(kv, i));
            else if (kv->a.kind == KV_FLOAT) printf("%g", eng_model_file_array_float(kv, i));
            else printf("%lld", (long long)eng_model_file_array_int(kv, i));
        }
        printf(show < kv->a.n ? ", ...] (%llu)" : "]", (unsigned long long)kv->a.n);
        break;
    }
    }
}

static void print_types(const struct eng_model_file *f)
{
    int64_t bytes[DTYPE_COUNT + 1] = {0}, count[DTYPE_COUNT + 1] = {0}, all = 0;
    for (int64_t i = 0; i < eng_model_file_n_tensors(f); i++) {
        const struct model_tensor *t = eng_model_file_tensor(f, i);
        if (t->part_of) continue;
        bytes[t->type] += t->bytes;
        count[t->type]++;
        all++;
    }
    printf("tensors    %lld\n", (long long)all);
    for (int t = 0; t <= DTYPE_COUNT; t++)
        if (count[t])
            printf("  %-6s %5lld tensors  %10.2f MB\n", t < DTYPE_COUNT ? dtype_name((enum dtype)t) : "other", (long long)count[t], (double)bytes[t] / 1e6);
}

static void print_adapter(const struct eng_model_file *f)
{
    double alpha = 0;
    int64_t least = INT64_MAX, most = 0;
    (void)!eng_model_file_float(f, "adapter.lora.alpha", 0, &alpha);
    for (int64_t i = 0; i < eng_model_file_n_tensors(f); i++) { /* of A the rows are few, of B the columns */
        const struct model_tensor *t = eng_model_file_tensor(f, i);
        least = MIN(least, MIN(t->dims[0], t->dims[1]));
        most = MAX(most, MIN(t->dims[0], t->dims[1]));
    }
    printf("adapter    LoRA of %lld matrices, rank %lld", (long long)eng_model_file_n_tensors(f) / 2, (long long)MIN(least, most));
    if (most > least) printf(" to %lld", (long long)most);
    printf(", alpha %g: tessera serve its base with --lora NAME=%s\n", alpha, eng_model_file_path(f));
}

static void print_model(const struct eng_model_file *f)
{
    struct eng_spec s;
    struct model_info info;
    struct eng_tokenizer *t = NULL;
    if (eng_spec_read(&s, f)) {
        printf("model      not one this build runs: ");
        say(err_text(), strlen(err_text()), 0);
        putchar('\n');
    } else {
        eng_spec_info(&s, f, &info);
        printf("model      ");
        say(info.name, strlen(info.name), 0);
        printf(" (%s), %.2f M parameters in %.2f MB\n", info.arch, (double)info.n_params / 1e6, (double)info.weight_bytes / 1e6);
        printf("shape      %d layers, d_model %d, FFN %d, %d query and %d KV heads of %d, vocabulary %d, context %d%s\n", s.n_layers, s.d_model, s.d_ffn,
               s.n_heads, s.n_kv_heads, s.head_dim, s.n_vocab, s.context, s.tied ? ", tied embedding" : "");
        print_kv(&s, &info);
        if (s.mla.kv_rank) printf("latent     %d values and %d rotated ones of a token, for all heads\n", s.mla.kv_rank, s.mla.rope);
    }
    if (eng_model_tokenizer(&t, f)) {
        say(err_text(), strlen(err_text()), 0);
        putchar('\n');
    } else printf("tokenizer  %s, %d tokens\n", eng_tokenizer_kind(t), eng_tokenizer_size(t));
    eng_tokenizer_close(t);
}

/* Of an even cut; the planner's is `tessera plan`'s to tell. */
static enum err print_ranks(const struct eng_model_file *f, const struct options *o)
{
    enum err rc;
    struct eng_spec s;
    struct eng_shard h;
    struct grid g;
    if (!o->tp && !o->pp) return OK;
    TRY(eng_spec_read(&s, f));
    TRY(eng_grid_even(&g, &s, (int32_t)MAX(o->tp, 1), (int32_t)MAX(o->pp, 1)));
    printf("\nranks      stage   layers     heads   KV   FFN columns   vocabulary       weights    KV of a token (f16)\n");
    for (int32_t r = 0; r < grid_ranks(&g); r++) {
        int64_t in_file, held;
        TRY(eng_shard_of(&h, &s, &g, r));
        TRY(eng_weights_count(f, &s, &h, &in_file, &held));
        printf("  %-8d %5d  %3d-%-3d %9d %4d %13d %12d %10.2f MB %15.1f KB\n", r, h.stage, h.layer0, h.layer1 - 1, h.q1 - h.q0, h.kv1 - h.kv0, h.ffn1 - h.ffn0,
               h.embd1 - h.embd0, (double)held / 1e6, (double)eng_shard_kv_block_bytes(&h, &s, KV_F16, s.context) / LIMIT_BLOCK_TOKENS / 1e3);
    }
out:
    return rc;
}

int cmd_inspect(int argc, char **argv)
{
    enum err rc;
    struct options o = {0};
    const char *args[1];
    int n_args;
    bool help;
    struct eng_model_file *f = NULL;
    TRY(conf_parse(&conf, argc, argv, &o, args, &n_args, &help));
    if (help) {
        conf_help(&conf);
        return 0;
    }
    TRY(cmd_model(&args[0]));
    TRY(eng_model_file_open(&f, args[0]));
    printf("file       %s, %s, %d part(s), %.2f MB\n", args[0], eng_model_file_format(f), eng_model_file_parts(f), (double)eng_model_file_bytes(f) / 1e6);
    if (eng_adapter_is(f)) print_adapter(f);
    else print_model(f);
    print_types(f);
    TRY(print_ranks(f, &o));
    for (int64_t i = 0; o.keys && i < eng_model_file_n_kv(f); i++) {
        const struct model_kv *kv = eng_model_file_kv(f, i);
        if (!i) printf("\nmetadata\n");
        say(kv->key.p, kv->key.n, 44);
        printf(" = ");
        print_value(kv);
        putchar('\n');
    }
    for (int64_t i = 0; o.tensors && i < eng_model_file_n_tensors(f); i++) {
        const struct model_tensor *t = eng_model_file_tensor(f, i);
        const char *made_of = eng_model_tensor_made_of(t);
        if (t->part_of) continue;
        if (!i) printf("\ntensors\n");
        say(t->name, strlen(t->name), 40);
        printf(" %-5s [%lld, %lld, %lld, %lld]  %lld bytes ", dtype_ggml_name(t->ggml_type), (long long)t->dims[0], (long long)t->dims[1],
               (long long)t->dims[2],
               (long long)t->dims[3], (long long)t->bytes);
        if (made_of) {
            printf("made of ");
            say(made_of, strlen(made_of), 0);
            putchar('\n');
        } else printf("at %lld\n", (long long)t->offset);
    }
out:
    eng_model_file_close(f);
    return rc ? cmd_fail(rc) : 0;
}
