/* forecast.h: what a placement promises of a decoding step, in terms that a running cluster can measure, and which term was wrong when the two
 * part by more than a quarter. With several stages a step is no one rank's, and what is promised is a round: one token for each sequence that
 * decodes, from the start of the first micro-batch to that of the next. Pure. */
#ifndef CLUSTER_FORECAST_H
#define CLUSTER_FORECAST_H

#include "cluster/cost.h"

enum { CLU_FORECAST_ROWS = 8 };

/* One stage: seconds of a step of rows[i] sequences that each get one token, on the rank that answers. Several: of a round of as many. */
struct clu_forecast {
    int32_t n;                  /* 0: nothing is promised */
    int32_t n_stages;
    double rows[CLU_FORECAST_ROWS], compute_s[CLU_FORECAST_ROWS], comm_s[CLU_FORECAST_ROWS];
    bool speed_known, links_known; /* from measurements; else a term was guessed, and is not judged */
};
void clu_forecast_of(struct clu_forecast *out, const struct clu_work *w, const struct clu_topo *t, const struct clu_layout *l);
/* Between the rows that are there; beyond the last, in proportion. */
void clu_forecast_at(const struct clu_forecast *f, double rows, double *compute_s, double *comm_s);

/* Means of steps, or rounds, that were measured. */
struct clu_measured {
    double rows;
    double step_s;  /* on the rank that answers; of a round, by the clock */
    double lead_s;  /* of it in collectives */
    double least_s; /* the same on the rank that waits least: what the wire takes, for the others have waited for this one too */
};

/* Of a round only the sums within stages are measured apart: what parts otherwise is COMPUTE's, hops between stages and their balance included. */
enum clu_term { CLU_TERM_NONE, CLU_TERM_COMPUTE, CLU_TERM_LINKS, CLU_TERM_LEVEL, CLU_TERMS };
extern const char *const clu_term_name[CLU_TERMS]; /* "computing" */

/* The term that parts most, if the step as a whole parts by more than a quarter (NONE: it does not, or nothing is promised); text: one sentence
 * with predicted and measured, in either case. */
enum clu_term clu_forecast_judge(const struct clu_forecast *f, const struct clu_measured *m, char text[320]);

#endif
