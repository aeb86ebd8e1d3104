/*
 * run.c: megamlp-run, one pass of an MLP on the tensors of a safetensors file or on random ones, by
 * the public interface alone.
 */
#include <argp.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "run_check.h"
#include "tool.h"

typedef struct options {
    const char *pass, *arch, *device, *out, *spec, *file;
    int check, random;
    uint64_t seed;
    int64_t tokens, check_tokens;
} options;

enum { KEY_PASS = 256, KEY_ARCH, KEY_DEVICE, KEY_CHECK, KEY_RANDOM, KEY_TOKENS, KEY_CHECK_TOKENS };

static const struct argp_option option_table[] = {
    {"pass", KEY_PASS, "PASS", 0, "The pass to run: forward (the default)", 0},
    {"arch", KEY_ARCH, "ARCH", 0,
     "The GPU architecture, e.g. sm_80; default: the device's. On the emulator a GPU of that kind "
     "is emulated",
     0},
    {"device", KEY_DEVICE, "DEVICE", 0,
     "auto (the default: $MMLP_DRIVER, else the NVIDIA driver, else the emulator), cuda, or "
     "emulator",
     0},
    {"check", KEY_CHECK, 0, 0,
     "Compare with the file's expected values and with an fp64 reference; exit code 1 if a limit "
     "is passed",
     0},
    {"check-tokens", KEY_CHECK_TOKENS, "K", 0,
     "Tokens that the fp64 reference computes (16), spread over all", 0},
    {"out", 'o', "FILE", 0, "Write the results to FILE (safetensors)", 0},
    {"random", KEY_RANDOM, "SEED", 0, "Random inputs made on the device, in place of FILE", 0},
    {"tokens", KEY_TOKENS, "N", 0, "With --random: the number of tokens", 0},
    {0},
};

static const char documentation[] =
    "Runs one pass of an MLP.\v"
    "SPEC.lua is turned into a bundle by the megamlp-gen beside this program. FILE holds "
    "hidden_states, "
    "linear_fc1.weight, linear_fc2.weight and, where the spec has them, linear_fc1.bias, "
    "linear_fc2.bias and "
    "per_token_scale; BF16 is converted to the spec's params_dtype.\n\n"
    "  megamlp-run --check specs/llama3_8b.lua --random 1 --tokens 128\n"
    "  megamlp-run --check --arch sm_80 swiglu.lua swiglu.safetensors\n\n"
    "Exit codes: 0 ok, 1 a check failed, 2 usage, 3 a bad spec or file, 4 a device or compile "
    "error.";

/* A whole number in [least, most], or a usage error. */
static uint64_t parse_number(const char *text, uint64_t least, uint64_t most, const char *option,
                             struct argp_state *state)
{
    char *end;
    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || value < least || value > most)
        argp_error(state, "%s %s: is not a whole number from %" PRIu64 " to %" PRIu64, option, text,
                   least, most);
    return value;
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    options *o = state->input;
    switch (key) {
    case KEY_PASS:
        o->pass = argument;
        if (strcmp(argument, "forward") != 0)
            argp_error(state, "--pass %s: not supported yet; the pass there is: forward", argument);
        break;
    case KEY_ARCH:
        o->arch = argument;
        break;
    case KEY_DEVICE:
        o->device = argument;
        break;
    case KEY_CHECK:
        o->check = 1;
        break;
    case KEY_CHECK_TOKENS:
        o->check_tokens = (int64_t)parse_number(argument, 1, 1 << 20, "--check-tokens", state);
        break;
    case 'o':
        o->out = argument;
        break;
    case KEY_RANDOM:
        o->random = 1;
        o->seed = parse_number(argument, 0, UINT32_MAX, "--random", state);
        break;
    case KEY_TOKENS:
        o->tokens = (int64_t)parse_number(argument, 0, INT32_MAX, "--tokens", state);
        break;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0)
            o->spec = argument;
        else if (state->arg_num == 1)
            o->file = argument;
        else
            argp_error(state, "'%s': one spec or bundle and one file are enough", argument);
        break;
    case ARGP_KEY_END:
        if (!o->spec)
            argp_error(state, "needs a SPEC.lua or NAME.mlp");
        if (o->random && o->file)
            argp_error(state, "--random takes the place of '%s'", o->file);
        if (!o->random && !o->file)
            argp_error(state, "needs a FILE.safetensors, or --random SEED --tokens N");
        if (o->random != (o->tokens >= 0))
            argp_error(state, "--random SEED and --tokens N go together");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* ---- one run -------------------------------------------------------------------------------- */

typedef struct run {
    mmlp_context *context;
    mmlp_bundle *bundle;
    mmlp_mlp *mlp;
    safetensors file;
    run_tensors tensors;
    run_results results;
    double *kernel_ms; /* of each forward kernel */
} run;

static int open_all(run *r, const options *o)
{
    int code = tool_open_bundle(&r->bundle, o->spec);
    if (code != 0)
        return code;
    char *error;
    if (o->file && !safetensors_open(&r->file, o->file, &error)) {
        code = tool_fail(EXIT_INPUT, "%s", error ? error : "out of memory");
        free(error);
        return code;
    }
    code = tool_open_device(&r->context, o->device, o->arch);
    if (code != 0)
        return code;

    r->tensors.context = r->context;
    r->tensors.mlp = (mmlp_bundle_properties)MMLP_BUNDLE_PROPERTIES_INIT;
    mmlp_status status = mmlp_bundle_get(r->bundle, &r->tensors.mlp);
    if (status != MMLP_OK)
        return tool_fail_status(status);

    r->tensors.tokens = o->random ? o->tokens : 0;
    if (o->file) {
        code = run_tensors_from_file(&r->tensors, &r->file, o->file);
        if (code != 0)
            return code;
    }
    mmlp_mlp_options mlp_options = MMLP_MLP_OPTIONS_INIT;
    mlp_options.max_tokens = r->tensors.tokens > 0 ? r->tensors.tokens : 1;
    status = mmlp_mlp_load(&r->mlp, r->context, r->bundle, &mlp_options);
    if (status != MMLP_OK)
        return tool_fail_status(status);
    if (o->random) {
        code = run_tensors_random(&r->tensors, r->mlp, o->seed);
        if (code != 0)
            return code;
    }
    return run_tensors_allocate_results(&r->tensors, r->mlp);
}

static int forward_kernel_count(const mmlp_mlp *mlp)
{
    int count = 0;
    for (int i = 0; i < mmlp_mlp_kernel_count(mlp); ++i) {
        mmlp_kernel_properties kernel = MMLP_KERNEL_PROPERTIES_INIT;
        if (mmlp_mlp_kernel(mlp, i, &kernel) == MMLP_OK && strcmp(kernel.pass, "forward") == 0)
            ++count;
    }
    return count;
}

static int execute(run *r)
{
    mmlp_forward_args args = run_tensors_forward_args(&r->tensors);
    int count = forward_kernel_count(r->mlp);
    r->kernel_ms = calloc((size_t)count + 1, sizeof *r->kernel_ms);
    if (!r->kernel_ms)
        return tool_fail(EXIT_DEVICE, "out of memory");
    mmlp_status status = mmlp_stream_sync(r->context, NULL);
    if (status == MMLP_OK)
        status = mmlp_mlp_forward_timed(r->mlp, &args, NULL, r->kernel_ms, count);
    return status == MMLP_OK ? 0 : tool_fail_status(status);
}

/* What was launched, how long it took, and how far from fp64 its result is. */
static void print_kernels(const run *r, const double errors[RESULT_COUNT], int checked)
{
    printf("%-36s %-12s %10s %10s %10s %10s\n", "kernel", "grid", "compile ms", "run ms", "GFLOP/s",
           "error");
    int launch = 0;
    for (int i = 0; i < mmlp_mlp_kernel_count(r->mlp); ++i) {
        mmlp_kernel_properties kernel = MMLP_KERNEL_PROPERTIES_INIT;
        if (mmlp_mlp_kernel(r->mlp, i, &kernel) != MMLP_OK || strcmp(kernel.pass, "forward") != 0)
            continue;
        int64_t tokens = r->tensors.tokens;
        char grid[48], compile[24], error[24];
        snprintf(grid, sizeof grid, "%" PRId64 " x %" PRId64,
                 (tokens + kernel.tile_m - 1) / kernel.tile_m,
                 (kernel.columns + kernel.tile_n - 1) / kernel.tile_n);
        if (strcmp(kernel.origin, "compiled") == 0)
            snprintf(compile, sizeof compile, "%.0f", kernel.compile_ms);
        else
            snprintf(compile, sizeof compile, "(%s)", kernel.origin);
        int result =
            strcmp(kernel.step, "linear_fc1") == 0 ? RESULT_ACTIVATION_OUTPUT : RESULT_OUTPUT;
        snprintf(error, sizeof error, checked ? "%.1e" : "-", errors[result]);
        double ms = r->kernel_ms[launch++];
        double gflops = ms > 0 ? kernel.flops_per_token * (double)tokens / ms * 1e-6 : 0;
        printf("%-36s %-12s %10s %10.1f %10.1f %10s\n", kernel.name, grid, compile, ms, gflops,
               error);
    }
}

static int write_results(const run *r, const char *path)
{
    safetensor tensors[RESULT_COUNT + 1] = {0};
    size_t count = 0;
    for (; count < RESULT_COUNT; ++count) {
        tensors[count].name = (char *)run_result_names[count];
        tensors[count].view = r->results.tensors[count].view;
        tensors[count].view.shape = (int64_t *)r->results.tensors[count].shape;
        tensors[count].bytes = r->results.tensors[count].bytes;
    }
    if (r->tensors.mlp.fc2_bias == MMLP_FC2_BIAS_RETURNED) {
        tensors[count].name = "output_bias";
        tensors[count].view = r->tensors.host[RUN_FC2_BIAS].view;
        tensors[count].bytes = r->tensors.host[RUN_FC2_BIAS].bytes;
        ++count;
    }
    char *error;
    if (safetensors_write(path, tensors, count, &error))
        return 0;
    int code = tool_fail(EXIT_INPUT, "%s", error ? error : "out of memory");
    free(error);
    return code;
}

static int run_forward(run *r, const options *o)
{
    int code = open_all(r, o);
    if (code == 0)
        code = execute(r);
    if (code == 0 && (o->check || o->out))
        code = run_results_download(&r->results, &r->tensors, r->mlp);
    if (code == 0 && (o->check || o->out))
        code = run_tensors_download_inputs(&r->tensors);

    compare_table table = {0};
    double errors[RESULT_COUNT] = {0};
    if (code == 0 && o->check && o->file)
        code = run_check_file(&table, &r->tensors, &r->results, &r->file, o->file);
    if (code == 0 && o->check)
        code = run_check_reference(&table, errors, &r->tensors, &r->results, r->bundle,
                                   o->check_tokens);
    if (code == 0 && o->check)
        putchar('\n');
    if (code == 0)
        print_kernels(r, errors, o->check);
    if (code == 0 && o->out)
        code = write_results(r, o->out);
    if (code == 0 && table.failed > 0)
        code = tool_fail(EXIT_CHECK_FAILED, "%d of %d checks failed", table.failed, table.rows);
    return code;
}

int main(int argc, char **argv)
{
    options o = {.pass = "forward", .device = "auto", .tokens = -1, .check_tokens = 16};
    const struct argp parser = {option_table,  parse_option, "SPEC.lua|NAME.mlp [FILE.safetensors]",
                                documentation, NULL,         tool_help_filter,
                                NULL};
    tool_check_output_at_exit();
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&parser, argc, argv, 0, NULL, &o);

    run r = {0};
    int code = run_forward(&r, &o);
    run_results_free(&r.results);
    if (r.context)
        run_tensors_free(&r.tensors);
    mmlp_mlp_unload(r.mlp);
    mmlp_context_destroy(r.context);
    mmlp_bundle_close(r.bundle);
    safetensors_close(&r.file);
    free(r.kernel_ms);
    return code;
}
