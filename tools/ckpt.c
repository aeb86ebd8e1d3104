/* ckpt.c: megamlp-ckpt, what ranks hold of a checkpoint's tensors: the command line. */
#include "ckpt.h"

#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "tool.h"

enum { OFFSETS_MAX = MMLP_SHARDED_AXES };

typedef struct options {
    const char *what, *spec;
    mmlp_sharded_offset offsets[OFFSETS_MAX];
    mmlp_sharded_options sharded;
    int has_rank;
} options;

enum { KEY_TP_RANK = 256, KEY_DP_RANK, KEY_PREFIX, KEY_OFFSET, KEY_SINGLETON };

static const struct argp_option option_table[] = {
    {"tp-rank", KEY_TP_RANK, "R", 0, "The tensor-parallel rank, from 0", 0},
    {"dp-rank", KEY_DP_RANK, "D", 0,
     "The data-parallel rank (0); of experts: in their own data-parallel group", 0},
    {"prefix", KEY_PREFIX, "P", 0, "Before every key, e.g. decoder.layers.mlp.", 0},
    {"offset", KEY_OFFSET, "AXIS,INDEX,COUNT", 0,
     "An axis before those of the tensors: number INDEX of COUNT layers, or experts; can be given "
     "several times",
     0},
    {"singleton", KEY_SINGLETON, 0, 0, "Gate and up have keys of their own, KEY_w and KEY_v", 0},
    {0},
};

static const char documentation[] =
    "Says what a rank holds of the tensors of a distributed checkpoint, as Megatron-Core's "
    "MLP.sharded_state_dict does.\v"
    "plan SPEC.lua|NAME.mlp  prints JSON: under \"tensors\" every piece that the rank\n"
    "                        holds, with its place in the stored tensor; under\n"
    "                        \"objects\" the entries without tensors\n\n"
    "  megamlp-ckpt plan specs/llama3_8b.lua --tp-rank 0\n"
    "  megamlp-ckpt plan mlp.lua --tp-rank 1 --prefix decoder.layers.mlp. \\\n"
    "      --offset 0,3,32\n\n"
    "Exit codes: 0 ok, 2 usage or a rank or offset that cannot be, 3 a bad spec.";

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

static error_t parse_option(int key, char *argument, struct argp_state *state)
{
    options *o = state->input;
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
            o->spec = argument;
        else
            argp_error(state, "'%s': too many arguments", argument);
        break;
    case ARGP_KEY_END:
        if (!o->what || strcmp(o->what, "plan") != 0)
            argp_error(state, "'%s': is not plan", o->what ? o->what : "");
        if (!o->spec || !o->has_rank)
            argp_error(state, "plan needs a SPEC.lua or NAME.mlp, and --tp-rank R");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

int main(int argc, char **argv)
{
    options o = {.sharded = MMLP_SHARDED_OPTIONS_INIT};
    const struct argp parser = {option_table,  parse_option, "plan SPEC.lua|NAME.mlp",
                                documentation, NULL,         tool_help_filter,
                                NULL};
    o.sharded.offsets = o.offsets;
    tool_check_output_at_exit();
    argp_err_exit_status = EXIT_USAGE;
    argp_parse(&parser, argc, argv, 0, NULL, &o);
    return ckpt_plan(o.spec, &o.sharded);
}
