/* hf_dir.c: a Hugging Face checkpoint's directory as a model file: its parts are the safetensors
 * files, one or those that model.safetensors.index.json names.
 *
 * A directory without weights opens too, so that its tokenizer can be used and its config looked
 * at; it is refused by key when somebody wants to run it. */
#include "engine/file/format.h"
#include "engine/file/hf_config.h"
#include "engine/file/hf_json.h"
#include "engine/file/hf_quant.h"
#include "engine/file/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LARGEST_INDEX = 64 << 20, MOST_PARTS = 1024 };

bool eng_model_file_is_dir(const struct eng_model_file *f)
{
    return f->format == &eng_format_hf;
}

enum err eng_model_file_beside(const struct eng_model_file *f, const char *name, int64_t most,
                               struct buf *out, bool *there)
{
    enum err rc = OK;
    struct stat st;
    for (int32_t i = 0; i < f->n_beside; i++)
        if (!strcmp(f->beside[i].name, name) && f->beside[i].n <= (size_t)most) {
            buf_clear(out);
            buf_put(out, f->beside[i].data, f->beside[i].n);
            *there = true;
            return OK;
        }
    char *path = xasprintf("%s/%s", f->path, name);
    struct eng_part p = {.path = path, .fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    buf_clear(out);
    *there = p.fd >= 0;
    if (p.fd < 0) {
        if (errno != ENOENT && errno != ENOTDIR)
            rc = err_raise(ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    } else if (fstat(p.fd, &st) || !S_ISREG(st.st_mode))
        rc = err_raise(ERR_IO, "%s: not a regular file", path);
    else if (st.st_size > most)
        rc = err_raise(ERR_BAD_FILE, "%s: %" PRId64 " bytes, at most %" PRId64 " are accepted",
                       path, (int64_t)st.st_size, most);
    else {
        p.bytes = st.st_size;
        buf_reserve(out, (size_t)p.bytes + 1);
        rc = eng_part_read(&p, 0, p.bytes, out->data);
        out->len = rc ? 0 : (size_t)p.bytes;
    }
    if (p.fd >= 0) close(p.fd);
    free(path);
    return rc;
}

static bool exists(const struct eng_model_file *f, const char *name)
{
    char *path = xasprintf("%s/%s", f->path, name);
    bool yes = !access(path, F_OK);
    free(path);
    return yes;
}

static enum err open_part(struct eng_model_file *f, const char *name)
{
    char *path = xasprintf("%s/%s", f->path, name);
    enum err rc = eng_model_file_add_part(f, path);
    free(path);
    return rc ? rc : eng_safetensors_read(f, f->n_parts - 1);
}

/* Is the name that of a file in this very directory? */
static bool is_plain(const char *name)
{
    return *name && *name != '.' && !strchr(name, '/') && strlen(name) < 256;
}

/* The parts an index names, each once, in the index's order. */
static enum err open_named(struct eng_model_file *f, const json_t *map,
                           struct eng_name_table *parts)
{
    const char *tensor;
    json_t *v;
    json_object_foreach((json_t *)(uintptr_t)map, tensor, v)
    {
        const char *name = json_string_value(v);
        if (!name || !is_plain(name))
            return err_raise(ERR_BAD_FILE,
                             "%s/model.safetensors.index.json: tensor '%s' is not said to be in a "
                             "file of this directory",
                             f->path, eng_show(tensor, strlen(tensor)).s);
        if (eng_name_table_get(parts, name, strlen(name)) >= 0) continue;
        if (f->n_parts == MOST_PARTS)
            return err_raise(ERR_BAD_FILE,
                             "%s/model.safetensors.index.json: more than %d files are named",
                             f->path, MOST_PARTS);
        (void)eng_name_table_put(parts, name, strlen(name), f->n_parts);
        enum err rc = open_part(f, name);
        if (rc) return rc;
    }
    return OK;
}

/* Every tensor of the index is in the file that it names. */
static enum err check_map(const struct eng_model_file *f, const json_t *map,
                          const struct eng_name_table *parts)
{
    struct arena a = {0};
    struct eng_name_table names;
    enum err rc = OK;
    const char *tensor;
    json_t *v;
    eng_name_table_open(&names, &a, f->n_tensors);
    for (int64_t i = 0; i < f->n_tensors; i++) {
        const char *name = f->tensors[i].name;
        (void)eng_name_table_put(&names, name, strlen(name), f->tensors[i].part);
    }
    json_object_foreach((json_t *)(uintptr_t)map, tensor, v)
    {
        const char *file = json_string_value(v);
        int64_t part = eng_name_table_get(&names, tensor, strlen(tensor));
        if (part >= 0 && part == eng_name_table_get(parts, file, strlen(file))) continue;
        rc = err_raise(ERR_BAD_FILE,
                       "%s/model.safetensors.index.json: tensor '%s' is not in %s, where it is "
                       "said to be",
                       f->path, eng_show(tensor, strlen(tensor)).s, file);
        break;
    }
    arena_free(&a);
    return rc;
}

static enum err read_index(struct eng_model_file *f, bool *there)
{
    enum err rc;
    json_t *index = NULL;
    struct eng_name_table parts;
    TRY(eng_hf_json_file(&index, f, "model.safetensors.index.json", LARGEST_INDEX));
    *there = index != NULL;
    if (!index) goto out;
    const json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map)) {
        rc = err_raise(ERR_BAD_FILE, "%s/model.safetensors.index.json: no object 'weight_map'",
                       f->path);
        goto out;
    }
    eng_name_table_open(&parts, &f->arena, (int64_t)json_object_size(map));
    TRY(open_named(f, map, &parts));
    TRY(check_map(f, map, &parts));
out:
    json_decref(index); /* the table's names go with it: it is not used again */
    return rc;
}

static void refuse_without_weights(struct eng_model_file *f, struct eng_hf_keys *k)
{
    if (exists(f, "pytorch_model.bin") || exists(f, "pytorch_model.bin.index.json"))
        eng_hf_refuse(k,
                      "%s: the weights are a pickle (pytorch_model.bin), which can run code; save "
                      "them as safetensors",
                      f->path);
    else
        eng_hf_refuse(k,
                      "%s: no weights: neither model.safetensors nor "
                      "model.safetensors.index.json is there",
                      f->path);
}

static enum err read_weights(struct eng_model_file *f, struct eng_hf_keys *k)
{
    bool there = false;
    enum err rc = read_index(f, &there);
    if (rc || there) return rc;
    if (exists(f, "model.safetensors")) return open_part(f, "model.safetensors");
    refuse_without_weights(f, k);
    return OK;
}

static enum err check_is_one(const struct eng_model_file *f)
{
    static const char *const files[] = {"config.json", "tokenizer.json", "tokenizer.model",
                                        "vocab.json"};
    for (size_t i = 0; i < COUNT_OF(files); i++)
        if (exists(f, files[i])) return OK;
    return err_raise(ERR_BAD_FILE,
                     "%s: a directory without config.json: not a model; give a checkpoint's "
                     "directory or a .gguf file",
                     f->path);
}

void eng_hf_keys_give(const struct eng_hf_keys *k, struct eng_model_file *f)
{
    struct model_kv *kv = arena_alloc(&f->arena, (size_t)k->n * sizeof *kv);
    memcpy(kv, k->at, (size_t)k->n * sizeof *kv);
    eng_name_table_open(&f->keys, &f->arena, k->n);
    for (int64_t i = 0; i < k->n; i++)
        (void)eng_name_table_put(&f->keys, kv[i].key.p, kv[i].key.n, i);
    f->kv = kv;
    f->n_kv = k->n;
}

static enum err hf_read(struct eng_model_file *f)
{
    enum err rc;
    struct eng_hf_model m;
    struct eng_hf_keys k = {.a = &f->arena};
    if (eng_hf_adapter_is(f)) return eng_hf_adapter_read(f);
    TRY(eng_foreign_dir(f));
    TRY(check_is_one(f));
    TRY(eng_hf_config_read(&m, &k, f));
    TRY(read_weights(f, &k));
    TRY(eng_hf_derive(f, m.quant, m.arch));
    TRY(eng_hf_names(f, &m, &k));
    eng_hf_keys_give(&k, f);
    snprintf(f->version, sizeof f->version, "safetensors");
out:
    free(k.at);
    return rc;
}

const struct eng_format eng_format_hf = {"safetensors", NULL, hf_read};
