/*
 * textbook.c: the kernels of textbook.cu. As they stand they are right, whatever the schedule; each
 * mistake is flagged by the check it belongs to. MMLP_EMULATOR_CHECK=race is on.
 * Definition: TEXTBOOK, the path of textbook.cu.
 */
#include <base/file.h>
#include <base/nvrtc.h>
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../emulator/device.h"
#include "scheduled.h"

enum { NUMBERS = 1024, SEEDS = 50 };

static int number(int i)
{
    return (i * 37 + 11) % 101 - 30;
}

/* ---- what each kernel leaves ----------------------------------------------------------------- */

static int sum_of(int first, int count)
{
    int sum = 0;
    for (int i = first; i < first + count; i++)
        sum += number(i);
    return sum;
}

static int sums(int i)
{
    return sum_of(128 * i, 128);
}

static int scan(int i)
{
    return sum_of(0, i + 1);
}

static int transpose(int i)
{
    return number(i % 32 * 32 + i / 32);
}

static int square(int i)
{
    int sum = 0;
    for (int k = 0; k < 32; k++)
        sum += number(i / 32 * 32 + k) * number(k * 32 + i % 32);
    return sum;
}

static int histogram(int bin)
{
    int count = 0;
    for (int i = 0; i < NUMBERS; i++)
        count += (number(i) & 7) == bin;
    return count;
}

static int ring(int i)
{
    int sum = 0;
    for (int turn = 0; turn < 8; turn++)
        sum += number(turn * 128 + (i + 50) % 128);
    return sum;
}

static int pipe_sum(int i)
{
    int sum = 0;
    for (int turn = 0; turn < 4; turn++)
        sum += number(turn * 64 + 63 - i);
    return sum;
}

static int flag(int i)
{
    return number(127 - i);
}

static int last_block(int i)
{
    return sum_of(i, 256);
}

static int guarded(int i)
{
    return 4 * sum_of(i, 4);
}

static int vectors(int i)
{
    return number((127 - i / 4) * 4 + i % 4);
}

static int rotated(int i)
{
    return number(i / 8 * 8 + ((i + number(i % 8)) & 7));
}

static const struct kernel {
    const char *name;
    unsigned blocks, threads;
    int count; /* of results */
    int (*wanted)(int i);
} kernels[] = {
    {"sums", 8, 128, 8, sums},
    {"scan", 1, 128, 128, scan},
    {"transpose", 1, 128, 1024, transpose},
    {"square", 4, 256, 1024, square},
    {"histogram", 8, 128, 8, histogram},
    {"ring", 1, 128, 128, ring},
    {"pipe", 1, 128, 64, pipe_sum},
    {"flag", 2, 128, 128, flag},
    {"last_block", 8, 32, 1, last_block},
    {"guarded", 4, 128, 1, guarded},
    {"vectors", 1, 128, 512, vectors},
    {"rotated", 1, 128, 1024, rotated},
};
enum { KERNELS = sizeof kernels / sizeof *kernels };

static const struct kernel *kernel_named(const char *name)
{
    int i = 0;
    while (i < KERNELS && strcmp(kernels[i].name, name) != 0)
        i++;
    cr_assert_lt(i, KERNELS, "%s", name);
    return &kernels[i];
}

/* ---- source ---------------------------------------------------------------------------------- */

/* textbook.cu (malloc); of the kernel, the first `from` is replaced by `to`; NULL: nothing is. */
static char *source_with(const char *kernel, const char *from, const char *to)
{
    char *source, *changed = NULL, entry[64];
    size_t bytes;
    cr_assert_eq(file_read(&source, &bytes, TEXTBOOK), MMLP_OK, "%s", mmlp_last_error());
    if (!from)
        return source;
    snprintf(entry, sizeof entry, "void %s(", kernel);
    char *at = strstr(source, entry);
    cr_assert_not_null(at, "%s", kernel);
    at = strstr(at, from);
    cr_assert_not_null(at, "%s has no '%s' to break", kernel, from);
    cr_assert_gt(asprintf(&changed, "%.*s%s%s", (int)(at - source), source, to, at + strlen(from)),
                 0);
    free(source);
    return changed;
}

static char *compile(const char *source)
{
    nvrtc *compiler;
    nvrtc_image image = {0};
    cr_assert_eq(nvrtc_open(&compiler, NULL), MMLP_OK, "%s", mmlp_last_error());
    nvrtc_source what = {.name = "textbook.cu", .text = source, .target = "sm_80"};
    cr_assert_eq(nvrtc_compile(&image, compiler, &what), MMLP_OK, "%s", mmlp_last_error());
    char *ptx = strdup(image.ptx);
    nvrtc_image_free(&image);
    nvrtc_close(compiler);
    return ptx;
}

/* ---- runs ------------------------------------------------------------------------------------ */

static CUresult run(const char *ptx, const struct kernel *kernel, int out[NUMBERS])
{
    int in[NUMBERS];
    for (int i = 0; i < NUMBERS; i++)
        in[i] = number(i);
    memset(out, 0, sizeof in);
    device_open();
    CUmodule module = device_load(ptx, kernel->name);
    CUdeviceptr to = device_upload(out, sizeof in), from = device_upload(in, sizeof in);
    void *arguments[] = {&to, &from};
    CUresult result =
        device_try(module, kernel->name, kernel->blocks, kernel->threads, 0, arguments);
    if (result == CUDA_SUCCESS)
        device_download(out, to, sizeof in);
    device_close();
    return result;
}

static int count_wrong(const struct kernel *kernel, const int *out)
{
    int wrong = 0;
    for (int i = 0; i < kernel->count; i++)
        wrong += out[i] != kernel->wanted(i);
    return wrong;
}

typedef struct mistake {
    const char *kernel, *from, *to;
    const char *said[3]; /* parts of the report; none: only the numbers are wrong */
} mistake;

static void check_mistakes(const mistake *mistakes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const mistake *m = &mistakes[i];
        const struct kernel *kernel = kernel_named(m->kernel);
        int out[NUMBERS];
        char *source = source_with(m->kernel, m->from, m->to), *ptx = compile(source);
        CUresult result = run(ptx, kernel, out);
        if (!m->said[0])
            cr_expect(result == CUDA_SUCCESS && count_wrong(kernel, out) > 0,
                      "%s, '%s': %d, no wrong number\n%s", m->kernel, m->to, (int)result,
                      device_last_report());
        for (size_t s = 0; s < sizeof m->said / sizeof *m->said && m->said[s]; s++)
            cr_expect(result != CUDA_SUCCESS && strstr(device_last_report(), m->said[s]),
                      "%s, '%s': %d; '%s' is not in\n%s", m->kernel, m->to, (int)result, m->said[s],
                      device_last_report());
        free(source);
        free(ptx);
    }
}
#define CHECK_MISTAKES(table) check_mistakes(table, sizeof(table) / sizeof(table)[0])

/* ---- right ----------------------------------------------------------------------------------- */

/* One after the other. */
static unsigned char *run_all(const void *ptx, size_t *bytes)
{
    int(*out)[NUMBERS] = malloc(KERNELS * sizeof *out);
    cr_assert_not_null(out);
    for (int i = 0; i < KERNELS; i++)
        cr_assert_eq(run(ptx, &kernels[i], out[i]), CUDA_SUCCESS, "%s\n%s", kernels[i].name,
                     device_last_report());
    *bytes = KERNELS * sizeof *out;
    return (unsigned char *)out;
}

Test(textbook, kernels_are_right_under_fifty_schedules)
{
    static const char *const quanta[] = {"", ",quantum=1", ",quantum=7", ",quantum=block"};
    char *source = source_with("", NULL, NULL), *ptx = compile(source);
    for (int seed = 0; seed < SEEDS; seed++) {
        char schedule[64];
        size_t bytes;
        snprintf(schedule, sizeof schedule, "%d%s,copies=%s", seed, quanta[seed % 4],
                 seed % 3 ? "late" : "issue");
        unsigned char *left = scheduled_run(run_all, ptx, schedule, "1", &bytes);
        cr_assert_eq(bytes, KERNELS * NUMBERS * sizeof(int), "%s", schedule);
        for (int i = 0; i < KERNELS; i++)
            cr_expect_eq(count_wrong(&kernels[i], (int *)left + i * NUMBERS), 0,
                         "%s under MMLP_EMULATOR_SCHEDULE=%s", kernels[i].name, schedule);
        free(left);
    }
    free(source);
    free(ptx);
}

/* ---- and wrong ------------------------------------------------------------------------------- */

Test(textbook, a_barrier_that_is_missing_is_a_race_or_an_early_read)
{
    static const mistake mistakes[] = {
        {"sums", "__syncthreads();", "", {"(shared)", "ld.shared"}},
        {"scan", "__syncthreads();", "", {"(shared)", "ld.shared"}},
        {"scan", "from = 1 - from;\n        __syncthreads();", "from = 1 - from;", {"(shared)"}},
        {"transpose", "__syncthreads();", "", {"(shared)", "ld.shared"}},
        {"square", "column];\n        __syncthreads();", "column];", {"(shared)", "ld.shared"}},
        {"square", "[x];\n        __syncthreads();", "[x];", {"race: ", "(shared)"}},
        {"histogram", "__syncthreads();", "", {"(shared)", "atom.shared"}},
        {"ring", "__syncthreads();", "", {"(shared)"}},
        {"pipe", "bar.sync 1, 128;", "", {"(shared)"}},
        {"pipe",
         "bar.sync 2, 128;",
         "bar.arrive 2, 128;",
         {"misuse of barrier 1", "arrives again"}},
    };
    CHECK_MISTAKES(mistakes);
}

Test(textbook, a_barrier_that_not_all_reach_is_named)
{
    static const mistake mistakes[] = {
        {"scan",
         "__syncthreads();",
         "if (me % 32 < 16) __syncthreads();",
         {"barrier", "diverged warp"}},
        {"pipe", "bar.arrive 1, 128;", "bar.arrive 1, 96;", {"barrier 1"}},
        {"pipe", "bar.arrive 1, 128;", "", {"deadlock", "barrier 1"}},
    };
    CHECK_MISTAKES(mistakes);
}

Test(textbook, lanes_that_are_gone_cannot_be_read_from)
{
    static const mistake mistakes[] = {
        {"sums",
         "for (int step = 16",
         "if (lane >= 24) return;\n    for (int step = 16",
         {"shfl.sync from a lane that does not execute it"}},
        {"last_block",
         "__reduce_add_sync(0xffffffff,",
         "__reduce_add_sync(0x7fffffff,",
         {"member mask"}},
    };
    CHECK_MISTAKES(mistakes);
}

Test(textbook, copies_need_their_waits_and_stages)
{
    static const mistake mistakes[] = {
        {"ring", "\"n\"(stages - 2)", "\"n\"(stages - 1)", {"cp.async", "(shared)"}},
        {"ring",
         "asm volatile(\"cp.async.wait_group",
         "if (turn > 20) asm volatile(\"cp.async.wait_group",
         {"cp.async", "(shared)"}},
        {"ring", "buffer[stages][128]", "buffer[stages - 1][128]", {"out of bounds"}},
        {"ring", "turn % stages][me]", "turn % 2][me]", {"cp.async"}},
    };
    CHECK_MISTAKES(mistakes);
}

Test(textbook, memory_ends_where_it_ends)
{
    static const mistake mistakes[] = {
        {"transpose", "row < 32", "row <= 32", {"out of bounds", "global"}},
        {"vectors", "last = 127", "last = 256", {"out of bounds: 16 bytes at a global address"}},
        {"vectors",
         "(const int4 *)in)",
         "(const int4 *)(in + 1))",
         {"misaligned: 16 bytes at a global address", "ld.global"}},
        {"histogram", "& 7]", "& 15]", {"out of bounds", "shared"}},
        {"square", "b[16][16]", "b[15][16]", {"out of bounds", "shared"}},
        {"rotated", "own[8]", "own[4]", {"out of bounds", "local"}},
    };
    CHECK_MISTAKES(mistakes);
}

Test(textbook, what_was_not_written_cannot_be_read)
{
    static const mistake mistakes[] = {
        {"histogram", "bins[threadIdx.x] = 0;", ";", {"never written", "(shared)"}},
        {"scan",
         "buffers[0][me] = in[me]",
         "buffers[1][me] = in[me]",
         {"never written", "(shared)"}},
    };
    CHECK_MISTAKES(mistakes);
}

Test(textbook, blocks_need_fences_and_scopes)
{
    static const mistake mistakes[] = {
        {"histogram",
         "atomicAdd(&out",
         "atomicAdd_block(&out",
         {"race: atomic after atomic, by another block", "has scope .cta"}},
        {"flag", "red.release.gpu", "red.relaxed.gpu", {"nothing orders the blocks"}},
        {"flag", "red.release.gpu", "red.release.cta", {"has scope .cta"}},
        {"flag", "ld.acquire.gpu", "ld.relaxed.gpu", {"nothing orders the blocks"}},
        {"last_block", "__threadfence();", "", {"nothing orders the blocks"}},
        {"last_block", "__threadfence();", "__threadfence_block();", {"nothing orders the blocks"}},
        {"guarded", "__threadfence();", "", {"race: read after write"}},
        {"guarded", "atomicCAS(", "atomicCAS_block(", {"has scope .cta"}},
    };
    CHECK_MISTAKES(mistakes);
}

Test(textbook, a_wrong_index_shows_in_the_numbers)
{
    static const mistake mistakes[] = {
        {"transpose", "tile[x][row]", "tile[row][x]", {NULL}},
        {"scan", "step *= 2", "step *= 4", {NULL}},
        {"sums", "step /= 2", "step /= 4", {NULL}},
        {"square", "a[y][k] * b[k][x]", "a[y][k] * b[x][k]", {NULL}},
        {"vectors", "last = 127", "last = 128", {NULL}},
    };
    CHECK_MISTAKES(mistakes);
}
