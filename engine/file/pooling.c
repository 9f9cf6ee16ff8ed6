/* pooling.c: see pooling.h. */
#include "engine/file/pooling.h"

#include "engine/file/hf_json.h"

#include <stdio.h>

enum { GGUF_NONE = 0, GGUF_MEAN = 1, GGUF_LAST = 3, MOST = 64 << 10 };

static enum step_pool of_directory(const struct eng_model_file *f)
{
    json_t *j = NULL;
    if (eng_hf_json_file(&j, f, "1_Pooling/config.json", MOST)) return POOL_NONE;
    enum step_pool pool = !j ? POOL_LAST : POOL_NONE;
    if (json_is_true(json_object_get(j, "pooling_mode_mean_tokens"))) pool = POOL_MEAN;
    if (json_is_true(json_object_get(j, "pooling_mode_lasttoken"))) pool = POOL_LAST;
    json_decref(j);
    return pool;
}

enum step_pool eng_pooling_of(const struct eng_model_file *f, const char *arch)
{
    char key[96];
    int64_t type;
    if (eng_model_file_is_dir(f)) return of_directory(f);
    snprintf(key, sizeof key, "%s.pooling_type", arch);
    if (eng_model_file_int(f, key, GGUF_LAST, 0, 255, &type)) return POOL_NONE;
    return type == GGUF_MEAN ? POOL_MEAN : type == GGUF_LAST || type == GGUF_NONE ? POOL_LAST : POOL_NONE;
}
