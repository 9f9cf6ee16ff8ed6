/* pooling.h: how a model was trained to have its hidden states pooled, as its files say it. */
#ifndef ENGINE_FILE_POOLING_H
#define ENGINE_FILE_POOLING_H

#include "engine/file/model_file.h"
#include "proto/pooling.h"

/* GGUF: key ARCH.pooling_type (1 mean, 3 last). A checkpoint's directory: 1_Pooling/config.json, as sentence-transformers writes
 * it. Last where neither says anything; NONE where they name a way that we do not have (first token, ranking). */
enum step_pool eng_pooling_of(const struct eng_model_file *f, const char *arch);

#endif
