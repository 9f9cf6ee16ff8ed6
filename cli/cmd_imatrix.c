/* cmd_imatrix.c: `tessera imatrix`: which columns of a model's matrices matter, measured over a text. */
#include "cli/commands.h"
#include "cli/process.h"

#include "base/clock.h"
#include "base/conf.h"
#include "engine/convert/measure.h"
#include "engine/model_text.h"
#include "proto/limits.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_BYTES = 1 << 30 };

struct options {
    const char *file, *output;
    int64_t chunk, chunks, threads;
};

#define O(f) offsetof(struct options, f)
static const struct conf_opt table[] = {
    {"file", CONF_STR, O(file), NULL, 0, 0, "FILE", "the text (needed; also -f)"},
    {"output", CONF_STR, O(output), "imatrix.gguf", 0, 0, "FILE",
     "where it is written (also -o): GGUF, or llama.cpp's older format when the name ends in .dat"},
    {"chunk", CONF_INT, O(chunk), "512", 16, LIMIT_CONTEXT, "N", "tokens of a chunk, each a sequence of its own"},
    {"chunks", CONF_INT, O(chunks), "0", 0, 1e9, "N", "stop after so many; 0: the whole text"},
    {"threads", CONF_INT, O(threads), "0", 0, 1024, "N", "threads; 0: one for each processor"},
    {0},
};
static const struct conf_opt *const groups[] = {table, NULL};
static const struct conf_table conf = {
    "imatrix", "imatrix MODEL -f TEXT [-o FILE] [options]",
    "An importance matrix for `tessera quantize --imatrix` (and llama.cpp's quantiser): the mean square of what\n"
    "each column of each matrix is multiplied with over a text. Measure an F16, BF16 or Q8_0 model.\n"
    "  tessera imatrix model-f16.gguf -f text.txt -o imatrix.gguf", groups, 1, 1};

struct progress {
    int64_t begun_us, last_us;
    bool terminal, drawn;
};

static bool show(void *user, int64_t done, int64_t total)
{
    struct progress *p = user;
    int64_t now = clock_us();
    if (now - p->last_us >= (p->terminal ? 100000 : 5000000)) {
        double s = (double)(now - p->begun_us) / 1e6;
        fprintf(stderr, "%schunk %lld of %lld, %.0f s left%s", p->terminal ? "\r\033[K" : "", (long long)done, (long long)total,
                s * (double)(total - done) / (double)done, p->terminal ? "" : "\n");
        p->last_us = now;
        p->drawn = p->terminal;
    }
    return !process_stop();
}

static enum err read_text(const char *path, struct buf *out)
{
    FILE *f = fopen(path, "rb");
    char piece[65536];
    if (!f) return err_raise(ERR_IO, "cannot read %s: %s", path, strerror(errno));
    for (size_t n; out->len <= MOST_BYTES && (n = fread(piece, 1, sizeof piece, f)) > 0;) buf_put(out, piece, n);
    enum err e = ferror(f) ? err_raise(ERR_IO, "cannot read %s: %s", path, strerror(errno)) : OK;
    fclose(f);
    return !e && out->len > MOST_BYTES ? err_raise(ERR_BAD_CONFIG, "%s has more than %d bytes", path, MOST_BYTES) : e;
}

/* OUT must be a new name in a folder that can be written: said before the measuring, which may take hours. */
static enum err check_out(const char *out)
{
    struct stat st;
    if (!lstat(out, &st)) return err_raise(ERR_BAD_CONFIG, "%s is there already: give another name with -o, or remove it", out);
    const char *slash = strrchr(out, '/');
    char *dir = slash ? xstrndup(out, (size_t)MAX(slash - out, 1)) : xstrdup(".");
    enum err rc = access(dir, W_OK | X_OK) ? err_raise(ERR_IO, "cannot write %s: %s", out, strerror(errno)) : OK;
    free(dir);
    return rc;
}

static enum err encode(const char *model, const struct buf *text, struct eng_tokens *ids)
{
    enum err rc;
    struct eng_model_file *f = NULL;
    struct eng_tokenizer *t = NULL;
    TRY(eng_model_file_open(&f, model));
    TRY(eng_model_tokenizer(&t, f));
    eng_tokenizer_encode(t, (const char *)text->data, text->len, TOKENIZE_ADD_SPECIAL, ids);
out:
    eng_tokenizer_close(t);
    eng_model_file_close(f);
    return rc;
}

static void report(const char *out, const struct eng_imatrix *m, double seconds)
{
    int64_t unseen = 0, mats = 0;
    for (int64_t i = 0; i < m->n; i++)
        for (int64_t k = 0; k < m->at[i].n_mat; k++, mats++) unseen += !(m->at[i].counts[k] > 0);
    printf("%s: %lld matrices over %d chunks of %d tokens in %.1f s\n", out, (long long)mats, m->chunks, m->chunk_size, seconds);
    if (unseen) printf("note: %lld experts' matrices were never used by this text: a longer one says more\n", (long long)unseen);
}

static enum err imatrix(const struct options *o, const char *model)
{
    enum err rc;
    struct buf text = {0};
    struct eng_tokens ids = {0};
    struct eng_imatrix *m = NULL;
    struct progress p = {.begun_us = clock_us(), .last_us = clock_us(), .terminal = isatty(STDERR_FILENO)};
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    if (!o->file) TRY(err_raise(ERR_BAD_CONFIG, "-f FILE, the text, is needed"));
    TRY(check_out(o->output));
    TRY(read_text(o->file, &text));
    TRY(encode(model, &text, &ids));
    int64_t n = o->chunks ? MIN((int64_t)ids.n, o->chunks * o->chunk) : (int64_t)ids.n;
    struct eng_measure_conf c = {.path = model, .ids = ids.ids, .n_ids = n, .chunk = (int32_t)o->chunk,
                                 .n_threads = (int32_t)(o->threads ? o->threads : MAX(cpus, 1)), .progress = show, .user = &p};
    TRY(eng_measure(&c, &m));
    if (p.drawn) fprintf(stderr, "\r\033[K");
    const char *name = strrchr(o->file, '/');
    m->dataset = xstrdup(name ? name + 1 : o->file);
    TRY(eng_imatrix_write(m, o->output));
    report(o->output, m, (double)(clock_us() - p.begun_us) / 1e6);
    if (process_stop()) printf("stopped early: what was measured until then was written\n");
out:
    buf_free(&text);
    eng_tokens_free(&ids);
    eng_imatrix_close(m);
    return rc;
}

/* -f and -o, as other programs have them. */
static void spell_out(int argc, char **argv)
{
    static char file[] = "--file", output[] = "--output";
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "-f")) argv[i] = file;
        if (!strcmp(argv[i], "-o")) argv[i] = output;
    }
}

int cmd_imatrix(int argc, char **argv)
{
    enum err rc;
    struct options o = {0};
    const char *args[1];
    int n_args;
    bool help;
    spell_out(argc, argv);
    TRY(conf_parse(&conf, argc, argv, &o, args, &n_args, &help));
    if (help) {
        conf_help(&conf);
        return 0;
    }
    process_catch_signals();
    TRY(cmd_model(&args[0]));
    TRY(imatrix(&o, args[0]));
    return 0;
out:
    return cmd_fail(rc);
}
