/* driver_bytes.c: the counts of distinct bytes that a kernel read, wrote and touched. */
#include <driver/cu_emulator.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "fixture.h"

/* Every kernel has (x, y, step, limit); thread i of the grid, if i < limit, works at x + i * step
 * and y + i * step. */
#define ENTRY(name, body)                                                                          \
    ".visible .entry " name                                                                        \
    "(.param .u64 x, .param .u64 y, .param .u32 step, .param .u32 limit)\n"                        \
    "{\n"                                                                                          \
    "    .reg .u64 %x, %y, %at, %g;\n"                                                             \
    "    .reg .u32 %i, %n, %t, %r<4>;\n"                                                           \
    "    .reg .b16 %h;\n"                                                                          \
    "    .reg .pred %p, %q;\n"                                                                     \
    "    .shared .align 16 .b8 room[4096];\n"                                                      \
    "    ld.param.u64 %x, [x];\n"                                                                  \
    "    ld.param.u64 %y, [y];\n"                                                                  \
    "    ld.param.u32 %n, [step];\n"                                                               \
    "    mov.u32 %t, %ctaid.x;\n"                                                                  \
    "    mov.u32 %i, %ntid.x;\n"                                                                   \
    "    mul.lo.u32 %i, %t, %i;\n"                                                                 \
    "    mov.u32 %t, %tid.x;\n"                                                                    \
    "    add.u32 %i, %i, %t;\n"                                                                    \
    "    mul.wide.u32 %at, %i, %n;\n"                                                              \
    "    add.u64 %x, %x, %at;\n"                                                                   \
    "    add.u64 %y, %y, %at;\n"                                                                   \
    "    ld.param.u32 %n, [limit];\n"                                                              \
    "    setp.lt.u32 %p, %i, %n;\n" body "    ret;\n"                                              \
    "}\n"

static const char kernels[] = ".version 8.0\n.target sm_80\n.address_size 64\n" ENTRY(
    "load", "    @%p ld.global.u32 %r0, [%x];\n")
    ENTRY("load_nc", "    @%p ld.global.nc.u32 %r0, [%x];\n")
        ENTRY("load_byte", "    @%p ld.global.u8 %h, [%x];\n")
            ENTRY("load_v4", "    @%p ld.global.v4.u32 {%r0, %r1, %r2, %r3}, [%x];\n")
                ENTRY("copy", "    @%p ld.global.u32 %r0, [%x];\n"
                              "    @%p st.global.u32 [%y], %r0;\n")
                    ENTRY("store_v2", "    @%p st.global.v2.u32 [%y], {%i, %i};\n")
                        ENTRY("atom", "    @%p atom.global.add.u32 %r0, [%x], 1;\n")
                            ENTRY("red", "    @%p red.global.add.u32 [%x], 1;\n")
    /* half of the lanes load from y */
    ENTRY("load_either", "    and.b32 %r0, %i, 1;\n"
                         "    setp.eq.u32 %q, %r0, 0;\n"
                         "    selp.u64 %x, %x, %y, %q;\n"
                         "    @%p ld.global.u32 %r0, [%x];\n")
    /* generic addresses, of global memory for half of the lanes and of shared memory for the rest
     */
    ENTRY("load_generic", "    mul.wide.u32 %at, %t, 4;\n"
                          "    mov.u64 %g, room;\n"
                          "    add.u64 %g, %g, %at;\n"
                          "    st.shared.u32 [%g], %t;\n"
                          "    cvta.shared.u64 %g, %g;\n"
                          "    and.b32 %r0, %t, 1;\n"
                          "    setp.eq.u32 %q, %r0, 0;\n"
                          "    selp.u64 %g, %x, %g, %q;\n"
                          "    ld.u32 %r0, [%g];\n")
    /* 16 bytes for each thread; lane i reads `limit` - i of them, but never less than none */
    ENTRY("async", "    shl.b32 %r1, %t, 4;\n"
                   "    mov.u32 %r2, room;\n"
                   "    add.u32 %r2, %r2, %r1;\n"
                   "    min.u32 %r3, %t, %n;\n"
                   "    sub.u32 %r3, %n, %r3;\n"
                   "    cp.async.cg.shared.global [%r2], [%x], 16, %r3;\n"
                   "    cp.async.wait_all;\n")
    /* the same size for all lanes, none where %q says to ignore the source */
    ENTRY("async_even", "    shl.b32 %r1, %t, 4;\n"
                        "    mov.u32 %r2, room;\n"
                        "    add.u32 %r2, %r2, %r1;\n"
                        "    setp.ge.u32 %q, %t, 8;\n"
                        "    cp.async.cg.shared.global [%r2], [%x], 16, %q;\n"
                        "    cp.async.wait_all;\n");

static CUcontext context;
static CUmodule module;
static emu_counters last;
static int counted_launches;
static char last_kernel[32];

static void keep(void *user, const char *kernel, const emu_counters *counters)
{
    cr_assert_eq(user, &last);
    snprintf(last_kernel, sizeof last_kernel, "%s", kernel);
    last = *counters;
    counted_launches++;
}

static void open_counting(void)
{
    context = open_device();
    EXPECT_OK(cuModuleLoadData(&module, kernels));
    EXPECT_OK(cuEmulatorCount(keep, &last));
}

static CUdeviceptr filled(size_t bytes)
{
    CUdeviceptr memory;
    EXPECT_OK(cuMemAlloc(&memory, bytes));
    EXPECT_OK(cuMemsetD8(memory, 0, bytes));
    return memory;
}

static void launch(const char *name, unsigned blocks, CUdeviceptr x, CUdeviceptr y, unsigned step,
                   unsigned limit)
{
    void *params[] = {&x, &y, &step, &limit};
    EXPECT_OK(
        cuLaunchKernel(get_kernel(module, name), blocks, 1, 1, 64, 1, 1, 0, NULL, params, NULL));
    EXPECT_OK(cuCtxSynchronize());
}

static void expect_bytes(uint64_t read, uint64_t written, uint64_t touched, const char *what)
{
    cr_expect(
        last.bytes_read == read && last.bytes_written == written && last.bytes_touched == touched,
        "%s: read %" PRIu64 ", wrote %" PRIu64 ", touched %" PRIu64 "; wanted %" PRIu64 ", %" PRIu64
        ", %" PRIu64,
        what, last.bytes_read, last.bytes_written, last.bytes_touched, read, written, touched);
}

/* ---- one kind of access after the other ----------------------------------------------------- */

Test(bytes, of_loads_are_those_of_the_elements)
{
    open_counting();
    CUdeviceptr x = filled(4096);
    launch("load", 1, x, 0, 4, 64);
    expect_bytes(256, 0, 256, "dense");
    launch("load", 1, x, 0, 16, 64);
    expect_bytes(256, 0, 256, "strided");
    launch("load_nc", 1, x, 0, 64, 64);
    expect_bytes(256, 0, 256, "read-only");
    launch("load_v4", 1, x, 0, 32, 64);
    expect_bytes(1024, 0, 1024, "vectors");
    launch("load_byte", 1, x, 0, 3, 64);
    expect_bytes(64, 0, 64, "bytes");
    launch("load", 1, x, 0, 0, 64);
    expect_bytes(4, 0, 4, "one address");
    EXPECT_OK(cuCtxDestroy(context));
}

Test(bytes, of_masked_lanes_do_not_count)
{
    open_counting();
    CUdeviceptr x = filled(4096);
    launch("load", 2, x, 0, 4, 37);
    expect_bytes(148, 0, 148, "37 lanes");
    launch("load", 2, x, 0, 4, 0);
    expect_bytes(0, 0, 0, "no lane");
    EXPECT_OK(cuCtxDestroy(context));
}

Test(bytes, read_by_many_blocks_count_once)
{
    open_counting();
    CUdeviceptr x = filled(1 << 20), y = filled(1 << 20);
    launch("load", 100, x, 0, 1 << 2, 6400);
    expect_bytes(25600, 0, 25600, "apart");
    launch("load_byte", 100, x, 0, 0, 6400);
    expect_bytes(1, 0, 1, "together");
    launch("copy", 100, x, y, 4, 6400);
    expect_bytes(25600, 25600, 51200, "a copy");
    launch("copy", 100, x, x + 12800, 4, 6400);
    expect_bytes(25600, 25600, 38400, "a copy that overlaps");
    EXPECT_OK(cuCtxDestroy(context));
}

Test(bytes, of_stores_and_atomic_operations)
{
    open_counting();
    CUdeviceptr x = filled(4096), fresh;
    EXPECT_OK(cuMemAlloc(&fresh, 4096));
    launch("store_v2", 1, 0, x, 16, 64);
    expect_bytes(0, 512, 512, "vectors");
    launch("store_v2", 1, 0, fresh, 16, 64);
    expect_bytes(0, 512, 512, "into memory that was never written");
    launch("atom", 2, x, 0, 8, 128);
    expect_bytes(512, 512, 512, "atom");
    launch("red", 2, x, 0, 0, 128);
    expect_bytes(4, 4, 4, "red");
    EXPECT_OK(cuCtxDestroy(context));
}

Test(bytes, of_asynchronous_copies_are_those_of_the_source_size)
{
    open_counting();
    CUdeviceptr x = filled(1024);
    launch("async", 1, x, 0, 16, 16); /* 16 + 15 + ... + 1 */
    expect_bytes(136, 0, 136, "falling sizes");
    launch("async", 1, x, 0, 16, 3); /* 3 + 2 + 1 */
    expect_bytes(6, 0, 6, "mostly zeros");
    launch("async", 1, x, 0, 16, 0);
    expect_bytes(0, 0, 0, "zeros only");
    launch("async", 1, 0, 0, 16, 0);
    expect_bytes(0, 0, 0, "zeros only, from nowhere");
    launch("async_even", 1, x, 0, 16, 0);
    expect_bytes(128, 0, 128, "the sources of 8 lanes");
    EXPECT_OK(cuCtxDestroy(context));
}

Test(bytes, are_found_in_several_allocations_and_in_global_memory_only)
{
    open_counting();
    CUdeviceptr x = filled(13 * 4), y = filled(1 << 16);
    launch("load_either", 1, x, y, 4, 13);
    expect_bytes(52, 0, 52, "two allocations");
    launch("load_generic", 1, y, 0, 4, 64);
    expect_bytes(128, 0, 128, "generic addresses");
    EXPECT_OK(cuCtxDestroy(context));
}

/* ---- counting ------------------------------------------------------------------------------- */

Test(bytes, are_the_same_for_every_number_of_threads)
{
    static const char *const threads[] = {"1", "2", "7"};
    for (size_t i = 0; i < sizeof threads / sizeof threads[0]; i++) {
        setenv("MMLP_EMULATOR_THREADS", threads[i], 1);
        open_counting();
        CUdeviceptr x = filled(1 << 20), y = filled(1 << 20);
        launch("copy", 1000, x, y, 4, 64000);
        expect_bytes(256000, 256000, 512000, threads[i]);
        launch("load_byte", 1000, x, 0, 1, 63999); /* neighbours share words of the map */
        expect_bytes(63999, 0, 63999, threads[i]);
        EXPECT_OK(cuCtxDestroy(context));
    }
}

Test(bytes, are_handed_out_for_each_launch_while_counting_is_on)
{
    context = open_device();
    EXPECT_OK(cuModuleLoadData(&module, kernels));
    CUdeviceptr x = filled(4096);
    launch("load", 1, x, 0, 4, 64);
    EXPECT_OK(cuEmulatorCount(keep, &last));
    EXPECT_OK(cuEmulatorCount(keep, &last));
    cr_expect_eq(counted_launches, 0);
    launch("load", 1, x, 0, 4, 10);
    launch("load_nc", 1, x, 0, 4, 10);
    cr_expect_eq(counted_launches, 2);
    cr_expect_str_eq(last_kernel, "load_nc");
    EXPECT_OK(cuEmulatorCount(NULL, NULL));
    EXPECT_OK(cuEmulatorCount(NULL, NULL));
    launch("load", 1, x, 0, 4, 64);
    cr_expect_eq(counted_launches, 2);
    EXPECT_OK(cuEmulatorCount(keep, &last));
    launch("load", 1, x, 0, 4, 12);
    expect_bytes(48, 0, 48, "counted again");
    CUcontext other;
    EXPECT_OK(cuCtxCreate(&other, NULL, 0, 0));
    EXPECT_OK(cuModuleLoadData(&module, kernels));
    launch("load", 1, 0, 0, 4, 0);
    cr_expect_eq(counted_launches, 3, "another context counts");
    EXPECT_OK(cuCtxDestroy(other));
    EXPECT_OK(cuCtxDestroy(context));
    EXPECT_RESULT(CUDA_ERROR_INVALID_CONTEXT, cuEmulatorCount(keep, &last));
    EXPECT_RESULT(CUDA_ERROR_INVALID_CONTEXT, cuEmulatorSetRegisters("load", 32));
}

Test(bytes, are_counted_in_graphs_too_and_faults_are_still_found)
{
    open_counting();
    CUstream stream;
    CUgraph graph;
    CUgraphExec exec;
    CUdeviceptr x = filled(4096), fresh;
    EXPECT_OK(cuMemAlloc(&fresh, 256));
    EXPECT_OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    unsigned step = 4, limit = 20;
    void *params[] = {&x, &fresh, &step, &limit};
    EXPECT_OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    EXPECT_OK(
        cuLaunchKernel(get_kernel(module, "copy"), 1, 1, 1, 64, 1, 1, 0, stream, params, NULL));
    EXPECT_OK(cuStreamEndCapture(stream, &graph));
    EXPECT_OK(cuGraphInstantiate(&exec, graph, 0));
    EXPECT_OK(cuGraphLaunch(exec, stream));
    expect_bytes(80, 80, 160, "a graph");
    params[0] = &fresh;
    limit = 21; /* one more than the graph has written */
    EXPECT_OK(
        cuLaunchKernel(get_kernel(module, "load"), 1, 1, 1, 64, 1, 1, 0, stream, params, NULL));
    EXPECT_RESULT(CUDA_ERROR_LAUNCH_FAILED, cuStreamSynchronize(stream));
    EXPECT_OK(cuCtxDestroy(context));
}
