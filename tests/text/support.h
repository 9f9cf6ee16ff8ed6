/* support.h: what the tests of engine/text share: finding the shared data, whole files,
 * vocabularies from GGUF headers and from raw lists. A reader of its own, so that these tests need
 * nothing of engine/file. */
#ifndef TESTS_TEXT_SUPPORT_H
#define TESTS_TEXT_SUPPORT_H

#include "base/arena.h"
#include "engine/text/tokenizer.h"

#include <jansson.h>

/* $TESSERA_SHARED/path (or ../shared/path); valid until the next call. */
const char *shared_path(const char *path);
/* The whole file, NUL-terminated (Own: caller, free), or NULL after printing why a test is skipped.
 */
char *shared_read(const char *path, size_t *n);
/* The same, parsed; NULL after printing why. */
json_t *shared_json(const char *path);

struct test_vocab {
    struct eng_vocab_src src;
    struct arena a; /* arrays and generated texts */
    char *file;     /* what the spans point into */
    json_t *json;
};
void test_vocab_free(struct test_vocab *v);
/* Metadata of a GGUF v3 file under the shared data. False after printing why. */
bool test_vocab_gguf(struct test_vocab *v, const char *path);
/* token -> id as JSON, a list of merges (lines starting with # are left out), and control tokens
 * appended after the last id (NULL-terminated). */
bool test_vocab_lists(struct test_vocab *v, const char *vocab, const char *merges, const char *pre,
                      const char *const *control);
/* A vocabulary in memory: texts NULL-terminated. */
void test_vocab_texts(struct test_vocab *v, const char *model, const char *const *texts);
/* The 256 byte tokens of byte-level BPE and then `more` (NULL-terminated); merges NULL-terminated.
 */
void test_vocab_bytes(struct test_vocab *v, const char *const *more, const char *const *merges);

#endif
