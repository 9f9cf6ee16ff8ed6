/* mpi_impl.h: what mpi_env.c and coll_mpi.c share. These two are the only files that see mpi.h. */
#ifndef TRANSPORT_MPI_IMPL_H
#define TRANSPORT_MPI_IMPL_H

#include "base/err.h"

#include <mpi.h>
#include <stdbool.h>

/* The project's own duplicate of the world, errors returned. MPI_COMM_NULL before trn_mpi_env_init. */
MPI_Comm trn_mpi_env_comm(void);
/* Has this host a processor for each rank of the world that runs on it, among those they may use? */
bool trn_mpi_env_may_spin(void);
/* OK for MPI_SUCCESS, else MPI with the library's text: the one translation of MPI's codes. */
enum err trn_mpi_env_error(int code, const char *call);

#endif
