/* Any bytes as a file of the cache of packed tiles, and as its name. The fields that a reader expects come from the bytes too, as a stranger
 * would choose them; half of the inputs are sealed rightly first, so that what lies behind the checksum is reached. */
#include "engine/model/shard_cache_impl.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void name(const uint8_t *data, size_t n)
{
    struct shard_entry e, again;
    char here[] = "";
    struct eng_shard_cache c = {.dir = here, .model = 7};
    char *text = xstrndup((const char *)data, MIN(n, 200));
    if (eng_shard_entry_of(text, 7, &e)) {
        char *path = eng_shard_path(&c, &e);
        if (!eng_shard_entry_of(path + 1, 7, &again) || memcmp(&e, &again, sizeof e)) abort();
        free(path);
    }
    free(text);
}

/* The seal that these bytes should have. */
static void seal(uint8_t *head, const struct eng_shard_file *s)
{
    uint64_t v = XXH3_64bits_withSeed(head + SHARD_HEAD, (size_t)eng_shard_chunks(s) * 8, XXH3_64bits(head, SHARD_HEAD - 8));
    memcpy(head + SHARD_HEAD - 8, &v, sizeof v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    struct eng_shard_file s = {0};
    name(data, n);
    if (n < SHARD_HEAD + 9) return 0;
    uint8_t how = data[0];
    uint8_t *head = xmalloc(n - 1); /* exactly: a byte too far is seen */
    memcpy(head, data + 1, --n);
    memcpy(&s.type, head + 8, 4);
    memcpy(&s.chunk_tiles, head + 12, 4);
    uint64_t *fields[] = {&s.tile_bytes, &s.tiles, &s.model, &s.tensor, &s.row0, &s.row1, &s.k0, &s.k1};
    for (size_t i = 0; i < COUNT_OF(fields); i++) memcpy(fields[i], head + 16 + 8 * i, 8);
    int64_t file = how & 2 ? (int64_t)n : (int64_t)((uint64_t)n + s.tiles * s.tile_bytes);
    if (eng_shard_fits(&s, file) && (how & 1) && eng_shard_data_at(&s) <= (int64_t)n) {
        memcpy(head, "TSRTILE1", 8);
        seal(head, &s);
    }
    if (eng_shard_check(&s, head, (int64_t)n, file)) {
        int64_t at = eng_shard_data_at(&s);
        uint8_t *own = xmalloc((size_t)at);
        eng_shard_head(&s, own);
        if (at > (int64_t)n || memcmp(own, head, SHARD_HEAD + 8 * (size_t)eng_shard_chunks(&s))) abort();
        free(own);
    }
    free(s.sums);
    free(head);
    return 0;
}
