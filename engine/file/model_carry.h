/* model_carry.h: the headers of a model as one message, for a rank that has no file: all that opening reads, and the small
 * files beside a checkpoint, but no tensor's bytes.
 *
 * What arrives is opened like any other file (through files of the full length, with holes where the tensors are, in a
 * directory that is gone again when this returns), so all checks of the formats hold. */
#ifndef ENGINE_FILE_MODEL_CARRY_H
#define ENGINE_FILE_MODEL_CARRY_H

#include "engine/file/model_file.h"

enum { MODEL_CARRY_MOST = 512 << 20 };

/* Appended to *out. Err IO. */
MUST_USE enum err eng_model_carry_pack(const struct eng_model_file *f, struct buf *out);
/* Err LINK_PROTOCOL (not such a message), IO (no room for it), as eng_model_file_open. path: what messages and
 * eng_model_file_path call it. Own: caller closes. */
MUST_USE enum err eng_model_carry_open(struct eng_model_file **out, const void *data, size_t n, const char *path);

/* Where a model's file lies. */
struct eng_model_place {
    uint64_t key;       /* the same for all ranks that see this very file; never 0 */
    uint64_t version;   /* over sizes and times of change of its parts: another after any change */
    bool remote;        /* on a network file system */
};
MUST_USE enum err eng_model_place(const struct eng_model_file *f, struct eng_model_place *out);

#endif
