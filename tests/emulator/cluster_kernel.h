/*
 * cluster_kernel.h: runs a few lines of PTX as one kernel on a grid of clusters.
 */
#ifndef MMLP_TESTS_CLUSTER_KERNEL_H
#define MMLP_TESTS_CLUSTER_KERNEL_H

#include <cuda.h>
#include <stdbool.h>
#include <stddef.h>

#include "ptx_text.h"

enum {
    CLUSTER_SHARED = 18432,
    CLUSTER_BLOCKS = 8,              /* of one cluster, at most */
    MOST_BLOCKS = 8 * CLUSTER_BLOCKS /* of a grid */
};

/* Who says the shape: the kernel's directive, the launch's attribute; nobody: of one block each. */
typedef enum cluster_origin { BY_KERNEL, BY_LAUNCH, BY_NOBODY } cluster_origin;

typedef struct cluster_grid {
    int cluster[3], clusters[3]; /* blocks of a cluster, and clusters, in x, y and z */
    int threads;
    cluster_origin origin;
} cluster_grid;

/* Of few clusters of 2 to 8 blocks, or of 1 to 8. */
cluster_grid cluster_random(int threads, bool may_be_one);
int cluster_size(const cluster_grid *g); /* blocks of a cluster */
int cluster_count(const cluster_grid *g);
const char *cluster_name(const cluster_grid *g);

/* What each block reads and writes; blocks of a cluster lie together, by rank. */
typedef struct cluster_memory {
    const void *in;
    size_t in_bytes;
    void *out;
    size_t out_bytes;
} cluster_memory;

/*
 * The body may use: %in and %out (.u64 global addresses of the block's bytes), %all_in (of those of
 * all blocks of its cluster), %rank and %cluster (.u32: number of the cluster's first block),
 * %thread, %first (.pred: thread 0), %map (.u64, generic address of `map`, a parameter called `m`),
 * registers %r0-%r31, %rd0-%rd31, %q0-%q7, %f0-%f7, %g0-%g7, %h0-%h7, %p0-%p7, CLUSTER_SHARED bytes
 * called `shared` and four `barriers`. None of the registers comes from the ones that describe
 * clusters.
 */
void cluster_run(const cluster_grid *g, const ptx_text *body, const cluster_memory *memory,
                 const CUtensorMap *map);

#define CLUSTER_BARRIER "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;\n"

#endif
