/* bench_sched.h: what a step costs the coordinator. */
#ifndef TESTS_SCHED_BENCH_SCHED_H
#define TESTS_SCHED_BENCH_SCHED_H

int bench_sched(void); /* prints; 0 */

#endif
