/* plan_print_ranks.c: the plan's text about several ranks: collectives, and the reduction of
 * gradients. */
#include <string.h>

#include "plan.h"

static void print_split(text *out, const plan *p, const plan_step *step, bool split)
{
    text_puts(out, "[tokens");
    if (split)
        text_printf(out, " / %lld", (long long)p->ranks);
    text_printf(out, ", %lld]", (long long)step->columns);
}

static void print_step_name(text *out, const plan_step *step, plan_pass pass)
{
    if (step->pass != pass)
        text_printf(out, "%s ", plan_pass_name(step->pass));
    text_puts(out, step->name);
}

/* What runs until the first reader of its output. */
static void print_meanwhile(text *out, const plan *p, int index)
{
    const plan_step *step = &p->steps[index];
    bool at_end;
    int join = plan_collective_join(p, index, &at_end), count = 0;
    text_puts(out, "    meanwhile    ");
    for (int i = index + 1; i < join; i++) {
        if (p->steps[i].kind == PLAN_COLLECTIVE)
            continue;
        text_puts(out, count++ ? ", " : "");
        print_step_name(out, &p->steps[i], step->pass);
    }
    text_puts(out, count ? "" : "nothing");
    text_puts(out, at_end ? "; joined at the end" : "; joined before ");
    if (!at_end)
        print_step_name(out, &p->steps[join], step->pass);
    text_puts(out, "\n");
}

void plan_print_collective(text *out, const plan *p, const plan_step *step)
{
    bool gathers = strcmp(step->name, "all_gather") == 0;
    text_printf(out, "    tensor       %s ", step->input);
    print_split(out, p, step, gathers);
    if (strcmp(step->input, step->output) != 0) {
        text_printf(out, " to %s ", step->output);
        print_split(out, p, step, !gathers);
    }
    text_puts(out, "\n    bytes        ");
    plan_print_scaled(out, step->bytes_per_token * PLAN_NOMINAL_TOKENS, "B");
    text_puts(out, "\n");
    print_meanwhile(out, p, (int)(step - p->steps));
}

void plan_print_reductions(text *out, const plan *p)
{
    const spec_config *config = &p->spec->config;
    double element = (double)spec_dtype_bytes(plan_wgrad_dtype(p));
    const struct {
        const char *name, *meanwhile;
        double bytes;
        bool there, is_partial;
    } gradients[] = {
        {"linear_fc1.bias", "what follows linear_fc1_bias", 4 * (double)p->fc1_output_size,
         config->add_bias_linear, false},
        {"linear_fc2.bias", "what follows linear_fc2_bias", 4 * (double)p->hidden_size,
         config->add_bias_linear, p->sequence_parallel},
        {"linear_fc2.weight", "backward_dw linear_fc1",
         element * (double)p->hidden_size * (double)p->ffn_hidden_size, true, false},
        {"linear_fc1.weight", "what follows the MLP",
         element * (double)p->fc1_output_size * (double)p->hidden_size, true, false},
    };
    text_printf(out, "\ngradients over the %sdata-parallel ranks (mmlp_mlp_reduce_grads)\n",
                p->spec->mlp.is_expert ? "expert " : "");
    for (size_t i = 0; i < sizeof gradients / sizeof *gradients; i++) {
        if (!gradients[i].there)
            continue;
        text_printf(out, "  %-18s ", gradients[i].name);
        plan_print_scaled(out, gradients[i].bytes, "B");
        text_printf(out, ", meanwhile %s", gradients[i].meanwhile);
        if (gradients[i].is_partial)
            text_printf(out, "; over the %lld tensor-parallel ranks first", (long long)p->ranks);
        text_puts(out, "\n");
    }
}
