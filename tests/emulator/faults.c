/* faults.c: kernels and texts with one mistake each. The result of the call that waits, and the
 * report's words, must say which one it was. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "kernel.h"

/* ---- kernels with one mistake -------------------------------------------------------------- */

enum { IN_BYTES = 62, OUT_BYTES = 256 };

typedef struct mistake {
    const char *name, *body;
    unsigned threads;
    CUresult result;
    const char *said[3]; /* parts of the report */
} mistake;

static void check_mistakes(const mistake *mistakes, size_t count)
{
    static const unsigned char in[IN_BYTES];
    for (size_t i = 0; i < count; i++) {
        const mistake *m = &mistakes[i];
        CUresult result = kernel_try(m->name, m->body, 1, m->threads, in, IN_BYTES, OUT_BYTES);
        const char *report = device_last_report();
        cr_expect_eq(result, m->result, "%s: %d, expected %d\n%s", m->name, (int)result,
                     (int)m->result, report);
        cr_expect(strstr(report, "kernel      kernel\n"), "%s: no kernel in\n%s", m->name, report);
        cr_expect(strstr(report, "repeat      MMLP_EMULATOR_SCHEDULE=0"), "%s: no schedule in\n%s",
                  m->name, report);
        for (size_t k = 0; k < sizeof m->said / sizeof m->said[0] && m->said[k]; k++)
            cr_expect(strstr(report, m->said[k]), "%s: '%s' is not in\n%s", m->name, m->said[k],
                      report);
    }
}
#define CHECK_MISTAKES(table) check_mistakes(table, sizeof(table) / sizeof(table)[0])

Test(faults, an_access_outside_of_an_allocation_names_the_distance)
{
    static const mistake cases[] = {
        {"load one below",
         "ld.global.u16 %h0, [%in+-2];",
         1,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"62 bytes, no label: bytes before its start: 2", "first thread (0,0,0)"}},
        {"load across the end",
         "ld.global.b32 %r0, [%in+60];",
         1,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"62 bytes, no label: at offset 60", "the access ends 2 bytes past its end"}},
        {"store one above",
         "st.global.b64 [%out+256], %rd9;",
         1,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"256 bytes, no label: bytes past its end: 0"}},
        {"atomic one above",
         "atom.global.add.u32 %r0, [%out+256], 1;",
         1,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"bytes past its end: 0"}},
        {"one lane of many",
         "mul.wide.u32 %rd0, %thread, 4; add.s64 %rd0, %out, %rd0; st.global.u32 [%rd0+132], "
         "%thread;",
         32,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"warp        0, lanes 0x80000000, first thread (31,0,0)", "bytes past its end: 0"}},
        {"one warp of many",
         "mul.wide.u32 %rd0, %thread, 2; add.s64 %rd0, %out, %rd0; st.global.u16 [%rd0], %h0;",
         160,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"warp        4, lanes 0xffffffff, first thread (128,0,0)"}},
        {"a null pointer",
         "mov.b64 %rd0, 0; ld.global.u32 %r0, [%rd0];",
         1,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"address     0x0 (global)", "the null pointer"}},
        {"the last word of the address space in one lane",
         "setp.eq.u32 %p0, %thread, 7; selp.b64 %rd0, -4, %out, %p0; st.global.u32 [%rd0], %r0;",
         32,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"lanes 0x00000080", "address     0xfffffffffffffffc"}},
        {"the same after an access that was right",
         "ld.global.u32 %r0, [%out]; setp.eq.u32 %p0, %thread, 7; selp.b64 %rd0, -4, %out, %p0; "
         "st.global.u32 [%rd0], %r0;",
         32,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"lanes 0x00000080", "address     0xfffffffffffffffc"}},
        {"a generic address beyond all windows",
         "setp.eq.u32 %p0, %thread, 7; selp.b64 %rd0, -64, %out, %p0; ld.b64 %rd1, [%rd0];",
         32,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"lanes 0x00000080", "address     0xffffffffffffffc0"}},
        {"a source of cp.async",
         "mov.u32 %r0, shared; cp.async.ca.shared.global [%r0], [%out+256], 4;",
         1,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"bytes past its end: 0"}},
        {"a prefetch-like read of the parameters",
         "ld.param.u64 %rd0, [pout+8];",
         1,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"16 bytes"}},
    };
    CHECK_MISTAKES(cases);
}

Test(faults, shared_and_local_memory_end_where_they_end)
{
    static const mistake cases[] = {
        {"shared, one above",
         "st.shared.b32 [shared+16384], %thread;",
         1,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"out of bounds: 4 bytes at a shared address", "address     0x4000 (shared)",
          "the block has 16384 bytes of shared memory (16384 static, 0 dynamic)"}},
        {"shared, one below",
         "mov.u32 %r0, shared; ld.shared.b32 %r1, [%r0+-4];",
         1,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"address     0xfffffffc (shared)"}},
        {"shared, across the end",
         "st.shared.v4.b32 [shared+16384], {%r0, %r0, %r0, %r0};",
         1,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"16 bytes at a shared address"}},
        {"shared through a generic address",
         "cvta.shared.u64 %rd0, shared; mul.wide.u32 %rd1, %thread, 1024; add.s64 %rd0, %rd0, "
         "%rd1; st.b32 [%rd0], %thread;",
         32,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"lanes 0xffff0000, first thread (16,0,0)", "address     0x4000 (shared)"}},
        {"a row of a matrix",
         "mul.lo.u32 %r0, %thread, 513; and.b32 %r0, %r0, 0xfffffff0; mov.u32 %r1, shared; add.u32 "
         "%r0, %r0, %r1; add.u32 %r0, %r0, 1024; stmatrix.sync.aligned.m8n8.x4.shared.b16 [%r0], "
         "{%r2, %r3, %r4, %r5};",
         32,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"at a shared address"}},
        {"local, one above",
         "{ .local .align 16 .b8 own[32]; st.local.b32 [own+32], %thread; }",
         1,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"4 bytes at a local address", "allocation  32 bytes"}},
        {"local, one below, by one lane",
         "{ .local .align 16 .b8 own[32]; .reg .b64 %a, %b; mov.u64 %a, own; setp.eq.u32 %p0, "
         "%thread, 3; selp.b64 %b, -4, 0, %p0; add.s64 %a, %a, %b; st.local.b32 [%a], %thread; }",
         32,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"lanes 0x00000008", "at a local address"}},
        {"an atomic on local memory",
         "{ .local .align 16 .b8 own[32]; .reg .b64 %a; mov.u64 %a, own; cvta.local.u64 %a, %a; "
         "atom.add.u32 %r0, [%a], 1; }",
         1,
         CUDA_ERROR_ILLEGAL_ADDRESS,
         {"an atomic operation on local memory"}},
    };
    CHECK_MISTAKES(cases);
}

Test(faults, a_misaligned_access_is_716)
{
    static const mistake cases[] = {
        {"8 bytes on 4",
         "ld.global.b64 %rd0, [%in+4];",
         1,
         CUDA_ERROR_MISALIGNED_ADDRESS,
         {"misaligned: 8 bytes at a global address"}},
        {"16 bytes on 8",
         "ld.global.v2.b64 {%rd0, %rd1}, [%in+8];",
         1,
         CUDA_ERROR_MISALIGNED_ADDRESS,
         {"misaligned: 16 bytes at a global address"}},
        {"4 words on 8",
         "st.global.v4.f32 [%out+8], {%f0, %f1, %f2, %f3};",
         1,
         CUDA_ERROR_MISALIGNED_ADDRESS,
         {"misaligned: 16 bytes"}},
        {"shared",
         "st.shared.b64 [shared+12], %rd9;",
         1,
         CUDA_ERROR_MISALIGNED_ADDRESS,
         {"misaligned: 8 bytes at a shared address"}},
        {"local",
         "{ .local .align 16 .b8 own[32]; st.local.b32 [own+2], %thread; }",
         1,
         CUDA_ERROR_MISALIGNED_ADDRESS,
         {"misaligned: 4 bytes at a local address"}},
        {"an atomic",
         "atom.global.add.u64 %rd0, [%out+4], 1;",
         1,
         CUDA_ERROR_MISALIGNED_ADDRESS,
         {"misaligned: 8 bytes"}},
        {"a target of cp.async",
         "cp.async.cg.shared.global [shared+8], [%out], 16;",
         1,
         CUDA_ERROR_MISALIGNED_ADDRESS,
         {"misaligned: 16 bytes at a shared address"}},
        {"a source of cp.async",
         "cp.async.cg.shared.global [shared], [%out+8], 16;",
         1,
         CUDA_ERROR_MISALIGNED_ADDRESS,
         {"misaligned: 16 bytes at a global address"}},
        {"a row of a matrix",
         "st.shared.b64 [shared], %rd9; mov.u32 %r0, shared; add.u32 %r0, %r0, 8; "
         "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [%r0];",
         32,
         CUDA_ERROR_MISALIGNED_ADDRESS,
         {"misaligned: 16 bytes at a shared address"}},
    };
    CHECK_MISTAKES(cases);
}

Test(faults, what_nobody_wrote_cannot_be_read)
{
    static const char never[] = "a read of memory that was never written";
    static const mistake cases[] = {
        {"shared", "ld.shared.b32 %r0, [shared+64];", 1, CUDA_ERROR_LAUNCH_FAILED, {never}},
        {"half a word of shared memory",
         "st.shared.b16 [shared+64], %h0; ld.shared.b32 %r0, [shared+64];",
         1,
         CUDA_ERROR_LAUNCH_FAILED,
         {never, "4 bytes at a shared address"}},
        {"an atomic on it",
         "atom.shared.add.u32 %r0, [shared], 1;",
         1,
         CUDA_ERROR_LAUNCH_FAILED,
         {never}},
        {"a matrix of it",
         "st.shared.b64 [shared], %rd9; mov.u32 %r0, shared; "
         "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [%r0];",
         32,
         CUDA_ERROR_LAUNCH_FAILED,
         {never, "16 bytes at a shared address"}},
        {"cp.async that is not committed",
         "cp.async.ca.shared.global [shared], [%out], 4; cp.async.wait_group 0; ld.shared.b32 %r0, "
         "[shared];",
         1,
         CUDA_ERROR_LAUNCH_FAILED,
         {never, "a cp.async of this warp into it is not waited for"}},
        {"the later one of two groups",
         "cp.async.cg.shared.global [shared], [%out], 16; cp.async.commit_group; "
         "cp.async.cg.shared.global [shared+16], [%out], 16; cp.async.commit_group; "
         "cp.async.wait_group 1; ld.shared.b32 %r0, [shared]; ld.shared.b32 %r0, [shared+16];",
         1,
         CUDA_ERROR_LAUNCH_FAILED,
         {"PTX line", "ld.shared.b32 %r0, [shared+16];"}},
        {"what another warp has not waited for",
         "setp.lt.u32 %p0, %thread, 32; @%p0 cp.async.ca.shared.global [shared], [%out], 4; @%p0 "
         "cp.async.commit_group; bar.sync 0; @!%p0 ld.shared.b32 %r0, [shared];",
         64,
         CUDA_ERROR_LAUNCH_FAILED,
         {never, "warp        1"}},
        {"old data under a cp.async",
         "st.shared.b32 [shared], %thread; cp.async.ca.shared.global [shared], [%out], 4; "
         "ld.shared.b32 %r0, [shared];",
         1,
         CUDA_ERROR_LAUNCH_FAILED,
         {never}},
        {"a cp.async after a barrier that found all of shared memory written",
         "mov.u32 %r0, shared; mad.lo.u32 %r0, %thread, 16, %r0; st.shared.v2.b64 [%r0], {%rd9, "
         "%rd9}; bar.sync 0; ld.shared.b32 %r1, [shared]; "
         "setp.eq.u32 %p0, %thread, 0; @%p0 cp.async.ca.shared.global [shared], [%out], 4; "
         "bar.sync 0; ld.shared.b32 %r2, [shared];",
         1024,
         CUDA_ERROR_LAUNCH_FAILED,
         {never, "ld.shared.b32 %r2, [shared]"}},
    };
    CHECK_MISTAKES(cases);
}

Test(faults, a_bulk_copy_under_way_leaves_nothing_to_read)
{
    static const mistake cases[] = {
        {"a bulk copy after a barrier that found all of shared memory written",
         "mov.u32 %r0, shared; mad.lo.u32 %r0, %thread, 16, %r0; st.shared.v2.b64 [%r0], {%rd9, "
         "%rd9}; bar.sync 0;\n"
         "setp.eq.u32 %p0, %thread, 0; @%p0 mbarrier.init.shared.b64 [shared+8192], 1; bar.sync 0; "
         "ld.shared.b32 %r1, [shared];\n"
         "@%p0 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [shared], [%out], "
         "16, [shared+8192]; @%p0 ld.shared.b32 %r2, [shared];",
         1024,
         CUDA_ERROR_LAUNCH_FAILED,
         {"never written", "ld.shared.b32 %r2, [shared]"}},
    };
    setenv("MMLP_EMULATOR_SCHEDULE", "0,copies=late", 1);
    CHECK_MISTAKES(cases);
}

Test(faults, threads_that_wait_for_each_other_in_vain_are_reported)
{
    static const mistake cases[] = {
        {"a barrier for more threads than come",
         "setp.ge.u32 %p0, %thread, 32; @%p0 bra B; bar.sync 2, 64;\nB:",
         64,
         CUDA_ERROR_LAUNCH_FAILED,
         {"cause       barrier 2 counts 32 threads that have exited: it wants 64, and 32 can come",
          "waits at barrier 2 (32 of 64 threads)", "warp 1  has exited"}},
        {"more threads than a barrier counts",
         "bar.sync 2, 64;",
         96,
         CUDA_ERROR_LAUNCH_FAILED,
         {"barrier 2   32 of 64 threads have arrived: warps 0x0000000",
          "it was complete before, 1 times",
          "cause       32 threads can come to barrier 2, which counts 64: more use it than it "
          "counts, "
          "or some have exited too early"}},
        {"a warp that arrives twice",
         "bar.arrive 2, 64; bar.arrive 2, 64;",
         64,
         CUDA_ERROR_LAUNCH_FAILED,
         {"misuse of barrier 2 (count 64): the warp arrives again before the barrier is complete"}},
        {"what a waiting warp has left undone",
         "setp.lt.u32 %p0, %thread, 4; @%p0 exit; cp.async.ca.shared.global [shared], [%out], 4; "
         "setp.ge.u32 %p0, %thread, 32; @%p0 exit; bar.sync 1, 64;",
         64,
         CUDA_ERROR_LAUNCH_FAILED,
         {"warp 0  lanes 0x0000000f have exited",
          "warp 0  has not waited for 1 cp.async, the oldest of group 0",
          "warp 0  lanes 0xfffffff0 waits at barrier 1 (32 of 64 threads)"}},
        {"a shuffle whose partners wait",
         "setp.lt.u32 %p0, %thread, 16; @%p0 bra A; barrier.sync 1; bra.uni B;\nA: "
         "shfl.sync.bfly.b32 %r0, %thread, 1, 31, -1;\nB:",
         32,
         CUDA_ERROR_LAUNCH_FAILED,
         {"deadlock",
          "lanes 0x0000ffff waits for lanes 0xffffffff, of which 0xffff0000 are elsewhere",
          "lanes 0xffff0000 waits at barrier 1 (0 of 32 threads)"}},
        {"lanes at another barrier",
         "setp.lt.u32 %p0, %thread, 16; @%p0 bra A; bar.sync 1; bra.uni B;\nA: bar.sync 0;\nB:",
         32,
         CUDA_ERROR_LAUNCH_FAILED,
         {"an aligned barrier in a diverged warp"}},
        {"bar.warp.sync for lanes at a barrier",
         "setp.lt.u32 %p0, %thread, 16; @%p0 bra A; barrier.sync 1; bra.uni B;\nA: bar.warp.sync "
         "-1;\nB:",
         32,
         CUDA_ERROR_LAUNCH_FAILED,
         {"deadlock", "lanes 0x0000ffff waits for lanes 0xffffffff at bar.warp.sync",
          "lanes 0xffff0000 waits at barrier 1"}},
        {"bar.warp.sync without the lane itself",
         "bar.warp.sync 0xfffe;",
         16,
         CUDA_ERROR_LAUNCH_FAILED,
         {"lanes that are not in their member mask", "lanes 0x00000001"}},
        {"a count that is no multiple of the warp",
         "mov.u32 %r0, 48; bar.sync 0, %r0;",
         64,
         CUDA_ERROR_LAUNCH_FAILED,
         {"misuse of barrier 0 (count 48)"}},
        {"two counts",
         "setp.lt.u32 %p0, %thread, 32; @%p0 bra A; bar.sync 3, 96; bra.uni B;\nA: bar.sync 3, "
         "64;\nB:",
         96,
         CUDA_ERROR_LAUNCH_FAILED,
         {"misuse of barrier 3: this warp counts", "the one that began it"}},
        {"a barrier that does not exist",
         "mov.u32 %r0, 16; bar.sync %r0;",
         32,
         CUDA_ERROR_LAUNCH_FAILED,
         {"the barrier's number is above 15"}},
    };
    CHECK_MISTAKES(cases);
}

Test(faults, collective_instructions_need_their_lanes)
{
    static const mistake cases[] = {
        {"shfl from a lane that the block does not have",
         "shfl.sync.down.b32 %r0, %thread, 8, 31, -1;",
         24,
         CUDA_ERROR_LAUNCH_FAILED,
         {"shfl.sync from a lane that does not execute it", "lanes 0x00ff0000"}},
        {"shfl by a lane outside of its mask",
         "shfl.sync.idx.b32 %r0, %thread, 0, 31, 0x7fffffff;",
         32,
         CUDA_ERROR_LAUNCH_FAILED,
         {"not in their member mask 0x7fffffff", "lanes 0x80000000"}},
        {"a vote whose members wait elsewhere",
         "setp.lt.u32 %p0, %thread, 16; @%p0 bra A; bar.sync 0; bra.uni B;\nA: vote.sync.all.pred "
         "%p1, %p0, -1;\nB:",
         32,
         CUDA_ERROR_LAUNCH_FAILED,
         {"diverged warp"}},
        {"mma after lanes have left",
         "setp.ge.u32 %p0, %thread, 24; @%p0 exit; "
         "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f0, %f1, %f2, %f3}, {%r0, %r1, "
         "%r2, %r3}, {%r4, %r5}, {%f0, %f1, %f2, %f3};",
         32,
         CUDA_ERROR_LAUNCH_FAILED,
         {"lanes 0xff000000 of the warp have exited"}},
        {"mma in half a warp",
         "setp.ge.u32 %p0, %thread, 16; @%p0 mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
         "{%f0, %f1, %f2, %f3}, {%r0, %r1, %r2, %r3}, {%r4, %r5}, {%f0, %f1, %f2, %f3};",
         32,
         CUDA_ERROR_LAUNCH_FAILED,
         {"the guard keeps lanes 0x0000ffff out"}},
        {"ldmatrix in a block of half a warp",
         "mov.u32 %r0, shared; ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r1}, [%r0];",
         16,
         CUDA_ERROR_LAUNCH_FAILED,
         {"16 lanes"}},
        {"cp.async with a source larger than the copy",
         "mov.u32 %r0, 12; cp.async.ca.shared.global [shared], [%out], 8, %r0;",
         1,
         CUDA_ERROR_LAUNCH_FAILED,
         {"cp.async with a source of 12 bytes, more than the 8 it copies"}},
        {"trap", "trap;", 40, CUDA_ERROR_LAUNCH_FAILED, {"trap", "PTX line"}},
        {"brx.idx beyond its list",
         "mov.u32 %r0, 2;\nlist: .branchtargets A, B;\nbrx.idx %r0, list;\nA:\nB:",
         1,
         CUDA_ERROR_ILLEGAL_INSTRUCTION,
         {"brx.idx with an index beyond its 2 targets"}},
    };
    CHECK_MISTAKES(cases);
}

/* ---- what looks like a mistake and is none ------------------------------------------------- */

Test(faults, correct_kernels_that_look_wrong_run)
{
    static const struct {
        const char *name, *body;
        unsigned threads;
    } cases[] = {
        {"lanes that leave complete a barrier",
         "setp.ge.u32 %p0, %thread, 16; @%p0 exit; barrier.sync 0;", 64},
        {"lanes that leave later complete a barrier",
         "setp.ge.u32 %p0, %thread, 16; @%p0 bra LATER; barrier.sync 0; bra.uni DONE;\nLATER: "
         "mov.u32 %r1, 0;\nAGAIN: add.u32 %r1, %r1, 1; setp.lt.u32 %p1, %r1, 5000; @%p1 bra AGAIN; "
         "exit;\nDONE:",
         32},
        {"lanes at different instructions of one barrier",
         "setp.ge.u32 %p0, %thread, 40; @%p0 bra A; barrier.sync 0; bra.uni B;\nA: barrier.sync "
         "0;\nB:",
         64},
        {"lanes that leave complete bar.warp.sync",
         "setp.ge.u32 %p0, %thread, 16; @%p0 exit; bar.warp.sync -1; vote.sync.all.pred %p1, %p0, "
         "-1;",
         32},
        {"a copy of nothing fills with zeros",
         "mov.u32 %r0, 0; mov.b64 %rd0, 0; cp.async.ca.shared.global [shared], [%rd0], 8, %r0; "
         "cp.async.wait_all; ld.shared.b64 %rd1, [shared];",
         1},
        {"a source that ends inside of the copy",
         "mov.u32 %r0, 2; cp.async.ca.shared.global [shared], [%in+60], 4, %r0; "
         "cp.async.wait_all; ld.shared.b32 %r1, [shared];",
         1},
        {"a guard that is false everywhere",
         "setp.ge.u32 %p0, %thread, 999; mov.b64 %rd0, 0; @%p0 ld.global.b32 %r0, [%rd0]; @%p0 "
         "trap; @%p0 bar.sync 0;",
         32},
        {"a switch of twenty cases",
         "and.b32 %r0, %thread, 15; add.u32 %r0, %r0, 4;\nlist: .branchtargets A, A, A, A, A, A, "
         "A, A, A, A, B, B, B, B, B, B, B, B, B, A;\nbrx.idx %r0, list;\nA: barrier.sync 0; "
         "bra.uni C;\nB: barrier.sync 0;\nC:",
         64},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        static const unsigned char in[IN_BYTES];
        CUresult result =
            kernel_try(cases[i].name, cases[i].body, 1, cases[i].threads, in, IN_BYTES, OUT_BYTES);
        cr_expect_eq(result, CUDA_SUCCESS, "%s: %d\n%s", cases[i].name, (int)result,
                     device_last_report());
    }
}

/* ---- memory over its life ------------------------------------------------------------------ */

#define HEADER ".version 9.0\n.target sm_80\n.address_size 64\n"

static const char copy_ptx[] = HEADER ".visible .global .u32 variable = 5;\n"
                                      ".visible .entry copy(.param .u64 to, .param .u64 from)\n"
                                      "{\n"
                                      "  .reg .b64 %to, %from; .reg .b32 %r;\n"
                                      "  ld.param.u64 %to, [to]; ld.param.u64 %from, [from];\n"
                                      "  ld.global.u32 %r, [%from]; st.global.u32 [%to], %r;\n"
                                      "  ret;\n"
                                      "}\n";

static CUresult copy_word(CUdeviceptr to, CUdeviceptr from)
{
    CUmodule module = device_load(copy_ptx, "copy");
    return device_try(module, "copy", 1, 1, 0, (void *[]){&to, &from});
}

static void expect_report(const char *part)
{
    cr_expect(strstr(device_last_report(), part), "'%s' is not in\n%s", part, device_last_report());
}

Test(faults, global_memory_must_be_written_before_it_is_read)
{
    device_open();
    CUdeviceptr fresh = device_alloc(64), to = device_alloc(4);
    cr_expect_eq(copy_word(to, fresh + 8), CUDA_ERROR_LAUNCH_FAILED);
    expect_report("a read of memory that was never written: 4 bytes at a global address");
    expect_report("64 bytes, no label: at offset 8");
    device_close();

    device_open(); /* a copy on the device carries what is known along */
    uint32_t word = 1;
    fresh = device_alloc(64);
    to = device_alloc(64);
    cr_assert_eq(cuMemcpyHtoD(fresh + 4, &word, sizeof word), CUDA_SUCCESS);
    cr_assert_eq(cuMemcpyDtoD(to, fresh, 64), CUDA_SUCCESS);
    cr_expect_eq(copy_word(to + 8, to + 4), CUDA_SUCCESS);
    cr_expect_eq(copy_word(fresh, to + 8), CUDA_SUCCESS);
    cr_expect_eq(copy_word(fresh, to + 12), CUDA_ERROR_LAUNCH_FAILED);
    expect_report("at offset 12");
    device_close();

    device_open(); /* memory that is allocated again begins anew: it does not fit twice */
    size_t available, all;
    cr_assert_eq(cuMemGetInfo(&available, &all), CUDA_SUCCESS);
    fresh = device_alloc(all / 4 * 3);
    cr_assert_eq(cuMemsetD8(fresh, 0, 4), CUDA_SUCCESS);
    for (int i = 0; i < 3; i++) {
        cr_assert_eq(cuMemFree(fresh), CUDA_SUCCESS);
        fresh = device_alloc(all / 4 * 3);
    }
    cr_expect_eq(cuMemAlloc(&to, all / 2), CUDA_ERROR_OUT_OF_MEMORY);
    to = device_alloc(4);
    cr_expect_eq(copy_word(to, fresh), CUDA_ERROR_LAUNCH_FAILED);
    device_close();
}

Test(faults, freed_memory_can_neither_be_read_nor_written)
{
    for (int write = 0; write < 2; write++) {
        uint32_t words[16] = {0};
        device_open();
        CUdeviceptr gone = device_upload(words, sizeof words);
        CUdeviceptr kept = device_upload(words, sizeof words);
        cr_assert_eq(cuMemFree(gone), CUDA_SUCCESS);
        cr_expect_eq(cuMemcpyHtoD(gone, words, 4), CUDA_ERROR_INVALID_VALUE);
        cr_expect_eq(cuMemcpyDtoH(words, gone, 4), CUDA_ERROR_INVALID_VALUE);
        cr_expect_eq(cuMemsetD8(gone, 0, 4), CUDA_ERROR_INVALID_VALUE);
        cr_expect_eq(copy_word(write ? gone : kept, write ? kept : gone),
                     CUDA_ERROR_ILLEGAL_ADDRESS);
        expect_report(write ? "st.global.u32" : "ld.global.u32");
        device_close();
    }
}

Test(faults, only_the_base_of_a_living_allocation_can_be_freed)
{
    device_open();
    CUdeviceptr memory = device_alloc(64), variable;
    size_t bytes;
    CUmodule module = device_load(copy_ptx, "copy");
    cr_expect_eq(cuMemFree(memory + 4), CUDA_ERROR_INVALID_VALUE);
    cr_expect_eq(cuMemFree(memory), CUDA_SUCCESS);
    cr_expect_eq(cuMemFree(memory), CUDA_ERROR_INVALID_VALUE);
    cr_expect_eq(cuMemFree(12345), CUDA_ERROR_INVALID_VALUE);
    cr_expect_eq(cuMemFree(0), CUDA_SUCCESS);
    cr_assert_eq(cuModuleGetGlobal(&variable, &bytes, module, "variable"), CUDA_SUCCESS);
    cr_expect_eq(cuMemFree(variable), CUDA_ERROR_INVALID_VALUE, "a variable belongs to its module");
    uint32_t word = 0;
    device_download(&word, variable, sizeof word);
    cr_expect_eq(word, 5);
    cr_assert_eq(cuModuleUnload(module), CUDA_SUCCESS);
    cr_expect_eq(cuMemcpyDtoH(&word, variable, sizeof word), CUDA_ERROR_INVALID_VALUE);
    device_close();
}

Test(faults, an_error_stays_until_the_context_is_reset)
{
    device_open();
    CUdeviceptr memory = device_alloc(64), other;
    CUmodule module = device_load(copy_ptx, "copy"), second;
    CUfunction function;
    CUstream stream;
    CUevent event;
    uint32_t word = 0;
    size_t least, most;
    cr_assert_eq(cuStreamCreate(&stream, CU_STREAM_DEFAULT), CUDA_SUCCESS);
    cr_assert_eq(cuEventCreate(&event, CU_EVENT_DEFAULT), CUDA_SUCCESS);
    cr_assert_eq(cuModuleGetFunction(&function, module, "copy"), CUDA_SUCCESS);
    cr_assert_eq(copy_word(memory + 2, memory + 4), CUDA_ERROR_LAUNCH_FAILED);
    void *arguments[] = {&memory, &memory};
    CUresult later[] = {
        cuCtxSynchronize(),
        cuStreamSynchronize(stream),
        cuStreamQuery(stream),
        cuEventRecord(event, stream),
        cuEventSynchronize(event),
        cuMemAlloc(&other, 4),
        cuMemFree(memory),
        cuMemcpyHtoD(memory, &word, 4),
        cuMemcpyDtoH(&word, memory, 4),
        cuMemcpyDtoD(memory, memory + 8, 4),
        cuMemcpyHtoDAsync(memory, &word, 4, stream),
        cuMemsetD32(memory, 0, 4),
        cuMemsetD8Async(memory, 0, 4, stream),
        cuMemGetInfo(&least, &most),
        cuModuleLoadData(&second, copy_ptx),
        cuModuleUnload(module),
        cuStreamCreate(&stream, CU_STREAM_DEFAULT),
        cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL),
    };
    for (size_t i = 0; i < sizeof later / sizeof later[0]; i++)
        cr_expect_eq(later[i], CUDA_ERROR_LAUNCH_FAILED, "call %zu: %d", i, (int)later[i]);
    cr_assert_eq(cuDevicePrimaryCtxReset(0), CUDA_SUCCESS);
    device_close();
    device_open();
    memory = device_upload(&word, sizeof word);
    cr_expect_eq(copy_word(memory, memory), CUDA_SUCCESS);
    device_close();
}

/* ---- texts that are refused ---------------------------------------------------------------- */

static const char *load_log(CUresult *result, const char *image)
{
    static char log[4096];
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)(size_t)sizeof log};
    CUmodule module = NULL;
    log[0] = '\0';
    *result = cuModuleLoadDataEx(&module, image, 2, options, values);
    cr_expect(*result == CUDA_SUCCESS || module == NULL);
    return log;
}

#define ENTRY "\n.visible .entry kernel()\n{\n  .reg .b32 %r<4>; .reg .f32 %f<4>; .reg .pred %p;\n"

Test(faults, a_text_that_is_wrong_is_refused_with_its_line)
{
    static const struct {
        const char *text, *log;
        CUresult result;
    } cases[] = {
        {HEADER ENTRY "  frobnicate.b32 %r0, %r1;\n  ret;\n}\n",
         "PTX line 8: opcode 'frobnicate' is not supported", CUDA_ERROR_INVALID_PTX},
        {HEADER ENTRY "  ret;\n  add.frob.u32 %r0, %r1, %r2;\n}\n",
         "PTX line 9: ", CUDA_ERROR_INVALID_PTX},
        {HEADER ENTRY "  add.u32 %r0, %r1, %r9;\n  ret;\n}\n", "'%r9'", CUDA_ERROR_INVALID_PTX},
        {HEADER ENTRY "  add.u32 %r0, %r1;\n  ret;\n}\n", "PTX line 8: ", CUDA_ERROR_INVALID_PTX},
        {HEADER ".func f(.param .b64 x)\n{\n  ret;\n}" ENTRY
                "  .param .b32 y;\n  call f, (y);\n  ret;\n}\n",
         "PTX line 12: 'y' has 4 bytes, the called function wants 8", CUDA_ERROR_INVALID_PTX},
        {HEADER ENTRY "L: ret;\nL: ret;\n}\n", "PTX line 9: label 'L' is declared twice",
         CUDA_ERROR_INVALID_PTX},
        {HEADER ENTRY "  .reg .b64 %r<2>;\n  ret;\n}\n", "PTX line 8: '%r' is declared twice",
         CUDA_ERROR_INVALID_PTX},
        {HEADER ENTRY "  bra NOWHERE;\n  ret;\n}\n", "'NOWHERE'", CUDA_ERROR_INVALID_PTX},
        {HEADER ENTRY "  ld.global.u32 %r0, [nothing];\n  ret;\n}\n", "'nothing' is not declared",
         CUDA_ERROR_INVALID_PTX},
        {HEADER ENTRY "  mov.u32 %r0, %tid.x\n  ret;\n}\n", "PTX line 9: expected ','",
         CUDA_ERROR_INVALID_PTX},
        {HEADER ENTRY "  @%r0 ret;\n}\n", "PTX line 8: ", CUDA_ERROR_INVALID_PTX},
        {HEADER ENTRY "  mov.u32 %r0, 1;\n", "PTX line 9: expected an instruction",
         CUDA_ERROR_INVALID_PTX},
        {HEADER "\n.visible .entry kernel(", "PTX line 5: ", CUDA_ERROR_INVALID_PTX},
        {HEADER ".global .u32 x[2] = {1, 2", "PTX line 4: ", CUDA_ERROR_INVALID_PTX},
        {HEADER "/* no end", "PTX line 4: comment without an end", CUDA_ERROR_INVALID_PTX},
        {HEADER ".global .attribute(.managed", "PTX line 4: expected ')'", CUDA_ERROR_INVALID_PTX},
        {HEADER ".global .u32 x[2] = {1, 2, 3};", "longer than its 8 bytes",
         CUDA_ERROR_INVALID_PTX},
        {HEADER ".global .u64 x = nothing;", "needs the address of 'nothing'",
         CUDA_ERROR_INVALID_PTX},
        {"", "missing", CUDA_ERROR_INVALID_PTX},
        {".version 9.0\n", ".target is missing", CUDA_ERROR_INVALID_PTX},
        {".version 9.0\n.target sm_120\n.address_size 64\n",
         "the PTX is for sm_120, the device has compute capability 10.0",
         CUDA_ERROR_NO_BINARY_FOR_GPU},
        {".version 9.0\n.target sm_90a\n.address_size 64\n",
         "the PTX is for sm_90a, the device has compute capability 10.0",
         CUDA_ERROR_NO_BINARY_FOR_GPU},
        {"\177ELF\2\1\1", "binary image", CUDA_ERROR_NO_BINARY_FOR_GPU},
        {"\x50\xed\x55\xba\1", "binary image", CUDA_ERROR_NO_BINARY_FOR_GPU},
    };
    device_open();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CUresult result;
        const char *log = load_log(&result, cases[i].text);
        cr_expect_eq(result, cases[i].result, "%s\n%d", cases[i].text, (int)result);
        cr_expect(strstr(log, cases[i].log), "%s\n'%s' is not in '%s'", cases[i].text, cases[i].log,
                  log);
    }
    device_close();
}

Test(faults, a_text_cut_anywhere_is_refused)
{
    static const char whole[] =
        HEADER ".global .align 8 .b8 x[8] = {1, 2};\n.visible .entry kernel(.param .u64 p)\n"
               ".maxntid 32, 1, 1\n{\n  .reg .b64 %a; .reg .pred %q; .shared .f32 s[4];\n"
               "  ld.param.u64 %a, [p+0]; setp.ne.s64 %q, %a, 0;\n  @!%q bra L;\n"
               "  st.global.v2.u64 [%a], {%a, 7};\nL: ret; }";
    size_t body = (size_t)(strstr(whole, ".visible") - whole);
    device_open();
    for (size_t length = body + 1; length < sizeof whole - 1; length++) {
        CUresult result;
        char *cut = strndup(whole, length);
        const char *log = load_log(&result, cut);
        cr_expect_eq(result, CUDA_ERROR_INVALID_PTX, "cut to %zu: %d", length, (int)result);
        cr_expect_eq(strncmp(log, "PTX line ", 9), 0, "cut to %zu: %s", length, log);
        free(cut);
    }
    device_close();
}
