/* Any vocabulary, any text: opening refuses or succeeds, encoding and decoding stay inside their
 * bounds.
 *
 * The input: one byte of choices, then records of a length byte and that many bytes (tokens until
 * an empty one, merges until an empty one), then the text. */
#include "engine/text/detok.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { MOST = 512 };

static int32_t records(struct rd *r, struct text_span out[MOST])
{
    int32_t k = 0;
    while (k < MOST) {
        size_t len = rd_u8(r);
        if (!len || rd_left(r) < len) break;
        out[k++] = (struct text_span){rd_bytes(r, len), len};
    }
    return k;
}

static void run(const struct eng_tokenizer *t, const char *text, size_t n, unsigned flags)
{
    const char *const stops[] = {"ab", "\xC3\xA9"};
    struct eng_tokens ids = {0};
    struct buf whole = {0}, parts = {0};
    eng_tokenizer_encode(t, text, n, flags, &ids);
    eng_tokenizer_decode(t, ids.ids, ids.n, flags & 1, &whole);
    struct eng_detok *d = eng_detok_open(t, stops, flags & 2 ? 2 : 0, flags & 4, flags & 1);
    for (size_t i = 0; i < ids.n; i++) eng_detok_push(d, ids.ids[i], &parts);
    eng_detok_finish(d, &parts);
    eng_detok_close(d);
    buf_free(&whole);
    buf_free(&parts);
    eng_tokens_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const char *const pres[] = {"gpt-2",   "llama-bpe", "deepseek-llm", "gpt-4o",
                                       "nothing", "falcon",    "viking",       NULL};
    struct rd r = rd_of(data, n);
    struct text_span tokens[MOST], merges[MOST];
    int32_t types[MOST];
    float scores[MOST];
    uint8_t pick = rd_u8(&r), flags = rd_u8(&r);
    struct eng_vocab_src src = {.model = pick & 1 ? "llama" : "gpt2",
                                .pre = pres[pick >> 1 & 7],
                                .tokens = tokens,
                                .merges = merges,
                                .add_space_prefix = pick & 16,
                                .add_bos = pick & 32,
                                .bos = (int8_t)rd_u8(&r),
                                .eos = -1,
                                .eot = -1,
                                .unk = pick & 64 ? 0 : -1};
    src.n_tokens = records(&r, tokens);
    src.n_merges = records(&r, merges);
    for (int32_t i = 0; i < src.n_tokens; i++) {
        types[i] = (int32_t)(tokens[i].n ? (uint8_t)tokens[i].p[0] % 8 : 1);
        memcpy(&scores[i], tokens[i].n >= 4 ? tokens[i].p : "\0\0\200\277", 4);
    }
    if (flags & 8) src.types = types;
    if (flags & 16) src.scores = scores;
    struct eng_tokenizer *t = NULL;
    if (!eng_tokenizer_open(&t, &src)) run(t, (const char *)r.p, rd_left(&r), flags);
    eng_tokenizer_close(t);
    return 0;
}
