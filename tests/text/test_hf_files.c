/* Files of a checkpoint's tokenizer made by hand: lies are refused by name, damage never crashes,
 * odd bytes pass. */
#include "engine/text/detok.h"
#include "tests/text/hf_support.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#define VOCAB "\"vocab\":{\"a\":0,\"b\":1,\"ab\":2},\"merges\":[\"a b\"]"
#define BYTES "\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false}"

#define A1 "{\"SpecialToken\":{\"id\":\"a\"}},"
#define A4 A1 A1 A1 A1
#define LONG "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" /* 52 */

#define MAP(text) "{\"model\":{" VOCAB "},\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":\"" text "\"}}"

static const struct lie {
    const char *claim, *json;
    enum err err;
    const char *says;
} lies[] = {
    {"no JSON", "{\"model\":", ERR_BAD_FILE, "tokenizer.json"},
    {"an array", "[]", ERR_BAD_FILE, "not an object"},
    {"no model", "{}", ERR_UNSUPPORTED, "model"},
    {"unigram of nothing", "{\"model\":{\"type\":\"Unigram\",\"vocab\":[],\"unk_id\":0}}", ERR_BAD_FILE, "unk_id"},
    {"unigram, nothing unknown", "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",-1.0]]}}", ERR_BAD_FILE, "unk_id"},
    {"unigram, unknown id outside", "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",-1.0]],\"unk_id\":1}}", ERR_BAD_FILE, "unk_id"},
    {"unigram, unknown id below", "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\",-1.0]],\"unk_id\":-1}}", ERR_BAD_FILE, "unk_id"},
    {"piece without a score", "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"a\"]],\"unk_id\":0}}", ERR_BAD_FILE, "piece 0"},
    {"score a text", "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"u\",0],[\"a\",\"b\"]],\"unk_id\":0}}", ERR_BAD_FILE, "piece 1"},
    {"piece twice", "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"u\",0],[\"a\",-1],[\"a\",-2]],\"unk_id\":0}}", ERR_BAD_FILE, "piece 2 is there twice"},
    {"unigram over bytes", "{\"model\":{\"type\":\"Unigram\",\"vocab\":[[\"u\",0]],\"unk_id\":0}," BYTES "}", ERR_UNSUPPORTED, "'Unigram' with 'ByteLevel'"},
    {"word pieces without a vocabulary", "{\"model\":{\"type\":\"WordPiece\"}}", ERR_BAD_FILE, "not an object of ids"},
    {"word pieces, nothing unknown", "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0},\"unk_token\":\"[UNK]\"}}", ERR_BAD_FILE, "unk_token"},
    {"words, nothing unknown", "{\"model\":{\"type\":\"WordLevel\",\"vocab\":{\"a\":0}}}", ERR_BAD_FILE, "unk_token"},
    {"word pieces over bytes", "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0},\"unk_token\":\"a\"}," BYTES "}", ERR_UNSUPPORTED,
     "'WordPiece' with 'ByteLevel'"},
    {"a long piece", "{\"model\":{\"type\":\"WordPiece\",\"vocab\":{\"a\":0,\"" LONG LONG LONG LONG LONG "\":1},\"unk_token\":\"a\"}}",
     ERR_BAD_FILE, "piece 1 has 260 bytes"},
    {"another model", "{\"model\":{\"type\":\"Char\"}}", ERR_UNSUPPORTED, "'Char'"},
    {"dropout", "{\"model\":{" VOCAB ",\"dropout\":0.1}}", ERR_UNSUPPORTED, "'dropout'"},
    {"a suffix with bytes for what is lacking", "{\"model\":{" VOCAB ",\"byte_fallback\":true,\"end_of_word_suffix\":\"</w>\"}}",
     ERR_UNSUPPORTED, "byte_fallback"},
    {"another decoder", "{\"model\":{" VOCAB "},\"decoder\":{\"type\":\"CTC\"}}", ERR_UNSUPPORTED, "decoder 'CTC'"},
    {"a decoder of words beside another",
     "{\"model\":{" VOCAB "},\"decoder\":{\"type\":\"Sequence\",\"decoders\":[{\"type\":\"WordPiece\"},{\"type\":\"Metaspace\"}]}}",
     ERR_UNSUPPORTED, "a decoder of 2 steps"},
    {"delimiter of nothing", "{\"model\":{" VOCAB "},\"pre_tokenizer\":{\"type\":\"CharDelimiterSplit\"}}", ERR_BAD_FILE, "'CharDelimiterSplit'"},
    {"pieces of no length", "{\"model\":{" VOCAB "},\"pre_tokenizer\":{\"type\":\"FixedLength\",\"length\":0}}", ERR_UNSUPPORTED, "'FixedLength' of 0"},
    {"vocabulary a list", "{\"model\":{\"type\":\"BPE\",\"vocab\":[],\"merges\":[]}}", ERR_BAD_FILE,
     "not an object of ids"},
    {"no merges", "{\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0}}}", ERR_BAD_FILE, "merges"},
    {"merge a number", "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[7]}," BYTES "}", ERR_BAD_FILE,
     "merge 0"},
    {"merge of one text", "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[\"ab\"]}," BYTES "}",
     ERR_BAD_FILE, "merge 0"},
    {"merge of one in an array", "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[[\"a\"]]}}",
     ERR_BAD_FILE, "merge 0"},
    {"id -1", "{\"model\":{\"vocab\":{\"a\":-1},\"merges\":[]}}", ERR_BAD_FILE, "token id -1"},
    {"id a text", "{\"model\":{\"vocab\":{\"a\":\"1\"},\"merges\":[]}}", ERR_BAD_FILE,
     "token id -1"},
    {"id 2^31", "{\"model\":{\"vocab\":{\"a\":2147483648},\"merges\":[]}}", ERR_BAD_FILE,
     "2147483648"},
    {"id far away", "{\"model\":{\"vocab\":{\"a\":900000},\"merges\":[]}}", ERR_BAD_FILE, "900000"},
    {"added token without text", "{\"model\":{" VOCAB "},\"added_tokens\":[{\"id\":3}]}",
     ERR_BAD_FILE, "no 'content'"},
    {"added token without id", "{\"model\":{" VOCAB "},\"added_tokens\":[{\"content\":\"x\"}]}",
     ERR_BAD_FILE, "token id -1"},
    {"unknown normalizer", "{\"model\":{" VOCAB "},\"normalizer\":{\"type\":\"OddNormalizer\"}}", ERR_UNSUPPORTED, "'OddNormalizer'"},
    {"map that is not base 64", MAP("AA*A"), ERR_BAD_FILE, "'precompiled_charsmap' is not base 64"},
    {"map a number", "{\"model\":{" VOCAB "},\"normalizer\":{\"type\":\"Precompiled\",\"precompiled_charsmap\":7}}", ERR_BAD_FILE, "not base 64"},
    {"map too short", MAP("AAA="), ERR_BAD_FILE, "map of characters"},
    {"map of no trie", MAP("AAAAAA=="), ERR_BAD_FILE, "its trie has 0 bytes"},
    {"map longer than it is", MAP("CAAAAAAAAAA="), ERR_BAD_FILE, "its trie has 8 bytes, 4 are there"},
    {"map that ends in a text", MAP("BAAAAAAAAABh"), ERR_BAD_FILE, "ends within a text"},
    {"replacement without content", "{\"model\":{" VOCAB "},\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"a\"}}}", ERR_BAD_FILE, "'Replace'"},
    {"replacement of no expression", "{\"model\":{" VOCAB "},\"normalizer\":{\"type\":\"Replace\",\"pattern\":{\"Regex\":\"(\"},\"content\":\"\"}}",
     ERR_UNSUPPORTED, "does not compile"},
    {"unknown pre-tokenizer",
     "{\"model\":{" VOCAB "},\"pre_tokenizer\":{\"type\":\"UnicodeScripts\"}}", ERR_UNSUPPORTED,
     "'UnicodeScripts'"},
    {"split without pattern", "{\"model\":{" VOCAB "},\"pre_tokenizer\":{\"type\":\"Split\"}}",
     ERR_BAD_FILE, "pattern"},
    {"split of unknown behavior",
     "{\"model\":{" VOCAB
     "},\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"a\"},\"behavior\":\"Odd\"}}",
     ERR_UNSUPPORTED, "'Odd'"},
    {"a broken expression",
     "{\"model\":{" VOCAB
     "},\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"(a\"}}}",
     ERR_UNSUPPORTED, "compile"},
    {"class within a class",
     "{\"model\":{" VOCAB
     "},\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[a[bc]]\"}}}",
     ERR_UNSUPPORTED, "within another"},
    {"what is no word within a class", "{\"model\":{" VOCAB "},\"pre_tokenizer\":{\"type\":\"Split\",\"pattern\":{\"Regex\":\"[^\\\\W_]\"}}}",
     ERR_UNSUPPORTED, "within another"},
    {"seventeen tokens before a text",
     "{\"model\":{" VOCAB "},\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[" A4 A4 A4 A4 A1 "{\"Sequence\":{}}],"
     "\"special_tokens\":{\"a\":{\"ids\":[0]}}}}",
     ERR_UNSUPPORTED, "more than 16 tokens before"},
    {"post-processor's token without ids",
     "{\"model\":{" VOCAB "},\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[" A1 "{\"Sequence\":{}}],"
     "\"special_tokens\":{\"a\":{\"ids\":[]}}}}",
     ERR_BAD_FILE, "no id of the vocabulary"},
    {"post-processor's id outside",
     "{\"model\":{" VOCAB
     "},\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":"
     "\"a\"}}],\"special_tokens\":{\"a\":{\"ids\":[99]}}}}",
     ERR_BAD_FILE, "no id of the vocabulary"},
    {"another post-processor", "{\"model\":{" VOCAB "},\"post_processor\":{\"type\":\"OddProcessing\"}}", ERR_UNSUPPORTED, "'OddProcessing'"},
    {"BERT's without ids", "{\"model\":{" VOCAB "},\"post_processor\":{\"type\":\"BertProcessing\",\"cls\":[\"a\",0]}}", ERR_BAD_FILE, "'sep' has no id"},
    {"RoBERTa's with an id outside",
     "{\"model\":{" VOCAB "},\"post_processor\":{\"type\":\"RobertaProcessing\",\"cls\":[\"a\",3],\"sep\":[\"a\",0]}}", ERR_BAD_FILE,
     "'cls' has no id"},
};

static void each_lie_is_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(lies); i++) {
        struct eng_tokenizer *t = NULL;
        struct eng_hf_files f = {.where = "D", .tokenizer_json = hf_text(lies[i].json), .bos = -1};
        enum err e = eng_hf_tokenizer_open(&t, &f);
        if (e != lies[i].err || !strstr(err_text(), lies[i].says) || t)
            fail_msg("%s: error %d, \"%s\"", lies[i].claim, e, e ? err_text() : "");
    }
}

static void nothing_at_all_is_said_so(void **state)
{
    (void)state;
    struct eng_tokenizer *t = NULL;
    assert_int_equal(eng_hf_tokenizer_open(&t, &(struct eng_hf_files){.where = "D", .bos = -1}),
                     ERR_BAD_FILE);
    assert_non_null(strstr(err_text(), "none of tokenizer.json"));
    struct eng_hf_files f = {
        .where = "D", .vocab = hf_text("{\"a\":0}"), .model_type = "llama", .bos = -1};
    assert_int_equal(eng_hf_tokenizer_open(&t, &f), ERR_UNSUPPORTED);
    assert_non_null(strstr(err_text(), "Qwen2Tokenizer"));
}

static void added_tokens_without_a_row_are_left_out(void **state)
{
    (void)state;
    size_t n;
    char *file = hf_read_here("tests/text/golden/llama3.json", &n);
    struct eng_tokenizer *t = hf_open((struct eng_hf_files){.tokenizer_json = {file, n}});
    int32_t size = eng_tokenizer_size(t), last = eng_tokenizer_find(t, "<\xC3\xA9>");
    assert_int_equal(last, size - 1);
    eng_tokenizer_close(t);
    t = hf_open((struct eng_hf_files){.tokenizer_json = {file, n}, .n_rows = size - 1});
    assert_int_equal(eng_tokenizer_size(t), size - 1);
    struct eng_tokens ids = {0};
    eng_tokenizer_encode(t, "<\xC3\xA9>", 4, BOTH, &ids);
    for (size_t i = 0; i < ids.n; i++) assert_true(ids.ids[i] < size - 1);
    eng_tokens_free(&ids);
    eng_tokenizer_close(t);
    t = NULL;
    struct eng_hf_files f = {.where = "D", .tokenizer_json = {file, n}, .n_rows = 300, .bos = -1};
    assert_int_equal(eng_hf_tokenizer_open(&t, &f), ERR_BAD_FILE);
    assert_non_null(strstr(err_text(), "300 rows"));
    free(file);
}

/* Every byte of a broken text comes back; the valid part is what it would be alone. */
static void broken_utf8_is_encoded_through_bytes(void **state)
{
    static const char *const names[] = {"llama3", "qwen2", "llama2", "mistral", "falcon", "unigram-bytes", "unigram-map", "bytes-first"};
    static const char broken[] = "ab\xFF\xC3 \xE2\x82 x\xF0\x9F\x98 \x80\xC0\xAF\xED\xA0\x80 end";
    (void)state;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char path[128];
        size_t n;
        struct eng_tokens ids = {0};
        struct buf back = {0};
        snprintf(path, sizeof path, "tests/text/golden/%s.json", names[i]);
        char *file = hf_read_here(path, &n);
        struct eng_tokenizer *t = hf_open((struct eng_hf_files){.tokenizer_json = {file, n}});
        eng_tokenizer_encode(t, broken, sizeof broken - 1, BOTH, &ids);
        eng_tokenizer_decode(t, ids.ids, ids.n, false, &back);
        assert_int_equal(back.len, sizeof broken - 1);
        assert_memory_equal(back.data, broken, back.len);
        for (size_t cut = 0; cut < sizeof broken; cut++) /* ends anywhere */
            eng_tokenizer_encode(t, broken, cut, BOTH, &ids);
        eng_tokens_free(&ids);
        buf_free(&back);
        eng_tokenizer_close(t);
        free(file);
    }
}

static void control_tokens_are_text_unless_asked_for(void **state)
{
    (void)state;
    size_t n;
    char *file = hf_read_here("tests/text/golden/llama3.json", &n);
    struct eng_tokenizer *t = hf_open((struct eng_hf_files){.tokenizer_json = {file, n}});
    struct eng_tokens ids = {0};
    int32_t start = eng_tokenizer_find(t, "<|im_start|>");
    eng_tokenizer_encode(t, "<|im_start|>", 12, TOKENIZE_PARSE_SPECIAL, &ids);
    assert_true(ids.n == 1 && ids.ids[0] == start);
    ids.n = 0;
    eng_tokenizer_encode(t, "<|im_start|>", 12, 0, &ids);
    assert_true(ids.n > 1);
    for (size_t i = 0; i < ids.n; i++) assert_int_not_equal(ids.ids[i], start);
    eng_tokens_free(&ids);
    eng_tokenizer_close(t);
    free(file);
}

/* What a token adds to a text, by each decoder of words; the texts are the package's. */
static const struct decoding {
    const char *decoder;
    struct { int32_t ids[4], n; const char *text; } texts[8];
} decodings[] = {
    {"{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":true}",
     {{{1, 2}, 2, "helloing"}, {{1, 3, 1, 4}, 4, "hello! hellon't"}, {{1, 5, 1}, 3, "hello don't hello"}, {{1, 6, 6, 1}, 4, "hello hello"},
      {{7, 8, 7}, 3, "a</w> b a</w>"}, {{9, 1}, 2, "hello"}, {{3, 3}, 2, "!!"}, {{1, 9, 3}, 3, "hello!"}}},
    {"{\"type\":\"WordPiece\",\"prefix\":\"##\",\"cleanup\":false}",
     {{{1, 2}, 2, "helloing"}, {{1, 3, 1, 4}, 4, "hello ! hello n't"}, {{3, 3}, 2, "! !"}, {{1, 9, 2}, 3, "helloing"}, {{1}, 1, "hello"}}},
    {"{\"type\":\"BPEDecoder\",\"suffix\":\"</w>\"}",
     {{{7, 8, 7}, 3, "a ba"}, {{7, 7}, 2, "a a"}, {{10, 10, 10}, 3, "  "}, {{7, 9}, 2, "a"}, {{9, 7, 9, 8}, 4, "a b"},
      {{1, 2}, 2, "hello##ing"}, {{10}, 1, ""}}},
    {"null", {{{1, 2, 3}, 3, "hello ##ing !"}, {{9, 1, 9, 1}, 4, "hello hello"}, {{7, 10}, 2, "a</w> </w>"}}},
};

static void words_are_put_together_as_the_package_does(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(decodings); i++) {
        struct buf json = {0};
        buf_printf(&json, "{\"model\":{\"type\":\"WordPiece\",\"unk_token\":\"u\",\"vocab\":{\"u\":0,\"hello\":1,\"##ing\":2,\"!\":3,\"n't\":4,\"do "
                   "not\":5,\"##\":6,"
                          "\"a</w>\":7,\"b\":8,\"[SEP]\":9,\"</w>\":10}},\"added_tokens\":[{\"id\":9,\"content\":\"[SEP]\",\"special\":true}],\"decoder\":%s}",
                   decodings[i].decoder);
        struct eng_tokenizer *t = hf_open((struct eng_hf_files){.tokenizer_json = hf_text(buf_str(&json))});
        struct buf shown = {0};
        eng_tokenizer_piece(t, 9, true, &shown);
        assert_string_equal(buf_str(&shown), "[SEP]"); /* a control token brings no space */
        buf_free(&shown);
        for (size_t k = 0; k < COUNT_OF(decodings[i].texts) && decodings[i].texts[k].n; k++) {
            struct buf whole = {0}, pieces = {0};
            struct eng_detok *d = eng_detok_open(t, NULL, 0, false, false);
            eng_tokenizer_decode(t, decodings[i].texts[k].ids, (size_t)decodings[i].texts[k].n, false, &whole);
            eng_detok_drop_first_space(d);
            for (int32_t m = 0; m < decodings[i].texts[k].n; m++) eng_detok_push(d, decodings[i].texts[k].ids[m], &pieces);
            eng_detok_finish(d, &pieces);
            assert_string_equal(buf_str(&whole), decodings[i].texts[k].text);
            assert_string_equal(buf_str(&pieces), decodings[i].texts[k].text);
            eng_detok_close(d);
            buf_free(&whole);
            buf_free(&pieces);
        }
        eng_tokenizer_close(t);
        buf_free(&json);
    }
}

/* A word with bytes that are no UTF-8 is unknown; the words beside it are what they are. */
static void broken_words_are_unknown(void **state)
{
    static const char broken[] = "world \xFF\xC3 world";
    static const char *const names[] = {"bert", "wordpiece", "wordlevel"};
    (void)state;
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        char path[128];
        size_t n;
        struct eng_tokens ids = {0}, alone = {0};
        snprintf(path, sizeof path, "tests/text/golden/%s.json", names[i]);
        char *file = hf_read_here(path, &n);
        struct eng_tokenizer *t = hf_open((struct eng_hf_files){.tokenizer_json = {file, n}});
        int32_t unk = eng_tokenizer_find(t, "[UNK]");
        eng_tokenizer_encode(t, "world", 5, 0, &alone);
        eng_tokenizer_encode(t, broken, sizeof broken - 1, 0, &ids);
        assert_int_equal(ids.n, alone.n * 2 + 1);
        assert_memory_equal(ids.ids, alone.ids, alone.n * sizeof *ids.ids);
        assert_int_equal(ids.ids[alone.n], unk);
        assert_memory_equal(ids.ids + alone.n + 1, alone.ids, alone.n * sizeof *ids.ids);
        eng_tokens_free(&ids);
        eng_tokens_free(&alone);
        eng_tokenizer_close(t);
        free(file);
    }
}

/* Any prefix of any file is refused or opens; nothing else. */
static void truncation_at_every_byte_is_no_crash(void **state)
{
    (void)state;
    size_t n;
    char *file = hf_read_here("tests/text/golden/llama2.json", &n);
    for (size_t cut = 0; cut < n; cut += cut < n - 600 ? 97 : 1) {
        struct eng_tokenizer *t = NULL;
        struct eng_hf_files f = {.where = "D", .tokenizer_json = {file, cut}, .bos = -1};
        if (!eng_hf_tokenizer_open(&t, &f) && cut < n - 1) fail_msg("cut at %zu opens", cut);
        eng_tokenizer_close(t);
    }
    free(file);
}

/* A SentencePiece model of four pieces, by hand. */
static void put_piece(struct buf *b, const char *s, float score, int type)
{
    size_t n = strlen(s);
    buf_u8(b, 1 << 3 | 2), buf_u8(b, (uint8_t)(2 + n + 5 + 2));
    buf_u8(b, 1 << 3 | 2), buf_u8(b, (uint8_t)n), buf_put(b, s, n);
    buf_u8(b, 2 << 3 | 5), buf_f32(b, score);
    buf_u8(b, 3 << 3), buf_u8(b, (uint8_t)type);
}

static void a_sentencepiece_model_survives_truncation_and_damage(void **state)
{
    (void)state;
    struct buf b = {0};
    put_piece(&b, "<unk>", 0, 2), put_piece(&b, "<s>", 0, 3), put_piece(&b, "</s>", 0, 3);
    put_piece(&b,
              "\xE2\x96\x81"
              "a",
              -1, 1),
        put_piece(&b, "a", -2, 1), put_piece(&b, "\xE2\x96\x81", -3, 1);
    static const uint8_t rest[] = {2 << 3 | 2, 2, 3 << 3, 2, 3 << 3 | 2, 2, 4 << 3, 0};
    buf_put(&b, rest, sizeof rest);
    struct eng_tokenizer *t = NULL;
    struct eng_hf_files f = {.where = "D", .model = {buf_str(&b), b.len}, .bos = -1};
    if (eng_hf_tokenizer_open(&t, &f)) fail_msg("%s", err_text());
    struct eng_tokens ids = {0};
    eng_tokenizer_encode(t, "a aa", 4, BOTH, &ids);
    assert_true(ids.n == 4 && ids.ids[0] == 1 && ids.ids[1] == 3 && ids.ids[2] == 3 &&
                ids.ids[3] == 4);
    eng_tokenizer_close(t);
    eng_tokens_free(&ids);
    for (size_t cut = 0; cut < b.len; cut++) {
        t = NULL;
        f.model.n = cut;
        (void)!eng_hf_tokenizer_open(&t, &f);
        eng_tokenizer_close(t);
    }
    for (size_t at = 0; at < b.len; at++)
        for (int v = 0; v < 256; v += 51) {
            uint8_t was = b.data[at];
            t = NULL;
            b.data[at] = (uint8_t)v;
            f.model.n = b.len;
            (void)!eng_hf_tokenizer_open(&t, &f);
            eng_tokenizer_close(t);
            b.data[at] = was;
        }
    buf_free(&b);
}

/* SentencePiece models with a map of characters: cut off anywhere, and with each byte of the map's double array another. */
static void a_map_of_characters_survives_truncation_and_damage(void **state)
{
    static const char text[] = "e\xCC\x81\xEF\xBD\xB6\xEF\xBE\x9E \xE3\x8E\x9E  a\xC2\xA0 b\xE2\x91\xA0<tool>\xFF";
    (void)state;
    size_t n, opened = 0;
    char *file = hf_read_here("tests/text/golden/sp-unigram-map.model", &n);
    for (size_t cut = 0; cut < n; cut += 61) {
        struct eng_tokenizer *t = NULL;
        (void)!eng_hf_tokenizer_open(&t, &(struct eng_hf_files){.where = "D", .model = {file, cut}, .bos = -1});
        eng_tokenizer_close(t);
    }
    for (size_t at = 0; at < n; at += 5) {
        struct eng_tokenizer *t = NULL;
        struct eng_tokens ids = {0};
        char was = file[at];
        file[at] = (char)(was ^ (char)(1 << at % 8));
        if (!eng_hf_tokenizer_open(&t, &(struct eng_hf_files){.where = "D", .model = {file, n}, .bos = -1})) {
            eng_tokenizer_encode(t, text, sizeof text - 1, BOTH, &ids);
            for (size_t i = 0; i < ids.n; i++) assert_in_range(ids.ids[i], 0, eng_tokenizer_size(t) - 1);
            opened++;
        }
        eng_tokens_free(&ids);
        eng_tokenizer_close(t);
        file[at] = was;
    }
    assert_true(opened > n / 10);
    free(file);
}

/* Settings of tokenizer.model that change what a text becomes and are not known here. */
static void sentencepiece_of_other_kinds_is_refused_by_name(void **state)
{
    static const struct { uint8_t rest[8]; size_t n; const char *says; } kinds[] = {
        {{2 << 3 | 2, 2, 3 << 3, 3}, 4, "of type word or char"},
        {{2 << 3 | 2, 3, (24 << 3 & 0x7F) | 0x80, 24 << 3 >> 7, 1}, 5, "treat_whitespace_as_suffix"},
        {{3 << 3 | 2, 2, 5 << 3, 0}, 4, "escape_whitespaces"},
    };
    (void)state;
    for (size_t i = 0; i < COUNT_OF(kinds); i++) {
        struct buf b = {0};
        struct eng_tokenizer *t = NULL;
        put_piece(&b, "<unk>", 0, 2), put_piece(&b, "a", -2, 1);
        buf_put(&b, kinds[i].rest, kinds[i].n);
        assert_int_equal(eng_hf_tokenizer_open(&t, &(struct eng_hf_files){.where = "D", .model = {buf_str(&b), b.len}, .bos = -1}), ERR_UNSUPPORTED);
        assert_non_null(strstr(err_text(), kinds[i].says));
        buf_free(&b);
    }
}

static void chat_templates_are_found_in_their_three_places(void **state)
{
    static const char *const configs[] = {
        "{\"chat_template\":\"one\"}",
        ("{\"chat_template\":[{\"name\":\"tool_use\",\"template\":\"two\"},{\"name\":\"default\","
         "\"template\":\"one\"}]}"),
        "{\"chat_template\":[{\"name\":\"x\",\"template\":\"one\"}]}",
    };
    char *s;
    (void)state;
    for (size_t i = 0; i < COUNT_OF(configs); i++) {
        struct eng_hf_files f = {.where = "D", .tokenizer_config = hf_text(configs[i])};
        assert_int_equal(eng_hf_template(&s, &f), OK);
        assert_string_equal(s, "one");
        free(s);
        f.chat_template = hf_text("jinja");
        assert_int_equal(eng_hf_template(&s, &f), OK);
        assert_string_equal(s, "jinja");
        free(s);
    }
    assert_int_equal(eng_hf_template(&s, &(struct eng_hf_files){.where = "D"}), OK);
    assert_null(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_lie_is_refused_by_name),
        cmocka_unit_test(nothing_at_all_is_said_so),
        cmocka_unit_test(added_tokens_without_a_row_are_left_out),
        cmocka_unit_test(broken_utf8_is_encoded_through_bytes),
        cmocka_unit_test(words_are_put_together_as_the_package_does),
        cmocka_unit_test(broken_words_are_unknown),
        cmocka_unit_test(control_tokens_are_text_unless_asked_for),
        cmocka_unit_test(truncation_at_every_byte_is_no_crash),
        cmocka_unit_test(a_sentencepiece_model_survives_truncation_and_damage),
        cmocka_unit_test(a_map_of_characters_survives_truncation_and_damage),
        cmocka_unit_test(sentencepiece_of_other_kinds_is_refused_by_name),
        cmocka_unit_test(chat_templates_are_found_in_their_three_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
