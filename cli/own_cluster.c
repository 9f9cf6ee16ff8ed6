/* own_cluster.c: see own_cluster.h. */
#include "cli/own_cluster.h"

#include "cli/core_options.h"
#include "cli/process.h"
#include "cli/progress.h"

enum err own_cluster_open(struct own_cluster *c, const struct common_options *o, const char *model)
{
    enum err rc;
    *c = (struct own_cluster){.core = NULL};
    process_program(c->program);
    TRY(placement_open(&c->place, o, model));
    TRY(core_options_fill(o, &c->place, c->program, &c->core_conf));
    TRY(core_options_listen(o, c->core_conf.launch == LAUNCH_MANAGED && !c->core_conf.hostfile, c->listen));
    c->core_conf.listen = c->listen;
    c->core_conf.on_change = progress_brief;
out:
    return rc;
}

enum err own_cluster_start(struct own_cluster *c)
{
    enum err rc;
    TRY(crd_core_open(&c->core, &c->core_conf));
    TRY(crd_core_start(c->core));
    TRY(crd_core_await_ready(c->core, process_stop));
out:
    return rc;
}

void own_cluster_close(struct own_cluster *c)
{
    enum { GRACE_US = 3000000 };
    crd_core_close(c->core, GRACE_US);
    c->core = NULL;
    placement_close(&c->place);
}
