/* hf_support.h: what the tests of checkpoints' tokenizers share. */
#ifndef TESTS_TEXT_HF_SUPPORT_H
#define TESTS_TEXT_HF_SUPPORT_H

#include "engine/text/hf_tokenizer.h"
#include "tests/text/support.h"

enum { BOTH = TOKENIZE_ADD_SPECIAL | TOKENIZE_PARSE_SPECIAL };

/* A file of the tree, NUL-terminated (Own: caller, free); its absence fails the test. */
char *hf_read_here(const char *path, size_t *n);
/* `where` and an absent bos (0) are filled in; a refusal fails the test. */
struct eng_tokenizer *hf_open(struct eng_hf_files f);
struct text_span hf_text(const char *s);
/* Are the ids those of the array? Prints both when they are not. */
bool hf_same_ids(const char *name, const char *shown, const struct eng_tokens *got, json_t *want);

#endif
