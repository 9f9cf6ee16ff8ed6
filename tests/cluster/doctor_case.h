/* doctor_case.h: a healthy cluster of three hosts, for tests to break. */
#ifndef TESTS_CLUSTER_DOCTOR_CASE_H
#define TESTS_CLUSTER_DOCTOR_CASE_H

#include "cluster/doctor.h"

#include <stdio.h>

#define SET(field, ...) snprintf(field, sizeof field, __VA_ARGS__)

enum { N = 3, PATHS = N * (N - 1) };

extern struct clu_survey_host hosts[N];
extern struct clu_path paths[2 * PATHS];
extern struct clu_survey s;
#define F(i) hosts[i].facts

/* s: hosts a, b, c on 10.0.0.0/24 that want for nothing. */
void healthy(void);
struct clu_path *path(int a, int b);
/* A second interface eth1 on each host, which works or not. */
void second_nic(const char *network, enum clu_reach reach, double bytes_s);
/* Host b could not be asked, so nobody probed it. */
void silence(enum clu_asked asked, const char *why);
/* Findings that are more than notes; they must come first. -1: they do not. */
int32_t alarms(const struct clu_findings *f);

#endif
