/* hf_quant.h: what a checkpoint says of its quantised weights: `quantization_config` of config.json (or the file beside it that
 * older programs wrote), read into one struct for all methods. Private to engine/file.
 *
 * What is not understood is refused with its key: a switch that we do not know may change what the codes mean. Switches that
 * only concern activations are not looked at: weights are widened or kept as they are, activations are ours. */
#ifndef ENGINE_FILE_HF_QUANT_H
#define ENGINE_FILE_HF_QUANT_H

#include "engine/file/hf_config.h"
#include "engine/file/hf_json.h"

enum eng_quant_method { QUANT_NONE, QUANT_FP8, QUANT_GPTQ, QUANT_AWQ, QUANT_COMPRESSED, QUANT_MXFP4, QUANT_BNB };
enum eng_quant_spread { SPREAD_ANY, SPREAD_TENSOR, SPREAD_CHANNEL, SPREAD_GROUP, SPREAD_BLOCK }; /* of one scale */

enum { QUANT_MOST_SCHEMES = 64 };

/* Names of compressed-tensors; in the arena of the keys. */
struct eng_quant_names {
    const char **at;
    size_t n;
};

/* How the weights of some modules are quantised. */
struct eng_quant_scheme {
    enum eng_quant_spread spread;
    bool is_float;              /* FP8 or, of 4 bits, FP4 codes; else integers */
    int32_t bits;
    bool symmetric;
    int64_t group;              /* columns of a scale; 0: all */
    int64_t block_rows, block_cols;
    bool by_column;             /* each column says which group it is of */
    bool zero_less_one;         /* zero points are stored less one */
    struct eng_quant_names targets;
};

struct eng_hf_quant {
    enum eng_quant_method method;
    const char *what;           /* where it was read, for sentences: "DIR/config.json: quantization_config"; in the keys' arena */
    bool refused;               /* nothing below counts */
    enum dtype dense;           /* the checkpoint's own type: what is widened is rounded to it */
    struct eng_quant_scheme *schemes; /* [n_schemes]; one, but for compressed-tensors; in the keys' arena */
    int32_t n_schemes;
    struct eng_quant_names ignore;
    int64_t width, heads_width, ffn; /* columns of what reads the stream, of what reads heads, of what reads the FFN; 0: not known */
    int64_t asked;              /* names compared with patterns so far */
};

/* Err BAD_FILE naming file and key. What is not supported is refused in keys. */
MUST_USE enum err eng_hf_quant_read(struct eng_hf_quant *q, struct eng_hf_obj config, const struct eng_model_file *f, struct eng_hf_keys *keys);

/* The scheme of a module ("model.layers.0.mlp.up_proj") of compressed-tensors; *out is NULL: it is not to be quantised.
 * Err BAD_FILE: a pattern that is none, or more patterns times modules than we compare. */
MUST_USE enum err eng_hf_quant_of(struct eng_hf_quant *q, const char *module, const struct eng_quant_scheme **out);

/* How many columns a module's matrix has, by its name and config.json; 0: not known. */
int64_t eng_hf_quant_cols(const struct eng_hf_quant *q, const char *module);

/* The visible tensors in place of the raw ones. Before the names are translated. Err BAD_FILE naming tensor and key. */
MUST_USE enum err eng_hf_derive(struct eng_model_file *f, struct eng_hf_quant *q, const char *arch);

/* Tensors of all experts in one (gpt-oss): is this one, are these the exponents of one; and what is made of it. Err BAD_FILE. */
bool eng_hf_is_experts(const char *name);
bool eng_hf_is_experts_scales(const char *name);
MUST_USE enum err eng_hf_derive_experts(struct eng_model_file *f, const struct model_tensor *t, const struct model_tensor *scales, struct model_tensor out[2],
                                        int *n);

#endif
