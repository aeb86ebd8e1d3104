/*
 * init.h: which part of a whole weight a tensor-parallel rank holds, so that the same numbers come
 * at every tensor-parallel size.
 */
#ifndef MMLP_INIT_H
#define MMLP_INIT_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Element i of the part is row r = i / columns, column c = i % columns; its index in the whole is
 * ((r / half_rows) * whole_half_rows + first_row + r % half_rows) * whole_columns + first_column +
 * c.
 */
typedef struct init_part {
    int64_t elements, columns, first_column, whole_columns, half_rows, first_row, whole_half_rows;
} init_part;

/* Rows are split over the ranks: those of fc1; when gated, of each half of [gate; up]. `rows` and
 * `columns` are those of the part, in which rows counts both halves. */
init_part init_split_rows(int64_t rows, int64_t columns, bool gated, int64_t rank, int64_t size);
/* Columns are split: those of fc2. */
init_part init_split_columns(int64_t rows, int64_t columns, int64_t rank, int64_t size);
/* Nothing is split, and element i has index i: a bias, or any tensor. */
init_part init_whole(int64_t elements);

#endif
