/* cmd_quantize.c: `tessera quantize`: a model, GGUF file or checkpoint, as a GGUF file of a smaller type. */
#include "cli/commands.h"
#include "cli/process.h"

#include "base/clock.h"
#include "base/conf.h"
#include "engine/convert/convert.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct options {
    const char *imatrix;
    int64_t threads;
};

#define O(f) offsetof(struct options, f)
static const struct conf_opt table[] = {
    {"imatrix", CONF_STR, O(imatrix), NULL, 0, 0, "FILE", "an importance matrix (tessera imatrix, or llama.cpp's): the error goes where it matters least"},
    {"threads", CONF_INT, O(threads), "0", 0, 1024, "N", "threads; 0: one for each processor"},
    {0},
};
static const struct conf_opt *const groups[] = {table, NULL};
static const struct conf_table conf = {
    "quantize", "quantize IN OUT TYPE [options]",
    "IN, a GGUF file or a checkpoint's directory, as the GGUF file OUT of TYPE:\n"
    "F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q5_K_S, Q4_K_M, Q4_K_S, IQ4_XS, IQ4_NL,\n"
    "Q3_K_L, Q3_K_M, Q3_K_S, Q2_K, Q2_K_S, Q5_1, Q5_0, Q4_1 or Q4_0.\n"
    "  tessera quantize Qwen2.5-7B-Instruct qwen-q4.gguf Q4_K_M", groups, 3, 3};

struct progress {
    int64_t begun_us, last_us;
    bool terminal, drawn;
};

static bool show(void *user, int64_t done, int64_t total, const char *tensor)
{
    struct progress *p = user;
    int64_t now = clock_us();
    if (now - p->last_us >= (p->terminal ? 100000 : 5000000)) {
        double part = total ? (double)done / (double)total : 0, s = (double)(now - p->begun_us) / 1e6;
        fprintf(stderr, "%s%3.0f %%: %.1f of %.1f MB written, %.0f s left (%s)%s", p->terminal ? "\r\033[K" : "", part * 100,
                (double)done / 1e6, (double)total / 1e6,
                part > 0.01 ? s * (1 - part) / part : 0, tensor, p->terminal ? "" : "\n");
        p->last_us = now;
        p->drawn = p->terminal;
    }
    return !process_stop();
}

/* OUT must be a new name: neither a part of IN, nor anything that is there. */
static enum err check_out(const char *out)
{
    struct stat st;
    if (!lstat(out, &st)) return err_raise(ERR_BAD_CONFIG, "%s is there already: give another name, or remove it", out);
    return OK;
}

static void report(const char *out, const struct eng_convert_stats *s, double seconds)
{
    printf("%s: %lld tensors, %.2f MB (from %.2f MB) in %.1f s", out, (long long)s->n_tensors, (double)s->out_bytes / 1e6, (double)s->in_bytes / 1e6, seconds);
    if (s->squares > 0) printf("; error %.3f %% of the quantised weights (root of the mean square)", 100 * sqrt(s->errors / s->squares));
    printf("\n");
    if (s->n_requantised)
        printf("warning: %lld tensors were quantised before: their losses add up; a file of F16 or BF16 gives a better one\n", (long long)s->n_requantised);
    if (s->no_words) printf("warning: the checkpoint has no tokenizer (tokenizer.json or tokenizer.model), so the file has none: it cannot be served\n");
    if (s->n_without_importance) printf("note: the importance matrix has nothing for %lld tensors\n", (long long)s->n_without_importance);
}

static enum err quantize(const struct options *o, const char *in, const char *out, const struct eng_qmix *r)
{
    enum err rc;
    struct eng_model_file *f = NULL;
    struct eng_imatrix *m = NULL;
    struct eng_team *team = NULL;
    struct eng_convert_stats s;
    struct progress p = {.begun_us = clock_us(), .last_us = clock_us(), .terminal = isatty(STDERR_FILENO)};
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    TRY(check_out(out));
    if (o->imatrix) TRY(eng_imatrix_read(&m, o->imatrix));
    TRY(eng_model_file_open(&f, in));
    TRY(eng_team_open(&team, (int32_t)(o->threads ? o->threads : MAX(cpus, 1)), NULL));
    struct eng_convert_conf c = {.in = f, .out = out, .mix = r, .imatrix = m, .imatrix_path = o->imatrix, .team = team, .progress = show, .user = &p};
    rc = eng_convert(&c, &s);
    if (p.drawn) fprintf(stderr, "\r\033[K");
    if (!rc) report(out, &s, (double)(clock_us() - p.begun_us) / 1e6);
out:
    eng_team_close(team);
    eng_model_file_close(f);
    eng_imatrix_close(m);
    return rc;
}

int cmd_quantize(int argc, char **argv)
{
    enum err rc;
    struct options o = {0};
    const char *args[3];
    int n_args;
    bool help;
    TRY(conf_parse(&conf, argc, argv, &o, args, &n_args, &help));
    if (help) {
        conf_help(&conf);
        return 0;
    }
    const struct eng_qmix *r = eng_qmix_find(args[2]);
    if (!r) TRY(err_raise(ERR_BAD_CONFIG, "'%.40s' is no type to quantise to: known are %s", args[2], eng_qmix_names()));
    process_catch_signals();
    TRY(cmd_model(&args[0]));
    TRY(quantize(&o, args[0], args[1], r));
    return 0;
out:
    return cmd_fail(rc);
}
