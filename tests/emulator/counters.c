/*
 * counters.c: instructions, operations, barriers, waves and distinct bytes that are counted of a
 * launch, against numbers from the definitions in docs/emulator.md.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "counted.h"
#include "device.h"
#include "kernel.h"

/* ---- instructions --------------------------------------------------------------------------- */

#define MMA(shape, types) "mma.sync.aligned." shape ".row.col." types " {%f0, %f1, %f2, %f3}, "
#define R1                "{%thread}, "
#define R2                "{%thread, %thread}, "
#define R4                "{%thread, %thread, %thread, %thread}, "
#define F4                "{%f4, %f5, %f6, %f7};"
#define FILL_SHARED                                                                                \
    "shl.b32 %r0, %thread, 4; mov.u32 %r1, shared; add.u32 %r0, %r0, %r1;\n"                       \
    "st.shared.v4.u32 [%r0], {%r1, %r1, %r1, %r1};\n"

typedef struct class_count {
    emu_class class;
    uint64_t count; /* of instructions that all lanes run */
} class_count;

static const struct class_case {
    const char *name, *body;
    class_count counts[4];
    uint64_t fma_flops;    /* of a lane */
    uint64_t tensor_flops; /* of a warp */
} class_cases[] = {
    {"integers",
     "add.u32 %r1, %thread, 1; mad.lo.u32 %r1, %r1, 3, 4; shl.b32 %r1, %r1, 2; xor.b32 %r1, %r1, "
     "5;\n lop3.b32 %r1, %r1, %r1, %r1, 0x96; prmt.b32 %r1, %r1, %r1, 0x3210;",
     {{EMU_CLASS_INTEGER, 6}},
     0,
     0},
    {"fp32 operations",
     "add.f32 %f1, %f0, %f0; sub.rz.f32 %f1, %f0, %f0; mul.ftz.f32 %f1, %f0, %f0;\n"
     "fma.rn.f32 %f1, %f0, %f0, %f0; mad.rn.f32 %f1, %f0, %f0, %f0;",
     {{EMU_CLASS_FP32, 5}},
     7,
     0},
    {"fp32 without operations of fma",
     "ex2.approx.f32 %f1, %f0; div.full.f32 %f1, %f0, %f0; max.f32 %f1, %f0, %f0; neg.f32 %f1, "
     "%f0;",
     {{EMU_CLASS_FP32, 4}},
     0,
     0},
    {"pairs of fp32",
     "fma.rn.f32x2 %rd1, %in, %in, %in; add.rn.f32x2 %rd1, %in, %in;",
     {{EMU_CLASS_FP32, 2}},
     6,
     0},
    {"halves",
     "fma.rn.f16 %h1, %h0, %h0, %h0; add.rn.bf16 %h1, %h0, %h0; min.f16 %h1, %h0, %h0;",
     {{EMU_CLASS_FP16, 3}},
     3,
     0},
    {"pairs of halves",
     "fma.rn.bf16x2 %r1, %thread, %thread, %thread; mul.f16x2 %r1, %thread, %thread;\n"
     "tanh.approx.bf16x2 %r1, %thread;",
     {{EMU_CLASS_FP16, 3}},
     6,
     0},
    {"fp64",
     "fma.rn.f64 %rd1, %in, %in, %in; add.f64 %rd1, %in, %in; sqrt.rn.f64 %rd1, %in;",
     {{EMU_CLASS_FP64, 3}},
     3,
     0},
    {"conversions",
     "cvt.u64.u32 %rd1, %thread; cvt.rn.f32.u32 %f1, %thread; cvt.rn.bf16x2.f32 %r1, %f1, %f1;",
     {{EMU_CLASS_CONVERT, 3}},
     0,
     0},
    {"moves, comparisons and predicates",
     "mov.u32 %r1, 5; setp.lt.u32 %p0, %thread, 7; selp.b32 %r1, 1, 2, %p0; and.pred %p1, %p0, "
     "%p0;\n"
     "mov.b64 %rd1, {%r1, %r1}; mov.b64 {%r1, %r2}, %rd1;",
     {{EMU_CLASS_MOVE, 6}},
     0,
     0},
    {"a comparison that is combined with a negated predicate",
     "setp.lt.u32 %p0, %thread, 7; setp.gt.and.u32 %p1|%p2, %thread, 2, !%p0;",
     {{EMU_CLASS_MOVE, 2}},
     0,
     0},
    {"a clock", "mov.u32 %r1, %clock;", {{EMU_CLASS_MOVE, 1}}, 0, 0},
    {"global memory, from and to wider registers",
     "ld.global.u8 %r1, [%in]; st.global.u16 [%out], %r1; ld.global.nc.v2.u32 {%r1, %r2}, [%in];",
     {{EMU_CLASS_GLOBAL, 3}},
     0,
     0},
    {"shared memory",
     FILL_SHARED "ld.shared.u32 %r1, [%r0];",
     {{EMU_CLASS_INTEGER, 2}, {EMU_CLASS_MOVE, 1}, {EMU_CLASS_SHARED, 2}},
     0,
     0},
    {"local memory",
     "{ .local .align 4 .b8 room[16]; st.local.u32 [room], %thread; ld.local.u32 %r1, [room]; }",
     {{EMU_CLASS_LOCAL, 2}},
     0,
     0},
    {"parameters and generic addresses",
     "ld.param.u64 %rd1, [pin]; ld.u32 %r1, [%rd1];",
     {{EMU_CLASS_PARAM, 1}, {EMU_CLASS_GENERIC, 1}},
     0,
     0},
    {"atomic operations",
     "red.global.add.u32 [%out], 1; atom.global.exch.b32 %r1, [%out], %thread;",
     {{EMU_CLASS_ATOMIC, 2}},
     0,
     0},
    {"matrices",
     FILL_SHARED "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1, %r2, %r3, %r4}, [%r0];\n"
                 "stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r0], {%r1};\n"
                 "movmatrix.sync.aligned.m8n8.trans.b16 %r1, %r1;",
     {{EMU_CLASS_INTEGER, 2}, {EMU_CLASS_MOVE, 1}, {EMU_CLASS_SHARED, 1}, {EMU_CLASS_MATRIX, 3}},
     0,
     0},
    {"asynchronous copies",
     "mov.u32 %r1, shared; cp.async.ca.shared.global [%r1], [%in], 4; cp.async.commit_group;\n"
     "cp.async.wait_group 0;",
     {{EMU_CLASS_MOVE, 1}, {EMU_CLASS_ASYNC, 3}},
     0,
     0},
    {"exchanges in a warp",
     "shfl.sync.idx.b32 %r1, %thread, 0, 31, 0xffffffff; vote.sync.any.pred %p1, %p0, 0xffffffff;\n"
     "activemask.b32 %r1; redux.sync.add.u32 %r1, %thread, 0xffffffff;",
     {{EMU_CLASS_WARP, 4}},
     0,
     0},
    {"barriers and fences",
     "bar.sync 0; membar.gl; bar.warp.sync 0xffffffff;",
     {{EMU_CLASS_SYNC, 3}},
     0,
     0},
    {"branches", "bra NEXT; NEXT: bra.uni LAST; LAST:", {{EMU_CLASS_CONTROL, 2}}, 0, 0},
    {"hints", "prefetch.global.L2 [%in]; nanosleep.u32 10;", {{EMU_CLASS_OTHER, 2}}, 0, 0},
    {"mma of bf16",
     MMA("m16n8k16", "f32.bf16.bf16.f32") R4 R2 F4,
     {{EMU_CLASS_TENSOR, 1}},
     0,
     2 * 16 * 8 * 16},
    {"mma of f16",
     MMA("m16n8k8", "f32.f16.f16.f32") R2 R1 F4,
     {{EMU_CLASS_TENSOR, 1}},
     0,
     2 * 16 * 8 * 8},
    {"mma of tf32",
     MMA("m16n8k8", "f32.tf32.tf32.f32") R4 R2 F4,
     {{EMU_CLASS_TENSOR, 1}},
     0,
     2 * 16 * 8 * 8},
    {"mma of tf32, short",
     MMA("m16n8k4", "f32.tf32.tf32.f32") R2 R1 F4,
     {{EMU_CLASS_TENSOR, 1}},
     0,
     2 * 16 * 8 * 4},
    {"mma of e4m3",
     MMA("m16n8k32", "f32.e4m3.e4m3.f32") R4 R2 F4,
     {{EMU_CLASS_TENSOR, 1}},
     0,
     2 * 16 * 8 * 32},
    {"mma of bytes",
     "mma.sync.aligned.m16n8k16.row.col.s32.s8.u8.s32 {%r0, %r1, %r2, %r3}, " R2 R1
     "{%r4, %r5, %r6, %r7};",
     {{EMU_CLASS_TENSOR, 1}},
     0,
     2 * 16 * 8 * 16},
    {"none", "", {{EMU_CLASS_OTHER, 0}}, 0, 0},
};

Test(counters, every_instruction_of_ptx_counts_once_in_its_class)
{
    for (size_t i = 0; i < sizeof class_cases / sizeof class_cases[0]; i++) {
        const struct class_case *c = &class_cases[i];
        uint64_t warps[EMU_CLASS_COUNT] = {0}, lanes[EMU_CLASS_COUNT] = {0};
        for (int k = 0; k < 4; k++) {
            warps[c->counts[k].class] += 6 * c->counts[k].count;
            lanes[c->counts[k].class] += 6 * 32 * c->counts[k].count;
        }
        emu_counters found = counted_run(c->name, c->body, 3, 64, NULL);
        counted_expect_classes(c->name, &found, warps, lanes);
        cr_expect_eq(found.fma_flops, 6 * 32 * c->fma_flops, "%s: %llu FLOP", c->name,
                     (unsigned long long)found.fma_flops);
        cr_expect_eq(found.tensor_flops, 6 * c->tensor_flops, "%s: %llu operations of mma", c->name,
                     (unsigned long long)found.tensor_flops);
    }
}

Test(counters, a_guard_keeps_lanes_out_and_the_instruction_is_issued_all_the_same)
{
    /* 70 threads: the third warp has 6 lanes; 5 lanes of the first add, none of the others */
    emu_counters found = counted_run("guard",
                                     "setp.lt.u32 %p0, %thread, 5;\n"
                                     "@%p0 add.f32 %f1, %f0, %f0; @!%p0 add.u32 %r1, %thread, 1;",
                                     1, 70, NULL);
    uint64_t warps[EMU_CLASS_COUNT] = {
        [EMU_CLASS_MOVE] = 3, [EMU_CLASS_FP32] = 3, [EMU_CLASS_INTEGER] = 3};
    uint64_t lanes[EMU_CLASS_COUNT] = {
        [EMU_CLASS_MOVE] = 70, [EMU_CLASS_FP32] = 5, [EMU_CLASS_INTEGER] = 65};
    counted_expect_classes("guard", &found, warps, lanes);
    cr_expect_eq(found.fma_flops, 5);
}

Test(counters, the_sides_of_a_branch_are_issued_one_after_the_other)
{
    emu_counters found = counted_run("divergence",
                                     "setp.lt.u32 %p0, %thread, 8; @%p0 bra FEW;\n"
                                     "add.u32 %r1, %thread, 1; add.u32 %r1, %r1, 1; bra BOTH;\n"
                                     "FEW: sub.u32 %r1, %thread, 1;\n"
                                     "BOTH: mul.lo.u32 %r1, %r1, 3;",
                                     1, 32, NULL);
    uint64_t warps[EMU_CLASS_COUNT] = {
        [EMU_CLASS_MOVE] = 1, [EMU_CLASS_CONTROL] = 2, [EMU_CLASS_INTEGER] = 2 + 1 + 1};
    uint64_t lanes[EMU_CLASS_COUNT] = {
        [EMU_CLASS_MOVE] = 32,
        [EMU_CLASS_CONTROL] = 8 + 24,
        [EMU_CLASS_INTEGER] = 2 * 24 + 8 + 32,
    };
    counted_expect_classes("divergence", &found, warps, lanes);
}

Test(counters, a_call_counts_what_it_runs)
{
    static const char ptx[] =
        ".version 9.0\n.target sm_80\n.address_size 64\n"
        ".func (.param .b32 result) twice(.param .b32 value)\n"
        "{ .reg .b32 %r; ld.param.b32 %r, [value]; add.u32 %r, %r, %r;\n"
        "  st.param.b32 [result], %r; ret; }\n"
        ".visible .entry kernel()\n"
        "{ .param .b32 value; .param .b32 result; st.param.b32 [value], 3;\n"
        "  call.uni (result), twice, (value); call.uni (result), twice, (value); ret; }\n";
    emu_counters found = {.blocks = 0};
    device_open();
    cr_assert_eq(cuEmulatorCount(counted_keep, &found), CUDA_SUCCESS);
    device_run(device_load(ptx, "call"), "kernel", 1, 32, 0, NULL, "call");
    device_close();
    cr_expect_eq(found.warp_instructions[EMU_CLASS_INTEGER], 2);
    cr_expect_eq(found.warp_instructions[EMU_CLASS_CONTROL], 3);
}

/* ---- waits ---------------------------------------------------------------------------------- */

/* The first eight lanes come to HERE before the others. */
#define IN_TWO_PARTS(instruction)                                                                  \
    "bra START;\n"                                                                                 \
    "HERE: " instruction " bra END;\n"                                                             \
    "START: setp.lt.u32 %p0, %thread, 8; @%p0 bra HERE;\n"                                         \
    "add.u32 %r1, %thread, 1; bra HERE;\n"                                                         \
    "END:"

Test(counters, waiting_for_lanes_of_the_warp_counts_once)
{
    emu_counters found = counted_run(
        "shfl", IN_TWO_PARTS("shfl.sync.idx.b32 %r1, %thread, 0, 31, 0xffffffff;"), 1, 32, NULL);
    cr_expect_eq(found.warp_instructions[EMU_CLASS_WARP], 1);
    cr_expect_eq(found.lane_instructions[EMU_CLASS_WARP], 32);
    found = counted_run("mma", IN_TWO_PARTS(MMA("m16n8k16", "f32.bf16.bf16.f32") R4 R2 F4), 1, 32,
                        NULL);
    cr_expect_eq(found.warp_instructions[EMU_CLASS_TENSOR], 1);
    cr_expect_eq(found.tensor_flops, 4096);
    found = counted_run("aligned barrier", IN_TWO_PARTS("bar.sync 0;"), 1, 32, NULL);
    cr_expect_eq(found.warp_instructions[EMU_CLASS_SYNC], 1);
    cr_expect_eq(found.lane_instructions[EMU_CLASS_SYNC], 32);
    cr_expect_eq(found.barriers, 1);
}

Test(counters, waiting_for_other_warps_counts_once)
{
    emu_counters found = counted_run("barriers",
                                     "bar.sync 0; bar.sync 1; bar.red.popc.u32 %r1, 2, %p0;\n"
                                     "setp.lt.u32 %p1, %thread, 64; @%p1 bar.sync 3, 64;",
                                     5, 128, NULL);
    cr_expect_eq(found.warp_instructions[EMU_CLASS_SYNC], 5 * 4 * 4);
    cr_expect_eq(found.lane_instructions[EMU_CLASS_SYNC], 5 * (3 * 128 + 64));
    cr_expect_eq(found.barriers, 5 * 4);
}

Test(counters, a_barrier_whose_guard_keeps_lanes_out_counts_once)
{
    emu_counters found =
        counted_run("guard", "setp.lt.u32 %p0, %thread, 8; @%p0 barrier.sync 0;", 1, 32, NULL);
    cr_expect_eq(found.warp_instructions[EMU_CLASS_SYNC], 1);
    cr_expect_eq(found.lane_instructions[EMU_CLASS_SYNC], 8);
    cr_expect_eq(found.barriers, 1);
}

/* ---- waves ---------------------------------------------------------------------------------- */

/* Each block reads the 128 bytes at %in and writes 128 bytes of its own. */
#define READ_AND_WRITE                                                                             \
    "and.b32 %r0, %thread, 31; mul.wide.u32 %rd0, %r0, 4; add.u64 %rd1, %in, %rd0;\n"              \
    "ld.global.u32 %r1, [%rd1]; mov.u32 %r2, %ctaid.x; mul.wide.u32 %rd2, %r2, 128;\n"             \
    "add.u64 %rd3, %out, %rd2; add.u64 %rd3, %rd3, %rd0; st.global.u32 [%rd3], %r1;\n"

/* The b200 of this test has 148 multiprocessors of 2048 threads: two blocks of 1024 each. */
Test(counters, bytes_count_once_for_each_wave_of_resident_blocks)
{
    emu_counters found = counted_run("waves", READ_AND_WRITE, 700, 1024, NULL);
    cr_expect_eq(found.blocks_per_sm, 2);
    cr_expect_eq(found.waves, 3);
    cr_expect_eq(found.bytes_read, 128);
    cr_expect_eq(found.bytes_written, 700 * 128);
    cr_expect_eq(found.bytes_touched, 701 * 128);
    cr_expect_eq(found.wave_bytes, (700 + 3) * 128);
    found = counted_run("one wave", READ_AND_WRITE, 296, 1024, NULL);
    cr_expect_eq(found.waves, 1);
    cr_expect_eq(found.wave_bytes, found.bytes_touched);
}

/* The device stays open after it. */
static CUresult tell_registers(const char *kernel, int registers)
{
    device_open();
    return cuEmulatorSetRegisters(kernel, registers);
}

Test(counters, occupancy_follows_the_registers_that_are_told)
{
    cr_assert_eq(tell_registers("another", 255), CUDA_SUCCESS);
    emu_counters found = counted_run("estimate", READ_AND_WRITE, 3000, 256, NULL);
    cr_expect_leq(found.registers, 32);
    cr_expect_eq(found.blocks_per_sm, 8);
    cr_expect_eq(found.waves, 3);
    /* 65536 registers, 8 warps of 32 * 64 */
    cr_assert_eq(tell_registers("kernel", 64), CUDA_SUCCESS);
    found = counted_run("64 registers", READ_AND_WRITE, 3000, 256, NULL);
    cr_expect_eq(found.registers, 64);
    cr_expect_eq(found.blocks_per_sm, 4);
    cr_expect_eq(found.waves, 6);
    cr_expect_eq(found.wave_bytes, (3000 + 6) * 128);
    cr_assert_eq(tell_registers("kernel", 0), CUDA_ERROR_INVALID_VALUE);
    cr_assert_eq(tell_registers("kernel", 256), CUDA_ERROR_INVALID_VALUE);
    cr_assert_eq(tell_registers(NULL, 32), CUDA_ERROR_INVALID_VALUE);
}

/* ---- faults ------------------------------------------------------------------------------------
 */

Test(counters, are_those_up_to_the_fault)
{
    emu_counters found = {.blocks = 0};
    device_open();
    cr_assert_eq(cuEmulatorCount(counted_keep, &found), CUDA_SUCCESS);
    cr_assert_neq(kernel_try("fault",
                             "add.u32 %r1, %thread, 1; st.global.u32 [0], %r1;\n"
                             "add.u32 %r1, %thread, 1;",
                             1, 32, NULL, 0, 4),
                  CUDA_SUCCESS);
    cr_expect_eq(found.warp_instructions[EMU_CLASS_INTEGER], 1);
    cr_expect_eq(found.warp_instructions[EMU_CLASS_GLOBAL], 1);
    cr_expect_eq(found.bytes_touched, 0);
    device_close();
}
