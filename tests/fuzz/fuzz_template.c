/* Any text as a chat template: refused, or rendered within its bounds, always the same.
 * The input: the template; after a zero byte optionally the variables as JSON. */
#include "engine/text/template.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char variables[] = "{\"messages\":[{\"role\":\"user\",\"content\":\" h\\u00e9 "
                                "\"},{\"role\":\"assistant\",\"content\":\"a\"}],"
                                "\"tools\":[{\"name\":\"f\",\"parameters\":{\"x\":[1,2.5,null]}}],"
                                "\"bos_token\":\"<s>\",\"add_generation_prompt\":true}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    const uint8_t *zero = n ? memchr(data, 0, n) : NULL;
    size_t len = zero ? (size_t)(zero - data) : n;
    json_t *vars = zero ? json_loadb((const char *)zero + 1, n - len - 1, 0, NULL) : NULL;
    struct eng_template *t = NULL;
    struct buf out = {0}, again = {0};
    if (!vars) vars = json_loads(variables, 0, NULL);
    if (!eng_template_compile(&t, (const char *)data, len)) {
        enum err a = eng_template_render(t, vars, 0, &out),
                 b = eng_template_render(t, vars, 0, &again);
        ASSERT(a == b && out.len == again.len &&
               (!out.len || !memcmp(out.data, again.data, out.len)));
    }
    eng_template_close(t);
    buf_free(&out);
    buf_free(&again);
    json_decref(vars);
    return 0;
}
