/* model_sampling.h: how a model's makers draw from it: generation_config.json of a checkpoint's
 * directory, the keys general.sampling.* of a GGUF file. Joins file/ and proto/sampling.h. */
#ifndef ENGINE_MODEL_SAMPLING_H
#define ENGINE_MODEL_SAMPLING_H

#include "base/buf.h"
#include "engine/file/model_file.h"
#include "proto/sampling.h"

/* Set the fields of *s that the file names; the others stay. A value that no request could ask for
 * is left out with a warning: a model is not refused for its advice. */
void eng_model_sampling(struct sampling *s, const struct eng_model_file *f);
/* Append the fields such a file may name as they are in s, as members of a JSON object:
 * `"temperature":0.7,...`, by the names that requests have for them; `changed`: only those that
 * differ from sampling_default(). */
void eng_model_sampling_say(const struct sampling *s, bool changed, struct buf *out);

#endif
