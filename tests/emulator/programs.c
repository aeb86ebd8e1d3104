/* programs.c: ordinary CUDA C programs on the emulator: shared and private memory, control flow,
 * functions, parameters and symbols. The results are compared with the host's. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "compiled.h"
#include "device.h"

static CUdeviceptr zeros(size_t bytes)
{
    CUdeviceptr pointer = device_alloc(bytes);
    cr_assert_eq(cuMemsetD8(pointer, 0, bytes), CUDA_SUCCESS);
    return pointer;
}

/* Copies back and frees. */
static void take(void *to, CUdeviceptr from, size_t bytes)
{
    device_download(to, from, bytes);
    cr_assert_eq(cuMemFree(from), CUDA_SUCCESS);
}

typedef struct shape {
    unsigned x, y, z;
} shape;

static void run_shape(CUmodule module, const char *entry, shape grid, shape block, void **arguments)
{
    CUfunction function;
    cr_assert_eq(cuModuleGetFunction(&function, module, entry), CUDA_SUCCESS);
    cr_assert_eq(cuLaunchKernel(function, grid.x, grid.y, grid.z, block.x, block.y, block.z, 0,
                                NULL, arguments, NULL),
                 CUDA_SUCCESS);
    cr_assert_eq(cuCtxSynchronize(), CUDA_SUCCESS, "%s", entry);
}

/* ---- data in shared memory ---------------------------------------------------------------- */

PROGRAM(programs, a_block_sums_with_shuffles_and_shared_memory, "reduce.cu")
{
    enum { COUNT = 1000, BLOCKS = 4 };
    float in[COUNT], sums[BLOCKS], total;
    for (int i = 0; i < COUNT; i++)
        in[i] = (float)(i % 37 - 9);
    int count = COUNT;
    CUdeviceptr device_in = device_upload(in, sizeof in), device_sums = zeros(sizeof sums);
    LAUNCH(module, "block_sums", BLOCKS, 256, &device_sums, &device_in, &count);
    device_download(sums, device_sums, sizeof sums);
    for (int b = 0; b < BLOCKS; b++) {
        float wanted = 0;
        for (int i = 256 * b; i < 256 * (b + 1) && i < COUNT; i++)
            wanted += in[i];
        cr_expect(sums[b] == wanted, "block %d: %g, expected %g", b, (double)sums[b],
                  (double)wanted);
    }
    CUdeviceptr device_total = zeros(sizeof total), device_partial = zeros(31 * sizeof(float));
    float wanted = 0;
    for (int i = 0; i < 31 * 32; i++)
        wanted += in[i];
    for (int turn = 0; turn < 2; turn++) { /* the counter wraps to zero */
        LAUNCH(module, "total", 31, 32, &device_partial, &device_total, &device_in);
        device_download(&total, device_total, sizeof total);
        cr_expect(total == wanted, "%g, expected %g", (double)total, (double)wanted);
    }
}

PROGRAM(programs, a_scan_adds_up_what_is_before, "scan.cu")
{
    int values[1024], wanted = 0;
    for (int i = 0; i < 1024; i++)
        values[i] = i * 7919 % 201 - 100;
    CUdeviceptr in = device_upload(values, sizeof values), out = zeros(sizeof values);
    for (unsigned threads = 32; threads <= 1024; threads *= 2) {
        int got[1024];
        LAUNCH(module, "inclusive", 1, threads, &out, &in);
        device_download(got, out, sizeof got);
        wanted = 0;
        for (unsigned i = 0; i < threads; i++) {
            wanted += values[i];
            cr_assert_eq(got[i], wanted, "%u of %u threads: %d", i, threads, got[i]);
        }
    }
}

PROGRAM(programs, a_histogram_counts_with_atomics, "histogram.cu")
{
    unsigned char in[20000];
    unsigned wanted[256] = {0}, got[256];
    for (size_t i = 0; i < sizeof in; i++) {
        in[i] = (unsigned char)(i * i / 7 + (i % 3 ? 0 : i));
        wanted[in[i]]++;
    }
    int count = (int)sizeof in;
    CUdeviceptr device_in = device_upload(in, sizeof in), out = zeros(sizeof got);
    LAUNCH(module, "histogram", 7, 256, &out, &device_in, &count);
    take(got, out, sizeof got);
    for (int i = 0; i < 256; i++)
        cr_assert_eq(got[i], wanted[i], "%d: %u, expected %u", i, got[i], wanted[i]);
}

PROGRAM(programs, a_matrix_is_transposed_in_tiles, "transpose.cu")
{
    enum { ROWS = 77, COLUMNS = 45 };
    static float in[ROWS][COLUMNS], got[COLUMNS][ROWS];
    for (int i = 0; i < ROWS * COLUMNS; i++)
        in[i / COLUMNS][i % COLUMNS] = (float)i;
    CUdeviceptr device_in = device_upload(in, sizeof in), out = zeros(sizeof got);
    int rows = ROWS, columns = COLUMNS;
    run_shape(module, "transpose", (shape){(COLUMNS + 31) / 32, (ROWS + 31) / 32, 1},
              (shape){32, 8, 1}, (void *[]){&out, &device_in, &rows, &columns});
    take(got, out, sizeof got);
    for (int i = 0; i < ROWS; i++)
        for (int k = 0; k < COLUMNS; k++)
            cr_assert(got[k][i] == in[i][k], "row %d, column %d", i, k);
}

PROGRAM(programs, a_tiled_matrix_product_sums_in_order, "matmul.cu")
{
    enum { M = 37, N = 50, K = 41 };
    static float a[M][K], b[K][N], got[M][N];
    for (int i = 0; i < M * K; i++)
        a[i / K][i % K] = (float)(i * 37 % 101) / 97.0f - 0.5f;
    for (int i = 0; i < K * N; i++)
        b[i / N][i % N] = (float)(i * 53 % 103) / 89.0f - 0.5f;
    CUdeviceptr da = device_upload(a, sizeof a), db = device_upload(b, sizeof b);
    CUdeviceptr dc = zeros(sizeof got);
    int m = M, n = N, k = K;
    run_shape(module, "matmul", (shape){(N + 15) / 16, (M + 15) / 16, 1}, (shape){16, 16, 1},
              (void *[]){&dc, &da, &db, &m, &n, &k});
    take(got, dc, sizeof got);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++) {
            float wanted = 0;
            for (int l = 0; l < K; l++)
                wanted = fmaf(a[i][l], b[l][j], wanted);
            cr_assert(got[i][j] == wanted, "%d, %d: %g, expected %g", i, j, (double)got[i][j],
                      (double)wanted);
        }
}

PROGRAM(programs, vectors_of_all_widths_move, "wide.cu")
{
    enum { COUNT = 96 };
    int a[COUNT][4];
    double b[COUNT][2];
    unsigned char c[COUNT][4];
    short d[COUNT][2];
    float e[COUNT];
    for (int i = 0; i < COUNT; i++) {
        for (int k = 0; k < 4; k++) {
            a[i][k] = 100 * i + k;
            c[i][k] = (unsigned char)(i + 60 * k);
        }
        b[i][0] = i + 0.25;
        b[i][1] = -i;
        d[i][0] = (short)(i - 50);
        d[i][1] = (short)(1000 + i);
        e[i] = (float)i;
    }
    CUdeviceptr da = device_upload(a, sizeof a), db = device_upload(b, sizeof b);
    CUdeviceptr dc = device_upload(c, sizeof c), dd = device_upload(d, sizeof d);
    CUdeviceptr de = device_upload(e, sizeof e);
    device_run(module, "move", 1, COUNT, COUNT * 32, (void *[]){&da, &db, &dc, &dd, &de}, "move");
    int got_a[COUNT][4];
    double got_b[COUNT][2];
    unsigned char got_c[COUNT][4];
    short got_d[COUNT][2];
    float got_e[COUNT];
    take(got_a, da, sizeof a);
    take(got_b, db, sizeof b);
    take(got_c, dc, sizeof c);
    take(got_d, dd, sizeof d);
    take(got_e, de, sizeof e);
    for (int i = 0; i < COUNT; i++) {
        int other = COUNT - 1 - i;
        cr_assert_eq(memcmp(got_a[i], a[other], sizeof a[i]), 0, "int4 %d", i);
        cr_assert(got_b[i][0] == b[other][1] && got_b[i][1] == b[other][0], "double2 %d", i);
        cr_assert(got_c[i][0] == c[i][3] && got_c[i][3] == (unsigned char)(c[i][0] + i % 3 + 1),
                  "uchar4 %d", i);
        cr_assert(got_d[i][0] == d[i][1] && got_d[i][1] == (short)-d[i][0], "short2 %d", i);
        cr_assert(got_e[i] == 2 * e[i], "float %d", i);
    }
}

/* ---- private memory and control flow ------------------------------------------------------- */

PROGRAM(programs, a_private_array_is_indexed_by_computed_values, "local_array.cu")
{
    int in[768], got[64];
    for (int i = 0; i < 768; i++)
        in[i] = i * 7919 % 1009;
    CUdeviceptr device_in = device_upload(in, sizeof in), out = zeros(sizeof got);
    LAUNCH(module, "sort_digits", 1, 64, &out, &device_in);
    take(got, out, sizeof got);
    for (int t = 0; t < 64; t++) {
        int own[24];
        unsigned sum = 0;
        for (int i = 0; i < 24; i++) {
            int value = in[(t * 24 + i * 5) % 768], at = i;
            for (; at > 0 && own[at - 1] > value; at--)
                own[at] = own[at - 1];
            own[at] = value;
        }
        for (int i = 0; i < 24; i++)
            sum = sum * 31 + (unsigned)own[(i + t) % 24];
        cr_assert_eq((unsigned)got[t], sum, "thread %d", t);
    }
}

static unsigned chosen(unsigned i, unsigned value)
{
    unsigned result = 1, turns = 0;
    for (;;) {
        switch (value) {
        case 0:
            result += i;
            break;
        case 1:
            result = (result ^ 0x55) * 3;
            break;
        case 2:
            result *= 3;
            break;
        case 3:
            value = 7;
            turns++;
            continue;
        case 4:
            return 1000 + i;
        case 5:
            result = (unsigned)__builtin_popcount(i * 77);
            break;
        case 6:
            result = ~(result - i);
            break;
        case 7:
            result = ~result;
            break;
        case 8:
            if (turns++ < i % 5) {
                result += 9;
                continue;
            }
            break;
        case 9:
            result = result << (i % 7);
            break;
        case 10:
            result = i / 3;
            break;
        case 11:
            result = i % 3;
            break;
        case 12:
            value = i % 12;
            turns += 100;
            if (turns <= 300)
                continue;
            break;
        case 13:
            result = 13 * i;
            break;
        case 14:
            result = i * i;
            break;
        case 15:
            result += 15;
            break;
        case 16:
            result = 16 ^ i;
            break;
        case 17:
            for (unsigned k = 0; k < i && k < 20; k++)
                result += k;
            break;
        case 18:
            result = i > 9 ? 1 : 2;
            break;
        case 19:
            result = 190;
            break;
        default:
            result = 77;
        }
        return result + 65536 * turns;
    }
}

PROGRAM(programs, a_switch_takes_each_lane_its_own_way, "choices.cu")
{
    unsigned in[512], got[512];
    for (unsigned i = 0; i < 512; i++)
        in[i] = i < 256 ? i % 22 : i * 7919 % 22;
    CUdeviceptr device_in = device_upload(in, sizeof in), out = zeros(sizeof got);
    LAUNCH(module, "choose", 1, 512, &out, &device_in);
    take(got, out, sizeof got);
    for (unsigned i = 0; i < 512; i++)
        cr_assert_eq(got[i], chosen(i, in[i]), "thread %u, case %u: %u, expected %u", i, in[i],
                     got[i], chosen(i, in[i]));
}

PROGRAM(programs, lanes_leave_loops_at_different_times, "loops.cu")
{
    enum { COUNT = 300 };
    int got[COUNT], count = COUNT;
    CUdeviceptr out = zeros(sizeof got);
    LAUNCH(module, "steps", 3, 128, &out, &count);
    take(got, out, sizeof got);
    for (int i = 0; i < COUNT; i++) {
        unsigned n = (unsigned)i;
        int steps = 0, inner = 0;
        while (n > 1) {
            steps++;
            if (n % 2 == 0) {
                n /= 2;
                continue;
            }
            n = 3 * n + 1;
            if (steps > 100)
                break;
        }
        for (int k = 0; k < i % 9; k++)
            for (int m = k; m < 20 && m * k <= i; m++)
                inner += m;
        int wanted = i ? steps * 1000 + inner : -1;
        cr_assert_eq(got[i], wanted, "%d: %d, expected %d", i, got[i], wanted);
    }
}

PROGRAM(programs, threads_that_have_left_are_not_waited_for_at_a_barrier, "loops.cu")
{
    static const int counts[] = {1, 32, 33, 50, 96, 100, 128};
    for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
        int got[128], count = counts[c];
        CUdeviceptr out = zeros(sizeof got);
        LAUNCH(module, "early", 1, 128, &out, &count);
        take(got, out, sizeof got);
        for (int i = 0; i < 128; i++)
            cr_assert_eq(got[i], i < count ? 3 * (count - 1 - i) : 0, "%d of %d", i, count);
    }
}

PROGRAM(programs, blocks_and_threads_are_numbered_in_three_dimensions, "loops.cu")
{
    static const shape grid = {3, 2, 4}, block = {5, 7, 3};
    enum { BLOCKS = 24, THREADS = 105 };
    unsigned got[BLOCKS * THREADS];
    CUdeviceptr out = zeros(sizeof got);
    run_shape(module, "place", grid, block, (void *[]){&out});
    take(got, out, sizeof got);
    for (unsigned i = 0; i < BLOCKS * THREADS; i++)
        cr_assert_eq(got[i], i / THREADS * 1000 + i % THREADS);
}

/* ---- functions, parameters, symbols -------------------------------------------------------- */

typedef struct point {
    double x;
    short tag;
    float y[3];
} point;

static point moved(point p, float by, signed char tag)
{
    p.x += (double)by;
    p.tag = (short)(p.tag * tag);
    for (int i = 0; i < 3; i++)
        p.y[i] -= by;
    return p;
}

static int count_down(int *steps, int from)
{
    if (from % 7 == 3)
        return -from;
    while (from > 0) {
        ++*steps;
        from = from % 2 ? from - 1 : from / 2;
        if (*steps > 9)
            return from;
    }
    return 0;
}

PROGRAM(programs, functions_take_and_return_structures, "functions.cu")
{
    float got[96];
    int steps[96];
    CUdeviceptr out = zeros(sizeof got), device_steps = zeros(sizeof steps);
    LAUNCH(module, "call", 1, 96, &out, &device_steps);
    take(got, out, sizeof got);
    take(steps, device_steps, sizeof steps);
    for (int i = 0; i < 96; i++) {
        int own = 0;
        point p = {i * 0.5, (short)i, {1.0f * (float)i, 2.0f, 3.0f}};
        if (i % 3)
            p = moved(moved(p, 1.0f, 2), (float)(i % 3), -1);
        float wanted = (float)p.x + (float)p.tag + p.y[0] * p.y[1] * p.y[2];
        wanted += (float)count_down(&own, i);
        cr_assert(got[i] == wanted && steps[i] == own, "%d: %g, %d; expected %g, %d", i,
                  (double)got[i], steps[i], (double)wanted, own);
    }
}

PROGRAM(programs, structures_are_passed_by_value, "structures.cu")
{
    struct inner {
        char c;
        double d;
        short s[3];
    };
    struct outer {
        char first;
        struct inner nested[2];
        _Alignas(16) int vector[4];
        float tail;
    } o = {'f', {{'a', 1.25, {1, 2, 3}}, {'b', -8.5, {-4, 5, 600}}}, {11, 22, 33, 44}, 0.75f};
    struct table {
        int rows[64];
    } t, fixed;
    for (int i = 0; i < 64; i++) {
        t.rows[i] = 1000 + i;
        fixed.rows[i] = -i * i;
    }
    signed char lead = -7;
    short between = 300;
    unsigned char last = 200;
    double got[64][8];
    CUdeviceptr out = zeros(sizeof got);
    LAUNCH(module, "unpack", 1, 64, &out, &lead, &o, &between, &t, &fixed, &last);
    take(got, out, sizeof got);
    for (int i = 0; i < 64; i++) {
        double wanted[8] = {lead,
                            o.first,
                            o.nested[i & 1].d,
                            o.nested[1].s[i % 3],
                            o.vector[i & 3],
                            (double)o.tail + between,
                            t.rows[i * 7 % 64],
                            fixed.rows[(i * 5 + 1) % 64] + last};
        for (int k = 0; k < 8; k++)
            cr_assert(got[i][k] == wanted[k], "thread %d, %d: %g, expected %g", i, k, got[i][k],
                      wanted[k]);
    }
}

PROGRAM(programs, symbols_have_values_and_point_to_each_other, "symbols.cu")
{
    CUdeviceptr address;
    size_t bytes;
    cr_assert_eq(cuModuleGetGlobal(&address, &bytes, module, "factors"), CUDA_SUCCESS);
    cr_assert_eq(bytes, 8 * sizeof(float));
    float factors[8];
    device_download(factors, address, sizeof factors);
    for (int i = 0; i < 8; i++) {
        cr_assert(factors[i] == (i < 3 ? (float)(i + 1) : 0.0f));
        factors[i] = (float)(10 * i);
    }
    cr_assert_eq(cuMemcpyHtoD(address, factors, sizeof factors), CUDA_SUCCESS);

    double got[64];
    static const int row[6] = {10, 20, 30, 40, 50, 60};
    static const char *const names[3] = {"first", "second", ""};
    CUdeviceptr out = zeros(sizeof got);
    LAUNCH(module, "read", 1, 64, &out);
    take(got, out, sizeof got);
    for (int i = 0; i < 64; i++) {
        double wanted = (double)factors[i % 8] * 2.5 + 'm' + row[3 + i % 3] + row[2];
        wanted += -1000 * (i % 3 + 1);
        for (const char *c = names[i % 3]; *c; c++)
            wanted += *c;
        wanted += i % 3 == 0 ? 5 : i % 3 == 1 ? 15 : 0;
        cr_assert(got[i] == wanted, "%d: %g, expected %g", i, got[i], wanted);
    }
    int count;
    out = zeros(sizeof count);
    LAUNCH(module, "count", 1, 10, &out);
    device_download(&count, out, sizeof count);
    cr_assert_eq(count, 52);
    LAUNCH(module, "count", 1, 10, &out);
    take(&count, out, sizeof count);
    cr_assert_eq(count, 62, "the variable keeps its value: %d", count);
}

PROGRAM(programs, offsets_beyond_32_bits_reach_their_element, "far.cu")
{
    size_t count = ((size_t)5 << 30) / sizeof(float), least;
    float got[1024];
    CUdeviceptr far = device_alloc(count * sizeof(float)), out = zeros(sizeof got);
    LAUNCH(module, "mark", 3, 64, &far, &count);
    LAUNCH(module, "collect", 1, 1024, &out, &far, &count);
    take(got, out, sizeof got);
    for (size_t i = 0; i < 1024; i++) {
        float wanted = i << 20 < count ? (float)i : -1.0f;
        cr_assert(got[i] == wanted, "%zu: %g", i, (double)got[i]);
    }
    cr_assert_eq(cuMemGetInfo(&least, &count), CUDA_SUCCESS);
    cr_assert_leq(least, count - ((size_t)5 << 30));
    cr_assert_eq(cuMemFree(far), CUDA_SUCCESS);
}

/* ---- text and refusals --------------------------------------------------------------------- */

static void check_printing(CUmodule module)
{
    int count = 12;
    CUdeviceptr nothing = 0;
    char got[2048] = "";
    FILE *file = tmpfile();
    int saved = dup(STDOUT_FILENO);
    cr_assert(file && saved >= 0);
    fflush(stdout);
    dup2(fileno(file), STDOUT_FILENO);
    LAUNCH(module, "print", 2, 64, &count, &nothing);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    rewind(file);
    got[fread(got, 1, sizeof got - 1, file)] = '\0';
    fclose(file);
    /* the order of warps is not defined, that of blocks is */
    for (int block = 0; block < 2; block++) {
        char line[256];
        snprintf(line, sizeof line, "block %d of 2: %5.2f|12  |00ab|z|text|%%|-5000000000|0x10\n",
                 block, block + 0.125);
        char *at = strstr(got, line);
        cr_assert(at, "expected '%s' in:\n%s", line, got);
        memset(at, ' ', strlen(line));
        at = strstr(got, "thread 33\n");
        cr_assert(at, "expected 'thread 33' in:\n%s", got);
        memset(at, ' ', 10);
        static const char last[] = "printf gave 2 and takes     17|abc|+1.000000e-03\n";
        at = strstr(got, last);
        cr_assert(at, "expected '%s' in:\n%s", last, got);
        memset(at, ' ', sizeof last - 1);
    }
    cr_assert_eq(strspn(got, " "), strlen(got), "something else was printed: %s", got);
}

Test(programs, printf_writes_to_the_hosts_stdout)
{
    compiled_for_targets("printing.cu", check_printing);
}

Test(programs, a_failed_assertion_is_reported_like_the_host_would)
{
    device_open();
    char *ptx = compiled_ptx("printing.cu", "compute_80");
    CUmodule module = device_load(ptx, "printing.cu");
    free(ptx);
    int limit = 64;
    CUdeviceptr device_limit = device_upload(&limit, sizeof limit);
    LAUNCH(module, "check", 2, 64, &device_limit);
    limit = 37;
    cr_assert_eq(cuMemcpyHtoD(device_limit, &limit, sizeof limit), CUDA_SUCCESS);
    CUresult result = device_try(module, "check", 2, 64, 0, (void *[]){&device_limit});
    cr_assert_eq(result, CUDA_ERROR_ASSERT, "%d", (int)result);
    static const char wanted[] = "check(const int *): block: [0,0,0], thread: [37,0,0] Assertion "
                                 "`threadIdx.x < *limit && \"too many\"` failed.";
    cr_assert(strstr(device_last_report(), wanted), "%s", device_last_report());
    device_close();
}

Test(programs, what_cannot_be_run_is_refused_by_name_when_it_is_loaded)
{
    static const struct {
        const char *file, *text;
    } cases[] = {
        {"pointers.cu", "calls through a register are not supported"},
        {"recursion.cu", "recursive call of '"},
        {"heap.cu", "the external function 'malloc' is not supported"},
        {"wmma.cu", "wmma"},
    };
    device_open();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *log;
        CUresult result = compiled_try_load(&log, cases[i].file);
        cr_expect_eq(result, CUDA_ERROR_INVALID_PTX, "%s: %d", cases[i].file, (int)result);
        cr_expect(strstr(log, cases[i].text), "%s: '%s'", cases[i].file, log);
        cr_expect_eq(strncmp(log, "PTX line ", 9), 0, "%s: '%s'", cases[i].file, log);
    }
    device_close();
}
