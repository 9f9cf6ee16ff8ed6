/* bpe_symbols.c: a word as the symbols that merging begins with: its bytes, or its characters, as the vocabulary writes them. */
#include "engine/text/bpe.h"
#include "engine/text/normalize_chars.h"
#include "engine/text/utf8.h"

#include <stdlib.h>

/* ---- GPT-2's table: printable Latin-1 bytes stand for themselves, the others follow from U+0100 on ---- */

static bool is_printable(uint32_t b)
{
    return (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xFF && b != 0xAD);
}

uint32_t bpe_char_of_byte(uint8_t b)
{
    if (is_printable(b)) return b;
    return 0x100 + (b < 0x21 ? (uint32_t)b : b < 0xAD ? b - 0x7Fu + 0x21 : 67);
}

static int32_t byte_of_char(uint32_t c)
{
    if (c < 0x100) return is_printable(c) ? (int32_t)c : -1;
    c -= 0x100;
    return c < 0x21 ? (int32_t)c : c < 67 ? (int32_t)(c - 0x21 + 0x7F) : c == 67 ? 0xAD : -1;
}

void bpe_decode_text(struct text_span s, struct buf *out)
{
    const uint8_t *p = (const uint8_t *)s.p;
    for (size_t i = 0, len; i < s.n; i += len) {
        int32_t byte = utf8_step(p + i, s.n - i, &len) == UTF8_OK ? byte_of_char(utf8_cp(p + i, len)) : -1;
        if (byte >= 0)
            buf_u8(out, (uint8_t)byte);
        else
            buf_put(out, p + i, len); /* not of the table: an added token's own text */
    }
}

/* ---- symbols ---- */

static int32_t put_symbol(struct bpe_work *w, int32_t m, int32_t id)
{
    w->sym[m] = (struct bpe_sym){id, m - 1, m + 1};
    return m + 1;
}

/* The character p[at] of len bytes in the word p[n], with the marks that the vocabulary gives it there. */
static struct text_span spell(const struct bpe *b, struct bpe_work *w, const char *p, size_t n, size_t at, size_t len)
{
    bool inner = at && b->inner.len, final = at + len == n && b->final.len;
    if (!inner && !final) return (struct text_span){p + at, len};
    buf_clear(&w->word);
    if (inner) buf_put(&w->word, b->inner.data, b->inner.len);
    buf_put(&w->word, p + at, len);
    if (final) buf_put(&w->word, b->final.data, b->final.len);
    return (struct text_span){(const char *)w->word.data, w->word.len};
}

/* Characters into symbols; those the vocabulary lacks become their bytes' tokens if it has them
 * all, else the unknown token, or are left out. */
static int32_t char_symbols(const struct bpe *b, struct bpe_work *w, const char *p, size_t n)
{
    int32_t m = 0;
    bool unknown = false; /* the last symbol is an unknown token */
    for (size_t i = 0, len; i < n; i += len) {
        bool bad = utf8_step((const uint8_t *)p + i, n - i, &len) != UTF8_OK;
        struct text_span s = spell(b, w, p, n, i, len);
        int32_t id = bad ? -1 : vocab_find_plain(b->v, s.p, s.n);
        bool bytes = id < 0 && b->byte_fallback;
        for (size_t k = 0; k < len && bytes; k++) bytes = b->byte_id[(uint8_t)p[i + k]] >= 0;
        for (size_t k = 0; k < len && bytes; k++)
            m = put_symbol(w, m, b->byte_id[(uint8_t)p[i + k]]);
        bool unk = id < 0 && !bytes;
        if (id >= 0)
            m = put_symbol(w, m, id);
        else if (unk && b->v->unk >= 0 && !(unknown && b->fuse_unk))
            m = put_symbol(w, m, b->v->unk);
        unknown = unk;
    }
    return m;
}

/* Byte-level vocabularies with marks: the bytes' characters are what carries them. */
static int32_t spelt_symbols(const struct bpe *b, struct bpe_work *w, const char *p, size_t n)
{
    buf_clear(&w->spelt);
    normalize_bytes(p, n, &w->spelt);
    return char_symbols(b, w, (const char *)w->spelt.data, w->spelt.len);
}

/* Bytes into symbols; the vocabulary's missing bytes become the unknown token, or are left out. */
static int32_t byte_symbols(const struct bpe *b, struct bpe_work *w, const char *p, size_t n)
{
    int32_t unk = b->v->unk >= 0 && b->v->type[b->v->unk] == TOKEN_UNKNOWN ? b->v->unk : -1, m = 0;
    for (size_t i = 0; i < n; i++) {
        int32_t id = b->byte_id[(uint8_t)p[i]];
        if (id < 0) id = unk;
        if (id < 0) continue;
        m = put_symbol(w, m, id);
    }
    return m;
}

int32_t bpe_symbols(const struct bpe *b, struct bpe_work *w, const char *p, size_t n)
{
    if (w->cap < n) {
        w->cap = MAX(n, w->cap * 2);
        w->sym = xrealloc(w->sym, sizeof *w->sym * w->cap);
    }
    int32_t m = b->chars ? char_symbols(b, w, p, n) : b->spelt ? spelt_symbols(b, w, p, n) : byte_symbols(b, w, p, n);
    if (m) w->sym[m - 1].next = -1;
    return m;
}
