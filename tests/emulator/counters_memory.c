/*
 * counters_memory.c: sectors of global memory and wavefronts of shared memory, for addresses of
 * lanes that the test chooses, against counts from the definitions in docs/emulator.md.
 */
#include <criterion/criterion.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "counted.h"

enum { LANES = 32, BANKS = 32, WORD = 4, SECTOR = 32 };

/* Offsets of the lanes of a warp; `lanes` takes part. */
typedef struct pattern {
    uint32_t offsets[LANES], lanes;
} pattern;

/* ---- the definitions ------------------------------------------------------------------------ */

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

static unsigned count_distinct(uint32_t *values, unsigned count)
{
    unsigned distinct = 0;
    qsort(values, count, sizeof *values, compare);
    for (unsigned i = 0; i < count; i++)
        distinct += i == 0 || values[i] != values[i - 1];
    return distinct;
}

static unsigned sectors_of(const pattern *p)
{
    uint32_t sectors[LANES];
    unsigned count = 0;
    for (unsigned i = 0; i < LANES; i++) {
        if (p->lanes >> i & 1)
            sectors[count++] = p->offsets[i] / SECTOR;
    }
    return count_distinct(sectors, count);
}

/* The most distinct words that lanes first .. end - 1 want of one bank. */
static unsigned wavefronts_of_group(const pattern *p, unsigned bytes, unsigned first, unsigned end)
{
    unsigned most = 0;
    for (unsigned bank = 0; bank < BANKS; bank++) {
        uint32_t words[LANES * 4];
        unsigned count = 0;
        for (unsigned i = first; i < end; i++) {
            for (unsigned at = 0; p->lanes >> i & 1 && at < bytes; at += WORD) {
                uint32_t word = (p->offsets[i] + at) / WORD;
                if (word % BANKS == bank)
                    words[count++] = word;
            }
        }
        unsigned distinct = count_distinct(words, count);
        most = distinct > most ? distinct : most;
    }
    return most;
}

typedef struct cost {
    uint64_t wavefronts, excess;
} cost;

static cost shared_cost(const pattern *p, unsigned bytes)
{
    unsigned group = bytes <= WORD ? LANES : LANES * WORD / bytes;
    cost sum = {0, 0};
    for (unsigned first = 0; first < LANES; first += group) {
        unsigned wavefronts = wavefronts_of_group(p, bytes, first, first + group);
        sum.wavefronts += wavefronts;
        sum.excess += wavefronts ? wavefronts - 1 : 0;
    }
    return sum;
}

/* ---- patterns ------------------------------------------------------------------------------- */

static pattern strided(unsigned bytes, unsigned start)
{
    pattern p = {.lanes = ~0u};
    for (unsigned i = 0; i < LANES; i++)
        p.offsets[i] = start + i * bytes;
    return p;
}

/* Multiples of `bytes` below 4096. */
static pattern drawn(unsigned bytes, uint32_t *seed, int some)
{
    pattern p = {.lanes = ~0u};
    for (unsigned i = 0; i < LANES; i++) {
        *seed = *seed * 1664525u + 1013904223u;
        p.offsets[i] = *seed >> 16 & 4095 & ~(bytes - 1);
    }
    if (some)
        p.lanes = *seed | 1u << (*seed >> 27);
    return p;
}

/* ---- running an access ---------------------------------------------------------------------- */

/* %r0: the lane's offset; %p0: whether it takes part. */
#define LANE                                                                                       \
    "mul.wide.u32 %rd0, %thread, 4; add.u64 %rd0, %in, %rd0; ld.global.u32 %r0, [%rd0];\n"         \
    "ld.global.u32 %r1, [%in + 128]; shr.u32 %r1, %r1, %thread; and.b32 %r1, %r1, 1;\n"            \
    "setp.ne.u32 %p0, %r1, 0;\n"
#define GLOBAL_ADDRESS LANE "cvt.u64.u32 %rd1, %r0; add.u64 %rd1, %out, %rd1;\n"
#define SHARED_ADDRESS LANE "mov.u32 %r2, shared; add.u32 %r2, %r2, %r0;\n"
/* Initialises the first 4 KB: eight stores of 512 bytes. */
#define STORE_512(at)  "st.shared.v4.u32 [%r3 + " at "], {%r0, %r0, %r0, %r0};\n"
#define FILL                                                                                       \
    "shl.b32 %r3, %thread, 4; mov.u32 %r4, shared; add.u32 %r3, %r3, %r4;\n" STORE_512("0")        \
        STORE_512("512") STORE_512("1024") STORE_512("1536") STORE_512("2048") STORE_512("2560")   \
            STORE_512("3072") STORE_512("3584")
enum { LANE_REQUESTS = 2, LANE_SECTORS = 4 + 1, FILL_WAVEFRONTS = 8 * 4 };

static emu_counters run(const char *name, const char *body, const pattern *p)
{
    uint32_t in[COUNTED_WORDS] = {0};
    memcpy(in, p->offsets, sizeof p->offsets);
    in[LANES] = p->lanes;
    emu_counters found = counted_run(name, body, 1, LANES, in);
    found.global_requests -= LANE_REQUESTS;
    found.global_sectors -= LANE_SECTORS;
    return found;
}

static void expect_global(const char *name, const char *body, const pattern *p, uint64_t sectors)
{
    emu_counters found = run(name, body, p);
    cr_expect(found.global_requests == 1 && found.global_sectors == sectors,
              "%s: %" PRIu64 " requests, %" PRIu64 " sectors, wanted 1 and %" PRIu64, name,
              found.global_requests, found.global_sectors, sectors);
}

static void expect_shared(const char *name, const char *body, const pattern *p, cost wanted)
{
    emu_counters found = run(name, body, p);
    cr_expect(found.shared_wavefronts == wanted.wavefronts && found.shared_excess == wanted.excess,
              "%s: %" PRIu64 " wavefronts, %" PRIu64 " too many; wanted %" PRIu64 " and %" PRIu64,
              name, found.shared_wavefronts, found.shared_excess, wanted.wavefronts, wanted.excess);
}

/* ---- global memory -------------------------------------------------------------------------- */

static const struct access {
    const char *name, *global, *shared;
    unsigned bytes;
} accesses[] = {
    {"1 byte", "@%p0 st.global.u8 [%rd1], %r0;", "@%p0 st.shared.u8 [%r2], %r0;", 1},
    {"2 bytes", "@%p0 st.global.u16 [%rd1], %r0;", "@%p0 st.shared.u16 [%r2], %r0;", 2},
    {"4 bytes", "@%p0 ld.global.u32 %r5, [%rd1];", "@%p0 st.shared.u32 [%r2], %r0;", 4},
    {"8 bytes", "@%p0 ld.global.u64 %rd2, [%rd1];", "@%p0 st.shared.u64 [%r2], %rd0;", 8},
    {"16 bytes", "@%p0 st.global.v4.u32 [%rd1], {%r0, %r0, %r0, %r0};",
     "@%p0 st.shared.v2.u64 [%r2], {%rd0, %rd0};", 16},
    {"an atomic operation", "@%p0 red.global.add.u32 [%rd1], 1;",
     "@%p0 red.shared.or.b32 [%r2], 1;", 4},
};
enum { ACCESSES = sizeof accesses / sizeof accesses[0] };

static char *body_of(const char *address, const char *access)
{
    static char body[4096];
    snprintf(body, sizeof body, "%s%s", address, access);
    return body;
}

Test(counters, the_sectors_of_a_request_are_those_its_lanes_touch)
{
    static const struct {
        unsigned stride, start, access;
        uint64_t sectors;
    } cases[] = {
        {4, 0, 2, 4},                                     /* coalesced */
        {4, 4, 2, 5},                                     /* not aligned to a sector */
        {8, 0, 2, 8},   {32, 0, 2, 32},  {128, 0, 2, 32}, /* one each */
        {0, 0, 2, 1},   {1, 0, 0, 1},    {2, 0, 1, 2},    {8, 0, 3, 8}, {8, 24, 3, 9},
        {16, 0, 4, 16}, {16, 16, 4, 17}, {32, 0, 4, 32},  {4, 0, 5, 4},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct access *a = &accesses[cases[i].access];
        char name[64];
        pattern p = strided(cases[i].stride, cases[i].start);
        snprintf(name, sizeof name, "%s, stride %u from %u", a->name, cases[i].stride,
                 cases[i].start);
        cr_assert_eq(sectors_of(&p), cases[i].sectors, "%s", name);
        expect_global(name, body_of(GLOBAL_ADDRESS, a->global), &p, cases[i].sectors);
    }
}

Test(counters, sectors_of_any_lanes_are_the_distinct_ones)
{
    uint32_t seed = 1;
    for (unsigned i = 0; i < 10 * ACCESSES; i++) {
        const struct access *a = &accesses[i % ACCESSES];
        pattern p = drawn(a->bytes, &seed, i >= 5 * ACCESSES);
        expect_global(a->name, body_of(GLOBAL_ADDRESS, a->global), &p, sectors_of(&p));
    }
    pattern none = strided(4, 0);
    none.lanes = 0;
    emu_counters found = run("no lane", body_of(GLOBAL_ADDRESS, accesses[2].global), &none);
    cr_expect_eq(found.global_requests, 0);
    cr_expect_eq(found.global_sectors, 0);
}

/* ---- shared memory -------------------------------------------------------------------------- */

Test(counters, bank_conflicts_are_counted_in_wavefronts)
{
    static const struct {
        unsigned stride, access;
        cost cost;
    } cases[] = {
        {4, 2, {1, 0}},     /* one word after the other */
        {8, 2, {2, 1}},     /* every second bank */
        {128, 2, {32, 31}}, /* one bank: stride 32 */
        {132, 2, {1, 0}},   /* stride 33 */
        {0, 2, {1, 0}},     /* a broadcast */
        {1, 0, {1, 0}},     {2, 1, {1, 0}}, {64, 1, {16, 15}},  {8, 3, {2, 0}},  {16, 3, {4, 2}},
        {128, 3, {32, 30}}, {0, 3, {2, 0}}, {16, 4, {4, 0}},    {32, 4, {8, 4}}, {128, 4, {32, 28}},
        {144, 4, {4, 0}},   {0, 4, {4, 0}}, {128, 5, {32, 31}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct access *a = &accesses[cases[i].access];
        char name[64];
        pattern p = strided(cases[i].stride, 0);
        cost defined = shared_cost(&p, a->bytes);
        snprintf(name, sizeof name, "%s, stride %u", a->name, cases[i].stride);
        cr_assert(memcmp(&defined, &cases[i].cost, sizeof defined) == 0, "%s", name);
        const char *fill = cases[i].access == 5 ? SHARED_ADDRESS FILL : SHARED_ADDRESS;
        if (cases[i].access == 5)
            defined.wavefronts += FILL_WAVEFRONTS;
        expect_shared(name, body_of(fill, a->shared), &p, defined);
    }
}

Test(counters, wavefronts_of_any_lanes_are_those_of_the_busiest_bank)
{
    uint32_t seed = 2;
    for (unsigned i = 0; i < 20 * ACCESSES; i++) {
        const struct access *a = &accesses[i % ACCESSES];
        pattern p = drawn(a->bytes, &seed, i >= 10 * ACCESSES);
        cost wanted = shared_cost(&p, a->bytes);
        wanted.wavefronts += FILL_WAVEFRONTS;
        expect_shared(a->name, body_of(SHARED_ADDRESS FILL, a->shared), &p, wanted);
    }
}

/* Rows of 64 bytes and of 128, as they lie and with their 16-byte pieces exchanged. */
static pattern matrix_rows(unsigned row_bytes, int swizzled)
{
    pattern p = {.lanes = ~0u};
    for (unsigned i = 0; i < LANES; i++) {
        unsigned row = i % 16, piece = i / 16;
        if (swizzled)
            piece ^= row_bytes == 128 ? row % 8 : row / 2 % 4;
        p.offsets[i] = row * row_bytes + piece * 16;
    }
    return p;
}

Test(counters, a_swizzle_takes_the_conflicts_from_matrices)
{
    static const char load[] =
        SHARED_ADDRESS FILL "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r5, %r6, %r7, %r8}, [%r2];";
    static const char store[] =
        SHARED_ADDRESS "stmatrix.sync.aligned.m8n8.x2.shared.b16 [%r2], {%r0, %r0};";
    static const struct {
        unsigned row_bytes;
        int swizzled;
        uint64_t wavefronts; /* of a matrix */
    } cases[] = {{128, 0, 8}, {128, 1, 1}, {64, 0, 4}, {64, 1, 1}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pattern p = matrix_rows(cases[i].row_bytes, cases[i].swizzled);
        uint64_t each = cases[i].wavefronts;
        expect_shared("ldmatrix", load, &p, (cost){FILL_WAVEFRONTS + 4 * each, 4 * (each - 1)});
        expect_shared("stmatrix", store, &p, (cost){2 * each, 2 * (each - 1)});
    }
}

/* ---- both at once --------------------------------------------------------------------------- */

Test(counters, an_asynchronous_copy_reads_sectors_and_writes_wavefronts)
{
    static const char copy[] =
        SHARED_ADDRESS "shl.b32 %r3, %thread, 4; cvt.u64.u32 %rd1, %r3; add.u64 %rd1, %out, %rd1;\n"
                       "cp.async.cg.shared.global [%r2], [%rd1], 16; cp.async.wait_all;";
    pattern p = strided(32, 0);
    emu_counters found = run("copy", copy, &p);
    cr_expect_eq(found.global_requests, 1);
    cr_expect_eq(found.global_sectors, 16);
    cr_expect_eq(found.shared_wavefronts, 8);
    cr_expect_eq(found.shared_excess, 4);
    /* lane i reads i % 17 bytes: 16 of the 17 sizes are a part of one request; lane 0 and 17 none
     */
    static const char parts[] =
        SHARED_ADDRESS "shl.b32 %r3, %thread, 4; cvt.u64.u32 %rd1, %r3; add.u64 %rd1, %out, %rd1;\n"
                       "rem.u32 %r4, %thread, 17;\n"
                       "cp.async.cg.shared.global [%r2], [%rd1], 16, %r4; cp.async.wait_all;";
    p = strided(16, 0);
    found = run("parts", parts, &p);
    cr_expect_eq(found.global_requests, 1);
    cr_expect_eq(found.global_sectors,
                 16); /* of 32 lanes, two a sector, none is alone in missing */
    cr_expect_eq(found.shared_wavefronts, 4);
    cr_expect_eq(found.shared_excess, 0);
}

Test(counters, generic_addresses_count_where_they_lead)
{
    /* the lanes below 16 read global memory, the others the shared word they wrote */
    static const char body[] =
        LANE "mov.u64 %rd2, shared; cvta.shared.u64 %rd2, %rd2; cvt.u64.u32 %rd1, %r0;\n"
             "add.u64 %rd2, %rd2, %rd1; st.u32 [%rd2], %r0; add.u64 %rd1, %out, %rd1;\n"
             "setp.lt.u32 %p1, %thread, 16; selp.u64 %rd3, %rd1, %rd2, %p1; ld.u32 %r5, [%rd3];";
    pattern p = strided(4, 0);
    emu_counters found = run("generic", body, &p);
    cr_expect_eq(found.global_requests, 1);
    cr_expect_eq(found.global_sectors, 2);
    cr_expect_eq(found.shared_wavefronts, 2);
    cr_expect_eq(found.shared_excess, 0);
}
