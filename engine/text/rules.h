/* rules.h: what a Hugging Face tokenizer does to a text before it merges, as data. Made by
 * hf_rules.c from tokenizer.json and by sp_model.c from tokenizer.model, carried out by pipeline.c and normalize.c. Private to engine/text.
 *
 * In this order: added tokens are cut out of the text as it stands; what lies between is
 * normalised; added tokens that are to be found in normalised text are cut out; spaces are written
 * as `meta`; the splits are applied one after the other. Where the file says so some splits come before spaces are written, in each of their
 * pieces. */
#ifndef ENGINE_TEXT_RULES_H
#define ENGINE_TEXT_RULES_H

#include "engine/text/tokenizer.h"

enum text_step_kind {
    TEXT_NFC,
    TEXT_NFD,
    TEXT_NFKC,
    TEXT_NFKD,
    TEXT_PREPEND,
    TEXT_REPLACE,
    TEXT_REPLACE_REGEX,
    TEXT_STRIP,
    TEXT_PRECOMPILED,   /* SentencePiece's map of characters, as Hugging Face's tokenizers go by it */
    TEXT_SENTENCEPIECE, /* all that SentencePiece does before it looks for pieces */
    /* character by character (normalize_chars.h) */
    TEXT_CLEAN,            /* controls go, white space becomes spaces */
    TEXT_HAN_APART,        /* spaces around CJK ideographs */
    TEXT_STRIP_NONSPACING, /* marks go, as BertNormalizer knows them */
    TEXT_STRIP_MARKS,      /* marks go, as StripAccents knows them */
    TEXT_LOWER,
    TEXT_NMT,   /* some controls go, some white space becomes spaces */
    TEXT_BYTES, /* each byte becomes the character that byte-level vocabularies write it with */
};
struct text_step {
    enum text_step_kind kind;
    struct text_span from, to; /* REPLACE: both (_REGEX: `from` in PCRE2's syntax); PREPEND: `to`; PRECOMPILED, SENTENCEPIECE: `from`, the map's bytes */
    bool left, right;          /* STRIP: on which sides */
    bool prefix, squeeze;      /* SENTENCEPIECE: a space in front; no spaces at the ends, one instead of several */
};

/* What becomes of a match. MERGED_*: it goes with the piece before or after it. */
enum text_split_how {
    SPLIT_ISOLATED,
    SPLIT_REMOVED,
    SPLIT_MERGED_PREVIOUS,
    SPLIT_MERGED_NEXT,
    SPLIT_CONTIGUOUS, /* neighbouring matches are one piece */
};
struct text_split {
    const char *regex; /* PCRE2's syntax */
    enum text_split_how how;
    bool invert; /* what does not match is the match */
};

struct text_added {
    int32_t id;
    bool lstrip, rstrip; /* swallows white space to its left, right */
    bool single_word;    /* only where no letter or digit touches it */
    bool normalized;     /* is looked for in normalised text, itself normalised */
    bool foreign;        /* the model's own vocabulary lacks it: only cut out of a text, never a piece */
};

enum text_meta {
    META_NONE,
    META_NEVER,
    META_FIRST,
    META_ALWAYS
}; /* before which stretches it is put */

/* How tokens become a text. */
enum text_decoder {
    DECODE_BY_MODEL, /* bytes of a byte-level vocabulary, else U+2581 as a space and bytes by their names */
    DECODE_BYTES,    /* printable characters as the bytes they stand for */
    DECODE_WORDS,    /* a space before each token but those that begin with `decoder_mark`, which goes */
    DECODE_SUFFIX,   /* `decoder_mark` as a space */
    DECODE_JOINED,   /* a space before each token */
};

struct eng_text_rules {
    const struct text_step *steps;
    int32_t n_steps;
    enum text_meta meta;
    struct text_span meta_text; /* instead of a space: U+2581 */
    bool prefix_space;          /* a stretch that does not begin with a space gets one */
    const struct text_split *splits;
    int32_t n_splits, n_before; /* n_before: of the splits, those that come before spaces are written */
    const struct text_added *added;
    int32_t n_added;
    bool ignore_merges;           /* a piece that is a token is not merged */
    struct text_span inner;       /* "wordpiece", "bpe", "gpt2": before a piece that does not begin its word: "##" */
    struct text_span final;       /* "bpe", "gpt2": behind the piece that ends its word: "</w>" */
    int64_t most_chars;           /* "wordpiece": a longer word is unknown */
    enum text_decoder decoder;
    struct text_span decoder_mark;
    bool decoder_tidies;          /* DECODE_WORDS: no space before full stops, commas and short forms */
    bool byte_fallback, fuse_unk; /* "bpe": see bpe.h; "unigram" has the first */
    bool sentencepiece;           /* "unigram": as SentencePiece finds pieces, not Hugging Face's tokenizers (unigram.h) */
};

#endif
