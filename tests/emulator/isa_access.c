/* isa_access.c: ld, ldu and st of every type and vector in every state space (PTX ISA 9.7.9.8
 * to 9.7.9.12). */
#include <criterion/criterion.h>
#include <string.h>

#include "access_kernel.h"
#include "device.h"

enum { WORDS = ACCESS_BYTES / 8 };

static const int counts[] = {1, 2, 4, 8};
enum { COUNTS = sizeof counts / sizeof counts[0] };

/* Bytes with every bit pattern, other ones in each lane. */
static void fill(uint8_t in[ACCESS_LANES][ACCESS_BYTES])
{
    uint32_t state = 2463534242u;
    for (int i = 0; i < ACCESS_LANES * ACCESS_BYTES; ++i) {
        state ^= state << 13, state ^= state >> 17, state ^= state << 5;
        in[i / ACCESS_BYTES][i % ACCESS_BYTES] = (uint8_t)(state >> 11);
    }
}

static void write_vector_word(ptx_text *t, int count)
{
    if (count > 1)
        emit(t, ".v%d", count);
}

/* ---- loads ---- */

/* Copies the 64 bytes of a lane into another space. */
#define COPY_WORDS(space, address)                                                                 \
    "{ .reg .b64 %w, %i, %from, %to; .reg .pred %go; mov.u64 %i, 0; mov.u64 %from, %rd0; mov.u64 " \
    "%to, " address ";\n"                                                                          \
    "AGAIN: ld.global.b64 %w, [%from]; st." space                                                  \
    ".b64 [%to], %w; add.u64 %from, %from, 8; add.u64 %to, %to, 8;\n"                              \
    "add.u64 %i, %i, 8; setp.lt.u64 %go, %i, 64; @%go bra AGAIN; }\n"
#define CALL                                                                                       \
    ".param .align 64 .b8 given[64]; .param .align 64 .b8 returned[64];\n"                         \
    "{ .reg .b64 %w; .reg .b64 %v; ld.global.v2.b64 {%w, %v}, [%rd0]; st.param.v2.b64 [given], "   \
    "{%w, %v};\n"                                                                                  \
    "ld.global.v2.b64 {%w, %v}, [%rd0+16]; st.param.v2.b64 [given+16], {%w, %v};\n"                \
    "ld.global.v2.b64 {%w, %v}, [%rd0+32]; st.param.v2.b64 [given+32], {%w, %v};\n"                \
    "ld.global.v2.b64 {%w, %v}, [%rd0+48]; st.param.v2.b64 [given+48], {%w, %v}; }\n"              \
    "call.uni (returned), copy, (given);\n"

static const access_place sources[] = {
    {".global", "%rd0", "", 1, 0},
    {".global.nc", "%rd0", "", 1, 0},
    {"", "%rd1", "cvta.global.u64 %rd1, %rd0;\n", 1, 0},
    {"", "%rd1", COPY_WORDS("shared", "%rd2") "cvta.shared.u64 %rd1, %rd2;\n", 0, 0},
    {"", "%rd1", COPY_WORDS("local", "own") "mov.u64 %rd1, own; cvta.local.u64 %rd1, %rd1;\n", 0,
     0},
    {"", "%rd1", "mov.u64 %rd1, constant; cvta.const.u64 %rd1, %rd1;\n", 0, 1},
    {".const", "constant", "", 0, 1},
    {".shared", "%rd2", COPY_WORDS("shared", "%rd2"), 0, 0},
    {".shared::cta", "%rd2", COPY_WORDS("shared::cta", "%rd2"), 0, 0},
    {".local", "own", COPY_WORDS("local", "own"), 0, 0},
    {".param", "parameter", "", 0, 1},
    {".param::entry", "parameter", "", 0, 1},
    {".param::func", "returned", CALL, 0, 0},
};
enum { SOURCES = sizeof sources / sizeof sources[0] };

/* What a register of 64 bits holds of an element: narrower types are extended by their sign or by
 * zeros. */
static uint64_t loaded(const access_type *type, const uint8_t *bytes)
{
    uint64_t value = 0;
    int size = type->bytes > 8 ? 8 : type->bytes;
    memcpy(&value, bytes, (size_t)size);
    if (type->class == 's')
        value = (uint64_t)((int64_t)(value << (64 - 8 * size)) >> (64 - 8 * size));
    return value;
}

static void write_load(ptx_text *t, const char *opcode, const access_place *place,
                       const access_type *type, int count, int offset)
{
    emit(t, "%s%s", opcode, place->space);
    write_vector_word(t, count);
    emit(t, ".%s ", type->name);
    access_registers(t, type, count);
    emit(t, ", [%s+%d];\n", place->address, type->bytes * count);
    for (int i = 0; i < count; ++i)
        access_store_register(t, type, i, offset + i * (type->bytes == 16 ? 16 : 8));
}

static int slots(const access_type *type, int count)
{
    return count * (type->bytes == 16 ? 2 : 1);
}

static void check_loads(const char *opcode, const access_place *place, int count)
{
    static uint8_t in[ACCESS_LANES][ACCESS_BYTES];
    static uint64_t out[ACCESS_LANES][256];
    ptx_text body = {0};
    int words = 0;
    fill(in);
    emit(&body, "%s", place->setup);
    for (int k = 0; k < access_type_count; ++k) {
        if (access_fits(place, &access_types[k], count)) {
            write_load(&body, opcode, place, &access_types[k], count, 8 * words);
            words += slots(&access_types[k], count) + (words + slots(&access_types[k], count)) % 2;
        }
    }
    access_run(opcode, &body, in[0], ACCESS_BYTES, (uint8_t *)out, (size_t)words * 8);
    const uint64_t *got = out[0];
    for (int lane = 0; lane < ACCESS_LANES; ++lane) {
        for (int k = 0; k < access_type_count; ++k) {
            const access_type *type = &access_types[k];
            int n = slots(type, count), size = type->bytes == 16 ? 8 : type->bytes;
            if (!access_fits(place, type, count))
                continue;
            const uint8_t *bytes = &in[place->is_uniform ? 0 : lane][type->bytes * count];
            for (int i = 0; i < n; ++i)
                cr_assert(got[i] == loaded(type, bytes + i * size),
                          "%s%s.v%d.%s lane %d element %d: got 0x%lx, expected 0x%lx", opcode,
                          place->space, count, type->name, lane, i, got[i],
                          loaded(type, bytes + i * size));
            got += n + n % 2;
        }
    }
}

Test(isa_access, loads_take_the_bytes_of_every_type_in_every_space)
{
    device_open(); /* once for all kernels */
    for (int p = 0; p < SOURCES; ++p) {
        for (int c = 0; c < COUNTS; ++c)
            check_loads("ld", &sources[p], counts[c]);
    }
    device_close();
}

Test(isa_access, uniform_loads_are_loads_of_global_memory)
{
    static const access_place places[] = {{".global", "%rd0", "", 0, 0}, {"", "%rd0", "", 0, 0}};
    device_open();
    for (int p = 0; p < 2; ++p) {
        for (int c = 0; c < 3; ++c)
            check_loads("ldu", &places[p], counts[c]);
    }
    device_close();
}

/* ---- stores ---- */

static const access_place targets[] = {
    {".global", "%out", "", 1, 0},
    {"", "%rd1", "cvta.global.u64 %rd1, %out;\n", 1, 0},
    {"", "%rd1", "cvta.shared.u64 %rd1, %rd2;\n", 0, 0},
    {"", "%rd1", "mov.u64 %rd1, own; cvta.local.u64 %rd1, %rd1;\n", 0, 0},
    {".shared", "%rd2", "", 0, 0},
    {".shared::cta", "%rd2", "", 0, 0},
    {".local", "own", "", 0, 0},
    {".param", "given", "", 0, 0},
    {".param::func", "given", "", 0, 0},
};
enum { TARGETS = sizeof targets / sizeof targets[0] };

/* Fills the target with ones, stores, and copies all of it to %out + offset. */
static void write_store(ptx_text *t, const access_place *place, const access_type *type, int count,
                        int offset)
{
    int is_param = strncmp(place->space, ".param", 6) == 0;
    int is_out = strcmp(place->address, "%out") == 0 || strstr(place->setup, "%out");
    const char *at = place->address;
    int base = is_out ? offset : 0; /* where the copy ends up, too */
    emit(t, "{ .reg .b64 %%w; %s\n",
         is_param ? ".param .align 64 .b8 given[64]; .param .align 64 .b8 returned[64];" : "");
    for (int i = 0; i < WORDS; ++i)
        emit(t, "mov.b64 %%w, -1; st%s.b64 [%s+%d], %%w;\n", place->space, at, base + 8 * i);
    emit(t, "st%s", place->space);
    write_vector_word(t, count);
    emit(t, ".%s [%s+%d], ", type->name, at, base + type->bytes * count);
    access_registers(t, type, count);
    emit(t, ";\n%s", is_param ? "call.uni (returned), copy, (given);\n" : "");
    for (int i = 0; i < WORDS; ++i)
        emit(t, "ld%s.b64 %%w, [%s+%d]; st.global.b64 [%%out+%d], %%w;\n", place->space,
             is_param ? "returned" : at, base + 8 * i, offset + 8 * i);
    emit(t, "}\n");
}

/* Elements as registers of 64 bits from the lane's words: a store takes their low bytes. */
static void stored(uint8_t expected[ACCESS_BYTES], const access_type *type, int count,
                   const uint8_t *in)
{
    memset(expected, 0xff, ACCESS_BYTES);
    int stride = type->bytes == 16 ? 16 : 8;
    for (int i = 0; i < count; ++i)
        memcpy(expected + type->bytes * (count + i), in + stride * i, (size_t)type->bytes);
}

static void check_stores(const access_place *place, int count)
{
    static uint8_t in[ACCESS_LANES][ACCESS_BYTES], out[ACCESS_LANES * 15 * ACCESS_BYTES];
    ptx_text body = {0};
    int fitting = 0;
    fill(in);
    emit(&body, "%s", place->setup);
    for (int k = 0; k < access_type_count; ++k) {
        if (access_fits(place, &access_types[k], count)) {
            access_load_registers(&body, &access_types[k], count);
            write_store(&body, place, &access_types[k], count, ACCESS_BYTES * fitting++);
        }
    }
    access_run("st", &body, in[0], ACCESS_BYTES, out, (size_t)fitting * ACCESS_BYTES);
    const uint8_t *got = out;
    for (int lane = 0; lane < ACCESS_LANES; ++lane) {
        for (int k = 0; k < access_type_count; ++k) {
            uint8_t expected[ACCESS_BYTES];
            if (!access_fits(place, &access_types[k], count))
                continue;
            stored(expected, &access_types[k], count, in[lane]);
            cr_assert(memcmp(got, expected, ACCESS_BYTES) == 0, "st%s.v%d.%s lane %d", place->space,
                      count, access_types[k].name, lane);
            got += ACCESS_BYTES;
        }
    }
}

Test(isa_access, stores_write_the_bytes_of_every_type_and_no_others)
{
    device_open();
    for (int p = 0; p < TARGETS; ++p) {
        for (int c = 0; c < COUNTS; ++c)
            check_stores(&targets[p], counts[c]);
    }
    device_close();
}
