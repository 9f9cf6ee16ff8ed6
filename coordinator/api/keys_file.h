/* keys_file.h: the file of API keys as lines. Private to keys.c and its tests. */
#ifndef COORDINATOR_API_KEYS_FILE_H
#define COORDINATOR_API_KEYS_FILE_H

#include "coordinator/api/keys.h"

struct crd_key_line {
    char name[KEY_NAME];
    uint8_t hash[KEY_HASH];
    float weight;
    struct crd_limits limits;
};

/* Own: caller, free(). Err IO; BAD_CONFIG (file and line named): a line that is none, a name twice,
 * a secret that others on this machine can read. */
MUST_USE enum err crd_keys_file_read(const char *path, const struct crd_limits *defaults,
                                     struct crd_key_line **out, int32_t *n);

#endif
