// Cooperative groups from four lanes up to the block: reductions, scans, partitions by label and by
// predicate, and a sum over the block of what its tiles have.
#include <cooperative_groups.h>
#include <cooperative_groups/reduce.h>
#include <cooperative_groups/scan.h>
namespace cg = cooperative_groups;

extern "C" __global__ void groups(int *out, const int *in)
{
    __shared__ int partial[32];
    cg::thread_block block = cg::this_thread_block();
    cg::thread_block_tile<32> warp = cg::tiled_partition<32>(block);
    cg::thread_block_tile<16> half = cg::tiled_partition<16>(warp);
    auto four = cg::tiled_partition<4>(half);
    int value = in[block.thread_rank()], *row = out + 9 * block.thread_rank();

    row[0] = cg::reduce(warp, value, cg::plus<int>());
    row[1] = cg::reduce(half, value, cg::less<int>());
    row[2] = cg::reduce(four, value, cg::bit_xor<int>());
    row[3] = cg::inclusive_scan(warp, value);
    row[4] = cg::exclusive_scan(half, value, cg::plus<int>());
    auto alike = cg::labeled_partition(warp, value % 3);
    row[5] = cg::reduce(alike, value, cg::plus<int>()) * 100 + alike.thread_rank();
    auto odd_or_even = cg::binary_partition(warp, (value & 1) != 0);
    row[6] = (int)odd_or_even.size() * (value & 1 ? 1 : -1);

    if (warp.thread_rank() == 0)
        partial[warp.meta_group_rank()] = row[0];
    block.sync();
    int sum = 0;
    for (unsigned i = 0; i < warp.meta_group_size(); i++)
        sum += partial[i];
    row[7] = sum;
    row[8] = (int)block.size();
}

// Tiles of more than a warp meet in memory that the system reserves.
extern "C" __global__ void large_tiles(int *out, const int *in)
{
    __shared__ int own[128];
    cg::thread_block block = cg::this_thread_block();
    auto tile = cg::tiled_partition<64>(block);
    auto all = cg::tiled_partition<128>(block);
    int value = in[block.thread_rank()], *row = out + 5 * block.thread_rank();
    own[block.thread_rank()] = value;
    tile.sync();
    row[0] = own[tile.meta_group_rank() * 64 + (tile.thread_rank() + 33) % 64];
    row[1] = cg::reduce(tile, value, cg::plus<int>());
    row[2] = cg::reduce(all, value, cg::greater<int>());
    row[3] = tile.any(value == 5) + 2 * tile.all(value > 0);
    row[4] = cg::inclusive_scan(all, value);
}
