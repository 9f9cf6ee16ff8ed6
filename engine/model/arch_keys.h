/* arch_keys.h: keys of a family, "ARCH.key", as arch*.c read them. Private to engine/model. */
#ifndef ENGINE_MODEL_ARCH_KEYS_H
#define ENGINE_MODEL_ARCH_KEYS_H

#include "engine/model/spec.h"

/* Err BAD_FILE: outside [min,max] or of another kind; missing, when the default is below min. */
MUST_USE enum err eng_arch_int(const struct eng_model_file *f, const char *arch, const char *key, int64_t def, int64_t min, int64_t max, int32_t *out);
MUST_USE enum err eng_arch_float(const struct eng_model_file *f, const char *arch, const char *key, double def, double *out);
MUST_USE enum err eng_arch_bool(const struct eng_model_file *f, const char *arch, const char *key, bool def, bool *out);

/* Sizes of a family with a latent: s->mla, head_dim, n_kv_heads. And, once its rope is known, the scale of its scores. */
MUST_USE enum err eng_arch_mla(struct eng_spec *s, const struct eng_model_file *f);
MUST_USE enum err eng_arch_mla_scale(struct eng_spec *s, const struct eng_model_file *f);
/* The rope of a spec whose sizes are known; the experts of one whose layers are known. */
MUST_USE enum err eng_arch_rope(struct eng_spec *s, const struct eng_model_file *f);
MUST_USE enum err eng_arch_experts(struct eng_spec *s, const struct eng_model_file *f);
/* Which layers are local, and how far they see. period: of the family, when the file does not say; 0: every layer is. */
MUST_USE enum err eng_arch_windows(struct eng_spec *s, const struct eng_model_file *f, int32_t period, bool last_of_period);
/* Which layers have no rope: as the file lists them; else, with `global`, those that are not local. */
MUST_USE enum err eng_arch_no_rope(struct eng_spec *s, const struct eng_model_file *f, bool global, int32_t period);

#endif
