/* fingerprint.h: is this the same model? A number over a file's tensors (names, types, shapes, places) and samples of their bytes, the same on every
 * host that has the same files, cheap enough to take before loading. Not a proof against an adversary: against a file that was replaced. */
#ifndef ENGINE_FILE_FINGERPRINT_H
#define ENGINE_FILE_FINGERPRINT_H

#include "engine/file/model_file.h"

/* Err IO. Never 0. */
MUST_USE enum err eng_fingerprint(const struct eng_model_file *f, uint64_t *out);

#endif
