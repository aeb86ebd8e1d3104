// Cooperative groups: tiles of a block, coalesced threads, the block itself.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
namespace cg = cooperative_groups;
extern "C" __global__ void tiles(int *out, const int *in)
{
    cg::thread_block block = cg::this_thread_block();
    auto tile = cg::tiled_partition<8>(block);
    int value = in[block.thread_rank()], sum = value;
    for (int step = tile.size() / 2; step > 0; step /= 2)
        sum += tile.shfl_xor(sum, step);
    block.sync();
    int most = cg::reduce(tile, value, cg::greater<int>());
    int mates = 0;
    if (value % 3 == 0) {
        auto active = cg::coalesced_threads();
        mates = active.size() * 100 + active.thread_rank();
    }
    block.sync();
    int *row = out + 4 * block.thread_rank();
    row[0] = sum;
    row[1] = most;
    row[2] = mates;
    row[3] = tile.meta_group_rank() + 10 * (tile.ballot(value & 1) >> 1);
}
