/* cmd_chat.c: `tessera chat`: a conversation with a running server, in a terminal or one message of a script. */
#include "cli/client.h"
#include "cli/commands.h"
#include "cli/sse.h"

#include "base/clock.h"
#include "base/plain.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { UNSAID = -1 /* of a number: as the server has it */ };

struct options {
    struct client_options server; /* first: the shared table's offsets */
    const char *model, *system;
    int64_t max_tokens, seed;
    double temperature, top_p;
    bool timings;
};

#define O(f) offsetof(struct options, f)
static const struct conf_opt table[] = {
    {"model", CONF_STR, O(model), NULL, 0, 0, "NAME", "of those that the server lists at /v1/models; default: the first"},
    {"system", CONF_STR, O(system), NULL, 0, 0, "TEXT", "a system message, before the conversation"},
    {"max-tokens", CONF_INT, O(max_tokens), "-1", UNSAID, 1e9, "N", "tokens of an answer at most; -1: as many as there is room for",
     "n-predict predict max-new-tokens num-predict"},
    {"temperature", CONF_FLOAT, O(temperature), "-1", UNSAID, 1000, "X", "0: greedy; -1: as the server has it"},
    {"top-p", CONF_FLOAT, O(top_p), "-1", UNSAID, 1, "X", "nucleus; -1: as the server has it"},
    {"seed", CONF_INT, O(seed), "-1", UNSAID, 9.2e18, "N", "-1: a random one"},
    {"timings", CONF_FLAG, O(timings), NULL, 0, 0, "on|off", "after each answer: tokens, seconds to the first one, tokens per second", "verbose"},
    {0},
};
static const struct conf_opt *const groups[] = {client_option_table, table, NULL};
static const struct conf_table conf = {
    "chat", "chat [TEXT] [options]",
    "Talk with the model of a running server, this one's or any that speaks OpenAI's API (--url). With TEXT, or a text on standard input, one answer.\n"
    "  tessera chat\n"
    "  tessera chat 'Why is the sky blue?' --max-tokens 200\n"
    "  tessera chat --url http://big:8000 < question.txt", groups, 0, 1};

static const char commands[] =
    "A line is a message; one that ends with \\ goes on in the next, and \"\"\" before and after holds several.\n"
    "  /clear        forget the conversation\n"
    "  /system TEXT  a system message from now on; the conversation begins anew\n"
    "  /help         this\n"
    "  /exit         or Ctrl-D: the end. Ctrl-C ends an answer.\n";

static volatile sig_atomic_t interrupted;
static void on_sigint(int signal) { (void)signal, interrupted = 1; }
static bool stop(void) { return interrupted != 0; }

/* ---- one answer ---- */

struct answer {
    struct sse sse;
    struct buf text;
    bool terminal, thinks; /* thinks: the last that came was thought, shown dim */
    bool cut;              /* at the number of tokens */
    int64_t begun, first;  /* us; 0: nothing has come */
    long tokens;
};

static void say(struct answer *a, const char *text, bool thought)
{
    if (!text || !*text) return;
    if (!a->first) a->first = clock_us();
    if (thought != a->thinks) {
        a->thinks = thought;
        if (a->terminal) fputs(thought ? "\033[2m" : "\033[0m", stdout);
        if (!thought) fputs("\n\n", stdout);
    }
    plain_write(stdout, text, strlen(text)); /* what a model says must not steer the terminal */
    fflush(stdout);
    if (!thought) buf_puts(&a->text, text);
}

static enum err on_event(void *user, const json_t *e)
{
    struct answer *a = user;
    const json_t *error = json_object_get(e, "error"), *choice = json_array_get(json_object_get(e, "choices"), 0), *delta = json_object_get(choice, "delta");
    const json_t *usage = json_object_get(e, "usage");
    const char *why = json_string_value(json_object_get(choice, "finish_reason")), *thought = json_string_value(json_object_get(delta, "reasoning_content"));
    if (json_is_object(error)) {
        const char *text = json_string_value(json_object_get(error, "message"));
        return err_raise(ERR_BAD_REQUEST, "the server broke the answer off: %s", text ? text : "(without a sentence)");
    }
    say(a, thought ? thought : json_string_value(json_object_get(delta, "reasoning")), true);
    say(a, json_string_value(json_object_get(delta, "content")), false);
    if (why) a->cut = !strcmp(why, "length");
    if (json_is_object(usage)) a->tokens = (long)json_integer_value(json_object_get(usage, "completion_tokens"));
    return OK;
}

static enum err on_bytes(void *user, const void *data, size_t n)
{
    struct answer *a = user;
    return sse_feed(&a->sse, data, n, on_event, a);
}

static void tell_timings(const struct answer *a)
{
    double seconds = (double)(clock_us() - a->first) / 1e6;
    if (!a->first) return;
    fprintf(stderr, "(%ld tokens, the first after %.2f s", a->tokens, (double)(a->first - a->begun) / 1e6);
    if (a->tokens > 1 && seconds > 1e-3) fprintf(stderr, ", then %.1f tokens/s", (double)(a->tokens - 1) / seconds);
    fputs(")\n", stderr);
}

/* ---- the conversation ---- */

struct chat {
    struct options o;
    struct client c;
    char *model;
    json_t *messages;
    bool terminal;
};

static void begin_anew(struct chat *c)
{
    json_array_clear(c->messages);
    if (c->o.system) json_array_append_new(c->messages, json_pack("{s:s, s:s}", "role", "system", "content", c->o.system));
}

static char *body_of(const struct chat *c)
{
    json_t *b = json_pack("{s:s, s:O, s:b, s:{s:b}}", "model", c->model, "messages", c->messages, "stream", 1, "stream_options", "include_usage", 1);
    if (c->o.max_tokens >= 0) json_object_set_new(b, "max_tokens", json_integer(c->o.max_tokens));
    if (c->o.temperature >= 0) json_object_set_new(b, "temperature", json_real(c->o.temperature));
    if (c->o.top_p >= 0) json_object_set_new(b, "top_p", json_real(c->o.top_p));
    if (c->o.seed >= 0) json_object_set_new(b, "seed", json_integer(c->o.seed));
    char *text = json_dumps(b, JSON_COMPACT);
    json_decref(b);
    return text;
}

/* A message and its answer, onto the screen and into the conversation; of an interrupted answer what has come. */
static enum err turn(struct chat *c, const char *text)
{
    json_t *message = json_pack("{s:s, s:s}", "role", "user", "content", text);
    if (!message) return err_raise(ERR_BAD_REQUEST, "the message is not UTF-8");
    json_array_append_new(c->messages, message);
    struct answer a = {.terminal = c->terminal, .begun = clock_us()};
    char *body = body_of(c);
    interrupted = 0;
    enum err rc = client_stream(&c->c, "/v1/chat/completions", body, on_bytes, &a);
    if (a.thinks && c->terminal) fputs("\033[0m", stdout);
    if (a.first) putchar('\n');
    fflush(stdout);
    if (!rc && !a.sse.done && !interrupted) rc = err_raise(ERR_UNAVAILABLE, "the server left in the middle of the answer");
    if (!rc && a.cut) fprintf(stderr, "(cut off: no more than --max-tokens, or no more room in the context)\n");
    if (c->o.timings) tell_timings(&a);
    if (a.text.len) json_array_append_new(c->messages, json_pack("{s:s, s:s}", "role", "assistant", "content", buf_str(&a.text)));
    else json_array_remove(c->messages, json_array_size(c->messages) - 1); /* a question without an answer is no part of it */
    sse_free(&a.sse);
    buf_free(&a.text);
    free(body);
    return rc;
}

/* ---- a terminal ---- */

/* One line without its newline, after what is in *b. False: the end, or Ctrl-C. */
static bool read_line(const char *prompt, struct buf *b)
{
    char *line = NULL;
    size_t room = 0;
    fputs(prompt, stdout);
    fflush(stdout);
    errno = 0;
    ssize_t n = getline(&line, &room, stdin);
    if (n > 0 && line[n - 1] == '\n') line[n - 1] = 0;
    if (n >= 0) buf_puts(b, line);
    free(line);
    return n >= 0;
}

static bool ends_with(const struct buf *b, const char *end)
{
    size_t n = strlen(end);
    return b->len >= n && !memcmp(b->data + b->len - n, end, n);
}

static void cut(struct buf *b, size_t from, size_t n) /* n bytes at `from` */
{
    memmove(b->data + from, b->data + from + n, b->len - from - n + 1);
    b->len -= n;
}

static bool read_message(struct buf *b)
{
    static const char quotes[] = "\"\"\"";
    buf_clear(b);
    if (!read_line(">>> ", b)) return false;
    if (b->len >= 3 && !memcmp(b->data, quotes, 3)) {
        cut(b, 0, 3);
        while (!ends_with(b, quotes)) {
            buf_putc(b, '\n');
            if (!read_line("... ", b)) return false;
        }
        cut(b, b->len - 3, 3);
        return true;
    }
    while (ends_with(b, "\\")) {
        b->data[b->len - 1] = '\n';
        if (!read_line("... ", b)) return false;
    }
    return true;
}

/* False: it ends the program. */
static bool obey(struct chat *c, const char *line)
{
    if (!strcmp(line, "/exit") || !strcmp(line, "/quit") || !strcmp(line, "/bye")) return false;
    if (!strcmp(line, "/clear")) {
        begin_anew(c);
    } else if (!strncmp(line, "/system ", 8)) {
        c->o.system = xstrdup(line + 8);
        begin_anew(c);
    } else {
        if (strcmp(line, "/help")) printf("There is no %s here.\n", line);
        fputs(commands, stdout);
    }
    return true;
}

static int converse(struct chat *c)
{
    struct buf line = {0};
    printf("%s at %s; /help says what can be typed, Ctrl-D ends.\n", c->model, c->c.url);
    while (read_message(&line)) {
        const char *text = buf_str(&line);
        if (!text[strspn(text, " \t\n")]) continue;
        if (*text == '/' && !strchr(text, '\n')) {
            if (!obey(c, text)) break;
            continue;
        }
        enum err rc = turn(c, text);
        if (rc && rc != ERR_CANCELLED) (void)cmd_fail(rc);
    }
    if (feof(stdin) || interrupted) putchar('\n');
    buf_free(&line);
    return interrupted ? 130 : 0;
}

/* ---- begin ---- */

static enum err read_all(struct buf *b)
{
    char piece[4096];
    for (size_t n; (n = fread(piece, 1, sizeof piece, stdin)) > 0;) buf_put(b, piece, n);
    if (ferror(stdin)) return err_raise(ERR_IO, "standard input: %s", strerror(errno));
    if (memchr(buf_str(b), 0, b->len)) return err_raise(ERR_BAD_REQUEST, "the message is not UTF-8");
    if (!b->len) return err_raise(ERR_BAD_REQUEST, "standard input is empty: give a message, there or as an argument");
    return OK;
}

int cmd_chat(int argc, char **argv)
{
    enum err rc;
    struct chat c = {.messages = json_array()};
    const char *args[1] = {NULL};
    struct buf text = {0};
    int n_args, code = 0;
    bool help;
    TRY(conf_parse(&conf, argc, argv, &c.o, args, &n_args, &help));
    if (help) {
        conf_help(&conf);
        goto out;
    }
    c.terminal = isatty(STDOUT_FILENO);
    sigaction(SIGINT, &(struct sigaction){.sa_handler = on_sigint}, NULL); /* no SA_RESTART: it ends a wait for a line */
    TRY(client_open(&c.c, &c.o.server, 0, stop));
    TRY(client_model(&c.c, &c.o.server, c.o.model, &c.model));
    begin_anew(&c);
    if (n_args) {
        TRY(turn(&c, args[0]));
    } else if (isatty(STDIN_FILENO)) {
        code = converse(&c);
    } else {
        TRY(read_all(&text));
        TRY(turn(&c, buf_str(&text)));
    }
out:
    client_close(&c.c);
    json_decref(c.messages);
    buf_free(&text);
    free(c.model);
    return rc ? cmd_fail(rc) : code;
}
