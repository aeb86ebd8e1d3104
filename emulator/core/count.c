/*
 * count.c: sums what blocks have counted; the class and the operations of each handler.
 */
#include "count.h"

#include <stdlib.h>
#include <string.h>

#include "decode.h"
#include "exec_mma.h"

void count_begin(block_counts *counts, const ir_kernel *kernel)
{
    instr_count *instrs = counts->instrs;
    size_t capacity = counts->capacity;
    if (!instrs || capacity < kernel->code_count) {
        free(instrs);
        capacity = kernel->code_count;
        instrs = pool_require(malloc(capacity * sizeof *instrs));
    }
    memset(instrs, 0, kernel->code_count * sizeof *instrs);
    *counts = (block_counts){.instrs = instrs, .capacity = capacity};
}

void count_add(block_counts *sum, const block_counts *part, const ir_kernel *kernel)
{
    for (uint32_t i = 0; i < kernel->code_count; i++) {
        sum->instrs[i].warps += part->instrs[i].warps;
        sum->instrs[i].idle_lanes += part->instrs[i].idle_lanes;
    }
    sum->global_requests += part->global_requests;
    sum->global_sectors += part->global_sectors;
    sum->shared_wavefronts += part->shared_wavefronts;
    sum->shared_excess += part->shared_excess;
    sum->barriers += part->barriers;
    sum->epilogue_lanes += part->epilogue_lanes;
}

void count_free(block_counts *counts)
{
    free(counts->instrs);
}

/* ---- handlers ---- */

static const uint8_t classes[IR_OP_COUNT] = {
#define HANDLER(name, class) [IR_##name] = EMU_CLASS_##class,
#include "handlers.def"
#undef HANDLER
};

/* The rows of floating point operations. */
static const struct {
    const char *opcode;
    uint64_t types;
} float_rows[IR_OP_COUNT] = {
#define OP1(name, opcode, needed, allowed, types, ...) [IR_##name] = {opcode, types},
#define OP2(...)                                       OP1(__VA_ARGS__)
#define OP3(...)                                       OP1(__VA_ARGS__)
#define ROUND1(name, opcode, allowed, types, ...)      [IR_##name] = {opcode, types},
#define ROUND2(...)                                    ROUND1(__VA_ARGS__)
#define ROUND3(...)                                    ROUND1(__VA_ARGS__)
#define HALF1(name, opcode, ...)                                                                   \
    [IR_##name##_f16] = {opcode, M(F16)}, [IR_##name##_bf16] = {opcode, M(BF16)},                  \
    [IR_##name##_f16x2] = {opcode, M(F16X2)}, [IR_##name##_bf16x2] = {opcode, M(BF16X2)},
#define HALF2(...) HALF1(__VA_ARGS__)
#define HALF3(...) HALF1(__VA_ARGS__)
#include "ops_float.def"
#include "ops_half.def"
#undef OP1
#undef OP2
#undef OP3
#undef ROUND1
#undef ROUND2
#undef ROUND3
#undef HALF1
#undef HALF2
#undef HALF3
};

static emu_class class_of(ir_op op)
{
    return float_rows[op].types & M(F64) ? EMU_CLASS_FP64 : (emu_class)classes[op];
}

/* Of one lane. */
static uint64_t float_operations(ir_op op)
{
    static const struct {
        const char *opcode;
        uint64_t operations;
    } rows[] = {{"add", 1}, {"sub", 1}, {"mul", 1}, {"fma", 2}, {"mad", 2}};
    const char *opcode = float_rows[op].opcode;
    uint64_t elements = float_rows[op].types & (M(F32X2) | M(F16X2) | M(BF16X2)) ? 2 : 1;
    for (size_t i = 0; opcode && i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i].opcode, opcode) == 0) {
            return elements * rows[i].operations;
        }
    }
    return 0;
}

/* K of an mma of M 16 and N 8; 0: none. */
static uint64_t mma_depth(ir_op op, uint32_t aux)
{
    switch (op) {
    case IR_mma_m16n8k16_bf16:
    case IR_mma_m16n8k16_f16:
        return 16;
    case IR_mma_m16n8k8_bf16:
    case IR_mma_m16n8k8_f16:
    case IR_mma_m16n8k8_tf32:
        return 8;
    case IR_mma_m16n8k4_tf32:
        return 4;
    case IR_wgmma: /* a warp has 16 rows, of N / 8 times as many columns */
        return (uint64_t)(aux & WGMMA_N8) * 8 * (aux >> WGMMA_K8_SHIFT & 7);
    case IR_mma_byte:
        return aux & MMA_AUX_DEEP ? 32 : 16;
    default:
        return 0;
    }
}

void count_sum(emu_counters *out, const block_counts *counts, const ir_kernel *kernel)
{
    for (uint32_t i = 0; i < kernel->code_count; i++) {
        const instr_count *c = &counts->instrs[i];
        ir_op op = (ir_op)kernel->ops[i];
        if (op == IR_OP_COUNT) {
            continue;
        }
        uint64_t lanes = IR_LANES * c->warps - c->idle_lanes;
        out->warp_instructions[class_of(op)] += c->warps;
        out->lane_instructions[class_of(op)] += lanes;
        out->fma_flops += lanes * float_operations(op);
        out->tensor_flops += lanes / IR_LANES * 2 * 16 * 8 * mma_depth(op, kernel->code[i].aux);
    }
    out->global_requests = counts->global_requests;
    out->global_sectors = counts->global_sectors;
    out->shared_wavefronts = counts->shared_wavefronts;
    out->shared_excess = counts->shared_excess;
    out->barriers = counts->barriers;
    out->epilogue_lanes = counts->epilogue_lanes;
}
