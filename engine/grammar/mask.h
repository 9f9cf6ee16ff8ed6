/* mask.h: which tokens may follow a set of stacks. Private to engine/grammar.
 *
 * What a token does to a stack depends on the stack's top two states alone until the rule of the
 * second ends (two, because one character of a string is a rule of its own). So per pair, once: the
 * tokens that are taken entirely within, and the prefixes behind which the second rule may end
 * ("escapes"). A mask is the union over the set's stacks of the first, and of what the callers
 * allow behind the second. States that no token can tell apart (alike.h) share their part, and where only
 * longer tokens can, all but those are taken over: so a string of at most 1,000 characters costs little more than one of
 * any length, and so does one of twenty. Where all that stands below a node leads from a
 * set back to it (the letters of [a-z]+, anything in a string), the node's tokens are taken without a walk. */
#ifndef ENGINE_GRAMMAR_MASK_H
#define ENGINE_GRAMMAR_MASK_H

#include "engine/grammar/alike.h"
#include "engine/grammar/class_tree.h"
#include "engine/grammar/machine.h"
#include "engine/grammar/vocab.h"

struct mask_part {
    int32_t *tokens, n_tokens;   /* few: listed */
    uint64_t *bits;              /* many: as bits; NULL when listed */
    int32_t *escapes, n_escapes; /* nodes of the tree, or ~ of the vocabulary, with something below them */
};

enum { MASKS_KEPT = 32 };

struct masker {
    struct machine *m;
    const struct eng_grammar_vocab *v;
    struct alike alike;
    struct map64 part_of;            /* a level and pairs of states into parts */
    uint64_t *short_of[ALIKE_LEVELS]; /* bits: tokens within the depth of a level; made when needed */
    struct mask_part *parts;
    int32_t n_parts, cap_parts;
    struct {
        int32_t set;
        uint64_t *bits;
    } kept[MASKS_KEPT]; /* the last masks; set -1: none */
    int32_t next_kept;
    uint8_t kind_of[128];
    struct class_tree tree;
    struct step {
        int32_t node, set;
    } * todo; /* a walk's */
    int32_t cap_todo, *path; /* [longest + 2] */
    uint64_t *scratch; /* mask_within's */
    int32_t *escapes, cap_escapes;
};

void eng_masker_open(struct masker *k, struct machine *m, const struct eng_grammar_vocab *v);
void eng_masker_close(struct masker *k);
const uint64_t *eng_masker_mask(struct masker *k, int32_t set);
bool eng_masker_knows(const struct masker *k, int32_t set);
/* Tokens after which the shortest way to the end (shortest.h) takes at most n_tokens more. */
const uint64_t *eng_masker_mask_within(struct masker *k, int32_t set, int32_t n_tokens);
/* Sets got new numbers. */
void eng_masker_forget(struct masker *k);

#endif
