/*
 * cluster_launch.c: how the driver is told of clusters, what it says of them, and what it refuses.
 */
#include <criterion/criterion.h>
#include <stdint.h>
#include <stdlib.h>

#include "compiled.h"
#include "device.h"

enum { BLOCKS = 24 };

/* Every block writes 100 times its rank, plus the blocks of its cluster, and 10000 if the cluster
 * is explicit. */
#define KERNEL(name, directives)                                                                   \
    ".visible .entry " name "(.param .u64 pout) " directives "\n{\n"                               \
    "  .reg .b64 %out, %rd<4>; .reg .b32 %r<8>; .reg .pred %p<4>;\n"                               \
    "  ld.param.u64 %out, [pout]; mov.u32 %r0, %cluster_ctarank; mov.u32 %r1, "                    \
    "%cluster_nctarank;\n"                                                                         \
    "  mad.lo.u32 %r2, %r0, 100, %r1; mov.pred %p0, %is_explicit_cluster;\n"                       \
    "  @%p0 add.u32 %r2, %r2, 10000;\n"                                                            \
    "  mov.u32 %r3, %ctaid.y; mov.u32 %r4, %nctaid.x; mov.u32 %r5, %ctaid.x;\n"                    \
    "  mad.lo.u32 %r3, %r3, %r4, %r5; mul.wide.u32 %rd0, %r3, 4; add.s64 %rd0, %rd0, %out;\n"      \
    "  st.global.u32 [%rd0], %r2; barrier.cluster.arrive; barrier.cluster.wait;\n  ret;\n}\n"
static const char text[] = ".version 8.0\n.target sm_90\n.address_size 64\n" KERNEL("any", "")
    KERNEL("two", ".explicitcluster .reqnctapercluster 2, 1, 1") KERNEL("asks", ".explicitcluster")
        KERNEL("four", ".maxclusterrank 4");

typedef struct fixture {
    CUmodule module;
    CUdeviceptr out;
    uint32_t words[BLOCKS];
} fixture;

static fixture open_fixture(void)
{
    device_open();
    return (fixture){.module = device_load(text, "clusters"), .out = device_alloc(4 * BLOCKS)};
}

static CUfunction find(const fixture *f, const char *name)
{
    CUfunction function;
    cr_assert_eq(cuModuleGetFunction(&function, f->module, name), CUDA_SUCCESS);
    return function;
}

static CUlaunchConfig config_of(CUlaunchAttribute *attribute, unsigned x, unsigned y,
                                unsigned size_x, unsigned size_y)
{
    *attribute = (CUlaunchAttribute){.id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION};
    attribute->value.clusterDim.x = size_x;
    attribute->value.clusterDim.y = size_y;
    attribute->value.clusterDim.z = 1;
    return (CUlaunchConfig){.gridDimX = x,
                            .gridDimY = y,
                            .gridDimZ = 1,
                            .blockDimX = 32,
                            .blockDimY = 1,
                            .blockDimZ = 1,
                            .attrs = attribute,
                            .numAttrs = size_x ? 1 : 0};
}

/* Clusters of size_x * size_y (0: not said) in a grid of x * y. */
static CUresult launch(fixture *f, const char *name, unsigned x, unsigned y, unsigned size_x,
                       unsigned size_y)
{
    CUlaunchAttribute attribute;
    CUlaunchConfig config = config_of(&attribute, x, y, size_x, size_y);
    void *arguments[] = {&f->out};
    CUresult result = cuLaunchKernelEx(&config, find(f, name), arguments, NULL);
    if (result == CUDA_SUCCESS)
        device_download(f->words, f->out, sizeof f->words);
    return result;
}

static void expect_ranks(const fixture *f, unsigned x, unsigned y, unsigned size_x, unsigned size_y,
                         uint32_t base)
{
    for (unsigned i = 0; i < x * y; i++) {
        uint32_t rank = i % x % size_x + i / x % size_y * size_x;
        uint32_t wanted = base + 100 * rank + size_x * size_y;
        cr_assert_eq(f->words[i], wanted, "block %u has %u, not %u", i, f->words[i], wanted);
    }
}

Test(cluster_launch, the_launch_or_the_kernel_says_the_size)
{
    fixture f = open_fixture();
    cr_assert_eq(launch(&f, "any", 6, 4, 2, 2), CUDA_SUCCESS);
    expect_ranks(&f, 6, 4, 2, 2, 10000);
    cr_assert_eq(launch(&f, "any", 6, 4, 3, 1), CUDA_SUCCESS);
    expect_ranks(&f, 6, 4, 3, 1, 10000);
    cr_assert_eq(launch(&f, "any", 6, 4, 0, 0), CUDA_SUCCESS);
    expect_ranks(&f, 6, 4, 1, 1, 0);
    cr_assert_eq(launch(&f, "two", 6, 4, 0, 0), CUDA_SUCCESS);
    expect_ranks(&f, 6, 4, 2, 1, 10000);
    cr_assert_eq(launch(&f, "two", 6, 4, 2, 1), CUDA_SUCCESS);
    cr_assert_eq(launch(&f, "asks", 6, 4, 1, 4), CUDA_SUCCESS);
    expect_ranks(&f, 6, 4, 1, 4, 10000);
    device_close();
}

Test(cluster_launch, sizes_that_do_not_fit_are_refused)
{
    fixture f = open_fixture();
    cr_expect_eq(launch(&f, "any", 5, 4, 2, 1), CUDA_ERROR_INVALID_CLUSTER_SIZE);
    cr_expect_eq(launch(&f, "any", 12, 1, 12, 1), CUDA_ERROR_INVALID_CLUSTER_SIZE);
    cr_expect_eq(launch(&f, "any", 6, 4, 2, 0), CUDA_ERROR_INVALID_CLUSTER_SIZE);
    cr_expect_eq(launch(&f, "two", 5, 4, 0, 0), CUDA_ERROR_INVALID_CLUSTER_SIZE);
    cr_expect_eq(launch(&f, "two", 6, 4, 3, 1), CUDA_ERROR_INVALID_CLUSTER_SIZE);
    cr_expect_eq(launch(&f, "asks", 6, 4, 0, 0), CUDA_ERROR_INVALID_CLUSTER_SIZE);
    cr_expect_eq(launch(&f, "four", 6, 4, 6, 1), CUDA_ERROR_INVALID_CLUSTER_SIZE);
    cr_expect_eq(launch(&f, "four", 8, 3, 4, 1), CUDA_SUCCESS);
    device_close();
}

Test(cluster_launch, sixteen_blocks_want_an_attribute)
{
    fixture f = open_fixture();
    CUfunction any = find(&f, "any");
    int value = -1;
    cr_expect_eq(
        cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, any),
        CUDA_SUCCESS);
    cr_expect_eq(value, 0);
    cr_expect_eq(launch(&f, "any", 16, 1, 16, 1), CUDA_ERROR_INVALID_CLUSTER_SIZE);
    cr_expect_eq(cuFuncSetAttribute(any, CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1),
                 CUDA_SUCCESS);
    cr_expect_eq(launch(&f, "any", 16, 1, 16, 1), CUDA_SUCCESS);
    expect_ranks(&f, 16, 1, 16, 1, 10000);
    device_close();
}

Test(cluster_launch, a_kernel_tells_its_cluster)
{
    fixture f = open_fixture();
    int value = -1;
    cr_expect_eq(
        cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_WIDTH, find(&f, "two")),
        CUDA_SUCCESS);
    cr_expect_eq(value, 2);
    cr_expect_eq(
        cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_REQUIRED_CLUSTER_HEIGHT, find(&f, "any")),
        CUDA_SUCCESS);
    cr_expect_eq(value, 0);
    cr_expect_eq(
        cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_CLUSTER_SIZE_MUST_BE_SET, find(&f, "asks")),
        CUDA_SUCCESS);
    cr_expect_eq(value, 1);
    device_close();
}

/* A GPU's clusters do not cross its GPCs, which differ from chip to chip: it may have fewer. */
static void expect_up_to(int found, int emulated)
{
    int least = device_is_emulated() ? emulated : 1;
    cr_expect(found >= least && found <= emulated, "%d, expected %d to %d", found, least, emulated);
}

Test(cluster_launch, occupancy_counts_clusters)
{
    fixture f = open_fixture();
    CUlaunchAttribute attribute;
    CUlaunchConfig config = config_of(&attribute, 8, 1, 4, 1);
    int value = 0, blocks = 0;
    config.blockDimX = 1024;
    CUfunction any = find(&f, "any");
    cr_expect_eq(cuOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, any, 1024, 0), CUDA_SUCCESS);
    cr_expect_eq(cuOccupancyMaxActiveClusters(&value, any, &config), CUDA_SUCCESS);
    expect_up_to(value, blocks * 132 / 4); /* an H100 and an H200 have 132 multiprocessors */
    cr_expect_eq(cuOccupancyMaxPotentialClusterSize(&value, any, &config), CUDA_SUCCESS);
    expect_up_to(value, 8);
    cr_expect_eq(cuOccupancyMaxPotentialClusterSize(&value, find(&f, "four"), &config),
                 CUDA_SUCCESS);
    if (device_is_emulated())
        cr_expect_eq(value, 4);
    else /* cuda.h says that it is 4; an H200's driver has another number */
        cr_expect(value >= 1 && value <= 8, "%d", value);
    attribute.value.clusterDim.x = 3;
    cr_expect_eq(cuOccupancyMaxActiveClusters(&value, any, &config),
                 CUDA_ERROR_INVALID_CLUSTER_SIZE);
    device_close();
}

Test(cluster_launch, a_captured_launch_keeps_its_cluster)
{
    fixture f = open_fixture();
    CUlaunchAttribute attribute;
    CUlaunchConfig config = config_of(&attribute, 6, 4, 2, 2);
    void *arguments[] = {&f.out};
    CUgraph graph;
    CUgraphExec ready;
    cr_assert_eq(cuStreamCreate(&config.hStream, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
    cr_assert_eq(cuStreamBeginCapture(config.hStream, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
    cr_assert_eq(cuLaunchKernelEx(&config, find(&f, "any"), arguments, NULL), CUDA_SUCCESS);
    cr_assert_eq(cuStreamEndCapture(config.hStream, &graph), CUDA_SUCCESS);
    cr_assert_eq(cuGraphInstantiate(&ready, graph, 0), CUDA_SUCCESS);
    cr_assert_eq(cuGraphLaunch(ready, config.hStream), CUDA_SUCCESS);
    cr_assert_eq(cuStreamSynchronize(config.hStream), CUDA_SUCCESS);
    device_download(f.words, f.out, sizeof f.words);
    expect_ranks(&f, 6, 4, 2, 2, 10000);
    cr_expect_eq(cuGraphExecDestroy(ready), CUDA_SUCCESS);
    cr_expect_eq(cuGraphDestroy(graph), CUDA_SUCCESS);
    cr_expect_eq(cuStreamDestroy(config.hStream), CUDA_SUCCESS);
    device_close();
}

Test(cluster_launch, a_program_of_cooperative_groups_runs)
{
    enum { BINS = 64, COUNT = 5000 };
    uint32_t values[COUNT], bins[BINS] = {0}, wanted[BINS] = {0};
    for (uint32_t i = 0; i < COUNT; i++) {
        values[i] = i * i * 2654435761u >> 7;
        wanted[values[i] % BINS]++;
    }
    device_open();
    char *ptx = compiled_ptx("clusters.cu", "compute_90");
    CUmodule module = device_load(ptx, "clusters.cu");
    CUdeviceptr in = device_upload(values, sizeof values), out = device_upload(bins, sizeof bins);
    uint32_t count = COUNT;
    LAUNCH(module, "spread_histogram", 8, 96, &in, &count, &out);
    device_download(bins, out, sizeof bins);
    for (int i = 0; i < BINS; i++)
        cr_assert_eq(bins[i], wanted[i], "bin %d has %u, not %u", i, bins[i], wanted[i]);
    free(ptx);
    device_close();
}

/* Block r of two loads rows 4r .. 4r + 3 of 32 numbers to both blocks, as a box of a tensor; each
 * writes out all that it has. */
static const char box_text[] =
    ".version 8.0\n.target sm_90a\n.address_size 64\n"
    ".visible .entry boxes(.param .align 64 .b8 map[128], .param .u64 pout)\n"
    ".explicitcluster .reqnctapercluster 2, 1, 1\n{\n"
    "  .shared .align 1024 .b8 tile[1024]; .shared .align 8 .b64 full;\n"
    "  .reg .b64 %rd<8>; .reg .b32 %r<16>; .reg .b16 %h; .reg .pred %p<4>;\n"
    "  mov.b64 %rd0, map; cvta.param.u64 %rd0, %rd0; mov.u32 %r0, %tid.x;\n"
    "  mov.u32 %r1, %cluster_ctarank; mov.u32 %r2, tile; mov.u32 %r3, full;\n"
    "  setp.eq.u32 %p1, %r0, 0; @%p1 mbarrier.init.shared::cta.b64 [%r3], 1;\n"
    "  fence.mbarrier_init.release.cluster;\n"
    "  barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.acquire.aligned;\n"
    "  @%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3], 1024;\n"
    "  mad.lo.u32 %r4, %r1, 512, %r2; shl.b32 %r5, %r1, 2; mov.u32 %r6, 0; mov.u16 %h, 3;\n"
    "  @%p1 cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%rd0, {%r6, %r5}];\n"
    "  @%p1 cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes"
    ".multicast::cluster [%r4], [%rd0, {%r6, %r5}], [%r3], %h;\n"
    "again: mbarrier.try_wait.parity.shared::cta.b64 %p0, [%r3], 0; @!%p0 bra again;\n"
    "  mad.lo.u32 %r7, %r0, 4, %r2; ld.shared.u32 %r8, [%r7]; ld.param.u64 %rd1, [pout];\n"
    "  mad.lo.u32 %r9, %r1, 256, %r0; mul.wide.u32 %rd2, %r9, 4; add.s64 %rd1, %rd1, %rd2;\n"
    "  st.global.u32 [%rd1], %r8;\n"
    "  barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;\n  ret;\n}\n";

Test(cluster_launch, a_box_of_a_tensor_lands_in_every_block)
{
    enum { ROWS = 8, COLUMNS = 32, ALL = ROWS * COLUMNS };
    uint32_t given[ALL], out[2 * ALL] = {0};
    for (uint32_t i = 0; i < ALL; i++)
        given[i] = i * 2654435761u;
    device_open();
    CUmodule module = device_load(box_text, "boxes");
    CUdeviceptr in = device_upload(given, sizeof given), to = device_upload(out, sizeof out);
    CUtensorMap map;
    cuuint64_t sizes[] = {COLUMNS, ROWS}, stride = 4 * COLUMNS;
    cuuint32_t box[] = {COLUMNS, ROWS / 2}, steps[] = {1, 1};
    cr_assert_eq(cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_UINT32, 2, (void *)in, sizes,
                                        &stride, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                        CU_TENSOR_MAP_SWIZZLE_NONE, CU_TENSOR_MAP_L2_PROMOTION_NONE,
                                        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
                 CUDA_SUCCESS);
    LAUNCH(module, "boxes", 2, ALL, &map, &to);
    device_download(out, to, sizeof out);
    for (int i = 0; i < 2 * ALL; i++)
        cr_assert_eq(out[i], given[i % ALL], "word %d has %u, not %u", i, out[i], given[i % ALL]);
    device_close();
}
