/*
 * main.c: the command line of megamlp-gen: one argp parser for each command. Prints results to
 * stdout and one line for a failure to stderr.
 */
#include <argp.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bundle_write.h"
#include "check.h"
#include "describe.h"
#include "gradient_check.h"

enum { EXIT_OK = 0, EXIT_CHECK = 1, EXIT_USAGE = 2, EXIT_SPEC = 3, EXIT_COMPILE = 4 };
enum { ARCHS_MAX = 16 };

typedef struct arguments {
    const char *spec, *output;
    const char *archs[ARCHS_MAX];
    int arch_count;
    bool takes_spec, ptx, cubin, force, traceback;
    const char *tile;
} arguments;

enum { OPTION_PTX = 256, OPTION_CUBIN, OPTION_FORCE, OPTION_TILE, OPTION_TRACEBACK };

#define OPTION_ROW_ARCH                                                                            \
    {                                                                                              \
        "arch", 'a', "ARCH", 0, "Architecture, such as sm_80 or sm_90", 0                          \
    }
#define OPTION_ROW_TILE                                                                            \
    {                                                                                              \
        "tile", OPTION_TILE, "MxN[:C]", 0,                                                         \
            "Take this tile, such as 128x256, or 128x256:2 in clusters of two blocks, wherever a " \
            "GEMM can have it, not the one that the estimates prefer, and one kernel per GEMM",    \
            0                                                                                      \
    }
#define OPTION_ROW_TRACEBACK                                                                       \
    {                                                                                              \
        "traceback", OPTION_TRACEBACK, 0, 0, "Add Lua's traceback to an error of the spec", 0      \
    }

static const struct argp_option plan_options[] = {
    OPTION_ROW_ARCH, OPTION_ROW_TILE, OPTION_ROW_TRACEBACK, {0}};
static const struct argp_option bundle_option_rows[] = {
    {"output", 'o', "NAME.mlp", 0, "Where the bundle goes (needed)", 0},
    OPTION_ROW_ARCH,
    {"cubin", OPTION_CUBIN, 0, 0, "Build machine code ahead of time, for each --arch", 0},
    {"ptx", OPTION_PTX, 0, 0, "Build PTX ahead of time, for each --arch", 0},
    {"force", OPTION_FORCE, 0, 0, "Replace an existing bundle", 0},
    OPTION_ROW_TILE,
    OPTION_ROW_TRACEBACK,
    {0}};
static const struct argp_option describe_options[] = {OPTION_ROW_TRACEBACK, {0}};
static const struct argp_option no_options[] = {{0}};

static void refuse_architecture(const char *value, struct argp_state *state)
{
    text known = TEXT_INIT;
    plan_print_architectures(&known);
    argp_error(state, "--arch %s: there are kernels for %s", value, text_string(&known));
    text_free(&known);
}

static error_t parse_option(int key, char *value, struct argp_state *state)
{
    arguments *a = state->input;
    switch (key) {
    case 'a':
        for (int i = 0; i < a->arch_count; i++)
            if (strcmp(a->archs[i], value) == 0)
                return 0;
        if (a->arch_count == ARCHS_MAX)
            argp_error(state, "more than %d times --arch", ARCHS_MAX);
        else if (!plan_family_of(value))
            refuse_architecture(value, state);
        else
            a->archs[a->arch_count++] = value;
        return 0;
    case 'o':
        a->output = value;
        return 0;
    case OPTION_PTX:
        a->ptx = true;
        return 0;
    case OPTION_CUBIN:
        a->cubin = true;
        return 0;
    case OPTION_FORCE:
        a->force = true;
        return 0;
    case OPTION_TILE:
        a->tile = value;
        if (!plan_tile_exists(value))
            argp_error(state, "--tile %s: there are 128x256, 128x128, 64x256, 64x128, 64x64",
                       value);
        return 0;
    case OPTION_TRACEBACK:
        a->traceback = true;
        return 0;
    case ARGP_KEY_ARG:
        if (!a->takes_spec || a->spec)
            argp_error(state, "unexpected argument '%s'", value);
        else
            a->spec = value;
        return 0;
    case ARGP_KEY_END:
        if (a->takes_spec && !a->spec)
            argp_error(state, "the spec is missing");
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

/* ---- commands -------------------------------------------------------------------------------- */

static int exit_code(mmlp_status status)
{
    if (status == MMLP_OK)
        return EXIT_OK;
    fprintf(stderr, "%s\n", mmlp_last_error());
    if (status == MMLP_ERROR_COMPILE || status == MMLP_ERROR_DRIVER)
        return EXIT_COMPILE;
    return EXIT_SPEC;
}

static mmlp_status load(module_spec *out, const arguments *a)
{
    spec_options options = {.traceback = a->traceback};
    return spec_load(out, a->spec, &options);
}

static int run_plan(const arguments *a)
{
    module_spec spec = {0};
    plan p = {0};
    text printed = TEXT_INIT;
    mmlp_status status = MMLP_OK;
    MMLP_TRY_CLEANUP(load(&spec, a));
    MMLP_TRY_CLEANUP(
        plan_build(&p, &spec, a->arch_count ? a->archs[a->arch_count - 1] : NULL, a->tile));
    MMLP_TRY_CLEANUP(plan_print(&printed, &p));
    fputs(text_string(&printed), stdout);

cleanup:
    text_free(&printed);
    plan_free(&p);
    spec_free(&spec);
    return exit_code(status);
}

static int run_describe(const arguments *a)
{
    module_spec spec = {0};
    spec_options options = {.traceback = a->traceback, .any_size = true};
    mmlp_status status = spec_load(&spec, a->spec, &options);
    if (status == MMLP_OK)
        status = describe_print(stdout, &spec);
    spec_free(&spec);
    return exit_code(status);
}

static int run_bundle(const arguments *a)
{
    if (!a->output || !*a->output) {
        fprintf(stderr, "megamlp-gen bundle: -o NAME.mlp is missing\n");
        return EXIT_USAGE;
    }
    if (a->arch_count > 0 && !a->cubin && !a->ptx) {
        fprintf(stderr,
                "megamlp-gen bundle: --arch says what --cubin and --ptx build for; give one "
                "of them\n");
        return EXIT_USAGE;
    }
    module_spec spec = {0};
    bundle_options options = {a->archs, a->arch_count, a->ptx, a->cubin, a->force, a->tile};
    mmlp_status status = load(&spec, a);
    if (status == MMLP_OK)
        status = bundle_write(&spec, a->output, &options);
    if (status == MMLP_OK && spec.warnings.length > 0)
        fprintf(stderr, "%s", text_string(&spec.warnings));
    spec_free(&spec);
    return exit_code(status);
}

/* Prints how far the activation's gradient is from its slope; counts a failure. */
static mmlp_status check_gradient(int *failures, const module_spec *spec)
{
    gradient_report r;
    MMLP_TRY(gradient_check(&r, spec));
    bool bad = r.worst > gradient_error_limit || r.points == 0;
    printf("gradient of %s: ", spec->activation_name);
    if (r.points > 0)
        printf("worst error %.1e", r.worst);
    if (r.points > 0 && spec->activation_takes_up)
        printf(" at gate %g, up %g", r.x, r.up);
    else if (r.points > 0)
        printf(" at %g", r.x);
    printf("%s%ld points against slopes in fp64, %ld at kinks left out%s\n",
           r.points > 0 ? ", " : "", r.points, r.left_out, bad ? ", FAILED" : "");
    *failures += bad;
    return MMLP_OK;
}

static int run_check(const arguments *a)
{
    module_spec spec = {0};
    emit_kernels kernels = {0};
    int failures = 0, wrong_gradients = 0;
    mmlp_status status = MMLP_OK;
    MMLP_TRY_CLEANUP(load(&spec, a));
    MMLP_TRY_CLEANUP(check_gradient(&wrong_gradients, &spec));
    MMLP_TRY_CLEANUP(emit_spec(&kernels, &spec, a->tile));
    MMLP_TRY_CLEANUP(check_kernels(&failures, stdout, &kernels, a->archs, a->arch_count));

cleanup:
    emit_free(&kernels);
    spec_free(&spec);
    return status == MMLP_OK && failures + wrong_gradients > 0 ? EXIT_CHECK : exit_code(status);
}

static int run_fields(const arguments *a)
{
    (void)a;
    text printed = TEXT_INIT;
    spec_print_fields(&printed);
    fputs(text_string(&printed), stdout);
    text_free(&printed);
    return EXIT_OK;
}

static const struct command {
    const char *name;
    int (*run)(const arguments *a);
    struct argp argp;
} commands[] = {
    {"plan",
     run_plan,
     {plan_options, parse_option, "SPEC.lua",
      "Prints what the MLP of a spec computes and how: steps, epilogues, tiles and why, buffers.\v"
      "Example: megamlp-gen plan specs/llama3_8b.lua",
      0, 0, 0}},
    {"bundle",
     run_bundle,
     {bundle_option_rows, parse_option, "SPEC.lua",
      "Writes a bundle: the kernels of a spec as CUDA text, and a manifest. libmegamlp loads it.\v"
      "Without --cubin and --ptx no CUDA is needed, and kernels are compiled when the bundle is "
      "loaded. Example: megamlp-gen bundle specs/llama3_8b.lua -o llama3_8b.mlp --cubin -a sm_90",
      0, 0, 0}},
    {"check",
     run_check,
     {plan_options, parse_option, "SPEC.lua",
      "Compares the gradient of a spec's activation with slopes over a sweep, compiles every "
      "kernel "
      "for each --arch (default: all), and fails when the gradient is wrong or a kernel spills "
      "registers, uses the stack, makes the assembler warn, or has other wgmma in its machine code "
      "than in its PTX, or no setmaxnreg there. Prints a line for each kernel: registers, bytes of "
      "shared memory, PTX instructions, and of the machine code the number of wgmma and whether it "
      "has setmaxnreg.\v"
      "Needs NVRTC 13.0 or newer, and no GPU.",
      0, 0, 0}},
    {"describe",
     run_describe,
     {describe_options, parse_option, "SPEC.lua",
      "Prints the sizes of a spec's MLP as JSON, as a bundle's manifest has them. The kernels' "
      "rule "
      "about sizes does not hold here: tensor-parallel ranks must share them evenly.\v"
      "Example: megamlp-gen describe specs/llama3_8b.lua",
      0, 0, 0}},
    {"fields",
     run_fields,
     {no_options, parse_option, 0, "Prints every field of the spec language, with its default.", 0,
      0, 0}},
};
enum { COMMAND_COUNT = sizeof commands / sizeof *commands };

static void print_help(FILE *out)
{
    fprintf(
        out,
        "Usage: megamlp-gen COMMAND ...\n\n"
        "Turns a spec of an MLP (Lua, in Megatron's words) into fused CUDA kernels.\n\n"
        "  plan SPEC.lua                   what runs when, and why\n"
        "  bundle SPEC.lua -o NAME.mlp     the kernels, for libmegamlp\n"
        "  check SPEC.lua                  gradient against slopes; all architectures, no spills\n"
        "  describe SPEC.lua               its sizes as JSON, whatever kernels can do\n"
        "  fields                          the words of a spec\n\n"
        "megamlp-gen COMMAND --help says more. Start with a spec of specs/.\n\n"
        "Exit status: 0 ok, 1 a check failed, 2 usage, 3 a bad spec or file, 4 a kernel did\n"
        "not compile.\n");
}

/* At exit, also when argp exits after --help: what was printed must have arrived. */
static void check_output(void)
{
    errno = 0;
    bool lost = ferror(stdout) != 0;
    if (fflush(stdout) == 0 && !lost)
        return;
    fprintf(stderr, "megamlp-gen: cannot write to stdout: %s\n",
            errno ? strerror(errno) : "an earlier write failed");
    _exit(EXIT_SPEC);
}

int main(int argc, char **argv)
{
    argp_err_exit_status = EXIT_USAGE;
    if (atexit(check_output) != 0)
        return EXIT_SPEC;
    if (argc < 2) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("megamlp-gen %d.%d.%d\n", MMLP_VERSION_MAJOR, MMLP_VERSION_MINOR,
               MMLP_VERSION_PATCH);
        return EXIT_OK;
    }
    for (int i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(argv[1], commands[i].name) != 0)
            continue;
        arguments a = {.takes_spec = commands[i].argp.args_doc != NULL};
        char *name = NULL;
        if (asprintf(&name, "megamlp-gen %s", commands[i].name) < 0)
            return EXIT_SPEC;
        argv[1] = name;
        error_t error = argp_parse(&commands[i].argp, argc - 1, argv + 1, 0, NULL, &a);
        int code = error ? EXIT_USAGE : commands[i].run(&a);
        free(name);
        return code;
    }
    fprintf(stderr, "megamlp-gen: unknown command '%s'; megamlp-gen --help lists them\n", argv[1]);
    return EXIT_USAGE;
}
