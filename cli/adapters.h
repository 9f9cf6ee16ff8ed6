/* adapters.h: LoRA adapters of a command, as --lora "NAME=PATH,..." names them. */
#ifndef CLI_ADAPTERS_H
#define CLI_ADAPTERS_H

#include "base/err.h"
#include "engine/model/lora.h"
#include "proto/limits.h"

enum { ADAPTERS_PATH = 1024 }; /* bytes of one's path, its end included */

struct adapters {
    int32_t n;
    const char *names[LIMIT_ADAPTERS + 1], *paths[LIMIT_ADAPTERS]; /* in text; names end with NULL */
    uint64_t sums[LIMIT_ADAPTERS];
    char *text; /* Own: adapters_free */
};
/* Names, paths, and that each suits the model (headers only). Err BAD_CONFIG, and those of eng_lora_open. */
MUST_USE enum err adapters_open(struct adapters *a, const char *said, const char *model_path);
/* As the engine takes them. */
struct eng_adapters adapters_of(const struct adapters *a);
void adapters_free(struct adapters *a);

#endif
