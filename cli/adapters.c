/* adapters.c: --lora: LoRA adapters by their names, looked at before anything is loaded. See adapters.h. */
#include "cli/adapters.h"

#include "engine/engine.h"

#include <stdlib.h>
#include <string.h>

enum { NAME_MOST = 128 };

static enum err check_name(const struct adapters *a, const char *name)
{
    for (const char *p = name; *p; p++)
        if ((unsigned char)*p <= ' ' || *p == 0x7f)
            return err_raise(ERR_BAD_CONFIG, "--lora: the name '%.*s' has a space or a control character in it", NAME_MOST, name);
    if (!*name || strlen(name) > NAME_MOST) return err_raise(ERR_BAD_CONFIG, "--lora: a name has 1 to %d characters: --lora NAME=PATH", NAME_MOST);
    for (int32_t i = 0; i < a->n; i++)
        if (!strcmp(a->names[i], name)) return err_raise(ERR_BAD_CONFIG, "--lora: two adapters are called %s: give each a name of its own", name);
    return OK;
}

static enum err add(struct adapters *a, char *said)
{
    char *path = strchr(said, '=');
    if (!path || !path[1]) return err_raise(ERR_BAD_CONFIG, "--lora '%.200s' is not NAME=PATH, nor a list of such parted by commas", said);
    *path++ = 0;
    if (a->n == LIMIT_ADAPTERS) return err_raise(ERR_BAD_CONFIG, "--lora: at most %d adapters are served beside one model", LIMIT_ADAPTERS);
    if (strlen(path) >= ADAPTERS_PATH) return err_raise(ERR_BAD_CONFIG, "--lora %s: the path is longer than %d bytes", said, ADAPTERS_PATH - 1);
    enum err e = check_name(a, said);
    if (e) return e;
    a->names[a->n] = said;
    a->paths[a->n++] = path;
    return OK;
}

struct eng_adapters adapters_of(const struct adapters *a) { return (struct eng_adapters){a->n, a->paths, a->sums}; }

enum err adapters_open(struct adapters *a, const char *said, const char *model_path)
{
    enum err rc = OK;
    struct grid one;
    struct eng_engine_need need;
    *a = (struct adapters){.n = 0};
    if (!said || !*said) return OK;
    char *rest = a->text = xstrdup(said);
    for (char *each; (each = strsep(&rest, ","));)
        if (*each) TRY(add(a, each));
    const struct eng_adapters all = adapters_of(a);
    for (int32_t i = 0; i < a->n; i++) TRY(eng_engine_fingerprint(a->paths[i], &a->sums[i]));
    TRY(eng_engine_grid(model_path, 1, 1, &one));
    TRY(eng_engine_adapters_need(model_path, &all, &one, 0, 1, &need));
out:
    if (rc) adapters_free(a);
    return rc;
}

void adapters_free(struct adapters *a)
{
    free(a->text);
    *a = (struct adapters){.n = 0};
}
