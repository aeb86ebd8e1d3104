/*
 * mma_hardware.c: dot products as real tensor cores computed them, bit for bit. MMLP_HW_VECTORS
 * names a folder of files DEVICE_TYPE_fp32.txt: after a line that ends in "K=n: ...", one product a
 * line, "a... | b... | c | d", each number the hexadecimal bits of an fp32. Results of mma.sync and
 * wgmma go through kernels, a V100's through the functions of the model.
 */
#include <criterion/criterion.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mma_kernel.h"
#include "mma_model.h"
#include "softfloat.h"
#include "wgmma_kernel.h"

typedef struct vector_set {
    char device[16], type[16];
    int k, count;
    uint32_t *numbers; /* 2 k + 2 a product */
} vector_set;

/* What a file's name says. */
typedef struct measured_device {
    const char *name, *numerics;
    mma_device model;
    bool has_mma_fp8; /* else its 8-bit results are of wgmma */
} measured_device;

static const measured_device devices[] = {
    {"V100", NULL, MMA_DEVICE_V100, false},         {"A100", "exact:a100", MMA_DEVICE_A100, true},
    {"A2", "exact:a100", MMA_DEVICE_A100, true},    {"Ada", "exact:ada", MMA_DEVICE_ADA, true},
    {"L40S", "exact:ada", MMA_DEVICE_ADA, true},    {"H100", "exact:h100", MMA_DEVICE_H100, false},
    {"H200", "exact:h100", MMA_DEVICE_H100, false}, {"B200", "exact:b200", MMA_DEVICE_B200, true},
};

typedef struct measured_type {
    const char *name, *ptx;
    mma_format format;
    mma_unit unit;
    int bits, shift; /* in a register; of the fp32's bits when the format is a prefix of it */
} measured_type;

static const measured_type types[] = {
    {"fp16", "f16", MMA_FORMAT_F16, MMA_UNIT_16, 16, 0},
    {"bf16", "bf16", MMA_FORMAT_BF16, MMA_UNIT_16, 16, 16},
    {"tf32", "tf32", MMA_FORMAT_TF32, MMA_UNIT_TF32, 32, 13},
    {"E4M3", "e4m3", MMA_FORMAT_E4M3, MMA_UNIT_FP8, 8, 0},
    {"E5M2", "e5m2", MMA_FORMAT_E5M2, MMA_UNIT_FP8, 8, 0},
};

#define FIND(table, word) find_row(table, sizeof table / sizeof table[0], sizeof table[0], word)
/* The row whose first member is the name. */
static const void *find_row(const void *table, size_t rows, size_t bytes, const char *word)
{
    for (size_t i = 0; i < rows; i++) {
        const void *row = (const char *)table + i * bytes;
        if (strcmp(*(const char *const *)row, word) == 0)
            return row;
    }
    cr_assert(false, "MMLP_HW_VECTORS has a file about %s, which is not known", word);
    return NULL;
}

static vector_set read_set(const char *folder, const char *file)
{
    vector_set set = {.k = 0};
    char *path = NULL, *line = NULL;
    size_t capacity = 0, room = 0;
    cr_assert(sscanf(file, "%15[^_]_%15[^_]", set.device, set.type) == 2, "%s", file);
    cr_assert(asprintf(&path, "%s/%s", folder, file) > 0);
    FILE *stream = fopen(path, "r");
    cr_assert(stream && getline(&line, &capacity, stream) > 0, "%s cannot be read", path);
    const char *depth = strstr(line, "K=");
    cr_assert(depth && sscanf(depth, "K=%d", &set.k) == 1 && set.k <= MMA_MOST_DEPTH, "%s", path);
    int wanted = 2 * set.k + 2;
    while (getline(&line, &capacity, stream) > 0) {
        int found = 0;
        room += (size_t)wanted * sizeof *set.numbers;
        set.numbers = realloc(set.numbers, room);
        cr_assert(set.numbers != NULL);
        for (char *at = line, *word; (word = strtok(at, " |\n")) != NULL && found < wanted;
             at = NULL)
            set.numbers[set.count * wanted + found++] = (uint32_t)strtoul(word, NULL, 16);
        cr_assert_eq(found, wanted, "%s: product %d has %d numbers", path, set.count, found);
        set.count++;
    }
    cr_assert_gt(set.count, 0, "%s", path);
    fclose(stream);
    free(line);
    free(path);
    return set;
}

/* The element's bits in its own format. */
static uint32_t element_of(uint32_t single, const measured_type *type)
{
    const float_format *format = type->format == MMA_FORMAT_F16    ? &format_f16
                                 : type->format == MMA_FORMAT_E4M3 ? &format_e4m3
                                                                   : &format_e5m2;
    if (type->format == MMA_FORMAT_BF16 || type->format == MMA_FORMAT_TF32)
        return single >> type->shift;
    return (uint32_t)format_from_double(*format, (double)float_of(single), ROUND_NEAREST);
}

/* The instruction whose depth is that of the set. */
static mma_instruction instruction_of(const vector_set *set, const measured_type *type, char *name,
                                      size_t bytes)
{
    snprintf(name, bytes, "mma.sync.aligned.m16n8k%d.row.col.f32.%s.%s.f32", set->k, type->ptx,
             type->ptx);
    return (mma_instruction){name, set->k, type->bits, 0};
}

/* Eight products a tile, each in a row and a column of its own, others every time. */
static void check_kernels(const vector_set *set, const measured_type *type)
{
    char name[128];
    mma_instruction instruction = instruction_of(set, type, name, sizeof name);
    unsigned count = (unsigned)(set->count + MMA_COLUMNS - 1) / MMA_COLUMNS;
    mma_tile *tiles = calloc(count, sizeof *tiles);
    cr_assert(tiles != NULL);
    for (int pass = 0; pass < 2; pass++) {
        int wrong = 0;
        for (int i = 0; i < set->count; i++) {
            const uint32_t *n = set->numbers + i * (2 * set->k + 2);
            int t = i / MMA_COLUMNS, column = i % MMA_COLUMNS, row = (2 * column + t) % MMA_ROWS;
            for (int k = 0; k < set->k; k++) {
                tiles[t].a[row][k] = element_of(n[k], type);
                tiles[t].b[column][k] = element_of(n[set->k + k], type);
            }
            tiles[t].c[row][column] = n[2 * set->k];
            wrong += pass && tiles[t].d[row][column] != n[2 * set->k + 1];
        }
        if (pass == 0)
            mma_run(&instruction, tiles, count);
        cr_expect_eq(wrong, 0, "%s: %d of %d results differ from those of %s", name, wrong,
                     set->count, set->device);
    }
    free(tiles);
}

/* The result of row and column in the registers of a warpgroup. */
static uint32_t *wgmma_d(wgmma_memory *m, int row, int column)
{
    int thread = row / 16 * 32 + row % 8 * 4 + column % 8 / 2;
    return &m->d[thread][column / 8 * 4 + row % 16 / 8 * 2 + column % 2];
}

enum { WGMMA_SIDE = 64 }; /* rows, and columns: so many products at once */

/* Product `first` + i is row i, and a column of its own; k runs along rows of 32 bytes. */
static void fill_products(wgmma_memory *m, const vector_set *set, const measured_type *type,
                          int first)
{
    memset(m, 0, sizeof *m);
    for (int i = 0; i < WGMMA_SIDE && first + i < set->count; i++) {
        const uint32_t *n = set->numbers + (first + i) * (2 * set->k + 2);
        int rows[] = {i, 5 * i % WGMMA_SIDE};
        for (int k = 0; k < 2 * set->k; k++) {
            int row = rows[k / set->k], bytes = type->bits / 8;
            int at = row / 8 * 256 + row % 8 * 32 + k % set->k * bytes;
            uint32_t element = element_of(n[k], type) << (bytes == 4 ? type->shift : 0);
            memcpy(m->shared + (k < set->k ? 0 : WGMMA_B) + (at ^ (at >> 7 & 1) << 4), &element,
                   (size_t)bytes);
        }
        *wgmma_d(m, rows[0], rows[1]) = n[2 * set->k];
    }
}

static void check_wgmma(const vector_set *set, const measured_type *type)
{
    static wgmma_memory m;
    char body[1024] = "add.u64 %da, %tile, 0xc000001000010000; add.u64 %db, %tile, "
                      "0xc000001000010400;\nwgmma.fence.sync.aligned;\n";
    sprintf(body + strlen(body), "wgmma.mma_async.sync.aligned.m64n64k%d.f32.%s.%s ",
            256 / type->bits, type->ptx, type->ptx);
    wgmma_append_list(body, "%d", WGMMA_SIDE / 2);
    sprintf(body + strlen(body),
            ", %%da, %%db, 1, 1, 1%s;\n"
            "wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;\n",
            type->bits == 16 ? ", 0, 0" : "");
    int wrong = 0;
    for (int first = 0; first < set->count; first += WGMMA_SIDE) {
        fill_products(&m, set, type, first);
        wgmma_run(&(wgmma_kernel){type->name, body, WGMMA_SIDE / 2, true, 0}, &m);
        for (int i = 0; i < WGMMA_SIDE && first + i < set->count; i++)
            wrong += *wgmma_d(&m, i, 5 * i % WGMMA_SIDE) !=
                     set->numbers[(first + i + 1) * (2 * set->k + 2) - 1];
    }
    cr_expect_eq(wrong, 0, "wgmma of %s: %d of %d results differ from those of %s", type->name,
                 wrong, set->count, set->device);
}

static void check_model(const vector_set *set, const measured_type *type,
                        const measured_device *device)
{
    const mma_model *model = mma_model_of(device->model, type->unit);
    cr_assert(model != NULL, "%s %s", set->device, set->type);
    int wrong = 0;
    for (int i = 0; i < set->count; i++) {
        const uint32_t *n = set->numbers + i * (2 * set->k + 2);
        mma_number a[MMA_MOST_DEPTH], b[MMA_MOST_DEPTH];
        for (int k = 0; k < set->k; k++) {
            a[k] = mma_decode(element_of(n[k], type), type->format);
            b[k] = mma_decode(element_of(n[set->k + k], type), type->format);
        }
        wrong += mma_dot(model, a, b, set->k, n[2 * set->k], false) != n[2 * set->k + 1];
    }
    cr_expect_eq(wrong, 0, "%d of %d results differ from those of %s (%s)", wrong, set->count,
                 set->device, set->type);
}

typedef enum computed_by { BY_MMA, BY_WGMMA, BY_MODEL } computed_by;

static bool is_chosen(const measured_device *device, const measured_type *type, computed_by by,
                      const char *numerics)
{
    if (by == BY_MODEL || !device->numerics)
        return by == BY_MODEL && !device->numerics;
    bool has_mma = type->unit != MMA_UNIT_FP8 || device->has_mma_fp8;
    return strcmp(device->numerics, numerics) == 0 && (by == BY_WGMMA || has_mma);
}

/* Every set of the devices with these numerics; BY_MODEL: of those without. */
static void check_sets(const char *numerics, computed_by by)
{
    const char *folder = getenv("MMLP_HW_VECTORS");
    DIR *entries = folder && folder[0] ? opendir(folder) : NULL;
    if (!entries) {
        const char *reason = folder && folder[0]
                                 ? "MMLP_HW_VECTORS names no folder that can be read"
                                 : "MMLP_HW_VECTORS is not set: no results of real GPUs";
        printf("skipped: %s\n", reason);
        fflush(stdout); /* skipping ends the process without it */
        cr_skip_test("%s", reason);
    }
    if (numerics)
        setenv("MMLP_EMULATOR_NUMERICS", numerics, 1);
    int sets = 0, products = 0;
    for (struct dirent *entry; (entry = readdir(entries)) != NULL;) {
        size_t length = strlen(entry->d_name);
        if (length < 9 || strcmp(entry->d_name + length - 9, "_fp32.txt") != 0)
            continue;
        vector_set set = read_set(folder, entry->d_name);
        const measured_device *device = FIND(devices, set.device);
        const measured_type *type = FIND(types, set.type);
        bool chosen = is_chosen(device, type, by, numerics);
        if (chosen && by == BY_MODEL)
            check_model(&set, type, device);
        else if (chosen && by == BY_WGMMA)
            check_wgmma(&set, type);
        else if (chosen)
            check_kernels(&set, type);
        sets += chosen;
        products += chosen ? set.count : 0;
        free(set.numbers);
    }
    closedir(entries);
    cr_expect_gt(sets, 0, "%s has no set for %s", folder, numerics ? numerics : "the model");
    printf("%s: %d results in %d sets\n", numerics ? numerics : "the model", products, sets);
}

Test(mma_hardware, an_a100_and_an_a2)
{
    check_sets("exact:a100", BY_MMA);
}

Test(mma_hardware, an_l40s)
{
    check_sets("exact:ada", BY_MMA);
}

Test(mma_hardware, an_h100_and_an_h200)
{
    check_sets("exact:h100", BY_MMA);
}

Test(mma_hardware, wgmma_of_an_h100_and_an_h200)
{
    setenv("MMLP_EMULATOR_DEVICE", "h100", 1);
    check_sets("exact:h100", BY_WGMMA);
}

Test(mma_hardware, a_b200)
{
    check_sets("exact:b200", BY_MMA);
}

Test(mma_hardware, a_v100_that_runs_no_kernel)
{
    check_sets(NULL, BY_MODEL);
}
