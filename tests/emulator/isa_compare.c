/* isa_compare.c: setp and set with every relation, combination and type (PTX ISA 9.7.6, 9.7.7). */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "device.h"
#include "isa.h"
#include "softfloat.h"

typedef struct compared_type {
    const char *name;
    isa_type operand;
    int bits;
    char class; /* untyped, unsigned, signed, float, pair of floats */
    const char *relations;
    int has_ftz;
} compared_type;

#define EQUALITY "eq ne"
#define ORDER    "eq ne lt le gt ge"
#define FLOATS   ORDER " equ neu ltu leu gtu geu num nan"

static const compared_type types[] = {
    {"b16", ISA_I16, 16, 'b', EQUALITY, 0},
    {"b32", ISA_I32, 32, 'b', EQUALITY, 0},
    {"b64", ISA_I64, 64, 'b', EQUALITY, 0},
    {"u16", ISA_I16, 16, 'u', ORDER " lo ls hi hs", 0},
    {"u32", ISA_I32, 32, 'u', ORDER " lo ls hi hs", 0},
    {"u64", ISA_I64, 64, 'u', ORDER " lo ls hi hs", 0},
    {"s16", ISA_I16, 16, 's', ORDER, 0},
    {"s32", ISA_I32, 32, 's', ORDER, 0},
    {"s64", ISA_I64, 64, 's', ORDER, 0},
    {"f16", ISA_F16, 16, 'f', FLOATS, 1},
    {"bf16", ISA_BF16, 16, 'f', FLOATS, 0},
    {"f32", ISA_F32, 32, 'f', FLOATS, 1},
    {"f64", ISA_F64, 64, 'f', FLOATS, 0},
    {"f16x2", ISA_F16X2, 16, 'p', FLOATS, 1},
    {"bf16x2", ISA_BF16X2, 16, 'p', FLOATS, 0},
};
enum { TYPES = sizeof types / sizeof types[0] };

/* What set writes into a destination of its first type for true. */
typedef struct set_result {
    const char *name;
    isa_type type;
    uint64_t one;
    const char *sources;
} set_result;

#define INTEGERS "b16 b32 b64 u16 u32 u64 s16 s32 s64"
static const set_result results[] = {
    {"u16", ISA_I16, 0xffff, "f16 bf16"},
    {"s16", ISA_I16, 0xffff, "f16 bf16"},
    {"u32", ISA_I32, 0xffffffff, INTEGERS " f16 bf16 f32 f64 f16x2 bf16x2"},
    {"s32", ISA_I32, 0xffffffff, INTEGERS " f16 bf16 f32 f64 f16x2 bf16x2"},
    {"f32", ISA_I32, 0x3f800000, INTEGERS " f32 f64"},
    {"f16", ISA_I16, 0x3c00, INTEGERS " f16 f32 f64"},
    {"bf16", ISA_I16, 0x3f80, INTEGERS " f16 bf16 f32 f64"},
    {"f16x2", ISA_I32, 0x3c00, "f16x2"},
    {"bf16x2", ISA_I32, 0x3f80, "bf16x2"},
};
enum { RESULTS = sizeof results / sizeof results[0] };

static const char *const combinations[] = {"", ".and", ".or", ".xor"};
enum { COMBINATIONS = sizeof combinations / sizeof combinations[0] };

/* The case that runs. */
static const compared_type *type;
static const set_result *result;
static char relation[4];
static int combination, flushes;

static int is_listed(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = list; *at; at += strcspn(at, " "), at += *at == ' ') {
        if (strcspn(at, " ") == length && strncmp(at, name, length) == 0)
            return 1;
    }
    return 0;
}

/* .ftz takes subnormal numbers for zeros of their sign. */
static double float_value(uint64_t bits)
{
    int is_f16 = strncmp(type->name, "f16", 3) == 0;
    double value = is_f16             ? format_to_double(format_f16, bits)
                   : type->bits == 16 ? format_to_double(format_bf16, bits)
                   : type->bits == 32 ? (double)float_of(bits)
                                      : double_of(bits);
    double least_normal = is_f16 ? 0x1p-14 : 0x1p-126;
    return flushes && fabs(value) < least_normal ? copysign(0.0, value) : value;
}

/* -1, 0, 1; 2 where an operand is NaN. */
static int order_of(uint64_t a, uint64_t b)
{
    int unused = 64 - type->bits;
    a = a << unused >> unused, b = b << unused >> unused;
    if (type->class == 'f' || type->class == 'p') {
        double x = float_value(a), y = float_value(b);
        return isnan(x) || isnan(y) ? 2 : (x > y) - (x < y);
    }
    if (type->class == 's') {
        int64_t x = (int64_t)(a << unused) >> unused, y = (int64_t)(b << unused) >> unused;
        return (x > y) - (x < y);
    }
    return (a > b) - (a < b);
}

static int holds(uint64_t a, uint64_t b)
{
    int order = order_of(a, b);
    if (strcmp(relation, "num") == 0 || strcmp(relation, "nan") == 0)
        return (order == 2) == (strcmp(relation, "nan") == 0);
    if (order == 2)
        return relation[2] == 'u';
    static const struct {
        const char *names;
        int less, equal, greater;
    } rows[] = {{"eq equ", 0, 1, 0},    {"ne neu", 1, 0, 1},    {"lt ltu lo", 1, 0, 0},
                {"le leu ls", 1, 1, 0}, {"gt gtu hi", 0, 0, 1}, {"ge geu hs", 0, 1, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; ++i) {
        if (is_listed(rows[i].names, relation))
            return order < 0 ? rows[i].less : order == 0 ? rows[i].equal : rows[i].greater;
    }
    cr_assert(0, "relation %s", relation);
    return 0;
}

/* The predicate of the combination is c, but for .or its negation. */
static int combine(int t, uint64_t c)
{
    switch (combination) {
    case 1:
        return t && c;
    case 2:
        return t || !c;
    case 3:
        return t != (int)c;
    default:
        return t;
    }
}

/* p, and twice q: the opposite of the relation, for pairs that of the upper elements. */
static uint64_t setp(uint64_t a, uint64_t b, uint64_t c)
{
    int first = holds(a, b), second = type->class == 'p' ? holds(a >> 16, b >> 16) : !first;
    return (uint64_t)(combine(first, c) + 2 * combine(second, c));
}

static uint64_t set(uint64_t a, uint64_t b, uint64_t c)
{
    if (type->class != 'p')
        return combine(holds(a, b), c) ? result->one : 0;
    uint64_t one = result->one & 0xffff;
    return (combine(holds(a, b), c) ? one : 0) |
           (combine(holds(a >> 16, b >> 16), c) ? one << 16 : 0);
}

static const char *third_operand(void)
{
    return combination == 0 ? "" : combination == 2 ? ", !%q" : ", %q";
}

static void run_setp(void)
{
    char ptx[256];
    snprintf(ptx, sizeof ptx,
             "setp.ne.u32 %%q, %%c, 0; setp.%s%s%s.%s %%p|%%s, %%a, %%b%s; selp.b32 %%d, 1, 0, "
             "%%p; selp.b32 %%t, 2, 0, %%s; add.u32 %%d, %%d, %%t;",
             relation, combinations[combination], flushes ? ".ftz" : "", type->name,
             third_operand());
    isa_case test = {.ptx = ptx,
                     .d = ISA_I32,
                     .a = type->operand,
                     .b = type->operand,
                     .c = ISA_BIT,
                     .oracle = setp};
    isa_run(&test, 1);
}

static void run_set(void)
{
    char ptx[256];
    snprintf(ptx, sizeof ptx, "setp.ne.u32 %%q, %%c, 0; set.%s%s%s.%s.%s %%d, %%a, %%b%s;",
             relation, combinations[combination], flushes ? ".ftz" : "", result->name, type->name,
             third_operand());
    isa_case test = {.ptx = ptx,
                     .d = result->type,
                     .a = type->operand,
                     .b = type->operand,
                     .c = ISA_BIT,
                     .oracle = set};
    isa_run(&test, 1);
}

/* Every relation, combination and .ftz of the type. */
static void for_each_relation(void (*run)(void), int has_ftz)
{
    for (const char *at = type->relations; *at; at += strcspn(at, " "), at += *at == ' ') {
        snprintf(relation, sizeof relation, "%.*s", (int)strcspn(at, " "), at);
        for (combination = 0; combination < COMBINATIONS; ++combination) {
            for (flushes = 0; flushes <= has_ftz; ++flushes)
                run();
        }
    }
}

Test(isa_compare, setp_gives_the_relation_and_its_opposite_combined_with_a_predicate)
{
    device_open(); /* once for all cases */
    for (type = types; type < types + TYPES; ++type)
        for_each_relation(run_setp, type->has_ftz);
    device_close();
}

Test(isa_compare, set_gives_ones_or_one_in_the_type_of_its_destination)
{
    device_open();
    for (result = results; result < results + RESULTS; ++result) {
        for (type = types; type < types + TYPES; ++type) {
            /* .ftz is not for bf16 */
            int has_ftz = type->has_ftz && strcmp(result->name, "bf16") != 0;
            if (is_listed(result->sources, type->name))
                for_each_relation(run_set, has_ftz);
        }
    }
    device_close();
}
