/* reduce_grads.c: gradients over data-parallel ranks: sums, parts, buckets, groups, and when they
 * start. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "loaded_mlp.h"
#include "thread_ranks.h"
#include "training_step.h"

#define REQUIRE(call)       cr_assert_eq(call, MMLP_OK, "%s", mmlp_last_error())
#define FAILS(status, call) cr_expect_eq(call, status, "%s", mmlp_last_error())

enum { HIDDEN = 32, FFN = 64, TOKENS = 40, GRADIENTS = 4 };

#define GATED                                                                                      \
    "activation_func = F.silu, gated_linear_unit = true, params_dtype = 'bf16',"                   \
    "gradient_accumulation_fusion = true"

/* ---- gradients that are small integers: every sum is exact ----------------------------------- */

typedef struct gradients {
    mmlp_tensor tensors[GRADIENTS]; /* fp32; in the order of the buckets */
    int64_t shapes[GRADIENTS][2], elements[GRADIENTS];
    mmlp_reduce_grads_args args;
} gradients;

static const char *const names[GRADIENTS] = {"grad.linear_fc1.bias", "grad.linear_fc2.bias",
                                             "grad.linear_fc2.weight", "grad.linear_fc1.weight"};

static float value_of(int rank, int gradient, int64_t i)
{
    return (float)((i * 7 + gradient * 5 + rank * 3) % 64 - rank);
}

static void make(gradients *g, mmlp_context *context, const mmlp_bundle *bundle, int rank)
{
    mmlp_bundle_properties p = MMLP_BUNDLE_PROPERTIES_INIT;
    REQUIRE(mmlp_bundle_get(bundle, &p));
    const int64_t shapes[GRADIENTS][2] = {{p.fc1_output_size, 1},
                                          {p.hidden_size, 1},
                                          {p.hidden_size, p.ffn_hidden_size},
                                          {p.fc1_output_size, p.hidden_size}};
    *g = (gradients){.args = MMLP_REDUCE_GRADS_ARGS_INIT};
    const mmlp_tensor **members[GRADIENTS] = {
        &g->args.grad_linear_fc1_bias, &g->args.grad_linear_fc2_bias,
        &g->args.grad_linear_fc2_weight, &g->args.grad_linear_fc1_weight};
    for (int i = 0; i < GRADIENTS; i++) {
        mmlp_tensor *t = &g->tensors[i];
        memcpy(g->shapes[i], shapes[i], sizeof shapes[i]);
        *t = (mmlp_tensor){.device = {MMLP_DEVICE_CUDA, rank},
                           .ndim = i < 2 ? 1 : 2,
                           .dtype = {MMLP_TYPE_FLOAT, 32, 1},
                           .shape = g->shapes[i]};
        g->elements[i] = shapes[i][0] * shapes[i][1];
        size_t bytes = (size_t)g->elements[i] * sizeof(float);
        float *host = malloc(bytes);
        for (int64_t e = 0; e < g->elements[i]; e++)
            host[e] = value_of(rank, i, e);
        REQUIRE(mmlp_buffer_alloc(&t->data, context, bytes));
        REQUIRE(mmlp_buffer_upload(context, t->data, host, bytes, NULL));
        free(host);
        if (i >= 2 || p.add_bias_linear)
            *members[i] = t;
    }
}

static void drop(gradients *g, mmlp_context *context)
{
    for (int i = 0; i < GRADIENTS; i++)
        mmlp_buffer_free(context, g->tensors[i].data);
}

/* Elements [first, first + count) are the sum over the ranks with those bits, by the divisor. */
static void expect_sum(const gradients *g, mmlp_context *context, int i, int64_t first,
                       int64_t count, unsigned ranks, float divisor)
{
    float *host = malloc((size_t)g->elements[i] * sizeof(float));
    REQUIRE(mmlp_buffer_download(context, host, g->tensors[i].data,
                                 (size_t)g->elements[i] * sizeof(float), NULL));
    for (int64_t e = first; e < first + count; e++) {
        float sum = 0;
        for (int rank = 0; rank < THREAD_RANKS_MAX; rank++)
            sum += ranks >> rank & 1 ? value_of(rank, i, e) : 0;
        cr_assert_eq(host[e], sum / divisor, "%s[%lld]: %g, wanted %g", names[i], (long long)e,
                     (double)host[e], (double)(sum / divisor));
    }
    free(host);
}

static mmlp_mlp *load(mmlp_context *context, const mmlp_bundle *bundle)
{
    mmlp_mlp *mlp;
    mmlp_mlp_options options = MMLP_MLP_OPTIONS_INIT;
    options.max_tokens = TOKENS;
    REQUIRE(mmlp_mlp_load(&mlp, context, bundle, &options));
    return mlp;
}

static mmlp_bundle *bundle_of(const char *fields, const char *params)
{
    char *content = loaded_spec(HIDDEN, FFN, fields, params);
    mmlp_bundle *bundle = loaded_bundle(content, NULL);
    free(content);
    return bundle;
}

/* ---- sums ------------------------------------------------------------------------------------ */

typedef struct how {
    const mmlp_bundle *bundle;
    mmlp_group group;
    int average, scatter, one_by_one;
    size_t bucket_bytes;
} how;

static void reduce(thread_rank *rank)
{
    const how *h = rank->what;
    gradients g;
    mmlp_mlp *mlp = load(rank->context, h->bundle);
    REQUIRE(mmlp_mlp_bind_comm(mlp, h->group, rank->comm));
    make(&g, rank->context, h->bundle, rank->rank);
    g.args.average = h->average;
    g.args.scatter = h->scatter;
    g.args.bucket_bytes = h->bucket_bytes;
    mmlp_grad_piece p = MMLP_GRAD_PIECE_INIT;
    int last = 0, pieces = 0;
    while (mmlp_mlp_grad_piece(mlp, &g.args, pieces, &p) == MMLP_OK && p.gradient) {
        last = p.bucket;
        pieces++;
    }
    for (int i = h->one_by_one ? 0 : -1; i <= (h->one_by_one ? last : -1); i++)
        REQUIRE(mmlp_mlp_reduce_grads(mlp, &g.args, i));
    REQUIRE(mmlp_mlp_wait_grads(mlp, NULL));
    for (int i = 0; i < pieces; i++) {
        REQUIRE(mmlp_mlp_grad_piece(mlp, &g.args, i, &p));
        int which = 0;
        while (strcmp(names[which], p.gradient) != 0)
            which++;
        expect_sum(&g, rank->context, which, p.own_first, p.own_elements, (1u << rank->ranks) - 1,
                   h->average ? (float)rank->ranks : 1);
    }
    drop(&g, rank->context);
    mmlp_mlp_unload(mlp);
}

static void reduces(int ranks, how h)
{
    mmlp_bundle *bundle = bundle_of(GATED, "");
    h.bundle = bundle;
    with_thread_ranks(ranks, reduce, &h);
    mmlp_bundle_close(bundle);
}

Test(reduce_grads, sums_over_all_ranks, .timeout = 120)
{
    reduces(2, (how){.group = MMLP_GROUP_DP});
    reduces(4, (how){.group = MMLP_GROUP_DP, .bucket_bytes = 1000});
    reduces(1, (how){.group = MMLP_GROUP_DP, .average = 1});
}

Test(reduce_grads, means_over_all_ranks, .timeout = 120)
{
    reduces(2, (how){.group = MMLP_GROUP_DP, .average = 1});
    reduces(4, (how){.group = MMLP_GROUP_DP, .average = 1, .one_by_one = 1, .bucket_bytes = 4096});
}

Test(reduce_grads, each_rank_keeps_its_part_of_every_piece, .timeout = 120)
{
    reduces(2, (how){.group = MMLP_GROUP_DP, .scatter = 1});
    reduces(4, (how){.group = MMLP_GROUP_DP, .scatter = 1, .average = 1, .bucket_bytes = 1000});
    reduces(4, (how){.group = MMLP_GROUP_DP, .scatter = 1, .one_by_one = 1, .bucket_bytes = 1});
}

/* ---- pieces ---------------------------------------------------------------------------------- */

static void expect_pieces(mmlp_mlp *mlp, const gradients *g, int ranks, size_t bucket_bytes)
{
    mmlp_grad_piece p = MMLP_GRAD_PIECE_INIT;
    int64_t next[GRADIENTS] = {0};
    size_t filled = 0;
    int bucket = 0, order = 0;
    for (int i = 0;; i++) {
        REQUIRE(mmlp_mlp_grad_piece(mlp, &g->args, i, &p));
        if (!p.gradient)
            break;
        int which = 0;
        while (strcmp(names[which], p.gradient) != 0)
            which++;
        cr_assert_geq(which, order, "as the passes finish them");
        order = which;
        cr_assert(p.bucket == bucket || p.bucket == bucket + 1);
        filled = p.bucket == bucket ? filled : 0;
        bucket = p.bucket;
        filled += (size_t)p.elements * 4;
        cr_assert(filled <= bucket_bytes || p.elements == ranks, "%zu in bucket %d", filled,
                  bucket);
        cr_assert_eq(p.first, next[which]);
        next[which] += p.elements;
        int64_t part = g->args.scatter ? p.elements / ranks : p.elements;
        cr_assert_eq(p.own_elements, part);
    }
    for (int i = 0; i < GRADIENTS; i++)
        cr_assert_eq(next[i], g->elements[i], "%s", names[i]);
}

static void look_at_pieces(thread_rank *rank)
{
    static const size_t sizes[] = {1, 4, 100, 256, 1024, 5000, 1 << 20};
    gradients g;
    mmlp_mlp *mlp = load(rank->context, rank->what);
    REQUIRE(mmlp_mlp_bind_comm(mlp, MMLP_GROUP_DP, rank->comm));
    make(&g, rank->context, rank->what, rank->rank);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        for (g.args.scatter = 0; g.args.scatter < 2; g.args.scatter++) {
            g.args.bucket_bytes = sizes[i];
            expect_pieces(mlp, &g, rank->ranks, sizes[i]);
        }
    }
    drop(&g, rank->context);
    mmlp_mlp_unload(mlp);
}

Test(reduce_grads, pieces_cover_every_gradient_once_in_the_order_of_the_passes, .timeout = 120)
{
    mmlp_bundle *bundle = bundle_of(GATED, "");
    with_thread_ranks(2, look_at_pieces, bundle);
    mmlp_bundle_close(bundle);
}

/* ---- groups ---------------------------------------------------------------------------------- */

/* Ranks 0 and 1 share an MLP, 2 and 3 the other; 0 and 2, 1 and 3 have the same weights. */
typedef struct grid {
    const mmlp_bundle *bundle;
    mmlp_comm_id tp[2], dp[2];
} grid;

static void reduce_in_a_grid(thread_rank *rank)
{
    const grid *of = rank->what;
    const int tp = rank->rank % 2, dp = rank->rank / 2;
    struct ncclComm *tp_comm, *dp_comm;
    gradients g;
    mmlp_mlp *mlp = load(rank->context, of->bundle);
    REQUIRE(mmlp_comm_create(&tp_comm, rank->context, &of->tp[dp], 2, tp));
    REQUIRE(mmlp_comm_create(&dp_comm, rank->context, &of->dp[tp], 2, dp));
    REQUIRE(mmlp_mlp_bind_comm(mlp, MMLP_GROUP_TP, tp_comm));
    REQUIRE(mmlp_mlp_bind_comm(mlp, MMLP_GROUP_DP, dp_comm));
    make(&g, rank->context, of->bundle, rank->rank);
    REQUIRE(mmlp_mlp_reduce_grads(mlp, &g.args, -1));
    REQUIRE(mmlp_mlp_wait_grads(mlp, NULL));
    const unsigned own = 1u << tp | 1u << (tp + 2);
    for (int i = 0; i < GRADIENTS; i++)
        expect_sum(&g, rank->context, i, 0, g.elements[i], i == 1 ? 15u : own, 1);
    drop(&g, rank->context);
    mmlp_mlp_unload(mlp);
    REQUIRE(mmlp_comm_destroy(rank->context, tp_comm));
    REQUIRE(mmlp_comm_destroy(rank->context, dp_comm));
}

Test(reduce_grads, what_tensor_parallel_ranks_have_parts_of_is_summed_over_them_first,
     .timeout = 120)
{
    mmlp_context *context = loaded_device();
    mmlp_bundle *bundle =
        bundle_of(GATED ", tensor_model_parallel_size = 2, sequence_parallel = true", "");
    grid of = {.bundle = bundle};
    for (int i = 0; i < 2; i++) {
        REQUIRE(mmlp_comm_unique_id(&of.tp[i], context));
        REQUIRE(mmlp_comm_unique_id(&of.dp[i], context));
    }
    with_thread_ranks(4, reduce_in_a_grid, &of);
    mmlp_bundle_close(bundle);
    mmlp_context_destroy(context);
}

static void reduce_an_expert(thread_rank *rank)
{
    gradients g;
    mmlp_mlp *mlp = load(rank->context, rank->what);
    make(&g, rank->context, rank->what, rank->rank);
    REQUIRE(mmlp_mlp_bind_comm(mlp, MMLP_GROUP_DP, rank->comm));
    FAILS(MMLP_ERROR_ORDER, mmlp_mlp_reduce_grads(mlp, &g.args, -1));
    cr_expect(strstr(mmlp_last_error(), "its expert data-parallel communicator is not bound"));
    REQUIRE(mmlp_mlp_bind_comm(mlp, MMLP_GROUP_EXPERT_DP, rank->comm));
    REQUIRE(mmlp_mlp_reduce_grads(mlp, &g.args, -1));
    REQUIRE(mmlp_mlp_wait_grads(mlp, NULL));
    for (int i = 2; i < GRADIENTS; i++)
        expect_sum(&g, rank->context, i, 0, g.elements[i], 3, 1);
    drop(&g, rank->context);
    mmlp_mlp_unload(mlp);
}

Test(reduce_grads, experts_are_reduced_over_their_own_group, .timeout = 120)
{
    mmlp_bundle *bundle =
        bundle_of(GATED ", num_moe_experts = 2, add_bias_linear = false", "is_expert = true");
    with_thread_ranks(2, reduce_an_expert, bundle);
    mmlp_bundle_close(bundle);
}

/* ---- bad input ------------------------------------------------------------------------------- */

static void fail_in_order(thread_rank *rank)
{
    gradients g;
    mmlp_mlp *mlp = load(rank->context, rank->what);
    make(&g, rank->context, rank->what, rank->rank);
    FAILS(MMLP_ERROR_ORDER, mmlp_mlp_reduce_grads(mlp, &g.args, -1));
    cr_expect(strstr(mmlp_last_error(), "its data-parallel communicator is not bound"), "%s",
              mmlp_last_error());
    REQUIRE(mmlp_mlp_bind_comm(mlp, MMLP_GROUP_DP, rank->comm));
    FAILS(MMLP_ERROR_ARGUMENT, mmlp_mlp_reduce_grads(mlp, &g.args, 1));
    cr_expect_str_eq(mmlp_last_error(), "mmlp_mlp_reduce_grads: bucket: found 1, wanted 0 to 0, or "
                                        "-1 for all");
    FAILS(MMLP_ERROR_ARGUMENT, mmlp_mlp_reduce_grads(mlp, NULL, -1));
    g.shapes[3][0]--;
    FAILS(MMLP_ERROR_SHAPE, mmlp_mlp_reduce_grads(mlp, &g.args, -1));
    cr_expect(strstr(mmlp_last_error(), "grad.linear_fc1.weight"), "%s", mmlp_last_error());
    g.shapes[3][0]++;
    g.args.scatter = 1;
    FAILS(MMLP_ERROR_SHAPE, mmlp_mlp_reduce_grads(mlp, &g.args, -1));
    cr_expect_str_eq(mmlp_last_error(),
                     "grad.linear_fc1.bias: found 128 elements, wanted a multiple of the 3 "
                     "data-parallel ranks that each keep a part (scatter)");
    drop(&g, rank->context);
    mmlp_mlp_unload(mlp);
}

Test(reduce_grads, what_is_wrong_is_named, .timeout = 120)
{
    mmlp_bundle *bundle = bundle_of(GATED, "");
    with_thread_ranks(3, fail_in_order, bundle);
    mmlp_bundle_close(bundle);
}

/* ---- when they start ------------------------------------------------------------------------- */

/* A step's weight gradients, reduced by calls that follow the passes at once. */
static void train_and_reduce(thread_rank *rank)
{
    const mmlp_bundle *bundle = rank->what;
    mmlp_mlp *mlp = load(rank->context, bundle);
    training_step step;
    step_options options = {
        .tokens = TOKENS, .seed = (uint64_t)rank->rank + 1, .device = rank->rank};
    void *stream;
    REQUIRE(mmlp_stream_create(&stream, rank->context));
    REQUIRE(mmlp_mlp_bind_comm(mlp, MMLP_GROUP_DP, rank->comm));
    step_start(&step, rank->context, bundle, mlp, &options);
    mmlp_reduce_grads_args args = MMLP_REDUCE_GRADS_ARGS_INIT;
    args.grad_linear_fc1_weight = step.dgrad.grad_linear_fc1_weight;
    args.grad_linear_fc2_weight = step.dgrad.grad_linear_fc2_weight;
    const step_tensor weights[] = {STEP_GRAD_FC1_WEIGHT, STEP_GRAD_FC2_WEIGHT};
    float *results[2][2];
    for (int run = 0; run < 2; run++) { /* the first one shows what is summed in the second */
        REQUIRE(mmlp_mlp_forward(mlp, &step.forward, stream));
        REQUIRE(mmlp_mlp_dgrad(mlp, &step.dgrad, stream));
        REQUIRE(mmlp_mlp_backward_dw(mlp, stream));
        if (run == 1) {
            REQUIRE(mmlp_mlp_reduce_grads(mlp, &args, -1));
            REQUIRE(mmlp_mlp_wait_grads(mlp, stream));
        }
        for (int i = 0; i < 2; i++) {
            const step_values *values = &step.tensors[weights[i]];
            results[run][i] = malloc(values->bytes);
            REQUIRE(mmlp_buffer_download(rank->context, results[run][i], values->device.data,
                                         values->bytes, stream));
        }
    }
    for (int i = 0; i < 2; i++) {
        float *others = malloc(2 * step.tensors[weights[i]].bytes);
        size_t count = step.tensors[weights[i]].bytes / sizeof(float);
        thread_gather(rank, others, results[0][i], count * sizeof(float));
        for (size_t e = 0; e < count; e++)
            cr_assert_eq(results[1][i][e], others[e] + others[count + e]);
        free(others);
        free(results[0][i]);
        free(results[1][i]);
    }
    step_finish(&step);
    mmlp_mlp_unload(mlp);
    REQUIRE(mmlp_stream_destroy(rank->context, stream));
}

Test(reduce_grads, gradients_are_reduced_behind_the_kernels_that_write_them, .timeout = 120)
{
    mmlp_bundle *at_once = bundle_of(GATED, "");
    mmlp_bundle *delayed = bundle_of(GATED ", delay_wgrad_compute = true", "");
    with_thread_ranks(2, train_and_reduce, at_once);
    with_thread_ranks(2, train_and_reduce, delayed);
    mmlp_bundle_close(at_once);
    mmlp_bundle_close(delayed);
}
