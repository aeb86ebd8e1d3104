/* ptxrun_number.c: single values of the types of a manifest; see ptxrun_number.h. */
#include "ptxrun_number.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include <core/smallfloat.h>

typedef enum kind { UNSIGNED, SIGNED, REAL } kind;

static const struct {
    size_t bytes;
    kind kind;
} types[] = {
#define NUMBER_ROW(name, bytes, kind) {bytes, kind},
    NUMBER_TYPES(NUMBER_ROW)
#undef NUMBER_ROW
};

const char *const number_type_names[] = {
#define NUMBER_NAME(name, bytes, kind) #name,
    NUMBER_TYPES(NUMBER_NAME)
#undef NUMBER_NAME
        NULL};

size_t number_bytes(number_type type)
{
    return types[type].bytes;
}

bool number_is_real(number_type type)
{
    return types[type].kind == REAL;
}

static int unused_bits(number_type type)
{
    return 64 - 8 * (int)types[type].bytes;
}

int64_t number_least(number_type type)
{
    return types[type].kind == SIGNED ? INT64_MIN >> unused_bits(type) : 0;
}

int64_t number_most(number_type type)
{
    if (types[type].kind == SIGNED || types[type].bytes == 8)
        return INT64_MAX >> unused_bits(type);
    return (int64_t)(UINT64_MAX >> unused_bits(type));
}

/* The low bytes of an integer, extended by its sign where it has one. */
static uint64_t extend(number_type type, uint64_t bits)
{
    int unused = unused_bits(type);
    if (types[type].kind == SIGNED)
        return (uint64_t)((int64_t)(bits << unused) >> unused);
    return bits << unused >> unused;
}

static double decode(number_type type, uint64_t bits)
{
    switch (type) {
    case NUMBER_f16:
        return (double)f16_to_f32((u16)bits);
    case NUMBER_bf16:
        return (double)bf16_to_f32((u16)bits);
    case NUMBER_f32:
        return (double)f32_of_bits((u32)bits);
    default:
        return f64_of_bits(bits);
    }
}

static uint64_t encode(number_type type, double value)
{
    switch (type) {
    case NUMBER_f16:
        return small_encode(value, &format_f16, ROUND_NEAREST, false);
    case NUMBER_bf16:
        return small_encode(value, &format_bf16, ROUND_NEAREST, false);
    case NUMBER_f32:
        return bits_of_f32((float)value);
    default:
        return bits_of_f64(value);
    }
}

number number_load(number_type type, const void *at)
{
    uint64_t bits = 0;
    memcpy(&bits, at, types[type].bytes);
    return number_is_real(type) ? (number){.real = decode(type, bits)}
                                : (number){.whole = extend(type, bits)};
}

void number_store(number_type type, void *at, number value)
{
    uint64_t bits = number_is_real(type) ? encode(type, value.real) : value.whole;
    memcpy(at, &bits, types[type].bytes);
}

number number_convert(number_type to, number_type from, number value)
{
    bool from_real = number_is_real(from);
    if (number_is_real(to) == from_real)
        return value;
    if (from_real)
        return (number){
            .whole = (uint64_t)(int64_t)fmax(-0x1p63, fmin(0x1.fffffffffffffp62, value.real))};
    return (number){.real = types[from].kind == SIGNED ? (double)(int64_t)value.whole
                                                       : (double)value.whole};
}

number number_add(number_type type, number a, number b)
{
    return number_is_real(type) ? (number){.real = a.real + b.real}
                                : (number){.whole = extend(type, a.whole + b.whole)};
}

number number_multiply(number_type type, number a, number b)
{
    return number_is_real(type) ? (number){.real = a.real * b.real}
                                : (number){.whole = extend(type, a.whole * b.whole)};
}

bool number_equal(number_type type, number a, number b)
{
    if (!number_is_real(type))
        return a.whole == b.whole;
    return a.real == b.real || (isnan(a.real) && isnan(b.real));
}

/* Bits in the order of the values; both zeros are the same. */
static int64_t rank(number_type type, double value)
{
    uint64_t bits = encode(type, fabs(value));
    return value < 0 ? -(int64_t)bits : (int64_t)bits;
}

uint64_t number_ulps(number_type type, number a, number b)
{
    if (number_equal(type, a, b))
        return 0;
    if (!number_is_real(type))
        return a.whole > b.whole ? a.whole - b.whole : b.whole - a.whole;
    if (isnan(a.real) || isnan(b.real))
        return UINT64_MAX;
    int64_t from = rank(type, a.real), to = rank(type, b.real);
    return from > to ? (uint64_t)from - (uint64_t)to : (uint64_t)to - (uint64_t)from;
}

void number_print(char text[NUMBER_TEXT], number_type type, number value)
{
    switch (types[type].kind) {
    case UNSIGNED:
        snprintf(text, NUMBER_TEXT, "%" PRIu64, value.whole);
        return;
    case SIGNED:
        snprintf(text, NUMBER_TEXT, "%" PRId64, (int64_t)value.whole);
        return;
    case REAL:
        snprintf(text, NUMBER_TEXT, "%.*g", types[type].bytes == 8 ? 17 : 9, value.real);
        return;
    }
}
