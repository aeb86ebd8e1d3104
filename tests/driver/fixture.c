/* fixture.c: see fixture.h. */
#include "fixture.h"

const char fixture_ptx[] =
    ".version 9.0\n"
    ".target sm_80\n"
    ".address_size 64\n"
    ".visible .global .align 16 .u32 table[4] = {1, 2, 3, 4};\n"
    ".visible .entry add(.param .u64 out, .param .u64 in, .param .u32 value, .param .u32 count)\n"
    "{\n"
    "    .reg .u64 %d<6>;\n"
    "    .reg .u32 %r<8>;\n"
    "    .reg .pred %p;\n"
    "    ld.param.u64 %d0, [out];\n"
    "    ld.param.u64 %d1, [in];\n"
    "    ld.param.u32 %r0, [value];\n"
    "    ld.param.u32 %r1, [count];\n"
    "    mov.u32 %r2, %ctaid.x;\n"
    "    mov.u32 %r3, %ntid.x;\n"
    "    mov.u32 %r4, %tid.x;\n"
    "    mad.lo.u32 %r5, %r2, %r3, %r4;\n"
    "    setp.ge.u32 %p, %r5, %r1;\n"
    "    @%p bra DONE;\n"
    "    mul.wide.u32 %d2, %r5, 4;\n"
    "    add.u64 %d3, %d1, %d2;\n"
    "    ld.global.u32 %r6, [%d3];\n"
    "    add.u32 %r7, %r6, %r0;\n"
    "    add.u64 %d4, %d0, %d2;\n"
    "    st.global.u32 [%d4], %r7;\n"
    "DONE:\n"
    "    ret;\n"
    "}\n"
    ".visible .entry store_at(.param .u64 address)\n"
    "{\n"
    "    .reg .u64 %d0;\n"
    "    .reg .u32 %r0;\n"
    "    ld.param.u64 %d0, [address];\n"
    "    mov.u32 %r0, 7;\n"
    "    st.global.u32 [%d0], %r0;\n"
    "    ret;\n"
    "}\n"
    ".visible .entry spend(.param .u64 out)\n"
    "{\n"
    "    .shared .align 16 .b8 room[40000];\n"
    "    .reg .u64 %d0;\n"
    "    .reg .u32 %r0;\n"
    "    ld.param.u64 %d0, [out];\n"
    "    mov.u32 %r0, 5;\n"
    "    st.shared.u32 [room], %r0;\n"
    "    ld.shared.u32 %r0, [room];\n"
    "    st.global.u32 [%d0], %r0;\n"
    "    ret;\n"
    "}\n"
    ".visible .entry limited()\n"
    ".maxntid 64, 1, 1\n"
    "{\n"
    "    ret;\n"
    "}\n";

void expect_result(CUresult wanted, CUresult found, const char *call, int line)
{
    const char *wanted_name = "?", *found_name = "?";
    cuGetErrorName(wanted, &wanted_name);
    cuGetErrorName(found, &found_name);
    cr_assert_eq(found, wanted, "line %d: %s gave %s, wanted %s", line, call, found_name,
                 wanted_name);
}

CUcontext open_device(void)
{
    CUcontext context = NULL;
    EXPECT_OK(cuInit(0));
    EXPECT_OK(cuCtxCreate(&context, NULL, 0, 0));
    return context;
}

CUmodule load_fixture(void)
{
    CUmodule module = NULL;
    char log[1024] = "";
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)(uintptr_t)sizeof log};
    CUresult result = cuModuleLoadDataEx(&module, fixture_ptx, 2, options, values);
    cr_assert_eq(result, CUDA_SUCCESS, "%d: %s", result, log);
    return module;
}

CUfunction get_kernel(CUmodule module, const char *name)
{
    CUfunction function = NULL;
    EXPECT_OK(cuModuleGetFunction(&function, module, name));
    return function;
}

CUresult launch_store(CUfunction store_at, CUdeviceptr address, CUstream stream)
{
    void *params[] = {&address};
    return cuLaunchKernel(store_at, 1, 1, 1, 1, 1, 1, 0, stream, params, NULL);
}
