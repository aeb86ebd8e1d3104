/* init_weights.c: which numbers weights begin with, at every tensor-parallel size. */
#include <criterion/criterion.h>
#include <stdlib.h>
#include <string.h>

#include "init.h"
#include "made_step.h"

/* ---- parts ---------------------------------------------------------------------------------- */

enum { HIDDEN = 8, FFN = 48 };

/* The formula of docs/bundle-format.md. */
static int64_t index_in_whole(const init_part *p, int64_t i)
{
    int64_t r = i / p->columns, c = i % p->columns;
    return (r / p->half_rows * p->whole_half_rows + p->first_row + r % p->half_rows) *
               p->whole_columns +
           p->first_column + c;
}

/* Every index of the whole is in one part, and where the shard's own rows and columns say. */
static void expect_parts(bool is_fc1, bool gated, int64_t size)
{
    int64_t halves = gated ? 2 : 1, own = FFN / size;
    int64_t whole = is_fc1 ? halves * FFN * HIDDEN : HIDDEN * FFN;
    int *seen = calloc((size_t)whole, sizeof *seen);
    for (int64_t rank = 0; rank < size; rank++) {
        init_part p = is_fc1 ? init_split_rows(halves * own, HIDDEN, gated, rank, size)
                             : init_split_columns(HIDDEN, own, rank, size);
        cr_assert_eq(p.elements, whole / size);
        for (int64_t i = 0; i < p.elements; i++) {
            int64_t r = i / p.columns, c = i % p.columns;
            int64_t wanted = is_fc1 ? (r / own * FFN + rank * own + r % own) * HIDDEN + c
                                    : r * FFN + rank * own + c;
            cr_assert_eq(index_in_whole(&p, i), wanted, "rank %d of %d, element %d", (int)rank,
                         (int)size, (int)i);
            cr_assert_eq(seen[wanted]++, 0);
        }
    }
    free(seen);
}

Test(init, parts_of_every_size_make_the_same_whole)
{
    for (int64_t size = 1; size <= 4; size *= 2) {
        expect_parts(true, false, size);
        expect_parts(true, true, size);
        expect_parts(false, false, size);
    }
}

Test(init, a_whole_tensor_counts_its_elements)
{
    init_part p = init_whole(77);
    for (int64_t i = 0; i < 77; i++)
        cr_expect_eq(index_in_whole(&p, i), i);
}

/* ---- on the device -------------------------------------------------------------------------- */

static mmlp_init_args init_args(const made_step *s)
{
    mmlp_init_args args = MMLP_INIT_ARGS_INIT;
    args.linear_fc1_weight = &s->tensors[W1];
    args.linear_fc1_bias = &s->tensors[B1];
    args.linear_fc2_weight = &s->tensors[W2];
    args.linear_fc2_bias = &s->tensors[DB2];
    args.seed = 100;
    return args;
}

static void expect_refused(made_step *s, const mmlp_init_args *args, mmlp_status status,
                           const char *line)
{
    cr_expect_eq(mmlp_mlp_init_weights(s->mlp, args, NULL), status);
    cr_expect_str_eq(mmlp_last_error(), line);
}

Test(init, weights_begin_as_the_bundle_says_and_biases_with_zeros)
{
    made_step *s = step_start(made_start(), 0);
    mmlp_init_args args = init_args(s);
    cr_assert_eq(mmlp_mlp_init_weights(s->mlp, &args, NULL), MMLP_OK, "%s", mmlp_last_error());
    float found[2 * MADE_FFN * MADE_HIDDEN];
    step_download(s, W1, found);
    for (int i = 0; i < made_elements(W1); i++)
        cr_assert_eq(found[i], 0.5f * (float)(100 + i), "normal, element %d", i);
    step_download(s, W2, found);
    for (int i = 0; i < made_elements(W2); i++)
        cr_assert_eq(found[i], -3 + 0.25f * (float)i, "uniform, element %d", i);
    step_download(s, B1, found);
    for (int i = 0; i < made_elements(B1); i++)
        cr_assert_eq(found[i], 0);
    step_download(s, DB2, found);
    for (int i = 0; i < made_elements(DB2); i++)
        cr_assert_eq(found[i], 0);
    step_finish(s);
}

static void set_fc2(made_bundle *made, const char *kind)
{
    json_t *initialisation = json_object_get(made->manifest, "initialisation");
    json_object_set_new(json_object_get(initialisation, "linear_fc2"), "kind", json_string(kind));
    json_object_set_new(json_object_get(initialisation, "linear_fc2"), "a", json_real(0.5));
}

Test(init, the_two_weights_draw_different_numbers)
{
    made_bundle made = made_start();
    set_fc2(&made, "normal");
    made_step *s = step_start(made, 0);
    mmlp_init_args args = init_args(s);
    cr_assert_eq(mmlp_mlp_init_weights(s->mlp, &args, NULL), MMLP_OK, "%s", mmlp_last_error());
    float fc1[2 * MADE_FFN * MADE_HIDDEN], fc2[MADE_FFN * MADE_HIDDEN];
    step_download(s, W1, fc1);
    step_download(s, W2, fc2);
    for (int i = 0; i < MADE_FFN * MADE_HIDDEN; i++)
        cr_assert_neq(fc1[i], fc2[i]);
    step_finish(s);
}

Test(init, without_num_layers_the_line_says_what_to_give)
{
    made_bundle made = made_start();
    set_fc2(&made, "unknown");
    made_step *s = step_start(made, 0);
    mmlp_init_args args = init_args(s);
    step_fill(s, W1, 7);
    expect_refused(s, &args, MMLP_ERROR_ARGUMENT,
                   "linear_fc2.weight: TransformerConfig.num_layers is not given, and its initial "
                   "deviation is init_method_std / sqrt(2 * num_layers): give num_layers, or an "
                   "init_method to linear_fc2");
    float found[2 * MADE_FFN * MADE_HIDDEN];
    step_download(s, W1, found);
    cr_expect_eq(found[0], 7, "a weight was filled before all were checked");
    step_finish(s);
}

Test(init, wrong_tensors_are_told)
{
    made_step *s = step_start(made_start(), 0);
    mmlp_init_args args = init_args(s);
    args.linear_fc1_bias = NULL;
    expect_refused(s, &args, MMLP_ERROR_ARGUMENT,
                   "linear_fc1.bias: NULL was given, wanted fp32 [80]");
    args = init_args(s);
    args.linear_fc2_weight = &s->tensors[W1];
    expect_refused(s, &args, MMLP_ERROR_SHAPE,
                   "linear_fc2.weight: found the shape [80, 24], wanted [24, 40]");
    args = init_args(s);
    s->tensors[W1].dtype.bits = 64;
    expect_refused(s, &args, MMLP_ERROR_SHAPE, "linear_fc1.weight: found fp64, wanted fp32");
    s->tensors[W1].dtype.bits = 32;
    expect_refused(s, NULL, MMLP_ERROR_ARGUMENT, "mmlp_init_args: NULL was given");
    cr_expect_eq(mmlp_mlp_init_weights(NULL, &args, NULL), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(), "mmlp_mlp_init_weights: mlp is NULL");
    step_finish(s);
}

Test(init, a_bundle_without_its_kernel_says_so)
{
    made_bundle made = made_start();
    json_array_remove(json_object_get(made.manifest, "kernels"), 2);
    made_step *s = step_start(made, 0);
    mmlp_init_args args = init_args(s);
    cr_expect_eq(mmlp_mlp_init_weights(s->mlp, &args, NULL), MMLP_ERROR_UNSUPPORTED);
    cr_expect(strstr(mmlp_last_error(), "made.mlp: it has no kernel fill"));
    step_finish(s);
}
