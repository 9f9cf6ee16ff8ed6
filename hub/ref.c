/* ref.c: see ref.h. */
#include "hub/ref.h"

#include "base/base.h"
#include "hub/kept.h"

#include <ctype.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

static bool take(const char *p, size_t n, char out[HUB_NAME])
{
    if (!n || n >= HUB_NAME || *p == '.' || *p == '-') return false;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)p[i]) && !strchr("-_.", p[i])) return false;
    memcpy(out, p, n);
    out[n] = 0;
    return true;
}

/* What people copy from a browser or from other programs' command lines. A path that begins so is told by its second slash. */
static const char *without_hub(const char *arg)
{
    static const char *const before[] = {"https://", "http://"}, *const host[] = {"huggingface.co/", "hf.co/"};
    const char *p = arg;
    for (size_t i = 0; i < COUNT_OF(before); i++)
        if (!strncmp(p, before[i], strlen(before[i]))) p += strlen(before[i]);
    for (size_t i = 0; i < COUNT_OF(host); i++)
        if (!strncmp(p, host[i], strlen(host[i])) && strchr(p + strlen(host[i]), '/')) return p + strlen(host[i]);
    return arg;
}

bool hub_ref_parse(struct hub_ref *out, const char *arg)
{
    struct hub_ref r = {.revision = "main"};
    arg = without_hub(arg);
    const char *slash = strchr(arg, '/'), *colon = slash ? strchr(slash, ':') : NULL;
    if (!slash || strchr(slash + 1, '/')) return false;
    const char *end = colon ? colon : arg + strlen(arg);
    if (!take(arg, (size_t)(slash - arg), r.org) || !take(slash + 1, (size_t)(end - slash - 1), r.name)) return false;
    if (colon && !take(colon + 1, strlen(colon + 1), r.quant)) return false;
    *out = r;
    return true;
}

enum err hub_ref_set_revision(struct hub_ref *r, const char *revision)
{
    if (strlen(revision) >= sizeof r->revision || !*revision || strchr(revision, '/') || *revision == '.')
        return err_raise(ERR_BAD_CONFIG, "--revision '%s' is not a name of one", revision);
    strcpy(r->revision, revision);
    return OK;
}

enum err hub_ref_root(char **out)
{
    const char *own = getenv("TESSERA_MODELS"), *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (own && *own) *out = xstrdup(own);
    else if (cache && *cache == '/') *out = xasprintf("%s/tessera/models", cache);
    else if (home && *home == '/') *out = xasprintf("%s/.cache/tessera/models", home);
    else return err_raise(ERR_BAD_CONFIG, "no home directory is known: say in TESSERA_MODELS where models are to lie");
    return OK;
}

enum err hub_ref_dir(const struct hub_ref *r, char **out)
{
    bool main = !strcmp(r->revision, "main");
    char *root;
    enum err rc = hub_ref_root(&root);
    if (rc) return rc;
    *out = xasprintf("%s/%s/%s%s%s", root, r->org, r->name, main ? "" : "@", main ? "" : r->revision);
    free(root);
    return OK;
}

/* "m-Q4_K_M.gguf", "m.q8_0-00001-of-00002.gguf": the word before the end, in capitals. */
static bool quant_of(const char *file, char out[HUB_NAME])
{
    size_t n = strlen(file), k = strlen("-00001-of-00001.gguf"), from;
    if (n <= 5 || strcasecmp(file + n - 5, ".gguf")) return false;
    n -= hub_ref_part(file, NULL) ? k : 5;
    for (from = n; from && (isalnum((unsigned char)file[from - 1]) || file[from - 1] == '_'); from--) {}
    if (!from || n - from >= HUB_NAME || !memchr("QqIiFfBbTtMm", file[from], 12)) return false;
    bool digit = false;
    for (size_t i = from; i < n; i++) {
        out[i - from] = (char)toupper((unsigned char)file[i]);
        digit |= isdigit((unsigned char)file[i]) != 0;
    }
    out[n - from] = 0;
    return digit;
}

void hub_ref_labels(const char *path, char name[HUB_LABEL], char with_quant[HUB_LABEL])
{
    char *root = NULL, *real = NULL, label[HUB_LABEL], quant[HUB_NAME];
    *name = *with_quant = 0;
    if (hub_ref_root(&root)) return;
    real = realpath(root, NULL); /* `tessera reload` sends paths without links */
    const char *rest = NULL;
    for (int i = 0; i < 2 && !rest; i++) {
        const char *at = i ? real : root;
        size_t n = at ? strlen(at) : 0;
        if (n && !strncmp(path, at, n) && path[n] == '/') rest = path + n + 1;
    }
    const char *slash = rest ? strchr(rest, '/') : NULL;
    size_t n = slash ? (size_t)(slash - rest) + 1 + strcspn(slash + 1, "/@") : 0;
    struct hub_ref r;
    snprintf(label, sizeof label, "%.*s", (int)MIN(n, sizeof label - 1), rest ? rest : "");
    if (n && hub_ref_parse(&r, label)) {
        snprintf(name, HUB_LABEL, "%s/%s", r.org, r.name);
        const char *file = strrchr(path, '/') + 1;
        if (quant_of(file, quant)) snprintf(with_quant, HUB_LABEL, "%s/%s:%s", r.org, r.name, quant);
    }
    free(root);
    free(real);
}

bool hub_ref_is_quant(const char *file, const char *quant)
{
    size_t n = strlen(quant);
    for (const char *at = file; n && strlen(at) >= n; at++) {
        if (strncasecmp(at, quant, n) || (at != file && isalnum((unsigned char)at[-1]))) continue;
        if (!isalnum((unsigned char)at[n]) && at[n] != '_') return true; /* "Q4_K" is no part of "Q4_K_M" */
    }
    return false;
}

int hub_ref_part(const char *file, int *of)
{
    int part = 0, n = 0, end = 0;
    size_t len = strlen(file), k = strlen("-00001-of-00001.gguf");
    if (len <= k || sscanf(file + len - k, "-%5d-of-%5d.gguf%n", &part, &n, &end) != 2 || (size_t)end != k || part < 1 || part > n) return 0;
    if (of) *of = n;
    return part;
}

/* ---- what is here ---- */

struct found {
    char *path; /* Own; the one that fits, or NULL */
    int n;      /* that fit */
    bool config, weights; /* of a checkpoint */
    bool part;            /* a file of it that is still being fetched, or was */
};

static bool is_gguf(const char *name)
{
    size_t n = strlen(name);
    return *name != '.' && n > 5 && !strcasecmp(name + n - 5, ".gguf") && strncasecmp(name, "mmproj", 6);
}

static bool ends(const char *s, const char *with)
{
    size_t n = strlen(s), k = strlen(with);
    return n >= k && !strcmp(s + n - k, with);
}

/* Files of the folder, and of the folders in it: parts often lie in one of their own. */
static void look(struct found *f, const char *dir, const char *quant, int depth)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        f->part |= !depth && *e->d_name == '.' && ends(e->d_name, ".part") && !ends(e->d_name, ".gguf.part");
        if (*e->d_name == '.') continue;
        char *path = xasprintf("%s/%s", dir, e->d_name);
        bool known = !stat(path, &st);
        if (known && S_ISDIR(st.st_mode) && !depth) look(f, path, quant, 1);
        f->config |= !depth && !strcmp(e->d_name, "config.json");
        f->weights |= !depth && ends(e->d_name, ".safetensors");
        if (known && S_ISREG(st.st_mode) && is_gguf(e->d_name) && hub_ref_part(e->d_name, NULL) <= 1 && (!*quant || hub_ref_is_quant(e->d_name, quant))) {
            f->n++;
            free(f->path);
            f->path = xstrdup(path);
        }
        free(path);
    }
    if (d) closedir(d);
}

/* All parts of a split file. */
static bool has_parts(const char *path)
{
    int of = 0;
    bool all = true;
    if (!hub_ref_part(path, &of)) return true;
    for (int i = 1; i <= of && all; i++) {
        char *part = xasprintf("%.*s-%05d-of-%05d.gguf", (int)(strlen(path) - strlen("-00001-of-00001.gguf")), path, i, of);
        all = !access(part, F_OK);
        free(part);
    }
    return all;
}

/* Has a pull left what was found in the middle? Of folders that only older versions know, parts tell. */
static bool is_unfinished(const char *dir, const struct found *f)
{
    if (f->path) return hub_kept_is_unfinished(dir, f->path + strlen(dir) + 1) || !has_parts(f->path);
    return hub_kept_is_unfinished(dir, "") || !f->weights || (f->part && !hub_kept_is_known(dir));
}

static enum err say_unfinished(const struct hub_ref *r)
{
    char *name = xasprintf("%s/%s%s%s", r->org, r->name, *r->quant ? ":" : "", r->quant);
    enum err rc = err_raise(ERR_NOT_FOUND, "the pull of %s is not finished: tessera pull %s goes on with it", name, name);
    free(name);
    return rc;
}

enum err hub_ref_local(const struct hub_ref *r, char **out)
{
    char *dir;
    struct found f = {0};
    enum err rc = hub_ref_dir(r, &dir);
    *out = NULL;
    if (rc) return rc;
    look(&f, dir, r->quant, 0);
    bool checkpoint = !f.n && f.config && !*r->quant;
    if ((f.n == 1 || checkpoint) && is_unfinished(dir, &f)) {
        rc = say_unfinished(r);
    } else if (f.n == 1) {
        *out = f.path;
        f.path = NULL;
    } else if (f.n > 1) {
        rc = err_raise(ERR_BAD_CONFIG, "%s holds %d GGUF models%s%s: say which, as %s/%s:QUANT", dir, f.n, *r->quant ? " of " : "", r->quant, r->org, r->name);
    } else if (checkpoint) {
        *out = xstrdup(dir);
    }
    free(f.path);
    free(dir);
    return rc;
}
