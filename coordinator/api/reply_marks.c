/* reply_marks.c: which marks may stand where. */
#include "coordinator/api/reply_impl.h"

#include <string.h>

enum mark crd_reply_match(const struct crd_reply *r)
{
    const struct crd_call_style *c = r->conf.calls;
    const struct crd_think_style *t = r->conf.think;
    const bool outside = r->where == START || r->where == CONTENT,
               inside = r->where == HEAD || r->where == AFTER,
               json = inside && !(c && c->args);
    const struct {
        const char *text;
        enum mark mark;
        bool here;
    } marks[] = {
        {t ? t->open : NULL, THINK_OPEN, r->where == START || (r->where == THOUGHTS && r->fresh)},
        {t ? t->close : NULL, THINK_CLOSE, r->where == THOUGHTS},
        {c ? c->open : NULL, OPEN, outside || inside},
        {c ? c->close : NULL, CLOSE, inside || r->where == TAGGED},
        {c ? c->call_open : NULL, CALL_OPEN, json},
        {c ? c->call_close : NULL, CALL_CLOSE, json},
        {c ? c->sep[0] : NULL, SEP, json && r->where == HEAD},
        {c ? c->sep[1] : NULL, SEP, json && r->where == HEAD},
    };
    enum mark found = MARK_NONE;
    for (size_t i = 0; i < COUNT_OF(marks); i++) {
        if (!marks[i].here || !marks[i].text) continue;
        size_t n = strlen(marks[i].text);
        if (r->hold.len > n || memcmp(marks[i].text, r->hold.data, r->hold.len)) continue;
        if (r->hold.len == n) return marks[i].mark;
        found = MARK_MAYBE;
    }
    return found;
}
