/*
 * bench_emulator.c: fixed PTX (tools/bench/) on the emulator, matrix products above all, through
 * the CUDA Driver API as any program would, so that the emulator alone is measured.
 */
#include <cuda.h>
#include <dlfcn.h>
#include <driver/cu_emulator.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "bench_ptx.h"
#include "tool.h"

/* X(member, symbol, parameters): the driver functions used here. */
#define DRIVER_FUNCTIONS(X)                                                                        \
    X(init, "cuInit", (unsigned))                                                                  \
    X(retain, "cuDevicePrimaryCtxRetain", (CUcontext *, CUdevice))                                 \
    X(release, "cuDevicePrimaryCtxRelease_v2", (CUdevice))                                         \
    X(set_current, "cuCtxSetCurrent", (CUcontext))                                                 \
    X(synchronize, "cuCtxSynchronize", (void))                                                     \
    X(load, "cuModuleLoadData", (CUmodule *, const void *))                                        \
    X(unload, "cuModuleUnload", (CUmodule))                                                        \
    X(get_function, "cuModuleGetFunction", (CUfunction *, CUmodule, const char *))                 \
    X(set_attribute, "cuFuncSetAttribute", (CUfunction, CUfunction_attribute, int))                \
    X(alloc, "cuMemAlloc_v2", (CUdeviceptr *, size_t))                                             \
    X(release_memory, "cuMemFree_v2", (CUdeviceptr))                                               \
    X(set_words, "cuMemsetD32_v2", (CUdeviceptr, unsigned, size_t))                                \
    X(launch, "cuLaunchKernel",                                                                    \
      (CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, CUstream, \
       void **, void **))                                                                          \
    X(encode, "cuTensorMapEncodeTiled",                                                            \
      (CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *,                 \
       const cuuint64_t *, const cuuint32_t *, const cuuint32_t *, CUtensorMapInterleave,          \
       CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill))                       \
    X(count, "cuEmulatorCount", (emu_counted *, void *))

typedef struct driver {
    void *library;
#define DRIVER_MEMBER(member, symbol, parameters) CUresult(*member) parameters;
    DRIVER_FUNCTIONS(DRIVER_MEMBER)
#undef DRIVER_MEMBER
} driver;

/* One product of n x n matrices of ones, or what takes the same parameters. */
typedef struct product {
    const char *label, *ptx, *entry;
    unsigned n, tile_m, tile_n, threads, shared_bytes;
    size_t element_bytes;         /* of A and B */
    unsigned one;                 /* a word of ones: two bf16, or an fp32 */
    const char *variable, *value; /* of the environment, for this row; NULL: as it is */
    int counted;                  /* while the emulator counts */
    int compared;                 /* with the row before that is not */
    int instructions;             /* the rate is of warp instructions, not of operations */
    const char *device;           /* NULL: as the environment says */
    int maps;                     /* A and B are given as tensor maps, M is not given */
} product;

#define BF16_PRODUCT(label, ...)                                                                   \
    {                                                                                              \
        label, "bench/gemm_bf16.ptx", "gemm_bf16", 1024, 128, 256, 256, 98304, 2, 0x3f803f80,      \
            __VA_ARGS__, NULL, 0                                                                   \
    }
#define WGMMA_PRODUCT(label, ...)                                                                  \
    {                                                                                              \
        label, "bench/wgmma_bf16.ptx", "wgmma_bf16", 1024, 128, 128, 288, 131072, 2, 0x3f803f80,   \
            __VA_ARGS__, "h100", 1                                                                 \
    }
#define FP32_PRODUCT(label, ...)                                                                   \
    {                                                                                              \
        label, "bench/gemm_fp32.ptx", "gemm_fp32", 1024, 128, 128, 256, 0, 4, 0x3f800000,          \
            __VA_ARGS__, NULL, 0                                                                   \
    }

static const product products[] = {
    BF16_PRODUCT("bf16 mma.sync 1024^3", NULL, NULL, 0, 0, 0),
    BF16_PRODUCT("  two host threads", "MMLP_EMULATOR_THREADS", "2", 0, 1, 0),
    BF16_PRODUCT("  counted", NULL, NULL, 1, 1, 0),
    BF16_PRODUCT("  races checked", "MMLP_EMULATOR_CHECK", "race", 0, 1, 0),
    BF16_PRODUCT("  exact:a100", "MMLP_EMULATOR_NUMERICS", "exact:a100", 0, 1, 0),
    BF16_PRODUCT("  exact:h100", "MMLP_EMULATOR_NUMERICS", "exact:h100", 0, 1, 0),
    WGMMA_PRODUCT("bf16 wgmma 1024^3", NULL, NULL, 0, 0, 0),
    WGMMA_PRODUCT("  counted", NULL, NULL, 1, 1, 0),
    WGMMA_PRODUCT("  races checked", "MMLP_EMULATOR_CHECK", "race", 0, 1, 0),
    WGMMA_PRODUCT("  exact:h100", "MMLP_EMULATOR_NUMERICS", "exact:h100", 0, 1, 0),
    FP32_PRODUCT("fp32 FMA 1024^3", NULL, NULL, 0, 0, 0),
    FP32_PRODUCT("  counted", NULL, NULL, 1, 1, 0),
    {"ALU, registers alone", "bench/alu.ptx", "alu", 1024, 256, 256, 256, 0, 4, 0, NULL, NULL, 0, 0,
     1, NULL, 0},
};

static const char *text_of(const char *name)
{
    const bench_text *text = bench_texts;
    while (strcmp(text->name, name) != 0)
        ++text;
    return text->text;
}

void *bench_open_emulator(void)
{
    static const char *const places[] = {"../emulator/libcuda.so.1", MMLP_INSTALLED_EMULATOR};
    char own[PATH_MAX];
    ssize_t length = readlink("/proc/self/exe", own, sizeof own - 1);
    if (length < 0)
        return NULL;
    own[length] = '\0';
    *(strrchr(own, '/') + 1) = '\0';
    for (size_t i = 0; i < sizeof places / sizeof places[0]; ++i) {
        char *path = NULL;
        if (asprintf(&path, "%s%s", own, places[i]) < 0)
            return NULL;
        void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        free(path);
        if (library)
            return library;
    }
    return NULL;
}

static int open_driver(driver *d)
{
    d->library = bench_open_emulator();
    if (!d->library)
        return tool_fail(EXIT_DEVICE, "the emulator is not beside this program: %s", dlerror());
#define DRIVER_FIND(member, symbol, parameters)                                                    \
    *(void **)(void *)&d->member = dlsym(d->library, symbol);                                      \
    if (!d->member)                                                                                \
        return tool_fail(EXIT_DEVICE, "the emulator has no %s", symbol);
    DRIVER_FUNCTIONS(DRIVER_FIND)
#undef DRIVER_FIND
    return 0;
}

#define CHECK(call)                                                                                \
    do {                                                                                           \
        CUresult result_ = (call);                                                                 \
        if (result_ != CUDA_SUCCESS) {                                                             \
            code = tool_fail(EXIT_DEVICE, "%s: %s gave %d", p->label, #call, (int)result_);        \
            goto cleanup;                                                                          \
        }                                                                                          \
    } while (0)

/* The milliseconds of every launch, and the warp instructions of one, if it was counted. */
typedef struct measured {
    double runs[BENCH_RUNS], instructions;
} measured;

static void keep_instructions(void *user, const char *kernel, const emu_counters *counters)
{
    measured *m = user;
    (void)kernel;
    m->instructions = 0;
    for (int i = 0; i < EMU_CLASS_COUNT; ++i)
        m->instructions += (double)counters->warp_instructions[i];
}

/* A row-major n x n matrix, in boxes of 64 columns and 128 rows. */
static CUresult encode_map(CUtensorMap *out, const driver *d, CUdeviceptr matrix, unsigned n)
{
    const cuuint64_t sizes[] = {n, n}, stride = 2 * (cuuint64_t)n;
    const cuuint32_t box[] = {64, 128}, steps[] = {1, 1};
    return d->encode(out, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, (void *)(uintptr_t)matrix, sizes,
                     &stride, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
                     CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

static int run_product(measured *out, const driver *d, const product *p)
{
    int code = 0;
    CUmodule module = NULL;
    CUfunction function;
    CUdeviceptr a = 0, b = 0, c = 0;
    CUtensorMap a_map, b_map;
    size_t elements = (size_t)p->n * p->n;
    unsigned m = p->n, n = p->n, k = p->n;

    if (p->counted)
        CHECK(d->count(keep_instructions, out));
    CHECK(d->load(&module, text_of(p->ptx)));
    CHECK(d->get_function(&function, module, p->entry));
    if (p->shared_bytes > 0)
        CHECK(d->set_attribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                               (int)p->shared_bytes));
    CHECK(d->alloc(&a, elements * p->element_bytes));
    CHECK(d->alloc(&b, elements * p->element_bytes));
    CHECK(d->alloc(&c, elements * sizeof(float)));
    CHECK(d->set_words(a, p->one, elements * p->element_bytes / 4));
    CHECK(d->set_words(b, p->one, elements * p->element_bytes / 4));
    if (p->maps) {
        CHECK(encode_map(&a_map, d, a, n));
        CHECK(encode_map(&b_map, d, b, n));
    }
    for (int i = 0; i < BENCH_RUNS + p->instructions; ++i) {
        void *by_address[] = {&a, &b, &c, &m, &n, &k}, *by_map[] = {&a_map, &b_map, &c, &n, &k};
        void **arguments = p->maps ? by_map : by_address;
        if (i == BENCH_RUNS)
            CHECK(d->count(keep_instructions, out));
        double start = tool_milliseconds();
        CHECK(d->launch(function, p->n / p->tile_n, p->n / p->tile_m, 1, p->threads, 1, 1,
                        p->shared_bytes, NULL, arguments, NULL));
        CHECK(d->synchronize());
        if (i < BENCH_RUNS)
            out->runs[i] = tool_milliseconds() - start;
    }

cleanup:
    if (c)
        d->release_memory(c);
    if (b)
        d->release_memory(b);
    if (a)
        d->release_memory(a);
    if (module)
        d->unload(module);
    return code;
}

/* Opens the device and runs the product. */
static int measure(measured *out, const product *p)
{
    driver d = {0};
    CUcontext context;
    if (p->variable)
        setenv(p->variable, p->value, 1);
    if (p->device)
        setenv("MMLP_EMULATOR_DEVICE", p->device, 1);
    int code = open_driver(&d);
    if (code != 0)
        return code;
    if (d.init(0) != CUDA_SUCCESS || d.retain(&context, 0) != CUDA_SUCCESS ||
        d.set_current(context) != CUDA_SUCCESS)
        return tool_fail(EXIT_DEVICE, "the emulator gave no device");
    code = run_product(out, &d, p);
    d.set_current(NULL);
    d.release(0);
    dlclose(d.library);
    return code;
}

/* In a process of its own: the emulator reads its environment once. */
static int measure_apart(measured *out, const product *p)
{
    int ends[2], status = 0;
    if (pipe(ends) != 0)
        return tool_fail(EXIT_DEVICE, "%s: no pipe to the process that measures it", p->label);
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int code = measure(out, p);
        if (code == 0 && write(ends[1], out, sizeof *out) != (ssize_t)sizeof *out)
            code = EXIT_DEVICE;
        _exit(code);
    }
    close(ends[1]);
    ssize_t received = child > 0 ? read(ends[0], out, sizeof *out) : -1;
    close(ends[0]);
    if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status) ||
        (WEXITSTATUS(status) == 0 && received != (ssize_t)sizeof *out))
        return tool_fail(EXIT_DEVICE, "%s: no process could measure it", p->label);
    return WEXITSTATUS(status);
}

/* Measures the product and prints its row; *plain is the median that later rows are compared with.
 */
static int print_row(double *plain, const product *p)
{
    measured m = {.instructions = 0};
    double n = p->n;
    int code = measure_apart(&m, p);
    if (code != 0)
        return code;
    double median = bench_median(m.runs);
    printf("%-24s %10.1f %10.1f %10.1f", p->label, median, m.runs[0], m.runs[BENCH_RUNS - 1]);
    if (p->instructions)
        printf(" %10s %10.1f", "", m.instructions / median * 1e-3);
    else
        printf(" %10.1f", 2 * n * n * n / median * 1e-6);
    if (p->compared)
        printf(" %10s %10.2f", "", median / *plain);
    else
        *plain = median;
    putchar('\n');
    return 0;
}

int bench_emulator(void)
{
    setenv("MMLP_EMULATOR_THREADS", "1", 0);
    const char *isa = getenv("MMLP_EMULATOR_ISA");
    printf("host threads %s, host instructions %s\n", getenv("MMLP_EMULATOR_THREADS"),
           isa && isa[0] ? isa : "the best here");
    printf("%-24s %10s %10s %10s %10s %10s %10s\n", "kernel", "median ms", "least", "most",
           "GFLOP/s", "M instr/s", "x plain");
    int code = 0;
    double plain = 0;
    for (size_t i = 0; code == 0 && i < sizeof products / sizeof products[0]; ++i)
        code = print_row(&plain, &products[i]);
    return code;
}
