/*
 * exec_int.c: integer arithmetic (ops_int.def).
 */
#include "exec_alu.h"

__extension__ typedef unsigned __int128 u128;
__extension__ typedef __int128 s128;

static inline s32 clamp_s32(s64 a)
{
    return (s32)(a > INT32_MAX ? INT32_MAX : a < INT32_MIN ? INT32_MIN : a);
}

static inline s64 min_s64(s64 a, s64 b)
{
    return a < b ? a : b;
}

static inline s64 max_s64(s64 a, s64 b)
{
    return a > b ? a : b;
}

static inline u64 mul_hi_u64_of(u64 a, u64 b)
{
    return (u64)((u128)a * b >> 64);
}

static inline s64 mul_hi_s64_of(s64 a, s64 b)
{
    return (s64)((s128)a * b >> 64);
}

static inline u64 u24(u32 a)
{
    return a & 0xffffff;
}

static inline s64 s24(u32 a)
{
    return (s32)(a << 8) >> 8;
}

static inline s64 lo16(u32 a)
{
    return a & 0xffff;
}

static inline s64 hi16(u32 a)
{
    return a >> 16;
}

static inline s64 slo16(u32 a)
{
    return (s16)a;
}

static inline s64 shi16(u32 a)
{
    return (s16)(a >> 16);
}

static inline u32 pack16(s64 low, s64 high)
{
    return ((u32)low & 0xffff) | (u32)high << 16;
}

static inline u64 joined(u32 low, u32 high)
{
    return (u64)high << 32 | low;
}

static inline u32 find_bit(u64 a, int width)
{
    (void)width;
    return a ? 63 - (u32)__builtin_clzll(a) : ~0u;
}

static inline u32 shift_of(u32 position, u32 width)
{
    return position == ~0u ? ~0u : width - 1 - position;
}

static inline u32 reverse_u32(u32 a)
{
    a = (a >> 1 & 0x55555555u) | (a & 0x55555555u) << 1;
    a = (a >> 2 & 0x33333333u) | (a & 0x33333333u) << 2;
    a = (a >> 4 & 0x0f0f0f0fu) | (a & 0x0f0f0f0fu) << 4;
    return __builtin_bswap32(a);
}

/* Field of `length` bits at `position`; past the top a signed field repeats the last bit it has. */
static inline u64 extract_bits(u64 a, u32 position, u32 length, u32 width, int is_signed)
{
    position &= 0xff;
    length &= 0xff;
    u64 all = width == 64 ? ~(u64)0 : ((u64)1 << width) - 1;
    u64 field = position < width ? (a & all) >> position : 0;
    u32 top = position + length < width ? position + length : width;
    u64 sign = is_signed && length && (a >> (top ? top - 1 : 0) & 1) ? ~(u64)0 : 0;
    if (position >= width) {
        sign = is_signed && length && (a >> (width - 1) & 1) ? ~(u64)0 : 0;
    }
    u32 have = position < top ? top - position : 0;
    u64 keep = have >= 64 ? ~(u64)0 : ((u64)1 << have) - 1;
    return ((field & keep) | (sign & ~keep)) & all;
}

static inline u64 insert_bits(u64 a, u64 b, u32 position, u32 length, u32 width)
{
    position &= 0xff;
    length &= 0xff;
    if (position >= width || length == 0) {
        return b;
    }
    u64 field = (length >= 64 ? ~(u64)0 : ((u64)1 << length) - 1) << position;
    return (b & ~field) | (a << position & field);
}

static inline u32 bit_mask(u32 position, u32 length, int clamp)
{
    if (!clamp) {
        position &= 31;
        length &= 31;
    }
    u32 low = position > 31 ? 0 : ~0u << position;
    u64 end = (u64)position + length;
    u32 high = end > 31 ? ~0u : ~(~0u << end);
    return low & high;
}

static inline u32 extend_bits(u32 a, u32 length, int clamp, int is_signed)
{
    length = clamp ? (length > 32 ? 32 : length) : length & 31;
    if (length == 0) {
        return 0;
    }
    u32 shift = 32 - length;
    return is_signed ? (u32)((s32)(a << shift) >> shift) : a << shift >> shift;
}

static inline u32 dot4(u32 a, u32 b, int a_signed, int b_signed)
{
    s32 sum = 0;
    for (int k = 0; k < 32; k += 8) {
        s32 x = a_signed ? (s8)(a >> k) : (s32)(a >> k & 0xff);
        s32 y = b_signed ? (s8)(b >> k) : (s32)(b >> k & 0xff);
        sum += x * y;
    }
    return (u32)sum;
}

static inline u32 dot2(u32 a, u32 b, int a_signed, int b_signed)
{
    s32 sum = 0;
    for (int k = 0; k < 2; k++) {
        s32 x = a_signed ? (s16)(a >> 16 * k) : (s32)(a >> 16 * k & 0xffff);
        s32 y = b_signed ? (s8)(b >> 8 * k) : (s32)(b >> 8 * k & 0xff);
        sum += x * y;
    }
    return (u32)sum;
}

static inline f32 flushed(f32 a, u32 aux)
{
    return aux & AUX_FTZ ? ftz(a) : a;
}

#include "ops_int.def"
