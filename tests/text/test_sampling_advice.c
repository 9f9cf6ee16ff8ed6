/* sampling_advice: what a model's files advise, in both formats; nonsense is left out, never obeyed
 * and never a reason not to open. */
#include "engine/model_sampling.h"

#include "tests/support/gguf_write.h"
#include "tests/support/hf_write.h"
#include "tests/support/scratch.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static struct sampling of(const char *path)
{
    struct eng_model_file *f;
    struct sampling s = sampling_default();
    if (eng_model_file_open(&f, path)) fail_msg("%s", err_text());
    eng_model_sampling(&s, f);
    eng_model_file_close(f);
    return s;
}

static void is(const struct sampling *s, bool changed, const char *text)
{
    struct buf out = {0};
    eng_model_sampling_say(s, changed, &out);
    assert_string_equal(buf_str(&out), text);
    buf_free(&out);
}

static void a_checkpoint_has_a_file_for_it(void **state)
{
    (void)state;
    static const struct {
        const char *json, *says;
    } rows[] = {
        {"{\"temperature\": 0.6, \"top_k\": 20, \"top_p\": 0.95, \"min_p\": 0.0, \"repetition_penalty\": 1.05,"
         "\"do_sample\": true, \"eos_token_id\": [1, 2]}",
         "\"temperature\":0.6,\"top_k\":20,\"top_p\":0.95,\"repetition_penalty\":1.05"},
        {"{\"temperature\": 1, \"top_p\": 1.0, \"top_k\": 0}", ""},
        {"{\"temperature\": 0, \"top_k\": -1}", "\"temperature\":0"},
        {"{\"temperature\": null, \"top_k\": \"50\", \"top_p\": []}", ""},
        {"{\"temperature\": -1, \"top_k\": 1.5, \"top_p\": 0, \"min_p\": 2, \"repetition_penalty\": 0}", ""},
        {"{\"top_k\": 99999999999999, \"top_p\": 1e-60, \"temperature\": 1e300}", ""},
        {"{}", ""},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        const char *files[] = {"config.json", "{\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":4,\"num_attention_heads\":2,"
                               "\"num_hidden_layers\":1,\"intermediate_size\":8,\"max_position_embeddings\":64,\"vocab_size\":3,"
                               "\"rms_norm_eps\":1e-05}", "generation_config.json", rows[i].json, NULL};
        struct sampling s = of(hf_write_dir(files));
        is(&s, true, rows[i].says);
        assert_true(s.top_k >= 0);
    }
}

static void a_gguf_has_keys_for_it(void **state)
{
    (void)state;
    struct gguf_write *w = gguf_write_open();
    const char *path = scratch_path("sampling.gguf");
    gguf_write_str(w, "general.architecture", "llama");
    gguf_write_f32(w, "general.sampling.temp", 0.5f);
    gguf_write_ints(w, "general.sampling.top_k", GGUF_I32, (const int32_t[]){1}, 1); /* not what it should be */
    gguf_write_f32(w, "general.sampling.min_p", 0.25f);
    gguf_write_f32(w, "general.sampling.penalty_repeat", 1.5f);
    gguf_write_int(w, "general.sampling.penalty_last_n", GGUF_I32, 64);
    gguf_write_f32(w, "general.sampling.xtc_probability", 0.5f);
    gguf_write_f32(w, "general.sampling.xtc_threshold", 7);
    if (gguf_write_save(w, path)) fail_msg("%s", err_text());
    gguf_write_close(w);
    struct sampling s = of(path);
    is(&s, true, "\"temperature\":0.5,\"min_p\":0.25,\"repetition_penalty\":1.5,\"repeat_last_n\":64,\"xtc_probability\":0.5");
    is(&s, false, "\"temperature\":0.5,\"top_k\":0,\"top_p\":1,\"min_p\":0.25,\"repetition_penalty\":1.5,\"repeat_last_n\":64,"
                  "\"xtc_probability\":0.5,\"xtc_threshold\":0.1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_checkpoint_has_a_file_for_it),
        cmocka_unit_test(a_gguf_has_keys_for_it),
    };
    return cmocka_run_group_tests_name("sampling_advice", tests, NULL, NULL);
}
