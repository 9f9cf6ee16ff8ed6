/* tokenizer.c: special tokens cut out, the rest handed to the kind of tokenizer the model has. */
#include "engine/text/tokenizer.h"
#include "engine/text/bpe.h"
#include "engine/text/decoder.h"
#include "engine/text/pipeline.h"
#include "engine/text/pretoken.h"
#include "engine/text/spm.h"
#include "engine/text/unigram.h"
#include "engine/text/vocab.h"
#include "engine/text/wordpiece.h"

#include <stdlib.h>
#include <string.h>

struct eng_tokenizer {
    struct vocab v;
    bool is_spm;                  /* SentencePiece's merges by score */
    bool is_unigram, is_words;    /* is_words: WordPiece, WordLevel */
    bool spaced;                  /* texts write a space as U+2581 */
    bool space_prefix;
    struct eng_tokens head, tail; /* what ADD_SPECIAL puts around a text, if the model says so */
    struct bpe bpe;
    struct pretoken *pre;
    struct pipeline *pipe;        /* instead of pre: a Hugging Face tokenizer's rules */
    struct spm spm;
    struct unigram unigram;
    struct wordpiece words;
    struct decoder decoder;
    char *kind;
};

/* What one call of encode carries. */
struct job {
    const struct eng_tokenizer *t;
    struct eng_tokens *out;
    struct bpe_work bpe;
    struct unigram_work unigram;
    struct pieces pieces, tmp;
};

static enum err open_bpe(struct eng_tokenizer *t, const struct eng_vocab_src *src)
{
    enum err rc = OK;
    const struct pretoken_rule *rule = pretoken_rule_find(src->pre);
    if (!rule) {
        struct buf names = {0};
        pretoken_rule_names(&names);
        rc = err_raise(ERR_UNSUPPORTED,
                       "the tokenizer's pre-tokenizer \"%.60s\" is not known; known are: %s",
                       src->pre, buf_str(&names));
        buf_free(&names);
        return rc;
    }
    TRY(vocab_open(&t->v, src, false));
    TRY(bpe_open(&t->bpe, &t->v, src, rule->whole_words));
    TRY(pretoken_open(&t->pre, rule));
    t->kind = xasprintf("byte-level BPE (%s)", rule->name);
out:
    return rc;
}

static enum err open_spm(struct eng_tokenizer *t, const struct eng_vocab_src *src)
{
    enum err rc = OK;
    TRY(vocab_open(&t->v, src, true));
    spm_open(&t->spm, &t->v);
    t->is_spm = t->spaced = true;
    t->space_prefix = src->add_space_prefix;
    t->kind = xstrdup("SentencePiece");
out:
    return rc;
}

static enum err open_model(struct eng_tokenizer *t, const struct eng_vocab_src *src)
{
    if (t->is_unigram) return unigram_open(&t->unigram, &t->v, src);
    if (t->is_words) return wordpiece_open(&t->words, &t->v, src);
    if (t->is_spm) spm_open(&t->spm, &t->v);
    return t->is_spm ? OK : bpe_open(&t->bpe, &t->v, src, src->rules->ignore_merges);
}

static const char *kind_of_rules(const struct eng_tokenizer *t, const struct eng_vocab_src *src)
{
    if (t->is_unigram) return src->rules->sentencepiece ? "Unigram (SentencePiece)" : "Unigram (Hugging Face)";
    if (t->is_words) return t->words.whole ? "WordLevel (Hugging Face)" : "WordPiece (Hugging Face)";
    return t->is_spm ? "SentencePiece" : t->spaced ? "BPE (Hugging Face)" : "byte-level BPE (Hugging Face)";
}

/* A Hugging Face tokenizer, or SentencePiece's with a map of characters: "gpt2", "bpe", "llama", "unigram", "wordpiece" or "wordlevel" with rules. */
static enum err open_rules(struct eng_tokenizer *t, const struct eng_vocab_src *src)
{
    enum err rc = OK;
    t->is_spm = !strcmp(src->model, "llama");
    t->is_words = !strcmp(src->model, "wordpiece") || !strcmp(src->model, "wordlevel");
    bool unigram = !strcmp(src->model, "unigram");
    t->spaced = unigram || t->is_spm || !strcmp(src->model, "bpe");
    t->space_prefix = src->add_space_prefix;
    TRY(vocab_open(&t->v, src, t->spaced));
    t->is_unigram = unigram;
    TRY(open_model(t, src));
    TRY(pipeline_open(&t->pipe, src->rules, &t->v));
    decoder_open(&t->decoder, src->rules);
    t->kind = xstrdup(kind_of_rules(t, src));
out:
    return rc;
}

enum err eng_tokenizer_open(struct eng_tokenizer **out, const struct eng_vocab_src *src)
{
    enum err rc = OK;
    struct eng_tokenizer *t = xcalloc(1, sizeof *t);
    if (src->rules) TRY(open_rules(t, src));
    else if (src->model && !strcmp(src->model, "gpt2"))
        TRY(open_bpe(t, src));
    else if (src->model && !strcmp(src->model, "llama"))
        TRY(open_spm(t, src));
    else
        TRY(err_raise(
            ERR_UNSUPPORTED,
            "the tokenizer model \"%.60s\" is not known; known are: gpt2 (byte-level BPE), "
            "llama (SentencePiece)",
            src->model ? src->model : "(none)"));
    if (src->add_bos && src->bos >= 0) {
        eng_tokens_push(&t->head, src->bos);
        for (int32_t i = 0; i < src->n_behind_bos; i++) eng_tokens_push(&t->head, src->behind_bos[i]);
    }
    if (src->add_eos && src->eos >= 0) {
        for (int32_t i = 0; i < src->n_before_eos; i++) eng_tokens_push(&t->tail, src->before_eos[i]);
        eng_tokens_push(&t->tail, src->eos);
    }
    *out = t;
    t = NULL;
out:
    eng_tokenizer_close(t);
    return rc;
}

void eng_tokenizer_close(struct eng_tokenizer *t)
{
    if (!t) return;
    unigram_close(&t->unigram);
    wordpiece_close(&t->words);
    decoder_close(&t->decoder);
    bpe_close(&t->bpe);
    pretoken_close(t->pre);
    pipeline_close(t->pipe);
    vocab_close(&t->v);
    eng_tokens_free(&t->head);
    eng_tokens_free(&t->tail);
    free(t->kind);
    free(t);
}

void eng_tokens_free(struct eng_tokens *t)
{
    if (!t) return;
    free(t->ids);
    *t = (struct eng_tokens){0};
}

void eng_tokens_push(struct eng_tokens *t, int32_t id)
{
    if (t->n == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 64;
        t->ids = xrealloc(t->ids, sizeof *t->ids * t->cap);
    }
    t->ids[t->n++] = id;
}

static void encode_bounded(struct job *j, const char *p, size_t n, bool prefix)
{
    if (j->t->is_spm) {
        spm_encode(&j->t->spm, p, n, prefix && j->t->space_prefix, j->out);
        return;
    }
    pretoken_split(j->t->pre, p, n, &j->pieces, &j->tmp);
    for (size_t i = 0; i < j->pieces.n; i++)
        bpe_encode_word(&j->t->bpe, &j->bpe, j->pieces.at[i].p, j->pieces.at[i].n, j->out);
}

/* Symbols are counted in 32 bits: a text of more than 256 MiB is cut (between characters). */
static void encode_text(struct job *j, const char *p, size_t n, bool prefix)
{
    const size_t most = (size_t)1 << 28;
    while (n > most) {
        size_t cut = most;
        while (cut > most - 4 && ((uint8_t)p[cut] & 0xC0) == 0x80) cut--;
        encode_bounded(j, p, cut, prefix);
        p += cut, n -= cut, prefix = false;
    }
    if (n) encode_bounded(j, p, n, prefix);
}

static void put_token(void *ctx, int32_t id) { eng_tokens_push(((struct job *)ctx)->out, id); }

static void put_word(void *ctx, const char *p, size_t n)
{
    struct job *j = ctx;
    if (j->t->is_unigram) unigram_encode_word(&j->t->unigram, &j->unigram, p, n, j->out);
    else if (j->t->is_words) wordpiece_encode_word(&j->t->words, p, n, j->out);
    else if (j->t->is_spm) spm_encode(&j->t->spm, p, n, false, j->out);
    else bpe_encode_word(&j->t->bpe, &j->bpe, p, n, j->out);
}

/* Cut below 256 MiB, as in encode_text. */
static void encode_rules(struct job *j, const char *p, size_t n, bool control)
{
    const size_t most = (size_t)1 << 28;
    struct pipeline_sink sink = {j, put_token, put_word};
    while (n > most) {
        size_t cut = most;
        while (cut > most - 4 && ((uint8_t)p[cut] & 0xC0) == 0x80) cut--;
        pipeline_run(j->t->pipe, p, cut, control, &sink);
        p += cut, n -= cut;
    }
    pipeline_run(j->t->pipe, p, n, control, &sink);
}

void eng_tokenizer_encode(const struct eng_tokenizer *t, const char *text, size_t n, unsigned flags,
                          struct eng_tokens *out)
{
    struct job j = {.t = t, .out = out};
    bool add = flags & TOKENIZE_ADD_SPECIAL, control = flags & TOKENIZE_PARSE_SPECIAL,
         prefix = true;
    size_t start = 0, len = 0;
    for (size_t i = 0; add && i < t->head.n; i++) eng_tokens_push(out, t->head.ids[i]);
    if (t->pipe) encode_rules(&j, text, n, control), n = 0;
    for (size_t at = 0; at < n;) {
        int32_t id = vocab_special_at(&t->v, text + at, n - at, control, &len);
        if (id < 0) {
            at++;
            continue;
        }
        encode_text(&j, text + start, at - start, prefix);
        eng_tokens_push(out, id);
        start = at += len;
        prefix =
            true; /* SentencePiece: the dummy space stands before every stretch of plain text */
    }
    if (n > start) encode_text(&j, text + start, n - start, prefix);
    for (size_t i = 0; add && i < t->tail.n; i++) eng_tokens_push(out, t->tail.ids[i]);
    bpe_work_free(&j.bpe);
    unigram_work_free(&j.unigram);
    free(j.pieces.at);
    free(j.tmp.at);
}

/* What a token stands for in an answer, before decoding. */
static struct text_span text_of(const struct eng_tokenizer *t, int32_t id)
{
    struct text_span s = vocab_text(&t->v, id);
    if (t->pipe && t->v.type[id] == TOKEN_USER) (void)pipeline_token_text(t->pipe, id, &s);
    return s;
}

/* Neither a control token nor one that stands for nothing. */
static bool is_text(const struct eng_tokenizer *t, int32_t id)
{
    enum token_type type = eng_tokenizer_type(t, id);
    return type != TOKEN_CONTROL && type != TOKEN_UNKNOWN && type != TOKEN_UNUSED;
}

void eng_tokenizer_piece(const struct eng_tokenizer *t, int32_t id, bool special, struct buf *out)
{
    if (id < 0 || id >= t->v.n || (!special && !is_text(t, id))) return;
    struct text_span s = text_of(t, id);
    enum text_decoder how = t->decoder.how;
    if (!is_text(t, id))
        buf_put(out, s.p, s.n);
    else if (how > DECODE_BYTES)
        decoder_put(&t->decoder, s, out);
    else if (t->spaced && how == DECODE_BY_MODEL)
        spm_decode(s, (enum token_type)t->v.type[id], out);
    else if (t->v.type[id] == TOKEN_USER)
        decoder_put_added(&t->decoder, s, out);
    else
        bpe_decode_text(s, out);
}

void eng_tokenizer_decode(const struct eng_tokenizer *t, const int32_t *ids, size_t n, bool special,
                          struct buf *out)
{
    struct buf piece = {0};
    bool first = eng_tokenizer_drops_space(t), behind = false;
    for (size_t i = 0; i < n; i++) {
        buf_clear(&piece);
        eng_tokenizer_piece(t, ids[i], special, &piece);
        if (!piece.len) continue;
        size_t skip = first && piece.data[0] == ' ';
        buf_put(out, piece.data + skip, piece.len - skip);
        first = false;
        behind = eng_tokenizer_space_behind(t, ids[i]);
    }
    if (behind) out->data[--out->len] = 0;
    buf_free(&piece);
}

int32_t eng_tokenizer_size(const struct eng_tokenizer *t) { return t->v.n; }

enum token_type eng_tokenizer_type(const struct eng_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->v.n ? (enum token_type)t->v.type[id] : TOKEN_UNUSED;
}

bool eng_tokenizer_is_eog(const struct eng_tokenizer *t, int32_t id)
{
    for (int32_t i = 0; i < t->v.n_eog; i++)
        if (t->v.eog[i] == id) return true;
    return false;
}

int32_t eng_tokenizer_eog(const struct eng_tokenizer *t, int32_t ids[], int32_t max)
{
    int32_t n = MIN(max, t->v.n_eog);
    if (n > 0) memcpy(ids, t->v.eog, sizeof *ids * (size_t)n);
    return MAX(n, 0);
}

int32_t eng_tokenizer_bos(const struct eng_tokenizer *t) { return t->v.bos; }
int32_t eng_tokenizer_eos(const struct eng_tokenizer *t) { return t->v.eos; }
bool eng_tokenizer_space_prefix(const struct eng_tokenizer *t)
{
    return t->spaced && t->space_prefix;
}
bool eng_tokenizer_drops_space(const struct eng_tokenizer *t)
{
    return eng_tokenizer_space_prefix(t) || decoder_spaces_before(&t->decoder);
}
bool eng_tokenizer_space_behind(const struct eng_tokenizer *t, int32_t id)
{
    return id >= 0 && id < t->v.n && is_text(t, id) && decoder_space_behind(&t->decoder, text_of(t, id));
}
int32_t eng_tokenizer_find(const struct eng_tokenizer *t, const char *s)
{
    return vocab_find(&t->v, s, strlen(s));
}
const char *eng_tokenizer_kind(const struct eng_tokenizer *t) { return t->kind; }
