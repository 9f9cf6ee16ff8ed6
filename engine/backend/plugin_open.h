/* plugin_open.h: finding and opening the plug-in's file. Private to engine/backend. */
#ifndef ENGINE_BACKEND_PLUGIN_OPEN_H
#define ENGINE_BACKEND_PLUGIN_OPEN_H

#include "engine/backend/plugin.h"

/* The file that TESSERA_CUDA_PLUGIN names, else libtessera_cuda.so beside the program or in ../lib/tessera of it.
 * Err BAD_CONFIG: not there (with how to build it), not loadable (with the loader's reason), of another version. */
MUST_USE enum err eng_plugin_open(void **library, const struct plugin **out);
void eng_plugin_close(void *library); /* NULL-safe */

#endif
