/* races_none.c: the usual ways to share memory, right: MMLP_EMULATOR_CHECK=race says nothing, and
 * the results are what they should be, in any order of warps. */
#include <criterion/criterion.h>
#include <string.h>

#include "compiled.h"
#include "device.h"

enum { THREADS = 128 };

static CUdeviceptr zeros(size_t bytes)
{
    CUdeviceptr pointer = device_alloc(bytes);
    cr_assert_eq(cuMemsetD8(pointer, 0, bytes), CUDA_SUCCESS);
    return pointer;
}

/* 0, 1, 2, ... */
static CUdeviceptr numbers(int count)
{
    int values[8 * THREADS];
    for (int i = 0; i < count; i++)
        values[i] = i;
    return device_upload(values, (size_t)count * sizeof values[0]);
}

static void expect(CUdeviceptr from, int count, int (*wanted)(int i), const char *what)
{
    int got[8 * THREADS];
    device_download(got, from, (size_t)count * sizeof got[0]);
    for (int i = 0; i < count; i++)
        cr_assert_eq(got[i], wanted(i), "%s, %d: %d, expected %d", what, i, got[i], wanted(i));
}

static int rotated_sum(int i)
{
    int sum = 0;
    for (int turn = 1; turn <= 9; turn++)
        sum += (i + 37 * turn) % THREADS;
    return sum;
}

PROGRAM(races_none, two_buffers_need_one_barrier_an_iteration, "ordered.cu")
{
    CUdeviceptr out = zeros(THREADS * sizeof(int)), in = numbers(THREADS);
    LAUNCH(module, "double_buffer", 1, THREADS, &out, &in);
    expect(out, THREADS, rotated_sum, "double_buffer");
}

static int ring_sum(int i)
{
    return 8 * ((i + 50) % THREADS) + THREADS * 28;
}

PROGRAM(races_none, a_ring_of_copies_is_refilled_behind_the_barrier, "ordered.cu")
{
    CUdeviceptr out = zeros(THREADS * sizeof(int)), in = numbers(8 * THREADS);
    LAUNCH(module, "ring", 1, THREADS, &out, &in);
    expect(out, THREADS, ring_sum, "ring");
}

static int consumed(int i)
{
    return 5 * ((i + 33) % (THREADS / 2)) + 10;
}

PROGRAM(races_none, named_barriers_order_producers_and_consumers, "ordered.cu")
{
    CUdeviceptr out = zeros(THREADS * sizeof(int)), in = numbers(THREADS);
    LAUNCH(module, "named_barriers", 1, THREADS, &out, &in);
    expect(out, THREADS / 2, consumed, "named_barriers");
}

static int all_warps(int i)
{
    (void)i;
    return 4 * 6;
}

PROGRAM(races_none, a_lock_orders_what_it_guards, "ordered.cu")
{
    CUdeviceptr out = zeros(sizeof(int)), lock = zeros(sizeof(int)), count = zeros(sizeof(int));
    LAUNCH(module, "acquire_release_lock", 6, THREADS, &out, &lock);
    expect(out, 1, all_warps, "acquire_release_lock");
    LAUNCH(module, "block_lock", 6, THREADS, &count);
    expect(count, 1, all_warps, "block_lock");
}

static int flagged(int i)
{
    return (i + 64) % THREADS + 1;
}

PROGRAM(races_none, a_flag_between_fences_orders_two_blocks, "ordered.cu")
{
    CUdeviceptr out = zeros(THREADS * sizeof(int)), raised = zeros(sizeof(int)),
                values = zeros(THREADS * sizeof(int));
    LAUNCH(module, "flag", 2, THREADS, &out, &raised, &values);
    expect(out, THREADS, flagged, "flag");
}

PROGRAM(races_none, neighbouring_half_words_are_different_bytes, "ordered.cu")
{
    unsigned short got[4 * THREADS];
    CUdeviceptr out = zeros(sizeof got);
    LAUNCH(module, "halves", 2, THREADS, &out);
    device_download(got, out, sizeof got);
    for (int i = 0; i < THREADS; i++)
        for (int block = 0; block < 2; block++) {
            cr_assert_eq(got[4 * i + block], (i + 2) % THREADS, "%d", i);
            cr_assert_eq(got[4 * i + 2 + block], 2 * i, "%d", i);
        }
}

static int per_bin(int i)
{
    (void)i;
    return THREADS;
}

PROGRAM(races_none, atomics_share_bins, "ordered.cu")
{
    CUdeviceptr out = zeros(8 * sizeof(int)), in = numbers(8 * THREADS);
    LAUNCH(module, "bins", 5, THREADS, &out, &in);
    expect(out, 8, per_bin, "bins");
}

static int twice(int i)
{
    return (i + 2 * (THREADS + 5)) % (4 * THREADS) + 2;
}

PROGRAM(races_none, launches_of_a_stream_are_ordered, "ordered.cu")
{
    CUdeviceptr first = numbers(4 * THREADS), second = zeros(4 * THREADS * sizeof(int));
    LAUNCH(module, "rotate", 4, THREADS, &second, &first);
    LAUNCH(module, "rotate", 4, THREADS, &first, &second);
    expect(first, 4 * THREADS, twice, "rotate");
}
