/* Tokenizers of Hugging Face checkpoints: the ids that the `tokenizers` package gives
 * (golden/make_tokenizers.py), and those of real vocabularies when the shared data is there. */
#include "engine/text/hf_tokenizer.h"
#include "tests/text/support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

enum { BOTH = TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL };

static char *read_here(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s cannot be read: run from the repository's root", path);
    char *p = xmalloc(1 << 20);
    *n = fread(p, 1, (1 << 20) - 1, f);
    p[*n] = 0;
    fclose(f);
    return p;
}

static struct eng_tokenizer *open_files(struct eng_hf_files f)
{
    struct eng_tokenizer *t = NULL;
    f.where = "here";
    f.bos = f.bos ? f.bos : -1;
    if (eng_hf_tokenizer_open(&t, &f)) fail_msg("%s", err_text());
    return t;
}

static struct text_span text(const char *s) { return (struct text_span){s, strlen(s)}; }

static bool same_ids(const char *name, const char *shown, const struct eng_tokens *got, json_t *want)
{
    size_t n = json_array_size(want);
    bool same = got->n == n;
    for (size_t i = 0; i < n && same; i++)
        same = got->ids[i] == (int32_t)json_integer_value(json_array_get(want, i));
    if (same) return true;
    printf("%s: text: %.200s\ngot ", name, shown);
    for (size_t i = 0; i < got->n && i < 80; i++) printf(" %d", got->ids[i]);
    printf("\nwant");
    for (size_t i = 0; i < n && i < 80; i++)
        printf(" %lld", (long long)json_integer_value(json_array_get(want, i)));
    printf("\n");
    return false;
}

static void golden(void **state)
{
    char path[128];
    const char *name = *state;
    size_t n, n_ids, i;
    json_t *e;
    int bad = 0;
    snprintf(path, sizeof path, "tests/text/golden/%s.json", name);
    char *file = read_here(path, &n), *ids = read_here("tests/text/golden/ids.json", &n_ids);
    struct eng_tokenizer *t = open_files((struct eng_hf_files){.tokenizer_json = {file, n}});
    json_t *g = json_loadb(ids, n_ids, JSON_ALLOW_NUL, NULL);
    json_t *texts = json_object_get(g, "texts"), *lists = json_object_get(json_object_get(g, "ids"), name),
           *decoded = json_object_get(json_object_get(g, "decoded"), name);
    assert_true(json_array_size(texts) > 80 && json_array_size(lists) == json_array_size(texts));
    json_array_foreach(texts, i, e)
    {
        struct eng_tokens got = {0};
        struct buf back = {0};
        const char *s = json_string_value(e);
        eng_tokenizer_encode(t, s, json_string_length(e), BOTH, &got);
        bad += !same_ids(name, s, &got, json_array_get(lists, i));
        const json_t *want = json_array_get(decoded, i);
        eng_tokenizer_decode(t, got.ids, got.n, false, &back);
        if (json_is_string(want) && (back.len != json_string_length(want) ||
                     memcmp(buf_str(&back), json_string_value(want), back.len))) {
            printf("%s: decodes to %s\nwanted      %s\n", name, buf_str(&back), json_string_value(want));
            bad++;
        }
        eng_tokens_free(&got);
        buf_free(&back);
    }
    printf("%-12s %zu texts, %d differ\n", name, json_array_size(texts), bad);
    assert_int_equal(bad, 0);
    eng_tokenizer_close(t);
    json_decref(g);
    free(file);
    free(ids);
}

#define GOLDEN(name) {"ids_of_" name "_are_exact", golden, NULL, NULL, (char[]){name}}

int main(void)
{
    const struct CMUnitTest tests[] = {
        GOLDEN("llama3"), GOLDEN("qwen2"), GOLDEN("starcoder"), GOLDEN("gpt2-prefix"),
        GOLDEN("gpt4o"), GOLDEN("deepseek"), GOLDEN("falcon"), GOLDEN("llama2"),
        GOLDEN("mistral"), GOLDEN("meta-always"), GOLDEN("meta-never"), GOLDEN("words"),
    };
    (void)text;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
