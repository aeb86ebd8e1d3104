/* programs_algorithms.c: small algorithms of CUDA C programs: sorting, filtering, compaction,
 * random numbers, a row's softmax, a cellular automaton. The results are compared with the host's.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "compiled.h"
#include "device.h"

static CUdeviceptr zeros(size_t bytes)
{
    CUdeviceptr pointer = device_alloc(bytes);
    cr_assert_eq(cuMemsetD8(pointer, 0, bytes), CUDA_SUCCESS);
    return pointer;
}

static void run_shape(CUmodule module, const char *entry, const unsigned grid[2],
                      const unsigned block[2], void **arguments)
{
    CUfunction function;
    cr_assert_eq(cuModuleGetFunction(&function, module, entry), CUDA_SUCCESS);
    cr_assert_eq(cuLaunchKernel(function, grid[0], grid[1], 1, block[0], block[1], 1, 0, NULL,
                                arguments, NULL),
                 CUDA_SUCCESS);
    cr_assert_eq(cuCtxSynchronize(), CUDA_SUCCESS, "%s", entry);
}

static int compare_keys(const void *left, const void *right)
{
    unsigned a = *(const unsigned *)left, b = *(const unsigned *)right;
    return a < b ? -1 : a > b;
}

PROGRAM(programs_algorithms, a_network_of_exchanges_sorts_keys_with_their_values, "bitonic_sort.cu")
{
    enum { MOST = 512 };
    for (unsigned count = 2; count <= MOST; count *= 4) {
        unsigned keys[MOST], values[MOST], sorted[MOST];
        for (unsigned i = 0; i < count; i++) {
            keys[i] = i * 2654435761u % 1009; /* some are alike */
            values[i] = ~keys[i];
        }
        memcpy(sorted, keys, sizeof sorted);
        qsort(sorted, count, sizeof sorted[0], compare_keys);
        CUdeviceptr device_keys = device_upload(keys, count * sizeof keys[0]);
        CUdeviceptr device_values = device_upload(values, count * sizeof values[0]);
        device_run(module, "sort", 1, count / 2, count * 8,
                   (void *[]){&device_keys, &device_values}, "sort");
        device_download(keys, device_keys, count * sizeof keys[0]);
        device_download(values, device_values, count * sizeof values[0]);
        for (unsigned i = 0; i < count; i++)
            cr_assert(keys[i] == sorted[i] && values[i] == ~keys[i], "%u of %u: %u, expected %u", i,
                      count, keys[i], sorted[i]);
    }
}

PROGRAM(programs_algorithms, a_filter_reads_its_neighbours_from_a_halo, "stencil.cu")
{
    enum { WIDTH = 45, HEIGHT = 21 };
    static float in[HEIGHT][WIDTH], got[HEIGHT][WIDTH];
    float weights[5][5];
    for (int i = 0; i < WIDTH * HEIGHT; i++)
        in[i / WIDTH][i % WIDTH] = (float)(i * 37 % 101) / 97.0f;
    for (int i = 0; i < 25; i++)
        weights[i / 5][i % 5] = (float)(i - 11) / 13.0f;
    CUdeviceptr constant, device_in = device_upload(in, sizeof in), out = zeros(sizeof got);
    size_t bytes;
    cr_assert_eq(cuModuleGetGlobal(&constant, &bytes, module, "weights"), CUDA_SUCCESS);
    cr_assert_eq(bytes, sizeof weights);
    cr_assert_eq(cuMemcpyHtoD(constant, weights, sizeof weights), CUDA_SUCCESS);
    int width = WIDTH, height = HEIGHT;
    run_shape(module, "filter", (unsigned[]){3, 3}, (unsigned[]){16, 8},
              (void *[]){&out, &device_in, &width, &height});
    device_download(got, out, sizeof got);
    for (int y = 0; y < HEIGHT; y++)
        for (int x = 0; x < WIDTH; x++) {
            float wanted = 0;
            for (int i = 0; i < 25; i++) {
                int row = y + i / 5 - 2, column = x + i % 5 - 2;
                bool inside = row >= 0 && row < HEIGHT && column >= 0 && column < WIDTH;
                wanted = fmaf(weights[i / 5][i % 5], inside ? in[row][column] : 0.0f, wanted);
            }
            cr_assert(got[y][x] == wanted, "%d, %d: %g, expected %g", y, x, (double)got[y][x],
                      (double)wanted);
        }
}

PROGRAM(programs_algorithms, compaction_keeps_what_is_positive_in_the_order_of_its_block,
        "compaction.cu")
{
    enum { COUNT = 1500, THREADS = 256, BLOCKS = (COUNT + THREADS - 1) / THREADS };
    int in[COUNT], got[COUNT];
    unsigned starts[BLOCKS], counts[BLOCKS], total = 0;
    for (int i = 0; i < COUNT; i++)
        in[i] = i / 300 % 2 ? i + 1 : (i * 7919 % 401) - 200;
    CUdeviceptr device_in = device_upload(in, sizeof in), out = zeros(sizeof got);
    CUdeviceptr device_starts = zeros(sizeof starts), device_counts = zeros(sizeof counts);
    int count = COUNT;
    LAUNCH(module, "compact", BLOCKS, THREADS, &out, &device_starts, &device_counts, &device_in,
           &count);
    device_download(got, out, sizeof got);
    device_download(starts, device_starts, sizeof starts);
    device_download(counts, device_counts, sizeof counts);
    for (int block = 0; block < BLOCKS; block++) {
        unsigned at = starts[block];
        for (int i = block * THREADS; i < COUNT && i < (block + 1) * THREADS; i++)
            if (in[i] > 0)
                cr_assert_eq(got[at++], in[i], "block %d, %d", block, i);
        cr_assert_eq(at - starts[block], counts[block], "block %d", block);
        total += counts[block];
    }
    for (int block = 0; block < BLOCKS; block++) /* they lie side by side */
        cr_assert_leq(starts[block] + counts[block], total);
    for (unsigned i = 0; i < COUNT; i++)
        cr_assert_eq(got[i] != 0, i < total, "%u of %u", i, total);
}

static void philox(uint32_t x[4], uint32_t key0, uint32_t key1)
{
    for (int round = 0; round < 10; round++) {
        uint64_t p = (uint64_t)0xD2511F53 * x[0], q = (uint64_t)0xCD9E8D57 * x[2];
        uint32_t next[4] = {(uint32_t)(q >> 32) ^ x[1] ^ key0, (uint32_t)q,
                            (uint32_t)(p >> 32) ^ x[3] ^ key1, (uint32_t)p};
        memcpy(x, next, sizeof next);
        key0 += 0x9E3779B9;
        key1 += 0xBB67AE85;
    }
}

PROGRAM(programs_algorithms, random_numbers_are_the_hosts, "random.cu")
{
    enum { COUNT = 160, TURNS = 50 };
    static uint32_t words[COUNT][4], key[2] = {0x12345678, 0x9abcdef0};
    static uint64_t states[COUNT];
    CUdeviceptr device_words = zeros(sizeof words), device_states = zeros(sizeof states);
    int turns = TURNS;
    LAUNCH(module, "draw", 5, COUNT / 5, &device_words, &device_states, key, &turns);
    device_download(words, device_words, sizeof words);
    device_download(states, device_states, sizeof states);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t wanted[4] = {i, 7, i * i, 0xffffffff};
        uint64_t state = i + 1, sum = 0;
        philox(wanted, key[0], key[1]);
        for (int turn = 0; turn < TURNS; turn++) {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            sum += state * 0x2545F4914F6CDD1D;
        }
        cr_assert_arr_eq(words[i], wanted, sizeof wanted, "counter %u", i);
        cr_assert_eq(states[i], sum, "register %u", i);
    }
}

PROGRAM(programs_algorithms, the_softmax_of_a_row_is_near_its_value, "softmax.cu")
{
    enum { ROWS = 3, COLUMNS = 500 };
    static float in[ROWS][COLUMNS], got[ROWS][COLUMNS];
    for (int i = 0; i < ROWS * COLUMNS; i++)
        in[i / COLUMNS][i % COLUMNS] = (float)(i * 7919 % 1009) / 50.0f - 90.0f * (float)(i % 3);
    CUdeviceptr device_in = device_upload(in, sizeof in), out = zeros(sizeof got);
    int columns = COLUMNS;
    LAUNCH(module, "softmax", ROWS, 128, &out, &device_in, &columns);
    device_download(got, out, sizeof got);
    for (int row = 0; row < ROWS; row++) {
        double most = -INFINITY, sum = 0;
        for (int i = 0; i < COLUMNS; i++)
            most = fmax(most, (double)in[row][i]);
        for (int i = 0; i < COLUMNS; i++)
            sum += exp((double)in[row][i] - most);
        for (int i = 0; i < COLUMNS; i++) {
            double wanted = exp((double)in[row][i] - most) / sum, found = (double)got[row][i];
            /* two ulps of expf, and of its argument's rounding; below the format's least: 0 */
            cr_assert(fabs(found - wanted) <= 1e-5 * wanted + 1e-44, "%d, %d: %g, expected %g", row,
                      i, found, wanted);
        }
    }
}

typedef struct torus {
    unsigned char cells[16][32];
} torus;

/* How many live in the next generation, which may be the same. */
static int next_generation(torus *next, const torus *now)
{
    int living = 0;
    for (int y = 0; y < 16; y++)
        for (int x = 0; x < 32; x++) {
            int around = -now->cells[y][x];
            for (int i = -1; i <= 1; i++)
                for (int k = -1; k <= 1; k++)
                    around += now->cells[(y + i + 16) % 16][(x + k + 32) % 32];
            next->cells[y][x] = around == 3 || (around == 2 && now->cells[y][x]);
            living += next->cells[y][x];
        }
    return living;
}

static void check_life(CUmodule module, torus first, int most)
{
    torus now = first, next;
    int turns = 0, wanted[64], got_turns, got[64];
    for (; turns < most; turns++, now = next) {
        int living = next_generation(&next, &now);
        if (living == 0 || memcmp(&next, &now, sizeof now) == 0)
            break;
        wanted[turns] = living;
    }
    CUdeviceptr cells = device_upload(&first, sizeof first), generations = zeros(sizeof(int));
    CUdeviceptr living = zeros(sizeof got);
    run_shape(module, "live", (unsigned[]){1, 1}, (unsigned[]){32, 16},
              (void *[]){&cells, &generations, &living, &most});
    device_download(&first, cells, sizeof first);
    device_download(&got_turns, generations, sizeof got_turns);
    device_download(got, living, sizeof got);
    cr_assert_eq(got_turns, turns, "%d generations, expected %d", got_turns, turns);
    cr_assert_arr_eq(got, wanted, (size_t)turns * sizeof got[0]);
    cr_assert_eq(memcmp(&first, &now, sizeof now), 0);
}

PROGRAM(programs_algorithms, barriers_that_count_end_a_game_of_life, "life.cu")
{
    torus soup = {{{0}}}, glider = {{{0}}}, dying = {{{0}}}, still = {{{0}}};
    for (int i = 0; i < 16 * 32; i++)
        soup.cells[i / 32][i % 32] = i * i * 31 % 97 % 3 == 0;
    glider.cells[0][1] = glider.cells[1][2] = 1;
    glider.cells[2][0] = glider.cells[2][1] = glider.cells[2][2] = 1;
    dying.cells[5][5] = dying.cells[5][6] = 1;
    still.cells[7][31] = still.cells[7][0] = still.cells[8][31] = still.cells[8][0] = 1;
    check_life(module, soup, 40);
    check_life(module, glider, 64);
    check_life(module, dying, 10);
    check_life(module, still, 10);
}
