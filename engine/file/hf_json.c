/* hf_json.c: see hf_json.h. */
#include "engine/file/hf_json.h"

#include "engine/file/format.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum err eng_hf_json_parse(json_t **out, const char *text, size_t n, const char *what)
{
    json_error_t why;
    json_t *j = json_loadb(text, n, JSON_REJECT_DUPLICATES, &why);
    if (!j) {
        char *near = strstr(why.text, " near "); /* what follows is the file's own text */
        if (near) *near = 0;
        return err_raise(ERR_BAD_FILE, "%s is not JSON: %s at offset %d", what, why.text,
                         why.position);
    }
    if (!json_is_object(j)) {
        json_decref(j);
        return err_raise(ERR_BAD_FILE, "%s is not a JSON object", what);
    }
    *out = j;
    return OK;
}

enum err eng_hf_json_file(json_t **out, const struct eng_model_file *f, const char *name,
                          int64_t most)
{
    struct buf text = {0};
    bool there;
    *out = NULL;
    enum err rc = eng_model_file_beside(f, name, most, &text, &there);
    if (!rc && there) {
        char *what = xasprintf("%s/%s", f->path, name);
        rc = eng_hf_json_parse(out, buf_str(&text), text.len, what);
        free(what);
    }
    buf_free(&text);
    return rc;
}

static const json_t *value(struct eng_hf_obj o, const char *key)
{
    const json_t *v = json_object_get(o.json, key);
    return json_is_null(v) ? NULL : v;
}

enum err eng_hf_int(struct eng_hf_obj o, const char *key, int64_t def, int64_t min, int64_t max,
                    int64_t *out)
{
    const json_t *v = value(o, key);
    if (v && !json_is_integer(v))
        return err_raise(ERR_BAD_FILE, "%s: key '%s' is not an integer", o.what, key);
    int64_t i = v ? json_integer_value(v) : def;
    if (v && (i < min || i > max))
        return err_raise(ERR_BAD_FILE,
                         "%s: key '%s' is %" PRId64 ", it must be between %" PRId64 " and %" PRId64,
                         o.what, key, i, min, max);
    *out = i;
    return OK;
}

enum err eng_hf_real(struct eng_hf_obj o, const char *key, double def, double *out)
{
    const json_t *v = value(o, key);
    double d = v ? json_number_value(v) : def;
    if (v && (!json_is_number(v) || !isfinite(d)))
        return err_raise(ERR_BAD_FILE, "%s: key '%s' is not a number", o.what, key);
    *out = d;
    return OK;
}

enum err eng_hf_bool(struct eng_hf_obj o, const char *key, bool def, bool *out)
{
    const json_t *v = value(o, key);
    if (v && !json_is_boolean(v))
        return err_raise(ERR_BAD_FILE, "%s: key '%s' is not true or false", o.what, key);
    *out = v ? json_is_true(v) : def;
    return OK;
}

enum err eng_hf_text(struct eng_hf_obj o, const char *key, const char *def, const char **out)
{
    const json_t *v = value(o, key);
    if (v && !json_is_string(v))
        return err_raise(ERR_BAD_FILE, "%s: key '%s' is not a text", o.what, key);
    *out = v ? json_string_value(v) : def;
    return OK;
}
