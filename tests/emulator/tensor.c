/*
 * tensor.c: copies of boxes of tensors, against the formulas of PTX ISA 5.5 written out here; and
 * what an H200 does beyond them. Run with MMLP_EMULATOR_CHECK=race.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"
#include "softfloat.h"

enum { RANK = 5, SHARED = 65536, TARGET = 1024 };

/* A tensor of 16-bit numbers, and a box of it. */
typedef struct box {
    const char *name;
    int rank;
    cuuint64_t sizes[RANK], strides[RANK]; /* strides: bytes, of dimensions 1 and on */
    cuuint32_t extents[RANK], steps[RANK];
    int at[RANK];
    CUtensorMapSwizzle swizzle;
} box;

static const box boxes[] = {
    {"one dimension", 1, {100}, {0}, {64}, {1}, {16}, CU_TENSOR_MAP_SWIZZLE_NONE},
    {"the ragged end of one", 1, {100}, {0}, {64}, {1}, {56}, CU_TENSOR_MAP_SWIZZLE_NONE},
    {"rows with a pitch", 2, {40, 20}, {96}, {16, 8}, {1, 1}, {8, 5}, CU_TENSOR_MAP_SWIZZLE_NONE},
    {"outside at the low end",
     2,
     {40, 20},
     {80},
     {16, 8},
     {1, 1},
     {-8, -3},
     CU_TENSOR_MAP_SWIZZLE_NONE},
    {"outside at the high end",
     2,
     {40, 20},
     {80},
     {16, 8},
     {1, 1},
     {32, 17},
     CU_TENSOR_MAP_SWIZZLE_NONE},
    {"outside altogether", 2, {40, 20}, {80}, {16, 8}, {1, 1}, {40, 0}, CU_TENSOR_MAP_SWIZZLE_NONE},
    {"128 bytes swizzled",
     2,
     {128, 70},
     {256},
     {64, 64},
     {1, 1},
     {64, 3},
     CU_TENSOR_MAP_SWIZZLE_128B},
    {"64 bytes swizzled",
     2,
     {128, 70},
     {256},
     {32, 64},
     {1, 1},
     {40, 20},
     CU_TENSOR_MAP_SWIZZLE_64B},
    {"32 bytes swizzled", 2, {128, 70}, {256}, {16, 64}, {1, 1}, {8, 1}, CU_TENSOR_MAP_SWIZZLE_32B},
    {"every other row", 2, {64, 50}, {128}, {64, 30}, {1, 2}, {0, 9}, CU_TENSOR_MAP_SWIZZLE_128B},
    {"gate and up",
     3,
     {64, 24, 2},
     {128, 128 * 24},
     {64, 16, 2},
     {1, 1, 1},
     {0, 12, 0},
     CU_TENSOR_MAP_SWIZZLE_128B},
    {"four dimensions",
     4,
     {24, 5, 3, 4},
     {48, 240, 720},
     {16, 3, 2, 3},
     {1, 1, 1, 1},
     {8, 3, -1, 2},
     CU_TENSOR_MAP_SWIZZLE_NONE},
    {"five dimensions",
     5,
     {8, 3, 3, 3, 3},
     {16, 48, 144, 432},
     {8, 2, 2, 2, 2},
     {1, 1, 1, 1, 1},
     {0, 1, 2, 1, 0},
     CU_TENSOR_MAP_SWIZZLE_NONE},
    {"ragged rows", 2, {37, 20}, {96}, {16, 8}, {1, 1}, {32, 5}, CU_TENSOR_MAP_SWIZZLE_NONE},
    {"ragged rows, swizzled",
     2,
     {37, 20},
     {96},
     {64, 8},
     {1, 1},
     {0, 15},
     CU_TENSOR_MAP_SWIZZLE_128B},
    {"short of a ragged end",
     2,
     {37, 20},
     {96},
     {16, 8},
     {1, 1},
     {16, 5},
     CU_TENSOR_MAP_SWIZZLE_NONE},
    {"after a ragged end", 2, {37, 20}, {96}, {16, 8}, {1, 1}, {40, 5}, CU_TENSOR_MAP_SWIZZLE_NONE},
};
enum { BOXES = sizeof boxes / sizeof *boxes };

/* ---- the formulas ---------------------------------------------------------------------------- */

static size_t tensor_bytes(const box *b)
{
    size_t bytes = (2 * b->sizes[0] + 15) / 16 * 16;
    for (int i = 1; i < b->rank; i++)
        bytes = b->strides[i - 1] * b->sizes[i] > bytes ? b->strides[i - 1] * b->sizes[i] : bytes;
    return bytes;
}

static unsigned elements_along(const box *b, int i)
{
    return (b->extents[i] + b->steps[i] - 1) / b->steps[i];
}

static unsigned elements(const box *b)
{
    unsigned count = 1;
    for (int i = 0; i < b->rank; i++)
        count *= elements_along(b, i);
    return count;
}

/* The byte of the tensor that element `number` of the box has; -1: outside. What is written ends on
 * 16 bytes of its row. */
static long long global_offset(const box *b, unsigned number, bool is_written)
{
    long long offset = 0, inner = (long long)b->sizes[0];
    inner = is_written ? (inner + 7) / 8 * 8 : inner;
    for (int i = 0; i < b->rank; i++) {
        long long at = b->at[i] + (long long)(number % elements_along(b, i) * b->steps[i]);
        number /= elements_along(b, i);
        if (at < 0 || at >= (i ? (long long)b->sizes[i] : inner))
            return -1;
        offset += at * (i ? (long long)b->strides[i - 1] : 2);
    }
    return offset;
}

/* The shared address of element `number`: bits 4.. of the dense address, exclusive or its bits 7..
 */
static unsigned shared_address(const box *b, unsigned number)
{
    static const unsigned masks[] = {0, 1, 3, 7};
    unsigned address = TARGET + 2 * number;
    return address ^ (address >> 7 & masks[b->swizzle]) << 4;
}

/* ---- running --------------------------------------------------------------------------------- */

static CUtensorMap encode(const box *b, CUdeviceptr address, CUtensorMapDataType type)
{
    CUtensorMap map;
    cr_assert_eq(cuTensorMapEncodeTiled(
                     &map, type, (cuuint32_t)b->rank, (void *)address, b->sizes, b->strides,
                     b->extents, b->steps, CU_TENSOR_MAP_INTERLEAVE_NONE, b->swizzle,
                     CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
                 CUDA_SUCCESS, "%s", b->name);
    return map;
}

typedef enum action { LOAD, STORE, ADD, PREFETCH } action;

/* `copy`: with %map, the coordinates and the shared address %target. Shared memory from TARGET on
 * is `out` before (stores) or after (loads). */
static char *kernel_text(const box *b, action what, int form)
{
    bool loads = what == LOAD;
    char coordinates[128] = "", *text = NULL;
    for (int i = 0; i < b->rank; i++)
        sprintf(coordinates + strlen(coordinates), "%s%d", i ? ", " : "", b->at[i]);
    unsigned bytes = 2 * elements(b);
    const char *tile = form & 1 ? ".tile" : "", *space = form & 2 ? "cta" : "cluster";
    char copy[512];
    if (loads)
        snprintf(copy, sizeof copy,
                 "@%%first mbarrier.arrive.expect_tx.shared.b64 _, [room], %u;\n"
                 "@%%first "
                 "cp.async.bulk.tensor.%dd.shared::%s.global%s.mbarrier::complete_tx::bytes "
                 "[%%target], [%%map, {%s}], [room];\n"
                 "again: mbarrier.try_wait.parity.shared.b64 %%p, [room], 0; @!%%p bra again;\n",
                 bytes, b->rank, space, tile, coordinates);
    else if (what == PREFETCH)
        snprintf(copy, sizeof copy,
                 "@%%first cp.async.bulk.prefetch.tensor.%dd.L2.global%s [%%map, {%s}];\n", b->rank,
                 tile, coordinates);
    else
        snprintf(copy, sizeof copy,
                 "fence.proxy.async; bar.sync 0; @%%first "
                 "cp.%sasync.bulk.tensor.%dd.global.shared::cta%s"
                 "%s.bulk_group [%%map, {%s}], [%%target];\n@%%first cp.async.bulk.commit_group; "
                 "@%%first cp.async.bulk.wait_group 0;\n",
                 what == ADD ? "reduce." : "", b->rank, what == ADD ? ".add" : "", tile,
                 coordinates);
    int length = asprintf(
        &text,
        ".version 8.0\n.target sm_90\n.address_size 64\n"
        ".visible .entry kernel(.param .align 64 .b8 m[128], .param .u64 o)\n{\n"
        ".shared .align 1024 .b8 room[%d]; .reg .b64 %%map, %%o, %%at; .reg .b32 %%t, %%i, %%s, "
        "%%target, "
        "%%n; .reg .pred %%p, %%first, %%more; .reg .b16 %%h;\n"
        "mov.b64 %%map, m; cvta.param.u64 %%map, %%map; ld.param.u64 %%o, [o]; mov.u32 %%t, "
        "%%tid.x;\n"
        "mov.u32 %%s, room; add.u32 %%target, %%s, %d; setp.eq.u32 %%first, %%t, 0; mov.u32 %%n, "
        "%u;\n"
        "@%%first mbarrier.init.shared.b64 [room], 1; bar.sync 0;\nBODY:\n%s"
        "mov.u32 %%i, %%t;\n"
        "word: setp.lt.u32 %%more, %%i, %%n; @!%%more bra done; mad.lo.u32 %%s, %%i, 2, %%target; "
        "mul.wide.u32 %%at, %%i, 2; add.u64 %%at, %%at, %%o;\n%s add.u32 %%i, %%i, 64; bra word;\n"
        "done: %s BODY_END: ret;\n}\n",
        SHARED, TARGET, elements(b), loads ? copy : "",
        loads ? "ld.shared.u16 %h, [%s]; st.global.u16 [%at], %h;"
              : "ld.global.u16 %h, [%at]; st.shared.u16 [%s], %h;",
        loads ? "" : copy);
    cr_assert_gt(length, 0);
    return text;
}

static uint16_t number(size_t i)
{
    return (uint16_t)(i * 40503u + 1);
}

/* A buffer of 16-bit numbers, on host and device. */
typedef struct numbers {
    uint16_t *host;
    size_t bytes;
    CUdeviceptr device;
} numbers;

static numbers make(size_t bytes, uint16_t (*of)(size_t i))
{
    numbers n = {calloc(bytes + 2, 1), bytes, 0};
    cr_assert_not_null(n.host);
    for (size_t i = 0; i < bytes / 2; i++)
        n.host[i] = of(i);
    n.device = device_upload(n.host, bytes);
    return n;
}

/* form: bit 0, with .tile; bit 1, to .shared::cta instead of .shared::cluster. */
static CUresult run(const box *b, action what, int form, CUtensorMap *map, CUdeviceptr outside)
{
    char *text = kernel_text(b, what, form);
    CUmodule module = device_load(text, b->name);
    free(text);
    return device_try(module, "kernel", 1, 64, 0, (void *[]){map, &outside});
}

Test(tensor, a_box_is_loaded_where_the_formulas_say)
{
    for (int k = 0; k < 4 * BOXES; k++) {
        const box *b = &boxes[k / 4];
        int form = k % 4;
        device_open();
        numbers tensor = make(tensor_bytes(b), number), out = make(2 * elements(b), number);
        CUtensorMap map = encode(b, tensor.device, CU_TENSOR_MAP_DATA_TYPE_UINT16);
        cr_assert_eq(run(b, LOAD, form, &map, out.device), CUDA_SUCCESS, "%s\n%s", b->name,
                     device_last_report());
        device_download(out.host, out.device, out.bytes);
        for (unsigned i = 0; i < elements(b); i++) {
            long long from = global_offset(b, i, false);
            uint16_t wanted = from < 0 ? 0 : tensor.host[from / 2];
            uint16_t found = out.host[(shared_address(b, i) - TARGET) / 2];
            cr_assert_eq(found, wanted, "%s: element %u is %u, not %u", b->name, i, found, wanted);
        }
        free(tensor.host);
        free(out.host);
        device_close();
    }
}

/* What a store leaves in the tensor: of the box what shared memory had, the rest as it was. */
static void check_stored(const box *b, const numbers *before, const numbers *given,
                         uint16_t (*result)(uint16_t before, uint16_t given))
{
    uint16_t *found = calloc(before->bytes + 2, 1), *wanted = calloc(before->bytes + 2, 1);
    cr_assert(found && wanted);
    device_download(found, before->device, before->bytes);
    memcpy(wanted, before->host, before->bytes);
    for (unsigned i = 0; i < elements(b); i++) {
        long long to = global_offset(b, i, true);
        uint16_t value = given->host[(shared_address(b, i) - TARGET) / 2];
        if (to >= 0)
            wanted[to / 2] = result(before->host[to / 2], value);
    }
    for (size_t i = 0; i < before->bytes / 2; i++)
        cr_assert_eq(found[i], wanted[i], "%s: number %zu is %u, not %u", b->name, i, found[i],
                     wanted[i]);
    free(found);
    free(wanted);
}

static uint16_t given(uint16_t before, uint16_t value)
{
    (void)before;
    return value;
}

static uint16_t half_of(double value)
{
    return (uint16_t)format_from_double(format_f16, value, ROUND_NEAREST);
}

static uint16_t sum(uint16_t before, uint16_t value)
{
    return half_of(format_to_double(format_f16, before) + format_to_double(format_f16, value));
}

static uint16_t other_number(size_t i)
{
    return (uint16_t)(i * 12289u + 77);
}

static uint16_t half_number(size_t i)
{
    return half_of((double)(i * 40503u % 2001) - 1000);
}

static uint16_t other_half(size_t i)
{
    return half_of((double)(i * 12289u % 1301) / 8);
}

static bool begins_below_0(const box *b)
{
    bool below = false;
    for (int i = 0; i < b->rank; i++)
        below |= b->at[i] < 0;
    return below;
}

static void store_all(action what, CUtensorMapDataType type, uint16_t (*of)(size_t i),
                      uint16_t (*other)(size_t i),
                      uint16_t (*result)(uint16_t before, uint16_t given))
{
    for (int k = 0; k < 2 * BOXES; k++) {
        const box *b = &boxes[k / 2];
        int form = k % 2;
        if (begins_below_0(b))
            continue;
        device_open();
        numbers tensor = make(tensor_bytes(b), of), in = make(2 * elements(b), other);
        CUtensorMap map = encode(b, tensor.device, type);
        cr_assert_eq(run(b, what, form, &map, in.device), CUDA_SUCCESS, "%s\n%s", b->name,
                     device_last_report());
        check_stored(b, &tensor, &in, result);
        free(tensor.host);
        free(in.host);
        device_close();
    }
}

Test(tensor, a_box_is_stored_where_the_formulas_say_in_whole_16_bytes_and_nothing_else)
{
    store_all(STORE, CU_TENSOR_MAP_DATA_TYPE_UINT16, number, other_number, given);
}

Test(tensor, a_box_is_added_to_what_is_there)
{
    store_all(ADD, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, half_number, other_half, sum);
}

/* A tensor of 100 elements whose first `written` numbers are known, in so many bytes. */
static CUresult add_to_end(size_t bytes, size_t written)
{
    const box *b = &boxes[1];
    device_open();
    numbers in = make(2 * elements(b), other_half), start = make(2 * written, half_number);
    CUdeviceptr tensor = device_alloc(bytes);
    cr_assert_eq(cuMemcpyDtoD(tensor, start.device, start.bytes), CUDA_SUCCESS);
    CUtensorMap map = encode(b, tensor, CU_TENSOR_MAP_DATA_TYPE_FLOAT16);
    CUresult result = run(b, ADD, 0, &map, in.device);
    free(in.host);
    free(start.host);
    return result;
}

Test(tensor, padding_that_an_addition_changes_need_not_be_known_but_must_be_there)
{
    cr_expect_eq(add_to_end(208, 100), CUDA_SUCCESS, "%s", device_last_report());
    device_close();
    cr_expect_eq(add_to_end(208, 99), CUDA_ERROR_LAUNCH_FAILED);
    cr_expect(strstr(device_last_report(),
                     "a read of memory that was never written: 88 bytes at a global address"),
              "%s", device_last_report());
    device_close();
    cr_expect_eq(add_to_end(200, 100), CUDA_ERROR_ILLEGAL_ADDRESS);
    cr_expect(strstr(device_last_report(), "the access ends 8 bytes past its end"), "%s",
              device_last_report());
    device_close();
}

/* ---- what is wrong --------------------------------------------------------------------------- */

/* A box at (x, y) of a tensor of 40 x 20; NULL: nothing is wrong. */
typedef struct illegal {
    action what;
    CUtensorMapDataType type;
    int x, y;
    const char *report;
} illegal;

#define U8  CU_TENSOR_MAP_DATA_TYPE_UINT8
#define U16 CU_TENSOR_MAP_DATA_TYPE_UINT16
#define U32 CU_TENSOR_MAP_DATA_TYPE_UINT32
#define S64 CU_TENSOR_MAP_DATA_TYPE_INT64
#define F16 CU_TENSOR_MAP_DATA_TYPE_FLOAT16

#define INNER(name, x, byte)                                                                       \
    name " at the innermost coordinate " x ", byte " byte " of a row: a multiple of 16 bytes is "  \
         "wanted (CUDA_ERROR_ILLEGAL_INSTRUCTION)"
#define BELOW(name, at, dimension)                                                                 \
    name " to the coordinate " at " of dimension " dimension ": of what is written, 0 or more is " \
         "wanted (CUDA_ERROR_ILLEGAL_INSTRUCTION)"
#define TYPE(type)                                                                                 \
    "cp.reduce.async.bulk.tensor of .add with a tensor map of " type                               \
    ": u32, s32, u64 or floats are wanted (CUDA_ERROR_ILLEGAL_INSTRUCTION)"

static const illegal illegals[] = {
    {LOAD, U16, 7, 0, INNER("cp.async.bulk.tensor", "7", "14")},
    {LOAD, U16, 2147483647, 0, INNER("cp.async.bulk.tensor", "2147483647", "4294967294")},
    {LOAD, U8, -8, 0, INNER("cp.async.bulk.tensor", "-8", "-8")},
    {LOAD, U16, 100000, 0, NULL},
    {LOAD, U16, -8, -2147483647, NULL},
    {PREFETCH, U16, 100, 0, INNER("cp.async.bulk.prefetch.tensor", "100", "200")},
    {PREFETCH, U32, -1, 0, INNER("cp.async.bulk.prefetch.tensor", "-1", "-4")},
    {PREFETCH, U32, -4, -1, NULL},
    {STORE, U32, 2, 0, INNER("cp.async.bulk.tensor", "2", "8")},
    {STORE, U16, -8, 0, BELOW("cp.async.bulk.tensor", "-8", "0")},
    {STORE, U16, 0, -2147483647, BELOW("cp.async.bulk.tensor", "-2147483647", "1")},
    {STORE, U16, 100000, 100000, NULL},
    {ADD, U32, 3, 0, INNER("cp.reduce.async.bulk.tensor", "3", "12")},
    {ADD, U32, 0, -1, BELOW("cp.reduce.async.bulk.tensor", "-1", "1")},
    {ADD, F16, 8, 8, NULL},
    {ADD, U8, 0, 0, TYPE("u8")},
    {ADD, U16, 0, 0, TYPE("u16")},
    {ADD, S64, 0, 0, TYPE("s64")},
};

Test(tensor, coordinates_and_types_that_the_hardware_refuses_are_illegal_instructions)
{
    for (size_t i = 0; i < sizeof illegals / sizeof *illegals; i++) {
        const illegal *c = &illegals[i];
        box b = {"illegal", 2, {40, 20}, {320}, {16, 8}, {1, 1}, {c->x, c->y}, 0};
        device_open();
        numbers tensor = make(320 * 20, number), other = make(2048, number);
        CUtensorMap map = encode(&b, tensor.device, c->type);
        CUresult wanted = c->report ? CUDA_ERROR_ILLEGAL_INSTRUCTION : CUDA_SUCCESS,
                 found = run(&b, c->what, 0, &map, other.device);
        cr_expect_eq(found, wanted, "case %zu: %d, not %d\n%s", i, (int)found, (int)wanted,
                     device_last_report());
        if (c->report)
            cr_expect(strstr(device_last_report(), c->report), "case %zu: %s", i,
                      device_last_report());
        free(tensor.host);
        free(other.host);
        device_close();
    }
}

Test(tensor, a_map_that_is_none_or_has_other_dimensions_is_named)
{
    const box *b = &boxes[2], *other = &boxes[0];
    device_open();
    numbers tensor = make(tensor_bytes(b), number), out = make(2 * elements(b), number);
    CUtensorMap map = encode(other, tensor.device, CU_TENSOR_MAP_DATA_TYPE_UINT16);
    cr_expect_neq(run(b, LOAD, 1, &map, out.device), CUDA_SUCCESS);
    cr_expect(strstr(device_last_report(), "a copy in 2 dimensions with a tensor map of 1"), "%s",
              device_last_report());
    device_close();
    device_open();
    memset(&map, 0x5a, sizeof map);
    cr_expect_neq(run(b, LOAD, 1, &map, out.device), CUDA_SUCCESS);
    cr_expect(strstr(device_last_report(), "is no tensor map"), "%s", device_last_report());
    device_close();
    free(tensor.host);
    free(out.host);
}

Test(tensor, a_map_over_the_end_of_an_allocation_is_out_of_bounds)
{
    box b = boxes[2];
    device_open();
    numbers tensor = make(tensor_bytes(&b), number), out = make(2 * elements(&b), number);
    b.sizes[1] += 2;
    b.at[1] = 15;
    CUtensorMap map = encode(&b, tensor.device, CU_TENSOR_MAP_DATA_TYPE_UINT16);
    cr_expect_eq(run(&b, LOAD, 1, &map, out.device), CUDA_ERROR_ILLEGAL_ADDRESS);
    cr_expect(strstr(device_last_report(), "out of bounds: 32 bytes at a global address"), "%s",
              device_last_report());
    device_close();
    free(tensor.host);
    free(out.host);
}
