/*
 * isa.h: tests one PTX instruction at a time against a scalar oracle in C. The oracles are written
 * from the text of the PTX ISA, apart from the emulator's handlers.
 *
 * A case is a line of PTX over the registers %a, %b, %c (inputs), %d (result), and scratch %p, %q,
 * %s
 * (.pred) and %t (.b32); it runs once for every combination of the inputs' edge values and for
 * random bits. The oracle works on raw bits.
 */
#ifndef MMLP_TESTS_ISA_H
#define MMLP_TESTS_ISA_H

#include <stdint.h>

typedef uint64_t isa_oracle(uint64_t a, uint64_t b, uint64_t c);

/* How an operand is stored and which edge values it gets. */
typedef enum isa_type {
    ISA_NONE,
    ISA_I16,
    ISA_I32,
    ISA_I64,
    ISA_F16,
    ISA_BF16,
    ISA_F32,
    ISA_F64,
    ISA_BIT,   /* 0 or 1 in 32 bits */
    ISA_F16X2, /* two elements in a register, the first in the low half */
    ISA_BF16X2,
    ISA_F32X2
} isa_type;

typedef enum isa_compare {
    ISA_EXACT, /* bit for bit, but any NaN equals any NaN when the result is a float type */
    ISA_ULP2,  /* f32: at most 2 units in the last place apart */
    ISA_REL20, /* floats: relative error at most 2^-20 */
    ISA_REL18, /* relative error at most 2^-18 */
    ISA_REL10, /* relative error at most 2^-10 */
    ISA_EX2,   /* of f16: relative error at most 2^-10, or subnormal and one unit apart */
    ISA_REL7,  /* relative error at most 2^-7 */
    ISA_ABS20, /* absolute error at most 2^-20 */
    ISA_ABS10, /* absolute error at most 2^-10 */
    ISA_ABS8,  /* absolute error at most 2^-8 */
    ISA_LG2    /* error at most 2^-22, absolute of operands in (0.5, 2), beside the oracle's own */
} isa_compare;

typedef struct isa_case {
    const char *ptx;
    isa_type d, a, b, c;
    isa_oracle *oracle;
    isa_compare compare;
} isa_case;

/* Runs every case; fails the test with the instruction, inputs, result and expectation of each that
 * differs. */
void isa_run(const isa_case *cases, int count);

#define ISA_RUN(cases) isa_run(cases, (int)(sizeof(cases) / sizeof((cases)[0])))

#endif
