/* compare.c: norm-wise errors, their limits, and the table that --check prints. */
#include "compare.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

double compare_error(const double *actual, const double *expected, size_t count)
{
    double difference = 0, norm = 0, largest = 0;
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
    for (size_t i = 0; i < count; ++i)
        if (isfinite(expected[i]))
            norm += expected[i] * expected[i];
    return norm > 0 ? sqrt(difference / norm) : largest;
}

double compare_limit(const char *dtype, size_t count, int expected_is_zero)
{
    if (expected_is_zero)
        return 1e-6;
    if (strcmp(dtype, "fp32") == 0)
        return 5e-6;
    if (strcmp(dtype, "fp16") == 0)
        return 1e-3;
    return count < 256 ? 1.2e-2 : 4e-3;
}

void compare_row(compare_table *table, const char *name, const char *against, const double *actual,
                 const double *expected, const int64_t *shape, int rank, const char *dtype)
{
    size_t count = 1;
    char shape_text[64];
    size_t length = (size_t)snprintf(shape_text, sizeof shape_text, "[");
    for (int i = 0; i < rank; ++i) {
        count *= (size_t)shape[i];
        length += (size_t)snprintf(shape_text + length, sizeof shape_text - length, "%s%" PRId64,
                                   i ? ", " : "", shape[i]);
    }
    snprintf(shape_text + length, sizeof shape_text - length, "]");

    int zero = 1;
    for (size_t i = 0; i < count && zero; ++i)
        zero = expected[i] == 0;
    double error = compare_error(actual, expected, count);
    double limit = compare_limit(dtype, count, zero);
    int ok = error <= limit;
    if (table->rows == 0)
        printf("%-20s %-16s %-8s %10s %10s\n", "tensor", "shape", "against", "error", "limit");
    printf("%-20s %-16s %-8s %10.2e %10.2e  %s\n", name, shape_text, against, error, limit,
           ok ? "ok" : "FAIL");
    ++table->rows;
    table->failed += !ok;
}
