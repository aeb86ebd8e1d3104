/*
 * run.c: megamlp-run, one pass or one training step of an MLP on the tensors of a safetensors file
 * or on random ones, by the public interface alone.
 */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ranks.h"
#include "run_check.h"
#include "run_file.h"
#include "run_report.h"
#include "tool.h"

typedef struct options {
    const char *arch, *device, *out, *spec, *file;
    int train, check, random, microbatches;
    uint64_t seed;
    int64_t tokens, check_tokens;
} options;

enum {
    KEY_PASS = 256,
    KEY_ARCH,
    KEY_DEVICE,
    KEY_CHECK,
    KEY_RANDOM,
    KEY_TOKENS,
    KEY_MICROBATCHES,
    KEY_CHECK_TOKENS
};

static const struct argp_option option_table[] = {
    {"pass", KEY_PASS, "PASS", 0,
     "forward (the default), or train: forward, dgrad and backward_dw of every microbatch", 0},
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
     "Tokens that the fp64 reference computes (16), spread over all; sums over tokens take all", 0},
    {"out", 'o', "FILE", 0,
     "Write the results to FILE (safetensors); under mpirun each rank to NAME.rankR.safetensors",
     0},
    {"random", KEY_RANDOM, "SEED", 0, "In place of FILE: random inputs, made on the device", 0},
    {"tokens", KEY_TOKENS, "N", 0, "With --random: the number of tokens of a microbatch", 0},
    {"microbatches", KEY_MICROBATCHES, "M", 0, "With --random: the number of microbatches (1)", 0},
    {0},
};

static const char documentation[] =
    "Runs one pass, or one training step, of an MLP.\v"
    "SPEC.lua is turned into a bundle by the megamlp-gen beside this program. FILE holds "
    "hidden_states, linear_fc1.weight, linear_fc2.weight and, where the spec has them, "
    "linear_fc1.bias, linear_fc2.bias and per_token_scale; --pass train also reads grad_output. "
    "BF16 is converted to the spec's params_dtype.\n\n"
    "  megamlp-run --check specs/llama3_8b.lua --random 1 --tokens 128\n"
    "  megamlp-run --check --arch sm_80 swiglu.lua swiglu.safetensors\n"
    "  megamlp-run --pass train --check swiglu.lua swiglu.safetensors\n\n"
    "Results, and the values that --check expects of them where FILE has them: fc1_output, "
    "activation_output, output, output_bias, and for each of the inputs NAME above grad.NAME. "
    "With gradient_accumulation_fusion the gradient of a weight is main_grad.NAME, which starts "
    "from main_grad_init.NAME where FILE has that.\n\n"
    "Several microbatches are named mb0.hidden_states, mb1.hidden_states, and so are their "
    "grad_output, per_token_scale and results; the gradients of weights and biases are sums over "
    "them.\n\n"
    "With tensor_model_parallel_size above 1 as many ranks run, each on a GPU of its own or an "
    "emulated one; a rank takes the tensors named rank0.NAME, rank1.NAME where FILE has them, and "
    "else its part of NAME:\n\n"
    "  mpirun -np 2 megamlp-run --pass train --check swiglu_tp2.lua swiglu_tp2.safetensors\n\n"
    "Exit codes: 0 ok, 1 a check failed, 2 usage, 3 a bad spec or file, 4 a device or compile "
    "error.";

static void check_options(const options *o, struct argp_state *state)
{
    if (!o->spec)
        argp_error(state, "needs a SPEC.lua or NAME.mlp");
    if (o->random && o->file)
        argp_error(state, "--random takes the place of '%s'", o->file);
    if (!o->random && !o->file)
        argp_error(state, "needs a FILE.safetensors, or --random SEED --tokens N");
    if (o->random != (o->tokens >= 0))
        argp_error(state, "--random SEED and --tokens N go together");
    if (o->microbatches > 0 && !o->random)
        argp_error(state, "--microbatches M goes with --random; those of a FILE are counted");
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    options *o = state->input;
    switch (key) {
    case KEY_PASS:
        o->train = strcmp(argument, "train") == 0;
        if (!o->train && strcmp(argument, "forward") != 0)
            argp_error(state, "--pass %s: is not one of forward, train", argument);
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
        o->check_tokens = (int64_t)tool_parse_number(argument, 1, 1 << 20, "--check-tokens", state);
        break;
    case 'o':
        o->out = argument;
        break;
    case KEY_RANDOM:
        o->random = 1;
        o->seed = tool_parse_number(argument, 0, UINT32_MAX, "--random", state);
        break;
    case KEY_TOKENS:
        o->tokens = (int64_t)tool_parse_number(argument, 0, INT32_MAX, "--tokens", state);
        break;
    case KEY_MICROBATCHES:
        o->microbatches =
            (int)tool_parse_number(argument, 1, RUN_MAX_MICROBATCHES, "--microbatches", state);
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
        check_options(o, state);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* ---- one run -------------------------------------------------------------------------------- */

typedef struct run {
    ranks ranks;
    int bound; /* from here on ranks wait for each other */
    mmlp_bundle *bundle;
    safetensors file;
    run_step step;
} run;

static int open_all(run *r, const options *o)
{
    int code = tool_open_bundle(&r->bundle, o->spec, NULL);
    if (code != 0)
        return code;
    char *error;
    if (o->file && !safetensors_open(&r->file, o->file, &error)) {
        code = tool_fail(EXIT_INPUT, "%s", error ? error : "out of memory");
        free(error);
        return code;
    }
    r->step.train = o->train;
    r->step.keep = o->check || o->out;
    r->step.properties = (mmlp_bundle_properties)MMLP_BUNDLE_PROPERTIES_INIT;
    mmlp_status status = mmlp_bundle_get(r->bundle, &r->step.properties);
    if (status != MMLP_OK)
        return tool_fail_status(status);
    int wanted = r->step.properties.tensor_model_parallel_size;
    if (r->ranks.count != wanted)
        return tool_fail(EXIT_USAGE,
                         "%s has tensor_model_parallel_size %d, and there %s %d rank%s: mpirun -np "
                         "%d megamlp-run ...",
                         r->step.properties.name, wanted, r->ranks.count == 1 ? "is" : "are",
                         r->ranks.count, r->ranks.count == 1 ? "" : "s", wanted);
    r->step.ranks = r->ranks.count;
    r->step.rank = r->ranks.rank;
    return tool_open_device(&r->step.context, o->device, r->ranks.local, o->arch);
}

/* One rank's id reaches the others by MPI. */
static int bind_ranks(run *r)
{
    mmlp_comm_id id = {0};
    if (r->ranks.count == 1)
        return 0;
    mmlp_status status = r->ranks.rank == 0 ? mmlp_comm_unique_id(&id, r->step.context) : MMLP_OK;
    if (status != MMLP_OK)
        return tool_fail_status(status);
    ranks_broadcast(&r->ranks, &id, sizeof id);
    return run_step_bind(&r->step, &id);
}

static int make_inputs(run *r, const options *o)
{
    run_step *s = &r->step;
    if (o->file)
        return run_file_read(s, &r->file, o->file);
    int code = run_step_start(s, o->microbatches > 0 ? o->microbatches : 1);
    s->prefixed = s->count > 1;
    for (int i = 0; code == 0 && i < s->count; ++i)
        s->microbatches[i].tokens = o->tokens;
    return code;
}

static int run_all(run *r, const options *o)
{
    int code = open_all(r, o);
    if (code == 0)
        code = make_inputs(r, o);
    if (code == 0)
        code = run_step_load(&r->step, r->bundle);
    code = ranks_agree(&r->ranks, code);
    if (code == 0) {
        r->bound = 1;
        code = bind_ranks(r);
    }
    if (code == 0 && o->random)
        code = run_step_random_inputs(&r->step, o->seed);
    if (code == 0)
        code = run_step_allocate(&r->step);
    if (code == 0)
        code = run_step_execute(&r->step);

    compare_table table = {.lines = r->ranks.rank > 0}; /* one heading */
    double errors[RUN_SLOT_COUNT];
    if (code == 0 && o->check)
        code = run_check_gather(&r->step, &r->ranks);
    if (code == 0 && o->check && o->file)
        code = run_check_file(&table, &r->step, r->bundle, &r->file, o->file);
    if (code == 0 && o->check)
        code = run_check_reference(&table, errors, &r->step, r->bundle, o->check_tokens, &r->ranks);
    if (code == 0 && o->check && r->ranks.rank == 0)
        putchar('\n');
    if (code == 0 && r->ranks.rank == 0)
        run_report_kernels(&r->step, o->check ? errors : NULL);
    if (code == 0 && o->out)
        code = run_report_write(&r->step, o->out);
    if (code == 0 && table.failed > 0)
        code = tool_fail(EXIT_CHECK_FAILED, "%d of %d checks failed", table.failed, table.rows);
    return code;
}

int main(int argc, char **argv)
{
    options o = {.device = "auto", .tokens = -1, .check_tokens = 16};
    const struct argp parser = {option_table,  parse_option, "SPEC.lua|NAME.mlp [FILE.safetensors]",
                                documentation, NULL,         tool_help_filter,
                                NULL};
    tool_check_output_at_exit();
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&parser, argc, argv, 0, NULL, &o);

    run r = {0};
    ranks_start(&r.ranks, &argc, &argv);
    int code = run_all(&r, &o);
    int aborts = r.bound && code != 0 && code != EXIT_CHECK_FAILED;
    if (aborts && r.step.context)
        mmlp_comm_abort(r.step.context, r.step.comm);
    run_step_free(&r.step);
    mmlp_bundle_close(r.bundle);
    safetensors_close(&r.file);
    ranks_end(code, aborts);
    return code;
}
