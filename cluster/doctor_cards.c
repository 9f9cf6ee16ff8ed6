/* doctor_cards.c: see doctor.h. NVIDIA cards: does their driver answer, can those of one host read
 * each other's memory, is NCCL there? A host without cards is not judged. */
#include "cluster/doctor.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TEXT(field, ...) clu_finding_text(field, sizeof field, __VA_ARGS__)

static struct clu_finding *add(const struct clu_survey *s, int32_t i, struct clu_findings *f,
                               enum clu_severity severity)
{
    char name[128];
    clu_doctor_name(&s->hosts[i], name);
    return clu_findings_add(f, severity, "cards", name);
}

static void judge_driver(const struct clu_survey *s, int32_t i, struct clu_findings *f)
{
    const struct clu_facts *h = &s->hosts[i].facts;
    struct clu_finding *x = add(s, i, f, SEV_WARN);
    TEXT(x->what, "there is an NVIDIA driver, and it does not list its cards: ranks would run on "
                  "processors");
    TEXT(x->seen, "%s", h->cards_error);
    TEXT(x->needed, "a list of cards within 4 s");
    TEXT(x->cure, "on %s: nvidia-smi; dmesg | grep -e NVRM -e Xid (after an update: reboot; slow "
                  "to start: nvidia-smi -pm 1)", h->host);
}

/* Both cost speed and not health, so they are notes, but for a library that is one command away. */
static void judge_between(const struct clu_survey *s, int32_t i, struct clu_findings *f)
{
    const struct clu_facts *h = &s->hosts[i].facts;
    if (h->n_cards < 2) return;
    if (!h->nccl[0]) {
        struct clu_finding *x = add(s, i, f, SEV_WARN);
        TEXT(x->what, "NCCL is not found: sums between this host's cards go by way of its memory");
        TEXT(x->seen, "no libnccl.so.2");
        TEXT(x->needed, "2.14 or newer");
        TEXT(x->cure, "apt-get install libnccl2, or TESSERA_NCCL=/PATH/TO/libnccl.so.2");
    }
    if (h->card_pairs_apart) {
        struct clu_finding *x = add(s, i, f, SEV_NOTE);
        TEXT(x->what, "%" PRId64 " of %" PRId64 " pairs of cards cannot read each other's memory: "
                      "their sums pass through the host's",
             h->card_pairs_apart, h->card_pairs);
        TEXT(x->seen, "%s (nvidia-smi topo -p2p r)", h->card_apart);
        TEXT(x->needed, "OK, for the shortest sums");
        TEXT(x->cure, "CNS, TNS: both cards under one root, ACS and IOMMU off in the BIOS; GNS: "
                      "these cards never do; --pp rather than --tp between them needs fewer sums");
    }
}

static void judge_twins(const struct clu_survey *s, struct clu_findings *f)
{
    const struct clu_facts *first = NULL;
    for (int32_t i = 0; i < s->n; i++) {
        const struct clu_facts *h = &s->hosts[i].facts;
        if (!h->nccl[0]) continue;
        if (!first) first = h;
        if (!strcmp(h->nccl, first->nccl)) continue;
        struct clu_finding *x = add(s, i, f, SEV_NOTE);
        TEXT(x->what, "another version of NCCL; it sums within a host, so they need not agree");
        TEXT(x->seen, "%s", h->nccl);
        TEXT(x->needed, "%s, as on %s", first->nccl, first->host);
    }
}

void clu_doctor_cards(const struct clu_survey *s, struct clu_findings *f)
{
    for (int32_t i = 0; i < s->n; i++) {
        const struct clu_facts *h = &s->hosts[i].facts;
        if (s->hosts[i].asked != ASKED_OK) continue;
        if (h->cards_error[0] && h->driver[0]) judge_driver(s, i, f);
        if (h->n_cards < 1) continue;
        int32_t before = f->n;
        judge_between(s, i, f);
        if (f->n != before) continue;
        struct clu_finding *x = add(s, i, f, SEV_OK);
        TEXT(x->what, "%s%s%s%s", h->cards, h->card_pairs ? ", each reads the others' memory" : "",
             h->nccl[0] ? ", NCCL " : "", h->nccl);
    }
    judge_twins(s, f);
}
