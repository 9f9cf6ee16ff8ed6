/* Long contexts do not show either: past several splits of attention the logits are the same bits
 * whether a prompt came whole, in chunks or token by token, whatever the threads share, and whatever
 * stands beside it in the batch. */
#include "tests/support/random_model.h"
#include "tests/support/scratch.h"
#include "tests/support/sequence.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { N_SEQ = 2, N_GEN = 20, CONTEXT = 832, VOCAB = 288 };
static const int32_t lengths[N_SEQ] = {777, 250};

struct variant {
    const char *what;
    int32_t tp, threads, chunk;
    bool together;
    const char *isa;
};

static const struct variant variants[] = {
    {"3 threads", 1, 3, 0, true, "auto"},          {"chunks of 100", 1, 1, 100, false, "auto"},
    {"chunks of 7, 2 threads", 1, 2, 7, true, "auto"},
    {"5 threads, chunks of 64", 1, 5, 64, false, "auto"},
    {"tp 2, 3 threads", 2, 3, 256, false, "auto"}, {"avx2, chunks of 33", 1, 2, 33, true, "avx2"},
    {"ref, chunks of 129", 1, 3, 129, true, "ref"},
};

static bool run(const char *path, const struct variant *v, struct sequence s[N_SEQ])
{
    static int32_t prompts[N_SEQ][CONTEXT];
    struct local_replica *r;
    struct local_replica_conf c = {.path = path, .tp = v->tp, .n_threads = v->threads,
                                   .isa = v->isa, .context = CONTEXT, .max_step_tokens = 1100,
                                   .n_blocks = N_SEQ * CONTEXT / 16};
    enum err e = local_replica_open(&r, &c);
    if (e == ERR_BAD_CONFIG) return false; /* this processor lacks the instruction set */
    if (e) fail_msg("%s: %s", v->what, err_text());
    for (int32_t i = 0; i < N_SEQ; i++) {
        for (int32_t k = 0; k < lengths[i]; k++) prompts[i][k] = (k * 37 + k / 7 + i * 11) % VOCAB;
        s[i] = (struct sequence){.prompt = prompts[i], .n_prompt = lengths[i], .n_gen = N_GEN,
                                 .chunk = v->chunk, .sampling = sampling_default()};
        s[i].sampling.seed = 9 + (uint64_t)i;
        s[i].sampling.max_tokens = N_GEN;
    }
    if (v->together) e = sequence_run(r, s, N_SEQ, true);
    for (int32_t i = 0; i < N_SEQ && !v->together && !e; i++) e = sequence_run(r, &s[i], 1, true);
    if (e) fail_msg("%s: %s", v->what, err_text());
    local_replica_close(r);
    return true;
}

static void long_contexts_are_the_same_bits(void **state)
{
    static const struct variant plain = {"plain", 1, 1, 0, false, "auto"};
    struct sequence base[N_SEQ], s[N_SEQ];
    struct random_model m = {.arch = "llama", .n_layer = 2, .d_model = 64, .n_head = 6, .n_kv_head = 2,
                             .head_dim = 32, .d_ffn = 96, .vocab = VOCAB, .type = DTYPE_Q8_0,
                             .embd_type = DTYPE_F16, .context = 2048, .seed = 5};
    const char *path = scratch_path("long");
    (void)state;
    if (random_model_write(&m, path)) fail_msg("%s", err_text());
    assert_true(run(path, &plain, base));
    for (size_t i = 0; i < COUNT_OF(variants); i++) {
        if (!run(path, &variants[i], s)) continue;
        for (int32_t k = 0; k < N_SEQ; k++) {
            size_t rows = (size_t)(lengths[k] + N_GEN - 1);
            if (memcmp(base[k].logits, s[k].logits, rows * VOCAB * sizeof(float)))
                fail_msg("%s: the logits of sequence %d are other bits", variants[i].what, k);
            sequence_free(&s[k]);
        }
    }
    for (int32_t k = 0; k < N_SEQ; k++) sequence_free(&base[k]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(long_contexts_are_the_same_bits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
