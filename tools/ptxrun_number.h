/*
 * ptxrun_number.h: the element types of a manifest's buffers and parameters, and single values of
 * them on the host. Integers are kept sign-extended and wrap as on the device; the others are kept
 * as doubles, which hold them exactly.
 */
#ifndef MMLP_TOOLS_PTXRUN_NUMBER_H
#define MMLP_TOOLS_PTXRUN_NUMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* X(name, bytes, kind): the words of a manifest. */
#define NUMBER_TYPES(X)                                                                            \
    X(u8, 1, UNSIGNED)                                                                             \
    X(s8, 1, SIGNED)                                                                               \
    X(u16, 2, UNSIGNED)                                                                            \
    X(s16, 2, SIGNED)                                                                              \
    X(u32, 4, UNSIGNED)                                                                            \
    X(s32, 4, SIGNED)                                                                              \
    X(u64, 8, UNSIGNED)                                                                            \
    X(s64, 8, SIGNED)                                                                              \
    X(f16, 2, REAL)                                                                                \
    X(bf16, 2, REAL)                                                                               \
    X(f32, 4, REAL)                                                                                \
    X(f64, 8, REAL)

typedef enum number_type {
#define NUMBER_ENUM(name, bytes, kind) NUMBER_##name,
    NUMBER_TYPES(NUMBER_ENUM)
#undef NUMBER_ENUM
        NUMBER_TYPE_COUNT
} number_type;

typedef union number {
    uint64_t whole; /* of integer types */
    double real;    /* of all others */
} number;

enum { NUMBER_TEXT = 40 };

/* The types' names, NULL-terminated, in the order of number_type. */
extern const char *const number_type_names[];

size_t number_bytes(number_type type);
bool number_is_real(number_type type);
/* Of an integer type of at most 32 bits, and of 64 bits as far as JSON's integers go. */
int64_t number_least(number_type type);
int64_t number_most(number_type type);

number number_load(number_type type, const void *at);
/* Rounds to nearest even; keeps an integer's low bytes. */
void number_store(number_type type, void *at, number value);
number number_convert(number_type to, number_type from, number value);
number number_add(number_type type, number a, number b);
number number_multiply(number_type type, number a, number b);
/* Not numbers are equal to each other. */
bool number_equal(number_type type, number a, number b);
/* How many numbers of the type lie between two of them, plus one; UINT64_MAX where one of them is
 * not a number. */
uint64_t number_ulps(number_type type, number a, number b);
void number_print(char text[NUMBER_TEXT], number_type type, number value);

#endif
