/* hf_json.h: the small JSON files of a checkpoint's directory: read whole under a limit, looked up
 * with sentences. Private to engine/file; jansson's types go no further than these files. */
#ifndef ENGINE_FILE_HF_JSON_H
#define ENGINE_FILE_HF_JSON_H

#include "engine/file/model_file.h"

#include <jansson.h>

/* The object in text[n]. `what` names it in sentences. Duplicate keys, anything after the object
 * and anything but an object are BAD_FILE. Own: caller, json_decref(). */
MUST_USE enum err eng_hf_json_parse(json_t **out, const char *text, size_t n, const char *what);
/* The same for the directory's file `name`; NULL when there is no such file. */
MUST_USE enum err eng_hf_json_file(json_t **out, const struct eng_model_file *f, const char *name,
                                   int64_t most);

/* Look-ups in an object of `what`. Absent and null give the default; a wrong type or a value
 * outside [min, max] is BAD_FILE naming file and key. */
struct eng_hf_obj {
    const json_t *json; /* may be NULL: everything is absent */
    const char *what;   /* "DIR: config.json" */
};
MUST_USE enum err eng_hf_int(struct eng_hf_obj o, const char *key, int64_t def, int64_t min,
                             int64_t max, int64_t *out);
MUST_USE enum err eng_hf_real(struct eng_hf_obj o, const char *key, double def, double *out);
MUST_USE enum err eng_hf_bool(struct eng_hf_obj o, const char *key, bool def, bool *out);
MUST_USE enum err eng_hf_text(struct eng_hf_obj o, const char *key, const char *def,
                              const char **out);

#endif
