/* isa_special.c: special registers, and generic addresses of every state space (PTX ISA
 * 10, 9.7.9.16 to 9.7.9.20). */
#include <criterion/criterion.h>
#include <string.h>

#include "access_kernel.h"
#include "device.h"

/* ---- special registers: grids and blocks of three dimensions ---- */

enum { THREADS = 5 * 3 * 4, BLOCKS = 3 * 2 * 2, MOST_SPECIALS = 64, DYNAMIC_SHARED = 300 };
static const unsigned block[3] = {5, 3, 4}, grid[3] = {3, 2, 2};

typedef struct place {
    unsigned thread, block; /* in order */
    unsigned tid[3], ctaid[3], lane;
} place;

static uint32_t component(const unsigned *values, char name)
{
    return name == 'w' ? 0 : values[name - 'x'];
}

static int attribute(CUdevice_attribute which)
{
    int value = 0;
    cr_assert_eq(cuDeviceGetAttribute(&value, which, 0), CUDA_SUCCESS);
    return value;
}

/* Lanes below this one, and so on. */
static uint32_t lane_mask(const char *which, unsigned lane)
{
    uint32_t own = 1u << lane, below = own - 1;
    return strcmp(which, "eq") == 0   ? own
           : strcmp(which, "lt") == 0 ? below
           : strcmp(which, "le") == 0 ? below | own
           : strcmp(which, "gt") == 0 ? ~(below | own)
                                      : ~below;
}

static const char *const vectors[] = {"%tid",           "%ntid",          "%ctaid",
                                      "%nctaid",        "%clusterid",     "%nclusterid",
                                      "%cluster_ctaid", "%cluster_nctaid"};
static const char *const scalars[] = {"%laneid",      "%warpid",          "%nwarpid",
                                      "%nsmid",       "%cluster_ctarank", "%cluster_nctarank",
                                      "%lanemask_eq", "%lanemask_lt",     "%lanemask_le",
                                      "%lanemask_gt", "%lanemask_ge",     "%dynamic_smem_size"};
enum { VECTORS = sizeof vectors / sizeof vectors[0], SCALARS = sizeof scalars / sizeof scalars[0] };

/* A launch without clusters has clusters of one block. */
static uint32_t expected_vector(int which, char name, const place *at)
{
    static const unsigned zeros[3] = {0, 0, 0}, ones[3] = {1, 1, 1};
    const unsigned *const values[VECTORS] = {at->tid,   block, at->ctaid, grid,
                                             at->ctaid, grid,  zeros,     ones};
    return component(values[which], name);
}

static uint32_t expected_scalar(int which, const place *at)
{
    switch (which) {
    case 0:
        return at->lane;
    case 1:
        return at->thread / 32;
    case 2:
        return (uint32_t)attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR) / 32;
    case 3:
        return (uint32_t)attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
    case 4:
        return 0;
    case 5:
        return 1;
    case SCALARS - 1:
        return DYNAMIC_SHARED;
    default:
        return lane_mask(scalars[which] + strlen("%lanemask_"), at->lane);
    }
}

/* Words of a thread: the vectors' components, the scalars, and what has no single value. */
enum { OTHERS = 4 * VECTORS + SCALARS, WORDS = OTHERS + 24 };

static void write_kernel(ptx_text *t)
{
    emit(
        t,
        ".version 9.0\n.target sm_100\n.address_size 64\n.visible .entry kernel(.param .u64 "
        "pout)\n{\n"
        ".shared .align 4 .b8 fixed[20]; .reg .b64 %%rd<8>; .reg .b32 %%r<8>; .reg .pred %%p<2>;\n"
        "mov.u32 %%r0, fixed; mov.u32 %%r1, 7; st.shared.b32 [%%r0], %%r1; ld.param.u64 %%rd0, "
        "[pout];\n"
        "mov.u32 %%r2, %%tid.z; mad.lo.u32 %%r1, %%r2, 3, 0; mov.u32 %%r2, %%tid.y; add.u32 %%r1, "
        "%%r1, %%r2;\n"
        "mul.lo.u32 %%r1, %%r1, 5; mov.u32 %%r2, %%tid.x; add.u32 %%r1, %%r1, %%r2;\n"
        "mov.u32 %%r2, %%ctaid.z; mul.lo.u32 %%r2, %%r2, 2; mov.u32 %%r3, %%ctaid.y; add.u32 %%r2, "
        "%%r2, %%r3;\n"
        "mul.lo.u32 %%r2, %%r2, 3; mov.u32 %%r3, %%ctaid.x; add.u32 %%r2, %%r2, %%r3;\n"
        "mad.lo.u32 %%r1, %%r2, %d, %%r1; mad.wide.u32 %%rd0, %%r1, %d, %%rd0;\nBODY:\n",
        THREADS, 4 * WORDS);
    for (int i = 0; i < 4 * VECTORS; ++i)
        emit(t, "mov.u32 %%r1, %s.%c; st.global.b32 [%%rd0+%d], %%r1;\n", vectors[i / 4],
             "xyzw"[i % 4], 4 * i);
    for (int i = 0; i < SCALARS; ++i)
        emit(t, "mov.u32 %%r1, %s; st.global.b32 [%%rd0+%d], %%r1;\n", scalars[i],
             16 * VECTORS + 4 * i);
    static const char *const others[] = {"u64 %gridid",
                                         "u64 %clock64",
                                         "u64 %clock64",
                                         "u64 %globaltimer",
                                         "u64 %globaltimer",
                                         "u32 %clock",
                                         "u32 %clock",
                                         "u32 %clock_hi",
                                         "u32 %globaltimer_lo",
                                         "u32 %globaltimer_hi",
                                         "u32 %smid",
                                         "u32 %total_smem_size",
                                         "u32 %aggr_smem_size",
                                         "u32 %reserved_smem_offset_begin",
                                         "u32 %reserved_smem_offset_end",
                                         "u32 %reserved_smem_offset_cap",
                                         "u32 %reserved_smem_offset_0",
                                         "u32 %reserved_smem_offset_1"};
    int at = 4 * OTHERS + OTHERS % 2 * 4;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; ++i) {
        int is_wide = strncmp(others[i], "u64", 3) == 0;
        const char *reg = is_wide ? "%rd1" : "%r1";
        emit(t, "mov.%.3s %s, %s; st.global.%.3s [%%rd0+%d], %s;\n", others[i], reg, others[i] + 4,
             others[i], at, reg);
        at += is_wide ? 8 : 4;
    }
    emit(t,
         "mov.pred %%p0, %%is_explicit_cluster; selp.b32 %%r1, 1, 0, %%p0; st.global.b32 "
         "[%%rd0+%d], %%r1;\n"
         "BODY_END:\nret;\n}\n",
         at);
}

typedef struct others {
    uint64_t gridid, clock64[2], globaltimer[2];
    uint32_t clock[2], clock_hi, globaltimer_lo, globaltimer_hi, smid;
    uint32_t total_shared, aggregate_shared, reserved_begin, reserved_end, reserved_cap,
        reserved_offsets[2], is_explicit_cluster;
} others;

/* Times do not run backwards; the parts of one are parts of it. The total of shared memory is a
 * multiple of the unit in which it is given out. The ISA says that the aggregate has what the
 * kernel has asked for and what is reserved; not whether units of either are whole ones, and an
 * H200's are not those of the total. */
static void check_others(const others *o)
{
    uint32_t shared = (20 + DYNAMIC_SHARED + 127) / 128 * 128;
    cr_expect(o->clock64[1] >= o->clock64[0] && o->clock[1] - o->clock[0] < 1u << 31);
    cr_expect(o->clock_hi >= o->clock64[0] >> 32 && o->globaltimer[1] >= o->globaltimer[0]);
    cr_expect(((uint64_t)o->globaltimer_hi << 32 | o->globaltimer_lo) >= o->globaltimer[0]);
    cr_expect(((uint64_t)o->globaltimer_hi << 32 | o->globaltimer_lo) - o->globaltimer[0] <
              60000000000u);
    cr_expect_lt(o->smid, (uint32_t)attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT));
    cr_expect_eq(o->total_shared, shared, "%u bytes of shared memory, expected %u", o->total_shared,
                 shared);
    uint32_t reserved = o->reserved_end - o->reserved_begin;
    cr_expect(o->aggregate_shared >= 20 + DYNAMIC_SHARED + reserved, "%u bytes in all, %u reserved",
              o->aggregate_shared, reserved);
    if (device_is_emulated())
        cr_expect_eq(o->aggregate_shared, shared + reserved);
    cr_expect(o->reserved_begin <= o->reserved_end &&
              o->reserved_end - o->reserved_begin <= o->reserved_cap);
    for (int i = 0; i < 2; ++i)
        cr_expect(o->reserved_offsets[i] >= o->reserved_begin &&
                  o->reserved_offsets[i] < o->reserved_end);
    cr_expect_eq(o->is_explicit_cluster, 0);
}

static void check_thread(const uint32_t *words, unsigned thread, unsigned in_block)
{
    place at = {thread,
                in_block,
                {thread % 5, thread / 5 % 3, thread / 15},
                {in_block % 3, in_block / 3 % 2, in_block / 6},
                thread % 32};
    others o;
    for (int i = 0; i < 4 * VECTORS; ++i) {
        uint32_t wanted = expected_vector(i / 4, "xyzw"[i % 4], &at);
        cr_expect_eq(words[i], wanted, "%s.%c of thread %u: %u, expected %u", vectors[i / 4],
                     "xyzw"[i % 4], thread, words[i], wanted);
    }
    for (int i = 0; i < SCALARS; ++i) {
        uint32_t wanted = expected_scalar(i, &at);
        cr_expect_eq(words[4 * VECTORS + i], wanted, "%s of thread %u: 0x%x, expected 0x%x",
                     scalars[i], thread, words[4 * VECTORS + i], wanted);
    }
    memcpy(&o, words + OTHERS + OTHERS % 2, sizeof o);
    check_others(&o);
}

static uint64_t launch(CUfunction function, CUdeviceptr device_out)
{
    static uint32_t out[BLOCKS * THREADS][WORDS];
    void *arguments[] = {&device_out};
    cr_assert_eq(cuLaunchKernel(function, grid[0], grid[1], grid[2], block[0], block[1], block[2],
                                DYNAMIC_SHARED, NULL, arguments, NULL),
                 CUDA_SUCCESS);
    cr_assert_eq(cuCtxSynchronize(), CUDA_SUCCESS);
    device_has_run();
    device_download(out, device_out, sizeof out);
    for (unsigned i = 0; i < BLOCKS * THREADS; ++i)
        check_thread(out[i], i % THREADS, i / THREADS);
    uint64_t gridid;
    memcpy(&gridid, out[0] + OTHERS + OTHERS % 2, sizeof gridid);
    return gridid;
}

Test(isa_special, registers_describe_the_thread_its_block_and_the_device)
{
    ptx_text text = {0};
    CUfunction function;
    write_kernel(&text);
    device_open();
    CUmodule module = device_load(text.at, "special registers");
    cr_assert_eq(cuModuleGetFunction(&function, module, "kernel"), CUDA_SUCCESS);
    CUdeviceptr device_out = device_alloc((size_t)BLOCKS * THREADS * WORDS * 4);
    uint64_t first = launch(function, device_out);
    cr_expect_neq(first, launch(function, device_out), "every grid has another %%gridid");
    cuMemFree(device_out);
    device_close();
}

/* ---- generic addresses ---- */

static const struct {
    const char *space,
        *variable; /* of cvta, and the name or register that holds an address in it */
} spaces[] = {
    {"global", "%rd0"},    {"shared", "shared"},   {"shared::cta", "shared"},    {"local", "own"},
    {"const", "constant"}, {"param", "parameter"}, {"param::entry", "parameter"}};
enum { SPACES = sizeof spaces / sizeof spaces[0], ROW = (2 + SPACES + 1) / 2 * 2 };

static const char *load_space(int i)
{
    return strncmp(spaces[i].space, "param", 5) == 0 ? "param" : spaces[i].space;
}

/* Kernel parameters are in the window of global memory, too. */
static uint64_t is_in(int address, const char *space)
{
    size_t length = strcspn(space, ":");
    if (strncmp(space, "global", 6) == 0 && strncmp(spaces[address].space, "param", 5) == 0)
        return 1;
    return strncmp(spaces[address].space, space, length) == 0;
}

static void write_address(ptx_text *t, int i)
{
    int is_writable = i < 4;
    emit(t, "mov.u64 %%rd4, %s; cvta.%s.u64 %%rd5, %%rd4; cvta.to.%s.u64 %%rd6, %%rd5;\n",
         spaces[i].variable, spaces[i].space, spaces[i].space);
    if (is_writable)
        emit(t, "mov.u64 %%rd7, %d; st.%s.u64 [%%rd4+8], %%rd7;\n", 1000 + i, spaces[i].space);
    emit(t,
         "ld.u64 %%rd8, [%%rd5+8]; ld.%s.u64 %%rd9, [%s+8]; sub.u64 %%rd8, %%rd8, %%rd9; "
         "sub.u64 %%rd6, "
         "%%rd6, %%rd4;\nst.global.v2.b64 [%%out+%d], {%%rd8, %%rd6};\n",
         load_space(i), spaces[i].variable, 8 * ROW * i);
    for (int k = 0; k < SPACES; ++k)
        emit(t,
             "isspacep.%s %%p0, %%rd5; selp.b64 %%rd7, 1, 0, %%p0; st.global.b64 "
             "[%%out+%d], %%rd7;\n",
             spaces[k].space, 8 * (ROW * i + 2 + k));
}

Test(isa_special, generic_addresses_name_the_same_bytes_and_their_space)
{
    static uint8_t in[ACCESS_LANES][ACCESS_BYTES];
    static uint64_t out[ACCESS_LANES][SPACES * ROW];
    ptx_text body = {0};
    for (int i = 0; i < SPACES; ++i)
        write_address(&body, i);
    for (int i = 0; i < ACCESS_LANES * ACCESS_BYTES; ++i)
        in[i / ACCESS_BYTES][i % ACCESS_BYTES] = (uint8_t)(3 * i + 1);
    access_run("cvta", &body, in[0], ACCESS_BYTES, (uint8_t *)out, sizeof out[0]);
    for (int i = 0; i < SPACES; ++i) {
        const uint64_t *row = &out[5][ROW * i];
        cr_expect(row[0] == 0 && row[1] == 0, "cvta.%s and back", spaces[i].space);
        for (int k = 0; k < SPACES; ++k)
            cr_expect_eq(row[2 + k], is_in(i, spaces[k].space), "isspacep.%s of %s: %d",
                         spaces[k].space, spaces[i].space, (int)row[2 + k]);
    }
}
