/*
 * exec_collective.c: shfl, vote, match, redux, activemask, elect. All lanes named in the member
 * mask that still run must be at the instruction; warp_meet waits for them.
 */
#include "exec_lanes.h"

/* What an instruction does for lanes with one member mask; `mask`: the members that still run. */
typedef void collective(emu_warp *w, const emu_instr *in, u32 mask);

/* The lanes of `mask` with the same operand k as the lowest one. */
static u32 same_operand(const emu_warp *w, const emu_instr *in, u32 mask, int k)
{
    const u32 *given = REG(const u32, k);
    u32 first = given[__builtin_ctz(mask)], same = 0;
    for (u32 left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        same |= (u32)(given[i] == first) << i;
    }
    return same;
}

/* Waits until all members are here, then acts for each group of lanes that name the same members.
 */
static inline void act(emu_warp *w, const emu_instr *in, u32 mask, int members_at, const char *what,
                       collective *action)
{
    u32 wanted = 0, groups[IR_LANES];
    int count = 0;
    for (u32 left = mask; left; left &= ~groups[count++]) {
        u32 members = REG(const u32, members_at)[__builtin_ctz(left)];
        groups[count] = same_operand(w, in, left, members_at);
        if (groups[count] & ~members) {
            fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, groups[count] & ~members,
                        "%s by lanes that are not in their member mask 0x%08x", what, members);
            return;
        }
        wanted |= members & w->live;
    }
    if (!warp_meet(w, in, mask, wanted, what)) {
        return;
    }
    for (int g = 0; g < count; g++) {
        u32 members = REG(const u32, members_at)[__builtin_ctz(groups[g])];
        if (members & w->live & ~groups[g]) {
            fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, groups[g],
                        "%s: members of 0x%08x name other members", what, members);
            return;
        }
    }
    for (int g = 0; g < count; g++) {
        action(w, in, groups[g]);
    }
}

/* r: d, p, a, b, c, members */
static void shfl_members(emu_warp *w, const emu_instr *in, u32 mask)
{
    u32 in_range = 0, unwritten = 0;
    u32 *d = REG(u32, 0);
    u32 a[IR_LANES], result[IR_LANES];
    const u32 *b = REG(const u32, 3), *c = REG(const u32, 4);
    memcpy(a, REG(const u32, 2), sizeof a);
    for (u32 i = 0; i < IR_LANES; i++) {
        u32 step = b[i] & 31, clamp = c[i] & 31, segment = c[i] >> 8 & 31;
        u32 most = (i & segment) | (clamp & ~segment), least = i & segment;
        u32 source;
        bool ok;
        switch (in->aux) {
        case MODE_UP:
            source = i - step;
            ok = (s32)source >= (s32)most;
            break;
        case MODE_DOWN:
            source = i + step;
            ok = source <= most;
            break;
        case MODE_BFLY:
            source = i ^ step;
            ok = source <= most;
            break;
        default:
            source = least | (step & ~segment);
            ok = source <= most;
            break;
        }
        source = ok ? source : i;
        result[i] = a[source & 31];
        in_range |= (u32)ok << i;
        unwritten |= (u32) !(mask >> (source & 31) & 1) << i;
    }
    if (unwritten & mask) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, unwritten & mask,
                    "shfl.sync from a lane that does not execute it");
        return;
    }
    LANES(d[i] = result[i];);
    write_predicate(w, in->r[1], in_range, mask);
}

DEFINE_HANDLER(shfl)
{
    act(w, in, mask, 5, "shfl.sync", shfl_members);
}

/* r: d, a, members */
static void vote_members(emu_warp *w, const emu_instr *in, u32 mask)
{
    u32 votes = read_predicate(w, in->r[1]) & mask, result;
    switch (in->aux) {
    case MODE_ALL:
        result = votes == mask ? FULL_MASK : 0;
        break;
    case MODE_ANY:
        result = votes ? FULL_MASK : 0;
        break;
    case MODE_UNI:
        result = votes == mask || votes == 0 ? FULL_MASK : 0;
        break;
    default: {
        u32 *d = REG(u32, 0);
        LANES(d[i] = votes;);
        return;
    }
    }
    write_predicate(w, in->r[0], result, mask);
}

DEFINE_HANDLER(vote)
{
    act(w, in, mask, 2, "vote.sync", vote_members);
}

/* r: d, p, a, members; aux: 1 all, bytes << 8 */
static void match_members(emu_warp *w, const emu_instr *in, u32 mask)
{
    u32 bytes = in->aux >> 8;
    u64 values[IR_LANES];
    for (int i = 0; i < IR_LANES; i++) {
        values[i] = bytes == 4 ? REG(const u32, 2)[i] : REG(const u64, 2)[i];
    }
    u32 *d = REG(u32, 0), same[IR_LANES], all_same = FULL_MASK;
    for (u32 left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        same[i] = 0;
        for (u32 other = mask; other; other &= other - 1) {
            int k = __builtin_ctz(other);
            same[i] |= (u32)(values[k] == values[i]) << k;
        }
        if (same[i] != mask) {
            all_same = 0;
        }
    }
    bool all = in->aux & 1;
    LANES(d[i] = all ? mask & all_same : same[i];);
    write_predicate(w, in->r[1], all_same, mask);
}

DEFINE_HANDLER(match)
{
    act(w, in, mask, 3, "match.sync", match_members);
}

static u32 reduce(u32 action, bool is_signed, u32 x, u32 y)
{
    bool above = is_signed ? (s32)x > (s32)y : x > y;
    switch (action) {
    case ACTION_ADD:
        return x + y;
    case ACTION_AND:
        return x & y;
    case ACTION_OR:
        return x | y;
    case ACTION_XOR:
        return x ^ y;
    case ACTION_MIN:
        return above ? y : x;
    default:
        return above ? x : y;
    }
}

/* r: d, a, members; aux: action, 256 signed */
static void redux_members(emu_warp *w, const emu_instr *in, u32 mask)
{
    const u32 *a = REG(const u32, 1);
    u32 *d = REG(u32, 0), result = a[__builtin_ctz(mask)];
    for (u32 left = mask & (mask - 1); left; left &= left - 1) {
        result = reduce(in->aux & 0xff, in->aux >> 8, result, a[__builtin_ctz(left)]);
    }
    LANES(d[i] = result;);
}

DEFINE_HANDLER(redux)
{
    act(w, in, mask, 2, "redux.sync", redux_members);
}

DEFINE_HANDLER(activemask)
{
    u32 *d = REG(u32, 0);
    LANES(d[i] = mask;);
}

/* r: leader, predicate, members; the lowest member is the leader, or the highest */
static void elect_members(emu_warp *w, const emu_instr *in, u32 mask)
{
    bool high = w->block->grid->schedule.elect_high;
    u32 leader = (u32)(high ? 31 - __builtin_clz(mask) : __builtin_ctz(mask));
    u32 *d = REG(u32, 0);
    LANES(d[i] = leader;);
    write_predicate(w, in->r[1], 1u << leader, mask);
}

DEFINE_HANDLER(elect)
{
    act(w, in, mask, 2, "elect.sync", elect_members);
}
