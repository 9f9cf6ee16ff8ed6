/* foreign.c: model directories of other programs, refused by their name and with what to do instead: their
 * weights were made of a checkpoint for one engine, and that checkpoint is what to start from. */
#include "engine/file/format.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MOST_ENTRIES = 10000 };

static enum err refuse(const struct eng_model_file *f, const char *what)
{
    return err_raise(ERR_UNSUPPORTED, "%s: %s; take the checkpoint that it was made of: its directory of safetensors runs as it is, and "
                     "`tessera quantize DIR OUT.gguf Q4_K_M` makes it as small", f->path, what);
}

static bool has(const struct eng_model_file *f, const char *name)
{
    struct stat st;
    char *path = xasprintf("%s/%s", f->path, name);
    bool yes = !stat(path, &st);
    free(path);
    return yes;
}

static bool ends_with(const char *name, const char *end)
{
    size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcmp(name + n - m, end);
}

/* Of the directory, or of its folder onnx/. */
static bool has_onnx(const struct eng_model_file *f, const char *sub)
{
    char *path = xasprintf("%s%s", f->path, sub);
    DIR *d = opendir(path);
    bool yes = false;
    struct dirent *e;
    for (int i = 0; d && !yes && i < MOST_ENTRIES && (e = readdir(d)); i++) yes = ends_with(e->d_name, ".onnx");
    if (d) closedir(d);
    free(path);
    return yes;
}

enum err eng_foreign_dir(const struct eng_model_file *f)
{
    if (has(f, "mlc-chat-config.json") || has(f, "ndarray-cache.json") || has(f, "tensor-cache.json"))
        return refuse(f, "an MLC model (mlc_llm convert_weight)");
    bool weights = has(f, "model.safetensors") || has(f, "model.safetensors.index.json");
    if (has(f, "genai_config.json") || (!weights && (has_onnx(f, "") || has_onnx(f, "/onnx")))) return refuse(f, "an ONNX model");
    return OK;
}
