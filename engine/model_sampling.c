/* model_sampling.c: see model_sampling.h. Keys: the GGUF specification's general.sampling.*; the
 * reader of a checkpoint's directory (hf_config.c) says generation_config.json in these words. */
#include "engine/model_sampling.h"

#include "base/log.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* One field: its key, its name in a request, its range. */
static const struct field {
    const char *key, *name;
    size_t to;
    bool whole;
    double min, max;
    bool above_min; /* min itself is out of range */
} fields[] = {
#define F(member) offsetof(struct sampling, member)
    {"temp", "temperature", F(temperature), false, 0, FLT_MAX, false},
    {"top_k", "top_k", F(top_k), true, -1, INT32_MAX, false},
    {"top_p", "top_p", F(top_p), false, 0, 1, true},
    {"min_p", "min_p", F(min_p), false, 0, 1, false},
    {"penalty_repeat", "repetition_penalty", F(repetition_penalty), false, 0, FLT_MAX, true},
    {"penalty_last_n", "repeat_last_n", F(penalty_last_n), true, -1, INT32_MAX, false},
    {"xtc_probability", "xtc_probability", F(xtc_probability), false, 0, 1, false},
    {"xtc_threshold", "xtc_threshold", F(xtc_threshold), false, 0, 1, false},
};

static bool take(struct sampling *s, const struct field *f, double v)
{
    bool in_range = v >= f->min && v <= f->max && !(f->above_min && v == f->min);
    float x = (float)v;
    int32_t n = (int32_t)CLAMP(v, (double)INT32_MIN, (double)INT32_MAX);
    if (!in_range || (f->whole && v != floor(v)) || (f->above_min && !(x > (float)f->min))) return false;
    memcpy((char *)s + f->to, f->whole ? (const void *)&n : (const void *)&x, 4);
    return true;
}

void eng_model_sampling(struct sampling *s, const struct eng_model_file *file)
{
    for (size_t i = 0; i < COUNT_OF(fields); i++) {
        char key[64];
        snprintf(key, sizeof key, "general.sampling.%s", fields[i].key);
        const struct model_kv *kv = eng_model_file_find(file, key);
        if (!kv) continue;
        double v = kv->kind == KV_INT ? (double)kv->i : kv->kind == KV_FLOAT ? kv->f : NAN;
        if (!take(s, &fields[i], v))
            log_warn("model", "%s: %s of its sampling defaults is no value for it (%g): left out",
                     eng_model_file_path(file), fields[i].name, v);
    }
    if (s->top_k < 0) s->top_k = 0;
}

void eng_model_sampling_say(const struct sampling *s, bool changed, struct buf *out)
{
    const struct sampling d = sampling_default();
    bool any = false;
    for (size_t i = 0; i < COUNT_OF(fields); i++) {
        const char *at = (const char *)s + fields[i].to, *before = (const char *)&d + fields[i].to;
        float x;
        int32_t n;
        memcpy(&x, at, sizeof x), memcpy(&n, at, sizeof n);
        if (changed && !memcmp(at, before, 4)) continue;
        buf_printf(out, "%s\"%s\":", any ? "," : "", fields[i].name);
        if (fields[i].whole)
            buf_printf(out, "%d", n);
        else
            buf_printf(out, "%.7g", (double)x);
        any = true;
    }
}
