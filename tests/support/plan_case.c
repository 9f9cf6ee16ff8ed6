/* plan_case.c: see plan_case.h. */
#include "tests/support/plan_case.h"

#include "engine/engine.h"
#include "tests/support/scratch.h"
#include "tests/support/shape_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

struct plan_case *plan_case_of_file(const char *path, const char *machine, int32_t context)
{
    struct plan_case *c = xcalloc(1, sizeof *c);
    char file[256];
    if (eng_engine_model_info(path, &c->info) || eng_engine_weights(path, &c->weights))
        fail_msg("%s", err_text());
    snprintf(file, sizeof file, "tests/machines/%s.topo", machine ? machine : "");
    clu_topo_init(&c->topo);
    if (machine && clu_topo_read(&c->topo, file)) fail_msg("%s", err_text());
    c->work = (struct clu_work){.info = &c->info,
                                .weights = &c->weights,
                                .rates = &clu_rates_default,
                                .context = context,
                                .depth = MIN(512, context / 2),
                                .max_step_tokens = 512,
                                .n_slots = 64,
                                .kv_type = KV_F16};
    c->want = (struct clu_want){.users = 8};
    return c;
}

struct plan_case *plan_case_open(const char *model, enum dtype type, enum dtype ends,
                                 const char *machine, int32_t context)
{
    char name[96];
    snprintf(name, sizeof name, "%s-%d-%d.gguf", model, type, ends);
    const char *path = scratch_path(name);
    if (shape_model_write(shape_model_named(model), type, ends, path)) fail_msg("%s", err_text());
    return plan_case_of_file(path, machine, context);
}
