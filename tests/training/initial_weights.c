/*
 * initial_weights.c: what mmlp_mlp_init_weights writes, against Philox4x32-10 and Box-Muller
 * written out here in integers and fp64, and parts of weights as tensor-parallel ranks would make
 * them with the same kernel.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "init.h"
#include "loaded_mlp.h"
#include "mlp.h"
#include "training_step.h"

enum { HIDDEN = 64, FFN = 96, SEED = 12345 };

/* ---- the generator, from the paper ----------------------------------------------------------- */

static void philox(uint32_t x[4], uint64_t group, uint64_t seed)
{
    uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    x[0] = (uint32_t)group;
    x[1] = (uint32_t)(group >> 32);
    x[2] = x[3] = 0;
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53 * x[0], b = (uint64_t)0xCD9E8D57 * x[2];
        uint32_t y[4] = {(uint32_t)(b >> 32) ^ x[1] ^ key[0], (uint32_t)b,
                         (uint32_t)(a >> 32) ^ x[3] ^ key[1], (uint32_t)a};
        memcpy(x, y, sizeof y);
        key[0] += 0x9E3779B9;
        key[1] += 0xBB67AE85;
    }
}

static double normal(uint64_t index, uint64_t seed)
{
    uint32_t x[4];
    philox(x, index / 4, seed);
    const uint32_t *pair = x + index % 4 / 2 * 2;
    double radius = sqrt(-2 * log((pair[0] + 0.5) * 0x1p-32));
    double angle = 2 * acos(-1) * (pair[1] * 0x1p-32);
    return radius * (index % 2 ? sin(angle) : cos(angle));
}

static double uniform(uint64_t index, uint64_t seed)
{
    uint32_t x[4];
    philox(x, index / 4, seed);
    return (x[index % 4] >> 8) * 0x1p-24;
}

/* Known answers of the authors' library (Random123, kat_vectors): philox4x32, 10 rounds. */
Test(philox, gives_the_published_numbers_for_zeros)
{
    uint32_t x[4];
    philox(x, 0, 0);
    cr_expect(x[0] == 0x6627e8d5 && x[1] == 0xe169c58d && x[2] == 0xbc57ac4c && x[3] == 0x9b00dbd8);
}

/* ---- an mlp ---------------------------------------------------------------------------------- */

static loaded_mlp load(const char *fields, const char *fc1_params)
{
    loaded_mlp l;
    char *content = NULL;
    cr_assert(
        asprintf(&content,
                 "local config = TransformerConfig { hidden_size = %d, ffn_hidden_size = %d, "
                 "params_dtype = \"bf16\", %s }\nreturn ModuleSpec { module = MLP, params = { "
                 "config = config }, submodules = MLPSubmodules { linear_fc1 = ModuleSpec { "
                 "module = ColumnParallelLinear, params = { %s } }, linear_fc2 = "
                 "RowParallelLinear } }\n",
                 HIDDEN, FFN, fields, fc1_params) > 0);
    loaded_open(&l, loaded_device(), content, 0, 0, NULL);
    free(content);
    return l;
}

static void unload(loaded_mlp *l)
{
    loaded_close(l);
    mmlp_context_destroy(l->context);
}

typedef struct fp32_tensor {
    mmlp_tensor view;
    int64_t shape[2];
    size_t count;
    float *host;
} fp32_tensor;

static void make(fp32_tensor *t, const loaded_mlp *l, int64_t rows, int64_t columns)
{
    *t = (fp32_tensor){.shape = {rows, columns}, .count = (size_t)(rows * (columns ? columns : 1))};
    t->view = (mmlp_tensor){.device = {MMLP_DEVICE_CUDA, 0},
                            .ndim = columns ? 2 : 1,
                            .dtype = {MMLP_TYPE_FLOAT, 32, 1},
                            .shape = t->shape};
    t->host = malloc(t->count * sizeof *t->host);
    cr_assert(t->host);
    cr_assert_eq(mmlp_buffer_alloc(&t->view.data, l->context, t->count * sizeof(float)), MMLP_OK);
}

static void fetch(fp32_tensor *t, const loaded_mlp *l)
{
    cr_assert_eq(
        mmlp_buffer_download(l->context, t->host, t->view.data, t->count * sizeof(float), NULL),
        MMLP_OK, "%s", mmlp_last_error());
}

static void discard(fp32_tensor *t, const loaded_mlp *l)
{
    mmlp_buffer_free(l->context, t->view.data);
    free(t->host);
}

typedef struct weights {
    fp32_tensor fc1, fc1_bias, fc2, fc2_bias;
    mmlp_init_args args;
} weights;

static void make_weights(weights *w, const loaded_mlp *l, int64_t fc1_rows, bool bias)
{
    make(&w->fc1, l, fc1_rows, HIDDEN);
    make(&w->fc1_bias, l, fc1_rows, 0);
    make(&w->fc2, l, HIDDEN, FFN);
    make(&w->fc2_bias, l, HIDDEN, 0);
    w->args = (mmlp_init_args)MMLP_INIT_ARGS_INIT;
    w->args.linear_fc1_weight = &w->fc1.view;
    w->args.linear_fc1_bias = bias ? &w->fc1_bias.view : NULL;
    w->args.linear_fc2_weight = &w->fc2.view;
    w->args.linear_fc2_bias = bias ? &w->fc2_bias.view : NULL;
    w->args.seed = SEED;
}

static void discard_weights(weights *w, const loaded_mlp *l)
{
    discard(&w->fc1, l);
    discard(&w->fc1_bias, l);
    discard(&w->fc2, l);
    discard(&w->fc2_bias, l);
}

/* ---- tests ----------------------------------------------------------------------------------- */

Test(initial_weights, are_normal_by_index_with_megatrons_deviations_and_biases_are_zero)
{
    loaded_mlp l = load("num_layers = 8, init_method_std = 0.5", "");
    weights w;
    make_weights(&w, &l, FFN, true);
    cr_assert_eq(mmlp_mlp_init_weights(l.mlp, &w.args, NULL), MMLP_OK, "%s", mmlp_last_error());
    fetch(&w.fc1, &l);
    fetch(&w.fc1_bias, &l);
    fetch(&w.fc2, &l);
    fetch(&w.fc2_bias, &l);
    double squares = 0;
    for (size_t i = 0; i < w.fc1.count; i++)
        cr_assert_float_eq(w.fc1.host[i], 0.5 * normal(i, SEED), 2e-5, "%zu", i);
    for (size_t i = 0; i < w.fc2.count; i++)
        squares += (double)w.fc2.host[i] * (double)w.fc2.host[i];
    cr_expect_float_eq(sqrt(squares / (double)w.fc2.count), 0.5 / sqrt(2.0 * 8), 0.003);
    cr_expect(fabs((double)(w.fc1.host[0] / w.fc2.host[0]) - 4) > 1e-3,
              "fc2 has numbers of its own");
    for (size_t i = 0; i < w.fc1_bias.count; i++)
        cr_assert_eq(w.fc1_bias.host[i], 0);
    for (size_t i = 0; i < w.fc2_bias.count; i++)
        cr_assert_eq(w.fc2_bias.host[i], 0);
    discard_weights(&w, &l);
    unload(&l);
}

Test(initial_weights, an_init_method_of_a_linear_comes_first)
{
    loaded_mlp l =
        load("num_layers = 8, add_bias_linear = false", "init_method = init.uniform(-0.25, 0.75)");
    weights w;
    make_weights(&w, &l, FFN, false);
    cr_assert_eq(mmlp_mlp_init_weights(l.mlp, &w.args, NULL), MMLP_OK, "%s", mmlp_last_error());
    fetch(&w.fc1, &l);
    for (size_t i = 0; i < w.fc1.count; i++)
        cr_assert_float_eq(w.fc1.host[i], -0.25 + uniform(i, SEED), 1e-6, "%zu", i);
    discard_weights(&w, &l);
    unload(&l);
}

Test(initial_weights, without_num_layers_the_field_is_named)
{
    loaded_mlp l = load("add_bias_linear = false", "");
    weights w;
    make_weights(&w, &l, FFN, false);
    cr_expect_eq(mmlp_mlp_init_weights(l.mlp, &w.args, NULL), MMLP_ERROR_ARGUMENT);
    cr_expect(strstr(mmlp_last_error(), "TransformerConfig.num_layers is not given"), "%s",
              mmlp_last_error());
    discard_weights(&w, &l);
    unload(&l);
}

/* Fills one rank's part by the kernel itself. */
static void fill_part(fp32_tensor *out, const loaded_mlp *l, const init_part *part)
{
    const loaded_kernel *fill = NULL;
    for (int i = 0; i < l->mlp->kernel_count; i++)
        if (strcmp(l->mlp->kernels[i].kernel->step, "fill") == 0)
            fill = &l->mlp->kernels[i];
    cr_assert(fill);
    void *destination = out->view.data;
    float a = 1, b = 0;
    unsigned long long seed = SEED;
    int distribution = 1, dtype = 2;
    init_part p = *part;
    void *parameters[] = {&destination,
                          &p.elements,
                          &p.columns,
                          &p.first_column,
                          &p.whole_columns,
                          &p.half_rows,
                          &p.first_row,
                          &p.whole_half_rows,
                          &a,
                          &b,
                          &seed,
                          &distribution,
                          &dtype};
    unsigned blocks = (unsigned)kernel_tiles(fill->kernel, p.elements);
    cr_assert_eq(context_enter(l->context), MMLP_OK);
    cr_assert_eq(l->context->cuda.cuLaunchKernel(fill->function, blocks, 1, 1,
                                                 (unsigned)fill->kernel->threads, 1, 1, 0, NULL,
                                                 parameters, NULL),
                 CUDA_SUCCESS);
    context_leave(l->context);
    fetch(out, l);
}

/* Element (row, column) of the part of `rank` must be that of the whole. */
static void parts_agree(const loaded_mlp *l, const fp32_tensor *whole, int ranks, bool fc1)
{
    int64_t rows = fc1 ? 2 * FFN / ranks : HIDDEN, columns = fc1 ? HIDDEN : FFN / ranks;
    for (int rank = 0; rank < ranks; rank++) {
        fp32_tensor part;
        init_part place = fc1 ? init_split_rows(rows, columns, true, rank, ranks)
                              : init_split_columns(rows, columns, rank, ranks);
        make(&part, l, rows, columns);
        fill_part(&part, l, &place);
        for (int64_t r = 0; r < rows; r++) {
            /* Of [gate; up], a rank has rows of the gate half and then of the up half. */
            int64_t half = rows / 2;
            int64_t whole_row = fc1 ? r / half * FFN + rank * half + r % half : r;
            for (int64_t c = 0; c < columns; c++) {
                int64_t whole_column = fc1 ? c : rank * columns + c;
                float wanted = whole->host[whole_row * whole->shape[1] + whole_column];
                cr_assert_eq(part.host[r * columns + c], wanted, "rank %d of %d, (%d, %d)", rank,
                             ranks, (int)r, (int)c);
            }
        }
        discard(&part, l);
    }
}

Test(initial_weights, are_the_same_numbers_at_every_tensor_parallel_size)
{
    loaded_mlp l = load("gated_linear_unit = true, add_bias_linear = false, num_layers = 1, "
                        "init_method_std = 1",
                        "");
    fp32_tensor fc1, fc2;
    make(&fc1, &l, 2 * FFN, HIDDEN);
    make(&fc2, &l, HIDDEN, FFN);
    init_part whole_fc1 = init_split_rows(2 * FFN, HIDDEN, true, 0, 1);
    init_part whole_fc2 = init_split_columns(HIDDEN, FFN, 0, 1);
    fill_part(&fc1, &l, &whole_fc1);
    fill_part(&fc2, &l, &whole_fc2);
    for (int ranks = 2; ranks <= 4; ranks *= 2) {
        parts_agree(&l, &fc1, ranks, true);
        parts_agree(&l, &fc2, ranks, false);
    }
    discard(&fc1, &l);
    discard(&fc2, &l);
    unload(&l);
}

/* ---- sixteen bits ---------------------------------------------------------------------------- */

enum { SPARE = 8, MOST = 1029 + SPARE };

/* `count` numbers of a type, and what lies behind them. */
static void fill_numbers(double *out, const loaded_mlp *l, uint8_t code, uint8_t bits,
                         int64_t count)
{
    unsigned char host[4 * MOST];
    int64_t shape[] = {count};
    mmlp_tensor t = {
        .device = {MMLP_DEVICE_CUDA, 0}, .ndim = 1, .dtype = {code, bits, 1}, .shape = shape};
    memset(host, 0, sizeof host);
    cr_assert_eq(mmlp_buffer_alloc(&t.data, l->context, sizeof host), MMLP_OK);
    cr_assert_eq(mmlp_buffer_upload(l->context, t.data, host, sizeof host, NULL), MMLP_OK);
    cr_assert_eq(mmlp_mlp_fill_normal(l->mlp, &t, 0.5, SEED, NULL), MMLP_OK, "%s",
                 mmlp_last_error());
    cr_assert_eq(mmlp_buffer_download(l->context, host, t.data, sizeof host, NULL), MMLP_OK);
    mmlp_buffer_free(l->context, t.data);
    t.data = host;
    for (int64_t i = 0; i < count + SPARE; i++)
        out[i] = step_element(&t, (size_t)i);
}

static void rounds(const char *dtype, uint8_t code, double half_unit)
{
    static const int64_t counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 1029};
    char fields[64];
    double fp32[MOST], found[MOST];
    snprintf(fields, sizeof fields, "params_dtype = '%s'", dtype); /* the last one counts */
    loaded_mlp l = load(fields, "");
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        fill_numbers(fp32, &l, MMLP_TYPE_FLOAT, 32, counts[c]);
        fill_numbers(found, &l, code, 16, counts[c]);
        for (int64_t i = 0; i < counts[c]; i++) {
            cr_assert_neq(fp32[i], 0);
            cr_assert_leq(fabs(found[i] - fp32[i]), half_unit * fabs(fp32[i]) + 0x1p-25,
                          "%s, %lld of %lld: %g, in fp32 %g", dtype, (long long)i,
                          (long long)counts[c], found[i], fp32[i]);
        }
        for (int64_t i = counts[c]; i < counts[c] + SPARE; i++)
            cr_assert(fp32[i] == 0 && found[i] == 0, "behind the last of %lld",
                      (long long)counts[c]);
    }
    unload(&l);
}

Test(initial_weights, of_sixteen_bits_are_those_of_fp32_rounded_and_nothing_behind_them)
{
    rounds("bf16", MMLP_TYPE_BFLOAT, 0x1p-8);
    rounds("fp16", MMLP_TYPE_FLOAT, 0x1p-11);
}
