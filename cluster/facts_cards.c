/* facts_cards.c: see facts.h. The NVIDIA cards of this host, as its own tool tells, and NCCL.
 *
 * Read by nvidia-smi and not by the CUDA plug-in: a driver that hangs then hangs a child that is
 * ended at its deadline, and a host without the plug-in tells of its cards too.
 * Source: nvidia-smi(1): --query-gpu, topo -p2p. */
#include "cluster/facts.h"

#include "base/clock.h"
#include "cluster/child.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SMI_US = 4000000, MODELS = 8 };

/* Name by name, each with its number of cards, in the order of the cards. */
struct models {
    int32_t n;
    char name[MODELS][64];
    int32_t count[MODELS];
};

static void count_model(struct models *m, const char *name)
{
    int32_t i = 0;
    while (i < m->n && strcmp(m->name[i], name)) i++;
    if (i == MODELS) return; /* counted, not listed */
    if (i == m->n) snprintf(m->name[m->n++], sizeof m->name[0], "%.63s", name);
    m->count[i]++;
}

static void list_models(const struct models *m, char *out, size_t size)
{
    size_t at = 0;
    for (int32_t i = 0; i < m->n && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, "%s%d x %s", i ? ", " : "", m->count[i],
                               m->name[i]);
}

/* Starts nvidia-smi; false where there is none. */
static bool smi(struct clu_child *c, const char *const argv[])
{
    *c = clu_child_none;
    return !clu_child_start(c, argv);
}

/* False: there is no tool, no card, or no answer; cards_error says which of the latter two. */
static bool ask_cards(struct clu_facts *f)
{
    static const char *const argv[] = {"nvidia-smi", "--query-gpu=name", "--format=csv,noheader",
                                       NULL};
    struct clu_child c;
    struct models models = {0};
    const char *line;
    int code = 0;
    int64_t until = clock_us() + SMI_US;
    if (!smi(&c, argv)) return false;
    while ((line = clu_child_line(&c, until)))
        if (line[0]) count_model(&models, line), f->n_cards++;
    bool late = clock_us() >= until;
    bool ended = clu_child_end(&c, late ? 0 : 500000, &code);
    if (late || !ended)
        snprintf(f->cards_error, sizeof f->cards_error, "nothing from nvidia-smi within %d s",
                 SMI_US / 1000000);
    else if (code)
        snprintf(f->cards_error, sizeof f->cards_error, "nvidia-smi: %.100s",
                 clu_child_complaint(&c)[0] ? clu_child_complaint(&c)
                 : models.n                 ? models.name[0]
                                            : "it fails without a word");
    clu_child_free(&c);
    if (f->cards_error[0]) f->n_cards = 0;
    else list_models(&models, f->cards, sizeof f->cards);
    return f->n_cards > 0;
}

/* "GPU<i>" at the beginning of a row of the matrix, then a word for each card; -1: no such row. */
static int32_t row_of(char *line, char **rest)
{
    int i, n = 0;
    for (char *p = line; *p; p++) /* the header is underlined: ESC [ 4 m */
        if (*p == '\033') *p = ' ';
    if (sscanf(line, " GPU%d%n", &i, &n) != 1 || !n) return -1;
    *rest = line + n;
    return i;
}

/* Of the pairs of cards, how many cannot read each other's memory. */
static void ask_pairs(struct clu_facts *f)
{
    static const char *const argv[] = {"nvidia-smi", "topo", "-p2p", "r", NULL};
    struct clu_child c;
    const char *said;
    int64_t until = clock_us() + SMI_US;
    if (!smi(&c, argv)) return;
    while ((said = clu_child_line(&c, until))) {
        char *line = xstrdup(said), *rest = NULL, *word, *save = NULL;
        int32_t i = row_of(line, &rest), j = 0;
        for (word = i < 0 ? NULL : strtok_r(rest, " \t", &save); word && j < i;
             word = strtok_r(NULL, " \t", &save), j++) { /* below the diagonal */
            if (!strncmp(word, "GPU", 3)) break;         /* the header */
            f->card_pairs++;
            if (!strcmp(word, "OK") || f->card_pairs_apart++) continue;
            snprintf(f->card_apart, sizeof f->card_apart, "cards %d and %d: %.8s", j, i, word);
        }
        free(line);
    }
    clu_child_end(&c, 500000, NULL);
    clu_child_free(&c);
}

static void ask_nccl(struct clu_facts *f)
{
    const char *path = getenv("TESSERA_NCCL");
    void *lib = dlopen(path && path[0] ? path : "libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    int (*get_version)(int *) = NULL;
    int v = 0;
    if (!lib) return;
    *(void **)&get_version = dlsym(lib, "ncclGetVersion");
    if (get_version && !get_version(&v))
        snprintf(f->nccl, sizeof f->nccl, "%d.%d.%d", v / 10000, v / 100 % 100, v % 100);
    /* not closed: the library keeps threads */
}

void clu_facts_cards(struct clu_facts *f)
{
    if (!ask_cards(f)) return;
    if (f->n_cards > 1) ask_pairs(f);
    ask_nccl(f);
}
