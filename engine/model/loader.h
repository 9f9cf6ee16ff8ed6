/* loader.h: what the list of a model's tensors (tensors.c) says to the loading of them (weights.c). Private to engine/model. */
#ifndef ENGINE_MODEL_LOADER_H
#define ENGINE_MODEL_LOADER_H

#include "engine/model/weights.h"

struct eng_loader {
    const struct eng_model_file *file;
    const struct eng_spec *spec;
    const struct eng_shard *shard;
    struct eng_weights *w;
    bool only_count;            /* bytes; keeps nothing */
    int64_t file_bytes, mem_bytes;
    struct model_weights *parts;/* counted by kind, or NULL */
    struct model_part *part;    /* the kind being counted */
    struct eng_want *wants;     /* what load.c is to bring; Own */
    int32_t n_wants, cap_wants;
};

/* Where a matrix, or a vector, lies: row (value) r of it is the tensor's row (value) first + r, rows of a three-dimensional tensor counted
 * through; with run > 0 it is first + r / run * stride + r % run, and run is a multiple of KRN_TILE. */
struct eng_place {
    const struct model_tensor *t;
    int64_t first, run, stride;
};

bool eng_loader_has(const struct eng_loader *l, const char *name);
/* The tensor of this shape. Err BAD_FILE naming it, the shape seen and the one needed; UNSUPPORTED its type. */
MUST_USE enum err eng_loader_find(const struct eng_loader *l, const char *name, int64_t d0, int64_t d1, int64_t d2, struct eng_place *out);

/* Values [i0,i1) as f32; rows [r0,r1), columns [k0,k1). When only counting *out stays as it is; else what
 * it points to is there when load.c has been. */
MUST_USE enum err eng_loader_vector(struct eng_loader *l, float **out, const struct eng_place *at, int64_t i0, int64_t i1);
MUST_USE enum err eng_loader_matrix(struct eng_loader *l, struct krn_mat *out, const struct eng_place *at, int64_t r0, int64_t r1, int64_t k0, int64_t k1);
/* n floats that come from elsewhere. */
MUST_USE enum err eng_loader_floats(struct eng_loader *l, float **out, const float *from, int64_t n);

/* *place is another pointer to what one of these brought: a move to a device changes it too. */
void eng_loader_note(struct eng_loader *l, void *place);

/* The list: everything of one layer; embedding, head and what else is there once. */
MUST_USE enum err eng_tensors_layer(struct eng_loader *l, int32_t layer, struct eng_layer *y);
MUST_USE enum err eng_tensors_ends(struct eng_loader *l);
/* Attention's of a layer with a latent. */
MUST_USE enum err eng_tensors_mla(struct eng_loader *l, int32_t layer, struct eng_layer *y);
/* Norms whose file holds w become 1 + w. */
void eng_tensors_plus_one(struct eng_weights *w, const struct eng_spec *s);

#endif
