/* cmd_store.c: `tessera list` and `tessera rm`: what `tessera pull` has brought to this machine. */
#include "cli/commands.h"

#include "base/buf.h"
#include "base/conf.h"
#include "base/plain.h"
#include "coordinator/api/json_out.h"
#include "hub/store.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

struct options {
    bool json, names;
    const char *revision;
};

#define O(f) offsetof(struct options, f)
static const struct conf_opt list_table[] = {
    {"names", CONF_FLAG, O(names), NULL, 0, 0, "on|off", "the names alone, one a line, of those that can be served"},
    {"json", CONF_FLAG, O(json), NULL, 0, 0, "on|off", "one JSON document instead of the table"},
    {0},
};
static const struct conf_opt rm_table[] = {
    {"revision", CONF_STR, O(revision), "main", 0, 0, "NAME", "branch, tag or commit that was pulled"},
    {0},
};
static const struct conf_opt *const list_groups[] = {list_table, NULL}, *const rm_groups[] = {rm_table, NULL};
static const struct conf_table list_conf = {
    "list", "list [options]",
    "The models in $TESSERA_MODELS, else ~/.cache/tessera/models, where tessera pull puts them: the name that other commands take, what it "
    "is, its size and when it came.",
    list_groups, 0, 0};
static const struct conf_table rm_conf = {
    "rm", "rm ORG/NAME[:QUANT] [options]",
    "Remove a model that was pulled, without asking, and say what that freed. Refused while a pull of it is at work.\n"
    "A server that has loaded the model goes on answering, and the disk's room may come back only when it ends; a worker that it must start "
    "anew finds no file.",
    rm_groups, 1, 1};

static void size_text(int64_t bytes, char out[32])
{
    static const char *const units[] = {"B", "kB", "MB", "GB", "TB"};
    double v = (double)bytes;
    size_t i = 0;
    for (; v >= 1000 && i + 1 < COUNT_OF(units); i++) v /= 1000;
    snprintf(out, 32, i ? "%.1f %s" : "%.0f %s", v, units[i]);
}

static void time_text(int64_t seconds, const char *format, char out[32])
{
    time_t t = (time_t)seconds;
    struct tm tm;
    strftime(out, 32, format, localtime_r(&t, &tm));
}

static bool is_main(const struct hub_stored *m) { return !strcmp(m->revision, "main"); }

static void print_table(const struct hub_store *s)
{
    int width = 4;
    if (!s->n) {
        fprintf(stderr, "tessera: no model in %s: tessera pull ORG/NAME[:QUANT] brings one\n", s->root);
        return;
    }
    char name[400], more[1200];
    for (size_t i = 0; i < s->n; i++) width = MAX(width, (int)strlen(plain(name, sizeof name, s->models[i].name, strlen(s->models[i].name))));
    printf("%-*s  %-10s  %10s  %s\n", width, "NAME", "TYPE", "SIZE", "PULLED");
    for (size_t i = 0; i < s->n; i++) {
        const struct hub_stored *m = &s->models[i];
        char size[32], when[32] = "-";
        size_text(m->bytes, size);
        if (m->changed_s) time_text(m->changed_s, "%Y-%m-%d %H:%M", when);
        plain(name, sizeof name, m->name, strlen(m->name));
        printf("%-*s  %-10s  %10s  %s%s", width, name, m->type, size, when, m->unfinished ? "  not finished: tessera pull goes on with it" : "");
        if (is_main(m)) putchar('\n');
        else {
            printf("  revision %s: ", plain(name, sizeof name, m->revision, strlen(m->revision)));
            printf("%s\n", plain(more, sizeof more, m->path, strlen(m->path)));
        }
    }
}

static void print_json(const struct hub_store *s)
{
    struct buf out = {0};
    buf_puts(&out, "{\"folder\":");
    json_out_str(&out, s->root);
    buf_puts(&out, ",\"models\":[");
    for (size_t i = 0; i < s->n; i++) {
        const struct hub_stored *m = &s->models[i];
        const struct { const char *key, *value; } texts[] = {{"name", m->name}, {"type", m->type}, {"revision", m->revision}, {"path", m->path}};
        buf_printf(&out, "%s{\"bytes\":%lld,\"changed\":%lld,\"unfinished\":%s", i ? "," : "", (long long)m->bytes, (long long)m->changed_s,
                   m->unfinished ? "true" : "false");
        for (size_t k = 0; k < COUNT_OF(texts); k++) {
            buf_printf(&out, ",\"%s\":", texts[k].key);
            json_out_str(&out, texts[k].value);
        }
        buf_putc(&out, '}');
    }
    buf_puts(&out, "]}");
    puts(buf_str(&out));
    buf_free(&out);
}

/* For the shell's completion: what a command would open by this name. */
static void print_names(const struct hub_store *s)
{
    for (size_t i = 0; i < s->n; i++)
        if (is_main(&s->models[i]) && !s->models[i].unfinished) puts(s->models[i].name);
}

int cmd_list(int argc, char **argv)
{
    enum err rc;
    struct options o = {0};
    struct hub_store s = {0};
    int n_args;
    bool help;
    TRY(conf_parse(&list_conf, argc, argv, &o, NULL, &n_args, &help));
    if (help) {
        conf_help(&list_conf);
        return 0;
    }
    TRY(hub_store_list(&s));
    if (o.names) print_names(&s);
    else if (o.json) print_json(&s);
    else print_table(&s);
out:
    hub_store_close(&s);
    return rc ? cmd_fail(rc) : 0;
}

int cmd_rm(int argc, char **argv)
{
    enum err rc;
    struct options o = {0};
    const char *args[1];
    struct hub_ref r;
    struct hub_removed gone;
    char size[32];
    int n_args;
    bool help;
    TRY(conf_parse(&rm_conf, argc, argv, &o, args, &n_args, &help));
    if (help) {
        conf_help(&rm_conf);
        return 0;
    }
    if (!hub_ref_parse(&r, args[0]))
        TRY(err_raise(ERR_BAD_CONFIG, "'%s' is not ORG/NAME or ORG/NAME:QUANT, as tessera list names what was pulled; files elsewhere are "
                      "yours to remove", args[0]));
    TRY(hub_ref_set_revision(&r, o.revision));
    TRY(hub_store_remove(&r, &gone));
    size_text(gone.bytes, size);
    printf("removed %s/%s%s%s: %d files, %s (%lld bytes)\n", r.org, r.name, *r.quant ? ":" : "", r.quant, gone.files, size, (long long)gone.bytes);
    return 0;
out:
    return cmd_fail(rc);
}
