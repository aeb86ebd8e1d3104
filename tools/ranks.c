/* ranks.c: the processes that mpirun has started. */
#include "ranks.h"

#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PIECE = 1 << 30 }; /* MPI counts with int */

/* What the launchers of Open MPI and MPICH, and Slurm's PMI, set. */
static int is_launched(void)
{
    static const char *const variables[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"};
    for (size_t i = 0; i < sizeof variables / sizeof *variables; ++i)
        if (getenv(variables[i]))
            return 1;
    return 0;
}

void ranks_start(ranks *out, int *argc, char ***argv)
{
    MPI_Comm local;
    *out = (ranks){.count = 1};
    if (!is_launched())
        return;
    MPI_Init(argc, argv); /* what fails in MPI ends all ranks with a line of MPI's own */
    MPI_Comm_size(MPI_COMM_WORLD, &out->count);
    MPI_Comm_rank(MPI_COMM_WORLD, &out->rank);
    MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, out->rank, MPI_INFO_NULL, &local);
    MPI_Comm_rank(local, &out->local);
    MPI_Comm_free(&local);
    setvbuf(stdout, NULL, _IOLBF, 0); /* lines of ranks may follow each other in any order */
}

void ranks_end(int code, int aborts)
{
    int started = 0;
    MPI_Initialized(&started);
    if (!started)
        return;
    fflush(stdout);
    if (aborts)
        MPI_Abort(MPI_COMM_WORLD, code);
    MPI_Finalize();
}

void ranks_broadcast(const ranks *r, void *bytes, size_t count)
{
    if (r->count > 1)
        MPI_Bcast(bytes, (int)count, MPI_BYTE, 0, MPI_COMM_WORLD);
}

void ranks_gather(const ranks *r, void *all, const void *own, size_t count)
{
    if (r->count == 1) {
        memcpy(all, own, count);
        return;
    }
    for (int rank = 0; rank < r->count; ++rank) {
        char *place = (char *)all + (size_t)rank * count;
        if (rank == r->rank)
            memcpy(place, own, count);
        for (size_t done = 0; done < count; done += PIECE)
            MPI_Bcast(place + done, (int)(count - done < PIECE ? count - done : PIECE), MPI_BYTE,
                      rank, MPI_COMM_WORLD);
    }
}

int ranks_agree(const ranks *r, int code)
{
    if (r->count > 1)
        MPI_Allreduce(MPI_IN_PLACE, &code, 1, MPI_INT, MPI_MAX, MPI_COMM_WORLD);
    return code;
}

static void sum(const ranks *r, void *values, size_t count, MPI_Datatype type, size_t bytes)
{
    for (size_t done = 0; r->count > 1 && done < count; done += PIECE)
        MPI_Allreduce(MPI_IN_PLACE, (char *)values + done * bytes,
                      (int)(count - done < PIECE ? count - done : PIECE), type, MPI_SUM,
                      MPI_COMM_WORLD);
}

void ranks_sum(const ranks *r, double *values, size_t count)
{
    sum(r, values, count, MPI_DOUBLE, sizeof *values);
}

void ranks_sum_floats(const ranks *r, float *values, size_t count)
{
    sum(r, values, count, MPI_FLOAT, sizeof *values);
}
