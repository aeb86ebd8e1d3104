/*
 * wrong_numbers.c: mistakes in generated kernels that touch nothing they must not: no check can
 * see them, the numbers are wrong.
 */
#include <criterion/criterion.h>

#include "product.h"

static const product
    forward = {FC2_FORWARD, "output", "activation_output", "linear_fc2.weight", true, true},
    dgrad = {FC1_DGRAD, "grad.hidden_states", "grad_fc1_output", "linear_fc1.weight", true, false},
    wgrad = {FC1_WGRAD, "grad.linear_fc1.weight", "grad_fc1_output", "hidden_states", false, false};

typedef struct mistake {
    const product *kernel;
    const char *from, *to;
} mistake;

static void expect_wrong(const mistake *mistakes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const mistake *m = &mistakes[i];
        cr_expect_gt(product_wrong_with(m->kernel, m->from, m->to), 0,
                     "%s: '%s' for '%s' changed nothing", m->kernel->output, m->to, m->from);
    }
}
#define EXPECT_WRONG(table) expect_wrong(table, sizeof(table) / sizeof(table)[0])

Test(wrong_numbers, the_kernels_themselves_are_exact_on_integers)
{
    cr_expect_eq(product_wrong_with(&forward, NULL, NULL), 0);
    cr_expect_eq(product_wrong_with(&dgrad, NULL, NULL), 0);
    cr_expect_eq(product_wrong_with(&wgrad, NULL, NULL), 0);
}

Test(wrong_numbers, a_swizzle_that_the_reader_does_not_share_shows)
{
    static const mistake mistakes[] = {
        {&forward, "source = shared + r * row_bytes + 16 * (c ^ (r / 2 % 4))",
         "source = shared + r * row_bytes + 16 * (c ^ (r % 4))"},
        {&forward, "source = shared + r * row_bytes + 16 * (c ^ (r / 2 % 4))",
         "source = shared + r * row_bytes + 16 * c"},
        {&dgrad, "source = shared + r * row_bytes + 16 * (c ^ (r % 8))",
         "source = shared + r * row_bytes + 16 * (c ^ (r / 2 % 4))"},
        {&wgrad, "destination = shared + r * row_bytes + 16 * (c ^ (r % 8))",
         "destination = shared + r * row_bytes + 16 * (c ^ (r % 4))"},
    };
    EXPECT_WRONG(mistakes);
}

Test(wrong_numbers, a_wrong_fragment_index_shows)
{
    static const mistake mistakes[] = {
        {&forward, "current.b[j / 2][j % 2 * 2 + 1]", "current.b[j / 2][j % 2 * 2]"},
        {&dgrad, "current.b[j / 2][j % 2 * 2]", "current.b[j / 2][j % 2]"},
        /* The matrices of A in the order of B's. */
        {&forward, "const int r = warp_first + lane % 16;\n        const int c = lane / 16;",
         "const int r = warp_first + lane / 16 * 8 + lane % 8;\n        const int c = lane / 8 % "
         "2;"},
        {&wgrad, "x4.trans.shared", "x4.shared"},
        {&wgrad, "(d[2], d[3])", "(d[3], d[2])"},
        {&dgrad, "lane % 4 * 2;", "lane % 4 * 2 + 4;"},
    };
    EXPECT_WRONG(mistakes);
}

Test(wrong_numbers, a_step_or_stage_that_is_taken_twice_shows)
{
    static const mistake mistakes[] = {
        {&forward, "b.read(next.b, stage, k_step + 1);", "b.read(next.b, stage, k_step);"},
        {&wgrad, "a.load(free_stage, k_tile + stages - 1);",
         "a.load(free_stage, k_tile + stages - 2);"},
        {&forward, "fragments[k_step % 2]", "fragments[(k_step + 1) % 2]"},
    };
    EXPECT_WRONG(mistakes);
}

Test(wrong_numbers, a_row_or_tile_that_is_misplaced_shows)
{
    static const mistake mistakes[] = {
        {&forward, "slice * 16 + row % 16", "slice * 16 + row % 8"},
        {&wgrad, "in_group % group_rows", "in_group / group_rows"},
        /* The last rows are loaded as zeros. */
        {&dgrad, "rows_per_pass < rows)", "rows_per_pass < rows - 1)"},
    };
    EXPECT_WRONG(mistakes);
}
