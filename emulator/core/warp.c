/*
 * warp.c: runs one warp. Lanes that are at the same instruction form a split; the split with the
 * lowest program counter runs, and splits that meet become one, so that the code after a branch is
 * again executed by all. A split that has to wait lets the others of its warp go on.
 */
#include "exec.h"

enum { NO_PC = UINT32_MAX, STUCK_QUANTA = 16 };

static uint32_t predicate(const emu_warp *w, uint32_t offset)
{
    return *(const uint32_t *)(const void *)(w->registers + offset);
}

/* ---- the set of splits; the running one is kept in w->pc and w->mask ---- */

static void save_running(emu_warp *w)
{
    if (w->running >= 0) {
        w->splits[w->running].pc = w->pc;
        w->splits[w->running].mask = w->mask;
    }
}

static void find_merge_pc(emu_warp *w)
{
    w->merge_pc = NO_PC;
    for (int i = 0; i < w->split_count; i++) {
        const warp_split *s = &w->splits[i];
        bool can_merge = s->state == SPLIT_READY || s->state == SPLIT_AT_MEETING;
        if (i != w->running && can_merge && s->pc < w->merge_pc && s->pc >= w->pc) {
            w->merge_pc = s->pc;
        }
    }
}

static void load_split(emu_warp *w, int index)
{
    w->running = index;
    w->pc = w->splits[index].pc;
    w->mask = w->splits[index].mask;
    find_merge_pc(w);
}

static int lowest_ready(const emu_warp *w)
{
    int lowest = -1;
    for (int i = 0; i < w->split_count; i++) {
        if (w->splits[i].state == SPLIT_READY &&
            (lowest < 0 || w->splits[i].pc < w->splits[lowest].pc)) {
            lowest = i;
        }
    }
    return lowest;
}

static void remove_split(emu_warp *w, int index)
{
    w->splits[index] = w->splits[--w->split_count];
    if (w->running == w->split_count) {
        w->running = index;
    }
}

/* Every other split that waits at the running split's pc joins it. */
static void merge_here(emu_warp *w)
{
    for (int i = w->split_count - 1; i >= 0; i--) {
        const warp_split *s = &w->splits[i];
        if (i != w->running && s->pc == w->pc &&
            (s->state == SPLIT_READY || s->state == SPLIT_AT_MEETING)) {
            w->mask |= s->mask;
            w->stuck = 0;
            remove_split(w, i);
        }
    }
    find_merge_pc(w);
}

/* Goes on with the lowest ready split, or stops the warp. The running one is saved already. */
static void switch_split(emu_warp *w)
{
    int next = lowest_ready(w);
    if (next < 0) {
        w->running = -1;
        w->merge_pc = NO_PC;
        warp_stop(w);
        return;
    }
    load_split(w, next);
}

bool warp_runnable(const emu_warp *w)
{
    return lowest_ready(w) >= 0;
}

void warp_stop(emu_warp *w)
{
    if (w->budget > 0) {
        w->unused = w->budget;
    }
    w->budget = 0;
}

static inline void count_issue(instr_count *count, uint32_t mask)
{
    count->warps++;
    if (mask != FULL_MASK) {
        count->idle_lanes += 32 - (uint64_t)__builtin_popcount(mask);
    }
}

/* Takes back what count_issue did for the instruction that w->pc is behind: it will run again. */
static void count_retry(const emu_warp *w, uint32_t mask)
{
    if (w->block->counts) {
        instr_count *count = &w->block->counts->instrs[w->pc - 1];
        count->warps--;
        count->idle_lanes -= 32 - (uint64_t)__builtin_popcount(mask);
    }
}

/* Instructions while the budget lasts; instrs NULL: they are not counted. */
static inline __attribute__((always_inline)) void run_instructions(emu_warp *w, instr_count *instrs)
{
    const emu_instr *code = w->block->grid->kernel->code;
    while (w->budget > 0) {
        if (w->pc == w->merge_pc) {
            merge_here(w);
        }
        const emu_instr *in = code + w->pc;
        w->pc++;
        w->budget--;
        uint32_t mask = w->mask & (predicate(w, in->guard) ^ in->guard_flip);
        if (instrs) {
            count_issue(&instrs[in - code], mask);
        }
        if (mask) {
            in->run(w, in, mask);
        }
    }
}

void warp_run(emu_warp *w, int32_t quantum)
{
    int first = lowest_ready(w);
    if (w->split_count > 1 && w->stuck >= STUCK_QUANTA) {
        /* the lowest split may be spinning on another: let each have its turn */
        int turn = w->stuck % w->split_count;
        first = w->splits[turn].state == SPLIT_READY ? turn : first;
    }
    w->quantum = quantum;
    w->budget = quantum;
    w->unused = 0;
    load_split(w, first);
    if (w->split_count > 1) {
        merge_here(w);
    }
    if (w->block->counts) {
        run_instructions(w, w->block->counts->instrs);
    } else {
        run_instructions(w, NULL);
    }
    w->stuck = w->split_count > 1 && w->unused == 0 ? w->stuck + 1 : 0;
    w->executed += (uint64_t)(quantum - w->unused);
    save_running(w);
    w->running = -1;
}

/* ---- branches ---- */

void warp_scatter(emu_warp *w, const uint32_t *targets, const uint32_t *groups, int count)
{
    w->pc = targets[0];
    w->mask = groups[0];
    for (int i = 1; i < count; i++) {
        w->splits[w->split_count++] =
            (warp_split){.pc = targets[i], .mask = groups[i], .state = SPLIT_READY};
    }
    if (w->split_count > 1) {
        save_running(w);
        merge_here(w);
        save_running(w);
        if (w->stuck < STUCK_QUANTA) {
            switch_split(w);
        } else {
            find_merge_pc(w);
        }
    }
}

void warp_jump(emu_warp *w, uint32_t taken, uint32_t target)
{
    uint32_t stay = w->mask & ~taken;
    uint32_t targets[2] = {target, w->pc}, groups[2] = {taken, stay};
    warp_scatter(w, targets, groups, stay ? 2 : 1);
}

void warp_retry(emu_warp *w, uint32_t mask)
{
    uint32_t targets[2] = {w->pc - 1, w->pc}, groups[2] = {mask, w->mask & ~mask};
    count_retry(w, mask);
    warp_scatter(w, targets, groups, 2);
}

/* ---- waiting ---- */

/* Splits at a meeting try again: who they wait for has changed. */
static void retry_meetings(emu_warp *w)
{
    for (int i = 0; i < w->split_count; i++) {
        if (w->splits[i].state == SPLIT_AT_MEETING) {
            w->splits[i].state = SPLIT_READY;
        }
    }
}

/* Lanes that wait in bar.warp.sync for `members`. */
static uint32_t waiting_for(const emu_warp *w, uint32_t members)
{
    uint32_t lanes = 0;
    for (int i = 0; i < w->split_count; i++) {
        if (w->splits[i].state == SPLIT_AT_WARP_SYNC && w->splits[i].waits_for == members) {
            lanes |= w->splits[i].mask;
        }
    }
    return lanes;
}

static void release_warp_sync(emu_warp *w)
{
    for (int i = 0; i < w->split_count; i++) {
        warp_split *s = &w->splits[i];
        if (s->state != SPLIT_AT_WARP_SYNC) {
            continue;
        }
        uint32_t members = s->waits_for;
        if ((members & w->live & ~waiting_for(w, members)) == 0) {
            for (int k = 0; k < w->split_count; k++) {
                if (w->splits[k].state == SPLIT_AT_WARP_SYNC && w->splits[k].waits_for == members) {
                    w->splits[k].state = SPLIT_READY;
                }
            }
        }
    }
}

void warp_exit_lanes(emu_warp *w, uint32_t mask)
{
    w->live &= ~mask;
    w->mask &= ~mask;
    retry_meetings(w);
    release_warp_sync(w);
    save_running(w);
    if (w->mask == 0) {
        int index = w->running;
        w->running = -1;
        remove_split(w, index);
        switch_split(w);
    } else {
        find_merge_pc(w);
    }
    barrier_recheck(w->block);
    cluster_recheck(w->block->cluster);
}

/* Nobody is ready and everybody waits for lanes that are at other instructions. */
static bool is_meeting_hopeless(const emu_warp *w)
{
    for (int i = 0; i < w->split_count; i++) {
        if (w->splits[i].state != SPLIT_AT_MEETING) {
            return false;
        }
    }
    return true;
}

void warp_block(emu_warp *w, split_state state, uint32_t waits_for, bool after)
{
    if (!after) {
        w->pc--;
    }
    save_running(w);
    w->splits[w->running].state = state;
    w->splits[w->running].waits_for = waits_for;
    switch_split(w);
}

bool warp_meet(emu_warp *w, const emu_instr *in, uint32_t mask, uint32_t wanted, const char *what)
{
    uint32_t missing = wanted & ~mask;
    if (!missing) {
        return true;
    }
    if (missing & ~w->live) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, mask,
                    "%s after lanes 0x%08x of the warp have exited", what, missing & ~w->live);
    } else if (missing & w->mask) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, mask,
                    "%s in a diverged warp: the guard keeps lanes 0x%08x out", what,
                    missing & w->mask);
    } else {
        count_retry(w, mask);
        warp_block(w, SPLIT_AT_MEETING, wanted, false);
        if (is_meeting_hopeless(w)) {
            fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, mask,
                        "%s in a diverged warp: lanes 0x%08x wait elsewhere", what, missing);
        }
        return false;
    }
    return false;
}

void warp_sync(emu_warp *w, uint32_t mask, uint32_t members)
{
    if (mask != w->mask) {
        warp_retry(w, mask);
        return;
    }
    warp_block(w, SPLIT_AT_WARP_SYNC, members, true);
    release_warp_sync(w);
    if (w->running < 0 && warp_runnable(w)) {
        switch_split(w);
    }
}
