/* limits.h: every bound that two processes must agree on. */
#ifndef PROTO_LIMITS_H
#define PROTO_LIMITS_H

enum {
    LIMIT_BLOCK_TOKENS = 16,      /* positions per KV block */
    LIMIT_GROUPS = 8,             /* groups of layers in the KV pool (proto/kv_groups.h) */
    LIMIT_SLOTS = 1024,           /* sequences in state on the ranks at once */
    LIMIT_STEP_TOKENS = 8192,     /* input tokens of one step */
    LIMIT_STEP_ITEMS = 1024,      /* sequences in one step */
    LIMIT_STEP_BYTES = 16 << 20,  /* one packed step plan */
    LIMIT_STOP_IDS = 64,
    LIMIT_LOGIT_BIAS = 1024,
    LIMIT_ALLOWED_IDS = 1 << 15,
    LIMIT_BAD_IDS = 4096,         /* of all bad words, and their lengths */
    LIMIT_BREAKER_BYTES = 1024,   /* of all sequence breakers, and their lengths */
    LIMIT_THINK_IDS = 16,
    LIMIT_GRAMMAR_BYTES = 1 << 20, /* source of a grammar */
    LIMIT_LOGPROBS = 20,
    LIMIT_POOLED = 1 << 16,       /* values of a pooled hidden state */
    LIMIT_CONTEXT = 1 << 20,
    LIMIT_RANKS = 64,
    LIMIT_ADAPTERS = 32,          /* LoRA adapters beside one model */
    LIMIT_LAYERS = 256,
    LIMIT_EXPERTS = 1024,         /* of a layer */
    LIMIT_FFN_LEAVES = 128,       /* of FFN down (proto/leaves.h) */
    LIMIT_FRAME_BYTES = 32 << 20, /* one control frame */
    LIMIT_RESULT_TOKENS = 8,      /* tokens a slot may gain in one step */
};

#endif
