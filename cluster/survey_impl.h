/* survey_impl.h: what survey.c and survey_pairs.c share. */
#ifndef CLUSTER_SURVEY_IMPL_H
#define CLUSTER_SURVEY_IMPL_H

#include "cluster/child.h"
#include "cluster/survey.h"

#include <jansson.h>

struct survey {
    const struct clu_survey_conf *conf;
    struct clu_survey *out;
    struct clu_child child[CLU_SURVEY_HOSTS]; /* the helper of each host */
    bool running[CLU_SURVEY_HOSTS];           /* it can be asked */
    int32_t port[CLU_SURVEY_HOSTS];           /* of its listener; 0: none */
    char token[33];
};

void clu_survey_tell(struct survey *v, const char *fmt, ...) PRINTF(2, 3);
bool clu_survey_stopped(const struct survey *v);
/* The next line of JSON of a helper; what MPI itself prints is passed over. NULL: none until then.
 * line_out[n] (NULL-safe): its text. Own: caller. */
json_t *clu_survey_answer(struct survey *v, int32_t i, int64_t until_us, char *line_out, size_t n);
/* Have every host with ranks measure itself, all at the same time: hosts[].topo. */
void clu_survey_machines(struct survey *v);
/* Compare clocks, then probe every pair. */
void clu_survey_pairs(struct survey *v);

#endif
