/* store.h: the folder of models (hub/ref.h says where): which models are in it, and taking one away. What a pull brought and what somebody laid there
 * in the same form, ORG/NAME/FILES, is one to it. Not here: what the hub has of them (listing.h), or whether they are whole (kept.h). */
#ifndef HUB_STORE_H
#define HUB_STORE_H

#include "hub/ref.h"

#include <stddef.h>
#include <stdint.h>

struct hub_stored {
    char *name;                  /* Own. "ORG/NAME:QUANT", or "ORG/NAME": what commands take for it */
    char *path;                  /* Own. What they open: a GGUF file, the first of several, or a checkpoint's folder */
    char revision[HUB_NAME];     /* "main" unless another was pulled; such a one is opened by its path */
    char type[HUB_NAME];         /* "Q4_K_M", "GGUF" where the name does not say, "checkpoint" */
    int64_t bytes;               /* of its files, parts that are being fetched too */
    int64_t changed_s;           /* when the last of them was written, since 1970 */
    bool unfinished;             /* as a pull has left it, or is at work */
};

struct hub_store {
    char *root;                  /* Own */
    struct hub_stored *models;   /* Own; by name */
    size_t n;
};

/* Err BAD_CONFIG: no home directory is known. A folder that is not there has no models. */
MUST_USE enum err hub_store_list(struct hub_store *out);
void hub_store_close(struct hub_store *s); /* NULL-safe */

struct hub_removed { int32_t files; int64_t bytes; };
/* Remove the one model that r names: of several GGUF files the quantisation's with its records, of the last one the whole folder. What a process has
 * mapped stays its own. Err NOT_FOUND; BAD_CONFIG: several fit, and their names; IO: a pull is at work there, or the file system's reason. */
MUST_USE enum err hub_store_remove(const struct hub_ref *r, struct hub_removed *out);

#endif
