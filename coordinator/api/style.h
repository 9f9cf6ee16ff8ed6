/* style.h: how a model writes what is not plain text: its tool calls and its thoughts.
 *
 * A model was trained with one chat template, and the template's text shows how calls and thoughts
 * are written into a conversation: the same marks come out of the model. So the style is recognised
 * from that text; nobody has to name a parser. Immutable. Thr: any. */
#ifndef COORDINATOR_API_STYLE_H
#define COORDINATOR_API_STYLE_H

#include <stdbool.h>
#include <stddef.h>

/* How the arguments of a call are written where they are no JSON object (engine/grammar/schema.h). */
struct crd_args_form {
    const char *open, *mid, *close, *sep, *raw;
    bool python; /* a list of calls as Python writes them (call_python.h); else tags (call_tags.h) */
};

/* One way of writing calls. A section of calls begins with `open`; in it each call is either a JSON
 * object with name and arguments, or a name followed by a JSON object of arguments. */
struct crd_call_style {
    const char *name;
    const char *known_by[2];          /* parts of the template's text, any of which will do; or NULL */
    const struct crd_args_form *args; /* NULL: JSON */
    bool bare;         /* a reply that begins with JSON is a call, if it names one of the tools */
    const char *open;  /* NULL: only bare */
    const char *close; /* NULL: a section has no mark of its end */
    const char *call_open, *call_close; /* around each call of a section; or NULL */
    const char *sep[2];                 /* between a name and what follows it; or NULL */
    bool short_ids; /* the template takes ids of exactly nine letters and digits only */
    struct crd_call_form {
        const char *if_has; /* a part of the template's text; NULL: any */
        const char *first, *call, *sep, *last;
    } forms[2]; /* how calls are written, the first that applies. %N name, %A arguments, %I a
                   number; sep NULL: one call only */
};

/* Marks around thoughts. */
struct crd_think_style {
    const char *open, *close;
};

struct crd_style {
    const struct crd_call_style *calls;  /* never NULL */
    const struct crd_call_form *form;    /* never NULL */
    const struct crd_think_style *think; /* NULL: no thoughts apart */
    bool takes_tools; /* the template shows tools to the model; if not, we have to (tools_prompt.h)
                       */
};

/* From a template's source; NULL or "" : as of one that knows neither. */
struct crd_style crd_style_of(const char *source);
/* The styles by index, in the order they are tried; NULL after the last. */
const struct crd_call_style *crd_style_at(size_t i);
/* Is this text one of the marks? Then its token is shown, though it may be a control token. */
bool crd_style_is_mark(const struct crd_call_style *calls, const struct crd_think_style *think,
                       const char *text);

#endif
