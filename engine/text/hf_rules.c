/* hf_rules.c: tokenizer.json's steps as rules (rules.h). A step that is not here is refused by its
 * name: a tokenizer that is almost right is wrong. */
#include "engine/text/hf_build.h"
#include "engine/text/pretoken.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_STEPS = 16 };

static const char *type_of(const json_t *o)
{
    const char *t = json_string_value(json_object_get(o, "type"));
    return t ? t : "(no type)";
}

static bool flag(const json_t *o, const char *key, bool def)
{
    const json_t *v = json_object_get(o, key);
    return json_is_boolean(v) ? json_is_true(v) : def;
}

static enum err unknown(const struct hf_build *b, const char *what, const json_t *o)
{
    return err_raise(ERR_UNSUPPORTED, "%s/tokenizer.json: %s '%.40s' is not supported",
                     b->files->where, what, type_of(o));
}

enum err hf_rules_step(struct hf_build *b, struct text_step step)
{
    if (b->rules.n_steps == MOST_STEPS)
        return err_raise(ERR_UNSUPPORTED, "%s/tokenizer.json: more than %d normalizers",
                         b->files->where, MOST_STEPS);
    if (!b->steps) b->steps = arena_alloc(&b->a, MOST_STEPS * sizeof *b->steps);
    b->steps[b->rules.n_steps++] = step;
    return OK;
}

enum err hf_rules_split(struct hf_build *b, const char *regex, enum text_split_how how, bool invert)
{
    if (b->rules.n_splits == PRETOKEN_STAGES)
        return err_raise(ERR_UNSUPPORTED, "%s/tokenizer.json: more than %d splits", b->files->where,
                         PRETOKEN_STAGES);
    if (!b->splits) b->splits = arena_alloc(&b->a, PRETOKEN_STAGES * sizeof *b->splits);
    b->splits[b->rules.n_splits++] = (struct text_split){regex, how, invert};
    return OK;
}

/* ---- normalizer ---- */

static enum err read_replace_regex(struct hf_build *b, const char *regex, const json_t *to)
{
    enum err rc = hf_regex_translate(&b->a, regex, &regex);
    return rc ? rc : hf_rules_step(b, (struct text_step){TEXT_REPLACE_REGEX, {regex, strlen(regex)}, {json_string_value(to), json_string_length(to)}});
}

static enum err read_replace(struct hf_build *b, const json_t *o)
{
    const json_t *pattern = json_object_get(o, "pattern"), *from = json_object_get(pattern, "String"), *to = json_object_get(o, "content");
    const char *regex = json_string_value(json_object_get(pattern, "Regex"));
    if (regex && json_is_string(to)) return read_replace_regex(b, regex, to);
    if (!json_is_string(from) || !json_is_string(to))
        return err_raise(ERR_BAD_FILE, "%s/tokenizer.json: normalizer 'Replace' without a pattern or a content", b->files->where);
    return hf_rules_step(b, (struct text_step){TEXT_REPLACE,
                                               {json_string_value(from), json_string_length(from)},
                                               {json_string_value(to), json_string_length(to)}});
}

/* Base 64 without line ends. Own: the arena. */
static bool decode_base64(struct arena *a, const char *p, size_t n, struct text_span *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    char *to = arena_alloc(a, n / 4 * 3 + 1);
    size_t len = 0;
    while (n && p[n - 1] == '=') n--;
    for (uint32_t word = 0, i = 0; i < n; i++) {
        const char *d = p[i] ? strchr(digits, p[i]) : NULL;
        if (!d) return false;
        word = word << 6 | (uint32_t)(d - digits);
        if (i % 4) to[len++] = (char)(word >> (6 - i % 4 * 2));
    }
    *out = (struct text_span){to, len};
    return true;
}

static enum err read_precompiled(struct hf_build *b, const json_t *o)
{
    const json_t *map = json_object_get(o, "precompiled_charsmap");
    struct text_step step = {.kind = TEXT_PRECOMPILED};
    if (!map || json_is_null(map)) return OK;
    if (!json_is_string(map) || json_string_length(map) > INT32_MAX || !decode_base64(&b->a, json_string_value(map), json_string_length(map), &step.from))
        return err_raise(ERR_BAD_FILE, "%s/tokenizer.json: 'precompiled_charsmap' is not base 64", b->files->where);
    return hf_rules_step(b, step);
}

static enum err read_normalizer(struct hf_build *b, const json_t *o, int depth)
{
    static const char *const forms[] = {
        [TEXT_NFC] = "NFC", [TEXT_NFD] = "NFD", [TEXT_NFKC] = "NFKC", [TEXT_NFKD] = "NFKD"};
    enum err rc = OK;
    size_t i;
    json_t *e;
    if (!o || json_is_null(o)) return OK;
    const char *t = type_of(o);
    if (!strcmp(t, "Sequence") && depth < 4) {
        json_array_foreach(json_object_get(o, "normalizers"), i, e)
        {
            TRY(read_normalizer(b, e, depth + 1));
        }
        return OK;
    }
    for (i = 0; i < COUNT_OF(forms); i++)
        if (!strcmp(t, forms[i]))
            return hf_rules_step(b, (struct text_step){.kind = (enum text_step_kind)i});
    if (!strcmp(t, "Replace")) return read_replace(b, o);
    if (!strcmp(t, "Precompiled")) return read_precompiled(b, o);
    if (!strcmp(t, "Strip"))
        return hf_rules_step(b, (struct text_step){.kind = TEXT_STRIP, .left = flag(o, "strip_left", true), .right = flag(o, "strip_right", true)});
    const json_t *text = json_object_get(o, "prepend");
    if (!strcmp(t, "Prepend") && json_is_string(text))
        return hf_rules_step(
            b, (struct text_step){.kind = TEXT_PREPEND,
                                  .to = {json_string_value(text), json_string_length(text)}});
    return unknown(b, "normalizer", o);
out:
    return rc;
}

/* ---- pre_tokenizer ---- */

static enum err read_how(struct hf_build *b, const json_t *o, enum text_split_how def,
                         enum text_split_how *out)
{
    static const char *const names[] = {[SPLIT_ISOLATED] = "Isolated",
                                        [SPLIT_REMOVED] = "Removed",
                                        [SPLIT_MERGED_PREVIOUS] = "MergedWithPrevious",
                                        [SPLIT_MERGED_NEXT] = "MergedWithNext",
                                        [SPLIT_CONTIGUOUS] = "Contiguous"};
    const char *s = json_string_value(json_object_get(o, "behavior"));
    *out = def;
    for (size_t i = 0; s && i < COUNT_OF(names); i++)
        if (!strcmp(s, names[i])) {
            *out = (enum text_split_how)i;
            return OK;
        }
    return s ? err_raise(ERR_UNSUPPORTED,
                         "%s/tokenizer.json: split behavior '%.40s' is not supported",
                         b->files->where, s)
             : OK;
}

static enum err read_split(struct hf_build *b, const json_t *o)
{
    enum err rc;
    enum text_split_how how;
    const json_t *p = json_object_get(o, "pattern");
    const char *regex = json_string_value(json_object_get(p, "Regex")),
               *text = json_string_value(json_object_get(p, "String"));
    if (!regex && (!text || !*text))
        return err_raise(ERR_BAD_FILE, "%s/tokenizer.json: a 'Split' without a pattern",
                         b->files->where);
    TRY(read_how(b, o, SPLIT_ISOLATED, &how));
    if (regex)
        TRY(hf_regex_translate(&b->a, regex, &regex));
    else
        regex = hf_regex_literal(&b->a, text);
    TRY(hf_rules_split(b, regex, how, flag(o, "invert", false)));
out:
    return rc;
}

/* Spaces become U+2581, and perhaps one is put in front: done to the text before it is split. */
static enum err read_metaspace(struct hf_build *b, const json_t *o)
{
    const json_t *text = json_object_get(o, "replacement");
    const char *scheme = json_string_value(json_object_get(o, "prepend_scheme"));
    if (b->rules.n_splits || b->rules.meta || !json_is_string(text) || !json_string_length(text))
        return err_raise(
            ERR_UNSUPPORTED,
            "%s/tokenizer.json: 'Metaspace' is supported as the first pre-tokenizer only",
            b->files->where);
    if (!scheme) scheme = flag(o, "add_prefix_space", true) ? "always" : "never";
    b->rules.meta = !strcmp(scheme, "first")   ? META_FIRST
                    : !strcmp(scheme, "never") ? META_NEVER
                                               : META_ALWAYS;
    b->rules.meta_text = (struct text_span){json_string_value(text), json_string_length(text)};
    if (!flag(o, "split", true)) return OK;
    return hf_rules_split(b, hf_regex_literal(&b->a, json_string_value(text)), SPLIT_MERGED_NEXT,
                          false);
}

static enum err read_byte_level(struct hf_build *b, const json_t *o)
{
    b->src.model = "gpt2";
    if (flag(o, "add_prefix_space", true)) {
        if (b->rules.n_splits)
            return err_raise(ERR_UNSUPPORTED,
                             "%s/tokenizer.json: 'ByteLevel' with add_prefix_space is supported as "
                             "the first pre-tokenizer only",
                             b->files->where);
        b->rules.prefix_space = true;
    }
    if (!flag(o, "use_regex", true)) return OK;
    return hf_rules_split(b, pretoken_rule_find("gpt-2")->stages[0], SPLIT_ISOLATED, false);
}

static enum err read_pre(struct hf_build *b, const json_t *o, int depth)
{
    enum err rc = OK;
    size_t i;
    json_t *e;
    enum text_split_how how;
    if (!o || json_is_null(o)) return OK;
    const char *t = type_of(o);
    if (!strcmp(t, "Sequence") && depth < 4) {
        json_array_foreach(json_object_get(o, "pretokenizers"), i, e)
        {
            TRY(read_pre(b, e, depth + 1));
        }
        return OK;
    }
    if (!strcmp(t, "ByteLevel")) return read_byte_level(b, o);
    if (!strcmp(t, "Split")) return read_split(b, o);
    if (!strcmp(t, "Metaspace")) return read_metaspace(b, o);
    if (!strcmp(t, "Digits"))
        return hf_rules_split(
            b, "\\p{N}", flag(o, "individual_digits", false) ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS,
            false);
    if (!strcmp(t, "Punctuation")) {
        TRY(read_how(b, o, SPLIT_ISOLATED, &how));
        return hf_rules_split(b, "[\\p{P}$+<=>^`|~]", how, false);
    }
    return unknown(b, "pre_tokenizer", o);
out:
    return rc;
}

/* ---- decoder: only whether the first space is dropped again ---- */

static void read_decoder(struct hf_build *b, const json_t *o, int depth)
{
    size_t i;
    json_t *e;
    const char *t = type_of(o), *scheme = json_string_value(json_object_get(o, "prepend_scheme"));
    if (!strcmp(t, "Sequence") && depth < 4)
        json_array_foreach(json_object_get(o, "decoders"), i, e) read_decoder(b, e, depth + 1);
    if (!strcmp(t, "Strip") && json_integer_value(json_object_get(o, "start")) > 0)
        b->src.add_space_prefix = true;
    if (!strcmp(t, "Metaspace"))
        b->src.add_space_prefix =
            scheme ? strcmp(scheme, "never") != 0 : flag(o, "add_prefix_space", true);
    if (!strcmp(t, "ByteLevel")) b->src.model = "gpt2";
}

static enum err read_model(struct hf_build *b, const json_t *m)
{
    const json_t *type = json_object_get(m, "type");
    const char *t = json_is_string(type) ? json_string_value(type) : "BPE";
    const char *prefix = json_string_value(json_object_get(m, "continuing_subword_prefix")),
               *suffix = json_string_value(json_object_get(m, "end_of_word_suffix"));
    bool unigram = !strcmp(t, "Unigram");
    if ((strcmp(t, "BPE") && !unigram) || !json_is_object(m))
        return err_raise(ERR_UNSUPPORTED,
                         "%s/tokenizer.json: model '%.40s' is not supported (known: BPE, Unigram)",
                         b->files->where, t);
    if ((prefix && *prefix) || (suffix && *suffix))
        return err_raise(
            ERR_UNSUPPORTED,
            "%s/tokenizer.json: BPE with a subword prefix or word suffix is not supported",
            b->files->where);
    if (unigram) b->src.model = "unigram";
    b->rules.ignore_merges = flag(m, "ignore_merges", false);
    b->rules.byte_fallback = flag(m, "byte_fallback", false);
    b->rules.fuse_unk = flag(m, "fuse_unk", false);
    return OK;
}

enum err hf_rules_read(struct hf_build *b, const json_t *tokenizer)
{
    enum err rc;
    b->src.model = "bpe";
    TRY(read_model(b, json_object_get(tokenizer, "model")));
    TRY(read_normalizer(b, json_object_get(tokenizer, "normalizer"), 0));
    TRY(read_pre(b, json_object_get(tokenizer, "pre_tokenizer"), 0));
    read_decoder(b, json_object_get(tokenizer, "decoder"), 0);
    const char *model = json_string_value(json_object_get(json_object_get(tokenizer, "model"), "type"));
    if (model && !strcmp(model, "Unigram") && strcmp(b->src.model, "unigram"))
        TRY(err_raise(ERR_UNSUPPORTED, "%s/tokenizer.json: 'Unigram' with 'ByteLevel'", b->files->where));
    if (b->rules.prefix_space && b->rules.meta)
        rc = err_raise(ERR_UNSUPPORTED, "%s/tokenizer.json: 'Metaspace' with 'ByteLevel'",
                       b->files->where);
out:
    return rc;
}
