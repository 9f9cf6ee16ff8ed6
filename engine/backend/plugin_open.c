/* plugin_open.c: see plugin_open.h. */
#include "engine/backend/plugin_open.h"

#include "engine/kernels/pack.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char file_name[] = "libtessera_cuda.so";

/* Is there a file, and which: the first of those that exist. */
static bool find(char *path, size_t size)
{
    static const char *const places[] = {"", "../lib/tessera/"};
    const char *said = getenv("TESSERA_CUDA_PLUGIN");
    char exe[PATH_MAX];
    if (said) return snprintf(path, size, "%s", said) < (int)size;
    ssize_t n = readlink("/proc/self/exe", exe, sizeof exe - 1);
    while (n > 0 && exe[n - 1] != '/') n--;
    for (size_t i = 0; n > 0 && i < COUNT_OF(places); i++)
        if (snprintf(path, size, "%.*s%s%s", (int)n, exe, places[i], file_name) < (int)size && !access(path, R_OK)) return true;
    return false;
}

enum err eng_plugin_open(void **library, const struct plugin **out)
{
    char path[PATH_MAX];
    if (!find(path, sizeof path))
        return err_raise(ERR_BAD_CONFIG, "this build has no GPU support (%s is not beside the program): build where nvcc is found, see README", file_name);
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!lib) return err_raise(ERR_BAD_CONFIG, "%s cannot be loaded: %s", path, dlerror());
    plugin_entry_fn entry;
    *(void **)&entry = dlsym(lib, PLUGIN_ENTRY);
    const struct plugin *p = entry ? entry() : NULL;
    if (!p || p->abi != PLUGIN_ABI || p->layout != KRN_LAYOUT_VERSION) {
        enum err e = err_raise(ERR_BAD_CONFIG, "%s is of another version of tessera (%d.%d, needed %d.%d): install the two together", path,
                               p ? p->abi : 0, p && p->abi == PLUGIN_ABI ? p->layout : 0, PLUGIN_ABI, KRN_LAYOUT_VERSION);
        dlclose(lib);
        return e;
    }
    *library = lib;
    *out = p;
    return OK;
}

/* The CUDA runtime keeps threads and handlers of its own: its library stays until the process ends. */
void eng_plugin_close(void *library) { (void)library; }
