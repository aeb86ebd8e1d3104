/*
 * exec_atomic.c: atom and red. Lanes act one after the other, each with a compare-and-swap on host
 * memory, so that blocks on different host threads see whole operations.
 */
#include "exec_access.h"

typedef struct atomic_change {
    int action;
    ptx_type type;
    u64 b, c;
    bool flushes; /* sums of f32 in global memory have no subnormal numbers */
} atomic_change;

static u16 half_sum(u16 a, u16 b, const small_format *f)
{
    f64 x = f->mantissa == 7 ? bf16_to_f32(a) : f16_to_f32(a);
    f64 y = f->mantissa == 7 ? bf16_to_f32(b) : f16_to_f32(b);
    return (u16)small_encode(x + y, f, ROUND_NEAREST, false);
}

static u16 half_extreme(u16 a, u16 b, const small_format *f, bool is_max)
{
    f32 x = f->mantissa == 7 ? bf16_to_f32(a) : f16_to_f32(a);
    f32 y = f->mantissa == 7 ? bf16_to_f32(b) : f16_to_f32(b);
    if (x != x || y != y) {
        return x != x && y != y ? 0x7fff : x != x ? b : a;
    }
    if (x == y) {
        return is_max ? a & b : a | b;
    }
    return (x > y) == is_max ? a : b;
}

static u64 half_result(const atomic_change *change, u64 old)
{
    bool bf16 = change->type == TYPE_BF16 || change->type == TYPE_BF16X2;
    const small_format *f = bf16 ? &format_bf16 : &format_f16;
    int bits = ptx_type_bits(change->type);
    u64 result = 0;
    for (int k = 0; k < bits; k += 16) {
        u16 a = (u16)(old >> k), b = (u16)(change->b >> k);
        u16 part = change->action == ACTION_ADD
                       ? half_sum(a, b, f)
                       : half_extreme(a, b, f, change->action == ACTION_MAX);
        result |= (u64)part << k;
    }
    return result;
}

static u64 extreme(const atomic_change *change, u64 old)
{
    bool is_max = change->action == ACTION_MAX, above;
    switch (change->type) {
    case TYPE_S32:
        above = (s32)old > (s32)change->b;
        break;
    case TYPE_S64:
        above = (s64)old > (s64)change->b;
        break;
    default:
        above = old > change->b;
        break;
    }
    return above == is_max ? old : change->b;
}

static u64 sum(const atomic_change *change, u64 old)
{
    if (change->type == TYPE_F32) {
        f32 a = f32_of_bits((u32)old), b = f32_of_bits((u32)change->b);
        return bits_of_f32(change->flushes ? ftz(ftz(a) + ftz(b)) : a + b);
    }
    if (change->type == TYPE_F64) {
        return bits_of_f64(f64_of_bits(old) + f64_of_bits(change->b));
    }
    return old + change->b;
}

static u64 changed(const atomic_change *change, u64 old)
{
    ptx_type type = change->type;
    bool half = type == TYPE_F16 || type == TYPE_BF16 || type == TYPE_F16X2 || type == TYPE_BF16X2;
    switch (change->action) {
    case ACTION_AND:
        return old & change->b;
    case ACTION_OR:
        return old | change->b;
    case ACTION_XOR:
        return old ^ change->b;
    case ACTION_EXCH:
        return change->b;
    case ACTION_CAS:
        return old == change->b ? change->c : old;
    case ACTION_INC:
        return old >= change->b ? 0 : old + 1;
    case ACTION_DEC:
        return old == 0 || old > change->b ? change->b : old - 1;
    case ACTION_ADD:
        return half ? half_result(change, old) : sum(change, old);
    default:
        return half ? half_result(change, old) : extreme(change, old);
    }
}

#define APPLY(bytes, type)                                                                         \
    static u64 apply_##bytes(u8 *at, const atomic_change *change)                                  \
    {                                                                                              \
        type *place = (type *)(void *)at;                                                          \
        type old = __atomic_load_n(place, __ATOMIC_RELAXED), new;                                  \
        do {                                                                                       \
            new = (type)changed(change, old);                                                      \
        } while (!__atomic_compare_exchange_n(place, &old, new, true, __ATOMIC_ACQ_REL,            \
                                              __ATOMIC_RELAXED));                                  \
        return old;                                                                                \
    }
APPLY(2, u16)
APPLY(4, u32)
APPLY(8, u64)

/* owner: of shared memory. */
static bool check_atomic(emu_warp *w, exec_block *owner, const emu_instr *in,
                         const lane_addresses *a, u32 bytes, ptx_space space, u32 mask)
{
    if (space == SPACE_GLOBAL) {
        return check_global(w, in, a, bytes, bytes, ACCESS_READ | ACCESS_WRITE, mask);
    }
    if (space == SPACE_SHARED) {
        return check_shared(w, owner, in, a, bytes, bytes, ACCESS_READ | ACCESS_WRITE, mask);
    }
    fault_raise(w, in, CUDA_ERROR_ILLEGAL_ADDRESS, mask, "an atomic operation on local memory");
    return false;
}

typedef u64 apply_function(u8 *at, const atomic_change *change);

static u64 read_lane(const emu_warp *w, u32 offset, int i, u32 bytes)
{
    u64 value = 0;
    memcpy(&value, w->registers + offset + (u32)i * bytes, bytes);
    return value;
}

/* r: results (of atom), address, values, second value of cas */
static void act_owned(emu_warp *w, exec_block *owner, const emu_instr *in, const lane_addresses *a,
                      ptx_space space, u32 mask, u32 bytes, apply_function *apply)
{
    u32 count = in->aux & AUX_VECTOR, first = in->aux & AUX_RETURNS ? count : 0;
    u8 *base = space == SPACE_SHARED ? owner->shared : NULL;
    if (!check_atomic(w, owner, in, a, bytes * count, space, mask)) {
        return;
    }
    atomic_change change = {.action = (int)(in->aux >> AUX_ACTION_SHIFT & 0xff),
                            .type = (ptx_type)(in->aux >> AUX_ATOM_TYPE_SHIFT & 0xff),
                            .flushes = space == SPACE_GLOBAL};
    for (u32 left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        u64 values[8];
        for (u32 k = 0; k < count; k++) {
            values[k] = read_lane(w, in->r[first + 1 + k], i, bytes);
        }
        change.c = change.action == ACTION_CAS ? read_lane(w, in->r[first + 2], i, bytes) : 0;
        for (u32 k = 0; k < count; k++) {
            change.b = values[k];
            u64 old = apply((u8 *)((uintptr_t)base + (uintptr_t)a->at[i]) + k * bytes, &change);
            if (first) {
                memcpy(w->registers + in->r[k] + (u32)i * bytes, &old, bytes);
            }
        }
    }
}

static void act(emu_warp *w, const emu_instr *in, const lane_addresses *a, ptx_space space,
                u32 mask, u32 bytes, apply_function *apply)
{
    if (space != SPACE_SHARED || !is_far(a)) {
        act_owned(w, w->block, in, a, space, mask, bytes, apply);
        return;
    }
    owner_visit v = {.w = w, .in = in, .a = a, .bytes = bytes, .left = mask};
    while (ISA(next_owner)(&v)) {
        act_owned(w, v.owner, in, &v.at, space, v.lanes, bytes, apply);
    }
}

/* Picks the lanes of each space when the address is generic. */
static void for_spaces(emu_warp *w, const emu_instr *in, u32 mask, u32 bytes, apply_function *apply)
{
    u32 count = in->aux & AUX_VECTOR;
    ptx_space space = (ptx_space)(in->aux >> AUX_SPACE_SHIFT & 7);
    lane_addresses a, parts[3];
    read_addresses(&a, w, in, in->aux & AUX_RETURNS ? (int)count : 0, in->aux & AUX_WIDE, in->imm,
                   mask);
    if (space != SPACE_GENERIC) {
        act(w, in, &a, space, mask, bytes, apply);
        return;
    }
    static const ptx_space spaces[3] = {SPACE_GLOBAL, SPACE_SHARED, SPACE_LOCAL};
    u32 masks[3];
    for (int s = 0; s < 3; s++) {
        masks[s] = pick_space(&a, spaces[s], mask, &parts[s]);
    }
    for (int s = 0; s < 3; s++) {
        if (masks[s] && !w->block->fault.result) {
            act(w, in, &parts[s], spaces[s], masks[s], bytes, apply);
        }
    }
}

DEFINE_HANDLER(atom_2)
{
    for_spaces(w, in, mask, 2, apply_2);
}

DEFINE_HANDLER(atom_4)
{
    for_spaces(w, in, mask, 4, apply_4);
}

DEFINE_HANDLER(atom_8)
{
    for_spaces(w, in, mask, 8, apply_8);
}

/* exch and cas of 128 bits: the host may lack the instruction, so all of them share one lock */
static pthread_mutex_t wide_lock = PTHREAD_MUTEX_INITIALIZER;

static void act_wide(emu_warp *w, exec_block *owner, const emu_instr *in, const lane_addresses *a,
                     ptx_space space, u32 mask)
{
    bool is_cas = (in->aux >> AUX_ACTION_SHIFT & 0xff) == ACTION_CAS;
    if (!check_atomic(w, owner, in, a, 16, space, mask)) {
        return;
    }
    u8 *base = space == SPACE_SHARED ? owner->shared : NULL;
    u32 first = in->aux & AUX_RETURNS ? 1 : 0;
    const b128 *b = REG(const b128, first + 1), *c = REG(const b128, first + (is_cas ? 2 : 1));
    pthread_mutex_lock(&wide_lock);
    for (u32 left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        u8 *at = (u8 *)((uintptr_t)base + (uintptr_t)a->at[i]);
        b128 old, wanted = c[i];
        memcpy(&old, at, sizeof old);
        if (!is_cas || memcmp(&old, &b[i], sizeof old) == 0) {
            memcpy(at, &wanted, sizeof wanted);
        }
        if (first) {
            REG(b128, 0)[i] = old;
        }
    }
    pthread_mutex_unlock(&wide_lock);
}

DEFINE_HANDLER(atom_16)
{
    ptx_space space = (ptx_space)(in->aux >> AUX_SPACE_SHIFT & 7);
    lane_addresses a;
    read_addresses(&a, w, in, in->aux & AUX_RETURNS ? 1 : 0, in->aux & AUX_WIDE, in->imm, mask);
    if (space == SPACE_GENERIC && space_of(a.highest) == space_of(a.lowest)) {
        space = space_of(a.lowest);
        pick_space(&a, space, mask, &a);
    }
    if (space != SPACE_SHARED || !is_far(&a)) {
        act_wide(w, w->block, in, &a, space, mask);
        return;
    }
    owner_visit v = {.w = w, .in = in, .a = &a, .bytes = 16, .left = mask};
    while (ISA(next_owner)(&v)) {
        act_wide(w, v.owner, in, &v.at, space, v.lanes);
    }
}
