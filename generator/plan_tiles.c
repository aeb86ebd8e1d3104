/*
 * plan_tiles.c: which tiles a GEMM gets. A model tells how long each candidate of the family and
 * the storage type takes and the fastest is chosen, and where the family has tensor maps a second
 * one for few tokens; the plan prints all of them. plan_estimate.c is the model of that family.
 *
 * That of the others: one block computes a tile in
 *     reduction * (fma clocks + a quarter of the load clocks) + START_CLOCKS
 * where fma clocks = tile_m * tile_n / fma_per_clock for each k, load clocks = element bytes *
 * (tile_m + tile_n) / load_bytes_per_clock: the pipeline hides most of a load, not all. Blocks that
 * share an SM share its rate. A launch takes as many waves as it needs to place all its tiles.
 */
#include "plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    START_CLOCKS = 3000,    /* filling the pipeline, and the epilogue */
    GROUP_M = 8,            /* row tiles that share a column while it is in L2 */
    PANEL_COLUMNS = 64,     /* of templates/epilogues/visit_fragments.cuh */
    STAGED_PADDING = 8,     /* floats behind a staged row, see templates/epilogues/visit_rows.cuh */
    FP32_PADDING_BYTES = 16 /* behind a row of templates/device/fp32_k_major.cuh */
};
static const double LOAD_NOT_HIDDEN = 0.25;

static const plan_family families[] = {
    {"sm_80", "A100 (108 SMs)", 108, 164 << 10, 99 << 10, 1024, 64, 47, false, false},
    {"sm_90a", "H100 (132 SMs)", 132, 228 << 10, 227 << 10, 2048, 128, 64, true, true},
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

/* 16-bit types, by wgmma: warpgroups of 64 rows. Stages: as many as fit, at most these. */
static const plan_tile wgmma_tiles[] = {
    {128, 256, 64, 6, 8, 1, 2}, {128, 128, 64, 6, 8, 1, 2}, {128, 256, 64, 6, 8, 1, 1},
    {128, 128, 64, 6, 8, 1, 1}, {64, 256, 64, 6, 4, 1, 1},  {64, 128, 64, 6, 4, 1, 1},
    {64, 64, 64, 6, 4, 1, 1},
};

typedef struct tile_set {
    const plan_tile *tiles;
    size_t count;
} tile_set;
enum { MMA, FP32, WGMMA, TILE_SETS };
static const tile_set tile_sets[TILE_SETS] = {
    [MMA] = {mma_tiles, sizeof mma_tiles / sizeof *mma_tiles},
    [FP32] = {fp32_tiles, sizeof fp32_tiles / sizeof *fp32_tiles},
    [WGMMA] = {wgmma_tiles, sizeof wgmma_tiles / sizeof *wgmma_tiles},
};

const char *const plan_architectures[] = {"sm_80",  "sm_86",  "sm_89",  "sm_90",
                                          "sm_90a", "sm_100", "sm_120", NULL};

void plan_print_architectures(text *out)
{
    for (const char *const *known = plan_architectures; *known; known++)
        text_printf(out, "%s%s", known == plan_architectures ? "" : ", ", *known);
}

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

static int64_t shared_bytes(const plan_tile *t, int64_t element)
{
    int64_t row = t->tile_k * element + (element == 4 ? FP32_PADDING_BYTES : 0);
    int64_t pipeline = t->stages * (t->tile_m + t->tile_n) * row;
    int64_t rows = element == 4 ? 16 : 16 * t->warps_m;
    int64_t staged = rows * (t->tile_n + STAGED_PADDING) * 4;
    return pipeline > staged ? pipeline : staged;
}

/* The parts of shared memory of templates/kernels/sm_90a_gemm.cu: panels are 64 rows of 128 bytes,
 * and each warpgroup has its own. Fills what is left open in the candidate. */
static void fit_stages(plan_candidate *c, const plan_step *step, const plan_family *family)
{
    enum { PANEL = 8192, BARRIERS = 256 };
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
    int64_t fixed = t->tile_m / 64 * PANEL * (c->input_panels + c->staged_panels) +
                    sums * t->warps_m * columns * 4 + BARRIERS;
    stage = (int64_t)(t->tile_m + t->tile_n) * t->tile_k * 2;
    int64_t fit = (family->shared_per_block - fixed) / stage;
    t->stages = (int)(fit < t->stages ? fit : t->stages);
    c->shared_bytes = fixed + t->stages * stage;
}

/* A row's partial sum is that of one block's columns, a column's that of its rows. */
static bool sums_fit(const plan_tile *t, const plan_step *step)
{
    bool fit = true;
    for (int i = 0; i < step->epilogue.output_count; i++) {
        plan_output_kind kind = step->epilogue.outputs[i].kind;
        fit = fit && (kind != PLAN_ROW_SUMS || t->tile_n == step->halves * PLAN_SUMMED_COLUMNS) &&
              (kind != PLAN_COLUMN_SUMS || t->tile_m == PLAN_SUMMED_ROWS);
    }
    return fit;
}

static int64_t or_nominal(int64_t size)
{
    return size ? size : PLAN_NOMINAL_TOKENS;
}

/* Blocks of one tile each, several on an SM. */
static void estimate_blocks(plan_candidate *c, const plan_step *step, const plan_family *family,
                            int64_t element)
{
    const plan_tile *t = &c->tile;
    plan_estimate *e = &c->estimate;
    e->tiles = plan_ceil_div(or_nominal(step->m), t->tile_m) *
               plan_ceil_div(step->columns, t->tile_n / step->halves);
    int64_t fit = family->shared_per_sm / (c->shared_bytes + 1024); /* 1 KiB is the system's */
    int64_t wanted = plan_ceil_div(e->tiles, family->sm_count);
    e->resident = (int)(fit < wanted ? fit : wanted);
    e->waves = plan_ceil_div(e->tiles, (int64_t)family->sm_count * e->resident);
    int rate = element == 4 ? family->fp32_fma_per_clock : family->fma_per_clock;
    double fma = (double)t->tile_m * t->tile_n / rate;
    double load = (double)element * (t->tile_m + t->tile_n) / family->load_bytes_per_clock;
    double block = (double)or_nominal(step->k) * (fma + LOAD_NOT_HIDDEN * load);
    e->kiloclocks = (double)e->waves * (e->resident * block + START_CLOCKS) / 1000;
}

/* "128x256", or with the cluster's blocks "128x256:2". */
static bool is_tile(const plan_tile *t, const char *name)
{
    char own[32], with_cluster[40];
    snprintf(own, sizeof own, "%dx%d", t->tile_m, t->tile_n);
    snprintf(with_cluster, sizeof with_cluster, "%s:%d", own, t->cluster);
    return strcmp(own, name) == 0 || strcmp(with_cluster, name) == 0;
}

bool plan_tile_exists(const char *tile)
{
    bool exists = false;
    for (int set = 0; set < TILE_SETS; set++)
        for (size_t i = 0; i < tile_sets[set].count; i++)
            exists = exists || is_tile(&tile_sets[set].tiles[i], tile);
    return exists;
}

/* Leaves candidates of the asked tile alone, if there are any. */
static void keep_tile(plan_step *step, const char *tile)
{
    int kept = 0;
    for (int i = 0; i < step->candidate_count; i++)
        if (is_tile(&step->candidates[i].tile, tile))
            step->candidates[kept++] = step->candidates[i];
    step->candidate_count = kept ? kept : step->candidate_count;
}

bool plan_has_maps(const plan *p)
{
    return p->family->has_tensor_maps && p->spec->config.params_dtype != SPEC_DTYPE_fp32;
}

static void add_candidates(plan_step *step, const plan *p)
{
    enum { STAGES_LEAST = 3 };
    bool fp32 = p->spec->config.params_dtype == SPEC_DTYPE_fp32;
    bool maps = plan_has_maps(p);
    const tile_set *set = &tile_sets[fp32 ? FP32 : maps ? WGMMA : MMA];
    int64_t element = fp32 ? 4 : 2;
    for (size_t i = 0; i < set->count; i++) {
        plan_candidate c = {.tile = set->tiles[i], .group_m = GROUP_M};
        if (maps && c.tile.tile_n / step->halves < PANEL_COLUMNS)
            continue;
        if (maps)
            fit_stages(&c, step, p->family);
        else
            c.shared_bytes = shared_bytes(&c.tile, element);
        if (c.shared_bytes > p->family->shared_per_block || c.tile.stages < STAGES_LEAST ||
            (maps && !sums_fit(&c.tile, step)))
            continue;
        if (maps)
            plan_estimate_launch(&c, step, p->family, PLAN_NOMINAL_TOKENS);
        else
            estimate_blocks(&c, step, p->family, element);
        step->candidates[step->candidate_count++] = c;
    }
}

static int fastest(const plan_step *step)
{
    int best = 0;
    for (int i = 1; i < step->candidate_count; i++)
        if (step->candidates[i].estimate.kiloclocks < step->candidates[best].estimate.kiloclocks)
            best = i;
    return best;
}

/* Another candidate for calls of few tokens, and up to how many: where the product of what is
 * gained at each step of the ladder is greatest. */
static void add_few_tokens(plan_step *step, const plan_family *family)
{
    static const double GAIN_LEAST = 1.05, BETTER = 1.01; /* else the larger tile stays */
    int many = step->variants[0].candidate;
    double best = GAIN_LEAST;
    plan_variant few = {-1, 0};
    for (int i = 0; i < step->candidate_count; i++) {
        double gain = 1;
        int steps = 0;
        for (int64_t tokens = PLAN_LADDER_FIRST; tokens < PLAN_NOMINAL_TOKENS; tokens *= 2) {
            plan_candidate small = step->candidates[i], large = step->candidates[many];
            plan_estimate_launch(&small, step, family, tokens);
            plan_estimate_launch(&large, step, family, tokens);
            gain *= large.estimate.kiloclocks / small.estimate.kiloclocks;
            steps++;
            if (gain > BETTER * best) {
                best = gain;
                few = (plan_variant){i, tokens};
                step->few_gain = pow(gain, 1.0 / steps);
            }
        }
    }
    if (few.candidate < 0)
        return;
    step->variants[1] = step->variants[0];
    step->variants[0] = few;
    step->variant_count = 2;
}

void plan_choose_tile(plan_step *step, const plan *p)
{
    step->candidate_count = 0;
    add_candidates(step, p);
    if (p->tile)
        keep_tile(step, p->tile);
    step->variants[0] = (plan_variant){fastest(step), 0};
    step->variant_count = 1;
    if (plan_has_maps(p) && !step->m && !p->tile)
        add_few_tokens(step, p->family);
}
