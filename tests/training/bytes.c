/*
 * bytes.c: what each kernel of a training step does, as the emulator counts it, against what the
 * plan says: the distinct bytes of device memory that it touches, its operations, no bank
 * conflicts.
 */
#include <criterion/criterion.h>
#include <cuda.h>
#include <driver/cu_emulator.h>
#include <math.h>
#include <stdlib.h>

#include "loaded_mlp.h"
#include "training_step.h"

#define REQUIRE(call)      cr_assert_eq(call, MMLP_OK, "%s", mmlp_last_error())
#define REQUIRE_CUDA(call) cr_assert_eq(call, CUDA_SUCCESS, "%s", #call)

enum { TOKENS = 512, KERNELS = 16 };
static const double tolerance = 0.02;

static const struct {
    const char *name;
    int hidden_size, ffn_hidden_size, beta;
    const char *fields, *params;
} specs[] = {
    {"gated without bias", 256, 512, 0,
     "activation_func = F.silu, gated_linear_unit = true, add_bias_linear = false,"
     "params_dtype = 'bf16'",
     ""},
    {"bias and scale", 256, 512, 1,
     "activation_func = F.silu, gated_linear_unit = true, add_bias_linear = true,"
     "num_moe_experts = 2, params_dtype = 'bf16', gradient_accumulation_fusion = true",
     "is_expert = true, per_token_scale = true"},
    {"fp32, not gated", 128, 256, 0,
     "activation_func = F.gelu, gated_linear_unit = false, add_bias_linear = true,"
     "params_dtype = 'fp32'",
     ""},
    {"saved activation", 256, 512, 0,
     "activation_func = F.silu, gated_linear_unit = true, add_bias_linear = false,"
     "params_dtype = 'bf16', save_activation = true",
     ""},
    {"ragged", 72, 136, 1,
     "activation_func = F.gelu, gated_linear_unit = true, add_bias_linear = true,"
     "params_dtype = 'fp16'",
     ""},
    {"delayed weight gradients", 256, 384, 0,
     "activation_func = F.relu, gated_linear_unit = false, add_bias_linear = true,"
     "params_dtype = 'bf16', delay_wgrad_compute = true, save_activation = true",
     ""},
};

/* Of the kernels of a step, in the order of their launches. */
typedef struct counts {
    emu_counters kernels[KERNELS];
    int launches;
} counts;

static void keep(void *user, const char *kernel, const emu_counters *counters)
{
    counts *c = user;
    cr_assert_lt(c->launches, KERNELS, "%s", kernel);
    c->kernels[c->launches++] = *counters;
}

static void compare_bytes(const mmlp_kernel_properties *kernel, const emu_counters *counters,
                          const char *spec)
{
    double planned = kernel->bytes + TOKENS * kernel->bytes_per_token,
           found = (double)counters->bytes_touched;
    cr_expect(fabs(found - planned) <= tolerance * planned,
              "%s: %s, %s: touches %.0f bytes, planned are %.0f", spec, kernel->pass, kernel->step,
              found, planned);
    cr_expect_geq(counters->wave_bytes, counters->bytes_touched);
}

/* No rows, columns or depth of a tile lie outside the matrices. */
static int has_whole_tiles(const mmlp_kernel_properties *kernel)
{
    int64_t rows = kernel->rows ? kernel->rows : TOKENS;
    return rows % kernel->tile_m == 0 && kernel->columns % kernel->tile_n == 0 &&
           kernel->reduction % 64 == 0;
}

static void compare_operations(const mmlp_kernel_properties *kernel, const emu_counters *counters,
                               const char *spec)
{
    double planned = TOKENS * kernel->flops_per_token, tensor = (double)counters->tensor_flops,
           fma = (double)counters->fma_flops;
    cr_expect(tensor + fma >= planned, "%s: %s, %s: %.0f + %.0f operations, planned are %.0f", spec,
              kernel->pass, kernel->step, tensor, fma, planned);
    if (counters->tensor_flops == 0)
        return;
    cr_expect_eq(counters->shared_excess, 0, "%s: %s, %s: bank conflicts", spec, kernel->pass,
                 kernel->step);
    cr_expect(!has_whole_tiles(kernel) || tensor == planned,
              "%s: %s, %s: %.0f operations of mma, planned are %.0f", spec, kernel->pass,
              kernel->step, tensor, planned);
}

/* The kernels of the passes stand before those of initialisation, in launch order. */
static void compare(const mmlp_mlp *mlp, const counts *c, const char *spec)
{
    for (int i = 0; i < c->launches; i++) {
        mmlp_kernel_properties kernel = MMLP_KERNEL_PROPERTIES_INIT;
        REQUIRE(mmlp_mlp_kernel(mlp, i, &kernel));
        cr_expect_str_neq(kernel.pass, "init");
        compare_bytes(&kernel, &c->kernels[i], spec);
        compare_operations(&kernel, &c->kernels[i], spec);
    }
    mmlp_kernel_properties rest = MMLP_KERNEL_PROPERTIES_INIT;
    cr_assert_lt(c->launches, mmlp_mlp_kernel_count(mlp));
    REQUIRE(mmlp_mlp_kernel(mlp, c->launches, &rest));
    cr_expect_str_eq(rest.pass, "init", "%s: %s did not run", spec, rest.name);
}

Test(bytes, every_kernel_does_what_is_planned_without_bank_conflicts_on_tensor_cores)
{
    /* Bias gradients are fp32, which is what the plan counts: it does not know their type. */
    mmlp_context *context = loaded_device();
    CUcontext primary;
    REQUIRE_CUDA(cuDevicePrimaryCtxRetain(&primary, 0));
    REQUIRE_CUDA(cuCtxSetCurrent(primary));
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        loaded_mlp loaded;
        training_step step;
        counts c = {.launches = 0};
        step_options options = {
            .tokens = TOKENS, .seed = 1, .beta = specs[i].beta, .bias_gradients_fp32 = 1};
        char *content = loaded_spec(specs[i].hidden_size, specs[i].ffn_hidden_size, specs[i].fields,
                                    specs[i].params);
        loaded_open(&loaded, context, content, TOKENS, 0, NULL);
        free(content);
        step_start(&step, context, loaded.bundle, loaded.mlp, &options);
        REQUIRE_CUDA(cuEmulatorCount(keep, &c));
        REQUIRE(step_run(&step, loaded.mlp));
        REQUIRE_CUDA(cuEmulatorCount(NULL, NULL));
        compare(loaded.mlp, &c, specs[i].name);
        step_finish(&step);
        loaded_close(&loaded);
    }
    REQUIRE_CUDA(cuCtxSetCurrent(NULL));
    REQUIRE_CUDA(cuDevicePrimaryCtxRelease(0));
    mmlp_context_destroy(context);
}
