/* compare.c: norm-wise errors, their limits, and the table that --check prints. */
#include "compare.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static double norm_of(const double *values, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; ++i)
        if (isfinite(values[i]))
            sum += values[i] * values[i];
    return sqrt(sum);
}

double compare_error(const double *actual, const double *expected, const double *terms,
                     size_t count)
{
    double difference = 0, largest = 0;
    for (size_t i = 0; i < count; ++i) {
        int same = actual[i] == expected[i] || (isnan(actual[i]) && isnan(expected[i]));
        if (same)
            continue;
        if (!isfinite(actual[i]) || !isfinite(expected[i]))
            return INFINITY;
        double d = actual[i] - expected[i];
        difference += d * d;
        largest = fmax(largest, fabs(actual[i]));
    }
    double norm = norm_of(terms ? terms : expected, count);
    return norm > 0 ? sqrt(difference) / norm : largest;
}

enum { BF16_FEW_ELEMENTS = 256 };
static const double bf16_few_elements = 1.2e-2, kink_limit = 1e-1, zero_limit = 1e-6;
static const struct {
    const char *dtype;
    double limits[4]; /* by compare_kind */
} limits[] = {
    {"bf16", {4e-3, 4e-3, 6e-3, 1.5e-2}},
    {"fp16", {1e-3, 1e-3, 1e-3, 4e-3}},
    {"fp32", {2e-6, 5e-6, 5e-6, 1e-5}},
};

double compare_limit(compare_kind kind, const char *dtype, size_t count)
{
    size_t row = 0;
    while (row + 1 < sizeof limits / sizeof limits[0] && strcmp(limits[row].dtype, dtype) != 0)
        ++row;
    if (row == 0 && kind != COMPARE_SCALE_GRADIENT && count < BF16_FEW_ELEMENTS)
        return bf16_few_elements;
    return limits[row].limits[kind];
}

static size_t print_shape(char text[64], const compare_case *c)
{
    size_t count = 1, length = (size_t)snprintf(text, 64, "[");
    for (int i = 0; i < c->rank; ++i) {
        count *= (size_t)c->shape[i];
        length +=
            (size_t)snprintf(text + length, 64 - length, "%s%" PRId64, i ? ", " : "", c->shape[i]);
    }
    snprintf(text + length, 64 - length, "]");
    return count;
}

double compare_row(compare_table *table, const compare_case *c)
{
    char shape[64];
    size_t count = print_shape(shape, c);
    double error = compare_error(c->actual, c->expected, c->terms, count);
    if (table->lines++ == 0)
        printf("%-30s %-16s %-8s %10s %10s\n", "tensor", "shape", "against", "error", "limit");
    printf("%-30s %-16s %-8s %10.2e ", c->name, shape, c->against, error);
    if (c->kink && c->tokens < COMPARE_KINK_TOKENS) {
        printf("%10s  not compared (kink)\n", "-");
        return error;
    }
    double limit = compare_limit(c->kind, c->dtype, count);
    if (c->kink)
        limit = kink_limit;
    if (norm_of(c->terms ? c->terms : c->expected, count) == 0)
        limit = zero_limit;
    int ok = error <= limit;
    printf("%10.2e  %s\n", limit, ok ? "ok" : "FAIL");
    ++table->rows;
    table->failed += !ok;
    return error;
}
