/* isa_memory.c: loads, stores, atomics, address spaces and control flow (PTX
 * ISA 9.7.9, 9.7.12, 9.7.13.13). */
#include <criterion/criterion.h>
#include <locale.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernel.h"
#include "softfloat.h"

#define STORE_R0                                                                                   \
    "mul.wide.u32 %rd0, %thread, 4; add.s64 %rd0, %out, %rd0; st.global.b32 [%rd0], %r0;\n"

Test(isa_memory, loads_extend_by_the_sign_of_their_type)
{
    static const uint8_t in[8] = {0x80, 0xff, 0x7f, 0x01, 0xfe, 0xff, 0xff, 0x80};
    static const struct {
        const char *load;
        uint32_t expected;
    } cases[] = {
        {"ld.global.u8 %r0, [%in];", 0x80},
        {"ld.global.s8 %r0, [%in];", 0xffffff80},
        {"ld.global.b8 %r0, [%in+1];", 0xff},
        {"ld.global.u16 %r0, [%in];", 0xff80},
        {"ld.global.s16 %r0, [%in];", 0xffffff80},
        {"ld.global.s16 %r0, [%in+2];", 0x017f},
        {"ld.global.u32 %r0, [%in];", 0x017fff80},
        {"ld.global.nc.u32 %r0, [%in+4];", 0x80fffffe},
        {"ld.volatile.global.u32 %r0, [%in];", 0x017fff80},
        {"ld.relaxed.gpu.global.u32 %r0, [%in];", 0x017fff80},
        {"ld.acquire.sys.global.u32 %r0, [%in];", 0x017fff80},
        {"ld.global.v2.u16 {%h0, %h1}, [%in]; cvt.u32.u16 %r0, %h1;", 0x017f},
        {"ld.global.v4.u8 {%h0, %h1, %h2, %h3}, [%in+4]; cvt.u32.u16 %r0, %h3;", 0x80},
        {"ld.global.v2.b32 {%r1, %r0}, [%in];", 0x80fffffe},
        {"ld.global.b64 %rd3, [%in]; shr.u64 %rd3, %rd3, 8; cvt.u32.u64 %r0, %rd3;", 0xfe017fff},
        {"cvta.global.u64 %rd3, %in; ld.u32 %r0, [%rd3];", 0x017fff80},
        {"ld.global.L2::128B.u32 %r0, [%in];", 0x017fff80},
        {"ld.global.L1::no_allocate.u32 %r0, [%in];", 0x017fff80},
        {"ldu.global.u32 %r0, [%in];", 0x017fff80},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        char body[512];
        uint32_t out[1];
        snprintf(body, sizeof body, "%s\n st.global.b32 [%%out], %%r0;", cases[i].load);
        kernel_run(cases[i].load, body, 1, 1, in, sizeof in, out, sizeof out);
        cr_assert_eq(out[0], cases[i].expected, "%s: got 0x%x, expected 0x%x", cases[i].load,
                     out[0], cases[i].expected);
    }
}

Test(isa_memory, stores_write_only_their_width)
{
    static const struct {
        const char *store;
        uint64_t expected; /* over zeros, from 0x1122334455667788 */
    } cases[] = {
        {"st.global.b8 [%out+1], %r1;", 0x8800},
        {"st.global.u16 [%out+2], %h1;", 0x77880000},
        {"st.global.b32 [%out], %r1;", 0x55667788},
        {"st.global.b64 [%out], %rd4;", 0x1122334455667788},
        {"st.global.v2.b16 [%out+4], {%h1, %h1};", 0x7788778800000000},
        {"st.global.v2.b32 [%out], {%r1, %r1};", 0x5566778855667788},
        {"st.release.gpu.global.b32 [%out], %r1;", 0x55667788},
        {"cvta.global.u64 %rd5, %out; st.b32 [%rd5+4], %r1;", 0x5566778800000000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        char body[512];
        uint64_t out[1];
        snprintf(body, sizeof body,
                 "mov.b64 %%rd4, 0x1122334455667788; cvt.u32.u64 %%r1, %%rd4; cvt.u16.u32 %%h1, "
                 "%%r1;\n%s",
                 cases[i].store);
        kernel_run(cases[i].store, body, 1, 1, NULL, 0, out, sizeof out);
        cr_assert_eq(out[0], cases[i].expected, "%s: got 0x%lx", cases[i].store,
                     (unsigned long)out[0]);
    }
}

Test(isa_memory, mov_packs_and_unpacks_from_the_lowest_part)
{
    uint32_t out[4];
    kernel_run("mov vectors",
               "mov.b32 %r1, 0x11112222; mov.b32 %r2, 0x33334444; mov.b64 %rd1, {%r1, %r2}; "
               "mov.b64 {%r3, %r4}, %rd1;\n"
               "mov.b32 {%h0, %h1}, %r1; mov.b32 %r5, {%h1, %h0}; mov.b64 {%h2, %h3, %h4, %h5}, "
               "%rd1; cvt.u32.u16 %r6, %h5;\n"
               "st.global.v4.b32 [%out], {%r3, %r4, %r5, %r6};",
               1, 1, NULL, 0, out, sizeof out);
    cr_assert_eq(out[0], 0x11112222);
    cr_assert_eq(out[1], 0x33334444);
    cr_assert_eq(out[2], 0x22221111);
    cr_assert_eq(out[3], 0x3333);
}

Test(isa_memory, generic_addresses_find_their_space)
{
    uint32_t out[4];
    kernel_run("isspacep",
               "mov.u64 %rd1, shared; cvta.shared.u64 %rd1, %rd1; cvta.global.u64 %rd2, %out;\n"
               "isspacep.shared %p0, %rd1; isspacep.global %p1, %rd1; isspacep.global %p2, %rd2; "
               "isspacep.shared %p3, %rd2;\n"
               "selp.b32 %r0, 1, 0, %p0; selp.b32 %r1, 1, 0, %p1; selp.b32 %r2, 1, 0, %p2; "
               "selp.b32 %r3, 1, 0, %p3;\n"
               "mov.u32 %r5, 77; st.b32 [%rd1+8], %r5; mov.u32 %r6, shared; ld.shared.b32 %r4, "
               "[%r6+8]; add.u32 %r0, %r0, %r4;\n"
               "st.global.v4.b32 [%out], {%r0, %r1, %r2, %r3};",
               1, 1, NULL, 0, out, sizeof out);
    cr_assert_eq(out[0], 78);
    cr_assert_eq(out[1], 0);
    cr_assert_eq(out[2], 1);
    cr_assert_eq(out[3], 0);
}

Test(isa_memory, local_memory_is_each_threads_own)
{
    uint32_t out[64];
    kernel_run("local",
               "{ .local .align 16 .b8 own[64]; .reg .b64 %a; mov.u64 %a, own; st.local.u32 "
               "[%a+12], %thread;\n"
               "  bar.warp.sync -1; cvta.local.u64 %a, %a; ld.u32 %r0, [%a+12]; }\n" STORE_R0,
               1, 64, NULL, 0, out, sizeof out);
    for (uint32_t i = 0; i < 64; ++i)
        cr_assert_eq(out[i], i);
}

/* ---- atomics ------------------------------------------------------------------------------------
 */

/* One thread, one operation on a word that holds `before`; stores what it returned, and reads what
 * it left. */
static void check_atom(const char *instruction, const char *space, uint64_t before,
                       uint64_t returned, uint64_t left)
{
    char body[1024];
    uint64_t out[2];
    const char *address =
        strcmp(space, "shared") == 0 ? "mov.u64 %rd6, shared;" : "add.s64 %rd6, %out, 8;";
    snprintf(body, sizeof body,
             "%s mov.b64 %%rd7, 0x%lx; st.%s.b64 [%%rd6], %%rd7; mov.b64 %%rd8, 0; mov.b32 %%r8, "
             "0; mov.b16 %%h8, 0;\n"
             "%s\n ld.%s.b64 %%rd9, [%%rd6]; st.global.b64 [%%out], %%rd8; st.global.b64 "
             "[%%out+8], %%rd9;",
             address, (unsigned long)before, space, instruction, space);
    kernel_run(instruction, body, 1, 1, NULL, 0, out, sizeof out);
    cr_assert(out[0] == returned && out[1] == left,
              "%s: returned 0x%lx, left 0x%lx; expected 0x%lx, 0x%lx", instruction,
              (unsigned long)out[0], (unsigned long)out[1], (unsigned long)returned,
              (unsigned long)left);
}

#define ATOM32(op, operands) "atom.%s." op " %%r8, [%%rd6], " operands "; cvt.u64.u32 %%rd8, %%r8;"

Test(isa_memory, atomics_return_the_old_value_and_leave_the_new)
{
    static const struct {
        const char *format; /* %s: the space */
        uint64_t before, returned, left;
    } cases[] = {
        {ATOM32("add.u32", "5"), 7, 7, 12},
        {ATOM32("add.s32", "-8"), 7, 7, 0xffffffff},
        {ATOM32("min.s32", "-1"), 7, 7, 0xffffffff},
        {ATOM32("min.u32", "3"), 7, 7, 3},
        {ATOM32("max.s32", "-1"), 7, 7, 7},
        {ATOM32("max.u32", "-1"), 7, 7, 0xffffffff},
        {ATOM32("and.b32", "6"), 5, 5, 4},
        {ATOM32("or.b32", "6"), 5, 5, 7},
        {ATOM32("xor.b32", "6"), 5, 5, 3},
        {ATOM32("exch.b32", "9"), 5, 5, 9},
        {ATOM32("cas.b32", "5, 9"), 5, 5, 9},
        {ATOM32("cas.b32", "4, 9"), 5, 5, 5},
        {ATOM32("inc.u32", "5"), 4, 4, 5},
        {ATOM32("inc.u32", "5"), 5, 5, 0},
        {ATOM32("dec.u32", "5"), 4, 4, 3},
        {ATOM32("dec.u32", "5"), 0, 0, 5},
        {ATOM32("dec.u32", "5"), 9, 9, 5},
        {"atom.%s.add.u64 %%rd8, [%%rd6], 1;", 0xffffffff, 0xffffffff, 0x100000000},
        {"atom.%s.cas.b64 %%rd8, [%%rd6], 3, 4;", 3, 3, 4},
        {"atom.%s.exch.b64 %%rd8, [%%rd6], 4;", 3, 3, 4},
        {"atom.%s.max.s64 %%rd8, [%%rd6], 4;", UINT64_MAX, UINT64_MAX, 4},
        {"atom.%s.add.f32 %%f0, [%%rd6], 0f3f800000; mov.b32 %%r8, %%f0; cvt.u64.u32 %%rd8, %%r8;",
         0x40000000, 0x40000000, 0x40400000},
        {"{ .reg .f64 %%x; atom.%s.add.f64 %%x, [%%rd6], 0d3ff0000000000000; mov.b64 %%rd8, %%x; }",
         0x4000000000000000, 0x4000000000000000, 0x4008000000000000},
        {"mov.b32 %%r1, 0x3c003c00; atom.%s.add.noftz.f16x2 %%r8, [%%rd6], %%r1; cvt.u64.u32 "
         "%%rd8, %%r8;",
         0x40003c00, 0x40003c00, 0x42004000},
        {"mov.b16 %%h0, 5; mov.b16 %%h1, 6; atom.%s.cas.b16 %%h8, [%%rd6], %%h0, %%h1; cvt.u64.u16 "
         "%%rd8, %%h8;",
         0x70005, 5, 0x70006},
        {"red.%s.add.u32 [%%rd6], 5;", 7, 0, 12},
        {"red.relaxed.gpu.%s.or.b32 [%%rd6], 8;", 7, 0, 15},
        {"red.%s.add.f32 [%%rd6], 0f3f800000;", 0x40000000, 0, 0x40400000},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
        static const char *const spaces[] = {"global", "shared"};
        for (int s = 0; s < 2; ++s) {
            char instruction[512];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
            snprintf(instruction, sizeof instruction, cases[i].format, spaces[s]);
#pragma GCC diagnostic pop
            check_atom(instruction, spaces[s], cases[i].before, cases[i].returned, cases[i].left);
        }
    }
}

Test(isa_memory, atomics_of_many_blocks_lose_no_update)
{
    uint32_t out[2];
    kernel_run("counters",
               "atom.global.add.u32 %r0, [%out], 1; red.global.add.u32 [%out+4], %thread;", 50, 128,
               NULL, 0, out, sizeof out);
    cr_assert_eq(out[0], 50 * 128);
    cr_assert_eq(out[1], 50 * 127 * 64);
}

Test(isa_memory, vector_reductions_add_each_element)
{
    float out[4];
    kernel_run("red.v4",
               "mov.f32 %f0, 0f3f800000; mov.f32 %f1, 0f40000000; mov.f32 %f2, 0f40400000; mov.f32 "
               "%f3, 0f40800000;\n"
               "red.global.add.v4.f32 [%out], {%f0, %f1, %f2, %f3};",
               1, 32, NULL, 0, out, sizeof out);
    for (int i = 0; i < 4; ++i)
        cr_assert_eq(out[i], 32.0f * (float)(i + 1));
}

/* ---- control flow -------------------------------------------------------------------------------
 */

Test(isa_memory, divergent_loops_reconverge)
{
    /* Each lane adds 0 + 1 + ... + tid in a loop of its own length. */
    uint32_t out[64];
    kernel_run(
        "loop",
        "mov.u32 %r0, 0; mov.u32 %r1, 0;\nLOOP: setp.gt.u32 %p0, %r1, %thread; @%p0 bra END;\n"
        "add.u32 %r0, %r0, %r1; add.u32 %r1, %r1, 1; bra LOOP;\nEND: activemask.b32 %r2; "
        "popc.b32 %r2, %r2;\n"
        "bar.sync 0;" STORE_R0,
        1, 64, NULL, 0, out, sizeof out);
    for (uint32_t i = 0; i < 64; ++i)
        cr_assert_eq(out[i], i * (i + 1) / 2);
}

Test(isa_memory, an_indexed_branch_takes_the_target_of_each_lane)
{
    uint32_t out[32];
    kernel_run(
        "brx.idx",
        "and.b32 %r1, %thread, 3;\nTARGETS: .branchtargets A, B, C, D;\nbrx.idx %r1, TARGETS;\n"
        "A: mov.u32 %r0, 10; bra END; B: mov.u32 %r0, 20; bra END; C: mov.u32 %r0, 30; bra "
        "END; D: mov.u32 %r0, 40;\nEND:" STORE_R0,
        1, 32, NULL, 0, out, sizeof out);
    for (uint32_t i = 0; i < 32; ++i)
        cr_assert_eq(out[i], 10 * (i % 4 + 1));
}

Test(isa_memory, a_predicated_exit_ends_single_lanes)
{
    uint32_t out[32];
    kernel_run("exit", "mov.u32 %r0, 5; setp.lt.u32 %p0, %thread, 9; @%p0 exit;" STORE_R0, 1, 32,
               NULL, 0, out, sizeof out);
    for (uint32_t i = 0; i < 32; ++i)
        cr_assert_eq(out[i], i < 9 ? 0u : 5u);
}

Test(isa_memory, inner_scopes_hide_registers_and_labels_of_the_outer_one)
{
    uint32_t out[32];
    kernel_run(
        "scopes",
        "mov.u32 %r0, 1;\n"
        "{ .reg .b32 %r0; mov.u32 %r0, 50; setp.eq.u32 %p0, %thread, 0; @%p0 bra SKIP; mov.u32 "
        "%r0, 60; SKIP: mov.u32 %r5, %r0; }\n"
        "{ .reg .b32 %r0; mov.u32 %r0, 70; @%p0 bra SKIP; mov.u32 %r0, 80; SKIP: add.u32 "
        "%r5, %r5, %r0; }\n"
        "mad.lo.u32 %r0, %r5, 10, %r0;" STORE_R0,
        1, 32, NULL, 0, out, sizeof out);
    for (uint32_t i = 0; i < 32; ++i)
        cr_assert_eq(out[i], i == 0 ? 1201u : 1401u);
}

Test(isa_memory, numbers_have_a_point_whatever_the_programs_locale)
{
    char folder[] = "locale.XXXXXX";
    cr_assert_not_null(mkdtemp(folder));
    char *command = NULL;
    cr_assert_gt(
        asprintf(&command, "localedef -i de_DE -f UTF-8 %s/de_DE.UTF-8 >/dev/null 2>&1", folder),
        0);
    setenv("LOCPATH", folder, 1);
    int made = system(command) == 0 && setlocale(LC_ALL, "de_DE.UTF-8");
    free(command);
    if (made) {
        double out[1];
        kernel_run("decimal comma", "{ .reg .f64 %x; mov.f64 %x, 1.5; st.global.f64 [%out], %x; }",
                   1, 1, NULL, 0, out, sizeof out);
        cr_expect_float_eq(out[0], 1.5, 0);
    }
    cr_assert_gt(asprintf(&command, "rm -rf %s", folder), 0);
    cr_expect_eq(system(command), 0);
    free(command);
    if (!made)
        cr_skip_test("this machine cannot make the locale de_DE");
}
