/* hf_vocab.c: tokens by id, merges and added tokens of a checkpoint's files. */
#include "engine/text/hf_build.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_TOKENS = 1 << 22, HOLES = 1 << 16 };

static struct text_span span_of(const json_t *s)
{
    return (struct text_span){json_string_value(s), json_string_length(s)};
}

enum err hf_vocab_room(struct hf_build *b, size_t n, const char *what)
{
    if (n > MOST_TOKENS || b->room + (int64_t)n > MOST_TOKENS)
        return err_raise(ERR_BAD_FILE, "%s/%s: %zu tokens, at most %d are accepted",
                         b->files->where, what, n, MOST_TOKENS);
    b->room += (int32_t)n + (b->room ? 0 : HOLES);
    return OK;
}

enum err hf_vocab_put(struct hf_build *b, int64_t id, struct text_span s, enum token_type type,
                      const char *what)
{
    if (id < 0 || id >= b->room)
        return err_raise(ERR_BAD_FILE, "%s/%s: token id %" PRId64 ", ids here go from 0 to %d",
                         b->files->where, what, id, b->room - 1);
    if (id >= b->cap) {
        int32_t cap = MAX((int32_t)id + 1, MAX(1024, 2 * b->cap));
        b->tokens = xrealloc(b->tokens, (size_t)cap * sizeof *b->tokens);
        b->types = xrealloc(b->types, (size_t)cap * sizeof *b->types);
        b->scores = xrealloc(b->scores, (size_t)cap * sizeof *b->scores);
        for (int32_t i = b->cap; i < cap; i++) { /* a hole is a token that nothing becomes */
            b->tokens[i] = (struct text_span){"", 0};
            b->types[i] = TOKEN_UNUSED;
            b->scores[i] = 0;
        }
        b->cap = cap;
    }
    b->tokens[id] = s;
    b->types[id] = (int32_t)type;
    b->n = MAX(b->n, (int32_t)id + 1);
    return OK;
}

int32_t hf_vocab_id(const struct hf_build *b, const char *text)
{
    size_t n = strlen(text);
    for (int32_t i = 0; i < b->n; i++)
        if (b->tokens[i].n == n && n && !memcmp(b->tokens[i].p, text, n)) return i;
    return -1;
}

static bool is_byte(const char *s, size_t n)
{
    return n == 6 && !memcmp(s, "<0x", 3) && s[5] == '>' && strchr("0123456789ABCDEF", s[3]) &&
           strchr("0123456789ABCDEF", s[4]);
}

enum err hf_vocab_json(struct hf_build *b, const json_t *vocab, const char *what)
{
    enum err rc;
    const char *text;
    json_t *id;
    if (!json_is_object(vocab))
        return err_raise(ERR_BAD_FILE, "%s/%s: the vocabulary is not an object of ids",
                         b->files->where, what);
    TRY(hf_vocab_room(b, json_object_size(vocab), what));
    json_object_foreach((json_t *)(uintptr_t)vocab, text, id)
    {
        size_t n = strlen(text);
        bool byte = b->rules.byte_fallback && is_byte(text, n);
        int64_t i = json_is_integer(id) ? json_integer_value(id) : -1;
        TRY(hf_vocab_put(b, i, (struct text_span){text, n}, byte ? TOKEN_BYTE : TOKEN_NORMAL,
                         what));
    }
out:
    return rc;
}

enum err hf_vocab_unigram(struct hf_build *b, const json_t *model)
{
    enum err rc;
    const json_t *vocab = json_object_get(model, "vocab"), *unk = json_object_get(model, "unk_id");
    size_t i, n = json_array_size(vocab);
    json_t *e;
    if (!json_is_integer(unk) || json_integer_value(unk) < 0 || (uint64_t)json_integer_value(unk) >= n)
        return err_raise(ERR_BAD_FILE, "%s/tokenizer.json: unk_id is no id of the %zu pieces of the Unigram model", b->files->where, n);
    TRY(hf_vocab_room(b, n, "tokenizer.json"));
    double *scores = arena_alloc(&b->a, n * sizeof *scores);
    json_array_foreach(vocab, i, e)
    {
        const json_t *text = json_array_get(e, 0), *score = json_array_get(e, 1);
        if (!json_is_string(text) || !json_is_number(score))
            return err_raise(ERR_BAD_FILE, "%s/tokenizer.json: piece %zu is not a text and a number", b->files->where, i);
        struct text_span s = span_of(text);
        bool byte = b->rules.byte_fallback && is_byte(s.p, s.n);
        enum token_type type = (json_int_t)i == json_integer_value(unk) ? TOKEN_UNKNOWN : byte ? TOKEN_BYTE : TOKEN_NORMAL;
        TRY(hf_vocab_put(b, (int64_t)i, s, type, "tokenizer.json"));
        scores[i] = json_number_value(score);
    }
    b->src.log_probs = scores;
    b->src.n_log_probs = (int32_t)n;
    b->src.unk = (int32_t)json_integer_value(unk);
out:
    return rc;
}

enum err hf_merges_json(struct hf_build *b, const json_t *merges)
{
    size_t n = json_array_size(merges);
    bool pairs = n && json_is_array(json_array_get(merges, 0));
    struct text_span *left = arena_alloc(&b->a, (n + 1) * sizeof *left);
    struct text_span *right = pairs ? arena_alloc(&b->a, (n + 1) * sizeof *right) : NULL;
    if (!json_is_array(merges))
        return err_raise(ERR_BAD_FILE, "%s/tokenizer.json: no array 'merges'", b->files->where);
    for (size_t i = 0; i < n; i++) {
        const json_t *m = json_array_get(merges, i), *l = pairs ? json_array_get(m, 0) : m,
                     *r = json_array_get(m, 1);
        if (!json_is_string(l) || (pairs && !json_is_string(r)))
            return err_raise(ERR_BAD_FILE, "%s/tokenizer.json: merge %zu is not two texts",
                             b->files->where, i);
        left[i] = span_of(l);
        if (pairs) right[i] = span_of(r);
    }
    b->src.merges = left;
    b->src.merge_rights = right;
    b->src.n_merges = (int64_t)n;
    return OK;
}

void hf_merges_text(struct hf_build *b, struct text_span text)
{
    size_t n = 0;
    for (size_t i = 0; i < text.n; i++) n += text.p[i] == '\n';
    struct text_span *m = arena_alloc(&b->a, (n + 2) * sizeof *m);
    n = 0;
    for (const char *p = text.p, *end = p + text.n, *eol; p < end; p = eol + 1) {
        eol = memchr(p, '\n', (size_t)(end - p));
        if (!eol) eol = end;
        size_t len = (size_t)(eol - p);
        if (len && p[len - 1] == '\r') len--;
        if (!len || (p == text.p && len > 8 && !memcmp(p, "#version", 8))) continue;
        m[n++] = (struct text_span){p, len};
    }
    b->src.merges = m;
    b->src.n_merges = (int64_t)n;
}

enum err hf_vocab_added(struct hf_build *b, int64_t id, const json_t *token, const char *what)
{
    const json_t *content = json_object_get(token, "content");
    if (!json_is_string(content))
        return err_raise(ERR_BAD_FILE, "%s/%s: added token %" PRId64 " has no 'content'",
                         b->files->where, what, id);
    bool special = json_is_true(json_object_get(token, "special"));
    const json_t *normalized = json_object_get(token, "normalized");
    bool foreign = id >= b->n || (id >= 0 && b->types[id] == TOKEN_UNUSED);
    enum err rc = hf_vocab_put(b, id, span_of(content), special ? TOKEN_CONTROL : TOKEN_USER, what);
    if (rc) return rc;
    b->added = xrealloc(b->added, (size_t)(b->rules.n_added + 1) * sizeof *b->added);
    b->added[b->rules.n_added++] = (struct text_added){
        .id = (int32_t)id,
        .lstrip = json_is_true(json_object_get(token, "lstrip")),
        .rstrip = json_is_true(json_object_get(token, "rstrip")),
        .single_word = json_is_true(json_object_get(token, "single_word")),
        .normalized = normalized ? json_is_true(normalized) : !special,
        .foreign = foreign,
    };
    return OK;
}

enum err hf_vocab_limit(struct hf_build *b, int64_t n_rows)
{
    int32_t kept = 0;
    if (!n_rows || b->n <= n_rows) return OK;
    for (int64_t i = n_rows; i < b->n; i++)
        if (b->types[i] == TOKEN_NORMAL || b->types[i] == TOKEN_BYTE)
            return err_raise(ERR_BAD_FILE,
                             "%s: the vocabulary has token %" PRId64 ", the embedding only %" PRId64
                             " rows",
                             b->files->where, i, n_rows);
    for (int32_t i = 0; i < b->rules.n_added; i++)
        if (b->added[i].id < n_rows) b->added[kept++] = b->added[i];
    b->rules.n_added = kept;
    b->n = (int32_t)n_rows;
    return OK;
}
