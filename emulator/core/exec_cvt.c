/*
 * exec_cvt.c: conversions: the fast rows of ops_cvt.def, and convert_any for every other pair of
 * number types. aux: rounding and flags, destination and source type.
 */
#include "exec_alu.h"

/* A number between its two types: an integer with its sign apart, or an exact f64. */
typedef struct number {
    bool is_float;
    f64 value;
    s64 integer; /* as a signed number, or, is_unsigned, as u64 bits */
    bool is_unsigned;
} number;

static inline ptx_type target_type(u32 aux)
{
    return (ptx_type)(aux >> AUX_TYPE_SHIFT & 0xff);
}

static inline ptx_type source_type(u32 aux)
{
    return (ptx_type)(aux >> (AUX_TYPE_SHIFT + 8) & 0xff);
}

static number number_of_integer(s64 value, bool is_unsigned)
{
    return (number){.integer = value, .is_unsigned = is_unsigned};
}

static number number_of_float(f64 value)
{
    return (number){.is_float = true, .value = value};
}

static number read_number(const void *lanes, int i, ptx_type type, u32 aux)
{
    switch (type) {
    case TYPE_U8:
        return number_of_integer(((const u8 *)lanes)[i], true);
    case TYPE_S8:
        return number_of_integer(((const s8 *)lanes)[i], false);
    case TYPE_U16:
        return number_of_integer(((const u16 *)lanes)[i], true);
    case TYPE_S16:
        return number_of_integer(((const s16 *)lanes)[i], false);
    case TYPE_U32:
        return number_of_integer(((const u32 *)lanes)[i], true);
    case TYPE_S32:
        return number_of_integer(((const s32 *)lanes)[i], false);
    case TYPE_U64:
        return number_of_integer(((const s64 *)lanes)[i], true);
    case TYPE_S64:
        return number_of_integer(((const s64 *)lanes)[i], false);
    case TYPE_F16:
        return number_of_float(f16_to_f32(((const u16 *)lanes)[i]));
    case TYPE_BF16:
        return number_of_float(bf16_to_f32(((const u16 *)lanes)[i]));
    case TYPE_F64:
        return number_of_float(((const f64 *)lanes)[i]);
    default: {
        f32 value = ((const f32 *)lanes)[i];
        /* .ftz does not reach what becomes f16, though the ISA says so */
        return number_of_float(aux & AUX_FTZ && target_type(aux) != TYPE_F16 ? ftz(value) : value);
    }
    }
}

static f64 round_to_integer(f64 value, u32 aux)
{
    switch (aux & AUX_ROUNDING) {
    case 0:
        return rint(value);
    case 1:
        return trunc(value);
    case 2:
        return floor(value);
    default:
        return ceil(value);
    }
}

static void integer_limits(ptx_type type, s64 *least, u64 *most)
{
    int bits = ptx_type_bits(type);
    bool is_signed = ptx_type_class(type) == 's';
    *least = is_signed ? (s64)(~(u64)0 << (bits - 1)) : 0;
    *most = ~(u64)0 >> (64 - bits + (is_signed ? 1 : 0));
}

/* NaN becomes 0, or the top bit alone where the source or the result has 64 bits. */
static u64 float_to_integer(f64 value, ptx_type source, ptx_type type, u32 aux)
{
    s64 least;
    u64 most;
    integer_limits(type, &least, &most);
    value = round_to_integer(value, aux);
    if (isnan(value)) {
        int bits = ptx_type_bits(type);
        return source == TYPE_F64 || bits == 64 ? (u64)1 << (bits - 1) : 0;
    }
    if (value <= (f64)least) {
        return (u64)least;
    }
    if (value >= (f64)most) {
        return most;
    }
    return value < 0 ? (u64)(s64)value : (u64)value;
}

static u64 integer_to_integer(number n, ptx_type type, u32 aux)
{
    s64 least;
    u64 most;
    integer_limits(type, &least, &most);
    if (!(aux & AUX_SAT)) {
        return (u64)n.integer;
    }
    if (!n.is_unsigned && n.integer < 0) {
        return (u64)(n.integer < least ? least : n.integer);
    }
    return (u64)n.integer > most ? most : (u64)n.integer;
}

/* The integer as f64, rounded to odd where it does not fit: a second rounding then is exact. */
static f64 integer_to_f64_odd(number n)
{
    bool negative = !n.is_unsigned && n.integer < 0;
    u64 magnitude = negative ? 0 - (u64)n.integer : (u64)n.integer;
    if (magnitude >> 53) {
        int drop = 11 - __builtin_clzll(magnitude);
        u64 lost = magnitude & (((u64)1 << drop) - 1);
        magnitude = (magnitude >> drop | (lost != 0)) << drop;
    }
    f64 value = (f64)magnitude;
    return negative ? -value : value;
}

static f32 f64_to_f32(f64 value, u32 aux)
{
    enter_rounding(aux);
    volatile f64 ordered = value;
    volatile f32 result = (f32)ordered;
    leave_rounding(aux);
    return result;
}

static f64 integer_to_f64(number n, u32 aux)
{
    if (n.integer == 0) {
        return 0; /* some compilers widen u64 by a difference, which rounds down to -0 */
    }
    enter_rounding(aux);
    volatile s64 ordered = n.integer;
    volatile f64 result = n.is_unsigned ? (f64)(u64)ordered : (f64)ordered;
    leave_rounding(aux);
    return result;
}

static f64 clamp_float(f64 value, u32 aux)
{
    if (aux & AUX_SAT) {
        return value > 0 ? (value < 1 ? value : 1) : 0;
    }
    return (aux & AUX_RELU) && value <= 0 ? 0 : value;
}

static u64 number_to_float(number n, ptx_type type, u32 aux)
{
    f64 value = n.is_float ? n.value : integer_to_f64_odd(n);
    int mode = aux & AUX_AWAY ? ROUND_AWAY : (int)(aux & AUX_ROUNDING);
    bool saturate = aux & AUX_SATFINITE;
    if (n.is_float && (aux & AUX_TO_INTEGER)) {
        value = round_to_integer(value, aux);
        aux &= ~(u32)AUX_ROUNDING;
    }
    value = clamp_float(value, aux);
    switch (type) {
    case TYPE_F16:
        return small_encode(value, &format_f16, mode, saturate);
    case TYPE_BF16:
        return small_encode(value, &format_bf16, mode, saturate);
    case TYPE_TF32:
        return (u64)small_encode(value, &format_tf32, mode, saturate) << 13 |
               (isnan(value) ? 0x1fff : 0);
    case TYPE_F64:
        /* what is clamped is 0 or 1 */
        return bits_of_f64(n.is_float || aux & AUX_SAT ? value : integer_to_f64(n, aux));
    default: {
        f32 narrow = f64_to_f32(value, aux);
        return bits_of_f32(aux & AUX_FTZ ? ftz(narrow) : narrow);
    }
    }
}

static void write_bits(void *lanes, int i, int bytes, u64 bits)
{
    memcpy((u8 *)lanes + i * bytes, &bits, (size_t)bytes);
}

DEFINE_HANDLER(convert_any)
{
    const u32 aux = in->aux;
    ptx_type to = target_type(aux), from = source_type(aux);
    bool to_float = ptx_type_class(to) == 'f';
    int bytes = ptx_type_bits(to) / 8;
    u64 results[IR_LANES];
    LANES(number n = read_number(w->registers + in->r[1], i, from, aux);
          results[i] = to_float     ? number_to_float(n, to, aux)
                       : n.is_float ? float_to_integer(n.value, from, to, aux)
                                    : integer_to_integer(n, to, aux););
    LANES(write_bits(w->registers + in->r[0], i, bytes, results[i]););
}

static const small_format *pair_format(ptx_type type)
{
    return type == TYPE_F16X2    ? &format_f16
           : type == TYPE_BF16X2 ? &format_bf16
           : type == TYPE_E4M3X2 ? &format_e4m3
                                 : &format_e5m2;
}

/* Two f32 to a pair, the first in the high half. */
DEFINE_HANDLER(convert_pair)
{
    const u32 aux = in->aux;
    const small_format *f = pair_format(target_type(aux));
    bool bytes = ptx_type_bits(target_type(aux)) == 16;
    const f32 *a = REG(const f32, 1), *b = REG(const f32, 2);
    u32 results[IR_LANES];
    LANES(
        u32 high = small_encode(clamp_float(a[i], aux), f, aux & AUX_ROUNDING, aux & AUX_SATFINITE);
        u32 low = small_encode(clamp_float(b[i], aux), f, aux & AUX_ROUNDING, aux & AUX_SATFINITE);
        results[i] = high << (bytes ? 8 : 16) | low;);
    LANES(write_bits(w->registers + in->r[0], i, bytes ? 2 : 4, results[i]););
}

/* f16x2 to a pair of bytes, or a pair of bytes to f16x2. */
DEFINE_HANDLER(convert_from_pair)
{
    const u32 aux = in->aux;
    ptx_type to = target_type(aux), from = source_type(aux);
    const small_format *f = pair_format(to);
    if (from == TYPE_F16X2) {
        u16 *d = REG(u16, 0);
        const u32 *a = REG(const u32, 1);
        LANES(u32 value = a[i];
              u32 high = small_encode(clamp_float(f16_to_f32((u16)(value >> 16)), aux), f, 0, true);
              u32 low = small_encode(clamp_float(f16_to_f32((u16)value), aux), f, 0, true);
              d[i] = (u16)(high << 8 | low););
        return;
    }
    bool e4m3 = from == TYPE_E4M3X2;
    u32 *d = REG(u32, 0);
    const u16 *a = REG(const u16, 1);
    LANES(u8 high = (u8)(a[i] >> 8); u8 low = (u8)a[i];
          f32 x = e4m3 ? e4m3_to_f32(high) : e5m2_to_f32(high);
          f32 y = e4m3 ? e4m3_to_f32(low) : e5m2_to_f32(low);
          d[i] = small_encode(clamp_float(x, aux), f, 0, false) << 16 |
                 small_encode(clamp_float(y, aux), f, 0, false););
}

/* cvt.pack: a and b saturated, b lowest, above it a, above that what c held lowest. */
DEFINE_HANDLER(convert_pack)
{
    ptx_type to = target_type(in->aux);
    int bits = ptx_type_bits(to);
    u32 *d = REG(u32, 0);
    const s32 *a = REG(const s32, 1), *b = REG(const s32, 2);
    const u32 *c = REG(const u32, 3);
    u32 keep = (1u << bits) - 1;
    LANES(u32 high = (u32)integer_to_integer(number_of_integer(a[i], false), to, AUX_SAT) & keep;
          u32 low = (u32)integer_to_integer(number_of_integer(b[i], false), to, AUX_SAT) & keep;
          d[i] = (bits == 8 ? c[i] << 16 : 0) | high << bits | low;);
}

#include "ops_cvt.def"
