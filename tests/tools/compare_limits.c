/* compare_limits.c: the limits of the numerics contract, and the errors that are held against them.
 */
#include <criterion/criterion.h>
#include <math.h>

#include "compare.h"

Test(compare, limits_are_those_of_the_numerics_contract)
{
    cr_expect_eq(compare_limit(COMPARE_GEMM, "bf16", 256), 4e-3);
    cr_expect_eq(compare_limit(COMPARE_FORWARD, "bf16", 256), 4e-3);
    cr_expect_eq(compare_limit(COMPARE_GRADIENT, "bf16", 256), 6e-3);
    cr_expect_eq(compare_limit(COMPARE_FORWARD, "bf16", 255), 1.2e-2);
    cr_expect_eq(compare_limit(COMPARE_GRADIENT, "bf16", 255), 1.2e-2);
    cr_expect_eq(compare_limit(COMPARE_SCALE_GRADIENT, "bf16", 8), 1.5e-2);
    cr_expect_eq(compare_limit(COMPARE_GRADIENT, "fp16", 8), 1e-3);
    cr_expect_eq(compare_limit(COMPARE_SCALE_GRADIENT, "fp16", 8), 4e-3);
    cr_expect_eq(compare_limit(COMPARE_GEMM, "fp32", 8), 2e-6);
    cr_expect_eq(compare_limit(COMPARE_GRADIENT, "fp32", 8), 5e-6);
    cr_expect_eq(compare_limit(COMPARE_SCALE_GRADIENT, "fp32", 8), 1e-5);
}

Test(compare, errors_are_relative_to_the_norm_of_what_is_expected_or_of_the_terms)
{
    const double expected[] = {3, 4}, actual[] = {3, 4.5}, terms[] = {6, 8}, zeros[] = {0, 0};
    cr_expect_float_eq(compare_error(actual, expected, NULL, 2), 0.1, 1e-15);
    cr_expect_float_eq(compare_error(actual, expected, terms, 2), 0.05, 1e-15);
    cr_expect_eq(compare_error(actual, zeros, NULL, 2), 4.5);
    cr_expect_eq(compare_error(zeros, zeros, zeros, 2), 0);
}

Test(compare, a_value_that_is_not_finite_on_one_side_alone_is_an_infinite_error)
{
    const double finite[] = {1, 2}, odd[] = {1, NAN}, large[] = {1, INFINITY};
    cr_expect_eq(compare_error(odd, finite, NULL, 2), INFINITY);
    cr_expect_eq(compare_error(finite, odd, NULL, 2), INFINITY);
    cr_expect_eq(compare_error(large, finite, NULL, 2), INFINITY);
    cr_expect_eq(compare_error(odd, odd, NULL, 2), 0);
    cr_expect_eq(compare_error(large, large, NULL, 2), 0);
}

static compare_case gradient(const double *actual, const double *expected, const int64_t *shape,
                             int kink, int64_t tokens)
{
    return (compare_case){.name = "grad.hidden_states",
                          .against = "file",
                          .dtype = "bf16",
                          .kind = COMPARE_GRADIENT,
                          .shape = shape,
                          .rank = 1,
                          .actual = actual,
                          .expected = expected,
                          .kink = kink,
                          .tokens = tokens};
}

Test(compare, behind_a_kink_the_limit_is_wide_and_few_tokens_are_not_compared)
{
    const double expected[] = {1, 0}, near[] = {1, 0.05}, far[] = {1, 0.2};
    const int64_t shape[] = {2};
    compare_table table = {0};
    compare_case c = gradient(near, expected, shape, 0, 0);
    compare_row(&table, &c);
    cr_expect_eq(table.failed, 1);
    c = gradient(near, expected, shape, 1, 32);
    compare_row(&table, &c);
    cr_expect_eq(table.failed, 1);
    c = gradient(far, expected, shape, 1, 32);
    compare_row(&table, &c);
    cr_expect_eq(table.failed, 2);
    c = gradient(far, expected, shape, 1, 31);
    compare_row(&table, &c);
    cr_expect_eq(table.failed, 2);
    cr_expect_eq(table.rows, 3);
}

Test(compare, zeros_are_expected_within_an_absolute_limit)
{
    const double zeros[] = {0, 0}, near[] = {0, 1e-6}, far[] = {0, 2e-6};
    const int64_t shape[] = {2};
    compare_table table = {0};
    compare_case c = gradient(near, zeros, shape, 0, 0);
    compare_row(&table, &c);
    cr_expect_eq(table.failed, 0);
    c = gradient(far, zeros, shape, 1, 64);
    compare_row(&table, &c);
    cr_expect_eq(table.failed, 1);
}
