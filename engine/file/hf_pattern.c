/* hf_pattern.c: the patterns by which compressed-tensors names modules. Expressions are the config's own, so what one may cost
 * is bounded. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "engine/file/hf_quant.h"

#include <pcre2.h>
#include <string.h>

enum { LONGEST_PATTERN = 1024, MOST_STEPS = 100000, MOST_ASKED = 20000000 };

/* 1: it begins as the expression says; 0: it does not; -1. */
static int begins_as(const char *expression, const char *name)
{
    int error;
    PCRE2_SIZE at;
    if (strlen(expression) > LONGEST_PATTERN) return -1;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)expression, PCRE2_ZERO_TERMINATED, PCRE2_ANCHORED | PCRE2_NEVER_BACKSLASH_C, &error, &at, NULL);
    pcre2_match_context *limits = pcre2_match_context_create(NULL);
    pcre2_match_data *found = code ? pcre2_match_data_create_from_pattern(code, NULL) : NULL;
    int n = -1;
    if (code && limits && found) {
        pcre2_set_match_limit(limits, MOST_STEPS);
        pcre2_set_depth_limit(limits, MOST_STEPS);
        pcre2_set_heap_limit(limits, 4096); /* KiB */
        n = pcre2_match(code, (PCRE2_SPTR)name, strlen(name), 0, 0, found, limits);
        n = n >= 0 ? 1 : n == PCRE2_ERROR_NOMATCH ? 0 : -1;
    }
    pcre2_match_data_free(found);
    pcre2_match_context_free(limits);
    pcre2_code_free(code);
    return n;
}

/* Does a name of compressed-tensors ("Linear", a module's name, "re:" and an expression) mean this module? 3: by its name, 2: by
 * an expression, 1: as a Linear, 0: no, -1: not an expression, or one that takes too long. */
static int match(const char *pattern, const char *module)
{
    if (!strncmp(pattern, "re:", 3)) {
        int n = begins_as(pattern + 3, module);
        return n > 0 ? 2 : n;
    }
    if (!strcmp(pattern, module)) return 3;
    return !strcmp(pattern, "Linear");
}

/* How a module is meant by the best of the names: as match. */
static enum err best_of(struct eng_hf_quant *q, const struct eng_quant_names *names, const char *module, int *how)
{
    *how = 0;
    q->asked += (int64_t)names->n;
    if (q->asked > MOST_ASKED) return err_raise(ERR_BAD_FILE, "%s has too many patterns for so many tensors", q->what);
    for (size_t i = 0; i < names->n; i++) {
        int n = match(names->at[i], module);
        if (n < 0)
            return err_raise(ERR_BAD_FILE, "%s: '%s' is no expression, or takes too long", q->what, eng_show(names->at[i], strlen(names->at[i])).s);
        *how = MAX(*how, n);
    }
    return OK;
}

enum err eng_hf_quant_of(struct eng_hf_quant *q, const char *module, const struct eng_quant_scheme **out)
{
    int best = 0, how;
    *out = NULL;
    enum err rc = best_of(q, &q->ignore, module, &how);
    if (rc || how) return rc;
    for (int32_t i = 0; i < q->n_schemes; i++) {
        rc = best_of(q, &q->schemes[i].targets, module, &how);
        if (rc) return rc;
        if (how <= best) continue;
        best = how;
        *out = &q->schemes[i];
    }
    return OK;
}
