/* under_mpirun.h: `mpirun -n N tessera serve MODEL`: every process becomes a worker; rank 0 first starts the coordinator as a process of its own
 * session, so that an MPI abort cannot take it down. */
#ifndef CLI_UNDER_MPIRUN_H
#define CLI_UNDER_MPIRUN_H

#include "cli/options.h"

/* Is this process a rank that has not been told to be the coordinator? */
bool under_mpirun(int32_t *rank, int32_t *size);
/* argv: of `serve`, handed on to the coordinator. Returns the exit code. */
int under_mpirun_run(int argc, char **argv, int32_t rank, int32_t size, const struct common_options *o);
/* In the coordinator: tell rank 0 where the worker plane is (fd from the environment); does nothing otherwise. */
void under_mpirun_announce(const char *join);

#endif
