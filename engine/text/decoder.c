/* decoder.c: see decoder.h. */
#include "engine/text/decoder.h"

#include "engine/text/bpe.h"
#include "engine/text/normalize.h"
#include "engine/text/utf8.h"

#include <string.h>

void decoder_open(struct decoder *d, const struct eng_text_rules *rules)
{
    *d = (struct decoder){.how = rules->decoder, .tidies = rules->decoder_tidies};
    buf_put(&d->mark, rules->decoder_mark.p, rules->decoder_mark.n);
}

void decoder_close(struct decoder *d)
{
    buf_free(&d->mark);
    *d = (struct decoder){0};
}

/* As the package's WordPiece decoder tidies a token with the space before it. */
static void tidy(struct buf *text)
{
    static const char *const pairs[][2] = {{" .", "."},     {" ?", "?"},   {" !", "!"},             {" ,", ","},     {" ' ", "'"},   {" n't", "n't"},
                                           {" 'm", "'m"}, {" do not", " don't"}, {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
    struct buf to = {0};
    for (size_t i = 0; i < COUNT_OF(pairs); i++) {
        buf_clear(&to);
        normalizer_replace((const char *)text->data, text->len, (struct text_span){pairs[i][0], strlen(pairs[i][0])},
                           (struct text_span){pairs[i][1], strlen(pairs[i][1])}, &to);
        struct buf swap = *text;
        *text = to, to = swap;
    }
    buf_free(&to);
}

static void put_word(const struct decoder *d, struct text_span s, struct buf *out)
{
    struct buf text = {0};
    bool inner = s.n >= d->mark.len && !memcmp(s.p, d->mark.data, d->mark.len);
    if (inner) s.p += d->mark.len, s.n -= d->mark.len;
    else buf_putc(&text, ' ');
    buf_put(&text, s.p, s.n);
    if (d->tidies) tidy(&text);
    buf_put(out, text.data, text.len);
    buf_free(&text);
}

void decoder_put(const struct decoder *d, struct text_span s, struct buf *out)
{
    struct text_span mark = {(const char *)d->mark.data, d->mark.len};
    if (d->how == DECODE_SUFFIX) {
        normalizer_replace(s.p, s.n, mark, (struct text_span){" ", 1}, out);
    } else if (d->how == DECODE_WORDS) {
        put_word(d, s, out);
    } else {
        buf_putc(out, ' ');
        buf_put(out, s.p, s.n);
    }
}

void decoder_put_added(const struct decoder *d, struct text_span s, struct buf *out)
{
    struct buf bytes = {0};
    if (d->how == DECODE_BYTES) bpe_decode_text(s, &bytes);
    bool text = bytes.len;
    for (size_t i = 0, len; text && i < bytes.len; i += len) text = utf8_step(bytes.data + i, bytes.len - i, &len) == UTF8_OK;
    if (text) buf_put(out, bytes.data, bytes.len);
    else buf_put(out, s.p, s.n);
    buf_free(&bytes);
}

bool decoder_spaces_before(const struct decoder *d) { return d->how == DECODE_WORDS || d->how == DECODE_JOINED; }

bool decoder_space_behind(const struct decoder *d, struct text_span s)
{
    size_t n = d->mark.len;
    return d->how == DECODE_SUFFIX && n && s.n >= n && !memcmp(s.p + s.n - n, d->mark.data, n);
}
