/*
 * tensor_oracle.h: what PTX ISA 5.5 and the comments of cuda.h say of tensors and their boxes, and
 * what an H200 does beyond that, written apart from the emulator's handlers; and random ones.
 */
#ifndef MMLP_TESTS_TENSOR_ORACLE_H
#define MMLP_TESTS_TENSOR_ORACLE_H

#include <cuda.h>
#include <stddef.h>
#include <stdint.h>

#include "softfloat.h"

enum {
    RANK = 5,
    ROOM = 16384,    /* bytes of a box, at most */
    TENSOR = 1 << 17 /* bytes of a tensor, at most */
};

typedef struct element_type {
    const char *name;
    CUtensorMapDataType code;
    size_t bytes;
    char adds; /* how cp.reduce adds it: integers, doubles, floats, halves; 0: it can not */
    const float_format *half;
} element_type;

enum { TENSOR_TYPES = 10 };
extern const element_type tensor_types[TENSOR_TYPES];

typedef struct shape {
    const element_type *type;
    int rank, swizzle;                     /* swizzle: bytes of a span, 0: none */
    cuuint64_t sizes[RANK], strides[RANK]; /* strides[i]: bytes from one of dimension i + 1 on */
    cuuint32_t box[RANK], steps[RANK];
    int at[RANK];
    int target; /* of the box, in shared memory */
} shape;

/* The random numbers of a test follow from what it calls this with. */
void random_start(uint64_t from);
int below(int bound);
int between(int low, int high); /* both may come */
void random_bytes(void *to, size_t count);
/* Sums of two of its floats are exact as doubles, and neither subnormal nor infinite. */
void random_elements(uint8_t *bytes, size_t count, const element_type *t);
/* The box begins on 16 bytes of a row, and nowhere below 0 where it is `written`. */
shape random_shape(int rank, const element_type *type, int is_written);

size_t tensor_bytes(const shape *s);
int box_elements(const shape *s);
size_t box_bytes(const shape *s);
/* Where an element of a box lies in its tensor; 0: outside. Rows that are written end at the next
 * 16 bytes. */
int find_element(const shape *s, int element, int is_written, size_t *offset);
/* Where a byte of a box lies in shared memory. */
size_t place_of_byte(const shape *s, size_t byte);
/* Into shared memory; `tensor` is its first byte. Gives how many elements lie inside. */
int load_box(const shape *s, uint8_t *shared, const uint8_t *tensor);
/* What `to` has once `from` was added to it. */
void add_element(const element_type *t, uint8_t *to, const uint8_t *from);

CUresult encode_shape(CUtensorMap *map, const shape *s, CUdeviceptr at);

#endif
