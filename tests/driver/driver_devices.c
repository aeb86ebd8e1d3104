/* driver_devices.c: initialisation, options, devices, contexts, and the functions' names. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fixture.h"

Test(driver, nothing_works_before_cuInit)
{
    int count;
    CUcontext context;
    CUdeviceptr memory;
    EXPECT_RESULT(CUDA_ERROR_NOT_INITIALIZED, cuDeviceGetCount(&count));
    EXPECT_RESULT(CUDA_ERROR_NOT_INITIALIZED, cuCtxGetCurrent(&context));
    EXPECT_RESULT(CUDA_ERROR_NOT_INITIALIZED, cuMemAlloc(&memory, 16));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuInit(1));
}

Test(driver, the_version_is_told_without_cuInit)
{
    int version = 0;
    EXPECT_OK(cuDriverGetVersion(&version));
    cr_expect_eq(version, 13000);
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuDriverGetVersion(NULL));
}

Test(driver, the_default_device_is_one_a100)
{
    unsetenv("MMLP_EMULATOR_DEVICE");
    EXPECT_OK(cuInit(0));
    int count = 0, value = 0;
    char name[64];
    size_t bytes = 0;
    CUdevice device;
    EXPECT_OK(cuDeviceGetCount(&count));
    cr_expect_eq(count, 1);
    EXPECT_OK(cuDeviceGet(&device, 0));
    EXPECT_RESULT(CUDA_ERROR_INVALID_DEVICE, cuDeviceGet(&device, 1));
    EXPECT_RESULT(CUDA_ERROR_INVALID_DEVICE, cuDeviceGet(&device, -1));
    EXPECT_OK(cuDeviceGetName(name, sizeof name, device));
    cr_expect(strstr(name, "A100"), "%s", name);
    EXPECT_OK(cuDeviceGetName(name, 4, device));
    cr_expect_eq(strlen(name), 3);
    EXPECT_OK(cuDeviceTotalMem(&bytes, device));
    cr_expect_geq(bytes, (size_t)1 << 35);
    EXPECT_OK(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device));
    cr_expect_eq(value, 8);
    EXPECT_OK(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_WARP_SIZE, device));
    cr_expect_eq(value, 32);
    EXPECT_OK(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
                                   device));
    cr_expect_eq(value, 166912);
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE,
                  cuDeviceGetAttribute(&value, (CUdevice_attribute)0, device));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE,
                  cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_MAX, device));
}

Test(driver, two_h100_are_two_devices_that_share_nothing)
{
    setenv("MMLP_EMULATOR_DEVICE", "h100:2", 1);
    EXPECT_OK(cuInit(0));
    int count = 0, value = 0;
    EXPECT_OK(cuDeviceGetCount(&count));
    cr_expect_eq(count, 2);
    EXPECT_OK(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, 1));
    cr_expect_eq(value, 9);
    CUuuid first, second;
    EXPECT_OK(cuDeviceGetUuid(&first, 0));
    EXPECT_OK(cuDeviceGetUuid(&second, 1));
    cr_expect_neq(memcmp(&first, &second, sizeof first), 0);

    CUcontext contexts[2];
    CUdeviceptr memory[2];
    unsigned word = 0x12345678, back = 0;
    for (int i = 0; i < 2; i++) {
        EXPECT_OK(cuCtxCreate(&contexts[i], NULL, 0, i));
        EXPECT_OK(cuMemAlloc(&memory[i], 4));
    }
    EXPECT_OK(cuMemcpyHtoD(memory[0], &word, 4));
    EXPECT_OK(cuMemcpyDtoD(memory[1], memory[0], 4));
    EXPECT_OK(cuMemcpyDtoH(&back, memory[1], 4));
    cr_expect_eq(back, word);
    int ordinal = -1;
    EXPECT_OK(cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, memory[0]));
    cr_expect_eq(ordinal, 0);
    EXPECT_OK(cuCtxDestroy(contexts[1]));
    EXPECT_OK(cuCtxDestroy(contexts[0]));
}

/* What cuInit prints for one bad value. */
static void expect_rejected(const char *variable, const char *value, const char *legal)
{
    int ends[2], saved = dup(2);
    char line[1024] = "", wanted[256];
    setenv(variable, value, 1);
    fflush(stderr);
    cr_assert_eq(pipe(ends), 0);
    dup2(ends[1], 2);
    CUresult result = cuInit(0);
    fflush(stderr);
    dup2(saved, 2);
    close(ends[1]);
    cr_assert_gt(read(ends[0], line, sizeof line - 1), 0);
    close(ends[0]);
    cr_expect_eq(result, CUDA_ERROR_INVALID_VALUE);
    snprintf(wanted, sizeof wanted, "%s=%s is not valid: wanted ", variable, value);
    cr_expect(strstr(line, wanted) && strstr(line, legal), "%s", line);
    unsetenv(variable);
}

Test(driver, a_bad_option_ends_cuInit_and_names_the_legal_values)
{
    unsetenv("MMLP_EMULATOR_DEVICE");
    expect_rejected("MMLP_EMULATOR_DEVICE", "v100", "a100");
    expect_rejected("MMLP_EMULATOR_DEVICE", "a100:0", "NAME:COUNT, 1 to 16");
    expect_rejected("MMLP_EMULATOR_DEVICE", "a100:17", "1 to 16");
    expect_rejected("MMLP_EMULATOR_DEVICE", "a100:2x", "1 to 16");
    expect_rejected("MMLP_EMULATOR_SCHEDULE", "-1", "an integer from 0 to 18446744073709551615");
    expect_rejected("MMLP_EMULATOR_SCHEDULE", "18446744073709551616", "an integer");
    expect_rejected("MMLP_EMULATOR_THREADS", "many", "an integer from 0 (all cores) to 1024");
    expect_rejected("MMLP_EMULATOR_NUMERICS", "exact:v100",
                    "one of fast, exact, exact:a100, exact:ada, exact:h100, exact:b200\n");
    setenv("MMLP_EMULATOR_DEVICE", "rtx5090", 1);
    expect_rejected("MMLP_EMULATOR_NUMERICS", "exact", "nobody has measured those of rtx5090");
    unsetenv("MMLP_EMULATOR_DEVICE");
    expect_rejected("MMLP_EMULATOR_CHECK", "rce", "words separated by commas, of: race");
    expect_rejected("MMLP_EMULATOR_CHECK", "race,leaks", "words separated by commas, of: race");
    expect_rejected("MMLP_EMULATOR_ISA", "sse9", "avx512, avx2 or plain");
    EXPECT_OK(cuInit(0));
}

/* ---- contexts ------------------------------------------------------------------------------- */

Test(driver, a_forked_process_has_no_driver_where_its_parent_has_one)
{
    CUcontext context;
    EXPECT_OK(cuInit(0));
    EXPECT_OK(cuDevicePrimaryCtxRetain(&context, 0));
    EXPECT_OK(cuCtxSetCurrent(context));
    pid_t child = fork();
    cr_assert_geq(child, 0);
    if (child == 0) {
        CUdeviceptr memory;
        _exit(cuMemAlloc(&memory, 16) == CUDA_ERROR_NOT_INITIALIZED &&
                      cuCtxSynchronize() == CUDA_ERROR_NOT_INITIALIZED &&
                      cuInit(0) == CUDA_ERROR_NOT_INITIALIZED
                  ? 0
                  : 1);
    }
    int status;
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_expect_eq(status, 0);
    EXPECT_OK(cuCtxSynchronize());
    EXPECT_OK(cuDevicePrimaryCtxRelease(0));
}

Test(contexts, a_call_without_one_is_201)
{
    EXPECT_OK(cuInit(0));
    CUdeviceptr memory;
    CUcontext current = (CUcontext)1;
    CUdevice device;
    EXPECT_OK(cuCtxGetCurrent(&current));
    cr_expect_null(current);
    EXPECT_RESULT(CUDA_ERROR_INVALID_CONTEXT, cuMemAlloc(&memory, 16));
    EXPECT_RESULT(CUDA_ERROR_INVALID_CONTEXT, cuCtxGetDevice(&device));
    EXPECT_RESULT(CUDA_ERROR_INVALID_CONTEXT, cuCtxSynchronize());
    EXPECT_RESULT(CUDA_ERROR_INVALID_CONTEXT, cuCtxPopCurrent(&current));
}

Test(contexts, they_form_a_stack_for_each_thread)
{
    CUcontext first = open_device(), second, current;
    EXPECT_OK(cuCtxCreate(&second, NULL, 0, 0));
    EXPECT_OK(cuCtxGetCurrent(&current));
    cr_expect_eq(current, second);
    EXPECT_OK(cuCtxPopCurrent(&current));
    cr_expect_eq(current, second);
    EXPECT_OK(cuCtxGetCurrent(&current));
    cr_expect_eq(current, first);
    EXPECT_OK(cuCtxPushCurrent(second));
    EXPECT_OK(cuCtxSetCurrent(first));
    EXPECT_OK(cuCtxPopCurrent(&current));
    cr_expect_eq(current, first);
    EXPECT_OK(cuCtxSetCurrent(NULL));
    EXPECT_OK(cuCtxGetCurrent(&current));
    cr_expect_null(current);
    EXPECT_OK(cuCtxDestroy(second));
    EXPECT_OK(cuCtxDestroy(first));
}

Test(contexts, a_destroyed_one_is_noticed)
{
    CUcontext first = open_device(), second;
    EXPECT_OK(cuCtxCreate(&second, NULL, 0, 0));
    EXPECT_OK(cuCtxDestroy(first)); /* not the current one: it stays in the stack */
    CUcontext current;
    EXPECT_RESULT(CUDA_ERROR_INVALID_CONTEXT, cuCtxDestroy(first));
    EXPECT_RESULT(CUDA_ERROR_INVALID_CONTEXT, cuCtxPushCurrent(first));
    EXPECT_OK(cuCtxPopCurrent(&current));
    EXPECT_RESULT(CUDA_ERROR_CONTEXT_IS_DESTROYED, cuCtxSynchronize());
    EXPECT_OK(cuCtxDestroy(second));
}

Test(contexts, the_primary_one_lives_while_it_is_retained)
{
    EXPECT_OK(cuInit(0));
    CUcontext first, again;
    unsigned flags;
    int active = 1;
    EXPECT_OK(cuDevicePrimaryCtxGetState(0, &flags, &active));
    cr_expect_eq(active, 0);
    EXPECT_OK(cuDevicePrimaryCtxRetain(&first, 0));
    EXPECT_OK(cuDevicePrimaryCtxRetain(&again, 0));
    cr_expect_eq(first, again);
    EXPECT_RESULT(CUDA_ERROR_INVALID_CONTEXT, cuCtxDestroy(first));
    EXPECT_OK(cuDevicePrimaryCtxRelease(0));
    EXPECT_OK(cuCtxSetCurrent(first));
    EXPECT_OK(cuCtxSynchronize());
    EXPECT_OK(cuDevicePrimaryCtxRelease(0));
    EXPECT_RESULT(CUDA_ERROR_CONTEXT_IS_DESTROYED, cuCtxSynchronize());
    EXPECT_RESULT(CUDA_ERROR_INVALID_CONTEXT, cuDevicePrimaryCtxRelease(0));
}

Test(contexts, destroying_one_frees_all_that_it_has)
{
    for (int i = 0; i < 3; i++) {
        CUcontext context = open_device();
        CUdeviceptr memory;
        CUstream stream;
        CUevent event;
        void *host;
        EXPECT_OK(cuMemAlloc(&memory, 1 << 20));
        EXPECT_OK(cuMemAllocHost(&host, 100));
        EXPECT_OK(cuStreamCreate(&stream, 0));
        EXPECT_OK(cuEventCreate(&event, 0));
        load_fixture();
        EXPECT_OK(cuCtxDestroy(context));
        EXPECT_RESULT(CUDA_ERROR_INVALID_HANDLE, cuEventDestroy(event));
    }
}

Test(contexts, limits_and_versions_are_told)
{
    CUcontext context = open_device();
    size_t value = 0;
    unsigned version = 0;
    EXPECT_OK(cuCtxSetLimit(CU_LIMIT_STACK_SIZE, 4096));
    EXPECT_OK(cuCtxGetLimit(&value, CU_LIMIT_STACK_SIZE));
    cr_expect_eq(value, 4096);
    EXPECT_RESULT(CUDA_ERROR_UNSUPPORTED_LIMIT, cuCtxGetLimit(&value, CU_LIMIT_MAX));
    EXPECT_OK(cuCtxGetApiVersion(context, &version));
    cr_expect_geq(version, 3020);
    EXPECT_OK(cuCtxDestroy(context));
}

/* ---- names ---------------------------------------------------------------------------------- */

Test(names, every_function_is_exported_under_its_name_and_its_symbol)
{
    static const char *const names[] = {
#define FUNCTION(name, symbol, since) #name, #symbol,
#include "driver/functions.def"
#undef FUNCTION
    };
    void *library = dlopen(MMLP_TEST_LIBCUDA, RTLD_NOW | RTLD_LOCAL);
    cr_assert_not_null(library, "%s", dlerror());
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        cr_expect_not_null(dlsym(library, names[i]), "%s", names[i]);
    cr_expect_not_null(dlsym(library, "cuEmulatorLastReport"));
    cr_expect_not_null(dlsym(library, "cuEmulatorCount"));
    cr_expect_not_null(dlsym(library, "cuEmulatorSetRegisters"));
    cr_expect_null(dlsym(library, "emu_run"));
    cr_expect_null(dlsym(library, "front_current"));
    dlclose(library);
}

Test(names, cuGetProcAddress_gives_the_form_of_the_version_asked_for)
{
    void *function = NULL, *older = NULL;
    CUdriverProcAddressQueryResult status;
    EXPECT_OK(cuGetProcAddress("cuMemAlloc", &function, 13000, 0, &status));
    cr_expect_eq(status, CU_GET_PROC_ADDRESS_SUCCESS);
    cr_expect_eq(function, dlsym(RTLD_DEFAULT, "cuMemAlloc_v2"));
    EXPECT_OK(cuGetProcAddress("cuCtxCreate", &function, 13000, 0, &status));
    EXPECT_OK(cuGetProcAddress("cuCtxCreate", &older, 11000, 0, &status));
    cr_expect_neq(function, older);
    cr_expect_eq(older, dlsym(RTLD_DEFAULT, "cuCtxCreate_v2"));
    EXPECT_RESULT(CUDA_ERROR_NOT_FOUND,
                  cuGetProcAddress("cuNothing", &function, 13000, 0, &status));
    cr_expect_eq(status, CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND);
    cr_expect_null(function);
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuGetProcAddress(NULL, &function, 13000, 0, NULL));
}

Test(names, every_result_has_a_name_and_a_text)
{
    const char *text = NULL;
    EXPECT_OK(cuGetErrorName(CUDA_ERROR_ILLEGAL_ADDRESS, &text));
    cr_expect_str_eq(text, "CUDA_ERROR_ILLEGAL_ADDRESS");
    EXPECT_OK(cuGetErrorString(CUDA_ERROR_ILLEGAL_ADDRESS, &text));
    cr_expect_str_eq(text, "an illegal memory access was encountered");
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuGetErrorName((CUresult)12345, &text));
    cr_expect_null(text);
}
