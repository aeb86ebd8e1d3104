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
    {"sm_80", "A100 (108 SMs)", 108, 164 << 10, 99 << 10, 1024, 64, 47, false, false},
    {"sm_90a", "H100 (132 SMs)", 132, 228 << 10, 227 << 10, 2048, 128, 46, true, true},
};

/* 16-bit types, on tensor cores. Warp tiles are 64 x 64: the largest whose accumulators leave room
 * for fragments in registers. */
static const plan_tile mma_tiles[] = {
    {128, 256, 32, 4, 2, 4, 1},
    {128, 128, 32, 4, 2, 2, 1},
};

/* fp32, on the FMA units: 64 accumulators a thread. */
static const plan_tile fp32_tiles[] = {
    {128, 128, 16, 3, 4, 2, 1},
};

/* 16-bit types, by wgmma: two warpgroups of 64 rows. Stages: as many as fit, at most these. */
static const plan_tile wgmma_tiles[] = {
    {128, 256, 64, 6, 8, 1, 1},
    {128, 128, 64, 6, 8, 1, 1},
};

const char *const plan_architectures[] = {"sm_80",  "sm_86",  "sm_89",  "sm_90",
                                          "sm_90a", "sm_100", "sm_120", NULL};

const plan_family *plan_family_of(const char *arch)
{
    const plan_family *found = NULL;
    for (const char *const *known = plan_architectures; *known; known++)
        if (strcmp(arch, *known) == 0)
            found = &families[0];
    for (size_t i = 1; i < sizeof families / sizeof *families; i++)
        if (strcmp(arch, families[i].name) == 0)
            found = &families[i];
    return found;
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

/* The parts of shared memory of templates/kernels/sm_90a_gemm.cu: panels are 64 rows of 128 bytes,
 * and each of two warpgroups has its own. Fills what is left open in the candidate. */
static void fit_stages(plan_candidate *c, const plan_step *step, const plan_family *family)
{
    enum { GROUPS = 2, PANEL = 8192, WARPS = 8, BARRIERS = 256 };
    plan_tile *t = &c->tile;
    const plan_epilogue *e = &step->epilogue;
    int64_t columns = t->tile_n / step->halves, sums = 0, inputs = 0, stage;
    bool stages_stores = false;
    for (int i = 0; i < e->output_count; i++) {
        sums += e->outputs[i].kind == PLAN_COLUMN_SUMS;
        stages_stores = stages_stores || (e->outputs[i].kind == PLAN_STORE &&
                                          plan_store_place(e, i) != PLAN_PLACE_INPUT);
    }
    for (int i = 0; i < e->input_count; i++)
        inputs += e->inputs[i].kind == PLAN_INPUT_ELEMENT;
    c->input_panels = (int)(inputs * columns / 64);
    /* A second panel lets the next one be computed while the first is stored. */
    c->staged_panels = stages_stores ? (sums > 0 && inputs > 1 ? 1 : 2) : 0;
    int64_t fixed = GROUPS * PANEL * (c->input_panels + c->staged_panels) +
                    sums * WARPS * columns * 4 + BARRIERS;
    stage = (int64_t)(t->tile_m + t->tile_n) * t->tile_k * 2;
    int64_t fit = (family->shared_per_block - fixed) / stage;
    t->stages = (int)(fit < t->stages ? fit : t->stages);
    c->shared_bytes = fixed + t->stages * stage;
}

/* A row's partial sum is that of one block's columns. */
static bool sums_rows(const plan_epilogue *e)
{
    for (int i = 0; i < e->output_count; i++)
        if (e->outputs[i].kind == PLAN_ROW_SUMS)
            return true;
    return false;
}

static int64_t or_nominal(int64_t size)
{
    return size ? size : PLAN_NOMINAL_TOKENS;
}

static plan_candidate score(const plan_tile *tile, const plan_step *step, const plan_family *family,
                            int64_t element)
{
    plan_candidate c = {.tile = *tile};
    const plan_tile *t = &c.tile;
    if (family->has_tensor_maps && element == 2)
        fit_stages(&c, step, family);
    else
        c.shared_bytes = shared_bytes(t, element);
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
    enum { STAGES_LEAST = 3 };
    bool fp32 = p->spec->config.params_dtype == SPEC_DTYPE_fp32;
    const plan_tile *tiles = fp32                         ? fp32_tiles
                             : p->family->has_tensor_maps ? wgmma_tiles
                                                          : mma_tiles;
    size_t count = fp32                         ? sizeof fp32_tiles / sizeof *tiles
                   : p->family->has_tensor_maps ? sizeof wgmma_tiles / sizeof *tiles
                                                : sizeof mma_tiles / sizeof *tiles;
    step->candidate_count = 0;
    step->chosen = 0;
    for (size_t i = 0; i < count; i++) {
        plan_candidate c = score(&tiles[i], step, p->family, fp32 ? 4 : 2);
        bool sums_fit = !p->family->has_tensor_maps || !sums_rows(&step->epilogue) ||
                        c.tile.tile_n == step->halves * PLAN_SUMMED_COLUMNS;
        if (c.shared_bytes > p->family->shared_per_block || c.tile.stages < STAGES_LEAST ||
            !sums_fit)
            continue;
        if (step->candidate_count > 0 && c.kiloclocks < step->candidates[step->chosen].kiloclocks)
            step->chosen = step->candidate_count;
        step->candidates[step->candidate_count++] = c;
    }
}
