/*
 * isa_whole.c: every operation on whole numbers and bits for every type that it has (PTX
 * ISA 9.7.1, 9.7.2, 9.7.8). The oracles are independent of the type: operands are extended to 128
 * bits, the result is cut off.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "device.h"
#include "isa.h"

typedef unsigned __int128 wide;
typedef wide operation(wide x, wide y, wide z);

typedef struct whole_type {
    const char *name;
    isa_type reg, twice; /* registers of the type, and of .wide results */
    int bits;
    int is_signed;
} whole_type;

static const whole_type types[] = {
    {"u16", ISA_I16, ISA_I32, 16, 0},  {"s16", ISA_I16, ISA_I32, 16, 1},
    {"b16", ISA_I16, ISA_I32, 16, 0},  {"u32", ISA_I32, ISA_I64, 32, 0},
    {"s32", ISA_I32, ISA_I64, 32, 1},  {"b32", ISA_I32, ISA_I64, 32, 0},
    {"u64", ISA_I64, ISA_NONE, 64, 0}, {"s64", ISA_I64, ISA_NONE, 64, 1},
    {"b64", ISA_I64, ISA_NONE, 64, 0},
};
enum { TYPES = sizeof types / sizeof types[0] };

static const whole_type *type; /* of the case that runs */
static operation *compute;

static wide extend(uint64_t bits, int width)
{
    wide value = bits;
    if (width < 64)
        value &= ((wide)1 << width) - 1;
    return type->is_signed && value >> (width - 1) & 1 ? value | ~(((wide)1 << width) - 1) : value;
}

static int is_below(wide x, wide y)
{
    return (__int128)x < (__int128)y; /* extended operands are far from the ends */
}

/* ---- operations ---- */

#define OPERATION(name, expression)                                                                \
    static wide name(wide x, wide y, wide z)                                                       \
    {                                                                                              \
        (void)x, (void)y, (void)z;                                                                 \
        return expression;                                                                         \
    }
OPERATION(add, x + y)
OPERATION(sub, x - y)
OPERATION(mul, x *y)
OPERATION(mul_hi, x *y >> type->bits)
OPERATION(mad, x *y + z)
OPERATION(mad_hi, (x * y >> type->bits) + z)
OPERATION(sad, z + (is_below(x, y) ? y - x : x - y))
OPERATION(negate, -x)
OPERATION(absolute, is_below(x, 0) ? -x : x)
OPERATION(minimum, is_below(x, y) ? x : y)
OPERATION(maximum, is_below(x, y) ? y : x)
OPERATION(and_, x &y)
OPERATION(or_, x | y)
OPERATION(xor_, x ^ y)
OPERATION(not_, ~x)
OPERATION(cnot, x == 0)

static uint64_t oracle(uint64_t a, uint64_t b, uint64_t c)
{
    int bits = type->bits;
    return (uint64_t)compute(extend(a, bits), extend(b, bits), extend(c, bits));
}

/* The third operand is as wide as the result. */
static uint64_t oracle_wide(uint64_t a, uint64_t b, uint64_t c)
{
    int bits = type->bits;
    return (uint64_t)compute(extend(a, bits), extend(b, bits), c);
}

static int is_listed(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = list; *at; at += strcspn(at, " "), at += *at == ' ') {
        if (strcspn(at, " ") == length && strncmp(at, name, length) == 0)
            return 1;
    }
    return 0;
}

#define INTEGERS "u16 s16 u32 s32 u64 s64"
#define SIGNED   "s16 s32 s64"
#define BITS     "b16 b32 b64"
static const struct {
    const char *name, *types;
    int operands, is_wide;
    operation *compute;
} operations[] = {
    {"add", INTEGERS, 2, 0, add},
    {"sub", INTEGERS, 2, 0, sub},
    {"mul.lo", INTEGERS, 2, 0, mul},
    {"mul.hi", INTEGERS, 2, 0, mul_hi},
    {"mad.lo", INTEGERS, 3, 0, mad},
    {"mad.hi", INTEGERS, 3, 0, mad_hi},
    {"sad", INTEGERS, 3, 0, sad},
    {"neg", SIGNED, 1, 0, negate},
    {"abs", SIGNED, 1, 0, absolute},
    {"min", INTEGERS, 2, 0, minimum},
    {"max", INTEGERS, 2, 0, maximum},
    {"and", BITS, 2, 0, and_},
    {"or", BITS, 2, 0, or_},
    {"xor", BITS, 2, 0, xor_},
    {"not", BITS, 1, 0, not_},
    {"cnot", BITS, 1, 0, cnot},
    {"mul.wide", "u16 s16 u32 s32", 2, 1, mul},
    {"mad.wide", "u16 s16 u32 s32", 3, 1, mad},
};

static void run(const char *ptx, isa_type d, isa_type a, isa_type b, isa_type c, isa_oracle *expect)
{
    isa_case test = {.ptx = ptx, .d = d, .a = a, .b = b, .c = c, .oracle = expect};
    isa_run(&test, 1);
}

Test(isa_whole, arithmetic_and_logic_are_those_of_the_bits_whatever_the_type)
{
    device_open(); /* once for all cases */
    for (size_t i = 0; i < sizeof operations / sizeof operations[0]; ++i) {
        static const char *const lists[] = {"%d, %a", "%d, %a, %b", "%d, %a, %b, %c"};
        int operands = operations[i].operands, is_wide = operations[i].is_wide;
        compute = operations[i].compute;
        for (type = types; type < types + TYPES; ++type) {
            char ptx[96];
            snprintf(ptx, sizeof ptx, "%s.%s %s;", operations[i].name, type->name,
                     lists[operands - 1]);
            if (is_listed(operations[i].types, type->name))
                run(ptx, is_wide ? type->twice : type->reg, type->reg,
                    operands > 1 ? type->reg : ISA_NONE,
                    operands < 3 ? ISA_NONE
                    : is_wide    ? type->twice
                                 : type->reg,
                    is_wide ? oracle_wide : oracle);
        }
    }
    device_close();
}

/* ---- pairs of 16 bits, and .relu: a result below zero is zero ---- */

static int clamps_below;

static uint64_t oracle_pair(uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t result = 0;
    (void)c;
    for (int at = 0; at < 32; at += 16) {
        wide value = compute(extend(a >> at, 16), extend(b >> at, 16), 0);
        if (clamps_below && is_below(value, 0))
            value = 0;
        result |= ((uint64_t)value & 0xffff) << at;
    }
    return result;
}

static uint64_t oracle_relu(uint64_t a, uint64_t b, uint64_t c)
{
    wide value = compute(extend(a, 32), extend(b, 32), 0);
    (void)c;
    return is_below(value, 0) ? 0 : (uint64_t)value;
}

Test(isa_whole, pairs_are_two_numbers_and_relu_is_not_negative)
{
    static const struct {
        const char *name;
        operation *compute;
    } rows[] = {{"add", add}, {"min", minimum}, {"max", maximum}};
    device_open();
    for (int i = 0; i < 3; ++i) {
        compute = rows[i].compute;
        for (int k = 0; k < 2; ++k) {
            type = &types[k];
            for (clamps_below = 0; clamps_below <= (i > 0 && type->is_signed); ++clamps_below) {
                char ptx[96];
                snprintf(ptx, sizeof ptx, "%s%s.%sx2 %%d, %%a, %%b;", rows[i].name,
                         clamps_below ? ".relu" : "", type->name);
                run(ptx, ISA_I32, ISA_I32, ISA_I32, ISA_NONE, oracle_pair);
            }
        }
    }
    type = &types[4];
    compute = minimum;
    run("min.relu.s32 %d, %a, %b;", ISA_I32, ISA_I32, ISA_I32, ISA_NONE, oracle_relu);
    device_close();
}

/* ---- 24 bits: the lowest of 32; .hi is bits 16 to 47 of the product ---- */

static int is_high, is_clamped;

static uint64_t oracle_24(uint64_t a, uint64_t b, uint64_t c)
{
    wide product = extend(a, 24) * extend(b, 24);
    wide part = (is_high ? product >> 16 : product) & 0xffffffff, sum = part + c;
    if (!is_clamped)
        return (uint64_t)sum;
    __int128 exact = (__int128)extend((uint64_t)part, 32) + (__int128)extend(c, 32);
    return (uint64_t)(exact > INT32_MAX ? INT32_MAX : exact < INT32_MIN ? INT32_MIN : exact);
}

Test(isa_whole, products_of_24_bits_are_added_whole_or_high)
{
    static const struct {
        const char *ptx;
        int type, is_high, is_clamped;
    } rows[] = {{"mad24.lo.u32 %d, %a, %b, %c;", 3, 0, 0},
                {"mad24.lo.s32 %d, %a, %b, %c;", 4, 0, 0},
                {"mad24.hi.u32 %d, %a, %b, %c;", 3, 1, 0},
                {"mad24.hi.s32 %d, %a, %b, %c;", 4, 1, 0},
                {"mad24.hi.sat.s32 %d, %a, %b, %c;", 4, 1, 1}};
    device_open();
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; ++i) {
        type = &types[rows[i].type], is_high = rows[i].is_high, is_clamped = rows[i].is_clamped;
        run(rows[i].ptx, ISA_I32, ISA_I32, ISA_I32, ISA_I32, oracle_24);
    }
    device_close();
}

/* ---- carries ---- */

typedef struct carry_instruction {
    const char *name;
    int reads, writes; /* the carry */
    int sign;          /* of the second operand; 0: a product */
    int is_high;
} carry_instruction;

static const carry_instruction carry_instructions[] = {
    {"add.cc", 0, 1, 1, 0},    {"addc", 1, 0, 1, 0},       {"addc.cc", 1, 1, 1, 0},
    {"sub.cc", 0, 1, -1, 0},   {"subc", 1, 0, -1, 0},      {"subc.cc", 1, 1, -1, 0},
    {"mad.lo.cc", 0, 1, 0, 0}, {"mad.hi.cc", 0, 1, 0, 1},  {"madc.lo", 1, 0, 0, 0},
    {"madc.hi", 1, 0, 0, 1},   {"madc.lo.cc", 1, 1, 0, 0}, {"madc.hi.cc", 1, 1, 0, 1},
};
enum { CARRY_INSTRUCTIONS = sizeof carry_instructions / sizeof carry_instructions[0] };
static const carry_instruction *carrying;

/* The carry before is bit 0 of c. The result, plus its carry or borrow: both change with every bit
 * of the operands. */
static uint64_t oracle_carry(uint64_t a, uint64_t b, uint64_t c)
{
    int bits = type->bits;
    wide mask = ((wide)1 << bits) - 1, before = carrying->reads ? c & 1 : 0, sum;
    if (carrying->sign > 0)
        sum = (wide)a + b + before;
    else if (carrying->sign < 0)
        sum = (wide)a - b - before;
    else
        sum = (extend(a, bits) * extend(b, bits) >> (carrying->is_high ? bits : 0) & mask) + c +
              before;
    wide after = carrying->writes ? sum >> bits & 1 : 0;
    return (uint64_t)((sum & mask) + (after << (bits / 2)));
}

/* The carry before is made of bit 0 of c, what is left afterwards goes into the result. */
static void run_carry(void)
{
    int bits = type->bits, is_product = carrying->sign == 0;
    const char *scratch = bits == 32 ? "%t" : "%o", *name = type->name;
    char setup[256], ptx[640], after[160] = "";
    /* all ones and bit 0 carry; zero less bit 0 borrows */
    if (carrying->sign < 0)
        snprintf(setup, sizeof setup, "and.b%d %s, %%c, 1; sub.cc.u%d %s, 0, %s;", bits, scratch,
                 bits, scratch, scratch);
    else
        snprintf(setup, sizeof setup, "and.b%d %s, %%c, 1; add.cc.u%d %s, %s, -1;", bits, scratch,
                 bits, scratch, scratch);
    if (carrying->writes && carrying->sign < 0)
        snprintf(after, sizeof after,
                 "subc.u%d %s, 0, 0; neg.s%d %s, %s; shl.b%d %s, %s, %d; add.u%d %%d, %%d, %s;",
                 bits, scratch, bits, scratch, scratch, bits, scratch, scratch, bits / 2, bits,
                 scratch);
    else if (carrying->writes)
        snprintf(after, sizeof after,
                 "addc.u%d %s, 0, 0; shl.b%d %s, %s, %d; add.u%d %%d, %%d, %s;", bits, scratch,
                 bits, scratch, scratch, bits / 2, bits, scratch);
    snprintf(ptx, sizeof ptx, "%s %s.%s %%d, %%a, %%b%s; %s", setup, carrying->name, name,
             is_product ? ", %c" : "", after);
    run(ptx, type->reg, type->reg, type->reg, type->reg, oracle_carry);
}

Test(isa_whole, carries_and_borrows_go_in_and_out)
{
    static const int carried[] = {3, 4, 6, 7};
    device_open();
    for (int i = 0; i < CARRY_INSTRUCTIONS; ++i) {
        carrying = &carry_instructions[i];
        for (int k = 0; k < 4; ++k) {
            type = &types[carried[k]];
            run_carry();
        }
    }
    device_close();
}
