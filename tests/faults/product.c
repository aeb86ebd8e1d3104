/* product.c: see product.h. */
#include "product.h"

#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

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

size_t product_wrong_with(const product *p, const char *from, const char *to)
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
