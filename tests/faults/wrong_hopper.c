/*
 * wrong_hopper.c: mistakes in kernels of family sm_90a that touch nothing they must not: no check
 * can see them, the numbers are wrong.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "product.h"

static const product
    fc1 = {FC1_FORWARD, "fc1_output", "hidden_states", "linear_fc1.weight", true, true},
    fc2 = {FC2_FORWARD, "output", "activation_output", "linear_fc2.weight", true, true},
    dgrad = {FC1_DGRAD, "grad.hidden_states", "grad_fc1_output", "linear_fc1.weight", true, false},
    wgrad = {FC1_WGRAD, "grad.linear_fc1.weight", "grad_fc1_output", "hidden_states", false, false};

static void expect_exact(const char *schedule)
{
    setenv("MMLP_EMULATOR_SCHEDULE", schedule, 1);
    cr_expect_eq(product_wrong_with(&fc1, NULL, NULL), 0);
    cr_expect_eq(product_wrong_with(&fc2, NULL, NULL), 0);
    cr_expect_eq(product_wrong_with(&dgrad, NULL, NULL), 0);
    cr_expect_eq(product_wrong_with(&wgrad, NULL, NULL), 0);
}

Test(wrong_hopper, the_kernels_themselves_are_exact_on_integers)
{
    expect_exact("0");
}

Test(wrong_hopper, the_kernels_themselves_are_exact_with_late_copies_and_brief_waits)
{
    expect_exact("3,quantum=7,copies=late,waits=brief");
}

typedef struct slip {
    const char *name;
    const product *kernel;
    const char *from, *to;
} slip;

static void expect_wrong(const slip *slips, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const slip *s = &slips[i];
        cr_expect_gt(product_wrong_with(s->kernel, s->from, s->to), 0, "%s: %s is right", s->name,
                     s->kernel->output);
    }
}
#define EXPECT_WRONG(table) expect_wrong(table, sizeof(table) / sizeof(table)[0])

Test(wrong_hopper, a_descriptor_that_is_not_as_the_tile_lies_shows)
{
    static const char strides[] = "1u << 30 | 1024 >> 4";
    static const slip slips[] = {
        {"no swizzle", &fc2, strides, "0u << 30 | 1024 >> 4"},
        {"a swizzle of 64 bytes", &fc2, strides, "2u << 30 | 1024 >> 4"},
        {"four rows are a stride", &fc2, strides, "1u << 30 | 512 >> 4"},
        {"eight rows are a panel", &wgrad, "leading_bytes = panel_bytes", "leading_bytes = 1024"},
        {"a step of k is eight rows", &dgrad, "k_step_bytes = 16 * 128", "k_step_bytes = 8 * 128"},
        {"a step of k is eight elements", &fc2, "k_step_bytes = 32", "k_step_bytes = 16"},
        {"both warpgroups have the first rows", &fc2, "(warpgroup - 1) * (OperandA",
         "0 * (OperandA"},
        {"A is not transposed", &wgrad, "adds, 1, 1, 1, 1;", "adds, 1, 1, 0, 1;"},
        {"B is transposed", &fc2, "adds, 1, 1, 0, 0;", "adds, 1, 1, 0, 1;"},
    };
    EXPECT_WRONG(slips);
}

Test(wrong_hopper, a_product_that_is_left_out_or_kept_shows)
{
    static const slip slips[] = {
        {"a stage is one step of k short", &fc2, "step < tile_k / 16", "step < tile_k / 16 - 1"},
        {"the sum is one tile of k short", &fc2, "k_tiles = (reduction + tile_k - 1) / tile_k",
         "k_tiles = reduction / tile_k - 1"},
        {"the last rows are left out", &wgrad, "(tokens + tile_k - 1) / tile_k", "tokens / tile_k"},
        {"the sums of the tile before are kept", &fc2, "step > 0 || k_tile > 0", "1"},
        {"the last tile is left out", &dgrad, "return tiles_m * tiles_n;",
         "return tiles_m * tiles_n - 1;"},
    };
    EXPECT_WRONG(slips);
}

Test(wrong_hopper, a_tile_or_panel_that_is_misplaced_shows)
{
    static const slip slips[] = {
        {"x and y of A are exchanged", &dgrad, "barrier, k, first);", "barrier, first, k);"},
        {"gates are loaded for ups", &fc1, "k, first, 1", "k, first, 0"},
        {"x and y of a store are exchanged", &fc2,
         "tile.first_column + panel * panel_columns, tile.first_row + 64 * warpgroup",
         "tile.first_row + 64 * warpgroup, tile.first_column + panel * panel_columns"},
        {"a panel's chunks are exchanged by four rows", &fc2, "(lane / 16 ^ row % 8)",
         "(lane / 16 ^ row % 4)"},
        {"a panel has the accumulators of the first", &fc2, "panel * 32 + group * 4", "group * 4"},
        {"ups are stored from the gates", &fc1, "i = accumulators_per_half +", "i = 0 +"},
    };
    EXPECT_WRONG(slips);
}
