/*
 * tile_order.c: what the waves of fc1's tiles read, counted by the emulator: as many bytes as the
 * plan says, and more in another order. The kernel runs with a block for each tile, so that blocks
 * that run together are the tiles that would.
 */
#include <criterion/criterion.h>

#include "generated.h"
#include "plan.h"

static plan plan_of(module_spec *spec)
{
    plan p;
    cr_assert_eq(spec_load(spec, SPEC, NULL), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(plan_build(&p, spec, "sm_90a", TILE), MMLP_OK, "%s", mmlp_last_error());
    return p;
}

/* What fc1's blocks read, by waves: without what they store, each of it once. */
static double count_reads(const char *from, const char *to)
{
    generated k = generated_read(FC1_FORWARD);
    emu_counters counters;
    if (from)
        generated_replace(&k, from, to);
    generated_count(&k, &counters);
    cr_expect_geq(counters.waves, 4);
    generated_free(&k);
    return (double)(counters.wave_bytes - counters.bytes_written);
}

Test(tile_order, waves_read_what_the_plan_says)
{
    module_spec spec;
    plan p = plan_of(&spec);
    plan_candidate c = p.steps[0].candidates[0];
    plan_estimate_launch(&c, &p.steps[0], p.family, TOKENS);
    cr_expect_eq(count_reads(NULL, NULL), c.estimate.wave_bytes);
    plan_free(&p);
    spec_free(&spec);
}

Test(tile_order, one_row_of_tiles_after_the_other_reads_more)
{
    double planned = count_reads(NULL, NULL);
    cr_expect_gt(count_reads("constexpr int group_m = 16;", "constexpr int group_m = 2;"), planned);
}
