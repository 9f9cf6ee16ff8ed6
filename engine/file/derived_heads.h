/* derived_heads.h: the matrices of heads that share a latent, where a file has keys' and values' in one. Private to engine/file. */
#ifndef ENGINE_FILE_DERIVED_HEADS_H
#define ENGINE_FILE_DERIVED_HEADS_H

#include "engine/file/format.h"

/* Of deepseek2: attn_k_b [keys][rank][heads] and attn_v_b [rank][values][heads] of every attn_kv_b [rank][heads * (keys + values)] that has them not
 * beside it and fits what the header says. hide: instead of it; else beside it, as part_of it. Keys and names are GGUF's by then. */
void eng_heads_split(struct eng_model_file *f, bool hide);

#endif
