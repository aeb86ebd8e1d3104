/*
 * graphs.c: training steps captured into CUDA graphs and replayed on other inputs in the same
 * memory. What calls remember on the host changes when they are captured, not when they run.
 */
#include <criterion/criterion.h>
#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loaded_mlp.h"
#include "training_step.h"

#define REQUIRE(call)      cr_assert_eq(call, MMLP_OK, "%s", mmlp_last_error())
#define REQUIRE_CUDA(call) cr_assert_eq(call, CUDA_SUCCESS, "%s", #call)

enum { TOKENS = 100, HIDDEN = 64, FFN = 136 };

static const struct {
    const char *name, *fields, *params;
} specs[] = {
    {"gated without bias",
     "activation_func = F.silu, gated_linear_unit = true, add_bias_linear = false,"
     "params_dtype = 'bf16'",
     ""},
    {"bias and scale, fp32 gradients",
     "activation_func = F.silu, gated_linear_unit = true, add_bias_linear = true,"
     "num_moe_experts = 2, params_dtype = 'bf16', gradient_accumulation_fusion = true",
     "is_expert = true, per_token_scale = true"},
};
enum { SPECS = sizeof specs / sizeof *specs };

typedef struct scene {
    mmlp_context *context;
    loaded_mlp loaded;
    training_step step;
    void *stream;
} scene;

static void open_scene(scene *s, int spec, bool delay, int beta)
{
    char fields[512];
    snprintf(fields, sizeof fields, "%s, delay_wgrad_compute = %s", specs[spec].fields,
             delay ? "true" : "false");
    char *content = loaded_spec(HIDDEN, FFN, fields, specs[spec].params);
    s->context = loaded_device();
    loaded_open(&s->loaded, s->context, content, TOKENS, 0, NULL);
    free(content);
    step_options options = {.tokens = TOKENS, .seed = 1, .beta = beta};
    step_start(&s->step, s->context, s->loaded.bundle, s->loaded.mlp, &options);
    REQUIRE(mmlp_stream_create(&s->stream, s->context));
    CUcontext primary;
    REQUIRE_CUDA(cuDevicePrimaryCtxRetain(&primary, 0));
    REQUIRE_CUDA(cuCtxSetCurrent(primary));
}

static void close_scene(scene *s)
{
    REQUIRE(mmlp_stream_destroy(s->context, s->stream));
    step_finish(&s->step);
    loaded_close(&s->loaded);
    REQUIRE_CUDA(cuCtxSetCurrent(NULL));
    REQUIRE_CUDA(cuDevicePrimaryCtxRelease(0));
    mmlp_context_destroy(s->context);
}

/* ---- capturing ------------------------------------------------------------------------------- */

typedef mmlp_status passes(training_step *step, mmlp_mlp *mlp, void *stream);

static mmlp_status forward_and_dgrad(training_step *step, mmlp_mlp *mlp, void *stream)
{
    mmlp_status status = mmlp_mlp_forward(mlp, &step->forward, stream);
    return status == MMLP_OK ? mmlp_mlp_dgrad(mlp, &step->dgrad, stream) : status;
}

static mmlp_status backward_dw(training_step *step, mmlp_mlp *mlp, void *stream)
{
    (void)step;
    return mmlp_mlp_backward_dw(mlp, stream);
}

static CUgraphExec capture(scene *s, passes *calls)
{
    CUgraph graph;
    CUgraphExec executable;
    REQUIRE_CUDA(cuStreamBeginCapture(s->stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    REQUIRE(calls(&s->step, s->loaded.mlp, s->stream));
    REQUIRE_CUDA(cuStreamEndCapture(s->stream, &graph));
    REQUIRE_CUDA(cuGraphInstantiateWithFlags(&executable, graph, 0));
    REQUIRE_CUDA(cuGraphDestroy(graph));
    return executable;
}

/* The outputs of `launches` plain calls, or launches of a graph, on the inputs of `seed`. */
static unsigned char *run_plain(scene *s, uint64_t seed, int launches, size_t *bytes)
{
    step_refill(&s->step, seed);
    for (int i = 0; i < launches; i++)
        REQUIRE(step_enqueue(&s->step, s->loaded.mlp, s->stream));
    REQUIRE(mmlp_stream_sync(s->context, s->stream));
    return step_outputs(&s->step, bytes);
}

static void launch(scene *s, CUgraphExec graph)
{
    REQUIRE_CUDA(cuGraphLaunch(graph, s->stream));
    REQUIRE(mmlp_stream_sync(s->context, s->stream));
}

static void expect_outputs(scene *s, const unsigned char *wanted, size_t wanted_bytes,
                           const char *what)
{
    size_t bytes;
    unsigned char *found = step_outputs(&s->step, &bytes);
    cr_assert_eq(bytes, wanted_bytes);
    cr_expect_eq(memcmp(found, wanted, bytes), 0, "%s", what);
    free(found);
}

/* ---- replaying ------------------------------------------------------------------------------- */

static void check_replay(int spec, bool delay, int beta)
{
    enum { INPUTS = 2 };
    char what[128];
    unsigned char *plain[INPUTS], *before;
    size_t bytes, before_bytes;
    int launches = beta == 1 ? 2 : 1;
    scene s;
    open_scene(&s, spec, delay, beta);
    for (int i = 0; i < INPUTS; i++)
        plain[i] = run_plain(&s, 2 + (uint64_t)i, launches, &bytes);
    cr_expect_neq(memcmp(plain[0], plain[1], bytes), 0);

    step_refill(&s.step, 1);
    before = step_outputs(&s.step, &before_bytes);
    CUgraphExec graph = capture(&s, step_enqueue);
    REQUIRE(mmlp_stream_sync(s.context, s.stream));
    expect_outputs(&s, before, before_bytes, "a capture runs nothing");
    for (int i = 0; i < INPUTS; i++) {
        snprintf(what, sizeof what, "%s, delay %d, beta %d, input %d", specs[spec].name, delay,
                 beta, i);
        step_refill(&s.step, 2 + (uint64_t)i);
        for (int k = 0; k < launches; k++)
            launch(&s, graph);
        expect_outputs(&s, plain[i], bytes, what);
        free(plain[i]);
    }
    free(before);
    REQUIRE_CUDA(cuGraphExecDestroy(graph));
    close_scene(&s);
}

Test(graphs, a_replayed_step_computes_what_plain_calls_compute)
{
    for (int spec = 0; spec < SPECS; spec++)
        for (int delay = 0; delay < 2; delay++)
            check_replay(spec, delay == 1, 0);
}

Test(graphs, a_step_that_accumulates_adds_once_for_each_replay)
{
    for (int spec = 0; spec < SPECS; spec++)
        for (int delay = 0; delay < 2; delay++)
            check_replay(spec, delay == 1, 1);
}

/* ---- delayed weight gradients ---------------------------------------------------------------- */

Test(graphs, a_captured_step_leaves_no_weight_gradient_waiting)
{
    scene s;
    open_scene(&s, 1, true, 0);
    CUgraphExec graph = capture(&s, step_enqueue);
    cr_expect_eq(mmlp_mlp_backward_dw(s.loaded.mlp, s.stream), MMLP_ERROR_RING_EMPTY);
    for (int i = 0; i < 3; i++) {
        launch(&s, graph);
        cr_expect_eq(mmlp_mlp_backward_dw(s.loaded.mlp, s.stream), MMLP_ERROR_RING_EMPTY);
    }
    REQUIRE(step_enqueue(&s.step, s.loaded.mlp, s.stream));
    REQUIRE(mmlp_stream_sync(s.context, s.stream));
    REQUIRE_CUDA(cuGraphExecDestroy(graph));
    close_scene(&s);
}

Test(graphs, a_captured_dgrad_waits_once_for_its_weight_gradients)
{
    size_t bytes;
    scene s;
    open_scene(&s, 1, true, 0);
    unsigned char *plain = run_plain(&s, 2, 1, &bytes);
    CUgraphExec graph = capture(&s, forward_and_dgrad);
    cr_expect_eq(mmlp_mlp_dgrad(s.loaded.mlp, &s.step.dgrad, s.stream), MMLP_ERROR_RING_FULL);
    step_refill(&s.step, 2);
    launch(&s, graph);
    launch(&s, graph);
    REQUIRE(mmlp_mlp_backward_dw(s.loaded.mlp, s.stream));
    REQUIRE(mmlp_stream_sync(s.context, s.stream));
    expect_outputs(&s, plain, bytes, "backward_dw after a replayed dgrad");
    cr_expect_eq(mmlp_mlp_backward_dw(s.loaded.mlp, s.stream), MMLP_ERROR_RING_EMPTY);
    launch(&s, graph);
    cr_expect_eq(mmlp_mlp_backward_dw(s.loaded.mlp, s.stream), MMLP_ERROR_RING_EMPTY);
    REQUIRE_CUDA(cuGraphExecDestroy(graph));
    free(plain);
    close_scene(&s);
}

Test(graphs, dgrad_and_its_weight_gradients_may_be_two_graphs)
{
    size_t bytes;
    scene s;
    open_scene(&s, 1, true, 1);
    unsigned char *plain = run_plain(&s, 3, 2, &bytes);
    CUgraphExec graph = capture(&s, forward_and_dgrad), wgrad = capture(&s, backward_dw);
    step_refill(&s.step, 3);
    for (int i = 0; i < 2; i++) {
        launch(&s, graph);
        launch(&s, wgrad);
    }
    expect_outputs(&s, plain, bytes, "two graphs");
    cr_expect_eq(mmlp_mlp_backward_dw(s.loaded.mlp, s.stream), MMLP_ERROR_RING_EMPTY);
    REQUIRE_CUDA(cuGraphExecDestroy(graph));
    REQUIRE_CUDA(cuGraphExecDestroy(wgrad));
    free(plain);
    close_scene(&s);
}
