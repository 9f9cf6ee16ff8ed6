/* graphs.h: the layers of a small step on a device, told as one. Private to engine/model.
 *
 * A graph has the arguments of its kernels in it, so there is one for every number of rows and every number of attention's splits that steps
 * are rounded up to. All are made before the first step: making one takes memory. Positions, block tables and rope rows are read from the
 * device's memory, where each step puts its own. Rows that a step has too many are padding (pass.h). */
#ifndef ENGINE_MODEL_GRAPHS_H
#define ENGINE_MODEL_GRAPHS_H

#include "engine/model/pass.h"

/* The layers of a pass, on the one thread of a device's team. */
typedef void (*eng_layers_fn)(void *pass, int32_t i, int32_t n);

/* Rows that a step of n_tok tokens is computed with: n_tok itself where there are no graphs. The same on every rank of a stage. */
int32_t eng_graphs_rows(const struct eng_model *m, int32_t n_tok);
/* Is such a step told to the device without the host waiting on the way? */
bool eng_graphs_cover(const struct eng_model *m, int32_t n_tok);
/* Splits of attention that `most` of them are computed as. */
int32_t eng_graphs_splits(const struct eng_model *m, int32_t most);

/* All graphs; weights and communicators are where they will be used. Where they cannot be had the log says so, and steps do without. Collective over
 * the stage. Err: the device's, a communicator's. */
MUST_USE enum err eng_graphs_make(struct eng_model *m, eng_layers_fn layers);
/* *done: false: there is none for this pass. Err: the device's. */
MUST_USE enum err eng_graphs_run(struct eng_pass *p, bool *done);

#endif
