/* cmd_drain.c: `tessera drain` and `tessera reload`: what one may ask of a running server on its host. */
#include "cli/commands.h"

#include "cli/client.h"
#include "coordinator/admin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct options {
    int64_t port;
    const char *admin_socket, *url, *admin_key_env, *ca;
};

#define O(f) offsetof(struct options, f)
static const struct conf_opt table[] = {
    {"port", CONF_INT, O(port), "8000", 1, 65535, "N", "of the server's gateway"},
    {"admin-socket", CONF_STR, O(admin_socket), NULL, 0, 0, "PATH", "its admin socket, if it was started with one of this name"},
    {"url", CONF_STR, O(url), NULL, 0, 0, "URL",
     "ask over HTTP or HTTPS instead, http://HOST:PORT or https://HOST:PORT, with an admin key of that server (its --admin-keys)"},
    {"admin-key-env", CONF_STR, O(admin_key_env), "TESSERA_ADMIN_KEY", 0, 0, "VARIABLE", "with --url: the environment variable that holds the key"},
    {"https-ca", CONF_STR, O(ca), NULL, 0, 0, "FILE", "with --url: certificates (PEM) to trust instead of the system's"},
    {0},
};
static const struct conf_opt *const groups[] = {table, NULL};
static const struct conf_table drain = {
    "drain", "drain [options]",
    "Ask the server on this host to take no new requests, to finish those it has within its --drain-timeout, and to end.\n"
    "Returns when it has. Only the user who started it, and root, may; from elsewhere who holds an admin key (--url), which returns at once.", groups, 0, 0};
static const struct conf_table reload = {
    "reload", "reload MODEL [options]",
    "Ask the server on this host to serve another model (a path, or ORG/NAME as pulled), or a new file of the same name, from now on.\n"
    "It is loaded beside the old one if memory allows; else requests wait until the old one has finished and the new one is there.\n"
    "No request is refused.", groups, 1, 1};

/* From another host: a model is a path, or a pulled model's name, there. */
static enum err ask_elsewhere(const struct options *o, const char *verb, const char *model)
{
    enum err rc;
    struct client_options server = {.url = o->url, .key_env = o->admin_key_env, .ca = o->ca};
    struct client c = {0};
    json_t *body = json_object(), *answer = NULL;
    char path[32], *text = NULL;
    const char *key = getenv(o->admin_key_env);
    if (!key || !*key) TRY(err_raise(ERR_BAD_REQUEST, "--url needs an admin key: the environment variable %s is not set", o->admin_key_env));
    snprintf(path, sizeof path, "/admin/%s", verb);
    if (model && json_object_set_new(body, "model", json_string(model))) TRY(err_raise(ERR_BAD_REQUEST, "the model's name is not UTF-8"));
    text = json_dumps(body, 0);
    TRY(client_open(&c, &server, 0, NULL));
    TRY(client_post(&c, path, model ? text : "", &answer));
    free(text);
    text = json_dumps(answer, JSON_COMPACT | JSON_PRESERVE_ORDER);
    cmd_text(text, strlen(text));
    putchar('\n');
out:
    json_decref(body);
    json_decref(answer);
    client_close(&c);
    free(text);
    return rc;
}

static int ask(const struct conf_table *t, const char *verb, int argc, char **argv)
{
    enum err rc;
    struct options o = {0};
    const char *args[1];
    char path[ADMIN_PATH], usual[ADMIN_PATH], line[ADMIN_LINE], full[4096];
    int n_args;
    bool help;
    TRY(conf_parse(t, argc, argv, &o, args, &n_args, &help));
    if (help) {
        conf_help(t);
        return 0;
    }
    if (o.url) {
        TRY(ask_elsewhere(&o, verb, n_args ? args[0] : NULL));
        return 0;
    }
    if (n_args) TRY(cmd_model(&args[0]));
    if (n_args && !realpath(args[0], full))
        TRY(err_raise(ERR_IO, "there is no %s: give the path of a GGUF file or of a checkpoint's directory, or the name of a model that was pulled", args[0]));
    snprintf(line, sizeof line, "%s%s%s", verb, n_args ? " " : "", n_args ? full : "");
    if (!o.admin_socket) TRY(crd_admin_find(path, (int32_t)o.port));
    crd_admin_path(usual, (int32_t)o.port);
    if (!o.admin_socket && strcmp(path, usual)) fprintf(stderr, "tessera: asking the server at %s\n", path);
    TRY(crd_admin_ask(o.admin_socket ? o.admin_socket : path, line, stdout));
    return 0;
out:
    return cmd_fail(rc);
}

int cmd_drain(int argc, char **argv) { return ask(&drain, "drain", argc, argv); }
int cmd_reload(int argc, char **argv) { return ask(&reload, "reload", argc, argv); }
