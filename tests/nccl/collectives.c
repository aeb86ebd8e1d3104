/* collectives.c: every collective, type and operation, against sums made by hand. */
#include "ranks.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- elements ------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    size_t bytes;
    int exponent_bits, mantissa_bits; /* 0: an integer */
    bool is_unsigned;
} types[ncclNumTypes] = {
    [ncclInt8] = {"int8", 1, 0, 0, false},       [ncclUint8] = {"uint8", 1, 0, 0, true},
    [ncclInt32] = {"int32", 4, 0, 0, false},     [ncclUint32] = {"uint32", 4, 0, 0, true},
    [ncclInt64] = {"int64", 8, 0, 0, false},     [ncclUint64] = {"uint64", 8, 0, 0, true},
    [ncclFloat16] = {"fp16", 2, 5, 10, false},   [ncclFloat32] = {"fp32", 4, 8, 23, false},
    [ncclFloat64] = {"fp64", 8, 11, 52, false},  [ncclBfloat16] = {"bf16", 2, 8, 7, false},
    [ncclFloat8e4m3] = {"e4m3", 1, 4, 3, false}, [ncclFloat8e5m2] = {"e5m2", 1, 5, 2, false},
};

/* The bits of a number that the type has exactly, and that is normal or zero. */
static uint64_t encode(double value, ncclDataType_t type)
{
    int exponent, mantissa = types[type].mantissa_bits, width = types[type].exponent_bits;
    if (width == 0 || value == 0)
        return (uint64_t)(int64_t)value;
    double fraction = frexp(fabs(value), &exponent) * 2 - 1; /* in [0, 1) */
    uint64_t biased = (uint64_t)(exponent - 1 + (1 << (width - 1)) - 1);
    uint64_t sign = (uint64_t)(value < 0) << (width + mantissa);
    return sign | biased << mantissa | (uint64_t)ldexp(fraction, mantissa);
}

static void put(void *array, size_t i, double value, ncclDataType_t type)
{
    uint64_t bits = encode(value, type);
    memcpy((char *)array + i * types[type].bytes, &bits, types[type].bytes);
}

/* Element i of a rank: -2, -1, 1 or 2 (1 or 2 where there are no signs): what two ranks make of
 * them by any operation is exact in every type. */
static double element(int rank, size_t i, ncclDataType_t type)
{
    size_t draw = (i * 7 + (size_t)rank * 5 + i / 3) % 4;
    return (draw & 1 ? 1 : 2) * (draw & 2 && !types[type].is_unsigned ? -1 : 1);
}

static double combined(int ranks, size_t i, ncclDataType_t type, ncclRedOp_t op)
{
    double to = element(0, i, type);
    for (int rank = 1; rank < ranks; rank++) {
        double from = element(rank, i, type);
        switch ((int)op) {
        case ncclProd:
            to *= from;
            break;
        case ncclMin:
            to = fmin(to, from);
            break;
        case ncclMax:
            to = fmax(to, from);
            break;
        default:
            to += from;
            break;
        }
    }
    if (op != ncclAvg)
        return to;
    return types[type].exponent_bits ? to / ranks : trunc(to / ranks);
}

/* ---- every type and operation --------------------------------------------------------------- */

typedef struct buffers {
    size_t elements;
    ncclDataType_t type;
    char *wanted, *found;
    CUdeviceptr send, receive;
} buffers;

/* `elements` of a rank's own to send, and as many to receive into. */
static buffers open_buffers(const test_rank *own, size_t elements, ncclDataType_t type)
{
    size_t bytes = elements * types[type].bytes;
    buffers b = {elements, type, malloc(bytes), malloc(bytes), 0, 0};
    for (size_t i = 0; i < elements; i++)
        put(b.wanted, i, element(own->rank, i, type), type);
    b.send = rank_upload(b.wanted, bytes);
    memset(b.wanted, 0x77, bytes);
    b.receive = rank_upload(b.wanted, bytes);
    return b;
}

/* What came is what `wanted` has, and is released. */
static void close_buffers(test_rank *own, buffers *b, const char *what, ncclRedOp_t op)
{
    size_t bytes = b->elements * types[b->type].bytes;
    CHECK_CUDA(cuStreamSynchronize(own->stream));
    rank_download(b->found, b->receive, bytes);
    CHECK(memcmp(b->found, b->wanted, bytes) == 0, "%s of %zu %s, operation %d, rank %d", what,
          b->elements, types[b->type].name, (int)op, own->rank);
    CHECK_CUDA(cuMemFree(b->send));
    CHECK_CUDA(cuMemFree(b->receive));
    free(b->wanted);
    free(b->found);
}

static void check_all_reduce(test_rank *own, size_t count, ncclDataType_t type, ncclRedOp_t op)
{
    buffers b = open_buffers(own, count, type);
    for (size_t i = 0; i < count; i++)
        put(b.wanted, i, combined(own->ranks, i, type, op), type);
    CHECK_NCCL(ncclSuccess, ncclAllReduce((void *)b.send, (void *)b.receive, count, type, op,
                                          own->comm, nccl_stream(own)));
    close_buffers(own, &b, "all-reduce", op);
}

static void check_reduce(test_rank *own, size_t count, ncclDataType_t type, ncclRedOp_t op)
{
    int root = own->ranks - 1;
    buffers b = open_buffers(own, count, type);
    for (size_t i = 0; i < count && own->rank == root; i++)
        put(b.wanted, i, combined(own->ranks, i, type, op), type);
    void *receive = own->rank == root ? (void *)b.receive : NULL;
    CHECK_NCCL(ncclSuccess, ncclReduce((void *)b.send, receive, count, type, op, root, own->comm,
                                       nccl_stream(own)));
    close_buffers(own, &b, "reduce", op);
}

static void check_reduce_scatter(test_rank *own, size_t count, ncclDataType_t type, ncclRedOp_t op)
{
    buffers b = open_buffers(own, count * (size_t)own->ranks, type);
    for (size_t i = 0; i < count; i++)
        put(b.wanted, i, combined(own->ranks, (size_t)own->rank * count + i, type, op), type);
    CHECK_NCCL(ncclSuccess, ncclReduceScatter((void *)b.send, (void *)b.receive, count, type, op,
                                              own->comm, nccl_stream(own)));
    close_buffers(own, &b, "reduce-scatter", op);
}

static void check_all_gather(test_rank *own, size_t count, ncclDataType_t type)
{
    buffers b = open_buffers(own, count * (size_t)own->ranks, type);
    for (size_t i = 0; i < b.elements; i++)
        put(b.wanted, i, element((int)(i / count), i % count, type), type);
    CHECK_NCCL(ncclSuccess, ncclAllGather((void *)b.send, (void *)b.receive, count, type, own->comm,
                                          nccl_stream(own)));
    close_buffers(own, &b, "all-gather", ncclSum);
}

static void check_broadcast(test_rank *own, size_t count, ncclDataType_t type)
{
    int root = own->ranks - 1;
    buffers b = open_buffers(own, count, type);
    for (size_t i = 0; i < count; i++)
        put(b.wanted, i, element(root, i, type), type);
    const void *send = own->rank == root ? (void *)b.send : NULL;
    CHECK_NCCL(ncclSuccess, ncclBroadcast(send, (void *)b.receive, count, type, root, own->comm,
                                          nccl_stream(own)));
    close_buffers(own, &b, "broadcast", ncclSum);
}

static void every_type_and_operation(test_rank *own)
{
    for (int type = 0; type < ncclNumTypes; type++) {
        for (int op = 0; op < ncclNumOps; op++) {
            check_all_reduce(own, 301, (ncclDataType_t)type, (ncclRedOp_t)op);
            check_reduce(own, 301, (ncclDataType_t)type, (ncclRedOp_t)op);
            check_reduce_scatter(own, 301, (ncclDataType_t)type, (ncclRedOp_t)op);
        }
        check_all_gather(own, 301, (ncclDataType_t)type);
        check_broadcast(own, 301, (ncclDataType_t)type);
    }
}

Test(nccl_collectives, every_type_and_operation_between_processes, .timeout = 60)
{
    ranks_run(PROCESSES, 2, every_type_and_operation, NULL, 0);
}

Test(nccl_collectives, every_type_and_operation_between_threads, .timeout = 60)
{
    ranks_run(THREADS, 2, every_type_and_operation, NULL, 0);
}

/* ---- sizes ---------------------------------------------------------------------------------- */

/* One rank, none, one element, and more than fits a window at once. */
static void many_sizes(test_rank *own)
{
    static const size_t counts[] = {1, 65536, 65537, 300001};
    for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
        check_all_reduce(own, counts[i], ncclFloat32, ncclSum);
        check_reduce_scatter(own, counts[i], ncclInt32, ncclSum);
        check_all_gather(own, counts[i], ncclFloat32);
        check_broadcast(own, counts[i], ncclUint8);
    }
    CHECK_NCCL(ncclSuccess,
               ncclAllReduce(NULL, NULL, 0, ncclFloat32, ncclSum, own->comm, nccl_stream(own)));
    check_all_reduce(own, 3, ncclFloat32, ncclSum);
}

Test(nccl_collectives, sizes_around_a_window_between_four_processes, .timeout = 60)
{
    ranks_run(PROCESSES, 4, many_sizes, NULL, 0);
}

Test(nccl_collectives, sizes_around_a_window_between_three_threads, .timeout = 60)
{
    ranks_run(THREADS, 3, many_sizes, NULL, 0);
}

Test(nccl_collectives, one_rank_is_a_communicator, .timeout = 60)
{
    ranks_run(THREADS, 1, many_sizes, NULL, 0);
}

/* ---- in place ------------------------------------------------------------------------------- */

static void in_place(test_rank *own)
{
    float values[8], found[8];
    for (int i = 0; i < 8; i++)
        values[i] = (float)(10 * own->rank + i);
    CUdeviceptr at = rank_upload(values, sizeof values), mine = at + (unsigned)own->rank * 16;
    CHECK_NCCL(ncclSuccess, ncclReduceScatter((void *)at, (void *)mine, 4, ncclFloat32, ncclSum,
                                              own->comm, nccl_stream(own)));
    CHECK_NCCL(ncclSuccess, ncclAllGather((void *)mine, (void *)at, 4, ncclFloat32, own->comm,
                                          nccl_stream(own)));
    CHECK_NCCL(ncclSuccess, ncclAllReduce((void *)at, (void *)at, 8, ncclFloat32, ncclSum,
                                          own->comm, nccl_stream(own)));
    CHECK_NCCL(ncclSuccess, ncclBcast((void *)at, 8, ncclFloat32, 1, own->comm, nccl_stream(own)));
    CHECK_CUDA(cuStreamSynchronize(own->stream));
    rank_download(found, at, sizeof found);
    for (int i = 0; i < 8; i++)
        CHECK(found[i] == (float)(2 * (2 * i + 10)), "element %d is %g", i, (double)found[i]);
}

Test(nccl_collectives, results_may_take_the_place_of_inputs, .timeout = 60)
{
    ranks_run(PROCESSES, 2, in_place, NULL, 0);
}

/* ---- rounding and order --------------------------------------------------------------------- */

/* 1 + 2^-8 is halfway between two bf16, and the second half-step decides: rounding after each
 * addition would give 1. 448 is the largest e4m3, and no sum leaves it. */
static void rounds_once(test_rank *own)
{
    uint16_t tiny = 0x3b80, one = 0x3f80, found; /* 2^-8 and 1 */
    uint8_t most = 0x7e, sum;
    CUdeviceptr at = rank_upload(own->rank == 0 ? &one : &tiny, 2);
    CUdeviceptr bytes = rank_upload(&most, 1);
    CHECK_NCCL(ncclSuccess, ncclAllReduce((void *)at, (void *)at, 1, ncclBfloat16, ncclSum,
                                          own->comm, nccl_stream(own)));
    CHECK_NCCL(ncclSuccess, ncclAllReduce((void *)bytes, (void *)bytes, 1, ncclFloat8e4m3, ncclSum,
                                          own->comm, nccl_stream(own)));
    CHECK_CUDA(cuStreamSynchronize(own->stream));
    rank_download(&found, at, 2);
    rank_download(&sum, bytes, 1);
    CHECK(found == 0x3f81, "1 + 2^-8 + 2^-8 is %#x", found);
    CHECK(sum == most, "448 three times is %#x", sum);
}

Test(nccl_collectives, sixteen_bits_are_rounded_once_and_eight_bits_saturate, .timeout = 60)
{
    ranks_run(PROCESSES, 3, rounds_once, NULL, 0);
}

#define RANDOM_COUNT 100000

static float random_element(int rank, size_t i)
{
    uint64_t bits = (i + 1) * 0x9e3779b97f4a7c15u ^ (uint64_t)(rank + 1) * 0xbf58476d1ce4e5b9u;
    bits ^= bits >> 29;
    return (float)((double)(int64_t)(bits * 0x94d049bb133111ebu) * 0x1p-60);
}

/* Twice, with the same bits: those of the sum in the order of ranks. */
static void in_order(test_rank *own)
{
    static const size_t bytes = RANDOM_COUNT * sizeof(float);
    float *values = malloc(bytes), *found = malloc(bytes);
    for (size_t i = 0; i < RANDOM_COUNT; i++)
        values[i] = random_element(own->rank, i);
    CUdeviceptr send = rank_upload(values, bytes), receive = rank_upload(values, bytes);
    for (size_t i = 0; i < RANDOM_COUNT; i++) {
        values[i] = random_element(0, i);
        for (int rank = 1; rank < own->ranks; rank++)
            values[i] += random_element(rank, i);
    }
    for (int run = 0; run < 2; run++) {
        CHECK_NCCL(ncclSuccess, ncclAllReduce((void *)send, (void *)receive, RANDOM_COUNT,
                                              ncclFloat32, ncclSum, own->comm, nccl_stream(own)));
        CHECK_CUDA(cuStreamSynchronize(own->stream));
        rank_download(found, receive, bytes);
        CHECK(memcmp(found, values, bytes) == 0, "run %d", run);
    }
    free(values);
    free(found);
}

Test(nccl_collectives, sums_are_in_the_order_of_ranks_in_every_run, .timeout = 60)
{
    ranks_run(PROCESSES, 4, in_order, NULL, 0);
    ranks_run(THREADS, 4, in_order, NULL, 0);
}
