/*
 * wrong_numbers.c: mistakes in generated kernels that touch nothing they must not: no check can
 * see them, the numbers are wrong. The inputs are integers, so that sums are exact in fp32 and a
 * result is right to the last bit or wrong.
 */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "generated.h"

/* output = A B, where A and B are stored along the reduction (k major) or across it. */
typedef struct product {
    victim kernel;
    const char *output, *a, *b;
    bool a_k_major, b_k_major;
} product;

static const product
    forward = {FC2_FORWARD, "output", "activation_output", "linear_fc2.weight", true, true},
    dgrad = {FC1_DGRAD, "grad.hidden_states", "grad_fc1_output", "linear_fc1.weight", true, false},
    wgrad = {FC1_WGRAD, "grad.linear_fc1.weight", "grad_fc1_output", "hidden_states", false, false};

/* bf16 of an integer below 2^24, to the nearest and then to even. */
static unsigned short bf16_of(int value)
{
    float single = (float)value;
    unsigned bits;
    memcpy(&bits, &single, sizeof bits);
    return (unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static int *values_of(const char *name, size_t *rows, size_t *columns)
{
    generated_shape(name, rows, columns);
    int *values = malloc(*rows * *columns * sizeof *values);
    cr_assert_not_null(values);
    for (size_t i = 0; i < *rows * *columns; i++)
        values[i] = generated_value(name, i / *columns, i % *columns);
    return values;
}

/* The product as bf16 (malloc). */
static unsigned short *multiply(const product *p, size_t *count)
{
    size_t rows, columns, a_rows, a_columns, b_rows, b_columns;
    int *a = values_of(p->a, &a_rows, &a_columns), *b = values_of(p->b, &b_rows, &b_columns);
    generated_shape(p->output, &rows, &columns);
    size_t reduction = p->a_k_major ? a_columns : a_rows;
    cr_assert_eq(reduction, p->b_k_major ? b_columns : b_rows);
    *count = rows * columns;
    unsigned short *out = malloc(*count * sizeof *out);
    cr_assert_not_null(out);
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < columns; c++) {
            int sum = 0;
            for (size_t k = 0; k < reduction; k++)
                sum += (p->a_k_major ? a[r * a_columns + k] : a[k * a_columns + r]) *
                       (p->b_k_major ? b[c * b_columns + k] : b[k * b_columns + c]);
            out[r * columns + c] = bf16_of(sum);
        }
    }
    free(a);
    free(b);
    return out;
}

/* How many elements are wrong after the change; from NULL: none. Every run must end without a
 * fault. */
static size_t wrong_with(const product *p, const char *from, const char *to)
{
    size_t count, wrong = 0;
    unsigned short *expected = multiply(p, &count), *found = malloc(count * sizeof *found);
    generated kernel = generated_read(p->kernel);
    if (from)
        generated_replace(&kernel, from, to);
    cr_expect_eq(generated_run(&kernel, NULL, p->output, found), CUDA_SUCCESS, "%s, '%s'",
                 p->output, from ? to : "");
    for (size_t i = 0; i < count; i++)
        wrong += found[i] != expected[i];
    generated_free(&kernel);
    free(expected);
    free(found);
    return wrong;
}

typedef struct mistake {
    const product *kernel;
    const char *from, *to;
} mistake;

static void expect_wrong(const mistake *mistakes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const mistake *m = &mistakes[i];
        cr_expect_gt(wrong_with(m->kernel, m->from, m->to), 0, "%s: '%s' for '%s' changed nothing",
                     m->kernel->output, m->to, m->from);
    }
}
#define EXPECT_WRONG(table) expect_wrong(table, sizeof(table) / sizeof(table)[0])

Test(wrong_numbers, the_kernels_themselves_are_exact_on_integers)
{
    cr_expect_eq(wrong_with(&forward, NULL, NULL), 0);
    cr_expect_eq(wrong_with(&dgrad, NULL, NULL), 0);
    cr_expect_eq(wrong_with(&wgrad, NULL, NULL), 0);
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
