/*
 * isa_control.c: barriers, branches, calls and ends; and what must change nothing: prefetches,
 * fences, hints, memory orders, sleep (PTX ISA 9.7.9, 9.7.12, 9.7.13, 9.7.19).
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device.h"
#include "kernel.h"

#define STORE_R0 "mad.wide.u32 %rd0, %thread, 4, %out; st.global.b32 [%rd0], %r0;\n"

/* ---- barriers ---- */

/* Three warps; each thread reads what one of the next warp stored before the barrier. */
static void check_barrier(const char *instruction)
{
    char body[1024];
    uint32_t out[96];
    snprintf(
        body, sizeof body,
        "mov.u32 %%r20, shared; mad.lo.u32 %%r1, %%thread, 4, %%r20; mul.lo.u32 %%r2, %%thread, "
        "7;\n"
        "st.shared.b32 [%%r1], %%r2; setp.lt.u32 %%p0, %%thread, 64;\n%s\n"
        "add.u32 %%r3, %%thread, 32; rem.u32 %%r3, %%r3, 96; mad.lo.u32 %%r1, %%r3, 4, %%r20;\n"
        "ld.shared.b32 %%r0, [%%r1]; mad.wide.u32 %%rd0, %%thread, 4, %%out; st.global.b32 "
        "[%%rd0], %%r0;",
        instruction);
    kernel_run(instruction, body, 1, 96, NULL, 0, out, sizeof out);
    for (uint32_t i = 0; i < 96; ++i)
        cr_assert(out[i] == (i + 32) % 96 * 7, "%s: thread %u got %u", instruction, i, out[i]);
}

Test(isa_control, every_barrier_waits_for_all_warps)
{
    static const char *const barriers[] = {
        "bar.sync 0;",
        "bar.cta.sync 1;",
        "bar.sync 2, 96;",
        "barrier.sync 3;",
        "barrier.cta.sync 4, 96;",
        "barrier.sync.aligned 5;",
        "@%p0 bra WAIT; bar.arrive 6, 96; bar.sync 7, 96; bra.uni ON; WAIT: bar.sync 6, 96; "
        "bar.sync 7, 96; ON:",
        "@%p0 bra WAIT; barrier.arrive 6, 96; bar.sync 7, 96; bra.uni ON; WAIT: barrier.sync 6, "
        "96; bar.sync 7, 96; ON:",
        "@%p0 bra WAIT; barrier.arrive.aligned 6, 96; bar.sync 7, 96; bra.uni ON; WAIT: bar.sync "
        "6, 96; bar.sync 7, "
        "96; ON:",
    };
    device_open(); /* once for all kernels */
    for (size_t i = 0; i < sizeof barriers / sizeof barriers[0]; ++i)
        check_barrier(barriers[i]);
    device_close();
}

/* The count of true predicates, plus 1000 where all are, plus 2000 where one is. */
static void check_reduction(const char *opcode, const char *suffix, uint32_t true_below)
{
    char body[1024];
    uint32_t out[96],
        wanted = true_below + (true_below == 96 ? 1000 : 0) + (true_below > 0 ? 2000 : 0);
    snprintf(body, sizeof body,
             "setp.lt.u32 %%p0, %%thread, %u; %s.red.popc%s.u32 %%r0, 0, %%p0; %s.red.and%s.pred "
             "%%p1, 0, %%p0;\n"
             "%s.red.or%s.pred %%p2, 0, 96, !%%p3; %s.red.or%s.pred %%p2, 0, %%p0;\n"
             "@%%p1 add.u32 %%r0, %%r0, 1000; @%%p2 add.u32 %%r0, %%r0, 2000;\n"
             "mad.wide.u32 %%rd0, %%thread, 4, %%out; st.global.b32 [%%rd0], %%r0;",
             true_below, opcode, suffix, opcode, suffix, opcode, suffix, opcode, suffix);
    kernel_run(opcode, body, 1, 96, NULL, 0, out, sizeof out);
    for (int i = 0; i < 96; ++i)
        cr_assert(out[i] == wanted, "%s%s of %u: got %u", opcode, suffix, true_below, out[i]);
}

Test(isa_control, barriers_reduce_predicates_of_the_block)
{
    static const uint32_t cases[] = {0, 1, 70, 96};
    device_open();
    for (int i = 0; i < 4; ++i) {
        check_reduction("bar", "", cases[i]);
        check_reduction("barrier", "", cases[i]);
        check_reduction("barrier", ".aligned", cases[i]);
    }
    device_close();
}

/* ---- match of 64 bits ---- */

Test(isa_control, match_compares_all_64_bits)
{
    /* Lanes differ in bit 40 alone; then they are the same but for lane 9. */
    uint32_t out[32];
    kernel_run("match.any",
               "and.b32 %r1, %thread, 1; cvt.u64.u32 %rd1, %r1; shl.b64 %rd1, %rd1, 40; or.b64 "
               "%rd1, %rd1, 5;\n"
               "match.any.sync.b64 %r0, %rd1, -1;" STORE_R0,
               1, 32, NULL, 0, out, sizeof out);
    for (int lane = 0; lane < 32; ++lane)
        cr_assert_eq(out[lane], lane & 1 ? 0xaaaaaaaau : 0x55555555u);
    kernel_run("match.all",
               "mov.b64 %rd1, 0x500000000; match.all.sync.b64 %r0|%p0, %rd1, -1; setp.eq.u32 %p1, "
               "%thread, 9;\n"
               "@%p1 mov.b64 %rd1, 0x700000000; match.all.sync.b64 %r1|%p2, %rd1, -1; add.u32 %r0, "
               "%r0, %r1;\n"
               "@%p0 xor.b32 %r0, %r0, 1; @%p2 xor.b32 %r0, %r0, 2;" STORE_R0,
               1, 32, NULL, 0, out, sizeof out);
    for (int lane = 0; lane < 32; ++lane)
        cr_assert_eq(out[lane], 0xfffffffeu);
}

/* ---- what changes nothing ---- */

static const char *const without_effect[] = {
    "prefetch.global.L1 [%rd2];",
    "prefetch.global.L2 [%rd2];",
    "prefetch.L1 [%rd2];",
    "prefetch.L2 [%rd2];",
    "prefetch.local.L1 [own];",
    "prefetch.global.L2::evict_last [%rd2];",
    "prefetch.global.L2::evict_normal [%rd2];",
    "prefetchu.L1 [%rd2];",
    "prefetch.tensormap [%rd2];",
    "applypriority.global.L2::evict_normal [%rd2], 128;",
    "applypriority.L2::evict_normal [%rd2], 128;",
    "discard.global.L2 [%rd4], 128;",
    "discard.L2 [%rd4], 128;",
    "nanosleep.u32 20;",
    "nanosleep.u32 %r3;",
    "pmevent 3;",
    "fence.sc.cta;",
    "fence.sc.cluster;",
    "fence.sc.gpu;",
    "fence.sc.sys;",
    "fence.acq_rel.cta;",
    "fence.acq_rel.gpu;",
    "fence.acquire.cluster;",
    "fence.release.sys;",
    "fence.mbarrier_init.release.cluster;",
    "fence.proxy.async;",
    "fence.proxy.async.global;",
    "fence.proxy.async.shared::cta;",
    "membar.cta;",
    "membar.gl;",
    "membar.sys;",
    "createpolicy.fractional.L2::evict_last.b64 %rd5, 0.5;",
    "createpolicy.fractional.L2::evict_first.b64 %rd5;",
    "createpolicy.fractional.L2::evict_normal.b64 %rd5;",
    "createpolicy.fractional.L2::evict_unchanged.b64 %rd5;",
    /* the old value of %r0, whatever the hint, order and scope */
    "ld.global.ca.u32 %r0, [%rd2];",
    "ld.global.cg.u32 %r0, [%rd2];",
    "ld.global.cs.u32 %r0, [%rd2];",
    "ld.global.lu.u32 %r0, [%rd2];",
    "ld.global.cv.u32 %r0, [%rd2];",
    "ld.global.L1::evict_normal.u32 %r0, [%rd2];",
    "ld.global.L1::evict_unchanged.u32 %r0, [%rd2];",
    "ld.global.L1::evict_first.u32 %r0, [%rd2];",
    "ld.global.L1::evict_last.u32 %r0, [%rd2];",
    "ld.global.L1::no_allocate.u32 %r0, [%rd2];",
    "ld.global.L2::64B.u32 %r0, [%rd2];",
    "ld.global.L2::128B.u32 %r0, [%rd2];",
    "ld.global.L2::256B.u32 %r0, [%rd2];",
    "mov.b64 %rd5, 0; ld.global.L2::cache_hint.u32 %r0, [%rd2], %rd5;",
    "ld.global.L2::evict_last.v8.b32 {%r0, %r11, %r12, %r13, %r14, %r15, %r16, %r17}, [%rd2];",
    "ld.global.L2::evict_normal.v8.b32 {%r0, %r11, %r12, %r13, %r14, %r15, %r16, %r17}, [%rd2];",
    "ld.global.L2::evict_first.v4.b64 {%rd6, %rd7, %rd8, %rd9}, [%rd2]; cvt.u32.u64 %r0, %rd6;",
    "ld.weak.global.u32 %r0, [%rd2];",
    "ld.volatile.global.u32 %r0, [%rd2];",
    "ld.relaxed.cta.global.u32 %r0, [%rd2];",
    "ld.relaxed.cluster.global.u32 %r0, [%rd2];",
    "ld.acquire.gpu.global.u32 %r0, [%rd2];",
    "ld.acquire.sys.global.u32 %r0, [%rd2];",
    "ld.mmio.relaxed.sys.global.u32 %r0, [%rd2];",
    /* what is there anyway */
    "st.global.wb.u32 [%rd2], %r2;",
    "st.global.cg.u32 [%rd2], %r2;",
    "st.global.cs.u32 [%rd2], %r2;",
    "st.global.wt.u32 [%rd2], %r2;",
    "st.global.L1::evict_normal.u32 [%rd2], %r2;",
    "st.global.L1::evict_unchanged.u32 [%rd2], %r2;",
    "st.global.L1::evict_first.u32 [%rd2], %r2;",
    "st.global.L1::evict_last.u32 [%rd2], %r2;",
    "st.global.L1::no_allocate.u32 [%rd2], %r2;",
    "mov.b64 %rd5, 0; st.global.L2::cache_hint.u32 [%rd2], %r2, %rd5;",
    "st.global.L2::evict_last.v8.b32 [%rd2], {%r2, %r2, %r2, %r2, %r2, %r2, %r2, %r2};",
    "st.global.L2::evict_normal.v8.b32 [%rd2], {%r2, %r2, %r2, %r2, %r2, %r2, %r2, %r2};",
    "st.global.L2::evict_first.v8.b32 [%rd2], {%r2, %r2, %r2, %r2, %r2, %r2, %r2, %r2};",
    "st.weak.global.u32 [%rd2], %r2;",
    "st.volatile.global.u32 [%rd2], %r2;",
    "st.relaxed.cta.global.u32 [%rd2], %r2;",
    "st.relaxed.cluster.global.u32 [%rd2], %r2;",
    "st.release.gpu.global.u32 [%rd2], %r2;",
    "st.release.sys.global.u32 [%rd2], %r2;",
    "st.mmio.relaxed.sys.global.u32 [%rd2], %r2;",
    /* atomic operations that find what they leave */
    "atom.relaxed.cta.global.or.b32 %r0, [%rd2], 0;",
    "atom.acquire.cluster.global.or.b32 %r0, [%rd2], 0;",
    "atom.release.gpu.global.or.b32 %r0, [%rd2], 0;",
    "atom.acq_rel.sys.global.or.b32 %r0, [%rd2], 0;",
    "mov.b64 %rd5, 0; atom.global.or.L2::cache_hint.b32 %r0, [%rd2], 0, %rd5;",
    "red.relaxed.cta.global.or.b32 [%rd2], 0;",
    "red.release.cluster.global.or.b32 [%rd2], 0;",
    "red.relaxed.gpu.global.or.b32 [%rd2], 0;",
    "red.release.sys.global.or.b32 [%rd2], 0;",
    "mov.b64 %rd5, 0; red.global.or.L2::cache_hint.b32 [%rd2], 0, %rd5;",
};

/* Each thread owns 128 bytes of 0x55 at %rd2, and as many at %rd4 that nobody needs. */
Test(isa_control, hints_orders_fences_and_sleep_change_nothing)
{
    enum { THREADS = 32, OWN = 128 };
    static uint8_t out[THREADS][2 * OWN + 128];
    device_open();
    for (size_t k = 0; k < sizeof without_effect / sizeof without_effect[0]; ++k) {
        char body[2048];
        snprintf(
            body, sizeof body,
            "{ .local .align 16 .b8 own[16]; .reg .b32 %%i; mad.wide.u32 %%rd2, %%thread, 384, "
            "%%out;\n"
            "mov.u64 %%rd3, %%rd2; mov.u32 %%i, 0; mov.b32 %%r2, 0x55555555; add.u64 %%rd4, %%rd2, "
            "128;\n"
            "FILL: st.global.b32 [%%rd3], %%r2; add.u64 %%rd3, %%rd3, 4; add.u32 %%i, %%i, 1;\n"
            "setp.lt.u32 %%p0, %%i, 64; @%%p0 bra FILL; mov.b32 %%r0, %%r2; mov.u32 %%r3, 1000; "
            "st.local.b32 [own], "
            "%%r2;\n%s\n st.global.b32 [%%rd2+256], %%r0; }",
            without_effect[k]);
        kernel_run(without_effect[k], body, 1, THREADS, NULL, 0, out, sizeof out);
        for (int i = 0; i < THREADS; ++i) {
            for (int at = 0; at < OWN; ++at)
                cr_assert(out[i][at] == 0x55 && (at > 3 || out[i][2 * OWN + at] == 0x55),
                          "%s: thread %d byte %d", without_effect[k], i, at);
        }
    }
    device_close();
}

/* ---- branches, calls and ends ---- */

Test(isa_control, an_indexed_branch_of_all_lanes_takes_one_target)
{
    for (uint32_t target = 0; target < 3; ++target) {
        char body[512];
        uint32_t out[32];
        snprintf(body, sizeof body,
                 "mov.u32 %%r1, %u;\nLIST: .branchtargets A, B, C;\nbrx.idx.uni %%r1, LIST;\n"
                 "A: mov.u32 %%r0, 10; bra.uni END; B: mov.u32 %%r0, 20; bra.uni END; C: mov.u32 "
                 "%%r0, 30; END:\n"
                 "mad.wide.u32 %%rd0, %%thread, 4, %%out; st.global.b32 [%%rd0], %%r0;",
                 target);
        kernel_run("brx.idx.uni", body, 1, 32, NULL, 0, out, sizeof out);
        for (int i = 0; i < 32; ++i)
            cr_assert_eq(out[i], 10 * (target + 1));
    }
}

/* Runs a module whose kernel has one parameter, `out`. */
static void run_module(const char *ptx, const char *what, void *out, size_t bytes)
{
    device_open();
    CUmodule module = device_load(ptx, what);
    CUdeviceptr device_out = device_alloc(bytes);
    void *arguments[] = {&device_out};
    device_run(module, "kernel", 1, 32, 0, arguments, what);
    device_download(out, device_out, bytes);
    cuMemFree(device_out);
    cuModuleUnload(module);
    device_close();
}

#define HEAD ".version 9.0\n.target sm_100\n.address_size 64\n"

Test(isa_control, functions_return_early_and_late_to_the_lanes_that_called)
{
    static const char ptx[] = HEAD
        ".func (.param .u32 result) f(.param .u32 x)\n{ .reg .u32 %x; .reg .pred %p;\n"
        "BODY: ld.param.u32 %x, [x]; setp.lt.u32 %p, %x, 8; st.param.u32 [result], 7; @%p ret;\n"
        "add.u32 %x, %x, 100; st.param.u32 [result], %x; setp.lt.u32 %p, %x, 116; @%p ret.uni;\n"
        "add.u32 %x, %x, 100; st.param.u32 [result], %x; ret;\nBODY_END: }\n"
        ".visible .entry kernel(.param .u64 out)\n{ .reg .u32 %t, %r; .reg .u64 %o; .reg .pred "
        "%p;\n"
        "BODY: mov.u32 %t, %tid.x; mov.u32 %r, 1; setp.ne.u32 %p, %t, 3;\n"
        "{ .param .u32 a; .param .u32 b; st.param.u32 [a], %t; @%p call (b), f, (a); @%p "
        "ld.param.u32 %r, [b]; }\n"
        "{ .param .u32 a; .param .u32 b; st.param.u32 [a], 0; call.uni (b), f, (a); ld.param.u32 "
        "%t, [b]; }\n"
        "mad.lo.u32 %r, %t, 1000, %r; ld.param.u64 %o, [out]; mov.u32 %t, %tid.x; mad.wide.u32 %o, "
        "%t, 4, %o;\n"
        "st.global.u32 [%o], %r; ret;\nBODY_END: }\n";
    uint32_t out[32];
    run_module(ptx, "call", out, sizeof out);
    for (uint32_t i = 0; i < 32; ++i) {
        uint32_t result = i < 8 ? 7 : i < 16 ? i + 100 : i + 200;
        cr_assert_eq(out[i], 7000 + (i == 3 ? 1 : result), "lane %u: got %u", i, out[i]);
    }
}

Test(isa_control, vprintf_prints_and_counts_its_arguments)
{
    static const char ptx[] = HEAD
        ".extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);\n"
        ".global .b8 format[12] = {108, 97, 110, 101, 32, 37, 117, 33, 10, 0, 0, 0};\n" /* "lane
                                                                                           %u!\n" */
        ".visible .entry kernel(.param .u64 out)\n{ .reg .u32 %t, %r; .reg .u64 %o, %f, %b; .reg "
        ".pred %p;\n"
        ".local .align 8 .b8 values[8]; .param .b64 x; .param .b64 y; .param .b32 z;\n"
        "BODY: mov.u32 %t, %tid.x; mov.u32 %r, 77; setp.eq.u32 %p, %t, 21; mov.u64 %b, values;\n"
        "st.local.u32 [values], %t; cvta.local.u64 %b, %b; mov.u64 %f, format; cvta.global.u64 %f, "
        "%f;\n"
        "st.param.b64 [x], %f; st.param.b64 [y], %b; @%p call (z), vprintf, (x, y); @%p "
        "ld.param.b32 %r, [z];\n"
        "ld.param.u64 %o, [out]; mad.wide.u32 %o, %t, 4, %o; st.global.u32 [%o], %r; "
        "ret;\nBODY_END: }\n";
    uint32_t out[32];
    char printed[64] = "";
    FILE *file = tmpfile();
    cr_assert_not_null(file);
    fflush(stdout);
    int saved = dup(1);
    dup2(fileno(file), 1);
    run_module(ptx, "vprintf", out, sizeof out);
    fflush(stdout);
    dup2(saved, 1);
    close(saved);
    rewind(file);
    cr_assert_gt(fread(printed, 1, sizeof printed - 1, file), 0);
    fclose(file);
    cr_expect_str_eq(printed, "lane 21!\n");
    for (int i = 0; i < 32; ++i)
        cr_expect_eq(out[i], i == 21 ? 1u : 77u, "lane %d: got %u", i, out[i]);
}

static CUresult try_assertion(void)
{
    static const char ptx[] =
        HEAD ".extern .func __assertfail(.param .b64 a, .param .b64 b, .param .b32 c, .param .b64 "
             "d, .param .b64 e);\n"
             ".global .b8 words[8] = {119, 104, 121, 0};\n" /* "why" */
             ".visible .entry kernel(.param .u64 out)\n{ .reg .u64 %w;\n"
             ".param .b64 a; .param .b64 b; .param .b32 c; .param .b64 d; .param .b64 e;\n"
             "BODY: mov.u64 %w, words; cvta.global.u64 %w, %w; st.param.b64 [a], %w; st.param.b64 "
             "[b], %w;\n"
             "st.param.b32 [c], 5; st.param.b64 [d], %w; st.param.b64 [e], 1; call __assertfail, "
             "(a, b, c, d, e);\n"
             "BODY_END: ret; }\n";
    device_open();
    CUmodule module = device_load(ptx, "assert");
    CUdeviceptr device_out = device_alloc(4);
    void *arguments[] = {&device_out};
    return device_try(module, "kernel", 1, 1, 0, arguments);
}

static CUresult try_trap(void)
{
    return kernel_try("trap", "trap;", 1, 32, NULL, 0, 4);
}

static CUresult try_brkpt(void)
{
    return kernel_try("brkpt", "brkpt;", 1, 32, NULL, 0, 4);
}

Test(isa_control, traps_and_failed_assertions_end_the_grid_with_an_error)
{
    static const struct {
        const char *name;
        CUresult (*attempt)(void);
        CUresult wanted;
    } ends[] = {{"trap", try_trap, CUDA_ERROR_LAUNCH_FAILED},
                {"brkpt", try_brkpt, CUDA_ERROR_LAUNCH_FAILED},
                {"__assertfail", try_assertion, CUDA_ERROR_ASSERT}};
    for (int i = 0; i < 3; ++i) {
        pid_t child = fork(); /* the error stays with the process */
        if (child == 0) {
            int is_right = ends[i].attempt() == ends[i].wanted;
            if (is_right)
                device_has_run();
            _exit(is_right ? 0 : 1);
        }
        int status;
        cr_assert(waitpid(child, &status, 0) == child && status == 0, "%s ended with %d",
                  ends[i].name, status);
    }
}
