/*
 * cu_cluster.c: which clusters a kernel may be launched in, and how many of them run at once.
 */
#include "driver/front.h"

enum { PORTABLE_BLOCKS = 8, MOST_BLOCKS = 16 };

/* What the kernel was compiled for, or what the launch says; ones: neither. */
static void find_cluster(unsigned cluster[3], CUfunction function, const emu_launch *launch)
{
    const int *required = function->attributes.cluster;
    for (int i = 0; i < 3; i++) {
        cluster[i] = required[0] ? (unsigned)required[i] : launch->cluster[i];
        cluster[i] = cluster[i] || launch->cluster[0] ? cluster[i] : 1;
    }
}

static int most_blocks(CUfunction function)
{
    int most = function->has_large_clusters ? MOST_BLOCKS : PORTABLE_BLOCKS;
    int declared = function->attributes.max_cluster;
    return declared && declared < most ? declared : most;
}

CUresult front_check_cluster(CUfunction function, const emu_launch *launch)
{
    unsigned cluster[3];
    const unsigned *given = launch->cluster;
    find_cluster(cluster, function, launch);
    uint64_t blocks = (uint64_t)cluster[0] * cluster[1] * cluster[2];
    if (function->attributes.is_explicit_cluster && !function->attributes.cluster[0] && !given[0])
        return CUDA_ERROR_INVALID_CLUSTER_SIZE;
    if (blocks == 1)
        return CUDA_SUCCESS;
    if (front_settings.arch->cc_major < 9)
        return CUDA_ERROR_INVALID_VALUE;
    for (int i = 0; i < 3; i++) {
        if (cluster[i] == 0 || launch->grid[i] % cluster[i] != 0 ||
            (given[0] && given[i] != cluster[i]))
            return CUDA_ERROR_INVALID_CLUSTER_SIZE;
    }
    return blocks <= (uint64_t)most_blocks(function) ? CUDA_SUCCESS
                                                     : CUDA_ERROR_INVALID_CLUSTER_SIZE;
}

/* ---- occupancy ------------------------------------------------------------------------------ */

/* The blocks of the launch that fit on one multiprocessor. */
static CUresult count_blocks(int *blocks, emu_launch *launch, CUfunction function,
                             const CUlaunchConfig *config)
{
    if (!front_initialized())
        return CUDA_ERROR_NOT_INITIALIZED;
    if (!front_is(function, FRONT_FUNCTION))
        return CUDA_ERROR_INVALID_HANDLE;
    if (front_settings.arch->cc_major < 9)
        return CUDA_ERROR_NOT_SUPPORTED;
    FRONT_TRY(front_read_config(launch, config));
    uint64_t threads = (uint64_t)launch->block[0] * launch->block[1] * launch->block[2];
    if (threads == 0 || threads > (unsigned)function->attributes.max_threads ||
        launch->dynamic_shared_bytes > (size_t)function->max_dynamic_shared)
        return CUDA_ERROR_INVALID_VALUE;
    *blocks = emu_blocks_per_sm(function->function, (unsigned)threads,
                                launch->dynamic_shared_bytes);
    return CUDA_SUCCESS;
}

CUresult CUDAAPI cuOccupancyMaxPotentialClusterSize(int *clusterSize, CUfunction func,
                                                    const CUlaunchConfig *config)
{
    emu_launch launch;
    int blocks;
    if (!clusterSize)
        return CUDA_ERROR_INVALID_VALUE;
    FRONT_TRY(count_blocks(&blocks, &launch, func, config));
    *clusterSize = blocks ? most_blocks(func) : 0;
    return CUDA_SUCCESS;
}

/* A cluster runs within a group of multiprocessors; those of the devices here have about 16. */
CUresult CUDAAPI cuOccupancyMaxActiveClusters(int *numClusters, CUfunction func,
                                              const CUlaunchConfig *config)
{
    enum { GROUP = 16 };
    emu_launch launch;
    int blocks, sms = front_settings.arch->sm_count;
    unsigned cluster[3];
    if (!numClusters)
        return CUDA_ERROR_INVALID_VALUE;
    FRONT_TRY(count_blocks(&blocks, &launch, func, config));
    FRONT_TRY(front_check_cluster(func, &launch));
    find_cluster(cluster, func, &launch);
    int size = (int)(cluster[0] * cluster[1] * cluster[2]);
    *numClusters = sms / GROUP * (GROUP * blocks / size) + sms % GROUP * blocks / size;
    return CUDA_SUCCESS;
}
