/*
 * dependent.c: programmatic dependent launches: what must lie behind griddepcontrol.wait, and what
 * does. Run with MMLP_EMULATOR_CHECK=race, under several schedules.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "kernel.h"

enum { WORDS = 256, THREADS = 64 };

static uint32_t in[WORDS];

static void fill_input(void)
{
    for (uint32_t i = 0; i < WORDS; i++)
        in[i] = i * 2654435761u;
    kernel_dependent();
}
TestSuite(dependent, .init = fill_input);

#define GRIDS     "griddepcontrol.wait;\n"
#define BARRIER   "bar.sync 0;\n"
#define MEET      "barrier.cluster.arrive.aligned; barrier.cluster.wait.aligned;\n"
#define RANK      "mov.u32 %r10, %cluster_ctarank; setp.eq.u32 %p2, %r10, 0;\n"
#define LAST_WARP "setp.ge.u32 %p1, %thread, 32;\n"
/* Every thread's word of `in` goes to `out`; the blocks do the same. */
#define WHERE                                                                                      \
    "mov.u32 %r0, %ctaid.x; mad.lo.u32 %r0, %r0, 64, %thread; mul.wide.u32 %rd0, %r0, 4;\n"        \
    "add.s64 %rd1, %rd0, %in; add.s64 %rd2, %rd0, %out;\n"
#define COPY WHERE "ld.global.u32 %r1, [%rd1]; st.global.u32 [%rd2], %r1;\n"

#define MBARRIER_INIT                                                                              \
    "mov.u32 %r4, shared; setp.eq.u32 %p3, %thread, 0; @%p3 mbarrier.init.shared.b64 [%r4], 32;\n" \
    "bar.sync 0;\n"
#define MBARRIER_WAIT "again: mbarrier.try_wait.parity.shared.b64 %p0, [%r4], 0; @!%p0 bra again;\n"

static void expect_copy(const char *name, const char *body, unsigned blocks)
{
    uint32_t out[WORDS];
    kernel_run(name, body, blocks, THREADS, in, sizeof in, out, sizeof out);
    cr_expect_eq(memcmp(out, in, 4 * THREADS * blocks), 0, "%s", name);
}

Test(dependent, what_follows_a_wait_of_its_own_is_fine)
{
    expect_copy("of every thread", GRIDS COPY, 2);
    expect_copy("twice, of one lane first",
                "setp.eq.u32 %p0, %thread, 5; @%p0 griddepcontrol.wait;\n" GRIDS COPY, 2);
    expect_copy(
        "other memory before it",
        "mov.u32 %r2, shared; mad.lo.u32 %r2, %thread, 4, %r2; st.shared.u32 [%r2], 5;\n"
        "ld.param.u64 %rd5, [pin]; griddepcontrol.launch_dependents;\n"
        "prefetch.global.L2 [%in]; cp.async.bulk.prefetch.L2.global [%in], 256;\n" GRIDS COPY,
        1);
}

Test(dependent, a_warp_may_leave_without_a_wait)
{
    uint32_t out[WORDS];
    kernel_run("the last one", LAST_WARP "@%p1 exit;\n" GRIDS COPY, 1, THREADS, in, sizeof in, out,
               sizeof out);
    cr_expect_eq(memcmp(out, in, 4 * 32), 0);
}

Test(dependent, what_lies_behind_the_wait_of_another_warp_is_fine)
{
    expect_copy("at a barrier", LAST_WARP "@%p1 griddepcontrol.wait;\n" BARRIER COPY, 2);
    expect_copy("at an mbarrier",
                MBARRIER_INIT LAST_WARP "@!%p1 bra waits; griddepcontrol.wait;\n"
                                        "mbarrier.arrive.shared.b64 _, [%r4];\n"
                                        "waits:\n" MBARRIER_WAIT COPY,
                1);
    kernel_clusters(2);
    expect_copy("of another block",
                RANK LAST_WARP "and.pred %p1, %p1, %p2; @%p1 griddepcontrol.wait;\n" MEET COPY, 2);
}

#define READS  "reads what the grid before it may still write: no griddepcontrol.wait before it"
#define WRITES "writes what the grid before it may still use: no griddepcontrol.wait before it"
#define BULK_LOAD                                                                                  \
    "setp.eq.u32 %p0, %thread, 0; @!%p0 exit; mbarrier.init.shared.b64 [shared+8192], 1;\n"        \
    "mbarrier.arrive.expect_tx.shared.b64 _, [shared+8192], 256;\n"                                \
    "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [shared], [%in], 256, "     \
    "[shared+8192];\n"
#define BULK_STORE                                                                                 \
    "setp.eq.u32 %p0, %thread, 0; @!%p0 exit;\n"                                                   \
    "st.shared.v4.u32 [shared], {1, 1, 1, 1}; fence.proxy.async.shared::cta;\n"                    \
    "cp.async.bulk.global.shared::cta.bulk_group [%out], [shared], 16;\n"

Test(dependent, memory_that_is_touched_before_the_wait_is_told)
{
    static const kernel_mistake mistakes[] = {
        {"a load", "ld.global.u32 %r1, [%in];\n" GRIDS, 32, {READS ": 4 bytes", "no label"}},
        {"a generic load", "ld.u32 %r1, [%in];\n" GRIDS, 32, {READS}},
        {"a store", "st.global.v2.u32 [%out], {1, 2};\n" GRIDS, 32, {WRITES ": 8 bytes"}},
        {"an atomic", "atom.global.add.u32 %r1, [%out], 1;\n" GRIDS, 32, {WRITES}},
        {"a reduction", "red.global.add.u32 [%out], 1;\n" GRIDS, 32, {WRITES}},
        {"cp.async", "cp.async.ca.shared.global [shared], [%in], 16;\n" GRIDS, 1, {READS}},
        {"a bulk load", BULK_LOAD GRIDS, 32, {READS ": 16 bytes", "cp.async.bulk"}},
        {"a bulk store", BULK_STORE GRIDS, 32, {WRITES ": 16 bytes", "cp.async.bulk"}},
    };
    kernel_mistakes(mistakes, sizeof mistakes / sizeof *mistakes, in, sizeof in);
}

Test(dependent, waits_that_do_not_count_are_told)
{
    static const kernel_mistake mistakes[] = {
        {"none", COPY, 64, {READS}},
        {"launch_dependents", "griddepcontrol.launch_dependents;\n" COPY, 64, {READS}},
        {"of nobody",
         "setp.ge.u32 %p0, %thread, 64; @%p0 griddepcontrol.wait;\n" COPY,
         64,
         {READS}},
        {"of another warp, without order",
         LAST_WARP "@%p1 griddepcontrol.wait;\n" COPY,
         64,
         {READS, "warp        0"}},
        {"of another warp, after the barrier",
         LAST_WARP BARRIER "@%p1 griddepcontrol.wait;\n" COPY,
         64,
         {READS, "warp        0"}},
        {"of a warp that arrives before it",
         MBARRIER_INIT LAST_WARP "@!%p1 bra waits; mbarrier.arrive.shared.b64 _, [%r4];\n"
                                 "griddepcontrol.wait;\nwaits:\n" MBARRIER_WAIT COPY,
         64,
         {READS, "warp        0"}},
    };
    kernel_mistakes(mistakes, sizeof mistakes / sizeof *mistakes, in, sizeof in);
}

Test(dependent, a_wait_of_another_block_needs_order)
{
    static const kernel_mistake mistakes[] = {
        {"none", RANK "@%p2 griddepcontrol.wait;\n" COPY, 64, {READS, "block       (1,0,0)"}},
        {"an arrival that releases nothing",
         RANK "@%p2 griddepcontrol.wait;\n"
              "barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.aligned;\n" COPY,
         64,
         {READS, "block       (1,0,0)"}},
        {"an arrival that releases mbarrier.init alone",
         RANK "@%p2 griddepcontrol.wait;\nfence.mbarrier_init.release.cluster;\n"
              "barrier.cluster.arrive.relaxed.aligned; barrier.cluster.wait.aligned;\n" COPY,
         64,
         {READS, "block       (1,0,0)"}},
    };
    kernel_clusters(2);
    kernel_mistakes(mistakes, sizeof mistakes / sizeof *mistakes, in, sizeof in);
}

/* ---- who is told ----------------------------------------------------------------------------- */

static const char one_load[] =
    ".version 9.0\n.target sm_90\n.address_size 64\n"
    ".visible .entry kernel(.param .u64 pin)\n{\n.reg .b64 %in; .reg .b32 %r0;\n"
    "ld.param.u64 %in, [pin]; ld.global.u32 %r0, [%in]; ret;\n}\n";

typedef struct scene {
    CUfunction function;
    CUdeviceptr pointer;
    CUlaunchAttribute attribute;
    CUlaunchConfig config;
    CUstream stream;
} scene;

static void open_scene(scene *s, int allowed)
{
    device_open();
    *s = (scene){.pointer = device_upload(in, sizeof in)};
    cr_assert_eq(cuModuleGetFunction(&s->function, device_load(one_load, "a load"), "kernel"),
                 CUDA_SUCCESS);
    cr_assert_eq(cuStreamCreate(&s->stream, CU_STREAM_NON_BLOCKING), CUDA_SUCCESS);
    s->attribute.id = CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
    s->attribute.value.programmaticStreamSerializationAllowed = allowed;
    s->config = (CUlaunchConfig){1, 1, 1, 32, 1, 1, 0, s->stream, &s->attribute, 1};
}

static CUresult launch(scene *s)
{
    void *arguments[] = {&s->pointer};
    return cuLaunchKernelEx(&s->config, s->function, arguments, NULL);
}

Test(dependent, launches_that_are_not_programmatic_need_no_wait)
{
    scene s;
    open_scene(&s, 0);
    cr_expect_eq(launch(&s), CUDA_SUCCESS);
    s.config.numAttrs = 0;
    cr_expect_eq(launch(&s), CUDA_SUCCESS);
    cr_expect_eq(cuStreamSynchronize(s.stream), CUDA_SUCCESS, "%s", device_last_report());
    device_close();
}

Test(dependent, without_the_check_nothing_is_told)
{
    scene s;
    unsetenv("MMLP_EMULATOR_CHECK");
    open_scene(&s, 1);
    cr_expect_eq(launch(&s), CUDA_SUCCESS);
    cr_expect_eq(cuStreamSynchronize(s.stream), CUDA_SUCCESS, "%s", device_last_report());
    device_close();
}

Test(dependent, a_graph_keeps_the_attribute)
{
    scene s;
    CUgraph graph;
    CUgraphExec executable;
    open_scene(&s, 1);
    cr_assert_eq(cuStreamBeginCapture(s.stream, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_SUCCESS);
    cr_assert_eq(launch(&s), CUDA_SUCCESS);
    cr_assert_eq(cuStreamEndCapture(s.stream, &graph), CUDA_SUCCESS);
    cr_assert_eq(cuGraphInstantiateWithFlags(&executable, graph, 0), CUDA_SUCCESS);
    cr_expect_eq(cuStreamSynchronize(s.stream), CUDA_SUCCESS);
    cr_assert_eq(cuGraphLaunch(executable, s.stream), CUDA_SUCCESS);
    cr_expect_eq(cuStreamSynchronize(s.stream), CUDA_ERROR_LAUNCH_FAILED);
    cr_expect(strstr(device_last_report(), READS), "%s", device_last_report());
    device_close();
}
