/*
 * mbarrier.c: the barriers that live in shared memory (PTX ISA 9.7.13.15). An object counts the
 * arrivals and the transaction bytes that its phase still lacks; when both are zero the next phase
 * begins. The state is kept beside the memory, which holds an image of it: an image that has
 * changed tells that a plain store has hit the object.
 *
 * r: result, address, value, bytes; aux: MBARRIER_*, AUX_WIDE. The value is a count, a state of an
 * earlier arrival, or the parity of a phase. A state is the number of its phase and the arrivals
 * that it lacked.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "exec.h"

enum { MOST_COUNT = (1 << 20) - 1, OBJECT_BYTES = 8, MOST_GIVEN_UP = 1000 };

static uint64_t image_of(const mbarrier *b)
{
    return (uint64_t)b->phase << 60 | (uint64_t)(b->pending & MOST_COUNT) << 40 |
           (uint64_t)(b->expected & MOST_COUNT) << 20 | ((uint64_t)b->bytes & MOST_COUNT);
}

static void store_image(exec_block *block, const mbarrier *b)
{
    uint64_t image = image_of(b);
    memcpy(block->shared + b->address, &image, sizeof image);
}

static mbarrier *find(const exec_block *block, uint64_t address)
{
    for (int i = 0; i < block->mbarrier_count; i++) {
        if (block->mbarriers[i].address == address) {
            return &block->mbarriers[i];
        }
    }
    return NULL;
}

bool mbarrier_is_live(const exec_block *block, uint64_t address)
{
    return find(block, address) != NULL;
}

bool mbarrier_overlaps(const exec_block *block, uint64_t address, uint64_t bytes)
{
    for (int i = 0; i < block->mbarrier_count; i++) {
        uint64_t at = block->mbarriers[i].address;
        if (address < at + OBJECT_BYTES && at < address + bytes) {
            return true;
        }
    }
    return false;
}

/* ---- one lane's operation -------------------------------------------------------------------- */

typedef struct operation {
    emu_warp *w;
    const emu_instr *in;
    exec_block *block; /* whose shared memory has the object */
    uint32_t lane; /* as a mask */
    uint32_t kind; /* MBARRIER_* */
    uint64_t address, value, bytes;
} operation;

static void fail(const operation *o, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void fail(const operation *o, const char *format, ...)
{
    char what[128];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    char whose[64] = "";
    if (o->block != o->w->block) {
        snprintf(whose, sizeof whose, " of block %d of the cluster", cluster_rank(o->block));
    }
    fault_raise(o->w, o->in, CUDA_ERROR_LAUNCH_FAILED, o->lane,
                "misuse of the mbarrier at 0x%llx (shared)%s: %s", (unsigned long long)o->address,
                whose, what);
}

/* The live object at the address; NULL: a fault was raised. */
static mbarrier *live(const operation *o)
{
    exec_block *block = o->block;
    mbarrier *b = find(block, o->address);
    uint64_t image;
    if (!b) {
        fail(o, "mbarrier.init has not been called there");
        return NULL;
    }
    memcpy(&image, block->shared + b->address, sizeof image);
    if (image != image_of(b)) {
        fail(o, "a plain store has overwritten it");
        return NULL;
    }
    if (block->race && !race_knows(o->w, block, b->init_warp, b->init_step)) {
        fail(o, "no barrier between this and its mbarrier.init by warp %d", b->init_warp);
        return NULL;
    }
    return b;
}

static void wake(exec_block *block, uint64_t address)
{
    for (int i = 0; i < block->warp_count; i++) {
        emu_warp *w = &block->warps[i];
        for (int k = 0; k < w->split_count; k++) {
            warp_split *s = &w->splits[k];
            if (s->state == SPLIT_AT_MBARRIER && s->waits_for == (uint32_t)address) {
                s->state = SPLIT_READY;
            }
        }
    }
}

static void complete_if_due(exec_block *block, mbarrier *b)
{
    if (b->pending == 0 && b->bytes == 0) {
        b->phase++;
        b->pending = b->expected;
        block->cluster->phases++;
        if (block->race) {
            race_phase(block, b->address);
        }
        wake(block, b->address);
    }
    store_image(block, b);
}

void mbarrier_complete_bytes(exec_block *block, uint32_t address, uint32_t bytes)
{
    mbarrier *b = find(block, address);
    if (b) { /* else it was invalidated under the copy */
        b->bytes -= (int32_t)bytes;
        complete_if_due(block, b);
    }
}

static bool add_bytes(const operation *o, mbarrier *b, int64_t bytes)
{
    int64_t sum = b->bytes + bytes;
    if (sum > MOST_COUNT || sum < -MOST_COUNT) {
        fail(o, "the transaction count would become %lld", (long long)sum);
        return false;
    }
    b->bytes = (int32_t)sum;
    return true;
}

static void init(const operation *o)
{
    exec_block *block = o->w->block;
    if (find(block, o->address)) {
        fail(o, "it is initialised again without mbarrier.inval");
    } else if (o->value < 1 || o->value > MOST_COUNT) {
        fail(o, "a count between 1 and 1048575 is wanted, not %lld", (long long)o->value);
    } else {
        POOL_GROW(block->mbarriers, block->mbarrier_count, block->mbarrier_capacity);
        mbarrier *b = &block->mbarriers[block->mbarrier_count++];
        *b = (mbarrier){.address = (uint32_t)o->address,
                        .pending = (int32_t)o->value,
                        .expected = (int32_t)o->value,
                        .init_warp = o->w->index,
                        .init_step = block->race ? race_step(o->w) : 0};
        store_image(block, b);
    }
}

static void inval(const operation *o, mbarrier *b)
{
    exec_block *block = o->block;
    *b = block->mbarriers[--block->mbarrier_count];
}

/* Returns the state before. */
static uint64_t arrive(const operation *o, mbarrier *b)
{
    uint64_t before = (uint64_t)b->phase << 32 | (uint32_t)b->pending;
    if (o->value < 1 || o->value > (uint64_t)b->pending) {
        fail(o, "%llu arrivals, but the phase lacks %d", (unsigned long long)o->value, b->pending);
        return 0;
    }
    if ((o->kind & MBARRIER_EXPECT) && !add_bytes(o, b, (int64_t)o->bytes)) {
        return 0;
    }
    b->pending -= (int32_t)o->value;
    if (o->kind & MBARRIER_DROP) {
        b->expected -= (int32_t)o->value;
    }
    if ((o->kind & MBARRIER_NO_COMPLETE) && b->pending == 0 && b->bytes == 0) {
        fail(o, ".noComplete, but the arrival completes the phase");
        return 0;
    }
    complete_if_due(o->block, b);
    return before;
}

/* Whether the phase that is asked for is over. */
static bool is_over(const operation *o, const mbarrier *b)
{
    if (o->kind & MBARRIER_PARITY) {
        return (b->phase & 1) != (o->value & 1);
    }
    uint32_t behind = b->phase - (uint32_t)(o->value >> 32);
    if (behind > 1) {
        fail(o, "the state is of neither this phase nor the one before: it is %u phases behind",
             behind);
    }
    return behind == 1;
}

/* ---- all lanes --------------------------------------------------------------------------------
 */

static void set_predicate(emu_warp *w, uint32_t offset, uint32_t lanes, uint32_t mask)
{
    uint32_t value;
    memcpy(&value, w->registers + offset, sizeof value);
    value = (value & ~mask) | lanes;
    memcpy(w->registers + offset, &value, sizeof value);
}

/* Reads the lane's operands; false: a fault was raised. */
static bool read_operation(operation *o, int lane)
{
    const emu_instr *in = o->in;
    uint64_t address = warp_lane_value(o->w, in->r[1], lane, in->aux & AUX_WIDE);
    address += (uint64_t)in->imm;
    if (in->aux & MBARRIER_GENERIC) {
        address -= IR_SHARED_WINDOW;
    } else if (!(in->aux & AUX_WIDE)) {
        address = (uint32_t)address;
    }
    o->lane = 1u << lane;
    o->value = warp_lane_value(o->w, in->r[2], lane, in->aux & MBARRIER_STATE);
    o->bytes = warp_lane_value(o->w, in->r[3], lane, false);
    o->block = cluster_owner(o->w, in, o->lane, address, in->aux & MBARRIER_CLUSTER, OBJECT_BYTES);
    if (!o->block) {
        return false;
    }
    o->address = address % IR_RANK_BYTES;
    if (o->address + OBJECT_BYTES > o->block->shared_bytes) {
        fault_raise_address(o->w, in, CUDA_ERROR_ILLEGAL_ADDRESS, o->lane, SPACE_SHARED, address,
                            OBJECT_BYTES, "out of bounds");
        return false;
    }
    if (address % OBJECT_BYTES) {
        fault_raise_address(o->w, in, CUDA_ERROR_MISALIGNED_ADDRESS, o->lane, SPACE_SHARED, address,
                            OBJECT_BYTES, "misaligned");
        return false;
    }
    return true;
}

static void perform(operation *o, int lane)
{
    if ((o->kind & MBARRIER_KIND) == MBARRIER_INIT) {
        init(o);
        return;
    }
    mbarrier *b = live(o);
    if (!b) {
        return;
    }
    switch (o->kind & MBARRIER_KIND) {
    case MBARRIER_INVAL:
        inval(o, b);
        break;
    case MBARRIER_ARRIVE: {
        if (o->w->block->race) {
            race_mbarrier_arrive(o->w, o->in, o->block, o->address);
        }
        uint64_t state = arrive(o, b);
        memcpy(o->w->registers + o->in->r[0] + (size_t)lane * 8, &state, sizeof state);
        break;
    }
    case MBARRIER_COPIED:
        if (o->block->race) {
            race_mbarrier_copied(o->w, o->block, o->address);
        }
        if (o->kind & MBARRIER_NOINC) {
            arrive(o, b);
        }
        break;
    case MBARRIER_EXPECT_TX:
    case MBARRIER_COMPLETE_TX: {
        bool expects = (o->kind & MBARRIER_KIND) == MBARRIER_EXPECT_TX;
        if (add_bytes(o, b, expects ? (int64_t)o->value : -(int64_t)o->value)) {
            complete_if_due(o->block, b);
        }
        break;
    }
    default:
        break;
    }
}

static void wait(emu_warp *w, const emu_instr *in, uint32_t mask)
{
    operation o = {.w = w, .in = in, .kind = in->aux};
    uint32_t over = 0;
    uint64_t first = 0;
    bool same = true;
    for (uint32_t left = mask; left && !w->block->fault.result; left &= left - 1) {
        int lane = __builtin_ctz(left);
        const mbarrier *b = read_operation(&o, lane) ? live(&o) : NULL;
        first = left == mask ? o.address : first;
        same &= o.address == first;
        if (b && w->block->bulk_count && !is_over(&o, b)) {
            bulk_land(w->block, (uint32_t)o.address);
        }
        if (b && is_over(&o, b)) {
            over |= 1u << lane;
            if (w->block->race) {
                race_mbarrier_wait(w, in, o.address);
            }
        }
    }
    warp_split *split = &w->splits[w->running];
    bool gave_up = split->waits_for == MBARRIER_GAVE_UP;
    split->waits_for = 0;
    bool blocks = (in->aux & MBARRIER_KIND) == MBARRIER_TRY_WAIT && !over && same && !gave_up &&
                  mask == w->mask;
    if (blocks && !w->block->fault.result) {
        warp_block(w, SPLIT_AT_MBARRIER, (uint32_t)first, false);
        return;
    }
    set_predicate(w, in->r[0], over, mask);
}

void mbarrier_run(emu_warp *w, const emu_instr *in, uint32_t mask)
{
    uint32_t kind = in->aux & MBARRIER_KIND;
    if (kind == MBARRIER_TEST_WAIT || kind == MBARRIER_TRY_WAIT) {
        wait(w, in, mask);
        return;
    }
    operation o = {.w = w, .in = in, .kind = in->aux};
    for (uint32_t left = mask; left && !w->block->fault.result; left &= left - 1) {
        int lane = __builtin_ctz(left);
        if (read_operation(&o, lane)) {
            perform(&o, lane);
        }
    }
}

/* Those of the block that wait at an mbarrier. */
static bool give_up(exec_block *block)
{
    bool any = false;
    for (int i = 0; i < block->warp_count; i++) {
        emu_warp *w = &block->warps[i];
        for (int k = 0; k < w->split_count; k++) {
            warp_split *s = &w->splits[k];
            if (s->state == SPLIT_AT_MBARRIER) {
                s->state = SPLIT_READY;
                s->waits_for = MBARRIER_GAVE_UP;
                any = true;
            }
        }
    }
    return any;
}

/*
 * No warp can run: a try_wait may give up and say so. Those that wait do, MOST_GIVEN_UP times for
 * each phase that any object of the cluster completes. False: nobody waits, or it did not help.
 */
bool mbarrier_give_up(exec_cluster *cluster)
{
    bool any = false;
    if (cluster->gave_up_at != cluster->phases) {
        cluster->gave_up_at = cluster->phases;
        cluster->gave_up = 0;
    }
    if (cluster->gave_up == MOST_GIVEN_UP) {
        return false;
    }
    for (int i = 0; i < cluster->count; i++) {
        any |= give_up(&cluster->blocks[i]);
    }
    cluster->gave_up++;
    return any;
}
