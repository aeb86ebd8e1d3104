/*
 * overlap.c: what runs beside what, from the emulator's trace: where collectives are enqueued, and
 * who waits for them.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>

#include "parallel_step.h"
#include "trace_file.h"

#define REQUIRE(call) cr_assert_eq(call, MMLP_OK, "%s", mmlp_last_error())

enum { RANKS = 2, TOKENS = 40 };

typedef struct subject {
    mmlp_bundle *bundle;
    int regathers;
    mmlp_group group; /* DP: the weight gradients are reduced too */
} subject;

/* ---- a step of two ranks, traced ------------------------------------------------------------- */

static void reduce(mmlp_mlp *mlp, const training_step *step, void *stream)
{
    mmlp_reduce_grads_args args = MMLP_REDUCE_GRADS_ARGS_INIT;
    args.grad_linear_fc1_weight = step->dgrad.grad_linear_fc1_weight;
    args.grad_linear_fc2_weight = step->dgrad.grad_linear_fc2_weight;
    REQUIRE(mmlp_mlp_reduce_grads(mlp, &args, -1));
    REQUIRE(mmlp_mlp_wait_grads(mlp, stream));
}

static void run_step(thread_rank *rank)
{
    const subject *s = rank->what;
    mmlp_mlp_options load = MMLP_MLP_OPTIONS_INIT;
    load.regather_input = s->regathers;
    mmlp_mlp *mlp = parallel_load(rank, s->bundle, &load);
    step_options options = {.tokens = TOKENS, .seed = 1, .device = rank->rank};
    training_step step;
    void *stream;
    REQUIRE(mmlp_mlp_bind_comm(mlp, s->group, rank->comm));
    step_start(&step, rank->context, s->bundle, mlp, &options);
    REQUIRE(mmlp_stream_create(&stream, rank->context));
    REQUIRE(step_enqueue(&step, mlp, stream));
    if (s->group == MMLP_GROUP_DP)
        reduce(mlp, &step, stream);
    REQUIRE(mmlp_stream_sync(rank->context, stream));
    REQUIRE(mmlp_stream_destroy(rank->context, stream));
    step_finish(&step);
    mmlp_mlp_unload(mlp);
}

/* `check` sees the events of each rank. */
static void traced(const char *fields, subject s, void (*check)(const json_t *trace))
{
    char *all = NULL;
    cr_assert(asprintf(&all,
                       "activation_func = F.silu, gated_linear_unit = true, params_dtype = 'bf16', "
                       "add_bias_linear = false, gradient_accumulation_fusion = true, %s",
                       fields) > 0);
    trace_begin("trace.json");
    char *content = loaded_spec(PARALLEL_HIDDEN, PARALLEL_FFN, all, "");
    s.bundle = loaded_bundle(content, NULL);
    with_thread_ranks(RANKS, run_step, &s);
    json_t *trace = trace_read(trace_path);
    for (int rank = 0; rank < RANKS; rank++) {
        json_t *own = trace_where(trace, "device", rank);
        check(own);
        json_decref(own);
    }
    trace_end(trace);
    mmlp_bundle_close(s.bundle);
    free(content);
    free(all);
}

/* ---- what the trace says --------------------------------------------------------------------- */

/* When (in the order of enqueueing) the nth operation of that name was. */
static double enqueued(const json_t *trace, const char *name, size_t nth)
{
    return trace_number_in(trace_event(trace, "i", name, nth), "op");
}

/* What the stream of the first operation of that name was given. */
static json_t *stream_of(const json_t *trace, const char *name)
{
    return trace_where(trace, "tid", trace_number_in(trace_event(trace, "i", name, 0), "tid"));
}

/* When a wait on that stream for a record of the other one was enqueued, the first behind `after`;
 * *waits_for: that record. */
static double find_wait(double *waits_for, const json_t *trace, double stream, double other,
                        double after)
{
    json_t *own = trace_where(trace, "tid", stream);
    double found = -1;
    for (size_t i = 0, count = trace_count(own, "i", "wait for event"); i < count && found < 0;
         i++) {
        const json_t *wait = trace_event(own, "i", "wait for event", i);
        double record = trace_number_in(wait, "waits_for");
        json_t *recorded = trace_where(trace, "op", record);
        bool is_it = trace_number_in(trace_event(recorded, "i", "record event", 0), "tid") == other;
        if (is_it && record > after) {
            found = trace_number_in(wait, "op");
            *waits_for = record;
        }
        json_decref(recorded);
    }
    json_decref(own);
    cr_assert_geq(found, 0, "nobody waits for it");
    return found;
}

/* The collectives of a pass: `first` names one that nothing else is. */
typedef struct beside {
    json_t *events;
    double stream, passes;
} beside;

static beside beside_passes(const json_t *trace, const char *first)
{
    return (beside){
        .events = stream_of(trace, first),
        .stream = trace_number_in(trace_event(trace, "i", first, 0), "tid"),
        .passes = trace_number_in(trace_event(trace, "i", "mlp_linear_fc1_forward", 0), "tid")};
}

/* When the passes' stream was told to wait for the nth collective of that name. */
static double joined(const json_t *trace, const beside *b, const char *name, size_t nth)
{
    double record;
    return find_wait(&record, trace, b->passes, b->stream, enqueued(b->events, name, nth));
}

static double kernel(const json_t *trace, const char *name)
{
    return enqueued(trace, name, 0);
}

#define FC1_FORWARD "mlp_linear_fc1_forward"
#define FC2_FORWARD "mlp_linear_fc2_forward"
#define FC1_DGRAD   "mlp_linear_fc1_dgrad"
#define FC2_DGRAD   "mlp_linear_fc2_dgrad"
#define FC1_WGRAD   "mlp_linear_fc1_wgrad"
#define FC2_WGRAD   "mlp_linear_fc2_wgrad"

/* dX travels while the weight gradients are computed. */
static void expect_beside_wgrad(const json_t *trace, const beside *b, const char *name)
{
    double began = enqueued(b->events, name, 1);
    cr_expect_gt(began, kernel(trace, FC1_DGRAD));
    cr_expect_lt(began, kernel(trace, FC2_WGRAD), "before the first weight gradient");
    cr_expect_gt(joined(trace, b, name, 1), kernel(trace, FC1_WGRAD), "after the last");
}

static void check_tensor_parallel(const json_t *trace)
{
    beside b = beside_passes(trace, "all-reduce");
    cr_expect_eq(trace_count(b.events, "i", "all-reduce"), 2);
    cr_expect_gt(enqueued(b.events, "all-reduce", 0), kernel(trace, FC2_FORWARD));
    cr_expect_lt(joined(trace, &b, "all-reduce", 0), kernel(trace, FC2_DGRAD));
    expect_beside_wgrad(trace, &b, "all-reduce");
    json_decref(b.events);
}

Test(overlap, the_gradient_of_the_input_is_reduced_beside_the_weight_gradients, .timeout = 120)
{
    traced("tensor_model_parallel_size = 2", (subject){.group = MMLP_GROUP_TP},
           check_tensor_parallel);
}

static void check_gathers(const json_t *trace, const beside *b)
{
    cr_expect_eq(trace_count(b->events, "i", "all-gather"), 3);
    cr_expect_eq(trace_count(b->events, "i", "reduce-scatter"), 2);
    cr_expect_lt(joined(trace, b, "all-gather", 0), kernel(trace, FC1_FORWARD));
    cr_expect_gt(enqueued(b->events, "reduce-scatter", 0), kernel(trace, FC2_FORWARD));
    cr_expect_lt(joined(trace, b, "all-gather", 1), kernel(trace, FC2_DGRAD));
}

static void check_sequence_parallel(const json_t *trace)
{
    beside b = beside_passes(trace, "reduce-scatter");
    check_gathers(trace, &b);
    expect_beside_wgrad(trace, &b, "reduce-scatter");
    /* The input comes again while dgrad runs. */
    double began = enqueued(b.events, "all-gather", 2);
    double join = joined(trace, &b, "all-gather", 2);
    cr_expect_gt(began, kernel(trace, FC2_DGRAD));
    cr_expect_lt(began, kernel(trace, FC1_DGRAD));
    cr_expect_gt(join, kernel(trace, FC1_DGRAD));
    cr_expect_lt(join, kernel(trace, FC1_WGRAD));
    json_decref(b.events);
}

Test(overlap, the_second_gathering_of_the_input_is_beside_dgrad, .timeout = 120)
{
    traced("tensor_model_parallel_size = 2, sequence_parallel = true",
           (subject){.group = MMLP_GROUP_TP}, check_sequence_parallel);
}

static void check_regathered(const json_t *trace)
{
    beside b = beside_passes(trace, "reduce-scatter");
    check_gathers(trace, &b);
    double began = enqueued(b.events, "all-gather", 2);
    double join = joined(trace, &b, "all-gather", 2);
    cr_expect_gt(began, joined(trace, &b, "reduce-scatter", 1), "dgrad has ended");
    cr_expect_lt(began, kernel(trace, FC2_WGRAD));
    cr_expect_gt(join, kernel(trace, FC2_WGRAD));
    cr_expect_lt(join, kernel(trace, FC1_WGRAD));
    json_decref(b.events);
}

Test(overlap, backward_dw_gathers_the_input_beside_fc2s_weight_gradient, .timeout = 120)
{
    traced("tensor_model_parallel_size = 2, sequence_parallel = true, delay_wgrad_compute = true",
           (subject){.group = MMLP_GROUP_TP, .regathers = 1}, check_regathered);
}

static void check_buckets(const json_t *trace)
{
    double fc2, fc1;
    beside b = beside_passes(trace, "all-reduce");
    find_wait(&fc2, trace, b.stream, b.passes, 0);
    double second = find_wait(&fc1, trace, b.stream, b.passes, fc2);
    cr_expect_eq(trace_count(b.events, "i", "all-reduce"), 2);
    cr_expect_gt(fc2, kernel(trace, FC2_WGRAD));
    cr_expect_lt(fc2, kernel(trace, FC1_WGRAD), "it need not wait for the last kernel");
    cr_expect_gt(fc1, kernel(trace, FC1_WGRAD));
    cr_expect_lt(enqueued(b.events, "all-reduce", 0), second, "nor for the gradient of fc1");
    cr_expect_gt(joined(trace, &b, "all-reduce", 1), second);
    json_decref(b.events);
}

Test(overlap, a_gradient_is_reduced_as_soon_as_its_kernel_has_run, .timeout = 120)
{
    traced("delay_wgrad_compute = true", (subject){.group = MMLP_GROUP_DP}, check_buckets);
}
