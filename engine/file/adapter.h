/* adapter.h: what a LoRA adapter's file holds: pairs of matrices (A, B), each beside one matrix of a base model, by GGUF's names.
 *
 * y = W x + scale * B (A x). The file is a model_file without a model: PEFT's directory (adapter_config.json and
 * adapter_model.safetensors, which eng_model_file_open gives GGUF's keys), or a GGUF file whose general.type is "adapter".
 * Which sizes a base has is not known here (engine/model/lora.h). */
#ifndef ENGINE_FILE_ADAPTER_H
#define ENGINE_FILE_ADAPTER_H

#include "engine/file/model_file.h"

/* The matrix that a pair stands beside. A fused one is of several: attn_qkv of three; ffn_up with twice the rows of gate and up. */
enum eng_adapter_target { ADAPTER_Q, ADAPTER_K, ADAPTER_V, ADAPTER_O, ADAPTER_GATE, ADAPTER_UP, ADAPTER_DOWN, ADAPTER_TARGETS, ADAPTER_QKV = ADAPTER_TARGETS };

struct eng_adapter_pair {
    int32_t layer;
    enum eng_adapter_target target;
    const struct model_tensor *a, *b; /* dims: [inputs, rank], [rank, outputs]; F32, F16 or BF16 */
    float scale;                      /* alpha / rank, or alpha / sqrt(rank) */
    char module[64];                  /* as the file names it, for sentences */
};

struct eng_adapter {
    struct eng_adapter_pair *pairs;
    int32_t n;
    bool checkpoint;                  /* rows stand as in a checkpoint of transformers, not as in a GGUF file */
};

/* Does the file say that it is an adapter? */
bool eng_adapter_is(const struct eng_model_file *f);
/* Err UNSUPPORTED (something that is not computed here: module and remedy; an adapter of another architecture than `arch`, GGUF's name of
 * the base's), BAD_FILE (half a pair; shapes that do not fit each other). Own: eng_adapter_free. */
MUST_USE enum err eng_adapter_read(struct eng_adapter *out, const struct eng_model_file *f, const char *arch);
void eng_adapter_free(struct eng_adapter *a);

#endif
