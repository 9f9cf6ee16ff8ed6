/* listing.c: see listing.h. */
#include "hub/listing.h"

#include "base/base.h"
#include "base/buf.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { LONGEST_PATH = 512 };

/* ---- reading ---- */

/* A path that stays in the model's folder. */
static bool is_tame(const char *path)
{
    size_t n = strlen(path);
    if (!n || n > LONGEST_PATH || *path == '/') return false;
    for (const char *at = path; at; at = strchr(at, '/') ? strchr(at, '/') + 1 : NULL)
        if (!*at || *at == '/' || !strncmp(at, "..", 2)) return false;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)path[i] < 0x20 || path[i] == '\\' || path[i] == 0x7f) return false;
    return true;
}

static bool is_sha256(const char *s)
{
    return s && strlen(s) == 64 && strspn(s, "0123456789abcdef") == 64;
}

static bool is_oid(const char *s) { return s && *s && strlen(s) < 65 && strspn(s, "0123456789abcdef") == strlen(s); }

static enum err add(struct hub_listing *l, const json_t *entry)
{
    const char *type = json_string_value(json_object_get(entry, "type")), *path = json_string_value(json_object_get(entry, "path"));
    const json_t *lfs = json_object_get(entry, "lfs"), *size = json_object_get(json_is_object(lfs) ? lfs : entry, "size");
    if (!type || !path) return err_raise(ERR_LINK_PROTOCOL, "the hub's list has an entry without 'type' or 'path'");
    if (strcmp(type, "file")) return OK;
    if (!is_tame(path)) return err_raise(ERR_LINK_PROTOCOL, "the hub's list names a file that leads elsewhere: '%.80s'", path);
    if (!json_is_integer(size) || json_integer_value(size) < 0) return err_raise(ERR_LINK_PROTOCOL, "the hub's list has no size for %s", path);
    if (l->n == HUB_MOST_FILES) return err_raise(ERR_LINK_PROTOCOL, "the hub lists more than %d files", HUB_MOST_FILES);
    if (l->n == l->cap) {
        l->cap = MAX(64, 2 * l->cap);
        l->files = xrealloc(l->files, l->cap * sizeof *l->files);
    }
    struct hub_file *f = &l->files[l->n++];
    *f = (struct hub_file){.path = xstrdup(path), .size = json_integer_value(size)};
    const char *sum = json_string_value(json_object_get(lfs, "oid"));
    if (sum && !strncmp(sum, "sha256:", 7)) sum += 7;
    if (is_sha256(sum)) memcpy(f->sha256, sum, sizeof f->sha256);
    else if (json_is_object(lfs)) return err_raise(ERR_LINK_PROTOCOL, "the hub's list has no sha256 for %s", path);
    const char *oid = json_string_value(json_object_get(entry, "oid"));
    if (!*f->sha256 && is_oid(oid)) strcpy(f->oid, oid);
    return OK;
}

enum err hub_listing_add(struct hub_listing *l, const char *text, size_t n)
{
    enum err rc = OK;
    json_error_t why;
    json_t *list = json_loadb(text, n, 0, &why), *entry;
    size_t i;
    if (!json_is_array(list)) {
        json_decref(list);
        return err_raise(ERR_LINK_PROTOCOL, "the hub's list of files is not one");
    }
    json_array_foreach(list, i, entry) TRY(add(l, entry));
out:
    json_decref(list);
    return rc;
}

void hub_listing_close(struct hub_listing *l)
{
    for (size_t i = 0; i < l->n; i++) free(l->files[i].path);
    free(l->files);
    *l = (struct hub_listing){0};
}

/* ---- choosing ---- */

static const char *base_name(const char *path) { return strrchr(path, '/') ? strrchr(path, '/') + 1 : path; }

static bool ends(const char *s, const char *with)
{
    size_t n = strlen(s), k = strlen(with);
    return n >= k && !strcasecmp(s + n - k, with);
}

static bool is_gguf(const char *path) { return ends(path, ".gguf") && strncasecmp(base_name(path), "mmproj", 6); }

/* Small files beside the weights that a checkpoint's directory is read with. */
static bool is_words(const char *path)
{
    static const char *const names[] = {"config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "tokenizer.model",
                                        "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template.json",
                                        "chat_template.jinja", "quantize_config.json", "quant_config.json", "model.safetensors.index.json"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        if (!strcmp(path, names[i])) return true;
    return false;
}

/* Other layouts of the same weights (consolidated.safetensors, original/) are left. */
static bool is_weights(const char *path) { return !strchr(path, '/') && ends(path, ".safetensors") && !strncmp(path, "model", 5); }

/* The same model as the first part: the same name but for its number. */
static bool is_part_of(const char *path, const char *first)
{
    size_t n = strlen(path), k = strlen("-00001-of-00001.gguf");
    int of = 0, of_first = 0;
    if (!strcmp(path, first)) return true;
    return hub_ref_part(path, &of) && hub_ref_part(first, &of_first) && of == of_first && n == strlen(first) && !strncmp(path, first, n - k);
}

static bool keep_gguf(const struct hub_file *f, const char *first) { return is_gguf(f->path) && is_part_of(f->path, first); }

/* ", a, b, c" of the GGUF models that there are. */
static void list_gguf(const struct hub_listing *l, struct buf *out)
{
    int n = 0;
    for (size_t i = 0; i < l->n && n < 40; i++) {
        if (!is_gguf(l->files[i].path) || hub_ref_part(l->files[i].path, NULL) > 1) continue;
        buf_puts(out, n++ ? ", " : "");
        buf_puts(out, base_name(l->files[i].path));
    }
}

static enum err choose_gguf(struct hub_listing *l, const struct hub_ref *r, const char *quant, const char **first)
{
    struct buf there = {0};
    enum err rc = OK;
    int n = 0;
    for (size_t i = 0; i < l->n; i++) {
        const char *path = l->files[i].path;
        if (!is_gguf(path) || hub_ref_part(path, NULL) > 1 || (*quant && !hub_ref_is_quant(base_name(path), quant))) continue;
        *first = path;
        n++;
    }
    list_gguf(l, &there);
    if (!n) rc = err_raise(ERR_BAD_CONFIG, "%s/%s has no GGUF of '%s'; it has: %.400s", r->org, r->name, quant, there.len ? buf_str(&there) : "none");
    if (n > 1) rc = err_raise(ERR_BAD_CONFIG, "%s/%s has %d such GGUF models: say which, as %s/%s:QUANT; it has: %.400s", r->org, r->name, n, r->org, r->name,
                              buf_str(&there));
    buf_free(&there);
    return rc;
}

/* Words before weights, then by name: what can be looked at comes first. */
static int by_kind(const void *pa, const void *pb)
{
    const struct hub_file *a = pa, *b = pb;
    bool wa = is_words(a->path), wb = is_words(b->path);
    return wa != wb ? (wa ? -1 : 1) : strcmp(a->path, b->path);
}

static enum err check_parts(const struct hub_listing *l, const char *first)
{
    int of = 0, n = 0;
    if (!*first || !hub_ref_part(first, &of)) return OK;
    for (size_t i = 0; i < l->n; i++) n += hub_ref_part(l->files[i].path, NULL) > 0;
    return n == of ? OK : err_raise(ERR_LINK_PROTOCOL, "the hub lists %d of the %d parts of %s", n, of, first);
}

enum err hub_listing_choose(struct hub_listing *l, const struct hub_ref *r, const char **first)
{
    enum err rc = OK;
    bool weights = false, gguf = *r->quant, any = false;
    size_t n = 0;
    *first = "";
    for (size_t i = 0; i < l->n; i++) {
        weights |= is_weights(l->files[i].path);
        any |= is_gguf(l->files[i].path);
    }
    gguf |= !weights;
    if (!any && !weights)
        return err_raise(ERR_BAD_CONFIG, "%s/%s has neither GGUF files nor model.safetensors: there is nothing here that could be served", r->org, r->name);
    if (gguf) rc = choose_gguf(l, r, r->quant, first);
    if (rc && !*r->quant && !choose_gguf(l, r, "Q4_K_M", first)) rc = OK; /* several, none said: the usual one */
    if (rc && !*r->quant) rc = choose_gguf(l, r, r->quant, first);
    if (rc) return rc;
    for (size_t i = 0; i < l->n; i++) {
        struct hub_file *f = &l->files[i];
        if (gguf ? keep_gguf(f, *first) : is_words(f->path) || is_weights(f->path)) l->files[n++] = *f;
        else free(f->path);
    }
    l->n = n;
    qsort(l->files, n, sizeof *l->files, by_kind);
    return check_parts(l, *first);
}
