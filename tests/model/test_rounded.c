/* test_rounded.c: with --exact off, products of BF16 and F16 weights may round more (engine/kernels/rounded.h). A model computed that way says
 * nearly the same, and the same bits again, whatever its threads and its cut; without it, and where the processor has nothing to gain, every
 * bit stays. */
#include "engine/kernels/rounded.h"
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"
#include "tests/support/sequence.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N_PROMPT = 40, N_GEN = 3, VOCAB = 320, N_LOGITS = (N_PROMPT + N_GEN - 1) * VOCAB };

static bool rounds(const char *isa)
{
    const struct krn_table *t;
    return krn_table_pick(isa, &t) == OK && krn_rounded_of(t);
}

/* Every row of logits of a text. Own: free(). */
static float *logits_of(const struct local_replica_conf *c, int32_t chunk)
{
    struct local_replica *r;
    int32_t prompt[N_PROMPT];
    for (int32_t i = 0; i < N_PROMPT; i++) prompt[i] = i * 13 % VOCAB;
    struct sequence s = {.prompt = prompt, .n_prompt = N_PROMPT, .n_gen = N_GEN, .chunk = chunk, .sampling = sampling_default()};
    s.sampling.temperature = 0;
    if (local_replica_open(&r, c) || sequence_run(r, &s, 1, true)) fail_msg("%s: %s", c->path, err_text());
    float *out = xmalloc(N_LOGITS * sizeof *out);
    memcpy(out, s.logits, N_LOGITS * sizeof *out);
    sequence_free(&s);
    local_replica_close(r);
    return out;
}

static void is_same(const struct local_replica_conf *c, const float *want, const char *what)
{
    float *got = logits_of(c, 0);
    if (memcmp(want, got, N_LOGITS * sizeof *got)) fail_msg("%s, %s: other bits", c->path, what);
    free(got);
}

static const char *model(enum dtype type)
{
    const char *path = scratch_path(dtype_name(type));
    struct random_model m = {.arch = "llama", .n_layer = 3, .d_model = 256, .n_head = 8, .n_kv_head = 4, .head_dim = 32, .d_ffn = 512, .vocab = VOCAB,
                             .type = type, .embd_type = type, .seed = 5};
    if (random_model_write(&m, path)) fail_msg("%s", err_text());
    return path;
}

static void it_says_nearly_the_same_and_the_same_again(void **state)
{
    (void)state;
    static const enum dtype types[] = {DTYPE_BF16, DTYPE_F16};
    if (!rounds("auto")) skip();
    for (size_t k = 0; k < COUNT_OF(types); k++) {
        struct local_replica_conf c = {.path = model(types[k]), .context = 64, .kv_type = KV_F32};
        float *exact = logits_of(&c, 0);
        c.rounded = true;
        float *near = logits_of(&c, 0);
        double off = 0, size = 0;
        for (int32_t i = 0; i < N_LOGITS; i++) {
            off += ((double)near[i] - (double)exact[i]) * ((double)near[i] - (double)exact[i]);
            size += (double)exact[i] * (double)exact[i];
        }
        printf("%s: off by %.2e of the logits (root of squares)\n", dtype_name(types[k]), sqrt(off / size));
        assert_true(off > 0 && off < 4e-4 * size); /* 2 %: a factor is off by 0.4 % at most */
        c.n_threads = 3;
        is_same(&c, near, "three threads");
        c.n_threads = 0;
        c.tp = 2;
        is_same(&c, near, "two ranks");
        free(exact);
        free(near);
    }
}

static void nothing_rounds_unasked_or_where_it_gains_nothing(void **state)
{
    (void)state;
    const struct krn_table *t;
    struct local_replica_conf c = {.path = model(DTYPE_BF16), .context = 64, .kv_type = KV_F32, .isa = "ref"};
    float *exact = logits_of(&c, 0);
    c.isa = "auto";
    is_same(&c, exact, "exact");
    c.rounded = true;
    c.isa = "ref";
    is_same(&c, exact, "rounded on ref");
    c.isa = "avx2";
    if (krn_table_pick(c.isa, &t) == OK) is_same(&c, exact, "rounded on avx2");
    c.isa = "auto";
    float *few = logits_of(&c, KRN_ROUNDED_LEAST - 1); /* tokens at a time */
    assert_memory_equal(exact, few, N_LOGITS * sizeof *few);
    free(few);
    free(exact);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_says_nearly_the_same_and_the_same_again),
        cmocka_unit_test(nothing_rounds_unasked_or_where_it_gains_nothing),
    };
    return cmocka_run_group_tests_name("model_rounded", tests, NULL, NULL);
}
