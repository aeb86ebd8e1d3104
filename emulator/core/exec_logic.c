/*
 * exec_logic.c: moves, comparisons, predicates, carries, permutations, and conversions of
 * addresses.
 */
#include <time.h>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

#include "exec_lanes.h"

/* ---- moves ---- */

#define MOVE(name, type)                                                                           \
    DEFINE_HANDLER(name)                                                                           \
    {                                                                                              \
        type *d = REG(type, 0);                                                                    \
        const type *a = REG(const type, 1);                                                        \
        LANES(d[i] = a[i];);                                                                       \
    }
MOVE(mov_b16, u16)
MOVE(mov_b32, u32)
MOVE(mov_b64, u64)
MOVE(mov_b128, b128)

DEFINE_HANDLER(mov_pred)
{
    write_predicate(w, in->r[0], read_predicate(w, in->r[1]), mask);
}

/* aux: bytes of a part << 8 | parts; the first part is lowest */
DEFINE_HANDLER(pack)
{
    u32 parts = in->aux & 0xff, bytes = in->aux >> 8;
    u8 *d = REG(u8, 0);
    if (parts == 2 && bytes == 2) {
        const u16 *low = REG(const u16, 1), *high = REG(const u16, 2);
        u32 *joined = REG(u32, 0);
        LANES(joined[i] = low[i] | (u32)high[i] << 16;);
        return;
    }
    LANES(u8 value[16]; for (u32 k = 0; k < parts; k++) {
        memcpy(value + k * bytes, REG(u8, k + 1) + (u32)i * bytes, bytes);
    } memcpy(d + (u32)i * parts * bytes, value, parts * bytes););
}

DEFINE_HANDLER(unpack)
{
    u32 parts = in->aux & 0xff, bytes = in->aux >> 8;
    const u8 *a = REG(u8, parts);
    if (parts == 2 && bytes == 2) {
        const u32 *joined = REG(const u32, 2);
        u16 *low = REG(u16, 0), *high = REG(u16, 1);
        LANES(u32 value = joined[i]; low[i] = (u16)value; high[i] = (u16)(value >> 16););
        return;
    }
    LANES(u8 value[16]; memcpy(value, a + (u32)i * parts * bytes, parts * bytes);
          for (u32 k = 0; k < parts;
               k++) { memcpy(REG(u8, k) + (u32)i * bytes, value + k * bytes, bytes); });
}

/* ---- predicates ---- */

DEFINE_HANDLER(not_pred)
{
    write_predicate(w, in->r[0], ~read_predicate(w, in->r[1]), mask);
}

DEFINE_HANDLER(and_pred)
{
    write_predicate(w, in->r[0], read_predicate(w, in->r[1]) & read_predicate(w, in->r[2]), mask);
}

DEFINE_HANDLER(or_pred)
{
    write_predicate(w, in->r[0], read_predicate(w, in->r[1]) | read_predicate(w, in->r[2]), mask);
}

DEFINE_HANDLER(xor_pred)
{
    write_predicate(w, in->r[0], read_predicate(w, in->r[1]) ^ read_predicate(w, in->r[2]), mask);
}

/* One bit of each of 32 bytes that are 0 or 0xff. */
static inline u32 mask_of_bytes(const u8 *bytes)
{
#if defined(__AVX2__)
    return (u32)_mm256_movemask_epi8(_mm256_loadu_si256((const __m256i *)(const void *)bytes));
#else
    u32 result = 0;
    for (int k = 0; k < 4; k++) {
        u64 eight;
        memcpy(&eight, bytes + 8 * k, sizeof eight);
        result |= (u32)((eight & 0x8040201008040201u) * 0x0101010101010101u >> 56) << 8 * k;
    }
    return result;
#endif
}

/* r: p, q, a, b, c; p = test op c, q = !test op c */
static inline void write_test(emu_warp *w, const emu_instr *in, u32 mask, u32 test)
{
    u32 c = read_predicate(w, in->r[4]), p, q;
    if (in->aux == ACTION_AND) {
        p = test & c;
        q = ~test & c;
    } else if (in->aux == ACTION_OR) {
        p = test | c;
        q = ~test | c;
    } else {
        p = test ^ c;
        q = ~test ^ c;
    }
    write_predicate(w, in->r[0], p, mask);
    write_predicate(w, in->r[1], q, mask);
}

/* All lanes are compared; write_test keeps only those of the mask. */
#define COMPARE_LANES(name, type, expression)                                                      \
    DEFINE_HANDLER(name)                                                                           \
    {                                                                                              \
        const type *pa = REG(const type, 2), *pb = REG(const type, 3);                             \
        u8 tests[IR_LANES];                                                                        \
        INDEPENDENT                                                                                \
        for (int i = 0; i < IR_LANES; i++) {                                                       \
            const type a = pa[i], b = pb[i];                                                       \
            tests[i] = (expression) ? 0xff : 0;                                                    \
        }                                                                                          \
        write_test(w, in, mask, mask_of_bytes(tests));                                             \
    }
#define COMPARE_INT(type)                                                                          \
    COMPARE_LANES(setp_eq_##type, type, a == b)                                                    \
    COMPARE_LANES(setp_ne_##type, type, a != b)                                                    \
    COMPARE_LANES(setp_lt_##type, type, a < b)                                                     \
    COMPARE_LANES(setp_le_##type, type, a <= b)                                                    \
    COMPARE_LANES(setp_gt_##type, type, a > b)                                                     \
    COMPARE_LANES(setp_ge_##type, type, a >= b)
COMPARE_INT(u16)
COMPARE_INT(s16)
COMPARE_INT(u32)
COMPARE_INT(s32)
COMPARE_INT(u64)
COMPARE_INT(s64)

/* lane type, value of a lane: flushed (.ftz: imm) and widened */
#define COMPARE_FLOAT(type, lane, value)                                                           \
    COMPARE_LANES(setp_eq_##type, lane, value(a) == value(b))                                      \
    COMPARE_LANES(setp_ne_##type, lane, value(a) < value(b) || value(a) > value(b))                \
    COMPARE_LANES(setp_lt_##type, lane, value(a) < value(b))                                       \
    COMPARE_LANES(setp_le_##type, lane, value(a) <= value(b))                                      \
    COMPARE_LANES(setp_gt_##type, lane, value(a) > value(b))                                       \
    COMPARE_LANES(setp_ge_##type, lane, value(a) >= value(b))                                      \
    COMPARE_LANES(setp_equ_##type, lane, !(value(a) < value(b) || value(a) > value(b)))            \
    COMPARE_LANES(setp_neu_##type, lane, !(value(a) == value(b)))                                  \
    COMPARE_LANES(setp_ltu_##type, lane, !(value(a) >= value(b)))                                  \
    COMPARE_LANES(setp_leu_##type, lane, !(value(a) > value(b)))                                   \
    COMPARE_LANES(setp_gtu_##type, lane, !(value(a) <= value(b)))                                  \
    COMPARE_LANES(setp_geu_##type, lane, !(value(a) < value(b)))                                   \
    COMPARE_LANES(setp_num_##type, lane, value(a) == value(a) && value(b) == value(b))             \
    COMPARE_LANES(setp_nan_##type, lane, value(a) != value(a) || value(b) != value(b))

static inline u16 flush_f16(u16 a, const emu_instr *in)
{
    return in->imm && !(a & 0x7c00) ? a & 0x8000 : a;
}

#define VALUE_F32(a)  (in->imm ? ftz(a) : (a))
#define VALUE_F64(a)  (a)
#define VALUE_F16(a)  f16_to_f32(flush_f16(a, in))
#define VALUE_BF16(a) bf16_to_f32(a)
COMPARE_FLOAT(f32, f32, VALUE_F32)
COMPARE_FLOAT(f64, f64, VALUE_F64)
COMPARE_FLOAT(f16, u16, VALUE_F16)
COMPARE_FLOAT(bf16, u16, VALUE_BF16)

/* Pairs: p is the test of the low halves, q of the high ones, each combined with c. */
static inline bool compare_floats(int compare, f32 a, f32 b)
{
    bool ordered = a == a && b == b;
    switch (compare) {
    case 0:
        return a == b;
    case 1:
        return ordered && a != b;
    case 2:
        return a < b;
    case 3:
        return a <= b;
    case 4:
        return a > b;
    case 5:
        return a >= b;
    case 12:
        return ordered;
    case 13:
        return !ordered;
    default:
        return !ordered || compare_floats(compare - 6, a, b);
    }
}

static inline void compare_pairs(emu_warp *w, const emu_instr *in, u32 mask, int compare, bool bf16)
{
    const u32 *a = REG(const u32, 2), *b = REG(const u32, 3);
    u32 c = read_predicate(w, in->r[4]), tests[2] = {0, 0};
    for (int i = 0; i < IR_LANES; i++) {
        for (int k = 0; k < 2; k++) {
            u16 x = (u16)(a[i] >> 16 * k), y = (u16)(b[i] >> 16 * k);
            f32 fx = bf16 ? VALUE_BF16(x) : VALUE_F16(x), fy = bf16 ? VALUE_BF16(y) : VALUE_F16(y);
            tests[k] |= (u32)compare_floats(compare, fx, fy) << i;
        }
    }
    for (int k = 0; k < 2; k++) {
        u32 t = tests[k];
        t = in->aux == ACTION_AND ? t & c : in->aux == ACTION_OR ? t | c : t ^ c;
        write_predicate(w, in->r[k], t, mask);
    }
}

#define COMPARE_PAIR(name, number)                                                                 \
    DEFINE_HANDLER(setp_##name##_f16x2)                                                            \
    {                                                                                              \
        compare_pairs(w, in, mask, number, false);                                                 \
    }                                                                                              \
    DEFINE_HANDLER(setp_##name##_bf16x2)                                                           \
    {                                                                                              \
        compare_pairs(w, in, mask, number, true);                                                  \
    }
COMPARE_PAIR(eq, 0)
COMPARE_PAIR(ne, 1)
COMPARE_PAIR(lt, 2)
COMPARE_PAIR(le, 3)
COMPARE_PAIR(gt, 4)
COMPARE_PAIR(ge, 5)
COMPARE_PAIR(equ, 6)
COMPARE_PAIR(neu, 7)
COMPARE_PAIR(ltu, 8)
COMPARE_PAIR(leu, 9)
COMPARE_PAIR(gtu, 10)
COMPARE_PAIR(geu, 11)
COMPARE_PAIR(num, 12)
COMPARE_PAIR(nan, 13)

#define SELECT(name, type)                                                                         \
    DEFINE_HANDLER(name)                                                                           \
    {                                                                                              \
        type *d = REG(type, 0);                                                                    \
        const type *a = REG(const type, 1), *b = REG(const type, 2);                               \
        u32 c = read_predicate(w, in->r[3]);                                                       \
        LANES(d[i] = c >> i & 1 ? a[i] : b[i];);                                                   \
    }
SELECT(selp_b16, u16)
SELECT(selp_b32, u32)
SELECT(selp_b64, u64)

/* finite, infinite, number, notanumber, normal, subnormal; zero counts as normal */
static inline bool test_float(u32 test, f64 value, bool is_normal)
{
    switch (test) {
    case 0:
        return isfinite(value);
    case 1:
        return isinf(value);
    case 2:
        return !isnan(value);
    case 3:
        return isnan(value);
    case 4:
        return is_normal;
    default:
        return isfinite(value) && !is_normal;
    }
}

DEFINE_HANDLER(testp_f32)
{
    const f32 *a = REG(const f32, 1);
    u32 result = 0;
    LANES(result |= (u32)test_float(in->aux, a[i], isnormal(a[i]) || a[i] == 0) << i;);
    write_predicate(w, in->r[0], result, mask);
}

DEFINE_HANDLER(testp_f64)
{
    const f64 *a = REG(const f64, 1);
    u32 result = 0;
    LANES(result |= (u32)test_float(in->aux, a[i], isnormal(a[i]) || a[i] == 0) << i;);
    write_predicate(w, in->r[0], result, mask);
}

/* ---- bits ---- */

DEFINE_HANDLER(lop3)
{
    u32 *d = REG(u32, 0);
    const u32 *pa = REG(const u32, 1), *pb = REG(const u32, 2), *pc = REG(const u32, 3);
    u32 m[8];
    for (u32 k = 0; k < 8; k++) {
        m[k] = in->aux >> k & 1 ? ~0u : 0;
    }
    LANES(u32 a = pa[i]; u32 b = pb[i]; u32 c = pc[i]; u32 c_low = (m[0] & ~c) | (m[1] & c);
          u32 c_b = (m[2] & ~c) | (m[3] & c); u32 c_a = (m[4] & ~c) | (m[5] & c);
          u32 c_ab = (m[6] & ~c) | (m[7] & c);
          d[i] = (~a & ((~b & c_low) | (b & c_b))) | (a & ((~b & c_a) | (b & c_ab))););
}

static inline u32 permute(u32 mode, u32 a, u32 b, u32 c)
{
    static const u8 tables[7][4][4] = {
        {{0}},
        {{0, 1, 2, 3}, {1, 2, 3, 4}, {2, 3, 4, 5}, {3, 4, 5, 6}}, /* f4e */
        {{0, 7, 6, 5}, {1, 0, 7, 6}, {2, 1, 0, 7}, {3, 2, 1, 0}}, /* b4e */
        {{0, 0, 0, 0}, {1, 1, 1, 1}, {2, 2, 2, 2}, {3, 3, 3, 3}}, /* rc8 */
        {{0, 1, 2, 3}, {1, 1, 2, 3}, {2, 2, 2, 3}, {3, 3, 3, 3}}, /* ecl */
        {{0, 0, 0, 0}, {0, 1, 1, 1}, {0, 1, 2, 2}, {0, 1, 2, 3}}, /* ecr */
        {{0, 1, 0, 1}, {2, 3, 2, 3}, {0, 1, 0, 1}, {2, 3, 2, 3}}, /* rc16 */
    };
    u64 source = (u64)b << 32 | a;
    u32 result = 0;
    for (u32 k = 0; k < 4; k++) {
        u32 choice = mode ? tables[mode][c & 3][k] : c >> 4 * k & 15;
        u32 byte = (u32)(source >> 8 * (choice & 7)) & 0xff;
        if (choice & 8) {
            byte = byte & 0x80 ? 0xff : 0;
        }
        result |= byte << 8 * k;
    }
    return result;
}

DEFINE_HANDLER(prmt)
{
    u32 *d = REG(u32, 0);
    const u32 *a = REG(const u32, 1), *b = REG(const u32, 2), *c = REG(const u32, 3);
    LANES(d[i] = permute(in->aux, a[i], b[i], c[i]););
}

/* The position of the n-th set bit of `bits` from `base` on, downwards for negative n. */
static inline u32 find_nth_set(u32 bits, u32 base, s32 n)
{
    if (n == 0) {
        return bits >> (base & 31) & 1 ? base & 31 : ~0u;
    }
    s32 step = n > 0 ? 1 : -1, left = n > 0 ? n : -n;
    for (s32 position = (s32)(base & 31); position >= 0 && position < 32; position += step) {
        left -= (s32)(bits >> position & 1);
        if (left == 0) {
            return (u32)position;
        }
    }
    return ~0u;
}

DEFINE_HANDLER(fns)
{
    u32 *d = REG(u32, 0);
    const u32 *a = REG(const u32, 1), *b = REG(const u32, 2);
    const s32 *c = REG(const s32, 3);
    LANES(d[i] = find_nth_set(a[i], b[i], c[i]););
}

/* ---- carries: r: d, carry out, sources, carry in ---- */

__extension__ typedef unsigned __int128 u128;
__extension__ typedef __int128 s128;

#define ADD_CARRY(name, type, wide, bits, operation)                                               \
    DEFINE_HANDLER(name)                                                                           \
    {                                                                                              \
        type *d = REG(type, 0);                                                                    \
        const type *a = REG(const type, 2), *b = REG(const type, 3);                               \
        u32 carry = read_predicate(w, in->r[4]), out = 0;                                          \
        LANES(wide sum = (wide)((wide)a[i] operation b[i] operation(carry >> i & 1));              \
              out |= (u32)(sum >> bits & 1) << i; d[i] = (type)sum;);                              \
        write_predicate(w, in->r[1], out, mask);                                                   \
    }
ADD_CARRY(add_carry_b32, u32, u64, 32, +)
ADD_CARRY(add_carry_b64, u64, u128, 64, +)
ADD_CARRY(sub_carry_b32, u32, u64, 32, -)
ADD_CARRY(sub_carry_b64, u64, u128, 64, -)

/* aux: 1 upper half of the product, 2 signed */
#define MAD_CARRY(name, type, stype, wide, swide, bits)                                            \
    DEFINE_HANDLER(name)                                                                           \
    {                                                                                              \
        type *d = REG(type, 0);                                                                    \
        const type *a = REG(const type, 2), *b = REG(const type, 3), *c = REG(const type, 4);      \
        u32 carry = read_predicate(w, in->r[5]), out = 0;                                          \
        LANES(wide product =                                                                       \
                  in->aux & 2 ? (wide)((swide)(stype)a[i] * (stype)b[i]) : (wide)a[i] * b[i];      \
              type part = (type)(in->aux & 1 ? product >> bits : product);                         \
              wide sum = (wide)part + c[i] + (carry >> i & 1); out |= (u32)(sum >> bits & 1) << i; \
              d[i] = (type)sum;);                                                                  \
        write_predicate(w, in->r[1], out, mask);                                                   \
    }
MAD_CARRY(mad_carry_b32, u32, s32, u64, s64, 32)
MAD_CARRY(mad_carry_b64, u64, s64, u128, s128, 64)

/* ---- addresses ---- */

#define TRANSLATE(name, operation, window)                                                         \
    DEFINE_HANDLER(name)                                                                           \
    {                                                                                              \
        u64 *d = REG(u64, 0);                                                                      \
        const u64 *a = REG(const u64, 1);                                                          \
        LANES(d[i] = a[i] operation window;);                                                      \
    }
TRANSLATE(to_shared, -, IR_SHARED_WINDOW)
TRANSLATE(from_shared, +, IR_SHARED_WINDOW)
TRANSLATE(to_local, -, IR_LOCAL_WINDOW)
TRANSLATE(from_local, +, IR_LOCAL_WINDOW)

/* Constants lie among global memory. */
static ptx_space space_of_generic(const ptx_module *module, u64 address)
{
    static const ptx_space windows[] = {SPACE_GLOBAL, SPACE_SHARED, SPACE_LOCAL, SPACE_PARAM};
    u64 window = address >> 48;
    for (const ptx_variable *v = window ? NULL : module->variables; v; v = v->next) {
        if (v->space == SPACE_CONST && address - v->address < v->bytes) {
            return SPACE_CONST;
        }
    }
    return windows[window & 3];
}

/* A shared address of another block, which is of .shared::cluster alone. */
static bool is_of_other(const exec_block *block, u64 address)
{
    u64 window = (address - IR_SHARED_WINDOW) / IR_RANK_BYTES;
    return window != 0 && window != (u64)cluster_rank(block) + 1;
}

/* The parameters of the kernel count as global memory, too. aux: the space, ISSPACEP_CLUSTER */
DEFINE_HANDLER(isspacep)
{
    const ptx_module *module = w->block->grid->kernel->module;
    ptx_space wanted = (ptx_space)(in->aux & ~(u32)ISSPACEP_CLUSTER);
    bool own = wanted == SPACE_SHARED && !(in->aux & ISSPACEP_CLUSTER);
    const u64 *a = REG(const u64, 1);
    u32 result = 0;
    LANES(ptx_space space = space_of_generic(module, a[i]);
          bool is_inside = space == wanted || (space == SPACE_PARAM && wanted == SPACE_GLOBAL);
          is_inside &= !own || !is_of_other(w->block, a[i]);
          result |= (u32)is_inside << i;);
    write_predicate(w, in->r[0], result, mask);
}

/* aux: 0 %clock, 1 %clock_hi, 2 and 3 halves of %globaltimer, 4 %clock64, 5 %globaltimer */
DEFINE_HANDLER(clock)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    u64 nanoseconds = (u64)now.tv_sec * 1000000000u + (u64)now.tv_nsec;
    bool is_timer = in->aux == 2 || in->aux == 3 || in->aux == 5;
    u64 value = is_timer ? nanoseconds : w->executed + (u64)(w->quantum - w->budget);
    if (in->aux >= 4) {
        u64 *d = REG(u64, 0);
        LANES(d[i] = value;);
        return;
    }
    u32 *d = REG(u32, 0), half = (u32)(in->aux & 1 ? value >> 32 : value);
    LANES(d[i] = half;);
}
