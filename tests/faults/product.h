/*
 * product.h: a kernel's product against one computed here. The inputs are integers, so that sums
 * are exact in fp32 and a result is right to the last bit or wrong.
 */
#ifndef PRODUCT_H
#define PRODUCT_H

#include "generated.h"

/* output = A B, where A and B are stored along the reduction (k major) or across it. */
typedef struct product {
    victim kernel;
    const char *output, *a, *b;
    bool a_k_major, b_k_major;
} product;

/* How many elements are wrong after the change; from NULL: none. Every run must end without a
 * fault. */
size_t product_wrong_with(const product *p, const char *from, const char *to);

#endif
