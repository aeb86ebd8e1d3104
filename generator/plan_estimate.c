/*
 * plan_estimate.c: how long a GEMM of a family with tensor maps takes with a tile. Blocks stay, one
 * on an SM, and take tiles in turn. For each k a tile needs the clocks of what is slowest:
 *
 *     tensor cores   tile_m * tile_n / fma_per_clock
 *     shared memory  what the copies write, (tile_m + tile_n), and what the products read,
 *                    (64 + tile_n) for each warpgroup; 128 B a clock
 *     L2             tile_m + tile_n / cluster: a cluster loads its columns once; 64 B a clock
 *     stages         from one stage to the next: barriers, products and the stage's release
 *
 * (elements, of 2 B; what was measured on an H200, docs/gpu-runs.md, gave the last two). The
 * epilogue is exposed: all warpgroups work on the same tile. It needs the
 * clocks of its instructions, 128 lanes a clock, or of those for the units of special functions,
 * 16 lanes a clock. A launch lasts at least as long as memory needs for what its waves read: the
 * tiles that run at one time read each row and column of tiles once.
 */
#include "plan.h"

enum {
    ELEMENT_BYTES = 2,
    WARPGROUP_ROWS = 64,
    SHARED_BYTES_PER_CLOCK = 128,
    MEMORY_BYTES_PER_CLOCK = 1900, /* of an H100: 3.35 TB/s at 1.755 GHz */
    LANES_PER_CLOCK = 128,
    SPECIAL_LANES_PER_CLOCK = 16,
    STAGE_CLOCKS = 300,  /* from one stage to the next, at least: barriers, products, release */
    TILE_CLOCKS = 500,   /* from the last product to the first of the next tile, waits */
    LAUNCH_CLOCKS = 6000 /* until the first stage is full, and to drain the last stores */
};

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* ---- the epilogue --------------------------------------------------------------------------- */

/* Instructions of a lane and of them those of special functions, as templates/device/math.cuh
 * writes them; about one for what is not listed. */
static void cost_of(program_op op, double *instructions, double *special)
{
    static const struct {
        program_op op;
        double instructions, special;
    } rows[] = {
        {PROGRAM_constant, 0, 0}, {PROGRAM_input, 0, 0},   {PROGRAM_neg, 0, 0},
        {PROGRAM_abs, 0, 0},      {PROGRAM_div, 10, 1},    {PROGRAM_exp, 2, 1},
        {PROGRAM_log, 6, 1},      {PROGRAM_sigmoid, 4, 2}, {PROGRAM_tanh, 16, 2},
        {PROGRAM_erf, 28, 2},     {PROGRAM_erfc, 18, 2},   {PROGRAM_softplus, 14, 2},
        {PROGRAM_sqrt, 1, 1},     {PROGRAM_rsqrt, 5, 1},   {PROGRAM_min, 3, 0},
        {PROGRAM_max, 3, 0},      {PROGRAM_clamp, 6, 0},   {PROGRAM_where, 2, 0},
    };
    *instructions = 1;
    *special = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (rows[i].op == op) {
            *instructions = rows[i].instructions;
            *special = rows[i].special;
        }
    }
}

/* Clocks of one output of a lane. */
static double epilogue_clocks(const plan_epilogue *e)
{
    double instructions = 0, special = 0;
    for (int i = 0; i < e->graph.count; i++) {
        double more, more_special;
        cost_of(e->graph.nodes[i].op, &more, &more_special);
        instructions += more;
        special += more_special;
    }
    /* Half a conversion, and a share of the instruction that moves eight; sums of columns are
     * added over lanes. */
    for (int i = 0; i < e->input_count; i++)
        instructions += e->inputs[i].kind == PLAN_INPUT_ELEMENT ? 1.25 : 0;
    for (int i = 0; i < e->output_count; i++)
        instructions += e->outputs[i].kind == PLAN_STORE ? 0.75 : 3;
    double issue = instructions / LANES_PER_CLOCK, units = special / SPECIAL_LANES_PER_CLOCK;
    return issue > units ? issue : units;
}

/* ---- waves ---------------------------------------------------------------------------------- */

typedef struct grid {
    int64_t clusters_m, tiles_n, group; /* rows of clusters, columns of tiles, rows of a group */
} grid;

/* Rows and columns of tiles that clusters first to last, in the order of
 * templates/device/persistent_tiles.cuh, have together. */
static void count_distinct(const grid *g, int64_t first, int64_t last, int64_t *rows,
                           int64_t *columns)
{
    *rows = *columns = 0;
    int64_t of_group = g->group * g->tiles_n;
    for (int64_t group = first / of_group; group <= last / of_group; group++) {
        int64_t height = least(g->clusters_m - group * g->group, g->group);
        int64_t from = group == first / of_group ? first % of_group : 0;
        int64_t to = group == last / of_group ? last % of_group : height * g->tiles_n - 1;
        *rows += least(to - from + 1, height);
        *columns += to / height - from / height + 1;
    }
    *columns = least(*columns, g->tiles_n); /* a wave ends a group and begins the next */
}

/* Distinct bytes of both operands, summed over waves of so many clusters. */
static double wave_bytes(const grid *g, int64_t clusters, const plan_tile *t, int64_t reduction)
{
    double bytes = 0;
    int64_t count = g->clusters_m * g->tiles_n;
    for (int64_t first = 0; first < count; first += clusters) {
        int64_t rows, columns;
        count_distinct(g, first, least(first + clusters, count) - 1, &rows, &columns);
        bytes += (double)ELEMENT_BYTES * (double)reduction *
                 ((double)(rows * t->cluster * t->tile_m) + (double)(columns * t->tile_n));
    }
    return bytes;
}

/* ---- all of it ------------------------------------------------------------------------------ */

typedef struct clocks {
    double tensor, shared, l2;
} clocks;

static clocks for_each_k(const plan_tile *t, const plan_family *family)
{
    int64_t warpgroups = t->tile_m / WARPGROUP_ROWS;
    return (clocks){
        .tensor = (double)t->tile_m * t->tile_n / family->fma_per_clock,
        .shared = (double)ELEMENT_BYTES *
                  (double)(t->tile_m + t->tile_n + warpgroups * (WARPGROUP_ROWS + t->tile_n)) /
                  SHARED_BYTES_PER_CLOCK,
        .l2 = ELEMENT_BYTES * (t->tile_m + (double)t->tile_n / t->cluster) /
              family->load_bytes_per_clock,
    };
}

void plan_estimate_launch(plan_candidate *c, const plan_step *step, const plan_family *family,
                          int64_t tokens)
{
    static const int groups[] = {16, 8, 4, 32};
    const plan_tile *t = &c->tile;
    plan_estimate *e = &c->estimate;
    int64_t rows = step->m ? step->m : tokens, reduction = step->k ? step->k : tokens;
    int64_t clusters = family->sm_count / t->cluster;
    grid g = {.clusters_m = plan_ceil_div(rows, t->tile_m * t->cluster),
              .tiles_n = plan_ceil_div(step->columns, t->tile_n / step->halves)};
    int64_t count = g.clusters_m * g.tiles_n;
    *e = (plan_estimate){
        .tiles = count * t->cluster, .waves = plan_ceil_div(count, clusters), .resident = 1};
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        g.group = groups[i] / t->cluster;
        double bytes = wave_bytes(&g, clusters, t, reduction);
        if (i == 0 || bytes < e->wave_bytes) {
            e->wave_bytes = bytes;
            c->group_m = groups[i];
        }
    }
    clocks k = for_each_k(t, family);
    double slowest = (double)STAGE_CLOCKS / t->tile_k;
    e->limit = "stages";
    if (k.tensor > slowest) {
        slowest = k.tensor;
        e->limit = "tensor cores";
    }
    if (k.shared > slowest) {
        slowest = k.shared;
        e->limit = "shared memory";
    }
    if (k.l2 > slowest) {
        slowest = k.l2;
        e->limit = "L2";
    }
    double tile = (double)reduction * slowest +
                  (double)t->tile_m * (t->tile_n / step->halves) * epilogue_clocks(&step->epilogue);
    double all = (double)e->waves * (tile + TILE_CLOCKS);
    double memory = e->wave_bytes / MEMORY_BYTES_PER_CLOCK;
    if (memory > all) {
        all = memory;
        e->limit = "memory";
    }
    e->kiloclocks = (all + LAUNCH_CLOCKS) / 1000;
}
