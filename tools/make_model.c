/* make_model.c: write a model with random weights of true shapes, to try and to measure with.
 *
 *   make_model --shape 1b --type q4_0 --out /tmp/1b.gguf
 *   make_model --arch qwen3 --layers 4 --width 256 --heads 8 --kv-heads 2 --out small.gguf
 * A shape names a known model's numbers; every option given after it (or without one) changes one
 * of them. */
#include "base/clock.h"
#include "base/conf.h"
#include "tests/support/random_model.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static const struct shape {
    const char *name;
    struct random_model m;
} shapes[] = {
    {"tiny",
     {.arch = "llama", .n_layer = 2, .d_model = 256, .n_head = 8, .n_kv_head = 4, .head_dim = 32,
      .d_ffn = 512, .vocab = 512}},
    {"0.5b",
     {.arch = "qwen2", .n_layer = 24, .d_model = 896, .n_head = 14, .n_kv_head = 2, .head_dim = 64,
      .d_ffn = 4864, .vocab = 151936, .context = 32768, .tied = true, .rope_theta = 1e6}},
    {"0.6b",
     {.arch = "qwen3", .n_layer = 28, .d_model = 1024, .n_head = 16, .n_kv_head = 8, .head_dim = 128,
      .d_ffn = 3072, .vocab = 151936, .context = 40960, .tied = true, .rope_theta = 1e6}},
    {"1b",
     {.arch = "llama", .n_layer = 16, .d_model = 2048, .n_head = 32, .n_kv_head = 8, .head_dim = 64,
      .d_ffn = 8192, .vocab = 128256, .context = 131072, .tied = true, .rope_theta = 5e5,
      .rope = RANDOM_ROPE_LLAMA3, .rope_factor = 32, .rope_original_context = 8192}},
    {"8b",
     {.arch = "llama", .n_layer = 32, .d_model = 4096, .n_head = 32, .n_kv_head = 8, .head_dim = 128,
      .d_ffn = 14336, .vocab = 128256, .context = 131072, .rope_theta = 5e5,
      .rope = RANDOM_ROPE_LLAMA3, .rope_factor = 8, .rope_original_context = 8192}},
    {"8x7b",
     {.arch = "llama", .n_layer = 32, .d_model = 4096, .n_head = 32, .n_kv_head = 8, .head_dim = 128,
      .d_ffn = 14336, .n_expert = 8, .n_used = 2, .d_expert = 14336, .vocab = 32000, .context = 32768, .rope_theta = 1e6}},
    {"30b-a3b",
     {.arch = "qwen3moe", .n_layer = 48, .d_model = 2048, .n_head = 32, .n_kv_head = 4, .head_dim = 128,
      .d_ffn = 6144, .n_expert = 128, .n_used = 8, .d_expert = 768, .vocab = 151936, .context = 40960, .rope_theta = 1e6}},
    {"scout-ish", /* Llama 4's layers with fewer experts */
     {.arch = "llama4", .n_layer = 48, .d_model = 5120, .n_head = 40, .n_kv_head = 8, .head_dim = 128,
      .d_ffn = 16384, .n_expert = 4, .n_used = 1, .d_expert = 8192, .d_shared = 8192, .window = 8192, .vocab = 202048, .context = 262144, .rope_theta = 5e5}},
    {"v2-lite",
     {.arch = "deepseek2", .n_layer = 27, .d_model = 2048, .n_head = 16, .n_kv_head = 1, .head_dim = 128, .latent = 512, .rope_part = 64,
      .d_ffn = 10944, .n_expert = 64, .n_used = 6, .d_expert = 1408, .d_shared = 2816, .n_dense = 1, .vocab = 102400, .context = 163840,
      .rope = RANDOM_ROPE_YARN, .rope_factor = 40, .rope_original_context = 4096}},
    {"gpt-oss-20b",
     {.arch = "gpt-oss", .n_layer = 24, .d_model = 2880, .n_head = 64, .n_kv_head = 8, .head_dim = 64,
      .d_ffn = 2880, .n_expert = 32, .n_used = 4, .d_expert = 2880, .window = 128, .vocab = 201088, .context = 131072, .rope_theta = 150000,
      .rope = RANDOM_ROPE_YARN, .rope_factor = 32, .rope_original_context = 4096}},
    {"gemma3-4b",
     {.arch = "gemma3", .n_layer = 34, .d_model = 2560, .n_head = 8, .n_kv_head = 4, .head_dim = 256,
      .d_ffn = 10240, .window = 1024, .vocab = 262144, .context = 131072, .tied = true, .rope_theta = 1e6,
      .rope = RANDOM_ROPE_LINEAR, .rope_factor = 8}},
    {"70b",
     {.arch = "llama", .n_layer = 80, .d_model = 8192, .n_head = 64, .n_kv_head = 8, .head_dim = 128,
      .d_ffn = 28672, .vocab = 128256, .context = 131072, .rope_theta = 5e5,
      .rope = RANDOM_ROPE_LLAMA3, .rope_factor = 8, .rope_original_context = 8192}},
};

/* What the command line says; 0, NULL and -1 mean: as the shape has it. */
struct opts {
    const char *arch, *shape, *type, *embd_type, *out;
    int64_t layers, width, heads, kv_heads, head_dim, ffn, vocab, context, window, experts, used, expert_ffn, seed;
    double rope_theta, rope_factor;
    int32_t rope, tied, vocab_kind;
};

#define O(f) offsetof(struct opts, f)
static const struct conf_opt table[] = {
    {"out", CONF_STR, O(out), NULL, 0, 0, "FILE", "where to write the model (needed)"},
    {"shape", CONF_STR, O(shape), "tiny", 0, 0, "NAME",
     "tiny, 0.5b, 0.6b, 1b, 8b, 70b, gemma3-4b, or of experts 8x7b, 30b-a3b, v2-lite, gpt-oss-20b, scout-ish"},
    {"type", CONF_STR, O(type), "f32", 0, 0, "T",
     "f32, f16, bf16, q8_0, q4_0, q4_k, q5_k, q6_k or mxfp4, of the layers"},
    {"embd-type", CONF_STR, O(embd_type), NULL, 0, 0, "T",
     "of embedding and output; else as --type"},
    {"arch", CONF_STR, O(arch), NULL, 0, 0, "NAME", "a family of GGUF's (tests/support/random_model.c)"},
    {"layers", CONF_INT, O(layers), NULL, 0, 1e4, "N", "layers"},
    {"width", CONF_INT, O(width), NULL, 0, 1e6, "N", "width of the model"},
    {"heads", CONF_INT, O(heads), NULL, 0, 1e5, "N", "query heads"},
    {"kv-heads", CONF_INT, O(kv_heads), NULL, 0, 1e5, "N", "key and value heads"},
    {"head-dim", CONF_INT, O(head_dim), NULL, 0, 1e5, "N", "size of a head"},
    {"ffn", CONF_INT, O(ffn), NULL, 0, 1e7, "N", "width of the feed-forward layer"},
    {"vocab", CONF_INT, O(vocab), NULL, 0, 1e7, "N", "size of the vocabulary"},
    {"context", CONF_INT, O(context), NULL, 0, 1e8, "N", "context length the file states"},
    {"window", CONF_INT, O(window), NULL, 0, 1e8, "N", "positions that a layer with a window sees"},
    {"experts", CONF_INT, O(experts), NULL, 0, 1e4, "N", "experts of a layer"},
    {"used", CONF_INT, O(used), NULL, 0, 1e4, "N", "of them, those that a token visits"},
    {"expert-ffn", CONF_INT, O(expert_ffn), NULL, 0, 1e7, "N", "width of an expert"},
    {"tied", CONF_ENUM, O(tied), "shape", 0, 0, "shape|on|off",
     "does the output share the embedding's matrix"},
    {"vocab-kind", CONF_ENUM, O(vocab_kind), "bpe", 0, 0, "bpe|spm", "kind of vocabulary"},
    {"rope", CONF_ENUM, O(rope), "shape", 0, 0, "shape|plain|linear|llama3|yarn", "rope scaling"},
    {"rope-theta", CONF_FLOAT, O(rope_theta), NULL, 0, 1e12, "X", "rope frequency base"},
    {"rope-factor", CONF_FLOAT, O(rope_factor), NULL, 0, 1e6, "X", "rope scaling factor"},
    {"seed", CONF_INT, O(seed), "1", 0, 0, "N", "same seed, same bytes"},
    {0},
};

static const struct conf_opt *const groups[] = {table, NULL};
static const struct conf_table command = {
    "make_model",
    "make_model --out FILE [options]",
    "Write a GGUF model with random weights of true shapes, for trying and measuring.",
    groups,
    0,
    0,
};

static enum err parse_type(const char *s, enum dtype *out)
{
    for (int t = 0; t < DTYPE_COUNT; t++)
        if (!strcasecmp(s, dtype_name((enum dtype)t))) {
            *out = (enum dtype)t;
            return OK;
        }
    return err_raise(ERR_BAD_CONFIG,
                     "'%s' is not a type (try f32, f16, bf16, q8_0, q4_0, q4_k, q5_k, q6_k)", s);
}

static enum err resolve(const struct opts *o, struct random_model *m)
{
    enum err rc = OK;
    const struct shape *s = NULL;
    if (!o->out) return err_raise(ERR_BAD_CONFIG, "--out FILE is needed");
    for (size_t i = 0; i < COUNT_OF(shapes); i++)
        if (!strcmp(shapes[i].name, o->shape)) s = &shapes[i];
    if (!s)
        return err_raise(ERR_BAD_CONFIG,
                         "--shape: '%s' is not one of tiny, 0.5b, 0.6b, 1b, 8b, 70b, gemma3-4b, 8x7b, 30b-a3b, v2-lite, gpt-oss-20b, scout-ish", o->shape);
    *m = s->m;
    TRY(parse_type(o->type, &m->type));
    TRY(parse_type(o->embd_type ? o->embd_type : o->type, &m->embd_type));
    if (o->arch) m->arch = o->arch;
    if (o->layers) m->n_layer = (int32_t)o->layers;
    if (o->width) m->d_model = (int32_t)o->width;
    if (o->heads) m->n_head = (int32_t)o->heads;
    if (o->kv_heads) m->n_kv_head = (int32_t)o->kv_heads;
    if (o->head_dim) m->head_dim = (int32_t)o->head_dim;
    if (o->ffn) m->d_ffn = (int32_t)o->ffn;
    if (o->vocab) m->vocab = (int32_t)o->vocab;
    if (o->context) m->context = (int32_t)o->context;
    if (o->window) m->window = (int32_t)o->window;
    if (o->experts) m->n_expert = (int32_t)o->experts;
    if (o->used) m->n_used = (int32_t)o->used;
    if (o->expert_ffn) m->d_expert = (int32_t)o->expert_ffn;
    if (o->tied) m->tied = o->tied == 1;
    if (o->rope) m->rope = (enum random_rope)(o->rope - 1);
    if (o->rope_theta > 0) m->rope_theta = o->rope_theta;
    if (o->rope_factor > 0) m->rope_factor = o->rope_factor;
    m->vocab_kind = (enum random_vocab)o->vocab_kind;
    m->seed = (uint64_t)o->seed;
out:
    return rc;
}

int main(int argc, char **argv)
{
    struct opts o = {0};
    struct random_model m;
    struct stat st;
    const char *args[1];
    int n_args;
    bool want_help;
    enum err rc = OK;
    TRY(conf_parse(&command, argc, argv, &o, args, &n_args, &want_help));
    if (want_help) {
        conf_help(&command);
        return 0;
    }
    TRY(resolve(&o, &m));
    int64_t start = clock_us();
    TRY(random_model_write(&m, o.out));
    double s = (double)(clock_us() - start) * 1e-6,
           mb = stat(o.out, &st) ? 0 : (double)st.st_size * 1e-6;
    printf("%s: %s, %d layers, width %d, %s, %.1f MB in %.1f s\n", o.out, m.arch, m.n_layer,
           m.d_model, dtype_name(m.type), mb, s);
out:
    if (rc) fprintf(stderr, "make_model: %s\n", err_text());
    return rc ? 1 : 0;
}
