/*
 * plan_tiles.c: which tile a GEMM gets. Every candidate of the family and the storage type is
 * scored by a small model and the fastest is taken; the plan prints all of them.
 *
 * The model: one block computes a tile in
 *     reduction * (fma clocks + a quarter of the load clocks) + START_CLOCKS
 * where fma clocks = tile_m * tile_n / fma_per_clock for each k, load clocks = element bytes *
 * (tile_m + tile_n) / load_bytes_per_clock: the pipeline hides most of a load, not all. Blocks that
 * share an SM share its rate. A launch takes as many waves as it needs to place all its tiles.
 */
#include "plan.h"

#include <string.h>

enum {
    START_CLOCKS = 3000,    /* filling the pipeline, and the epilogue */
    STAGED_PADDING = 8,     /* floats behind a staged row, see templates/epilogues/visit_rows.cuh */
    FP32_PADDING_BYTES = 16 /* behind a row of templates/device/fp32_k_major.cuh */
};
static const double LOAD_NOT_HIDDEN = 0.25;

static const plan_family families[] = {
    {"sm_80", "A100 (108 SMs)", 108, 164 << 10, 99 << 10, 1024, 64, 47},
};

/* 16-bit types, on tensor cores. Warp tiles are 64 x 64: the largest whose accumulators leave room
 * for fragments in registers. */
static const plan_tile mma_tiles[] = {
    {128, 256, 32, 4, 2, 4},
    {128, 128, 32, 4, 2, 2},
};

/* fp32, on the FMA units: 64 accumulators a thread. */
static const plan_tile fp32_tiles[] = {
    {128, 128, 16, 3, 4, 2},
};

const char *const plan_architectures[] = {"sm_80",  "sm_86",  "sm_89", "sm_90",
                                          "sm_100", "sm_120", NULL};

const plan_family *plan_family_of(const char *arch)
{
    for (const char *const *known = plan_architectures; *known; known++)
        if (strcmp(arch, *known) == 0)
            return &families[0]; /* no later architecture has a family of its own yet */
    return NULL;
}

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int64_t shared_bytes(const plan_tile *t, int64_t element)
{
    int64_t row = t->tile_k * element + (element == 4 ? FP32_PADDING_BYTES : 0);
    int64_t pipeline = t->stages * (t->tile_m + t->tile_n) * row;
    int64_t rows = element == 4 ? 16 : 16 * t->warps_m;
    int64_t staged = rows * (t->tile_n + STAGED_PADDING) * 4;
    return pipeline > staged ? pipeline : staged;
}

static int64_t or_nominal(int64_t size)
{
    return size ? size : PLAN_NOMINAL_TOKENS;
}

static plan_candidate score(const plan_tile *t, const plan_step *step, const plan_family *family,
                            int64_t element)
{
    plan_candidate c = {.tile = *t, .shared_bytes = shared_bytes(t, element)};
    c.tiles = ceil_div(or_nominal(step->m), t->tile_m) *
              ceil_div(step->columns, t->tile_n / step->halves);
    int64_t fit = family->shared_per_sm / (c.shared_bytes + 1024); /* 1 KiB is the system's */
    int64_t wanted = ceil_div(c.tiles, family->sm_count);
    c.resident = (int)(fit < wanted ? fit : wanted);
    c.waves = ceil_div(c.tiles, (int64_t)family->sm_count * c.resident);
    int rate = element == 4 ? family->fp32_fma_per_clock : family->fma_per_clock;
    double fma = (double)t->tile_m * t->tile_n / rate;
    double load = (double)element * (t->tile_m + t->tile_n) / family->load_bytes_per_clock;
    double block = (double)or_nominal(step->k) * (fma + LOAD_NOT_HIDDEN * load);
    c.kiloclocks = (double)c.waves * (c.resident * block + START_CLOCKS) / 1000;
    return c;
}

void plan_choose_tile(plan_step *step, const plan *p)
{
    bool fp32 = p->spec->config.params_dtype == SPEC_DTYPE_fp32;
    const plan_tile *tiles = fp32 ? fp32_tiles : mma_tiles;
    size_t count = fp32 ? sizeof fp32_tiles / sizeof *tiles : sizeof mma_tiles / sizeof *tiles;
    step->candidate_count = 0;
    step->chosen = 0;
    for (size_t i = 0; i < count; i++) {
        plan_candidate c = score(&tiles[i], step, p->family, fp32 ? 4 : 2);
        if (c.shared_bytes > p->family->shared_per_block)
            continue;
        if (step->candidate_count > 0 && c.kiloclocks < step->candidates[step->chosen].kiloclocks)
            step->chosen = step->candidate_count;
        step->candidates[step->candidate_count++] = c;
    }
}
