/* doctor_collective.h: one rank of the all-reduce that `tessera doctor` really runs, through the
 * same communicator as the engine's. */
#ifndef CLI_DOCTOR_COLLECTIVE_H
#define CLI_DOCTOR_COLLECTIVE_H

/* Started by mpirun; prints a line of JSON at each stage. Exit code: 0, 3 when the sum is wrong,
 * else 1. */
int doctor_collective(void);

#endif
