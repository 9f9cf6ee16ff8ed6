/* Any bytes as the tokenizer's files of a checkpoint: opening refuses with a sentence or succeeds,
 * and then texts go through, and come back the same whole and in pieces. The first byte picks the file. Seeds: corpus/hf_tokenizer. */
#include "engine/text/detok.h"
#include "engine/text/hf_tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static const char vocab[] = "{\"a\":0,\"b\":1,\"ab\":2,\"<|x|>\":3}";
static const char config[] =
    "{\"tokenizer_class\":\"Qwen2Tokenizer\",\"added_tokens_decoder\":{\"3\":{"
    "\"content\":\"<|x|>\",\"special\":true}}}";

static struct text_span span(const char *s)
{
    return (struct text_span){s, strlen(s)};
}

/* One by one the ids make the same text, unless it has bytes that are no UTF-8. */
static void stream(const struct eng_tokenizer *t, const struct eng_tokens *ids, bool special, struct buf *whole)
{
    struct buf pieces = {0};
    struct eng_detok *d = eng_detok_open(t, NULL, 0, false, special);
    eng_detok_drop_first_space(d);
    for (size_t i = 0; i < ids->n; i++) eng_detok_push(d, ids->ids[i], &pieces);
    eng_detok_finish(d, &pieces);
    ASSERT(memmem(buf_str(&pieces), pieces.len, "\xEF\xBF\xBD", 3) || (pieces.len == whole->len && !memcmp(buf_str(&pieces), buf_str(whole), pieces.len)));
    eng_detok_close(d);
    buf_free(&pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char some[] =
        "ab <|x|> a\xCC\x81\xFF \xE2\x96\x81 Caf\xC3\xA9 12, \xE5\xAD\x97 \xF0\x9F\x98\x80\n  x<s> b";
    static const int32_t eos[] = {0, 2, 1 << 20};
    if (!n) return 0;
    struct text_span in = {(const char *)data + 1, n - 1};
    struct eng_hf_files f = {.where = "D",
                             .bos = data[0] & 16 ? 1 : -1,
                             .eos = eos,
                             .n_eos = 3,
                             .n_rows = data[0] & 32 ? 3 : 0};
    switch (data[0] & 7) {
    case 0:
        f.tokenizer_json = in;
        break;
    case 1:
        f.model = in;
        break;
    case 2:
        f.vocab = in, f.merges = span("a b\n"), f.tokenizer_config = span(config);
        break;
    case 3:
        f.vocab = span(vocab), f.merges = in, f.tokenizer_config = span(config);
        break;
    case 4:
        f.vocab = span(vocab), f.merges = span("a b\n"), f.tokenizer_config = in;
        break;
    case 5:
        f.vocab = span(vocab), f.merges = span("a b\n"), f.added_tokens = in,
        f.model_type = "qwen2";
        break;
    default:
        f.vocab = span(vocab), f.merges = span("a b\n"), f.special_tokens_map = in,
        f.model_type = "gpt2";
    }
    struct eng_tokenizer *t = NULL;
    char *chat = NULL;
    err_set_text("%s", "");
    if (eng_hf_tokenizer_open(&t, &f))
        ASSERT(*err_text() && !t);
    else {
        struct eng_tokens ids = {0};
        struct buf back = {0};
        eng_tokenizer_encode(t, some, sizeof some - 1,
                             TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL, &ids);
        eng_tokenizer_encode(t, (const char *)data, MIN(n, 256), 0, &ids);
        for (size_t i = 0; i < ids.n; i++)
            ASSERT(ids.ids[i] >= 0 && ids.ids[i] < eng_tokenizer_size(t));
        eng_tokenizer_decode(t, ids.ids, ids.n, data[0] & 8, &back);
        stream(t, &ids, data[0] & 8, &back);
        eng_tokens_free(&ids);
        buf_free(&back);
    }
    eng_tokenizer_close(t);
    if (!eng_hf_template(&chat, &f)) free(chat);
    return 0;
}
