/* format.h: what model_file.c and the formats share; private to engine/file.
 *
 * A format reads headers and fills in metadata and tensors; model_file.c owns files and memory, and
 * then makes the checks that hold for every format (the seal): no duplicate tensor, every one
 * inside its file, none over another. */
#ifndef ENGINE_FILE_FORMAT_H
#define ENGINE_FILE_FORMAT_H

#include "base/arena.h"
#include "engine/file/model_file.h"
#include "engine/file/name_table.h"

struct eng_format {
    const char *name; /* "GGUF" */
    /* Does a file beginning with these n bytes (n may be small) claim to be of this format?
     * NULL: the format is a directory. */
    bool (*claims)(const uint8_t *head, size_t n);
    /* Part 0 is open (no part, when the format is a directory): read its header, open and read
     * further parts, fill everything under [format]. Required. */
    enum err (*read)(struct eng_model_file *f);
};

extern const struct eng_format eng_format_gguf;
extern const struct eng_format eng_format_hf; /* a Hugging Face checkpoint's directory */

/* One file on disk. */
struct eng_part {
    int fd;
    int64_t bytes;
    char *path;      /* Own */
    uint8_t *header; /* Own; the bytes that keys and values point into */
    struct arena arena; /* what was made of them */
};

/* A small file of a checkpoint's directory, kept in memory. */
struct eng_beside {
    char *name; /* Own, as data */
    uint8_t *data;
    size_t n;
};

struct eng_model_file {
    const struct eng_format *format;
    char *path; /* Own; as it was given */
    struct eng_part *parts; /* Own */
    int32_t n_parts;
    /* [format] */
    char version[32];             /* "GGUF v3" */
    const struct model_kv *kv;    /* in an arena, like the table and the tensors' names */
    int64_t n_kv;
    struct eng_name_table keys;
    struct model_tensor *tensors; /* Own */
    int64_t n_tensors;
    struct model_tensor *raw;     /* Own; what derived tensors are made of (derived.h), or NULL */
    int64_t n_raw;
    struct eng_bands *bands;      /* Own; NULL: no tensor is derived. The one thing that reading writes */
    /* [seal] */
    struct eng_name_table tensor_names;
    struct arena arena; /* until close */
    /* [carry] the files beside it, when the model came without a directory (model_carry.h) */
    struct eng_beside *beside; /* Own */
    int32_t n_beside;
};

/* Open one more part read-only. Err IO naming the path. On success it is parts[n_parts - 1]. */
MUST_USE enum err eng_model_file_add_part(struct eng_model_file *f, const char *path);
/* Read bytes [offset, offset + n) of a part; the caller has checked them against its size. Err
 * IO. */
MUST_USE enum err eng_part_read(const struct eng_part *p, int64_t offset, int64_t n, void *dst);
/* These bytes will soon be read: a hint to the system. */
void eng_part_ahead(const struct eng_part *p, int64_t offset, int64_t n);

/* Text from a file made fit for a sentence: at most 63 characters, anything odd as '?'. */
struct eng_shown { char s[64]; };
struct eng_shown eng_show(const char *p, uint64_t n);

/* Models of other programs (foreign.c). OK when it is none of those; Err UNSUPPORTED with its name and what to do. */
MUST_USE enum err eng_foreign_dir(const struct eng_model_file *f);

#endif
