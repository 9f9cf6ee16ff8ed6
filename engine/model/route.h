/* route.h: which experts a token visits, and with what weights. Pure. */
#ifndef ENGINE_MODEL_ROUTE_H
#define ENGINE_MODEL_ROUTE_H

#include "engine/model/spec.h"

/* logits[n] are overwritten. shift (or NULL) is added to what experts are chosen by, not to their weights. Larger first, of equals the
 * lowest id; ids ascending. Every sum is in id order; e^x is krn_exp. */
void eng_route(const struct eng_experts *x, float *logits, const float *shift, int32_t ids[], float weights[]);

#endif
