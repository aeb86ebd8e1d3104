/* run_report.c: the table of kernels, and the file of results. */
#include "run_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "safetensors.h"
#include "tool.h"

/* ---- kernels -------------------------------------------------------------------------------- */

/* The result whose error stands beside a kernel. */
static const struct {
    const char *pass, *step;
    run_slot slot;
} kernel_results[] = {
    {"forward", "linear_fc1", RUN_ACTIVATION_OUTPUT},
    {"forward", "linear_fc2", RUN_OUTPUT},
    {"dgrad", "linear_fc2", RUN_GRAD_FC1_OUTPUT},
    {"dgrad", "linear_fc1", RUN_GRAD_HIDDEN_STATES},
    {"dgrad", "linear_fc1_bias", RUN_GRAD_FC1_BIAS},
    {"dgrad", "linear_fc2_bias", RUN_GRAD_FC2_BIAS},
    {"dgrad", "per_token_scale", RUN_GRAD_PER_TOKEN_SCALE},
    {"backward_dw", "linear_fc1", RUN_GRAD_FC1_WEIGHT},
    {"backward_dw", "linear_fc2", RUN_GRAD_FC2_WEIGHT},
};

static double error_of(const mmlp_kernel_properties *kernel, const double *errors)
{
    for (size_t i = 0; errors && i < sizeof kernel_results / sizeof kernel_results[0]; ++i) {
        if (strcmp(kernel_results[i].pass, kernel->pass) == 0 &&
            strcmp(kernel_results[i].step, kernel->step) == 0)
            return errors[kernel_results[i].slot];
    }
    return -1;
}

/* The microbatches that the kernel runs for, and their tokens. */
static int runs_for(const run_step *s, const mmlp_kernel_properties *kernel, double *tokens)
{
    int count = 0;
    *tokens = 0;
    for (int i = 0; i < s->count; ++i) {
        int64_t n = s->microbatches[i].tokens;
        if (n >= kernel->least_tokens && n <= kernel->most_tokens) {
            *tokens += (double)n;
            ++count;
        }
    }
    return count;
}

/* The largest grid of the step's microbatches: "3 x 4". */
static void print_grid(char text[48], const run_step *s, const mmlp_kernel_properties *kernel)
{
    int64_t rows = kernel->rows;
    for (int i = 0; kernel->rows == 0 && i < s->count; ++i) {
        int64_t tokens = s->microbatches[i].tokens;
        if (tokens > rows && tokens <= kernel->most_tokens)
            rows = tokens;
    }
    if (kernel->tile_m <= 0 || kernel->tile_n <= 0)
        snprintf(text, 48, "-");
    else
        snprintf(text, 48, "%" PRId64 " x %" PRId64, (rows + kernel->tile_m - 1) / kernel->tile_m,
                 (kernel->columns + kernel->tile_n - 1) / kernel->tile_n);
}

static void print_compile(char text[24], const mmlp_kernel_properties *kernel)
{
    if (strcmp(kernel->origin, "compiled") == 0)
        snprintf(text, 24, "%.0f", kernel->compile_ms);
    else
        snprintf(text, 24, "(%s)", kernel->origin);
}

/* A rate in units of 1e9 per second; "-" where there is none. */
static void print_rate(char text[24], double amount, double ms)
{
    if (amount > 0 && ms > 0)
        snprintf(text, 24, "%.1f", amount / ms * 1e-6);
    else
        snprintf(text, 24, "-");
}

static void print_kernel(const run_step *s, const mmlp_kernel_properties *kernel, int name_width,
                         double ms, double error)
{
    double tokens;
    int count = runs_for(s, kernel, &tokens);
    char grid[48], compile[24], flops[24], bytes[24], error_text[24] = "-";
    print_grid(grid, s, kernel);
    print_compile(compile, kernel);
    print_rate(flops, kernel->flops_per_token * tokens, ms);
    print_rate(bytes, kernel->bytes * count + kernel->bytes_per_token * tokens, ms);
    if (error >= 0)
        snprintf(error_text, sizeof error_text, "%.1e", error);
    printf("%-*s %-12s %10s %10.1f %9s %9s %9s\n", name_width, kernel->name, grid, compile, ms,
           flops, bytes, error_text);
}

/* Kernel i, if the step has run it. */
static int get_kernel(mmlp_kernel_properties *out, const run_step *s, int i)
{
    *out = (mmlp_kernel_properties)MMLP_KERNEL_PROPERTIES_INIT;
    double tokens;
    return mmlp_mlp_kernel(s->mlp, i, out) == MMLP_OK && strcmp(out->pass, "init") != 0 &&
           (s->train || strcmp(out->pass, "forward") == 0) && runs_for(s, out, &tokens) > 0;
}

void run_report_kernels(const run_step *s, const double *errors)
{
    mmlp_kernel_properties kernel;
    int width = 36, count = mmlp_mlp_kernel_count(s->mlp);
    for (int i = 0; i < count; ++i) {
        if (get_kernel(&kernel, s, i) && (int)strlen(kernel.name) > width)
            width = (int)strlen(kernel.name);
    }
    printf("%-*s %-12s %10s %10s %9s %9s %9s\n", width, "kernel", "grid", "compile ms", "run ms",
           "GFLOP/s", "GB/s", "error");
    for (int i = 0; i < count; ++i) {
        if (get_kernel(&kernel, s, i))
            print_kernel(s, &kernel, width, s->kernel_ms[i], error_of(&kernel, errors));
    }
}

/* ---- results -------------------------------------------------------------------------------- */

static int add_result(safetensor *out, char name[RUN_NAME_SIZE], run_step *s, int microbatch,
                      run_slot slot)
{
    int code = run_step_download(s, microbatch, slot);
    const run_tensor *host = run_step_host(s, microbatch, slot);
    run_step_name(name, s, microbatch, slot);
    out->name = name;
    out->view = host->view;
    out->bytes = host->bytes;
    return code;
}

static int add_all(safetensor *tensors, char (*names)[RUN_NAME_SIZE], size_t *count, run_step *s)
{
    int code = 0;
    for (run_slot slot = 0; code == 0 && slot < RUN_SLOT_COUNT; ++slot) {
        run_role role = run_slot_role(slot);
        /* What forward stores is activation_output already. */
        if (role == RUN_INPUT || role == RUN_PARAMETER || !run_step_uses(s, slot) ||
            slot == RUN_RECOMPUTED_ACTIVATION)
            continue;
        int copies = role == RUN_GRADIENT ? 1 : s->count;
        for (int i = 0; code == 0 && i < copies; ++i, ++*count)
            code = add_result(&tensors[*count], names[*count], s, i, slot);
    }
    if (code == 0 && s->properties.fc2_bias == MMLP_FC2_BIAS_RETURNED) {
        code = add_result(&tensors[*count], names[*count], s, 0, RUN_FC2_BIAS);
        snprintf(names[*count], RUN_NAME_SIZE, "output_bias");
        ++*count;
    }
    return code;
}

/* "results.safetensors"; of rank 1 of several "results.rank1.safetensors" (malloc). */
static char *path_of_rank(const run_step *s, const char *path)
{
    const char *slash = strrchr(path, '/'), *dot = strrchr(slash ? slash : path, '.');
    int stem = (int)(dot ? dot - path : (long)strlen(path));
    char *own = NULL;
    if (s->ranks == 1)
        return strdup(path);
    return asprintf(&own, "%.*s.rank%d%s", stem, path, s->rank, path + stem) < 0 ? NULL : own;
}

int run_report_write(run_step *s, const char *path)
{
    char *own = path_of_rank(s, path);
    size_t most = (size_t)RUN_SLOT_COUNT * (size_t)s->count + 1, count = 0;
    safetensor *tensors = calloc(most, sizeof *tensors);
    char(*names)[RUN_NAME_SIZE] = calloc(most, sizeof *names);
    int code = tensors && names && own
                   ? add_all(tensors, names, &count, s)
                   : tool_fail(EXIT_DEVICE, "out of memory: the names of results");
    char *error;
    if (code == 0 && !safetensors_write(own, tensors, count, &error)) {
        code = tool_fail(EXIT_INPUT, "%s", error ? error : "out of memory");
        free(error);
    }
    free(tensors);
    free(names);
    free(own);
    return code;
}
