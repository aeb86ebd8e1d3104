/* bench.c: megamlp-bench, where the time goes. Timings are printed, never asserted. */
#include "bench.h"

#include <argp.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

typedef struct options {
    const char *what, *spec, *arch;
} options;

enum { KEY_ARCH = 256 };

static const struct argp_option option_table[] = {
    {"arch", KEY_ARCH, "ARCH", 0, "jit: the architecture to compile for (sm_80)", 0},
    {0},
};

static const char documentation[] =
    "Measures MegaMLP itself; every number is the median of 5 runs.\v"
    "jit SPEC.lua   from a spec to the loaded kernels of a training step, each run\n"
    "               in a fresh process: spec to cubins, load with an empty cache,\n"
    "               load from the disk cache\n"
    "emulator       matrix products of fixed PTX on the emulator, one host thread,\n"
    "               with its checks on: GFLOP/s and warp instructions per second\n\n"
    "Exit codes: 0 ok, 2 usage, 3 a bad spec, 4 a device or compile error.";

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    options *o = state->input;
    switch (key) {
    case KEY_ARCH:
        o->arch = argument;
        break;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0)
            o->what = argument;
        else if (state->arg_num == 1)
            o->spec = argument;
        else
            argp_error(state, "'%s': too many arguments", argument);
        break;
    case ARGP_KEY_END:
        if (!o->what)
            argp_error(state, "needs one of: jit, emulator");
        if (strcmp(o->what, "jit") == 0 && !o->spec)
            argp_error(state, "jit needs a SPEC.lua");
        if (strcmp(o->what, "jit") != 0 && strcmp(o->what, "emulator") != 0)
            argp_error(state, "'%s': is not one of jit, emulator", o->what);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static int compare_doubles(const void *left, const void *right)
{
    double a = *(const double *)left, b = *(const double *)right;
    return a < b ? -1 : a > b;
}

double bench_median(double runs[BENCH_RUNS])
{
    qsort(runs, BENCH_RUNS, sizeof runs[0], compare_doubles);
    return runs[BENCH_RUNS / 2];
}

int main(int argc, char **argv)
{
    options o = {.arch = "sm_80"};
    const struct argp parser = {option_table,  parse_option, "jit SPEC.lua\nemulator",
                                documentation, NULL,         tool_help_filter,
                                NULL};
    tool_check_output_at_exit();
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&parser, argc, argv, 0, NULL, &o);
    return strcmp(o.what, "jit") == 0 ? bench_jit(o.spec, o.arch) : bench_emulator();
}
