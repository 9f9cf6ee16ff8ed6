/* safetensors.h: the header of one safetensors file; private to engine/file.
 *
 * A file is eight bytes of length, that many bytes of JSON, and the tensors' bytes. Source: the
 * safetensors format description. */
#ifndef ENGINE_FILE_SAFETENSORS_H
#define ENGINE_FILE_SAFETENSORS_H

#include "engine/file/format.h"

/* Append the tensors of part `part` to the file's, named as the header names them, shapes turned
 * round (dims[0] varies fastest), offsets absolute. Types this build does not compute with are
 * listed. Err BAD_FILE, IO naming file and tensor. */
MUST_USE enum err eng_safetensors_read(struct eng_model_file *f, int32_t part);

#endif
