/* hf_decoder.c: tokenizer.json's decoder: how tokens become a text (rules.h), and whether its first space is dropped again. */
#include "engine/text/hf_build.h"

#include <string.h>

static struct text_span mark_of(const json_t *o, const char *key, const char *def)
{
    const json_t *v = json_object_get(o, key);
    if (json_is_string(v)) return (struct text_span){json_string_value(v), json_string_length(v)};
    return (struct text_span){def, strlen(def)};
}

static void read_spaces(struct hf_build *b, const json_t *o)
{
    const char *t = hf_type(o), *scheme = json_string_value(json_object_get(o, "prepend_scheme"));
    if (!strcmp(t, "Strip") && json_integer_value(json_object_get(o, "start")) > 0) b->src.add_space_prefix = true;
    if (!strcmp(t, "Metaspace")) b->src.add_space_prefix = scheme ? strcmp(scheme, "never") != 0 : hf_flag(o, "add_prefix_space", true);
}

/* *n counts the steps that change a text. */
static enum err read_step(struct hf_build *b, const json_t *o, int depth, int32_t *n)
{
    static const char *const by_model[] = {"Strip", "Metaspace", "Replace", "ByteFallback"};
    struct eng_text_rules *r = &b->rules;
    size_t i;
    json_t *e;
    const char *t = hf_type(o);
    if (!strcmp(t, "Sequence") && depth < 4) {
        json_array_foreach(json_object_get(o, "decoders"), i, e)
        {
            enum err rc = read_step(b, e, depth + 1, n);
            if (rc) return rc;
        }
        return OK;
    }
    if (!strcmp(t, "Fuse")) return OK;
    ++*n;
    read_spaces(b, o);
    for (i = 0; i < COUNT_OF(by_model); i++)
        if (!strcmp(t, by_model[i])) return OK;
    if (!strcmp(t, "ByteLevel")) {
        if (strcmp(b->src.model, "gpt2")) r->decoder = DECODE_BYTES;
    } else if (!strcmp(t, "WordPiece")) {
        r->decoder = DECODE_WORDS;
        r->decoder_mark = mark_of(o, "prefix", "##");
        r->decoder_tidies = hf_flag(o, "cleanup", true);
    } else if (!strcmp(t, "BPEDecoder")) {
        r->decoder = DECODE_SUFFIX;
        r->decoder_mark = mark_of(o, "suffix", "</w>");
    } else {
        return hf_unknown(b, "decoder", o);
    }
    return OK;
}

enum err hf_decoder_read(struct hf_build *b, const json_t *o)
{
    int32_t n = 0;
    if (!o || json_is_null(o)) { /* tokens with spaces between, but no one wants a byte-level vocabulary's letters */
        if (strcmp(b->src.model, "gpt2")) b->rules.decoder = DECODE_JOINED;
        return OK;
    }
    enum err rc = read_step(b, o, 0, &n);
    if (!rc && n > 1 && b->rules.decoder != DECODE_BY_MODEL)
        rc = err_raise(ERR_UNSUPPORTED, "%s/tokenizer.json: a decoder of %d steps with 'WordPiece', 'BPEDecoder' or 'ByteLevel' among them is not supported",
                       b->files->where, n);
    return rc;
}
