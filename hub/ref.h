/* ref.h: names of models on a hub, ORG/NAME[:QUANT], and where their files lie on this machine.
 *
 * Files lie in $TESSERA_MODELS, else $XDG_CACHE_HOME/tessera/models, else ~/.cache/tessera/models, as ORG/NAME/FILE (ORG/NAME@REVISION
 * for another revision than main). */
#ifndef HUB_REF_H
#define HUB_REF_H

#include "base/err.h"

#include <stdbool.h>

enum { HUB_NAME = 128 };

struct hub_ref {
    char org[HUB_NAME], name[HUB_NAME], quant[HUB_NAME]; /* quant: "" when not said */
    char revision[HUB_NAME];                             /* "main" unless set */
};

/* Has a MODEL argument this form? Letters, digits, '-', '_', '.'; one slash; not "." or ".." . "hf.co/" and "https://huggingface.co/" before it are
 * passed over. */
bool hub_ref_parse(struct hub_ref *out, const char *arg);
/* Another revision than main. Err BAD_CONFIG: no name of one. */
MUST_USE enum err hub_ref_set_revision(struct hub_ref *r, const char *revision);
/* The folder of models. Own: caller, free(). Err BAD_CONFIG: no home directory is known. */
MUST_USE enum err hub_ref_root(char **out);
/* The folder of its files. Own: caller, free(). Err BAD_CONFIG: no home directory is known. */
MUST_USE enum err hub_ref_dir(const struct hub_ref *r, char **out);
/* What `tessera serve` would open of a model that was pulled: its folder, or the (first) GGUF file of the quantisation. *out is NULL when it is
 * not here. Own: caller, free(). Err BAD_CONFIG: several GGUF files are here and none is said; NOT_FOUND: it is here in part only, as a pull left it. */
MUST_USE enum err hub_ref_local(const struct hub_ref *r, char **out);

/* What a path in the folder of models is called there: "ORG/NAME", and "ORG/NAME:QUANT" of a GGUF file whose name ends in one; "" where it is not so. */
enum { HUB_LABEL = 3 * HUB_NAME };
void hub_ref_labels(const char *path, char name[HUB_LABEL], char with_quant[HUB_LABEL]);

/* Does a file's name say this quantisation ("model-Q4_K_M.gguf", "Q4_K_M")? Case does not matter, whole words do. */
bool hub_ref_is_quant(const char *file, const char *quant);
/* "NAME-00002-of-00003.gguf": the part's number from 1; 0: not split. */
int hub_ref_part(const char *file, int *of);

#endif
