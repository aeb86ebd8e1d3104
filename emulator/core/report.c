/*
 * report.c: the text a person reads when a kernel breaks a rule: what, where in the PTX, which
 * threads, which memory, and the schedule that repeats it. The first fault of a block stops the
 * block.
 */
#include <stdio.h>
#include <stdlib.h>

#include "exec.h"
#include "machine.h"

static const char *result_name(CUresult result)
{
    switch (result) {
    case CUDA_ERROR_ILLEGAL_ADDRESS:
        return "CUDA_ERROR_ILLEGAL_ADDRESS";
    case CUDA_ERROR_MISALIGNED_ADDRESS:
        return "CUDA_ERROR_MISALIGNED_ADDRESS";
    case CUDA_ERROR_ILLEGAL_INSTRUCTION:
        return "CUDA_ERROR_ILLEGAL_INSTRUCTION";
    case CUDA_ERROR_LAUNCH_TIMEOUT:
        return "CUDA_ERROR_LAUNCH_TIMEOUT";
    case CUDA_ERROR_ASSERT:
        return "CUDA_ERROR_ASSERT";
    default:
        return "CUDA_ERROR_LAUNCH_FAILED";
    }
}

static void add_line(text *t, const ir_kernel *kernel, int line)
{
    size_t length;
    const char *source = ptx_line_text(kernel->module, line, &length);
    text_add(t, "  PTX line    %d: %.*s\n", line, length > 300 ? 300 : (int)length, source);
}

static void add_place(text *t, const exec_block *block, const emu_warp *w, uint32_t lanes)
{
    const exec_grid *g = block->grid;
    unsigned thread = (unsigned)w->index * 32 + (lanes ? (unsigned)__builtin_ctz(lanes) : 0);
    text_add(t, "  block       (%u,%u,%u) of grid (%u,%u,%u)\n", block->index[0], block->index[1],
             block->index[2], g->grid[0], g->grid[1], g->grid[2]);
    text_add(t, "  warp        %d, lanes 0x%08x, first thread (%u,%u,%u) of block (%u,%u,%u)\n",
             w->index, lanes, thread % g->block[0], thread / g->block[0] % g->block[1],
             thread / g->block[0] / g->block[1], g->block[0], g->block[1], g->block[2]);
}

static void add_schedule(text *t, const exec_grid *g)
{
    char word[EMU_SCHEDULE_BYTES];
    emu_schedule_print(word, &g->schedule);
    text_add(t, "  repeat      MMLP_EMULATOR_SCHEDULE=%s\n", word);
}

/* Begins the report, unless the block has one already. */
static bool begin(emu_warp *w, const emu_instr *in, CUresult result, uint32_t lanes,
                  const char *what, text *t)
{
    exec_block *block = w->block;
    warp_stop(w);
    if (block->fault.result) {
        return false;
    }
    block->fault.result = result;
    const exec_grid *g = block->grid;
    text_add(t, "%s: %s (%s)\n", g->arch->name, what, result_name(result));
    text_add(t, "  kernel      %.200s\n", g->kernel->name);
    add_line(t, g->kernel, in->line);
    add_place(t, block, w, lanes);
    return true;
}

void fault_raise(emu_warp *w, const emu_instr *in, CUresult result, uint32_t lanes,
                 const char *format, ...)
{
    char what[512];
    text t = {0};
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    if (begin(w, in, result, lanes, what, &t)) {
        add_schedule(&t, w->block->grid);
        w->block->fault.text = t.chars;
    }
}

static void add_allocation(text *t, const char *relation, const memory_allocation *a,
                           uint64_t distance)
{
    text_add(t, "  allocation  base 0x%llx, %llu bytes, %s%s%s%s", (unsigned long long)a->base,
             (unsigned long long)a->bytes, a->label ? "\"" : "", a->label ? a->label : "no label",
             a->label ? "\"" : "", relation);
    if (distance != UINT64_MAX) {
        text_add(t, " %llu", (unsigned long long)distance);
    }
    text_add(t, "\n");
}

/* What is known of a global address: the allocation it is in, or the nearest ones. */
static void add_global(text *t, memory_arena *memory, uint64_t address, size_t bytes)
{
    memory_allocation in, below, above;
    if (memory_find(memory, address, &in)) {
        add_allocation(t, ": at offset", &in, address - in.base);
        if (address + bytes > in.base + in.bytes) {
            text_add(t, "              the access ends %llu bytes past its end\n",
                     (unsigned long long)(address + bytes - in.base - in.bytes));
        }
        return;
    }
    memory_neighbours(memory, address, &below, &above);
    if (address == 0) {
        text_add(t, "  allocation  none: the null pointer\n");
    }
    if (below.bytes) {
        add_allocation(t, ": bytes past its end:", &below, address - below.base - below.bytes);
    }
    if (above.bytes) {
        add_allocation(t, ": bytes before its start:", &above, above.base - address);
    }
    if (!below.bytes && !above.bytes) {
        text_add(t, "  allocation  none exists\n");
    }
}

/* The block that the address is of. */
static const exec_block *add_owner(text *t, const exec_block *block, uint64_t address)
{
    uint64_t window = address / IR_RANK_BYTES;
    const exec_cluster *cluster = block->cluster;
    if (window == 0 || window > (uint64_t)cluster->count) {
        return block;
    }
    const exec_block *owner = &cluster->blocks[window - 1];
    text_add(t, "  owner       block (%u,%u,%u), number %d of the cluster, at offset 0x%llx\n",
             owner->index[0], owner->index[1], owner->index[2], cluster_rank(owner),
             (unsigned long long)(address % IR_RANK_BYTES));
    return owner;
}

static void add_shared(text *t, const exec_grid *g)
{
    text_add(t,
             "  allocation  the block has %zu bytes of shared memory (%zu static, %zu dynamic)\n",
             g->shared_bytes, g->kernel->shared_static, g->dynamic_shared);
}

void fault_raise_address(emu_warp *w, const emu_instr *in, CUresult result, uint32_t lanes,
                         ptx_space space, uint64_t address, size_t bytes, const char *what)
{
    static const char *const names[] = {"generic", "global", "constant",
                                        "shared",  "local",  "parameter"};
    const exec_grid *g = w->block->grid;
    char sentence[200];
    text t = {0};
    snprintf(sentence, sizeof sentence, "%s: %zu bytes at a %s address", what, bytes, names[space]);
    if (!begin(w, in, result, lanes, sentence, &t)) {
        return;
    }
    text_add(&t, "  address     0x%llx (%s)\n", (unsigned long long)address, names[space]);
    if (space == SPACE_GLOBAL) {
        add_global(&t, g->memory, address, bytes);
    } else if (space == SPACE_SHARED) {
        const exec_block *owner = add_owner(&t, w->block, address);
        add_shared(&t, g);
        if (mbarrier_overlaps(owner, address % IR_RANK_BYTES, bytes)) {
            text_add(&t, "              there is an mbarrier: its bytes are its own\n");
        }
        for (int i = 0; i < w->copy_count; i++) {
            for (int k = 0; k < IR_LANES; k++) {
                uint64_t first = w->copies[i].target[k];
                if (w->copies[i].mask >> k & 1 && address < first + w->copies[i].bytes &&
                    first < address + bytes) {
                    text_add(&t,
                             "              a cp.async of this warp into it is not waited for\n");
                    i = w->copy_count;
                    break;
                }
            }
        }
    } else {
        text_add(&t, "  allocation  %zu bytes\n",
                 space == SPACE_LOCAL ? w->local_bytes : g->kernel->param_bytes);
    }
    add_schedule(&t, g);
    w->block->fault.text = t.chars;
}

void fault_raise_race(emu_warp *w, const emu_instr *in, uint32_t lanes, ptx_space space,
                      uint64_t address, const char *what, const char *other, int other_line,
                      const char *missing)
{
    const exec_grid *g = w->block->grid;
    bool is_shared = space == SPACE_SHARED;
    text t = {0};
    if (!begin(w, in, CUDA_ERROR_LAUNCH_FAILED, lanes, what, &t)) {
        return;
    }
    text_add(&t, "  earlier     %s\n", other);
    add_line(&t, g->kernel, other_line);
    text_add(&t, "  address     0x%llx (%s)\n", (unsigned long long)address,
             is_shared ? "shared" : "global");
    if (is_shared) {
        add_owner(&t, w->block, address);
        add_shared(&t, g);
    } else {
        add_global(&t, g->memory, address, 1);
    }
    text_add(&t, "  missing     %s\n", missing);
    add_schedule(&t, g);
    w->block->fault.text = t.chars;
}

void fault_begin(exec_block *block, CUresult result, const char *what, text *t)
{
    const exec_grid *g = block->grid;
    block->fault.result = result;
    text_add(t, "%s: %s (%s)\n", g->arch->name, what, result_name(result));
    text_add(t, "  kernel      %.200s\n", g->kernel->name);
    text_add(t, "  block       (%u,%u,%u) of grid (%u,%u,%u)\n", block->index[0], block->index[1],
             block->index[2], g->grid[0], g->grid[1], g->grid[2]);
    add_schedule(t, g);
}

void fault_limit(exec_block *block)
{
    text t = {0};
    fault_begin(block, CUDA_ERROR_LAUNCH_TIMEOUT, "the launch ran as many instructions as it may",
                &t);
    block->fault.text = t.chars;
}
