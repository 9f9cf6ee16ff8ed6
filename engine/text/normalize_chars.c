/* normalize_chars.c: see normalize_chars.h. As Hugging Face's tokenizers do it: BertNormalizer is the first three, decomposition between
 * them, and lower case; StripAccents, Lowercase and Nmt are steps of their own. */
#include "engine/text/normalize_chars.h"

#include "engine/text/bpe.h"
#include "engine/text/char_sets.h"
#include "engine/text/utf8.h"

#include <utf8proc.h>

static void put_cp(uint32_t c, struct buf *out)
{
    uint8_t u[4];
    buf_put(out, u, utf8_put(u, c));
}

static bool is_line_space(uint32_t c) { return c == '\t' || c == '\n' || c == '\r'; }

static void put_clean(uint32_t c, struct buf *out)
{
    if (!is_line_space(c) && char_set_has(CHARS_CONTROL, c)) return;
    put_cp(char_set_has(CHARS_SPACE, c) ? ' ' : c, out);
}

/* CJK ideographs, as the package lists them. */
static bool is_han(uint32_t c)
{
    return (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x20000 && c <= 0x2A6DF) ||
           (c >= 0x2A700 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

static void put_apart(uint32_t c, struct buf *out)
{
    bool han = is_han(c);
    if (han) buf_putc(out, ' ');
    put_cp(c, out);
    if (han) buf_putc(out, ' ');
}

/* One character has two in lower case. */
static void put_lower(uint32_t c, struct buf *out)
{
    if (c == 0x130) buf_puts(out, "i\xCC\x87");
    else put_cp((uint32_t)utf8proc_tolower((utf8proc_int32_t)c), out);
}

static void put_nmt(uint32_t c, struct buf *out)
{
    bool gone = (c >= 1 && c <= 8) || c == 0xB || (c >= 0xE && c <= 0x1F) || c == 0x7F || c == 0x8F || c == 0x9F;
    bool space = is_line_space(c) || c == 0xC || c == 0x1680 || (c >= 0x200B && c <= 0x200F) || c == 0x2028 || c == 0x2029 || c == 0x2581 ||
                 c == 0xFEFF || c == 0xFFFD;
    if (!gone) put_cp(space ? ' ' : c, out);
}

static void put_char(enum text_step_kind kind, uint32_t c, struct buf *out)
{
    if (kind == TEXT_CLEAN) put_clean(c, out);
    else if (kind == TEXT_HAN_APART) put_apart(c, out);
    else if (kind == TEXT_LOWER) put_lower(c, out);
    else if (kind == TEXT_NMT) put_nmt(c, out);
    else if (!char_set_has(kind == TEXT_STRIP_MARKS ? CHARS_MARK : CHARS_NONSPACING, c)) put_cp(c, out);
}

void normalize_chars(enum text_step_kind kind, const char *p, size_t n, struct buf *out)
{
    for (size_t i = 0, len; i < n; i += len) {
        (void)utf8_step((const uint8_t *)p + i, n - i, &len);
        put_char(kind, utf8_cp((const uint8_t *)p + i, len), out);
    }
}

void normalize_bytes(const char *p, size_t n, struct buf *out)
{
    for (size_t i = 0; i < n; i++) put_cp(bpe_char_of_byte((uint8_t)p[i]), out);
}
