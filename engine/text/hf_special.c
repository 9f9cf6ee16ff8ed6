/* hf_special.c: which tokens begin and end a text, and whether they are put there. */
#include "engine/text/hf_build.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum err hf_json_parse(json_t **out, struct text_span text, const struct eng_hf_files *f,
                       const char *name)
{
    json_error_t why;
    json_t *j = json_loadb(text.p, text.n, JSON_REJECT_DUPLICATES, &why);
    if (json_is_object(j)) {
        *out = j;
        return OK;
    }
    if (j) snprintf(why.text, sizeof why.text, "not an object");
    json_decref(j);
    char *near = strstr(why.text, " near "); /* what follows is the file's own text */
    if (near) *near = 0;
    return err_raise(ERR_BAD_FILE, "%s/%s: %s at offset %d", f->where, name, why.text,
                     why.position);
}

/* "bos_token": a text, {"content": text}, or null. False: the key is not there. */
static bool token_text(const json_t *o, const char *key, const char **out)
{
    const json_t *v = json_object_get(o, key);
    *out = json_string_value(json_is_object(v) ? json_object_get(v, "content") : v);
    return v != NULL;
}

static int32_t named_id(const struct hf_build *b, const json_t *map, const char *key, int32_t def)
{
    const char *text;
    if (token_text(b->config, key, &text) || token_text(map, key, &text))
        return text ? hf_vocab_id(b, text) : -1;
    return def < b->n ? def : -1;
}

enum { MOST_AT_AN_END = 16 };

/* Tokens at one end of a text, from the outside in or out. */
struct end {
    int32_t ids[MOST_AT_AN_END], n;
};

/* The ids of one special token of a template. */
static enum err put_special(struct hf_build *b, const json_t *o, const json_t *name, struct end *to)
{
    const char *key = json_string_value(name);
    const json_t *ids = json_object_get(json_object_get(json_object_get(o, "special_tokens"), key ? key : ""), "ids");
    size_t i;
    json_t *e;
    json_array_foreach(ids, i, e)
    {
        int64_t id = json_is_integer(e) ? json_integer_value(e) : -1;
        if (id < 0 || id >= b->n) break;
        if (to->n == MOST_AT_AN_END)
            return err_raise(ERR_UNSUPPORTED, "%s/tokenizer.json: a post-processor that adds more than %d tokens before or after a text is "
                             "not supported", b->files->where,
                             MOST_AT_AN_END);
        to->ids[to->n++] = (int32_t)id;
    }
    if (i && i == json_array_size(ids)) return OK;
    return err_raise(ERR_BAD_FILE, "%s/tokenizer.json: the post-processor's token '%.40s' has no id of the vocabulary", b->files->where, key ? key : "");
}

static const int32_t *keep_ids(struct hf_build *b, const int32_t *ids, int32_t n)
{
    int32_t *to = arena_alloc(&b->a, (size_t)(n + 1) * sizeof *to);
    for (int32_t i = 0; i < n; i++) to[i] = ids[i];
    return to;
}

/* "single": [special tokens before] the text [special tokens after]. The first is BOS, the last EOS. */
static enum err read_template(struct hf_build *b, const json_t *o)
{
    size_t i;
    json_t *e;
    struct end before = {0}, after = {0};
    bool text = false;
    json_array_foreach(json_object_get(o, "single"), i, e)
    {
        const json_t *name = json_object_get(json_object_get(e, "SpecialToken"), "id");
        enum err rc = name ? put_special(b, o, name, text ? &after : &before) : OK;
        if (rc) return rc;
        text |= !name;
    }
    if (before.n) {
        b->src.bos = before.ids[0], b->src.add_bos = true;
        b->src.n_behind_bos = before.n - 1;
        b->src.behind_bos = keep_ids(b, before.ids + 1, before.n - 1);
    }
    if (after.n) {
        b->src.eos = after.ids[after.n - 1], b->src.add_eos = true;
        b->src.n_before_eos = after.n - 1;
        b->src.before_eos = keep_ids(b, after.ids, after.n - 1);
    }
    return OK;
}

/* "sep" and "cls": [token, id]. */
static enum err read_pair(struct hf_build *b, const json_t *o, const char *key, int32_t *to)
{
    const json_t *id = json_array_get(json_object_get(o, key), 1);
    int64_t v = json_is_integer(id) ? json_integer_value(id) : -1;
    if (v < 0 || v >= b->n)
        return err_raise(ERR_BAD_FILE, "%s/tokenizer.json: the post-processor's '%s' has no id of the vocabulary", b->files->where, key);
    *to = (int32_t)v;
    return OK;
}

/* BERT's and RoBERTa's: one token before a text, one after it. */
static enum err read_both_ends(struct hf_build *b, const json_t *o)
{
    enum err rc = read_pair(b, o, "cls", &b->src.bos);
    if (!rc) rc = read_pair(b, o, "sep", &b->src.eos);
    b->src.add_bos = b->src.add_eos = !rc;
    return rc;
}

static enum err read_post(struct hf_build *b, const json_t *o, int depth)
{
    size_t i;
    json_t *e;
    const char *t = json_string_value(json_object_get(o, "type"));
    if (!t || !strcmp(t, "ByteLevel")) return OK;
    if (!strcmp(t, "TemplateProcessing")) return read_template(b, o);
    if (!strcmp(t, "BertProcessing") || !strcmp(t, "RobertaProcessing")) return read_both_ends(b, o);
    if (strcmp(t, "Sequence") || depth > 4)
        return err_raise(ERR_UNSUPPORTED,
                         "%s/tokenizer.json: post_processor '%.40s' is not supported",
                         b->files->where, t);
    json_array_foreach(json_object_get(o, "processors"), i, e)
    {
        enum err rc = read_post(b, e, depth + 1);
        if (rc) return rc;
    }
    return OK;
}

static void read_flag(const json_t *o, const char *key, int32_t id, bool *out)
{
    const json_t *v = json_object_get(o, key);
    if (json_is_boolean(v)) *out = json_is_true(v) && id >= 0;
}

static void read_ends(struct hf_build *b)
{
    const struct eng_hf_files *f = b->files;
    int32_t *ids = arena_alloc(&b->a, (size_t)(f->n_eos + 1) * sizeof *ids), n = 0;
    for (int32_t i = 0; i < f->n_eos; i++) /* ids beyond the vocabulary end nothing */
        if (f->eos[i] >= 0 && f->eos[i] < b->n) ids[n++] = f->eos[i];
    b->src.eog = ids;
    b->src.n_eog = n;
}

enum err hf_special_read(struct hf_build *b, const json_t *tokenizer)
{
    enum err rc = OK;
    const struct eng_hf_files *f = b->files;
    json_t *map = NULL;
    TRY(hf_vocab_limit(b, f->n_rows));
    if (f->special_tokens_map.p)
        TRY(hf_json_parse(&map, f->special_tokens_map, f, "special_tokens_map.json"));
    const char *unk =
        json_string_value(json_object_get(json_object_get(tokenizer, "model"), "unk_token"));
    b->src.bos = named_id(b, map, "bos_token", b->src.bos >= 0 ? b->src.bos : f->bos);
    b->src.eos = named_id(b, map, "eos_token",
                          b->src.eos >= 0 ? b->src.eos
                          : f->n_eos      ? f->eos[0]
                                          : -1);
    if (tokenizer && !b->src.log_probs) b->src.unk = unk ? hf_vocab_id(b, unk) : -1;
    TRY(read_post(b, json_object_get(tokenizer, "post_processor"), 0));
    read_flag(b->config, "add_bos_token", b->src.bos, &b->src.add_bos);
    read_flag(b->config, "add_eos_token", b->src.eos, &b->src.add_eos);
    read_ends(b);
out:
    json_decref(map);
    return rc;
}

/* Is it said to be special: bos, eos, unk, pad, or one of additional_special_tokens? */
static bool is_special(const struct hf_build *b, const char *text)
{
    static const char *const keys[] = {"bos_token", "eos_token", "unk_token", "pad_token"};
    size_t i;
    json_t *e;
    const char *s;
    for (i = 0; i < COUNT_OF(keys); i++)
        if (token_text(b->config, keys[i], &s) && s && !strcmp(s, text)) return true;
    json_array_foreach(json_object_get(b->config, "additional_special_tokens"), i,
                       e) if (json_is_string(e) && !strcmp(json_string_value(e), text)) return true;
    return false;
}

static enum err added_tokens_json(struct hf_build *b)
{
    enum err rc;
    json_t *list = NULL, *id;
    const char *text;
    TRY(hf_json_parse(&list, b->files->added_tokens, b->files, "added_tokens.json"));
    TRY(hf_vocab_room(b, json_object_size(list), "added_tokens.json"));
    json_object_foreach(list, text, id)
    {
        int64_t i = json_is_integer(id) ? json_integer_value(id) : -1;
        if (i >= 0 && i < b->n && b->types[i] != TOKEN_UNUSED) continue; /* described already */
        const char *copy = arena_strndup(&b->a, text, strlen(text));
        json_t *t = json_pack("{s:s, s:b}", "content", copy, "special", is_special(b, copy));
        rc = hf_vocab_added(b, i, t, "added_tokens.json");
        if (!rc) b->tokens[i].p = copy;
        json_decref(t);
        if (rc) break;
    }
out:
    json_decref(list);
    return rc;
}

enum err hf_special_added(struct hf_build *b)
{
    enum err rc = OK;
    const json_t *decoder = json_object_get(b->config, "added_tokens_decoder");
    const char *key;
    json_t *token;
    TRY(hf_vocab_room(b, json_object_size(decoder), "tokenizer_config.json"));
    json_object_foreach((json_t *)(uintptr_t)decoder, key, token)
    {
        TRY(hf_vocab_added(b, strtol(key, NULL, 10), token, "tokenizer_config.json"));
    }
    if (b->files->added_tokens.p) TRY(added_tokens_json(b));
out:
    return rc;
}
