/*
 * setmaxnreg.c: setmaxnreg.inc and .dec (PTX ISA 9.7.19.5): warps of a warpgroup give registers to
 * the block's pool, and take some from it, waiting until there are enough. What a kernel computes
 * does not depend on it. Numbers are of a thread, the same in all lanes of a warp.
 */
#include "exec.h"

enum { MOST_REGISTERS = 65536, LEAST = 24, MOST = 256, UNIT = 8 };

void decode_setmaxnreg(decoder *d)
{
    const decode_words *w = &d->words;
    bool takes = w->action == ACTION_INC;
    if (d->module->target < 90 || !d->module->target_suffix) {
        decode_fail(d, "'setmaxnreg' needs .target sm_90a");
    }
    if (w->flags != (F(SYNC) | F(ALIGNED)) || (!takes && w->action != ACTION_DEC) ||
        w->type_count != 1 || w->types[0] != TYPE_U32) {
        decode_unknown(d);
    }
    decode_operand_count(d, 1, 1);
    int64_t count = decode_immediate(d, &d->statement->operands[0]);
    if (count < LEAST || count > MOST || count % UNIT) {
        decode_fail(d, "'setmaxnreg' of %lld registers: a multiple of 8 from 24 to 256 is wanted",
                    (long long)count);
    }
    d->kernel->has_setmaxnreg = true;
    decode_instr *in = decode_emit(d, IR_setmaxnreg);
    in->in.imm = count;
    in->in.aux = takes;
}

/* What ptxas gives a thread of a kernel that has setmaxnreg: .maxnreg, or as many as fit for the
 * threads of the bounds. 0: the kernel has neither, and the instruction no effect. */
static int registers_at_start(const ptx_function *f)
{
    const int *bound = f->maxntid[0] ? f->maxntid : f->reqntid;
    int64_t threads = (int64_t)bound[0] * bound[1] * bound[2];
    int blocks = f->minnctapersm > 1 ? f->minnctapersm : 1;
    if (f->maxnreg || threads == 0) {
        return f->maxnreg;
    }
    int64_t count = MOST_REGISTERS / threads / blocks;
    return count > MOST ? MOST : (int)count / UNIT * UNIT;
}

void setmaxnreg_start(exec_block *block)
{
    register_pool *p = &block->registers;
    *p = (register_pool){.known = registers_at_start(block->grid->kernel->function)};
    for (int i = 0; i < block->warp_count; i++) {
        p->owned[i] = p->known;
    }
}

/* All warps of a warpgroup execute one before any of them executes another. */
static bool take_part(emu_warp *w, const emu_instr *in)
{
    register_pool *p = &w->block->registers;
    int group = w->index / WARPGROUP;
    uint32_t bit = 1u << w->index % WARPGROUP, all = (1u << WARPGROUP) - 1;
    const emu_instr *first = p->in[group];
    if (p->warps[group] == 0) {
        p->in[group] = in;
    } else if (first != in || (p->warps[group] & bit)) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, FULL_MASK,
                    "setmaxnreg before warps 0x%08x of the warpgroup have executed the one at line "
                    "%d",
                    (~p->warps[group] & all) << group * WARPGROUP, first->line);
        return false;
    }
    p->warps[group] = (p->warps[group] | bit) == all ? 0 : p->warps[group] | bit;
    return true;
}

/* Takes what the warp lacks to `count`; false: there are not enough. */
static bool exchange(emu_warp *w, int count)
{
    register_pool *p = &w->block->registers;
    int more = count - p->owned[w->index];
    if (more > p->spare) {
        return false;
    }
    p->spare -= more;
    p->owned[w->index] = count;
    return true;
}

/* Warps that wait, as long as there are registers for them. */
static void serve(exec_block *block)
{
    for (int i = 0; i < block->warp_count; i++) {
        emu_warp *w = &block->warps[i];
        for (int k = 0; k < w->split_count; k++) {
            warp_split *s = &w->splits[k];
            if (s->state == SPLIT_AT_REGISTERS && exchange(w, (int)s->waits_for)) {
                s->state = SPLIT_READY;
            }
        }
    }
}

/* imm: registers; aux: .inc */
void setmaxnreg_run(emu_warp *w, const emu_instr *in, uint32_t mask)
{
    const register_pool *p = &w->block->registers;
    int owned = p->owned[w->index], count = (int)in->imm;
    if (!warpgroup_enter(w, in, mask, "setmaxnreg") || !take_part(w, in) || !p->known) {
        return;
    }
    if (in->aux ? count < owned : count > owned) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, FULL_MASK,
                    "setmaxnreg.%s to %d registers a thread: the warp has %d",
                    in->aux ? "inc" : "dec", count, owned);
    } else if (exchange(w, count)) {
        serve(w->block);
    } else {
        warp_block(w, SPLIT_AT_REGISTERS, (uint32_t)count, true);
    }
}

void setmaxnreg_end(exec_block *block)
{
    for (int i = 0; i < EXEC_WARPGROUPS && !block->fault.result; i++) {
        uint32_t warps = block->registers.warps[i];
        if (warps) {
            text t = {0};
            fault_begin(block, CUDA_ERROR_LAUNCH_FAILED,
                        "the block has ended, and not all warps of a warpgroup have executed a "
                        "setmaxnreg",
                        &t);
            text_add(&t, "  missing     warps 0x%08x, for the one at line %d\n",
                     (~warps & ((1u << WARPGROUP) - 1)) << i * WARPGROUP,
                     block->registers.in[i]->line);
            block->fault.text = t.chars;
        }
    }
}
