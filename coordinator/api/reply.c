/* reply.c: see reply.h.
 *
 * Bytes wait in `hold` while they may be the beginning of a mark. In a call nothing is looked for
 * but the end of its JSON. `raw` keeps a section of calls as it was written until its first call
 * has a name: until then it may still be content. */
#include "coordinator/api/reply_impl.h"
#include "coordinator/api/call_python.h"
#include "coordinator/api/call_tags.h"
#include "coordinator/api/reply_name.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_HEAD = 512, MAX_CALLS = 128 };

void crd_said_free(struct crd_said *s)
{
    for (int32_t i = 0; i < s->n_calls; i++) {
        free(s->calls[i].name);
        buf_free(&s->calls[i].args);
    }
    free(s->calls);
    buf_free(&s->text);
    buf_free(&s->thoughts);
    *s = (struct crd_said){0};
}

struct crd_reply *crd_reply_open(const struct crd_reply_conf *conf)
{
    struct crd_reply *r = xcalloc(1, sizeof *r);
    r->conf = *conf;
    r->where = conf->thinking && conf->think ? THOUGHTS : START;
    r->fresh = true;
    return r;
}

void crd_reply_close(struct crd_reply *r)
{
    if (!r) return;
    buf_free(&r->hold);
    buf_free(&r->space);
    buf_free(&r->raw);
    buf_free(&r->head);
    crd_call_json_free(&r->object);
    free(r);
}

bool crd_reply_thinking(const struct crd_reply *r)
{
    return r->where == THOUGHTS;
}

bool crd_reply_holds(const struct crd_reply *r)
{
    if (r->where == THOUGHTS || r->where == OVER) return false;
    return r->hold.len || r->space.len || (r->raw.len && !r->named);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static void move(struct buf *from, struct buf *to)
{
    buf_put(to, buf_str(from), from->len);
    buf_clear(from);
}

/* ---- calls ---- */

/* It was none: what was written is content, and so is everything that follows in a bare reply. */
static void not_a_call(struct crd_reply *r, struct crd_said *to)
{
    if (!r->named) move(&r->raw, &to->text);
    buf_clear(&r->raw);
    buf_clear(&r->head);
    r->fresh = false;
    r->where = CONTENT;
    if (r->bare) r->conf.calls = NULL;
}

static void begin_section(struct crd_reply *r, bool bare)
{
    r->bare = bare;
    r->named = false;
    r->where = HEAD;
    buf_clear(&r->head);
    buf_clear(&r->raw);
    move(&r->space, &r->raw);
}

static bool begin_call(struct crd_reply *r, const char *name, struct crd_said *to)
{
    if (!crd_reply_name_good(name) || to->n_calls == MAX_CALLS) return false;
    if (r->bare && r->conf.tools && !crd_reply_offered(r->conf.tools, name)) return false;
    to->calls = xrealloc(to->calls, (size_t)(to->n_calls + 1) * sizeof *to->calls);
    struct crd_call *c = &to->calls[to->n_calls++];
    *c = (struct crd_call){.name = xstrdup(name)};
    crd_reply_draw_id(c->id, r->conf.calls && r->conf.calls->short_ids, r->conf.id_seed,
                      to->n_calls - 1);
    r->named = true;
    buf_clear(&r->raw);
    return true;
}

static void end_call(struct crd_reply *r, struct crd_said *to, bool any_args)
{
    struct crd_call *c = &to->calls[to->n_calls - 1];
    if (!any_args) buf_puts(&c->args, "{}");
    c->complete = true;
    r->named = false;
    r->where = r->conf.one_call ? OVER : AFTER;
    buf_clear(&r->head);
}

static void in_object(struct crd_reply *r, char c, struct crd_said *to)
{
    struct crd_call_json *j = &r->object;
    bool had_name = j->name_known;
    if (!had_name) buf_putc(&r->raw, c);
    enum call_json_state s = crd_call_json_push(j, c);
    if (j->name_known && !had_name && !begin_call(r, buf_str(&j->name), to)) {
        not_a_call(r, to);
        return;
    }
    if (j->name_known) move(&j->args, &to->calls[to->n_calls - 1].args);
    if (s == CALL_JSON_GOES_ON) return;
    if (j->name_known)
        end_call(r, to, j->has_args);
    else
        not_a_call(r, to);
    if (s == CALL_JSON_BROKEN && c == '<' && r->where == AFTER) buf_putc(&r->hold, c);
}

static void in_args(struct crd_reply *r, char c, struct crd_said *to)
{
    bool taken, over = crd_json_span(&r->span, c, &taken);
    buf_putc(&to->calls[to->n_calls - 1].args, c);
    if (over) end_call(r, to, true);
}

/* The '{' of a call: what stands before it in the section says which kind of call this is. */
static void begin_braces(struct crd_reply *r, struct crd_said *to)
{
    char name[REPLY_NAME_MAX];
    if (!crd_reply_name_of(buf_str(&r->head), r->head.len, name)) {
        not_a_call(r, to);
    } else if (!*name) {
        crd_call_json_open(&r->object, r->bare);
        r->where = OBJECT;
    } else if (!r->bare && begin_call(r, name, to)) {
        r->span = (struct json_span){0};
        r->where = ARGS;
        in_args(r, '{', to);
    } else {
        not_a_call(r, to);
    }
}

/* The body of a section that is read when it is whole. */
static const char *body_of(struct crd_reply *r, size_t *n)
{
    const char *text = buf_str(&r->raw), *open = r->conf.calls->open,
               *at = strstr(text, open) + strlen(open);
    *n = r->raw.len - (size_t)(at - text);
    return at;
}

static bool one_whole(struct crd_reply *r, const char *name, const char *args, struct crd_said *to)
{
    if (!begin_call(r, name, to)) return false;
    buf_puts(&to->calls[to->n_calls - 1].args, args);
    end_call(r, to, true);
    return true;
}

static bool tags(struct crd_reply *r, const char *body, size_t n, struct crd_said *to)
{
    struct buf name = {0}, args = {0};
    bool good = crd_call_tags(body, n, r->conf.tools, &name, &args) &&
                one_whole(r, buf_str(&name), buf_str(&args), to);
    buf_free(&name);
    buf_free(&args);
    return good;
}

static bool python(struct crd_reply *r, const char *body, size_t n, struct crd_said *to)
{
    json_t *calls = crd_call_python(body, n), *one;
    bool good = json_array_size(calls) > 0;
    size_t i;
    json_array_foreach(calls, i, one)
        good &= crd_reply_name_good(json_string_value(json_array_get(one, 0)));
    for (i = 0; i < (r->conf.one_call ? 1 : json_array_size(calls)) && good; i++) {
        one = json_array_get(calls, i);
        if (!one_whole(r, json_string_value(json_array_get(one, 0)),
                       json_string_value(json_array_get(one, 1)), to))
            break; /* too many: the rest is lost, as in other syntaxes */
    }
    json_decref(calls);
    return good && i > 0;
}

/* The end of a section that is read when it is whole. */
static void end_tagged(struct crd_reply *r, struct crd_said *to)
{
    size_t n;
    struct buf text = {0};
    const char *body = body_of(r, &n);
    buf_put(&text, body, n); /* r->raw is emptied by the first call */
    bool good = r->conf.calls->args->python ? python(r, buf_str(&text), n, to)
                                            : tags(r, buf_str(&text), n, to);
    if (good) {
        if (r->where == AFTER) r->where = CONTENT;
        buf_clear(&r->hold);
    } else {
        move(&r->hold, &r->raw);
        not_a_call(r, to);
    }
    buf_free(&text);
}

/* ---- bytes that belong to no mark ---- */

static void in_head(struct crd_reply *r, char c, struct crd_said *to)
{
    buf_putc(&r->raw, c);
    bool lead = is_space(c) || c == '[';
    if (c == '{')
        begin_braces(r, to);
    else if (r->head.len == MAX_HEAD || (r->bare && !lead))
        not_a_call(r, to);
    else
        buf_putc(&r->head, c);
}

/* A '{' first: it is JSON after all. */
static void in_tagged(struct crd_reply *r, char c, struct crd_said *to)
{
    size_t n;
    const char *body = body_of(r, &n);
    if (c == '{' && strspn(body, " \t\r\n[") == n) {
        r->where = HEAD;
        in_head(r, c, to);
    } else {
        buf_putc(&r->raw, c);
    }
}

static void in_content(struct crd_reply *r, char c, struct crd_said *to)
{
    bool tools = r->conf.calls != NULL;
    if (is_space(c) && (tools || r->fresh)) {
        if (!r->fresh || !r->trims) buf_putc(&r->space, c);
        return;
    }
    bool bare = r->where == START && tools && r->conf.calls->bare && (c == '{' || c == '[');
    if (bare) {
        begin_section(r, true);
        in_head(r, c, to);
        return;
    }
    move(&r->space, &to->text);
    buf_putc(&to->text, c);
    r->fresh = false;
    r->where = CONTENT;
}

static void in_thoughts(struct crd_reply *r, char c, struct crd_said *to)
{
    if (is_space(c)) {
        buf_putc(&r->space, c);
        return;
    }
    if (!r->fresh) move(&r->space, &to->thoughts);
    buf_clear(&r->space);
    r->fresh = false;
    buf_putc(&to->thoughts, c);
}

static void plain(struct crd_reply *r, char c, struct crd_said *to)
{
    switch (r->where) {
    case START:
    case CONTENT:
        in_content(r, c, to);
        break;
    case THOUGHTS:
        in_thoughts(r, c, to);
        break;
    case HEAD:
        in_head(r, c, to);
        break;
    case TAGGED:
        in_tagged(r, c, to);
        break;
    case OBJECT:
        in_object(r, c, to);
        break;
    case ARGS:
        in_args(r, c, to);
        break;
    case AFTER:
        if (c == '{') {
            r->where = HEAD;
            in_head(r, c, to);
        } else if (!c || (!is_space(c) && !strchr(",;[]`", c))) {
            r->where = CONTENT;
            in_content(r, c, to);
        }
        break;
    case OVER:
        break;
    }
}

static void on_mark(struct crd_reply *r, enum mark m, struct crd_said *to)
{
    bool in_call = r->where == HEAD, section = in_call || r->where == AFTER;
    switch (m) {
    case THINK_OPEN:
    case THINK_CLOSE: /* white space around thoughts is nobody's */
        buf_clear(&r->space);
        r->fresh = r->trims = true;
        r->where = m == THINK_OPEN ? THOUGHTS : START;
        if (m == THINK_CLOSE) r->conf.think = NULL;
        break;
    case OPEN:
        if (!section || r->bare) begin_section(r, false);
        r->where = r->conf.calls->args ? TAGGED : HEAD;
        buf_clear(&r->head);
        break;
    case CALL_OPEN:
    case CALL_CLOSE:
        r->where = m == CALL_OPEN ? HEAD : AFTER;
        buf_clear(&r->head);
        break;
    case SEP:
        buf_putc(&r->head, REPLY_NAME_SEP);
        break;
    case CLOSE:
        if (r->where == TAGGED) {
            end_tagged(r, to);
            return;
        }
        r->where = CONTENT;
        break;
    case MARK_NONE:
    case MARK_MAYBE:
        break;
    }
    if (r->where == HEAD || r->where == TAGGED || in_call) move(&r->hold, &r->raw);
    buf_clear(&r->hold);
    if (in_call && r->where != HEAD) not_a_call(r, to); /* it ended before it began */
}

static char pop(struct buf *b)
{
    char c = (char)b->data[0];
    memmove(b->data, b->data + 1, --b->len);
    b->data[b->len] = 0;
    return c;
}

/* Give what is held to its place; a byte that may begin a mark stays, unless no more will come. */
static void settle(struct crd_reply *r, bool last, struct crd_said *to)
{
    while (r->hold.len) {
        enum mark m = r->where == OBJECT || r->where == ARGS ? MARK_NONE : crd_reply_match(r);
        if (m == MARK_MAYBE && !last) return;
        if (m > MARK_MAYBE) {
            on_mark(r, m, to);
            continue;
        }
        char c = pop(&r->hold);
        struct buf rest = r->hold;
        r->hold = (struct buf){0};
        plain(r, c, to); /* may put the byte back */
        buf_put(&r->hold, buf_str(&rest), rest.len);
        buf_free(&rest);
    }
}

bool crd_reply_push(struct crd_reply *r, const char *text, size_t n, struct crd_said *to)
{
    for (size_t i = 0; i < n && r->where != OVER; i++) {
        buf_putc(&r->hold, text[i]);
        settle(r, false, to);
    }
    return r->where == OVER;
}

void crd_reply_finish(struct crd_reply *r, struct crd_said *to)
{
    settle(r, true, to);
    if (r->where == TAGGED) end_tagged(r, to); /* whole, but for its end mark, or none */
    if (r->where == THOUGHTS && !r->fresh)
        move(&r->space, &to->thoughts);
    else if ((r->where == HEAD || r->where == OBJECT) && !r->named)
        not_a_call(r, to);
    else if (!to->n_calls && r->where != THOUGHTS)
        move(&r->space, &to->text);
}
