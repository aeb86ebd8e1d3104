/* dlpack_layout.c: mmlp_tensor is DLPack's DLTensor, member by member. Checked when compiled. */
#include <megamlp/megamlp.h>
#include <stdio.h>

#ifdef __has_include
#if __has_include(<dlpack/dlpack.h>)
#include <dlpack/dlpack.h>
#define HAVE_DLPACK
#endif
#endif

#ifdef HAVE_DLPACK
#define SAME(ours, theirs)                                                                         \
    _Static_assert(offsetof(mmlp_tensor, ours) == offsetof(DLTensor, theirs), #ours);              \
    _Static_assert(sizeof(((mmlp_tensor *)0)->ours) == sizeof(((DLTensor *)0)->theirs), #ours)

SAME(data, data);
SAME(device.device_type, device.device_type);
SAME(device.device_id, device.device_id);
SAME(ndim, ndim);
SAME(dtype.code, dtype.code);
SAME(dtype.bits, dtype.bits);
SAME(dtype.lanes, dtype.lanes);
SAME(shape, shape);
SAME(strides, strides);
SAME(byte_offset, byte_offset);
_Static_assert(sizeof(mmlp_tensor) == sizeof(DLTensor), "size");
_Static_assert(MMLP_TYPE_INT == (int)kDLInt && MMLP_TYPE_UINT == (int)kDLUInt &&
                   MMLP_TYPE_FLOAT == (int)kDLFloat && MMLP_TYPE_BFLOAT == (int)kDLBfloat,
               "type codes");
_Static_assert(MMLP_DEVICE_CPU == (int)kDLCPU && MMLP_DEVICE_CUDA == (int)kDLCUDA, "devices");

int main(void)
{
    puts("mmlp_tensor has the layout of DLTensor");
    return 0;
}
#else
int main(void)
{
    puts("skipped: dlpack/dlpack.h was not found (Debian: libdlpack-dev)");
    return 77;
}
#endif
