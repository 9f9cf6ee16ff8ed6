/* template.c: compile and render; the rest of template_*.c does the work. */
#include "engine/text/template.h"
#include "engine/text/template_ast.h"

#include <stdlib.h>
#include <string.h>

struct eng_template {
    struct arena arena; /* tokens, tree and the normalized source */
    struct node *root;
};

enum err eng_template_compile(struct eng_template **out, const char *source, size_t n)
{
    enum err rc = OK;
    struct eng_template *t = xcalloc(1, sizeof *t);
    struct tok *toks = NULL;
    TRY(template_lex(&t->arena, source, n, &toks));
    TRY(template_parse(&t->arena, toks, &t->root));
    *out = t;
    t = NULL;
out:
    eng_template_close(t);
    return rc;
}

void eng_template_close(struct eng_template *t)
{
    if (!t) return;
    arena_free(&t->arena);
    free(t);
}

enum err eng_template_render(const struct eng_template *t, json_t *context, int64_t now_unix,
                             struct buf *out)
{
    struct run r = {.now_unix = now_unix, .line = 1};
    struct buf text = {0};
    r.out = &text;
    scope_push(&r, NULL);
    if (!json_is_object(context))
        run_fail(&r, "the variables are no object");
    else {
        struct value vars = v_from_json(&r, context, 0);
        for (size_t i = 0; !r.rc && i < vars.dict->n; i++)
            scope_set(&r, r.scope, vars.dict->at[i].key.s, vars.dict->at[i].val);
    }
    exec_all(&r, t->root->kids, t->root->n);
    if (!r.rc) buf_put(out, text.data ? text.data : (uint8_t *)"", text.len);
    buf_free(&text);
    json_decref(r.kept);
    arena_free(&r.arena);
    return r.rc;
}
