/* store.c: see store.h. A folder is read once: its files and those of the folders in it, as hub_ref_local looks. Hidden ones count for the model whose
 * parts they are (".NAME.part"); .tessera and .lock are nobody's. */
#include "hub/store.h"

#include "base/buf.h"
#include "hub/kept.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

/* A file of a model's folder. */
struct file {
    char *path;  /* Own; in the folder */
    char *first; /* Own; of a GGUF: the first of its parts, by its final name; NULL: no GGUF */
    int64_t bytes, changed_s;
};

struct folder {
    char *dir; /* Own */
    struct file *files;
    size_t n, cap;
    bool config, weights, pulled; /* pulled: a pull was at work here */
    const char **models;          /* `first` of each GGUF model, or one "" for a checkpoint. Own, its texts are files' */
    size_t n_models;
};

/* ---- reading a folder ---- */

/* ".m.gguf.part" -> "m.gguf", and "sub/.m.gguf.part" -> "sub/m.gguf". Own: free(). */
static char *final_name(const char *path)
{
    const char *slash = strrchr(path, '/'), *base = slash ? slash + 1 : path, part[] = ".part";
    size_t n = strlen(base), k = sizeof part - 1;
    if (*base != '.' || n <= k + 1 || strcmp(base + n - k, part)) return xstrdup(path);
    return xasprintf("%.*s%.*s", (int)(base - path), path, (int)(n - k - 1), base + 1);
}

/* The first part's name of a GGUF's; NULL: it is none, or no language model. Own: free(). */
static char *first_of(const char *path)
{
    char *name = final_name(path);
    const char *slash = strrchr(name, '/'), *base = slash ? slash + 1 : name;
    size_t n = strlen(base);
    int of = 0;
    if (n <= 5 || *base == '.' || strcasecmp(base + n - 5, ".gguf") || !strncasecmp(base, "mmproj", 6)) {
        free(name);
        return NULL;
    }
    if (!hub_ref_part(base, &of)) return name;
    char *first = xasprintf("%.*s-00001-of-%05d.gguf", (int)(strlen(name) - strlen("-00001-of-00001.gguf")), name, of);
    free(name);
    return first;
}

static bool ends(const char *s, const char *with)
{
    size_t n = strlen(s), k = strlen(with);
    return n >= k && !strcmp(s + n - k, with);
}

static void add_file(struct folder *f, const char *path, const struct stat *st)
{
    if (f->n == f->cap) {
        f->cap = f->cap ? 2 * f->cap : 16;
        f->files = xrealloc(f->files, f->cap * sizeof *f->files);
    }
    f->files[f->n++] = (struct file){.path = xstrdup(path), .first = first_of(path), .bytes = st->st_size, .changed_s = st->st_mtim.tv_sec};
    char *name = final_name(path);
    f->config |= !strcmp(name, "config.json");
    f->weights |= ends(name, ".safetensors");
    free(name);
}

static void read_files(struct folder *f, const char *sub)
{
    char *dir = *sub ? xasprintf("%s/%s", f->dir, sub) : xstrdup(f->dir);
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        struct stat st;
        if (!*sub && (!strcmp(e->d_name, ".tessera") || !strcmp(e->d_name, ".lock"))) f->pulled = true;
        if (*e->d_name == '.' && !ends(e->d_name, ".part")) continue;
        char *path = *sub ? xasprintf("%s/%s", sub, e->d_name) : xstrdup(e->d_name);
        bool known = !fstatat(dirfd(d), e->d_name, &st, 0);
        if (known && S_ISREG(st.st_mode)) add_file(f, path, &st);
        if (known && S_ISDIR(st.st_mode) && !*sub) read_files(f, path);
        free(path);
    }
    if (d) closedir(d);
    free(dir);
}

static bool is_model(const struct folder *f, const char *first)
{
    for (size_t i = 0; i < f->n_models; i++)
        if (!strcmp(f->models[i], first)) return true;
    return false;
}

/* GGUF files, else what could be a checkpoint, or the little that a pull has left. */
static void folder_read(struct folder *f, char *dir)
{
    *f = (struct folder){.dir = dir};
    read_files(f, "");
    f->models = xcalloc(f->n + 1, sizeof *f->models);
    for (size_t i = 0; i < f->n; i++)
        if (f->files[i].first && !is_model(f, f->files[i].first)) f->models[f->n_models++] = f->files[i].first;
    if (!f->n_models && (f->config || f->weights || f->pulled)) f->models[f->n_models++] = "";
}

static void folder_close(struct folder *f)
{
    for (size_t i = 0; i < f->n; i++) {
        free(f->files[i].path);
        free(f->files[i].first);
    }
    free(f->files);
    free(f->models);
    free(f->dir);
}

static bool belongs(const struct file *f, const char *first) { return !*first || (f->first && !strcmp(f->first, first)); }

/* ---- the list ---- */

static bool is_whole(const struct folder *f, const char *first)
{
    int32_t there = 0;
    int of = 0;
    if (hub_kept_is_unfinished(f->dir, first)) return false;
    if (!*first) return f->config && f->weights;
    for (size_t i = 0; i < f->n; i++) there += belongs(&f->files[i], first) && !ends(f->files[i].path, ".part");
    return there == (hub_ref_part(first, &of) ? of : 1);
}

static void describe(const struct folder *f, const char *first, const char *org, const char *folder, struct hub_stored *m)
{
    char name[HUB_LABEL], with_quant[HUB_LABEL];
    const char *at = strchr(folder, '@');
    m->path = *first ? xasprintf("%s/%s", f->dir, first) : xstrdup(f->dir);
    hub_ref_labels(m->path, name, with_quant);
    m->name = *with_quant ? xstrdup(with_quant) : xasprintf("%s/%.*s", org, (int)strcspn(folder, "@"), folder);
    snprintf(m->revision, sizeof m->revision, "%s", at ? at + 1 : "main");
    snprintf(m->type, sizeof m->type, "%s", *with_quant ? strrchr(with_quant, ':') + 1 : *first ? "GGUF" : "checkpoint");
    m->unfinished = !is_whole(f, first);
    for (size_t i = 0; i < f->n; i++) {
        if (!belongs(&f->files[i], first)) continue;
        m->bytes += f->files[i].bytes;
        m->changed_s = MAX(m->changed_s, f->files[i].changed_s);
    }
}

static void list_folder(struct hub_store *s, const char *org, const char *name)
{
    struct folder f;
    folder_read(&f, xasprintf("%s/%s/%s", s->root, org, name));
    s->models = xrealloc(s->models, (s->n + f.n_models + 1) * sizeof *s->models);
    for (size_t i = 0; i < f.n_models; i++) {
        s->models[s->n] = (struct hub_stored){0};
        describe(&f, f.models[i], org, name, &s->models[s->n++]);
    }
    folder_close(&f);
}

/* Is it the name of an organisation's folder, or of a model's (with "@REVISION")? */
static bool is_name(const char *org, const char *name)
{
    struct hub_ref r;
    char *text = xasprintf("%s/%.*s", org, (int)strcspn(name, "@"), name);
    bool good = hub_ref_parse(&r, text);
    free(text);
    return good;
}

static int by_name(const void *a, const void *b)
{
    const struct hub_stored *x = a, *y = b;
    int c = strcmp(x->name, y->name);
    return c ? c : strcmp(x->path, y->path);
}

enum err hub_store_list(struct hub_store *out)
{
    struct hub_store s = {0};
    enum err rc = hub_ref_root(&s.root);
    if (rc) return rc;
    DIR *d = opendir(s.root);
    for (struct dirent *o; d && (o = readdir(d));) {
        char *org = xasprintf("%s/%s", s.root, o->d_name);
        DIR *in = is_name(o->d_name, "x") ? opendir(org) : NULL;
        for (struct dirent *e; in && (e = readdir(in));)
            if (is_name(o->d_name, e->d_name)) list_folder(&s, o->d_name, e->d_name);
        if (in) closedir(in);
        free(org);
    }
    if (d) closedir(d);
    if (s.n) qsort(s.models, s.n, sizeof *s.models, by_name);
    *out = s;
    return OK;
}

void hub_store_close(struct hub_store *s)
{
    if (!s) return;
    for (size_t i = 0; i < s->n; i++) {
        free(s->models[i].name);
        free(s->models[i].path);
    }
    free(s->models);
    free(s->root);
    *s = (struct hub_store){0};
}

/* ---- taking away ---- */

static enum err remove_file(const char *path, struct hub_removed *out)
{
    struct stat st;
    if (lstat(path, &st)) return errno == ENOENT ? OK : err_raise(ERR_IO, "%s: %s", path, strerror(errno));
    if (unlink(path)) return err_raise(ERR_IO, "%s cannot be removed: %s", path, strerror(errno));
    out->files++;
    out->bytes += S_ISREG(st.st_mode) ? st.st_size : 0;
    return OK;
}

/* Links are removed, not followed. */
static enum err remove_tree(const char *path, struct hub_removed *out)
{
    enum err rc = OK;
    struct stat st;
    if (lstat(path, &st) || !S_ISDIR(st.st_mode)) return remove_file(path, out);
    DIR *d = opendir(path);
    for (struct dirent *e; d && !rc && (e = readdir(d));) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
        char *inner = xasprintf("%s/%s", path, e->d_name);
        rc = remove_tree(inner, out);
        free(inner);
    }
    if (d) closedir(d);
    if (!rc && rmdir(path)) rc = err_raise(ERR_IO, "%s cannot be removed: %s", path, strerror(errno));
    return rc;
}

/* Its files, with what is known of them; the mark goes last, so that whatever is left in between counts as unfinished. */
static enum err remove_one(const struct folder *f, const char *first, struct hub_removed *out)
{
    enum err rc;
    TRY(hub_kept_begin(f->dir, first));
    for (size_t i = 0; i < f->n; i++) {
        if (!belongs(&f->files[i], first)) continue;
        char *path = xasprintf("%s/%s", f->dir, f->files[i].path);
        hub_kept_forget(f->dir, f->files[i].path);
        rc = remove_file(path, out);
        *strrchr(path, '/') = 0;
        if (!rc && strcmp(path, f->dir)) rmdir(path); /* a folder of its parts, if it is empty now */
        free(path);
        if (rc) goto out;
    }
    TRY(hub_kept_end(f->dir, first));
out:
    return rc;
}

/* The index of what r names. Err NOT_FOUND, BAD_CONFIG. */
static enum err choose(const struct folder *f, const struct hub_ref *r, size_t *out)
{
    struct buf names = {0};
    size_t n = 0;
    enum err rc = OK;
    for (size_t i = 0; i < f->n_models; i++) {
        const char *slash = strrchr(f->models[i], '/'), *base = slash ? slash + 1 : f->models[i];
        if (*r->quant && !hub_ref_is_quant(base, r->quant)) continue;
        buf_printf(&names, "%s%s", n ? ", " : "", f->models[i]);
        *out = i;
        n++;
    }
    if (!n) rc = err_raise(ERR_NOT_FOUND, "%s has no model%s%s: tessera list says what is here", f->dir, *r->quant ? " of " : "", r->quant);
    if (n > 1) rc = err_raise(ERR_BAD_CONFIG, "%s holds %zu models, %s: say which, as %s/%s:QUANT", f->dir, n, buf_str(&names), r->org, r->name);
    buf_free(&names);
    return rc;
}

static enum err lock(const char *dir, int *fd)
{
    char *path = xasprintf("%s/.lock", dir);
    enum err rc = OK;
    *fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (*fd < 0) rc = err_raise(ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    else if (flock(*fd, LOCK_EX | LOCK_NB)) rc = err_raise(ERR_IO, "a pull is at work in %s: nothing is removed before it has ended", dir);
    free(path);
    return rc;
}

enum err hub_store_remove(const struct hub_ref *r, struct hub_removed *out)
{
    enum err rc;
    struct folder f = {0};
    struct hub_removed sum = {0};
    char *dir = NULL;
    size_t which = 0;
    int fd = -1;
    TRY(hub_ref_dir(r, &dir));
    folder_read(&f, dir);
    if (access(dir, F_OK)) TRY(err_raise(ERR_NOT_FOUND, "%s/%s is not here: tessera list says what is", r->org, r->name));
    TRY(choose(&f, r, &which));
    TRY(lock(f.dir, &fd));
    if (f.n_models > 1) {
        TRY(remove_one(&f, f.models[which], &sum));
    } else {
        TRY(remove_tree(f.dir, &sum));
        *strrchr(f.dir, '/') = 0;
        rmdir(f.dir); /* its organisation's, if nothing else is there */
    }
    *out = sum;
out:
    if (fd >= 0) close(fd);
    folder_close(&f);
    return rc;
}
