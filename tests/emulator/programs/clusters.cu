/* A histogram whose bins are spread over the shared memory of a cluster's blocks. */
#include <cooperative_groups.h>

namespace cg = cooperative_groups;

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 900
constexpr unsigned cluster_blocks = 4, bins_of_block = 16;

extern "C" __global__ void __cluster_dims__(4, 1, 1)
    spread_histogram(const unsigned *values, unsigned count, unsigned *bins)
{
    __shared__ unsigned mine[bins_of_block];
    cg::cluster_group cluster = cg::this_cluster();
    for (unsigned i = threadIdx.x; i < bins_of_block; i += blockDim.x)
        mine[i] = 0;
    cluster.sync();
    unsigned stride = blockDim.x * gridDim.x;
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += stride) {
        unsigned bin = values[i] % (cluster_blocks * bins_of_block);
        unsigned *theirs = cluster.map_shared_rank(mine, bin / bins_of_block);
        atomicAdd(&theirs[bin % bins_of_block], 1u);
    }
    cluster.sync();
    for (unsigned i = threadIdx.x; i < bins_of_block; i += blockDim.x)
        atomicAdd(&bins[cluster.block_rank() * bins_of_block + i], mine[i]);
}
#endif
