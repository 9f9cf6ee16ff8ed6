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
    {"Q8_1", 9, 32, 36}, {"Q8_K", 15, 256, 292}, {"I8", 24, 1, 1},  {"I16", 25, 1, 2},
    {"I32", 26, 1, 4},   {"I64", 27, 1, 8},      {"F64", 28, 1, 8}, {"NVFP4", 40, 64, 36},
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

const char *dtype_all_names(void)
{
    static const char names[] =
#define X(name, ggml, n, bytes) ", " #name
        DTYPE_MAP(X);
#undef X
    return names + 2;
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
    return err_raise(ERR_UNSUPPORTED, "tensor type %u (%s) is not supported: requantise to one of %s", ggml,
                     dtype_ggml_name(ggml), dtype_all_names());
}
