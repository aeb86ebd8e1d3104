/* isa_atomic.c: atom and red of every operation, type, vector and space; hints, orders and fences
 * (PTX ISA 9.7.9.8, 9.7.13.4 to 9.7.13.6). */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "access_kernel.h"
#include "device.h"
#include "softfloat.h"

/* ---- one operation on one element ---- */

typedef struct atomic_type {
    const char *name;
    int bytes;
    char class;  /* untyped, unsigned, signed, float */
    int element; /* bytes of a float: pairs have two */
    const float_format *format;
} atomic_type;

static const atomic_type types[] = {
    {"b16", 2, 'b', 2, NULL},          {"b32", 4, 'b', 4, NULL},
    {"b64", 8, 'b', 8, NULL},          {"b128", 16, 'b', 8, NULL},
    {"u32", 4, 'u', 4, NULL},          {"u64", 8, 'u', 8, NULL},
    {"s32", 4, 's', 4, NULL},          {"s64", 8, 's', 8, NULL},
    {"f32", 4, 'f', 4, NULL},          {"f64", 8, 'f', 8, NULL},
    {"f16", 2, 'f', 2, &format_f16},   {"bf16", 2, 'f', 2, &format_bf16},
    {"f16x2", 4, 'f', 2, &format_f16}, {"bf16x2", 4, 'f', 2, &format_bf16},
};
enum { TYPES = sizeof types / sizeof types[0] };

#define SHORTS "f16 bf16 f16x2 bf16x2"
typedef struct atomic_operation {
    const char *name;
    int reduces;                 /* red has it too */
    const char *types, *vectors; /* types of one element, and of several */
} atomic_operation;

static const atomic_operation operations[] = {
    {"and", 1, "b32 b64", ""},
    {"or", 1, "b32 b64", ""},
    {"xor", 1, "b32 b64", ""},
    {"exch", 0, "b32 b64 b128", ""},
    {"cas", 0, "b16 b32 b64 b128", ""},
    {"add", 1, "u32 s32 u64 f32 f64 " SHORTS, "f32 " SHORTS},
    {"min", 1, "u32 s32 u64 s64", SHORTS},
    {"max", 1, "u32 s32 u64 s64", SHORTS},
    {"inc", 1, "u32", ""},
    {"dec", 1, "u32", ""},
};
enum { OPERATIONS = sizeof operations / sizeof operations[0] };

static int is_listed(const char *list, const char *name)
{
    size_t length = strlen(name);
    for (const char *at = list; *at; at += strcspn(at, " "), at += *at == ' ') {
        if (strcspn(at, " ") == length && strncmp(at, name, length) == 0)
            return 1;
    }
    return 0;
}

static double float_value(const atomic_type *type, uint64_t bits)
{
    return type->element == 2   ? format_to_double(*type->format, bits & 0xffff)
           : type->element == 4 ? (double)float_of(bits)
                                : double_of(bits);
}

/* f32 in global memory flushes subnormal numbers. */
static uint64_t float_sum(const atomic_type *type, uint64_t a, uint64_t b, int flushes)
{
    if (type->element == 8)
        return bits_of_double(double_of(a) + double_of(b));
    if (type->element == 2)
        return format_from_double(*type->format,
                                  fma_to_odd(1.0, float_value(type, a), float_value(type, b)),
                                  ROUND_NEAREST);
    float x = float_of(a), y = float_of(b);
    if (flushes) {
        x = fabsf(x) < 0x1p-126f ? copysignf(0, x) : x;
        y = fabsf(y) < 0x1p-126f ? copysignf(0, y) : y;
    }
    float sum = x + y;
    return bits_of_float(flushes && fabsf(sum) < 0x1p-126f ? copysignf(0, sum) : sum);
}

static int is_less(const atomic_type *type, uint64_t a, uint64_t b)
{
    if (type->class == 'f')
        return float_value(type, a) < float_value(type, b);
    if (type->class == 's')
        return type->bytes == 4 ? (int32_t)a < (int32_t)b : (int64_t)a < (int64_t)b;
    return a < b;
}

/* What an element of at most 8 bytes becomes. */
static uint64_t changed(const char *operation, const atomic_type *type, uint64_t old, uint64_t b,
                        int flushes)
{
    switch (operation[0]) {
    case 'o':
        return old | b;
    case 'x':
        return old ^ b;
    case 'e':
        return b;
    case 'i':
        return old >= b ? 0 : old + 1;
    case 'd':
        return old == 0 || old > b ? b : old - 1;
    case 'm':
        return is_less(type, old, b) == (operation[1] == 'i') ? old : b;
    default:
        if (operation[1] == 'n')
            return old & b;
        return type->class == 'f' ? float_sum(type, old, b, flushes) : old + b;
    }
}

/* ---- a lane's operands: 16 bytes in memory, 16 to combine, 16 to exchange for cas ---- */

enum { OPERAND_BYTES = 16, LANE_BYTES = 3 * OPERAND_BYTES };

static uint32_t draw(void)
{
    static uint32_t state = 88172645u;
    state ^= state << 13, state ^= state >> 17, state ^= state << 5;
    return state;
}

/* Floats of moderate size and different magnitudes, sometimes subnormal ones. */
static uint64_t draw_element(const atomic_type *type)
{
    uint64_t bits = (uint64_t)draw() << 32 | draw();
    int is_subnormal = draw() % 8 == 0;
    if (type->class != 'f')
        return draw() % 4 ? bits : draw() % 3;
    if (type->element == 8)
        return (bits & 0x800fffffffffffff) | (uint64_t)(1020 + draw() % 6) << 52;
    if (type->element == 4)
        return (bits & 0x807fffff) | (is_subnormal ? 0 : (120 + draw() % 8) << 23);
    if (type->format == &format_f16)
        return (bits & 0x83ff) | (is_subnormal ? 0 : (12 + draw() % 5) << 10);
    return (bits & 0x807f) | (is_subnormal ? 0 : (120 + draw() % 8) << 7);
}

static void draw_lane(uint8_t in[LANE_BYTES], const atomic_type *type)
{
    size_t element = (size_t)type->element;
    for (size_t at = 0; at < LANE_BYTES; at += element) {
        uint64_t bits = draw_element(type);
        memcpy(in + at, &bits, element);
    }
    if (draw() % 2) /* cas finds what it compares with */
        memcpy(in + OPERAND_BYTES, in, OPERAND_BYTES);
}

/* ---- kernels ---- */

static const access_place places[] = {
    {".global", "%out", "", 1, 0},
    {"", "%rd1", "cvta.global.u64 %rd1, %out;\n", 1, 0},
    {"", "%rd1", "cvta.shared.u64 %rd1, %rd2;\n", 0, 0},
    {".shared", "%rd2", "", 0, 0},
    {".shared::cta", "%rd2", "", 0, 0},
};
enum { PLACES = sizeof places / sizeof places[0] };

typedef struct atomic_case {
    const char *opcode; /* "atom", "red" */
    const access_place *place;
    const atomic_operation *operation;
    const atomic_type *type;
    int count;
} atomic_case;

/* Registers %a.., %b.., %c..: an operand of each. */
static void write_operands(ptx_text *t, const atomic_case *c, const char *prefix)
{
    for (int i = 0; i < c->count; ++i)
        emit(t, "%s%%%s%d", i ? ", " : c->count > 1 ? "{" : "", prefix, i);
    emit(t, "%s", c->count > 1 ? "}" : "");
}

/* Loads or stores the registers of an operand. */
static void write_moves(ptx_text *t, const atomic_case *c, const char *prefix, const char *opcode,
                        const char *address)
{
    static const char *const sizes[] = {[2] = "b16", [4] = "b32", [8] = "b64", [16] = "b128"};
    for (int i = 0; i < c->count; ++i) {
        char at[48], reg[16];
        snprintf(at, sizeof at, "[%s+%d]", address, i * c->type->bytes);
        snprintf(reg, sizeof reg, "%%%s%d", prefix, i);
        int loads = opcode[0] == 'l';
        emit(t, "%s.global.%s %s, %s;\n", opcode, sizes[c->type->bytes], loads ? reg : at,
             loads ? at : reg);
    }
}

/* %out: memory, then what was returned. */
static void write_case(ptx_text *t, const atomic_case *c)
{
    static const char *const registers[] = {[2] = "b16", [4] = "b32", [8] = "b64", [16] = "b128"};
    int returns = strcmp(c->opcode, "atom") == 0;
    const char *reg = c->type->class == 'f' && c->type->element == 4   ? "f32"
                      : c->type->class == 'f' && c->type->element == 8 ? "f64"
                                                                       : registers[c->type->bytes];
    emit(t, "%s.reg .%s %%a<8>, %%b<8>, %%c<8>;\nld.global.v2.b64 {%%rd10, %%rd11}, [%%rd0];\n",
         c->place->setup, reg);
    emit(t, "st%s.b64 [%s], %%rd10; st%s.b64 [%s+8], %%rd11;\n", c->place->space, c->place->address,
         c->place->space, c->place->address);
    write_moves(t, c, "b", "ld", "%rd0+16");
    write_moves(t, c, "c", "ld", "%rd0+32");
    emit(t, "%s%s.%s%s", c->opcode, c->place->space, c->operation->name,
         c->type->format ? ".noftz" : "");
    if (c->count > 1)
        emit(t, ".v%d", c->count);
    emit(t, ".%s ", c->type->name);
    if (returns) {
        write_operands(t, c, "a");
        emit(t, ", ");
    }
    emit(t, "[%s], ", c->place->address);
    write_operands(t, c, "b");
    emit(t, "%s;\n", strcmp(c->operation->name, "cas") == 0 ? ", %c0" : "");
    emit(t,
         "ld%s.b64 %%rd10, [%s]; ld%s.b64 %%rd11, [%s+8]; st.global.v2.b64 [%%out], "
         "{%%rd10, %%rd11};\n",
         c->place->space, c->place->address, c->place->space, c->place->address);
    if (returns)
        write_moves(t, c, "a", "st", "%out+16");
}

/* The 16 bytes of memory afterwards. */
static void expect(uint8_t memory[OPERAND_BYTES], const atomic_case *c, const uint8_t *in)
{
    int is_global =
        strstr(c->place->setup, "shared") == NULL && strstr(c->place->space, "shared") == NULL;
    int total = c->count * c->type->bytes;
    memcpy(memory, in, OPERAND_BYTES);
    if (strcmp(c->operation->name, "cas") == 0) {
        if (memcmp(in, in + OPERAND_BYTES, (size_t)total) == 0)
            memcpy(memory, in + 2 * OPERAND_BYTES, (size_t)total);
        return;
    }
    for (int at = 0; at < total; at += c->type->element) {
        uint64_t old = 0, b = 0,
                 mask =
                     c->type->element == 8 ? UINT64_MAX : (UINT64_C(1) << 8 * c->type->element) - 1;
        memcpy(&old, in + at, (size_t)c->type->element);
        memcpy(&b, in + OPERAND_BYTES + at, (size_t)c->type->element);
        uint64_t now = changed(c->operation->name, c->type, old, b, is_global) & mask;
        memcpy(memory + at, &now, (size_t)c->type->element);
    }
}

static void check(const atomic_case *c)
{
    uint8_t in[ACCESS_LANES][LANE_BYTES + ACCESS_BYTES], out[ACCESS_LANES][2 * OPERAND_BYTES];
    ptx_text body = {0};
    memset(in, 0, sizeof in);
    for (int lane = 0; lane < ACCESS_LANES; ++lane)
        draw_lane(in[lane], c->type);
    write_case(&body, c);
    access_run(c->operation->name, &body, in[0], sizeof in[0], out[0], sizeof out[0]);
    for (int lane = 0; lane < ACCESS_LANES; ++lane) {
        uint8_t memory[OPERAND_BYTES];
        size_t total = (size_t)(c->count * c->type->bytes);
        expect(memory, c, in[lane]);
        cr_expect(memcmp(out[lane], memory, OPERAND_BYTES) == 0, "%s%s.%s.v%d.%s lane %d: memory",
                  c->opcode, c->place->space, c->operation->name, c->count, c->type->name, lane);
        cr_expect(c->opcode[0] == 'r' || memcmp(out[lane] + OPERAND_BYTES, in[lane], total) == 0,
                  "%s%s.%s.v%d.%s lane %d: result", c->opcode, c->place->space, c->operation->name,
                  c->count, c->type->name, lane);
    }
}

static void check_operation(const char *opcode, const access_place *place,
                            const atomic_operation *o)
{
    for (const atomic_type *type = types; type < types + TYPES; ++type) {
        for (int count = 1; count <= 8; count *= 2) {
            atomic_case c = {opcode, place, o, type, count};
            if (count * type->bytes <= OPERAND_BYTES && (count == 1 || place->is_wide) &&
                is_listed(count == 1 ? o->types : o->vectors, type->name))
                check(&c);
        }
    }
}

Test(isa_atomic, atom_returns_the_old_elements_and_leaves_the_new)
{
    device_open(); /* once for all kernels */
    for (int p = 0; p < PLACES; ++p) {
        for (int o = 0; o < OPERATIONS; ++o)
            check_operation("atom", &places[p], &operations[o]);
    }
    device_close();
}

Test(isa_atomic, red_leaves_the_new_elements)
{
    device_open();
    for (int p = 0; p < PLACES; ++p) {
        for (int o = 0; o < OPERATIONS; ++o) {
            if (operations[o].reduces)
                check_operation("red", &places[p], &operations[o]);
        }
    }
    device_close();
}
