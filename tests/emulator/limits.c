/*
 * limits.c: kernels and texts that want more than there is: every call ends with a result of the
 * Driver API, and soon.
 */
#include <criterion/criterion.h>
#include <driver/cu_emulator.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "device.h"

#define HEADER ".version 9.0\n.target sm_80\n.address_size 64\n"

/* The driver's log of a text that it refuses, valid until the next call. */
static const char *refused(CUresult wanted, const char *ptx)
{
    static char log[1024];
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {log, (void *)(size_t)sizeof log};
    CUmodule module = NULL;
    log[0] = '\0';
    cr_expect_eq(cuModuleLoadDataEx(&module, ptx, 2, options, values), wanted, "%s", log);
    return log;
}

#define ENDLESS HEADER ".visible .entry kernel()\n{\nL: bra.uni L;\n}\n"

Test(limits, a_launch_that_does_not_end_is_ended)
{
    device_open();
    cr_assert_eq(cuEmulatorLimitInstructions(100000), CUDA_SUCCESS);
    CUmodule module = device_load(ENDLESS, "endless");
    cr_expect_eq(device_try(module, "kernel", 1, 64, 0, NULL), CUDA_ERROR_LAUNCH_TIMEOUT);
    cr_expect(strstr(device_last_report(), "the launch ran as many instructions as it may"), "%s",
              device_last_report());
    device_close();
}

Test(limits, the_limit_counts_all_blocks_and_leaves_short_launches_alone)
{
    device_open();
    cr_assert_eq(cuEmulatorLimitInstructions(100000), CUDA_SUCCESS);
    CUmodule module = device_load(HEADER ".visible .entry kernel()\n{\n ret;\n}\n", "short");
    CUfunction kernel;
    cr_assert_eq(cuModuleGetFunction(&kernel, module, "kernel"), CUDA_SUCCESS);
    device_run(module, "kernel", 10000, 32, 0, NULL, "short");
    cr_expect_eq(cuLaunchKernel(kernel, INT32_MAX, 65535, 65535, 1, 1, 1, 0, NULL, NULL, NULL),
                 CUDA_SUCCESS);
    cr_expect_eq(cuCtxSynchronize(), CUDA_ERROR_LAUNCH_TIMEOUT);
    device_close();
}

Test(limits, shapes_and_parameters_that_no_device_takes_are_refused)
{
    static const unsigned shapes[][7] = {
        {0, 1, 1, 1, 1, 1, 0},         {0x80000000, 1, 1, 1, 1, 1, 0},
        {1, 65536, 1, 1, 1, 1, 0},     {1, 1, 65536, 1, 1, 1, 0},
        {1, 1, 1, 1025, 1, 1, 0},      {1, 1, 1, 1024, 1024, 64, 0},
        {1, 1, 1, 65536, 65536, 1, 0}, {1, 1, 1, 1, 1, 65, 0},
        {1, 1, 1, 0, 1, 1, 0},         {1, 1, 1, 1, 1, 1, 0xffffffff},
    };
    device_open();
    CUmodule module =
        device_load(HEADER ".visible .entry kernel(.param .u64 p)\n{\n ret;\n}\n", "shapes");
    CUfunction kernel;
    CUdeviceptr pointer = 0;
    void *arguments[] = {&pointer}, *none[] = {NULL};
    size_t four = 4;
    void *four_bytes[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &pointer, CU_LAUNCH_PARAM_BUFFER_SIZE,
                          &four, CU_LAUNCH_PARAM_END};
    cr_assert_eq(cuModuleGetFunction(&kernel, module, "kernel"), CUDA_SUCCESS);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        const unsigned *s = shapes[i];
        cr_expect_eq(
            cuLaunchKernel(kernel, s[0], s[1], s[2], s[3], s[4], s[5], s[6], NULL, arguments, NULL),
            CUDA_ERROR_INVALID_VALUE, "shape %zu", i);
    }
    cr_expect_eq(cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, NULL, none, NULL),
                 CUDA_ERROR_INVALID_VALUE);
    cr_expect_eq(cuLaunchKernel(kernel, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, four_bytes),
                 CUDA_ERROR_INVALID_VALUE);
    cr_expect_eq(cuCtxSynchronize(), CUDA_SUCCESS);
    device_close();
}

Test(limits, memory_beyond_the_device_is_out_of_memory)
{
    CUdeviceptr pointer;
    device_open();
    cr_expect_eq(cuMemAlloc(&pointer, SIZE_MAX), CUDA_ERROR_OUT_OF_MEMORY);
    cr_expect_eq(cuMemAlloc(&pointer, (size_t)1 << 50), CUDA_ERROR_OUT_OF_MEMORY);
    refused(CUDA_ERROR_OUT_OF_MEMORY, HEADER ".global .b8 x[268435456000];\n");
    device_close();
}

Test(limits, instructions_that_are_unknown_are_refused_with_their_line)
{
    device_open();
    const char *log = refused(CUDA_ERROR_INVALID_PTX,
                              HEADER ".visible .entry kernel()\n{\n frobnicate.b32 1;\n ret;\n}\n");
    cr_expect(strstr(log, "PTX line 6") && strstr(log, "frobnicate"), "%s", log);
    device_close();
}

Test(limits, calls_nested_too_deep_are_refused)
{
    enum { CALLS = 20000 };
    char *ptx = malloc(CALLS * 64);
    cr_assert_not_null(ptx);
    size_t used = (size_t)sprintf(ptx, HEADER ".func f0()\n{\n ret;\n}\n");
    for (int i = 1; i < CALLS; i++)
        used += (size_t)sprintf(ptx + used, ".func f%d()\n{\n call f%d;\n ret;\n}\n", i, i - 1);
    sprintf(ptx + used, ".visible .entry kernel()\n{\n call f%d;\n ret;\n}\n", CALLS - 1);
    device_open();
    const char *log = refused(CUDA_ERROR_INVALID_PTX, ptx);
    cr_expect(strstr(log, "calls nested deeper than 256"), "%s", log);
    device_close();
    free(ptx);
}

Test(limits, a_kernel_too_large_to_decode_leaks_nothing)
{
    enum { BLOCKS = 3000, REGISTERS = 3000000 };
    char *ptx = malloc(BLOCKS * 64);
    cr_assert_not_null(ptx);
    size_t used = (size_t)sprintf(ptx, HEADER ".visible .entry kernel()\n{\n .reg .b32 %%r<%d>;\n",
                                  REGISTERS);
    for (int i = 0; i < BLOCKS; i++)
        used += (size_t)sprintf(ptx + used, "L%d: bra L%d;\n", i, i);
    sprintf(ptx + used, "}\n");
    device_open();
    const char *log = refused(CUDA_ERROR_INVALID_PTX, ptx);
    cr_expect(strstr(log, "too large"), "%s", log);
    device_close();
    free(ptx);
}

Test(limits, many_labels_and_many_registers_in_use_at_once_are_no_trouble)
{
    enum { COUNT = 50000 };
    char *ptx = malloc(COUNT * 128);
    cr_assert_not_null(ptx);
    size_t used =
        (size_t)sprintf(ptx,
                        HEADER ".visible .entry kernel(.param .u64 out)\n{\n .reg .b32 %%r<%d>;\n"
                               " .reg .b64 %%out;\n ld.param.u64 %%out, [out];\n bra L0;\n",
                        COUNT);
    for (int i = 0; i < COUNT; i++)
        used += (size_t)sprintf(ptx + used, "L%d: mov.u32 %%r%d, %d;\n", i, i, i);
    for (int i = 1; i < COUNT; i++)
        used += (size_t)sprintf(ptx + used, "add.u32 %%r0, %%r0, %%r%d;\n", i);
    sprintf(ptx + used, "st.global.u32 [%%out], %%r0;\n ret;\n}\n");
    device_open();
    CUdeviceptr out = device_alloc(4);
    uint32_t sum, wanted = 0;
    device_run(device_load(ptx, "a long kernel"), "kernel", 1, 1, 0, (void *[]){&out}, "sums");
    device_download(&sum, out, sizeof sum);
    for (uint32_t i = 0; i < COUNT; i++)
        wanted += i;
    cr_expect_eq(sum, wanted);
    device_close();
    free(ptx);
}

/* ---- printf -------------------------------------------------------------------------------- */

/* Prints `format` with the word 7 and zeros until the limit of instructions. */
static size_t printed_bytes(const char *format, unsigned long long instructions, const char *loop,
                            CUresult wanted)
{
    char ptx[2048];
    int length = snprintf(
        ptx, sizeof ptx,
        HEADER ".global .b8 format[64] = {%s, 0};\n.global .u32 words[4] = {7, 0, 0, 0};\n"
               ".extern .func (.param .b32 r) vprintf(.param .b64 a, .param .b64 b);\n"
               ".visible .entry kernel()\n{\n .reg .b64 %%a, %%b; .param .b64 x; .param .b64 y; "
               ".param .b32 z;\n mov.u64 %%a, format; cvta.global.u64 %%a, %%a; mov.u64 %%b, "
               "words; cvta.global.u64 %%b, %%b;\nL: st.param.b64 [x], %%a; st.param.b64 [y], "
               "%%b; call (z), vprintf, (x, y); %s\n ret;\n}\n",
        format, loop);
    cr_assert_lt(length, (int)sizeof ptx);
    FILE *file = tmpfile();
    cr_assert_not_null(file);
    fflush(stdout);
    int saved = dup(1);
    dup2(fileno(file), 1);
    device_open();
    cuEmulatorLimitInstructions(instructions);
    CUresult result = device_try(device_load(ptx, "printf"), "kernel", 1, 1, 0, NULL);
    fflush(stdout);
    dup2(saved, 1);
    close(saved);
    device_close();
    cr_expect_eq(result, wanted);
    fseek(file, 0, SEEK_END);
    long bytes = ftell(file);
    fclose(file);
    return (size_t)bytes;
}

Test(limits, a_width_of_printf_is_cut)
{
    /* "%99999999999d" and "%.*f" */
    cr_expect_eq(
        printed_bytes("37, 57, 57, 57, 57, 57, 57, 57, 57, 57, 57, 57, 100", 0, "", CUDA_SUCCESS),
        9999);
    cr_expect_eq(printed_bytes("37, 46, 42, 102", 0, "", CUDA_SUCCESS), 9);
}

Test(limits, what_is_no_conversion_of_printf_is_printed_as_it_stands)
{
    /* "%*000*99d", "%-7-d", "%5" and "%.3.3d" */
    cr_expect_eq(printed_bytes("37, 42, 48, 48, 48, 42, 57, 57, 100", 0, "", CUDA_SUCCESS), 9);
    cr_expect_eq(printed_bytes("37, 45, 55, 45, 100", 0, "", CUDA_SUCCESS), 5);
    cr_expect_eq(printed_bytes("37, 53", 0, "", CUDA_SUCCESS), 2);
    cr_expect_eq(printed_bytes("37, 46, 51, 46, 51, 100", 0, "", CUDA_SUCCESS), 6);
}

Test(limits, a_block_prints_no_more_than_its_buffer)
{
    size_t bytes = printed_bytes("65, 66, 67, 37, 53, 48, 48, 100", 200000, "bra.uni L;",
                                 CUDA_ERROR_LAUNCH_TIMEOUT);
    cr_expect(bytes >= 1 << 20 && bytes < (1 << 20) + 1024, "%zu", bytes);
}
