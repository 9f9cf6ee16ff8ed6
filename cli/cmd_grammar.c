/* cmd_grammar.c: `tessera grammar`: is the text on stdin of a grammar, and if not, where it leaves
 * it. The code the gateway and the ranks use. */
#include "cli/commands.h"

#include "base/conf.h"
#include "coordinator/api/structural_tag.h"
#include "engine/grammar/grammar.h"
#include "proto/limits.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    const char *schema, *regex, *gbnf, *choice, *tag;
    bool json, compact, format_note, newline;
};

#define O(f) offsetof(struct options, f)
static const struct conf_opt table[] = {
    {"schema", CONF_STR, O(schema), NULL, 0, 0, "FILE", "a JSON Schema", "json-schema"},
    {"regex", CONF_STR, O(regex), NULL, 0, 0, "R", "the whole text matches"},
    {"gbnf", CONF_STR, O(gbnf), NULL, 0, 0, "FILE", "rules in GBNF"},
    {"choice", CONF_STR, O(choice), NULL, 0, 0, "A|B", "one of these texts"},
    {"structural-tag", CONF_STR, O(tag), NULL, 0, 0, "FILE", "a structural tag, as in response_format"},
    {"json", CONF_FLAG, O(json), NULL, 0, 0, "on|off", "any JSON"},
    {"compact", CONF_FLAG, O(compact), NULL, 0, 0, "on|off", "JSON without white space"},
    {"format-note", CONF_FLAG, O(format_note), NULL, 0, 0, "on|off",
     "the keyword \"format\" says nothing about the text"},
    {"newline", CONF_FLAG, O(newline), NULL, 0, 0, "on|off",
     "a line feed at the end of stdin is part of the text"},
    {0},
};
static const struct conf_opt *const groups[] = {table, NULL};
static const struct conf_table conf = {
    "grammar",
    "grammar (--schema FILE | --regex R | --gbnf FILE | --choice 'A|B' | --structural-tag FILE | --json) < text",
    "Say whether the text on stdin is of the grammar, or the byte where it is refused and what was "
    "allowed there.\n"
    "Exit status 0: accepted; 1: refused, or the grammar is not supported.",
    groups,
    0,
    0};

static void read_all(FILE *f, struct buf *out, size_t most)
{
    char chunk[65536];
    for (size_t n; out->len <= most && (n = fread(chunk, 1, sizeof chunk, f)) > 0;)
        buf_put(out, chunk, n);
}

static enum err read_source(const char *path, struct buf *out)
{
    FILE *f = fopen(path, "rb");
    if (!f) return err_raise(ERR_IO, "cannot read %s", path);
    read_all(f, out, LIMIT_GRAMMAR_BYTES);
    fclose(f);
    return out->len > LIMIT_GRAMMAR_BYTES
               ? err_raise(ERR_BAD_REQUEST, "%s has more than %d bytes", path, LIMIT_GRAMMAR_BYTES)
               : OK;
}

static void read_choice(const char *p, struct buf *out)
{
    json_t *list = json_array();
    for (size_t n;; p += n + 1) {
        n = strcspn(p, "|");
        json_array_append_new(list, json_stringn(p, n));
        if (!p[n]) break;
    }
    char *text = json_dumps(list, JSON_COMPACT);
    buf_puts(out, text);
    free(text);
    json_decref(list);
}

/* Control tokens are those of a model: without one all marks are letters. */
static enum err read_tag(const char *path, struct buf *out)
{
    enum err rc;
    struct buf file = {0};
    json_t *tag = NULL, *parts = NULL;
    TRY(read_source(path, &file));
    tag = json_loadb(buf_str(&file), file.len, JSON_REJECT_DUPLICATES, NULL);
    if (!tag) TRY(err_raise(ERR_BAD_REQUEST, "%s is not JSON", path));
    TRY(crd_structural_tag(tag, "response_format", NULL, &parts));
    char *text = json_dumps(parts, JSON_COMPACT | JSON_ENCODE_ANY);
    buf_puts(out, text);
    free(text);
out:
    buf_free(&file);
    json_decref(tag);
    json_decref(parts);
    return rc;
}

static enum err source_of(const struct options *o, struct buf *text, struct grammar_source *g)
{
    enum err rc = OK;
    int n = !!o->schema + !!o->regex + !!o->gbnf + !!o->choice + !!o->tag + o->json;
    if (n != 1)
        return err_raise(
            ERR_BAD_CONFIG,
            "grammar: give one of --schema, --regex, --gbnf, --choice, --structural-tag and --json; %d are given",
            n);
    g->kind = o->schema   ? GRAMMAR_SCHEMA
              : o->regex  ? GRAMMAR_REGEX
              : o->gbnf   ? GRAMMAR_GBNF
              : o->choice ? GRAMMAR_CHOICE
              : o->tag    ? GRAMMAR_PARTS
                          : GRAMMAR_JSON;
    g->flags = (o->compact ? GRAMMAR_COMPACT : 0u) | (o->format_note ? GRAMMAR_FORMAT_NOTE : 0u);
    if (o->schema || o->gbnf) TRY(read_source(o->schema ? o->schema : o->gbnf, text));
    if (o->regex) buf_puts(text, o->regex);
    if (o->choice) read_choice(o->choice, text);
    if (o->tag) TRY(read_tag(o->tag, text));
    g->text = buf_str(text);
    g->n = (int32_t)text->len;
out:
    return rc;
}

/* Line and column (in bytes, from 1) of a place. */
static void place(const struct buf *text, size_t at, size_t *line, size_t *column)
{
    *line = *column = 1;
    for (size_t i = 0; i < at; i++) {
        (*column)++;
        if (text->data[i] == '\n') ++*line, *column = 1;
    }
}

static bool judge(struct eng_grammar *g, const struct buf *text)
{
    struct eng_grammar_state *s = eng_grammar_state_open(g);
    struct buf next = {0};
    size_t line, column, n = eng_grammar_advance(s, text->data, text->len);
    bool yes = n == text->len && eng_grammar_accepts(s);
    place(text, n, &line, &column);
    eng_grammar_explain(s, &next);
    if (yes)
        printf("accepted: %zu bytes\n", n);
    else if (n == text->len)
        printf("refused: the text ends at byte %zu (line %zu, column %zu); what must follow: %s\n",
               n, line, column, buf_str(&next));
    else
        printf("refused at byte %zu (line %zu, column %zu), 0x%02x; allowed there: %s\n", n, line,
               column, text->data[n], buf_str(&next));
    buf_free(&next);
    eng_grammar_state_close(s);
    return yes;
}

int cmd_grammar(int argc, char **argv)
{
    enum err rc;
    struct options o = {0};
    struct grammar_source src = {0};
    struct buf source = {0}, text = {0};
    struct eng_grammar *g = NULL;
    const char *args[1];
    int n_args;
    bool help, yes = false;
    TRY(conf_parse(&conf, argc, argv, &o, args, &n_args, &help));
    if (help) {
        conf_help(&conf);
        return 0;
    }
    TRY(source_of(&o, &source, &src));
    TRY(eng_grammar_compile(&g, &src, NULL));
    read_all(stdin, &text, SIZE_MAX - 1);
    if (!o.newline && text.len && text.data[text.len - 1] == '\n') text.len--;
    yes = judge(g, &text);
out:
    eng_grammar_close(g);
    buf_free(&source);
    buf_free(&text);
    return rc ? cmd_fail(rc) : yes ? 0 : 1;
}
