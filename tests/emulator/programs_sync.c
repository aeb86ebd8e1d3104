/* programs_sync.c: CUDA C programs whose threads work together: votes, groups, atomics, locks and
 * flags between lanes, warps and blocks. Every program must end, whatever the order of warps. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "compiled.h"
#include "device.h"
#include "softfloat.h"

static CUdeviceptr zeros(size_t bytes)
{
    CUdeviceptr pointer = device_alloc(bytes);
    cr_assert_eq(cuMemsetD8(pointer, 0, bytes), CUDA_SUCCESS);
    return pointer;
}

PROGRAM(programs_sync, a_warp_sums_in_a_tree_with_syncwarp, "warps.cu")
{
    int in[64], got[2];
    for (int i = 0; i < 64; i++)
        in[i] = i * i;
    CUdeviceptr device_in = device_upload(in, sizeof in), out = zeros(sizeof got);
    LAUNCH(module, "tree", 1, 64, &out, &device_in);
    device_download(got, out, sizeof got);
    for (int w = 0; w < 2; w++) {
        int wanted = 0;
        for (int i = 0; i < 32; i++)
            wanted += in[32 * w + i];
        cr_assert_eq(got[w], wanted);
    }
}

PROGRAM(programs_sync, votes_count_the_lanes_of_their_mask, "warps.cu")
{
    unsigned got[32][8];
    CUdeviceptr out = zeros(sizeof got);
    LAUNCH(module, "votes", 1, 32, &out);
    device_download(got, out, sizeof got);
    for (unsigned i = 0; i < 32; i++) {
        unsigned match = 0x1fu << i / 5 * 5;
        unsigned wanted[8] = {0x49249249,
                              match,
                              0, /* -1 and 1 */
                              i % 2 ? 0xaaaaa800 : 240,
                              2,
                              (i / 8 * 8 + (i + 3) % 8) * 10,
                              i ^ 1,
                              i < 12};
        for (int k = 0; k < 8; k++)
            cr_expect_eq(got[i][k], wanted[k], "lane %u, column %d: 0x%x, expected 0x%x", i, k,
                         got[i][k], wanted[k]);
    }
}

PROGRAM(programs_sync, lanes_that_have_left_are_not_waited_for, "warps.cu")
{
    unsigned got[32];
    CUdeviceptr out = zeros(sizeof got);
    LAUNCH(module, "left", 1, 32, &out);
    device_download(got, out, sizeof got);
    for (unsigned i = 0; i < 32; i++)
        cr_assert_eq(got[i], i < 20 ? 0xaaaaau + 7 : 0, "lane %u: 0x%x", i, got[i]);
}

PROGRAM(programs_sync, cooperative_groups_partition_a_block, "groups.cu")
{
    int in[64], got[64][4];
    for (int i = 0; i < 64; i++)
        in[i] = i * 37 % 41;
    CUdeviceptr device_in = device_upload(in, sizeof in), out = zeros(sizeof got);
    LAUNCH(module, "tiles", 1, 64, &out, &device_in);
    device_download(got, out, sizeof got);
    for (int i = 0; i < 64; i++) {
        int sum = 0, most = 0, ballot = 0, mates = 0, rank = 0;
        for (int k = 0; k < 8; k++) {
            int value = in[i / 8 * 8 + k];
            sum += value;
            most = value > most ? value : most;
            ballot |= (value & 1) << k;
        }
        for (int k = i / 32 * 32; k < i / 32 * 32 + 32; k++) {
            mates += in[k] % 3 == 0;
            rank += k < i && in[k] % 3 == 0;
        }
        int wanted[4] = {sum, most, in[i] % 3 ? 0 : mates * 100 + rank, i / 8 + 10 * (ballot >> 1)};
        for (int k = 0; k < 4; k++)
            cr_expect_eq(got[i][k], wanted[k], "thread %d, column %d: %d, expected %d", i, k,
                         got[i][k], wanted[k]);
    }
}

/* Of the threads first to first + count - 1. */
static int group_sum(const int *in, int first, int count)
{
    int sum = 0;
    for (int k = first; k < first + count; k++)
        sum += in[k];
    return sum;
}

PROGRAM(programs_sync, groups_of_all_sizes_reduce_and_scan, "groups_block.cu")
{
    enum { THREADS = 96, COLUMNS = 9 };
    int in[THREADS], got[THREADS][COLUMNS];
    for (int i = 0; i < THREADS; i++)
        in[i] = i * 37 % 41 + 1;
    CUdeviceptr device_in = device_upload(in, sizeof in), out = zeros(sizeof got);
    LAUNCH(module, "groups", 1, THREADS, &out, &device_in);
    device_download(got, out, sizeof got);
    for (int i = 0; i < THREADS; i++) {
        int warp = i / 32 * 32, half = i / 16 * 16, four = i / 4 * 4;
        int least = in[half], alike = 0, rank = 0, same_parity = 0;
        for (int k = half; k < half + 16; k++)
            least = in[k] < least ? in[k] : least;
        for (int k = warp; k < warp + 32; k++) {
            alike += in[k] % 3 == in[i] % 3 ? in[k] : 0;
            rank += k < i && in[k] % 3 == in[i] % 3;
            same_parity += in[k] % 2 == in[i] % 2;
        }
        int wanted[COLUMNS] = {group_sum(in, warp, 32),
                               least,
                               in[four] ^ in[four + 1] ^ in[four + 2] ^ in[four + 3],
                               group_sum(in, warp, i - warp + 1),
                               group_sum(in, half, i - half),
                               alike * 100 + rank,
                               in[i] % 2 ? same_parity : -same_parity,
                               group_sum(in, 0, THREADS),
                               THREADS};
        for (int k = 0; k < COLUMNS; k++)
            cr_expect_eq(got[i][k], wanted[k], "thread %d, column %d: %d, expected %d", i, k,
                         got[i][k], wanted[k]);
    }
}

PROGRAM(programs_sync, tiles_of_several_warps_meet_in_reserved_memory, "groups_block.cu")
{
    enum { THREADS = 128, TILE = 64, COLUMNS = 5 };
    int in[THREADS], got[THREADS][COLUMNS], most = 0;
    for (int i = 0; i < THREADS; i++) {
        in[i] = i * 37 % 131 + (i < TILE);
        most = in[i] > most ? in[i] : most;
    }
    CUdeviceptr device_in = device_upload(in, sizeof in), out = zeros(sizeof got);
    LAUNCH(module, "large_tiles", 1, THREADS, &out, &device_in);
    device_download(got, out, sizeof got);
    for (int i = 0; i < THREADS; i++) {
        int tile = i / TILE * TILE, any = 0, all = 1;
        for (int k = tile; k < tile + TILE; k++) {
            any |= in[k] == 5;
            all &= in[k] > 0;
        }
        int wanted[COLUMNS] = {in[tile + (i - tile + 33) % TILE], group_sum(in, tile, TILE), most,
                               any + 2 * all, group_sum(in, 0, i + 1)};
        for (int k = 0; k < COLUMNS; k++)
            cr_expect_eq(got[i][k], wanted[k], "thread %d, column %d: %d, expected %d", i, k,
                         got[i][k], wanted[k]);
    }
}

PROGRAM(programs_sync, atomic_additions_lose_nothing, "atomics.cu")
{
    enum { BLOCKS = 4, THREADS = 64, ALL = BLOCKS * THREADS };
    struct {
        float f[2];
        double d;
        uint16_t h[2], b[2];
        unsigned long long u, product;
        int most;
    } got;
    CUdeviceptr base = zeros(sizeof got);
    CUdeviceptr f = base + offsetof(__typeof__(got), f), d = base + offsetof(__typeof__(got), d);
    CUdeviceptr h = base + offsetof(__typeof__(got), h), b = base + offsetof(__typeof__(got), b);
    CUdeviceptr u = base + offsetof(__typeof__(got), u);
    CUdeviceptr most = base + offsetof(__typeof__(got), most);
    CUdeviceptr product = base + offsetof(__typeof__(got), product);
    unsigned long long one = 1, power = 1;
    cr_assert_eq(cuMemcpyHtoD(product, &one, sizeof one), CUDA_SUCCESS);
    LAUNCH(module, "add", BLOCKS, THREADS, &f, &d, &h, &b, &u, &most);
    LAUNCH(module, "multiply", 1, 37, &product);
    device_download(&got, base, sizeof got);
    for (int i = 0; i < 37; i++)
        power *= 3;
    cr_expect(got.f[0] == ALL * (ALL - 1) / 2, "%g", (double)got.f[0]);
    cr_expect(got.f[1] == ALL / 4, "%g", (double)got.f[1]);
    cr_expect(got.d == ALL * (ALL - 1) / 4.0, "%g", got.d);
    cr_expect(format_to_double(format_f16, got.h[0]) == ALL / 4 * 6);
    cr_expect(format_to_double(format_f16, got.h[1]) == -ALL);
    cr_expect(format_to_double(format_bf16, got.b[0]) == ALL);
    cr_expect(format_to_double(format_bf16, got.b[1]) == ALL / 2);
    cr_expect_eq(got.u, (unsigned long long)ALL << 33);
    cr_expect_eq(got.most, 99);
    cr_expect_eq(got.product, power, "%llu, expected %llu", got.product, power);
}

static void check_lock(CUmodule module, const char *entry, unsigned blocks, unsigned threads,
                       int wanted)
{
    int got;
    CUdeviceptr count = zeros(sizeof got);
    LAUNCH(module, entry, blocks, threads, &count);
    device_download(&got, count, sizeof got);
    cr_expect_eq(got, wanted, "%s: %d, expected %d", entry, got, wanted);
}

PROGRAM(programs_sync, a_lock_lets_one_in_at_a_time, "locks.cu")
{
    check_lock(module, "between_blocks", 8, 64, 8);
    check_lock(module, "within_warps", 2, 64, 128);
    check_lock(module, "independent", 2, 64, 128);
}

PROGRAM(programs_sync, blocks_may_wait_for_blocks_that_start_later, "locks.cu")
{
    enum { BLOCKS = 6, THREADS = 32 };
    int order[BLOCKS];
    CUdeviceptr flags = zeros(sizeof order), device_order = zeros(sizeof order);
    LAUNCH(module, "backwards", BLOCKS, THREADS, &flags, &device_order);
    device_download(order, device_order, sizeof order);
    for (int i = 0; i < BLOCKS; i++)
        cr_expect_eq(order[i], BLOCKS - 1 - i, "block %d: %d", i, order[i]);

    int in[BLOCKS * THREADS], got[BLOCKS * THREADS];
    for (int i = 0; i < BLOCKS * THREADS; i++)
        in[i] = i;
    CUdeviceptr arrived = zeros(sizeof(unsigned)), out = zeros(sizeof got);
    CUdeviceptr device_in = device_upload(in, sizeof in);
    LAUNCH(module, "grid_barrier", BLOCKS, THREADS, &arrived, &out, &device_in);
    device_download(got, device_in, sizeof got);
    for (int i = 0; i < BLOCKS * THREADS; i++)
        cr_expect_eq(got[i], (i + 2 * THREADS) % (BLOCKS * THREADS) + 1, "%d: %d", i, got[i]);
}
