/* step_link.c: see step_link.h. Packing is done here once, for every implementation. */
#include "transport/step_link.h"

enum err trn_step_link_send(struct trn_step_link *l, const struct step_plan *p)
{
    buf_clear(&l->packed);
    step_plan_pack(p, &l->packed);
    if (l->packed.len > LIMIT_STEP_BYTES)
        return err_raise(ERR_LINK_PROTOCOL,
                         "a step plan of %zu bytes, at most %d are allowed; use a smaller "
                         "--max-batch-tokens",
                         l->packed.len, LIMIT_STEP_BYTES);
    return l->ops->send(l, l->packed.data, l->packed.len);
}

void trn_step_link_wake(struct trn_step_link *l) { l->ops->wake(l); }

void trn_step_link_close(struct trn_step_link *l)
{
    if (!l) return;
    buf_free(&l->packed);
    l->ops->close(l);
}
