/* gguf_value.h: reading GGUF's primitives from a window of the header; private to engine/file.
 *
 * Each function takes bytes at the cursor. When they lie outside the file it says so in a sentence
 * (BAD_FILE); when they lie in the file but outside the window it fails without one and sets
 * `need`: the caller reads more and starts again. Nothing is allocated that the window does not
 * hold. */
#ifndef ENGINE_FILE_GGUF_VALUE_H
#define ENGINE_FILE_GGUF_VALUE_H

#include "base/arena.h"
#include "engine/file/model_file.h"

/* Where parsing stands in the window. */
struct eng_gguf_cur {
    const uint8_t *p;
    int64_t at, have, size; /* position, bytes in the window, bytes in the file */
    int64_t need;           /* > have: the window is too small, try again with this many */
    char what[112];         /* what is being read, for sentences */
};

MUST_USE enum err eng_gguf_take(struct eng_gguf_cur *c, uint64_t n, const void **p);
/* Little-endian, n = 1..8 bytes. */
MUST_USE enum err eng_gguf_take_uint(struct eng_gguf_cur *c, size_t n, uint64_t *v);
/* A key or a tensor's name: 1 to `longest` bytes, none of them NUL. */
MUST_USE enum err eng_gguf_take_name(struct eng_gguf_cur *c, uint64_t longest, struct model_str *s);
/* A metadata value with its type; strings and numbers are borrowed from the window, tables come
 * from the arena. */
MUST_USE enum err eng_gguf_take_value(struct eng_gguf_cur *c, struct arena *a, struct model_kv *kv);
/* May n things of at least `least` bytes each follow? `things` names them. */
MUST_USE enum err eng_gguf_room_for(struct eng_gguf_cur *c, uint64_t n, int64_t least,
                                    const char *things);

#endif
