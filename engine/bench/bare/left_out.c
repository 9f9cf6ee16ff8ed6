/* left_out.c: what the bare build has no libraries for, as far as the engine asks for it: Hugging Face directories (they are JSON) and
 * grammars (they need a tokenizer), and the pooling of embeddings (its settings are JSON too). Asked for, each refuses with a sentence. */
#include "engine/constraint.h"
#include "engine/file/hf_config.h"
#include "engine/file/pooling.h"

#include <stdlib.h>

static enum err read_nothing(struct eng_model_file *f)
{
    return err_raise(ERR_UNSUPPORTED, "%s: this build reads GGUF files only", f->path);
}
const struct eng_format eng_format_hf = {.name = "directory", .read = read_nothing};

bool eng_model_file_is_dir(const struct eng_model_file *f)
{
    (void)f;
    return false;
}
enum err eng_model_file_beside(const struct eng_model_file *f, const char *name, int64_t most, struct buf *out, bool *there)
{
    (void)f, (void)name, (void)most, (void)out;
    *there = false;
    return OK;
}
bool eng_hf_tensor_name(const char *arch, const char *name, char out[96])
{
    (void)arch, (void)name, (void)out;
    return false;
}
enum step_pool eng_pooling_of(const struct eng_model_file *f, const char *arch)
{
    (void)f, (void)arch;
    return POOL_NONE;
}

/* Without a vocabulary there is nothing to keep. */
struct eng_constraints { int32_t unused; };

struct eng_constraints *eng_constraints_open(const struct eng_model_file *f, int32_t n_vocab)
{
    (void)f, (void)n_vocab;
    return xcalloc(1, sizeof(struct eng_constraints));
}
void eng_constraints_close(struct eng_constraints *c) { free(c); }

enum err eng_constraint_open(struct eng_constraint **out, struct eng_constraints *c, const struct grammar_source *g, const int32_t *tokens,
                             int32_t n)
{
    (void)out, (void)c, (void)g, (void)tokens, (void)n;
    return err_raise(ERR_UNSUPPORTED, "this build has no grammars");
}

enum err eng_constraints_texts(struct eng_constraints *c, const uint8_t **bytes, const uint32_t **off)
{
    (void)c, (void)bytes, (void)off;
    return err_raise(ERR_UNSUPPORTED, "this build has no tokenizer");
}

/* Nothing below is reached: no sequence has a grammar. */
struct eng_constraint *eng_constraint_copy(const struct eng_constraint *s)
{
    ASSERT(!s);
    return NULL;
}
void eng_constraint_close(struct eng_constraint *s) { ASSERT(!s); }
const uint64_t *eng_constraint_mask(struct eng_constraint *s, const struct sampling *p, bool *forced)
{
    (void)p, (void)forced;
    ASSERT(!s);
    return NULL;
}
bool eng_constraint_ready(const struct eng_constraint *s)
{
    ASSERT(!s);
    return true;
}
void eng_constraint_prepare(struct eng_constraint *s) { ASSERT(!s); }
bool eng_constraint_fits(const struct eng_constraint *s, int32_t token, int32_t n_left)
{
    (void)token, (void)n_left;
    ASSERT(!s);
    return true;
}
const uint64_t *eng_constraint_mask_within(struct eng_constraint *s, const struct sampling *p, int32_t n_left)
{
    (void)p, (void)n_left;
    ASSERT(!s);
    return NULL;
}
bool eng_constraint_take(struct eng_constraint *s, int32_t token)
{
    (void)token;
    ASSERT(!s);
    return false;
}
