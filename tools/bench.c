/* bench.c: megamlp-bench, where the time goes. Timings are printed, never asserted. */
#include "bench.h"

#include <argp.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

typedef struct options {
    const char *what;
    bench_counters_options counters; /* its spec and arch are jit's too */
} options;

enum { KEY_ARCH = 256, KEY_PASS, KEY_TILE, KEY_TOKENS, KEY_JSON };

static const struct argp_option option_table[] = {
    {"arch", KEY_ARCH, "ARCH", 0,
     "jit, counters: the GPU architecture (sm_80; for counters $MMLP_EMULATOR_DEVICE if that is "
     "set)",
     0},
    {"pass", KEY_PASS, "PASS", 0,
     "counters: train, or forward: of inference, which saves nothing (train)", 0},
    {"tile", KEY_TILE, "MxN", 0, "jit, counters: --tile of megamlp-gen", 0},
    {"tokens", KEY_TOKENS, "N", 0, "counters: the tokens of the step", 0},
    {"json", KEY_JSON, 0, 0, "counters: print JSON, with every counter by its name", 0},
    {0},
};

static const char documentation[] =
    "Measures MegaMLP itself; every time is the median of 5 runs.\v"
    "jit SPEC.lua       from a spec to the loaded kernels of a training step, each\n"
    "                   run in a fresh process: spec to cubins, load with an empty\n"
    "                   cache, load from the disk cache; and each kernel's compilation\n"
    "counters SPEC.lua  what each kernel of a training step (--pass forward: of\n"
    "                   inference) does, counted by the emulator, beside the\n"
    "                   plan's ideal: instructions, FLOP, bytes, sectors, bank\n"
    "                   conflicts, barriers, and with wgmma the lane instructions of\n"
    "                   the epilogue for an output; and what ptxas makes of it:\n"
    "                   registers, spills, blocks per multiprocessor.\n"
    "                   docs/emulator.md says what is counted\n"
    "emulator           matrix products and ordinary instructions of fixed PTX on\n"
    "                   the emulator, one host thread, with its checks on: GFLOP/s,\n"
    "                   instructions of warps a second, and how the time changes\n"
    "                   with two threads, counters, race checks, exact sums\n"
    "checkpoint         two ranks on emulated devices save and load 2 GiB of weights in\n"
    "                   $TMPDIR, beside cp of the same file\n\n"
    "  megamlp-bench counters specs/llama3_8b.lua --arch sm_80 --tokens 128\n\n"
    "Exit codes: 0 ok, 2 usage, 3 a bad spec, 4 a device or compile error.";

static void check_options(const options *o, struct argp_state *state)
{
    const bench_counters_options *c = &o->counters;
    if (!o->what)
        argp_error(state, "needs one of: jit, counters, emulator, checkpoint");
    int counters = strcmp(o->what, "counters") == 0, jit = strcmp(o->what, "jit") == 0;
    if (!counters && !jit && strcmp(o->what, "emulator") != 0 && strcmp(o->what, "checkpoint") != 0)
        argp_error(state, "'%s': is not one of jit, counters, emulator, checkpoint", o->what);
    if ((counters || jit) && !c->spec)
        argp_error(state, "%s needs a SPEC.lua", o->what);
    if (counters && c->tokens == 0)
        argp_error(state, "counters needs --tokens N");
    if (!counters && (c->tokens > 0 || c->json))
        argp_error(state, "--tokens and --json go with counters");
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    options *o = state->input;
    switch (key) {
    case KEY_ARCH:
        o->counters.arch = argument;
        break;
    case KEY_PASS:
        o->counters.forward = strcmp(argument, "forward") == 0;
        if (!o->counters.forward && strcmp(argument, "train") != 0)
            argp_error(state, "--pass %s: is not train or forward", argument);
        break;
    case KEY_TILE:
        o->counters.tile = argument;
        break;
    case KEY_TOKENS:
        o->counters.tokens = (int64_t)tool_parse_number(argument, 1, INT32_MAX, "--tokens", state);
        break;
    case KEY_JSON:
        o->counters.json = 1;
        break;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0)
            o->what = argument;
        else if (state->arg_num == 1)
            o->counters.spec = argument;
        else
            argp_error(state, "'%s': too many arguments", argument);
        break;
    case ARGP_KEY_END:
        check_options(o, state);
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
    options o = {.what = NULL};
    const struct argp parser = {
        option_table,  parse_option, "jit SPEC.lua\ncounters SPEC.lua\nemulator\ncheckpoint",
        documentation, NULL,         tool_help_filter,
        NULL};
    tool_check_output_at_exit();
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&parser, argc, argv, 0, NULL, &o);
    if (strcmp(o.what, "jit") == 0)
        return bench_jit(o.counters.spec, o.counters.arch ? o.counters.arch : "sm_80",
                         o.counters.tile);
    if (strcmp(o.what, "checkpoint") == 0)
        return bench_checkpoint();
    return strcmp(o.what, "counters") == 0 ? bench_counters(&o.counters) : bench_emulator();
}
