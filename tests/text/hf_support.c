/* hf_support.c: see hf_support.h. */
#include "tests/text/hf_support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

char *hf_read_here(const char *path, size_t *n)
{
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s cannot be read: run from the repository's root", path);
    char *p = xmalloc(1 << 20);
    *n = fread(p, 1, (1 << 20) - 1, f);
    p[*n] = 0;
    fclose(f);
    return p;
}

struct eng_tokenizer *hf_open(struct eng_hf_files f)
{
    struct eng_tokenizer *t = NULL;
    f.where = "here";
    f.bos = f.bos ? f.bos : -1;
    if (eng_hf_tokenizer_open(&t, &f)) fail_msg("%s", err_text());
    return t;
}

struct text_span hf_text(const char *s)
{
    return (struct text_span){s, strlen(s)};
}

bool hf_same_ids(const char *name, const char *shown, const struct eng_tokens *got, json_t *want)
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
