/* sp_model.c: tokenizer.model, a SentencePiece ModelProto, by a reader of the few protobuf fields
 * that matter. Source: sentencepiece_model.proto and the protobuf encoding (facts).
 *
 * Every length is checked against the bytes that are left; unknown fields are stepped over. */
#include "engine/text/hf_build.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { PIECES = 1, TRAINER = 2, NORMALIZER = 3 };               /* ModelProto */
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };       /* SentencePiece */
enum { MODEL_TYPE = 3, SPACE_BEHIND = 24, BYTE_FALLBACK = 35, UNK_ID = 40, BOS_ID = 41, EOS_ID = 42 }; /* TrainerSpec */
enum { CHARSMAP = 2, DUMMY_PREFIX = 3, EXTRA_SPACES = 4, ESCAPE_SPACES = 5 };                         /* NormalizerSpec */
enum { UNIGRAM = 1, BPE = 2 };

struct field {
    uint32_t no;
    uint64_t value;         /* varint, or the bits of a fixed one */
    struct text_span bytes; /* of a length-delimited one */
};

static bool take_varint(struct rd *r, uint64_t *v)
{
    *v = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        uint8_t c = rd_u8(r);
        *v |= (uint64_t)(c & 0x7F) << shift;
        if (r->bad || !(c & 0x80)) return !r->bad;
    }
    return false;
}

/* The next field; false at the end and when the bytes are no protobuf (then r->bad). */
static bool take_field(struct rd *r, struct field *f)
{
    uint64_t key;
    *f = (struct field){0};
    if (r->bad || !rd_left(r)) return false;
    if (!take_varint(r, &key) || key >> 3 == 0 || key >> 3 > UINT32_MAX)
        return r->bad = true, false;
    f->no = (uint32_t)(key >> 3);
    switch (key & 7) {
    case 0:
        r->bad |= !take_varint(r, &f->value);
        break;
    case 1:
        f->value = rd_u64(r);
        break;
    case 5:
        f->value = rd_u32(r);
        break;
    case 2:
        if (!take_varint(r, &f->value) || f->value > rd_left(r)) return r->bad = true, false;
        f->bytes.n = (size_t)f->value;
        f->bytes.p = rd_bytes(r, f->bytes.n);
        break;
    default:
        r->bad = true; /* groups are not used */
    }
    return !r->bad;
}

/* A message inside another; a field of another wire type has none. */
static struct rd inside(struct text_span s)
{
    return s.p ? rd_of(s.p, s.n) : (struct rd){.bad = true};
}

static enum err broken(const struct hf_build *b, const char *what)
{
    return err_raise(ERR_BAD_FILE, "%s/tokenizer.model: damaged in %s", b->files->where, what);
}

static enum err read_piece(struct hf_build *b, struct text_span s)
{
    struct rd r = inside(s);
    struct field f;
    struct text_span text = {"", 0};
    float score = 0;
    int64_t type = TOKEN_NORMAL;
    while (take_field(&r, &f)) {
        uint32_t bits = (uint32_t)f.value;
        if (f.no == PIECE_TEXT) text = f.bytes;
        if (f.no == PIECE_SCORE) memcpy(&score, &bits, sizeof score);
        if (f.no == PIECE_TYPE) type = (int64_t)MIN(f.value, 7);
    }
    if (r.bad || type < TOKEN_NORMAL || type > TOKEN_BYTE) return broken(b, "a piece");
    if (!text.p) text.p = "";
    int32_t id = b->n;
    enum err rc = hf_vocab_put(b, id, text, (enum token_type)type, "tokenizer.model");
    if (!rc) b->scores[id] = score;
    return rc;
}

static enum err read_trainer(struct hf_build *b, struct text_span s, int64_t *model_type)
{
    struct rd r = inside(s);
    struct field f;
    bool behind = false;
    while (take_field(&r, &f)) {
        int32_t id = (int32_t)f.value; /* negative ids: ten bytes of varint */
        if (f.no == MODEL_TYPE) *model_type = (int64_t)MIN(f.value, 99);
        if (f.no == SPACE_BEHIND) behind = f.value != 0;
        if (f.no == BYTE_FALLBACK) b->rules.byte_fallback = f.value != 0;
        if (f.no == UNK_ID) b->src.unk = id;
        if (f.no == BOS_ID) b->src.bos = id;
        if (f.no == EOS_ID) b->src.eos = id;
    }
    if (r.bad) return broken(b, "the trainer's settings");
    return behind ? err_raise(ERR_UNSUPPORTED, "%s/tokenizer.model: spaces behind words (treat_whitespace_as_suffix) are not supported", b->files->where) : OK;
}

static enum err read_normalizer(struct hf_build *b, struct text_span s, struct text_step *step)
{
    struct rd r = inside(s);
    struct field f;
    bool escape = true;
    while (take_field(&r, &f)) {
        if (f.no == CHARSMAP) step->from = f.bytes;
        if (f.no == DUMMY_PREFIX) step->prefix = f.value != 0;
        if (f.no == EXTRA_SPACES) step->squeeze = f.value != 0;
        if (f.no == ESCAPE_SPACES) escape = f.value != 0;
    }
    if (r.bad || (step->from.n && !step->from.p)) return broken(b, "the normalizer's settings");
    return escape ? OK : err_raise(ERR_UNSUPPORTED, "%s/tokenizer.model: spaces that stay spaces (escape_whitespaces false) are not supported",
                                   b->files->where);
}

/* How many pieces, if the file is whole. */
static enum err count_pieces(const struct hf_build *b, struct text_span s, size_t *n)
{
    struct rd r = rd_of(s.p, s.n);
    struct field f;
    *n = 0;
    while (take_field(&r, &f)) *n += f.no == PIECES;
    if (!r.bad && *n) return OK;
    return err_raise(
        ERR_BAD_FILE,
        "%s/tokenizer.model: not a SentencePiece model (at byte %zu of %zu); a file of "
        "base64 ranks needs its tokenizer.json",
        b->files->where, s.n - rd_left(&r), s.n);
}

/* A model that merges texts as they stand, but for the space in front, needs no rules; others have theirs. */
static void read_kind(struct hf_build *b, bool unigram, struct text_step step)
{
    b->src.add_space_prefix = step.prefix || step.squeeze;
    if (!unigram && !step.from.n && !step.squeeze) return;
    b->steps = arena_alloc(&b->a, sizeof *b->steps);
    b->steps[0] = step;
    b->rules.n_steps = 1;
    b->rules.sentencepiece = true;
    b->src.rules = &b->rules;
    if (!unigram) return;
    double *scores = arena_alloc(&b->a, (size_t)b->n * sizeof *scores);
    for (int32_t id = 0; id < b->n; id++) scores[id] = isnan(b->scores[id]) ? -INFINITY : (double)b->scores[id];
    b->src.log_probs = scores;
    b->src.n_log_probs = b->n;
    b->src.model = "unigram";
}

enum err sp_model_read(struct hf_build *b)
{
    enum err rc;
    struct text_span s = b->files->model;
    struct rd r = rd_of(s.p, s.n);
    struct field f;
    struct text_step step = {.kind = TEXT_SENTENCEPIECE, .prefix = true, .squeeze = true}; /* the format's defaults, as below */
    int64_t model_type = UNIGRAM;
    size_t n;
    b->src.model = "llama";
    b->src.add_bos = true;
    b->src.unk = 0, b->src.bos = 1, b->src.eos = 2;
    TRY(count_pieces(b, s, &n));
    TRY(hf_vocab_room(b, n, "tokenizer.model"));
    while (take_field(&r, &f)) {
        if (f.no == PIECES) TRY(read_piece(b, f.bytes));
        if (f.no == TRAINER) TRY(read_trainer(b, f.bytes, &model_type));
        if (f.no == NORMALIZER) TRY(read_normalizer(b, f.bytes, &step));
    }
    if (model_type != BPE && model_type != UNIGRAM)
        TRY(err_raise(ERR_UNSUPPORTED, "%s/tokenizer.model: SentencePiece of type word or char is not supported (known: BPE, unigram)", b->files->where));
    read_kind(b, model_type == UNIGRAM, step);
out:
    return rc;
}

void sp_model_cut(struct hf_build *b)
{
    bool unigram = !strcmp(b->src.model, "unigram");
    if (!b->src.rules) return;
    b->added = xrealloc(b->added, (size_t)(b->rules.n_added + b->n) * sizeof *b->added);
    for (int32_t id = 0; id < b->n; id++)
        if (b->types[id] == TOKEN_CONTROL || b->types[id] == TOKEN_UNKNOWN || (!unigram && b->types[id] == TOKEN_USER))
            b->added[b->rules.n_added++] = (struct text_added){.id = id};
}
