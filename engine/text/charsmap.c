/* charsmap.c: see charsmap.h. A unit of the double array: bits 0-7 the byte that leads to it, bit 31 set in a value, bit 8 whether a key ends
 * here, bits 10-30 the offset of its children (bit 9: in 256s). A file is not trusted: each step is checked against the array. */
#include "engine/text/charsmap.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_KEY = 256, MOST_TEXT = 256 };

static uint32_t offset_of(uint32_t unit) { return unit >> 10 << ((unit & 1u << 9) >> 6); }

static enum err check_texts(const struct charsmap *m)
{
    if (m->n_text && m->text[m->n_text - 1]) return err_raise(ERR_BAD_FILE, "the map of characters ends within a text");
    for (size_t at = 0, n; at < m->n_text; at += n + 1) {
        n = strlen(m->text + at);
        if (n > MOST_TEXT) return err_raise(ERR_BAD_FILE, "the map of characters has a text of %zu bytes, at most %d are accepted", n, MOST_TEXT);
    }
    return OK;
}

enum err charsmap_open(struct charsmap *m, struct text_span blob)
{
    enum err rc = OK;
    *m = (struct charsmap){0};
    if (!blob.n) return OK;
    struct rd r = rd_of(blob.p, blob.n);
    size_t bytes = rd_u32(&r);
    if (r.bad || !bytes || bytes % 4 || bytes > rd_left(&r))
        TRY(err_raise(ERR_BAD_FILE, "the map of characters says that its trie has %zu bytes, %zu are there", bytes, r.bad ? 0 : rd_left(&r)));
    m->n_units = bytes / 4;
    m->unit = xmalloc(bytes);
    for (size_t i = 0; i < m->n_units; i++) m->unit[i] = rd_u32(&r);
    m->n_text = rd_left(&r);
    m->text = xmalloc(m->n_text + 1);
    memcpy(m->text, rd_bytes(&r, m->n_text), m->n_text);
    m->text[m->n_text] = 0;
    TRY(check_texts(m));
out:
    if (rc) charsmap_close(m);
    return rc;
}

void charsmap_close(struct charsmap *m)
{
    free(m->unit);
    free(m->text);
    *m = (struct charsmap){0};
}

bool charsmap_find(const struct charsmap *m, const char *p, size_t n, bool longest, size_t *len, struct text_span *to)
{
    bool found = false;
    if (!m->n_units) return false;
    size_t at = offset_of(m->unit[0]);
    for (size_t i = 0; i < MIN(n, MOST_KEY); i++) {
        at ^= (uint8_t)p[i];
        if (at >= m->n_units || (m->unit[at] & (1u << 31 | 0xFF)) != (uint8_t)p[i]) break;
        uint32_t unit = m->unit[at];
        at ^= offset_of(unit);
        if (!(unit >> 8 & 1)) continue;
        size_t value = at < m->n_units ? m->unit[at] & ~(1u << 31) : m->n_text;
        if (value >= m->n_text) break;
        found = true;
        *len = i + 1;
        *to = (struct text_span){m->text + value, strlen(m->text + value)};
        if (!longest) break;
    }
    return found;
}
