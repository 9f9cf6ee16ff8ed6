/* dtype.c: the tables behind dtype.h, and the names of the ggml types that are not ours, for
 * sentences. */
#include "engine/file/dtype.h"

#include <stddef.h>
#include <string.h>

struct layout {
    const char *name;
    uint32_t ggml;
    int32_t block, bytes;
};

static const struct layout layouts[DTYPE_COUNT] = {
#define X(name, ggml, n, bytes) {#name, ggml, n, bytes},
    DTYPE_MAP(X)
#undef X
};

/* Types that exist in the wild and that no kernel here understands: enough to check and list
 * them. */
static const struct layout foreign[] = {
    {"Q4_1", 3, 32, 20},      {"Q5_0", 6, 32, 22},      {"Q5_1", 7, 32, 24},
    {"Q8_1", 9, 32, 36},      {"Q2_K", 10, 256, 84},    {"Q3_K", 11, 256, 110},
    {"Q8_K", 15, 256, 292},   {"IQ2_XXS", 16, 256, 66}, {"IQ2_XS", 17, 256, 74},
    {"IQ3_XXS", 18, 256, 98}, {"IQ1_S", 19, 256, 50},   {"IQ4_NL", 20, 32, 18},
    {"IQ3_S", 21, 256, 110},  {"IQ2_S", 22, 256, 82},   {"IQ4_XS", 23, 256, 136},
    {"I8", 24, 1, 1},         {"I16", 25, 1, 2},        {"I32", 26, 1, 4},
    {"I64", 27, 1, 8},        {"F64", 28, 1, 8},        {"IQ1_M", 29, 256, 56},
    {"TQ1_0", 34, 256, 54},   {"TQ2_0", 35, 256, 66},   {"MXFP4", 39, 32, 17},
    /* safetensors has more types than ggml has numbers: these are ours */
    {"F8_E4M3", 0x10000, 1, 1}, {"F8_E5M2", 0x10001, 1, 1}, {"F8_E8M0", 0x10002, 1, 1},
    {"BOOL", 0x10003, 1, 1},    {"U8", 0x10004, 1, 1},      {"U16", 0x10005, 1, 2},
    {"U32", 0x10006, 1, 4},     {"U64", 0x10007, 1, 8},
};

static const struct layout *of_ggml(uint32_t ggml)
{
    for (size_t i = 0; i < COUNT_OF(layouts); i++)
        if (layouts[i].ggml == ggml) return &layouts[i];
    for (size_t i = 0; i < COUNT_OF(foreign); i++)
        if (foreign[i].ggml == ggml) return &foreign[i];
    return NULL;
}

const char *dtype_name(enum dtype t) { return t < DTYPE_COUNT ? layouts[t].name : "unsupported"; }

int32_t dtype_block(enum dtype t)
{
    ASSERT(t < DTYPE_COUNT);
    return layouts[t].block;
}

int32_t dtype_block_bytes(enum dtype t)
{
    ASSERT(t < DTYPE_COUNT);
    return layouts[t].bytes;
}

int64_t dtype_bytes(enum dtype t, int64_t n)
{
    ASSERT(n >= 0 && n % dtype_block(t) == 0);
    return n / layouts[t].block * layouts[t].bytes;
}

uint32_t dtype_ggml(enum dtype t)
{
    ASSERT(t < DTYPE_COUNT);
    return layouts[t].ggml;
}

const char *dtype_ggml_name(uint32_t ggml)
{
    const struct layout *l = of_ggml(ggml);
    return l ? l->name : "unknown";
}

bool dtype_ggml_of_name(const char *name, uint32_t *ggml)
{
    for (size_t i = 0; i < COUNT_OF(layouts) + COUNT_OF(foreign); i++) {
        const struct layout *l = i < COUNT_OF(layouts) ? &layouts[i] : &foreign[i - COUNT_OF(layouts)];
        if (strcmp(l->name, name)) continue;
        *ggml = l->ggml;
        return true;
    }
    return false;
}

bool dtype_ggml_layout(uint32_t ggml, int32_t *block, int32_t *bytes)
{
    const struct layout *l = of_ggml(ggml);
    if (!l) return false;
    *block = l->block;
    *bytes = l->bytes;
    return true;
}

enum err dtype_of_ggml(uint32_t ggml, enum dtype *out)
{
    for (int t = 0; t < DTYPE_COUNT; t++)
        if (layouts[t].ggml == ggml) {
            *out = (enum dtype)t;
            return OK;
        }
    return err_raise(
        ERR_UNSUPPORTED,
        "tensor type %u (%s) is not supported: requantise to one of F32, F16, BF16, Q8_0, Q4_0, "
        "Q4_K, Q5_K, Q6_K",
        ggml, dtype_ggml_name(ggml));
}
