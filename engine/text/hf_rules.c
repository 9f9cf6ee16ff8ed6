/* hf_rules.c: tokenizer.json's steps as rules (rules.h). A step that is not here is refused by its
 * name: a tokenizer that is almost right is wrong. */
#include "engine/text/hf_build.h"
#include "engine/text/char_sets.h"
#include "engine/text/pretoken.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_STEPS = 16 };

/* Insides of character classes: what \\w and \\s are where the package goes by Rust's expressions. */
#define WORD "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\x{200C}\\x{200D}"
#define SPACE "\\x{9}-\\x{D}\\x{20}\\x{85}\\x{A0}\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"

const char *hf_type(const json_t *o)
{
    const char *t = json_string_value(json_object_get(o, "type"));
    return t ? t : "(no type)";
}

bool hf_flag(const json_t *o, const char *key, bool def)
{
    const json_t *v = json_object_get(o, key);
    return json_is_boolean(v) ? json_is_true(v) : def;
}

enum err hf_unknown(const struct hf_build *b, const char *what, const json_t *o)
{
    return err_raise(ERR_UNSUPPORTED, "%s/tokenizer.json: %s '%.40s' is not supported",
                     b->files->where, what, hf_type(o));
}

enum err hf_each(struct hf_build *b, const json_t *list, int depth, enum err (*read)(struct hf_build *b, const json_t *o, int depth))
{
    enum err rc = OK;
    for (size_t i = 0; i < json_array_size(list) && !rc; i++) rc = read(b, json_array_get(list, i), depth);
    return rc;
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
    TRY(hf_rules_split(b, regex, how, hf_flag(o, "invert", false)));
out:
    return rc;
}

/* Spaces become U+2581, and perhaps one is put in front, of each piece there is by then. */
static enum err read_metaspace(struct hf_build *b, const json_t *o)
{
    const json_t *text = json_object_get(o, "replacement");
    const char *scheme = json_string_value(json_object_get(o, "prepend_scheme"));
    if (b->rules.meta || b->rules.prefix_space || !json_is_string(text) || !json_string_length(text))
        return err_raise(ERR_UNSUPPORTED, "%s/tokenizer.json: 'Metaspace' with another or with 'ByteLevel', or without 'replacement', is not "
                         "supported", b->files->where);
    b->rules.n_before = b->rules.n_splits;
    if (!scheme) scheme = hf_flag(o, "add_prefix_space", true) ? "always" : "never";
    b->rules.meta = !strcmp(scheme, "first")   ? META_FIRST
                    : !strcmp(scheme, "never") ? META_NEVER
                                               : META_ALWAYS;
    b->rules.meta_text = (struct text_span){json_string_value(text), json_string_length(text)};
    if (!hf_flag(o, "split", true)) return OK;
    return hf_rules_split(b, hf_regex_literal(&b->a, json_string_value(text)), SPLIT_MERGED_NEXT,
                          false);
}

static enum err read_byte_level(struct hf_build *b, const json_t *o)
{
    b->src.model = "gpt2";
    if (hf_flag(o, "add_prefix_space", true)) {
        b->rules.n_before = b->rules.n_splits;
        b->rules.prefix_space = true;
    }
    if (!hf_flag(o, "use_regex", true)) return OK;
    return hf_rules_split(b, pretoken_rule_find("gpt-2")->stages[0], SPLIT_ISOLATED, false);
}

/* A set of characters as an expression. Own: the arena. */
static const char *class_of(struct hf_build *b, enum char_set set)
{
    struct buf class = {0};
    char_set_class(set, &class);
    const char *out = arena_strndup(&b->a, buf_str(&class), class.len);
    buf_free(&class);
    return out;
}

/* Pieces of n characters. */
static enum err read_fixed_length(struct hf_build *b, const json_t *o)
{
    const json_t *length = json_object_get(o, "length");
    json_int_t n = length ? json_integer_value(length) : 5;
    char regex[32];
    if (n < 1 || n > 65535)
        return err_raise(ERR_UNSUPPORTED, "%s/tokenizer.json: 'FixedLength' of %lld characters; 1 to 65535 are possible", b->files->where, (long long)n);
    int len = snprintf(regex, sizeof regex, "(?s).{1,%d}", (int)n);
    return hf_rules_split(b, arena_strndup(&b->a, regex, (size_t)len), SPLIT_ISOLATED, false);
}

static enum err read_words(struct hf_build *b, const json_t *o)
{
    const char *t = hf_type(o), *delimiter = json_string_value(json_object_get(o, "delimiter"));
    if (!strcmp(t, "Whitespace")) return hf_rules_split(b, "[" WORD "]+|[^" WORD SPACE "]+", SPLIT_REMOVED, true);
    if (!strcmp(t, "CharDelimiterSplit"))
        return delimiter && *delimiter ? hf_rules_split(b, hf_regex_literal(&b->a, delimiter), SPLIT_REMOVED, false)
                                       : err_raise(ERR_BAD_FILE, "%s/tokenizer.json: 'CharDelimiterSplit' without a delimiter", b->files->where);
    enum err rc = hf_rules_split(b, class_of(b, CHARS_SPACE), SPLIT_REMOVED, false);
    if (!rc && !strcmp(t, "BertPreTokenizer")) rc = hf_rules_split(b, class_of(b, CHARS_PUNCTUATION), SPLIT_ISOLATED, false);
    return rc;
}

static enum err read_pre(struct hf_build *b, const json_t *o, int depth)
{
    static const char *const words[] = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit", "CharDelimiterSplit"};
    enum text_split_how how;
    if (!o || json_is_null(o)) return OK;
    const char *t = hf_type(o);
    if (!strcmp(t, "Sequence") && depth < 4) return hf_each(b, json_object_get(o, "pretokenizers"), depth + 1, read_pre);
    if (!strcmp(t, "ByteLevel")) return read_byte_level(b, o);
    if (!strcmp(t, "Split")) return read_split(b, o);
    if (!strcmp(t, "Metaspace")) return read_metaspace(b, o);
    if (!strcmp(t, "FixedLength")) return read_fixed_length(b, o);
    if (!strcmp(t, "Digits"))
        return hf_rules_split(b, "\\p{N}", hf_flag(o, "individual_digits", false) ? SPLIT_ISOLATED : SPLIT_CONTIGUOUS, false);
    if (!strcmp(t, "Punctuation")) {
        enum err rc = read_how(b, o, SPLIT_ISOLATED, &how);
        return rc ? rc : hf_rules_split(b, class_of(b, CHARS_PUNCTUATION), how, false);
    }
    for (size_t i = 0; i < COUNT_OF(words); i++)
        if (!strcmp(t, words[i])) return read_words(b, o);
    return hf_unknown(b, "pre_tokenizer", o);
}

/* ---- model ---- */

static struct text_span text_of(const json_t *o, const char *key, const char *def)
{
    const json_t *v = json_object_get(o, key);
    if (json_is_string(v)) return (struct text_span){json_string_value(v), json_string_length(v)};
    return (struct text_span){def, strlen(def)};
}

static enum err read_bpe(struct hf_build *b, const json_t *m)
{
    struct eng_text_rules *r = &b->rules;
    r->inner = text_of(m, "continuing_subword_prefix", "");
    r->final = text_of(m, "end_of_word_suffix", "");
    if (json_number_value(json_object_get(m, "dropout")) != 0)
        return err_raise(ERR_UNSUPPORTED, "%s/tokenizer.json: BPE with 'dropout' is not supported: it would write a text another way each time",
                         b->files->where);
    if (r->byte_fallback && (r->inner.n || r->final.n))
        return err_raise(ERR_UNSUPPORTED, "%s/tokenizer.json: BPE with byte_fallback and a prefix or suffix of pieces is not supported", b->files->where);
    return OK;
}

static enum err read_model(struct hf_build *b, const json_t *m)
{
    const json_t *type = json_object_get(m, "type"), *most = json_object_get(m, "max_input_chars_per_word");
    const char *t = json_is_string(type) ? json_string_value(type) : "BPE";
    static const struct { const char *type, *model; } known[] = {
        {"BPE", "bpe"}, {"Unigram", "unigram"}, {"WordPiece", "wordpiece"}, {"WordLevel", "wordlevel"}};
    for (size_t i = 0; i < COUNT_OF(known); i++)
        if (!strcmp(t, known[i].type)) b->src.model = known[i].model;
    if (!b->src.model || !json_is_object(m))
        return err_raise(ERR_UNSUPPORTED, "%s/tokenizer.json: model '%.40s' is not supported (known: BPE, Unigram, WordPiece, WordLevel)", b->files->where, t);
    b->rules.ignore_merges = hf_flag(m, "ignore_merges", false);
    b->rules.byte_fallback = hf_flag(m, "byte_fallback", false);
    b->rules.fuse_unk = hf_flag(m, "fuse_unk", false);
    if (!strcmp(t, "BPE")) return read_bpe(b, m);
    b->rules.inner = text_of(m, "continuing_subword_prefix", "##");
    b->rules.most_chars = json_is_integer(most) ? json_integer_value(most) : 100;
    return OK;
}

enum err hf_rules_read(struct hf_build *b, const json_t *tokenizer)
{
    enum err rc;
    TRY(read_model(b, json_object_get(tokenizer, "model")));
    const char *model = b->src.model;
    TRY(hf_normalizer_read(b, json_object_get(tokenizer, "normalizer"), 0));
    TRY(read_pre(b, json_object_get(tokenizer, "pre_tokenizer"), 0));
    if (strcmp(model, "bpe") && strcmp(model, b->src.model))
        TRY(err_raise(ERR_UNSUPPORTED, "%s/tokenizer.json: '%s' with 'ByteLevel'", b->files->where,
                      json_string_value(json_object_get(json_object_get(tokenizer, "model"), "type"))));
    TRY(hf_decoder_read(b, json_object_get(tokenizer, "decoder")));
    if (b->rules.prefix_space && b->rules.meta)
        rc = err_raise(ERR_UNSUPPORTED, "%s/tokenizer.json: 'Metaspace' with 'ByteLevel'",
                       b->files->where);
out:
    return rc;
}
