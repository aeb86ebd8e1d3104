/*
 * tensor.h: checks of the tensors a caller gives. Messages name the tensor, what was found and what
 * was wanted.
 */
#ifndef MMLP_TENSOR_H
#define MMLP_TENSOR_H

#include "bundle.h"

/* What one tensor must be. A dim of -1 may be any number. */
typedef struct tensor_wanted {
    const char *name; /* "linear_fc1.weight" */
    bundle_dtype dtype;
    bool or_fp32; /* fp32 is as good */
    int rank;
    int64_t dims[2];
    int32_t device_type, device_id;
} tensor_wanted;

/* Shape, dtype, device, contiguity, and 16-byte alignment unless the tensor is empty. ERROR_SHAPE;
 * ERROR_ARGUMENT for a missing tensor or address. */
mmlp_status tensor_check(const mmlp_tensor *tensor, const tensor_wanted *wanted);
/* The same without dtype: any of bf16, fp16, fp32, fp64, on the host. */
mmlp_status tensor_check_host(const mmlp_tensor *tensor, const tensor_wanted *wanted);
/* Any shape: the number of elements, after the checks of dtype, device, contiguity and alignment.
 */
mmlp_status tensor_check_any(int64_t *elements, const mmlp_tensor *tensor,
                             const tensor_wanted *wanted);
/* Whether the tensor has that type. */
bool tensor_is(const mmlp_tensor *tensor, bundle_dtype dtype);

/* The first element's address. */
void *tensor_address(const mmlp_tensor *tensor);

#endif
