/* plan_case.h: a published model's shape and a recorded machine, ready to be planned. */
#ifndef TESTS_SUPPORT_PLAN_CASE_H
#define TESTS_SUPPORT_PLAN_CASE_H

#include "cluster/place.h"
#include "engine/file/dtype.h"

struct plan_case {
    struct model_info info;
    struct model_weights weights;
    struct clu_topo topo;
    struct clu_work work;
    struct clu_want want;
};

/* Fails the test when something is missing. machine: a name in tests/machines, or NULL: topo is
 * left to the caller. Own: caller, free(). */
struct plan_case *plan_case_open(const char *model, enum dtype type, enum dtype ends,
                                 const char *machine, int32_t context);
/* The same from a model's file. */
struct plan_case *plan_case_of_file(const char *path, const char *machine, int32_t context);

#endif
