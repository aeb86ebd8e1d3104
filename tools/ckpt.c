/* ckpt.c: megamlp-ckpt, about checkpoints and what ranks hold of them: the command line. */
#include "ckpt.h"

#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "tool.h"

enum { OFFSETS_MAX = MMLP_SHARDED_AXES };

typedef struct options {
    const char *what, *path;
    mmlp_sharded_offset offsets[OFFSETS_MAX];
    mmlp_sharded_options sharded;
    int has_rank, is_for_plan; /* any option that only plan takes */
} options;

enum { KEY_TP_RANK = 256, KEY_DP_RANK, KEY_PREFIX, KEY_OFFSET, KEY_SINGLETON };

static const struct argp_option option_table[] = {
    {"tp-rank", KEY_TP_RANK, "R", 0, "plan: the tensor-parallel rank, from 0", 0},
    {"dp-rank", KEY_DP_RANK, "D", 0,
     "plan: the data-parallel rank (0); of experts: in their own data-parallel group", 0},
    {"prefix", KEY_PREFIX, "P", 0, "plan: before every key, e.g. decoder.layers.mlp.", 0},
    {"offset", KEY_OFFSET, "AXIS,INDEX,COUNT", 0,
     "plan: an axis before those of the tensors: number INDEX of COUNT layers, or experts; can be "
     "given "
     "several times",
     0},
    {"singleton", KEY_SINGLETON, 0, 0, "plan: gate and up have keys of their own, KEY_w and KEY_v",
     0},
    {0},
};

static const char documentation[] =
    "Says what a checkpoint holds, and what a rank holds of a distributed one, as Megatron-Core's "
    "MLP.sharded_state_dict does.\v"
    "plan SPEC.lua|NAME.mlp  prints JSON: under \"tensors\" every piece that the rank\n"
    "                        holds, with its place in the stored tensor; under\n"
    "                        \"objects\" the entries without tensors\n"
    "ls FILE                 lists the tensors of a safetensors file in the order in\n"
    "                        which they lie there\n\n"
    "  megamlp-ckpt plan specs/llama3_8b.lua --tp-rank 0\n"
    "  megamlp-ckpt plan mlp.lua --tp-rank 1 --prefix decoder.layers.mlp. \\\n"
    "      --offset 0,3,32\n"
    "  megamlp-ckpt ls step_1000.safetensors\n\n"
    "Exit codes: 0 ok, 2 usage or a rank or offset that cannot be, 3 a bad spec or\n"
    "file, 4 out of memory.";

static void add_offset(options *o, const char *text, struct argp_state *state)
{
    long long axis, index, count;
    char end;
    if (sscanf(text, "%lld,%lld,%lld%c", &axis, &index, &count, &end) != 3 || axis < 0 ||
        axis >= OFFSETS_MAX)
        argp_error(state, "--offset %s: is not AXIS,INDEX,COUNT with an axis from 0 to %d", text,
                   OFFSETS_MAX - 1);
    if (o->sharded.offset_count == OFFSETS_MAX)
        argp_error(state, "--offset %s: more than %d", text, OFFSETS_MAX);
    o->offsets[o->sharded.offset_count++] = (mmlp_sharded_offset){(int)axis, index, count};
}

static void check_options(const options *o, struct argp_state *state)
{
    if (!o->what)
        argp_error(state, "needs one of: plan, ls");
    int plan = strcmp(o->what, "plan") == 0;
    if (!plan && strcmp(o->what, "ls") != 0)
        argp_error(state, "'%s': is not one of plan, ls", o->what);
    if (plan && (!o->path || !o->has_rank))
        argp_error(state, "plan needs a SPEC.lua or NAME.mlp, and --tp-rank R");
    if (!plan && !o->path)
        argp_error(state, "ls needs a FILE.safetensors");
    if (!plan && o->is_for_plan)
        argp_error(state, "ls takes no options: those are for plan");
}

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    options *o = state->input;
    o->is_for_plan |= key >= KEY_TP_RANK && key <= KEY_SINGLETON;
    switch (key) {
    case KEY_TP_RANK:
        o->sharded.tp_rank = (int64_t)tool_parse_number(argument, 0, INT32_MAX, "--tp-rank", state);
        o->has_rank = 1;
        break;
    case KEY_DP_RANK:
        o->sharded.dp_rank = (int64_t)tool_parse_number(argument, 0, INT32_MAX, "--dp-rank", state);
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
    const struct argp parser = {option_table,  parse_option, "plan SPEC.lua|NAME.mlp\nls FILE",
                                documentation, NULL,         tool_help_filter,
                                NULL};
    o.sharded.offsets = o.offsets;
    tool_check_output_at_exit();
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&parser, argc, argv, 0, NULL, &o);
    return strcmp(o.what, "ls") == 0 ? ckpt_ls(o.path) : ckpt_plan(o.path, &o.sharded);
}
