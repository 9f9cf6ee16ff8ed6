/* hf_normalizer.c: tokenizer.json's normalizer as steps (rules.h). */
#include "engine/text/hf_build.h"

#include <string.h>

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

/* BertNormalizer: up to five steps. Marks go where the letters become small ones, unless it says otherwise. */
static enum err read_bert(struct hf_build *b, const json_t *o)
{
    bool lower = hf_flag(o, "lowercase", true), strip = hf_flag(o, "strip_accents", lower);
    const struct { bool on; enum text_step_kind kind; } steps[] = {{hf_flag(o, "clean_text", true), TEXT_CLEAN},
                                                                   {hf_flag(o, "handle_chinese_chars", true), TEXT_HAN_APART},
                                                                   {strip, TEXT_NFD},
                                                                   {strip, TEXT_STRIP_NONSPACING},
                                                                   {lower, TEXT_LOWER}};
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        enum err rc = steps[i].on ? hf_rules_step(b, (struct text_step){.kind = steps[i].kind}) : OK;
        if (rc) return rc;
    }
    return OK;
}

enum err hf_normalizer_read(struct hf_build *b, const json_t *o, int depth)
{
    static const struct { const char *name; enum text_step_kind kind; } plain[] = {
        {"NFC", TEXT_NFC},         {"NFD", TEXT_NFD}, {"NFKC", TEXT_NFKC},      {"NFKD", TEXT_NFKD}, {"StripAccents", TEXT_STRIP_MARKS},
        {"Lowercase", TEXT_LOWER}, {"Nmt", TEXT_NMT}, {"ByteLevel", TEXT_BYTES}};
    if (!o || json_is_null(o)) return OK;
    const char *t = hf_type(o);
    if (!strcmp(t, "Sequence") && depth < 4) return hf_each(b, json_object_get(o, "normalizers"), depth + 1, hf_normalizer_read);
    for (size_t i = 0; i < COUNT_OF(plain); i++)
        if (!strcmp(t, plain[i].name)) return hf_rules_step(b, (struct text_step){.kind = plain[i].kind});
    if (!strcmp(t, "BertNormalizer")) return read_bert(b, o);
    if (!strcmp(t, "Replace")) return read_replace(b, o);
    if (!strcmp(t, "Precompiled")) return read_precompiled(b, o);
    if (!strcmp(t, "Strip"))
        return hf_rules_step(b, (struct text_step){.kind = TEXT_STRIP, .left = hf_flag(o, "strip_left", true), .right = hf_flag(o, "strip_right", true)});
    const json_t *text = json_object_get(o, "prepend");
    if (!strcmp(t, "Prepend") && json_is_string(text))
        return hf_rules_step(
            b, (struct text_step){.kind = TEXT_PREPEND,
                                  .to = {json_string_value(text), json_string_length(text)}});
    return hf_unknown(b, "normalizer", o);
}
