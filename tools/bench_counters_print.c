/* bench_counters_print.c: the counters of a step's kernels as two tables, or as JSON. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "bench_counters.h"
#include "tool.h"

static const char *const class_names[] = {
#define CLASS_NAME(id, name, meaning) #name,
    EMU_CLASSES(CLASS_NAME)
#undef CLASS_NAME
};

static uint64_t sum_of_classes(const uint64_t counts[EMU_CLASS_COUNT])
{
    uint64_t sum = 0;
    for (int c = 0; c < EMU_CLASS_COUNT; ++c)
        sum += counts[c];
    return sum;
}

/* ---- tables --------------------------------------------------------------------------------- */

/* Four digits with a prefix of thousands in a column of 9: "   12.35M". */
static void print_amount(double amount)
{
    static const char prefixes[] = " kMGTP";
    size_t thousands = 0;
    while (amount >= 9999.5 && thousands + 2 < sizeof prefixes) {
        amount /= 1000;
        ++thousands;
    }
    if (thousands == 0 || amount >= 999.95)
        printf(" %7.0f%c", amount, prefixes[thousands]);
    else
        printf(" %7.*f%c", amount < 99.995 ? 2 : 1, amount, prefixes[thousands]);
}

static int name_width(const counted_step *step)
{
    int width = 6;
    for (int i = 0; i < step->count; ++i) {
        int length = (int)strlen(step->kernels[i].plan.name);
        width = length > width ? length : width;
    }
    return width;
}

/* Of one output: "   7.31". */
static void print_epilogue(const counted_step *step, const counted_kernel *k)
{
    int64_t rows = k->plan.rows ? k->plan.rows : step->tokens;
    if (k->counters.epilogue_lanes > 0)
        printf(" %7.2f", (double)k->counters.epilogue_lanes / (double)(rows * k->plan.columns));
    else
        printf(" %7s", "-");
}

static void print_kernel(const counted_step *step, const counted_kernel *k, int width)
{
    const emu_counters *c = &k->counters;
    uint64_t warps = sum_of_classes(c->warp_instructions);
    printf("%-*s", width, k->plan.name);
    print_amount((double)warps);
    printf(" %5.1f", warps ? (double)sum_of_classes(c->lane_instructions) / (double)warps : 0);
    print_amount((double)c->tensor_flops);
    print_amount((double)c->fma_flops);
    print_amount(counted_plan_flops(step, k));
    print_amount((double)c->bytes_touched);
    print_amount(counted_plan_bytes(step, k));
    print_amount((double)c->wave_bytes);
    print_amount((double)c->global_requests);
    print_amount((double)c->global_sectors);
    print_amount((double)c->shared_wavefronts);
    print_amount((double)c->shared_excess);
    print_amount((double)c->barriers);
    print_epilogue(step, k);
    printf(" %4d %5ld %6d %7.2f\n", (int)c->registers, k->spill_store_bytes + k->spill_load_bytes,
           (int)c->blocks_per_sm,
           (double)c->blocks / ((double)c->blocks_per_sm * step->device.sm_count));
}

static int occurs(const counted_step *step, int class)
{
    for (int i = 0; i < step->count; ++i) {
        if (step->kernels[i].counters.warp_instructions[class] > 0)
            return 1;
    }
    return 0;
}

static void print_classes(const counted_step *step, int width)
{
    printf("\nwarp instructions\n%-*s", width, "kernel");
    for (int c = 0; c < EMU_CLASS_COUNT; ++c) {
        if (occurs(step, c))
            printf(" %8s", class_names[c]);
    }
    putchar('\n');
    for (int i = 0; i < step->count; ++i) {
        const counted_kernel *k = &step->kernels[i];
        if (k->launches == 0)
            continue;
        printf("%-*s", width, k->plan.name);
        for (int c = 0; c < EMU_CLASS_COUNT; ++c) {
            if (occurs(step, c))
                print_amount((double)k->counters.warp_instructions[c]);
        }
        putchar('\n');
    }
}

void counted_print_tables(const counted_step *step)
{
    int width = name_width(step);
    printf("%s of %lld tokens on the %s: %s, %d multiprocessors\n\n",
           step->forward ? "a forward pass of inference" : "one training step",
           (long long)step->tokens, step->device.name, step->device.arch, step->device.sm_count);
    printf("%-*s %8s %5s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s %7s %4s %5s %6s %7s\n", width,
           "", "warp", "lanes", "tensor", "fma", "plan's", "bytes", "plan's", "bytes by", "global",
           "global", "shared", "of these", "barriers", "epilog.", "regs", "spill", "blocks",
           "waves");
    printf("%-*s %8s %5s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s %8s %7s %4s %5s %6s %7s\n", width,
           "kernel", "instr", "", "FLOP", "FLOP", "FLOP", "touched", "bytes", "wave", "requests",
           "sectors", "wavefr.", "excess", "", "lanes", "", "bytes", "per SM", "");
    for (int i = 0; i < step->count; ++i) {
        if (step->kernels[i].launches > 0)
            print_kernel(step, &step->kernels[i], width);
    }
    print_classes(step, width);
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static json_t *integer(uint64_t value)
{
    return json_integer((json_int_t)value);
}

static json_t *classes_json(const uint64_t counts[EMU_CLASS_COUNT])
{
    json_t *object = json_object();
    for (int c = 0; c < EMU_CLASS_COUNT; ++c)
        json_object_set_new(object, class_names[c], integer(counts[c]));
    return object;
}

static json_t *kernel_json(const counted_step *step, const counted_kernel *k)
{
    const emu_counters *c = &k->counters;
    json_t *object = json_object();
    json_object_set_new(object, "name", json_string(k->plan.name));
    json_object_set_new(object, "pass", json_string(k->plan.pass));
    json_object_set_new(object, "step", json_string(k->plan.step));
    json_object_set_new(object, "launches", json_integer(k->launches));
    json_object_set_new(object, "plan_flops", json_real(counted_plan_flops(step, k)));
    json_object_set_new(object, "plan_bytes", json_real(counted_plan_bytes(step, k)));
    json_object_set_new(object, "spill_store_bytes", json_integer(k->spill_store_bytes));
    json_object_set_new(object, "spill_load_bytes", json_integer(k->spill_load_bytes));
    json_object_set_new(object, "warp_instructions", classes_json(c->warp_instructions));
    json_object_set_new(object, "lane_instructions", classes_json(c->lane_instructions));
#define COUNTER_JSON(name, unit, meaning) json_object_set_new(object, #name, integer(c->name));
    EMU_COUNTERS(COUNTER_JSON)
#undef COUNTER_JSON
    return object;
}

int counted_print_json(const counted_step *step)
{
    json_t *root = json_object(), *kernels = json_array();
    json_object_set_new(root, "tokens", json_integer(step->tokens));
    json_object_set_new(root, "device", json_string(step->device.name));
    json_object_set_new(root, "arch", json_string(step->device.arch));
    json_object_set_new(root, "multiprocessors", json_integer(step->device.sm_count));
    for (int i = 0; i < step->count; ++i) {
        if (step->kernels[i].launches > 0)
            json_array_append_new(kernels, kernel_json(step, &step->kernels[i]));
    }
    json_object_set_new(root, "kernels", kernels);
    int code = json_dumpf(root, stdout, JSON_INDENT(2)) == 0
                   ? 0
                   : tool_fail(EXIT_DEVICE, "the JSON cannot be written");
    putchar('\n');
    json_decref(root);
    return code;
}
