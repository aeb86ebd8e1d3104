/* isa_oracle.h: integer oracles in a line: what an instruction gives, of operands x, y, z of a C
 * type. */
#ifndef MMLP_TESTS_ISA_ORACLE_H
#define MMLP_TESTS_ISA_ORACLE_H

#include "isa.h"

#define UNUSED_B (void)b
#define UNUSED_C (void)c

/* An oracle of two operands, with x and y of the given C type. */
#define BINARY(name, type, expression)                                                             \
    static uint64_t name(uint64_t a, uint64_t b, uint64_t c)                                       \
    {                                                                                              \
        UNUSED_C;                                                                                  \
        type x = (type)a, y = (type)b;                                                             \
        return (uint64_t)(expression);                                                             \
    }
#define UNARY(name, type, expression)                                                              \
    static uint64_t name(uint64_t a, uint64_t b, uint64_t c)                                       \
    {                                                                                              \
        UNUSED_B;                                                                                  \
        UNUSED_C;                                                                                  \
        type x = (type)a;                                                                          \
        return (uint64_t)(expression);                                                             \
    }
#define TERNARY(name, type, expression)                                                            \
    static uint64_t name(uint64_t a, uint64_t b, uint64_t c)                                       \
    {                                                                                              \
        type x = (type)a, y = (type)b, z = (type)c;                                                \
        return (uint64_t)(expression);                                                             \
    }

#endif
