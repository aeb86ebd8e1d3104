/* ckpt.c: megamlp-ckpt, about checkpoints and what ranks hold of them: the command line. */
#include "ckpt.h"

#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tool.h"

enum { OFFSETS_MAX = MMLP_SHARDED_AXES };

typedef struct options {
    const char *what, *path, *spec; /* spec: of verify, its second argument */
    mmlp_sharded_offset offsets[OFFSETS_MAX];
    mmlp_sharded_options sharded;
    int has_tp_rank, has_dp_rank, has_option; /* the last: any of them */
} options;

enum { KEY_TP_RANK = 256, KEY_DP_RANK, KEY_PREFIX, KEY_OFFSET, KEY_SINGLETON };

static const struct argp_option option_table[] = {
    {"tp-rank", KEY_TP_RANK, "R", 0, "plan: the tensor-parallel rank, from 0", 0},
    {"dp-rank", KEY_DP_RANK, "D", 0,
     "plan: the data-parallel rank (0); of experts: in their own data-parallel group", 0},
    {"prefix", KEY_PREFIX, "P", 0, "plan, verify: before every key, e.g. decoder.layers.mlp.", 0},
    {"offset", KEY_OFFSET, "AXIS,INDEX,COUNT", 0,
     "plan, verify: an axis before those of the tensors: number INDEX of COUNT layers, or experts; "
     "can be given several times",
     0},
    {"singleton", KEY_SINGLETON, 0, 0,
     "plan, verify: gate and up have keys of their own, KEY_w and KEY_v", 0},
    {0},
};

static const char documentation[] =
    "Says what a checkpoint holds, and what a rank holds of a distributed one, as Megatron-Core's "
    "MLP.sharded_state_dict does.\v"
    "plan SPEC.lua|NAME.mlp  prints JSON: under \"tensors\" every piece that the rank\n"
    "                        holds, with its place in the stored tensor; under\n"
    "                        \"objects\" the entries without tensors\n"
    "verify FILE SPEC        says whether a safetensors file holds just the tensors\n"
    "                        that the MLP of SPEC.lua or NAME.mlp has, at any number\n"
    "                        of ranks: a line for each difference\n"
    "ls FILE                 lists the tensors of a safetensors file in the order in\n"
    "                        which they lie there\n\n"
    "  megamlp-ckpt plan specs/llama3_8b.lua --tp-rank 0\n"
    "  megamlp-ckpt plan mlp.lua --tp-rank 1 --prefix decoder.layers.mlp. \\\n"
    "      --offset 0,3,32\n"
    "  megamlp-ckpt verify step_1000.safetensors specs/llama3_8b.lua\n"
    "  megamlp-ckpt ls step_1000.safetensors\n\n"
    "Exit codes: 0 ok, 1 verify found differences, 2 usage or a rank or offset that\n"
    "cannot be, 3 a bad spec or file, 4 out of memory.";

/* "AXIS,INDEX,COUNT" */
static void add_offset(options *o, const char *text, struct argp_state *state)
{
    static const char option[] = "--offset AXIS,INDEX,COUNT:";
    char *copy = strdup(text), *rest = copy;
    uint64_t numbers[3] = {0};
    int count = 0;
    for (const char *part; copy && (part = strsep(&rest, ",")) != NULL; count++)
        if (count < 3)
            numbers[count] =
                tool_parse_number(part, 0, count == 0 ? OFFSETS_MAX - 1 : INT64_MAX, option, state);
    free(copy);
    if (count != 3)
        argp_error(state, "--offset %s: is not AXIS,INDEX,COUNT", text);
    if (o->sharded.offset_count == OFFSETS_MAX)
        argp_error(state, "--offset %s: more than %d", text, OFFSETS_MAX);
    o->offsets[o->sharded.offset_count++] =
        (mmlp_sharded_offset){(int)numbers[0], (int64_t)numbers[1], (int64_t)numbers[2]};
}

static void check_options(const options *o, struct argp_state *state)
{
    if (!o->what)
        argp_error(state, "needs one of: plan, verify, ls");
    int plan = strcmp(o->what, "plan") == 0, verify = strcmp(o->what, "verify") == 0;
    if (!plan && !verify && strcmp(o->what, "ls") != 0)
        argp_error(state, "'%s': is not one of plan, verify, ls", o->what);
    if (plan && (!o->path || !o->has_tp_rank))
        argp_error(state, "plan needs a SPEC.lua or NAME.mlp, and --tp-rank R");
    if (verify && !o->spec)
        argp_error(state, "verify needs a FILE.safetensors, and a SPEC.lua or NAME.mlp");
    if (!o->path)
        argp_error(state, "ls needs a FILE.safetensors");
    if (!verify && o->spec)
        argp_error(state, "%s takes one file, not '%s' as well", o->what, o->spec);
    if (verify && (o->has_tp_rank || o->has_dp_rank))
        argp_error(state, "verify takes no rank: a file is that of all ranks");
    if (!plan && !verify && o->has_option)
        argp_error(state, "ls takes no options: those are for plan and verify");
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    options *o = state->input;
    o->has_option |= key >= KEY_TP_RANK && key <= KEY_SINGLETON;
    switch (key) {
    case KEY_TP_RANK:
        o->sharded.tp_rank = (int64_t)tool_parse_number(argument, 0, INT32_MAX, "--tp-rank", state);
        o->has_tp_rank = 1;
        break;
    case KEY_DP_RANK:
        o->sharded.dp_rank = (int64_t)tool_parse_number(argument, 0, INT32_MAX, "--dp-rank", state);
        o->has_dp_rank = 1;
        break;
    case KEY_PREFIX:
        o->sharded.prefix = argument;
        break;
    case KEY_OFFSET:
        add_offset(o, argument, state);
        break;
    case KEY_SINGLETON:
        o->sharded.singleton_local_shards = 1;
        break;
    case ARGP_KEY_ARG:
        if (state->arg_num == 0)
            o->what = argument;
        else if (state->arg_num == 1)
            o->path = argument;
        else if (state->arg_num == 2)
            o->spec = argument;
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

int main(int argc, char **argv)
{
    options o = {.sharded = MMLP_SHARDED_OPTIONS_INIT};
    const struct argp parser = {option_table,
                                parse_option,
                                "plan SPEC.lua|NAME.mlp\nverify FILE SPEC.lua|NAME.mlp\nls FILE",
                                documentation,
                                NULL,
                                tool_help_filter,
                                NULL};
    o.sharded.offsets = o.offsets;
    tool_check_output_at_exit();
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&parser, argc, argv, 0, NULL, &o);
    if (strcmp(o.what, "ls") == 0)
        return ckpt_ls(o.path);
    return strcmp(o.what, "plan") == 0 ? ckpt_plan(o.path, &o.sharded)
                                       : ckpt_verify(o.path, o.spec, &o.sharded);
}
