/*
 * reference_backward.c: the fp64 backward pass against finite differences of the fp64 forward pass,
 * and against products written out.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "reference_problem.h"

/* ---- gradients ------------------------------------------------------------------------------ */

/* Sum of grad_output * (output, and the bias that the caller adds). */
static double loss(const problem *p)
{
    mmlp_reference_forward_args args = MMLP_REFERENCE_FORWARD_ARGS_INIT;
    args.hidden_states = p->args.hidden_states;
    args.linear_fc1_weight = p->args.linear_fc1_weight;
    args.linear_fc1_bias = p->args.linear_fc1_bias;
    args.linear_fc2_weight = p->args.linear_fc2_weight;
    args.linear_fc2_bias = p->args.linear_fc2_bias;
    args.per_token_scale = p->args.per_token_scale;
    int64_t count = problem_elements(&p->tensors[DY]);
    args.output = problem_doubles(count);
    cr_assert_eq(mmlp_bundle_reference_forward(&p->bundle, &args), MMLP_OK, "%s",
                 mmlp_last_error());
    double sum = 0;
    for (int64_t i = 0; i < count; i++) {
        double output = args.output[i];
        if (p->variant.fc2_bias == MMLP_FC2_BIAS_RETURNED)
            output += problem_values(p, B2)[i % p->bundle.hidden_size];
        sum += output * problem_values(p, DY)[i];
    }
    free(args.output);
    return sum;
}

static void expect_differences(const problem *p, int tensor, const double *gradient,
                               const char *name)
{
    static const double step = 0x1p-17;
    double *x = problem_values(p, tensor);
    for (int64_t i = 0; i < problem_elements(&p->tensors[tensor]); i++) {
        double middle = x[i];
        x[i] = middle + step;
        double above = loss(p);
        x[i] = middle - step;
        double difference = (above - loss(p)) / (2 * step);
        x[i] = middle;
        cr_expect(fabs(gradient[i] - difference) < 1e-8, "%s[%lld]: %.12g, differences give %.12g",
                  name, (long long)i, gradient[i], difference);
    }
}

Test(reference_backward, gradients_are_those_of_finite_differences)
{
    static const char *const names[TENSORS] = {
        "hidden_states",   "linear_fc1.weight", "linear_fc1.bias", "linear_fc2.weight",
        "linear_fc2.bias", "per_token_scale",   "grad_output"};
    static const variant variants[] = {
        {false, false, false, MMLP_FC2_BIAS_NONE, false},
        {true, false, false, MMLP_FC2_BIAS_NONE, false},
        {false, true, false, MMLP_FC2_BIAS_RETURNED, false},
        {true, true, false, MMLP_FC2_BIAS_RETURNED, false},
        {true, true, true, MMLP_FC2_BIAS_FOLDED, false},
        {false, true, true, MMLP_FC2_BIAS_FOLDED, true},
        {true, false, true, MMLP_FC2_BIAS_NONE, false},
        {true, true, false, MMLP_FC2_BIAS_ADDED, true},
    };
    for (size_t i = 0; i < sizeof variants / sizeof variants[0]; i++) {
        problem p;
        problem_start(&p, variants[i], 6, 5, 4);
        problem_want_all(&p);
        problem_run(&p);
        for (int tensor = 0; tensor < DY; tensor++) {
            if (problem_has(&p.variant, tensor))
                expect_differences(&p, tensor, *problem_gradient(&p, tensor), names[tensor]);
        }
        problem_free_gradients(&p);
        problem_finish(&p);
    }
}

/* out[i][j] = sum over k of a(i, k) b(k, j), element by element. */
static void expect_product(const double *found, int64_t rows, int64_t columns, int64_t length,
                           const double *a, int64_t a_row, int64_t a_step, const double *b,
                           int64_t b_step, const char *name)
{
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++) {
            double sum = 0;
            for (int64_t k = 0; k < length; k++)
                sum += a[i * a_row + k * a_step] * b[k * b_step + j];
            cr_assert(fabs(found[i * columns + j] - sum) < 1e-11,
                      "%s[%lld, %lld]: %.15g, not %.15g", name, (long long)i, (long long)j,
                      found[i * columns + j], sum);
        }
    }
}

Test(reference_backward, sizes_that_no_block_divides_give_the_products_of_the_definition)
{
    enum { HIDDEN = 70, FFN = 301, TOKENS = 131 };
    problem p;
    problem_start(&p, (variant){0}, HIDDEN, FFN, TOKENS);
    /* The identity, so that grad_fc1_output is the gradient of the activation. */
    program_free(&p.bundle.backward);
    int gate = problem_input(&p.bundle.backward, "gate"),
        d = problem_input(&p.bundle.backward, "d_activation");
    p.bundle.backward_results = (bundle_backward_results){gate, d, -1, -1, -1, -1};
    problem_want_all(&p);
    p.args.activation_output = problem_doubles(TOKENS * FFN);
    p.args.grad_fc1_output = problem_doubles(TOKENS * FFN);
    problem_run(&p);
    const double *dz = p.args.grad_fc1_output;
    double *w1_transposed = problem_doubles(HIDDEN * FFN);
    for (int64_t i = 0; i < FFN * HIDDEN; i++)
        w1_transposed[i % HIDDEN * FFN + i / HIDDEN] = problem_values(&p, W1)[i];
    expect_product(p.args.activation_output, TOKENS, FFN, HIDDEN, problem_values(&p, X), HIDDEN, 1,
                   w1_transposed, FFN, "activation_output");
    expect_product(dz, TOKENS, FFN, HIDDEN, problem_values(&p, DY), HIDDEN, 1,
                   problem_values(&p, W2), FFN, "grad_fc1_output");
    expect_product(p.args.grad_hidden_states, TOKENS, HIDDEN, FFN, dz, FFN, 1,
                   problem_values(&p, W1), HIDDEN, "grad_hidden_states");
    expect_product(p.args.grad_linear_fc1_weight, FFN, HIDDEN, TOKENS, dz, 1, FFN,
                   problem_values(&p, X), HIDDEN, "grad_linear_fc1_weight");
    expect_product(p.args.grad_linear_fc2_weight, HIDDEN, FFN, TOKENS, problem_values(&p, DY), 1,
                   HIDDEN, p.args.activation_output, FFN, "grad_linear_fc2_weight");
    free(w1_transposed);
    free(p.args.activation_output);
    free(p.args.grad_fc1_output);
    problem_free_gradients(&p);
    problem_finish(&p);
}

static const variant everything = {true, true, true, MMLP_FC2_BIAS_FOLDED, false};

Test(reference_backward, sampled_rows_are_rows_of_the_whole_gradients)
{
    enum { HIDDEN = 24, FFN = 40 };
    static const int64_t samples[] = {1, 2, 7, 24, 100};
    problem p;
    problem_start(&p, everything, HIDDEN, FFN, 9);
    problem_want_all(&p);
    problem_run(&p);
    for (size_t s = 0; s < sizeof samples / sizeof samples[0]; s++) {
        int64_t count = samples[s], divisor = count > 1 ? count - 1 : 1;
        mmlp_reference_backward_args whole = p.args;
        p.args.sampled_rows = count;
        p.args.grad_linear_fc1_weight = problem_doubles(count * HIDDEN);
        p.args.grad_linear_fc2_weight = problem_doubles(count * FFN);
        problem_run(&p);
        for (int64_t i = 0; i < count; i++) {
            cr_expect_arr_eq(p.args.grad_linear_fc1_weight + i * HIDDEN,
                             whole.grad_linear_fc1_weight + i * (2 * FFN - 1) / divisor * HIDDEN,
                             HIDDEN * sizeof(double));
            cr_expect_arr_eq(p.args.grad_linear_fc2_weight + i * FFN,
                             whole.grad_linear_fc2_weight + i * (HIDDEN - 1) / divisor * FFN,
                             FFN * sizeof(double));
        }
        free(p.args.grad_linear_fc1_weight);
        free(p.args.grad_linear_fc2_weight);
        p.args = whole;
    }
    problem_free_gradients(&p);
    problem_finish(&p);
}

Test(reference_backward, scale_terms_are_the_norm_of_what_the_gradient_sums)
{
    enum { HIDDEN = 24, FFN = 150, TOKENS = 3 };
    problem p;
    double sums[TOKENS], terms[TOKENS];
    problem_start(&p, everything, HIDDEN, FFN, TOKENS);
    p.args.activation_output = problem_doubles(TOKENS * FFN);
    p.args.grad_per_token_scale = sums;
    p.args.scale_terms = terms;
    problem_run(&p);
    for (int64_t t = 0; t < TOKENS; t++) {
        double sum = 0, squares = 0;
        for (int64_t f = 0; f < FFN; f++) {
            double d = 0;
            for (int64_t h = 0; h < HIDDEN; h++)
                d += problem_values(&p, DY)[t * HIDDEN + h] * problem_values(&p, W2)[h * FFN + f];
            d *= p.args.activation_output[t * FFN + f] / problem_values(&p, SCALE)[t];
            sum += d;
            squares += d * d;
        }
        for (int64_t h = 0; h < HIDDEN; h++) {
            double d = problem_values(&p, DY)[t * HIDDEN + h] * problem_values(&p, B2)[h];
            sum += d;
            squares += d * d;
        }
        cr_expect_float_eq(sums[t], sum, 1e-11);
        cr_expect_float_eq(terms[t], sqrt(squares), 1e-11);
    }
    free(p.args.activation_output);
    problem_finish(&p);
}

Test(reference_backward, everything_starts_from_the_stored_fc1_output)
{
    enum { HIDDEN = 12, FFN = 10, TOKENS = 5 };
    problem p;
    problem_start(&p, everything, HIDDEN, FFN, TOKENS);
    int64_t shape[2] = {TOKENS, 2 * FFN};
    double *stored = problem_doubles(TOKENS * 2 * FFN);
    mmlp_tensor tensor = p.tensors[X];
    tensor.data = stored;
    tensor.shape = shape;

    /* Of other inputs: what the gradients of those inputs are, all but that of fc1's weight. */
    for (int64_t i = 0; i < TOKENS * HIDDEN; i++)
        problem_values(&p, X)[i] *= -0.5;
    mmlp_reference_forward_args forward = MMLP_REFERENCE_FORWARD_ARGS_INIT;
    forward.hidden_states = &p.tensors[X];
    forward.linear_fc1_weight = &p.tensors[W1];
    forward.fc1_output = stored;
    cr_assert_eq(mmlp_bundle_reference_forward(&p.bundle, &forward), MMLP_OK);
    problem_want_all(&p);
    problem_run(&p);
    double *wanted = p.args.grad_hidden_states;
    p.args.grad_hidden_states = problem_doubles(TOKENS * HIDDEN);
    free(p.args.grad_linear_fc1_weight);
    p.args.grad_linear_fc1_weight = NULL;
    p.args.hidden_states = NULL;
    p.args.stored_fc1_output = &tensor;
    problem_run(&p);
    cr_expect_arr_eq(p.args.grad_hidden_states, wanted, TOKENS * HIDDEN * sizeof(double));
    free(wanted);
    free(stored);
    problem_free_gradients(&p);
    problem_finish(&p);
}

Test(reference_backward, fc2s_weight_gradient_starts_from_a_stored_activation)
{
    enum { HIDDEN = 12, FFN = 10, TOKENS = 5 };
    problem p;
    problem_start(&p, everything, HIDDEN, FFN, TOKENS);
    int64_t shape[2] = {TOKENS, FFN};
    double *stored = problem_doubles(TOKENS * FFN);
    mmlp_tensor tensor = p.tensors[X];
    tensor.data = stored;
    tensor.shape = shape;
    for (int64_t i = 0; i < TOKENS * FFN; i++)
        stored[i] = (double)(i * 7 % 11) - 5;
    problem_want_all(&p);
    p.args.stored_activation = &tensor;
    problem_run(&p);
    for (int64_t h = 0; h < HIDDEN; h++) {
        for (int64_t f = 0; f < FFN; f++) {
            double sum = 0;
            for (int64_t t = 0; t < TOKENS; t++)
                sum += problem_values(&p, DY)[t * HIDDEN + h] * stored[t * FFN + f];
            cr_assert_float_eq(p.args.grad_linear_fc2_weight[h * FFN + f], sum, 1e-11);
        }
    }
    free(stored);
    problem_free_gradients(&p);
    problem_finish(&p);
}

Test(reference_backward, each_result_alone_is_what_it_is_among_all)
{
    problem p;
    problem_start(&p, everything, 12, 10, 5);
    problem_want_all(&p);
    problem_run(&p);
    for (int i = 0; i < DY; i++) {
        problem alone = p;
        for (int j = 0; j < DY; j++)
            *problem_gradient(&alone, j) = NULL;
        size_t bytes = (size_t)problem_elements(&p.tensors[i]) * sizeof(double);
        double *found = *problem_gradient(&alone, i) =
            problem_doubles(problem_elements(&p.tensors[i]));
        problem_run(&alone);
        cr_expect_arr_eq(found, *problem_gradient(&p, i), bytes, "result %d", i);
        free(found);
    }
    problem_free_gradients(&p);
    problem_finish(&p);
}

Test(reference_backward, results_do_not_depend_on_the_number_of_threads)
{
    problem p;
    problem_start(&p, everything, 70, 300, 140);
    problem_want_all(&p);
    problem_run(&p);
    mmlp_reference_backward_args first = p.args;
    problem_want_all(&p);
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    cr_assert_eq(sched_setaffinity(0, sizeof one, &one), 0);
    problem_run(&p);
    for (int i = 0; i < DY; i++) {
        problem other = p;
        other.args = first;
        cr_expect_arr_eq(*problem_gradient(&p, i), *problem_gradient(&other, i),
                         (size_t)problem_elements(&p.tensors[i]) * sizeof(double), "result %d", i);
        free(*problem_gradient(&other, i));
    }
    problem_free_gradients(&p);
    problem_finish(&p);
}

Test(reference_backward, no_tokens_give_zeros)
{
    problem p;
    problem_start(&p, everything, 12, 10, 0);
    problem_want_all(&p);
    problem_run(&p);
    for (int i = 0; i < DY; i++) {
        for (int64_t j = 0; j < problem_elements(&p.tensors[i]); j++)
            cr_assert_eq((*problem_gradient(&p, i))[j], 0);
    }
    problem_free_gradients(&p);
    problem_finish(&p);
}

/* ---- arguments ------------------------------------------------------------------------------ */

static void expect_refused(const problem *p, mmlp_status status, const char *line)
{
    cr_expect_eq(mmlp_bundle_reference_backward(&p->bundle, &p->args), status);
    cr_expect(strstr(mmlp_last_error(), line), "expected \"%s\", found \"%s\"", line,
              mmlp_last_error());
}

Test(reference_backward, an_input_that_a_wanted_result_reads_must_be_there)
{
    static const struct {
        int result, input;
        const char *line;
    } cases[] = {
        {X, DY, "grad_output: NULL was given, wanted bf16 [tokens, 12]"},
        {X, X, "hidden_states: NULL was given, wanted bf16 [5, 12]"},
        {W1, X, "hidden_states: NULL was given"},
        {X, W1, "linear_fc1.weight: NULL was given, wanted bf16 [20, 12]"},
        {X, B1, "linear_fc1.bias: NULL was given"},
        {B1, W2, "linear_fc2.weight: NULL was given"},
        {SCALE, B2, "linear_fc2.bias: NULL was given"},
        {B2, SCALE, "per_token_scale: NULL was given"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        problem p;
        problem_start(&p, everything, 12, 10, 5);
        *problem_gradient(&p, cases[i].result) =
            problem_doubles(problem_elements(&p.tensors[cases[i].result]));
        const mmlp_tensor **const inputs[TENSORS] = {
            [X] = &p.args.hidden_states,    [W1] = &p.args.linear_fc1_weight,
            [B1] = &p.args.linear_fc1_bias, [W2] = &p.args.linear_fc2_weight,
            [B2] = &p.args.linear_fc2_bias, [SCALE] = &p.args.per_token_scale,
            [DY] = &p.args.grad_output};
        *inputs[cases[i].input] = NULL;
        expect_refused(&p, MMLP_ERROR_ARGUMENT, cases[i].line);
        problem_free_gradients(&p);
        problem_finish(&p);
    }
}

Test(reference_backward, only_what_a_wanted_result_reads_must_be_there)
{
    enum { HIDDEN = 12 };
    double sums[HIDDEN];
    problem p;
    problem_start(&p, (variant){true, true, false, MMLP_FC2_BIAS_RETURNED, false}, HIDDEN, 10, 5);
    mmlp_reference_backward_args args = MMLP_REFERENCE_BACKWARD_ARGS_INIT;
    args.grad_output = &p.tensors[DY];
    args.grad_linear_fc2_bias = sums;
    p.args = args;
    problem_run(&p);
    for (int64_t h = 0; h < HIDDEN; h++) {
        double sum = 0;
        for (int64_t t = 0; t < 5; t++)
            sum += problem_values(&p, DY)[t * HIDDEN + h];
        cr_expect_eq(sums[h], sum);
    }
    problem_finish(&p);
}

Test(reference_backward, wrong_shapes_and_results_that_do_not_exist_are_refused)
{
    double result[64];
    problem p;
    problem_start(&p, (variant){true, false, false, MMLP_FC2_BIAS_NONE, false}, 12, 10, 5);
    p.args.grad_linear_fc1_bias = result;
    expect_refused(&p, MMLP_ERROR_ARGUMENT,
                   "grad_linear_fc1_bias: found an address, wanted NULL: made has "
                   "add_bias_linear = false");
    p.args.grad_linear_fc1_bias = NULL;
    p.args.grad_linear_fc2_bias = result;
    expect_refused(&p, MMLP_ERROR_ARGUMENT, "grad_linear_fc2_bias: found an address, wanted NULL");
    p.args.grad_linear_fc2_bias = NULL;
    p.args.scale_terms = result;
    expect_refused(&p, MMLP_ERROR_ARGUMENT,
                   "scale_terms: found an address, wanted NULL: made has per_token_scale = false");
    p.args.scale_terms = NULL;
    p.args.grad_hidden_states = result;
    p.args.sampled_rows = -1;
    expect_refused(&p, MMLP_ERROR_ARGUMENT, "sampled_rows: found -1, wanted 0 to 16777216");
    p.args.sampled_rows = 0;
    p.shapes[X][0] = 4;
    expect_refused(&p, MMLP_ERROR_SHAPE, "hidden_states: found the shape [4, 12], wanted [5, 12]");
    p.shapes[X][0] = 5;
    p.tensors[W2].dtype.bits = 8;
    expect_refused(&p, MMLP_ERROR_SHAPE, "linear_fc2.weight: found DLPack type");
    p.tensors[W2].dtype.bits = 64;
    p.tensors[DY].device.device_type = MMLP_DEVICE_CUDA;
    expect_refused(&p, MMLP_ERROR_SHAPE,
                   "grad_output: found it on CUDA device 0, wanted it on the host");
    cr_expect_eq(mmlp_bundle_reference_backward(NULL, &p.args), MMLP_ERROR_ARGUMENT);
    problem_finish(&p);
}

Test(reference_backward, a_large_layer_takes_seconds)
{
    enum { HIDDEN = 4096, FFN = 14336, TOKENS = MMLP_TEST_SLOW ? 16 : 128, ROWS = 32 };
    problem p;
    memset(&p, 0, sizeof p);
    p.variant = (variant){true, false, false, MMLP_FC2_BIAS_NONE, false};
    problem_make_bundle(&p.bundle, &p.variant, HIDDEN, FFN);
    mmlp_tensor t[4];
    int64_t shapes[4][2] = {{TOKENS, HIDDEN}, {2 * FFN, HIDDEN}, {HIDDEN, FFN}, {TOKENS, HIDDEN}};
    for (int i = 0; i < 4; i++) {
        size_t count = (size_t)(shapes[i][0] * shapes[i][1]);
        uint16_t *bits = malloc(count * sizeof *bits);
        for (size_t j = 0; j < count; j++)
            bits[j] = (uint16_t)(0x3c00 + (j * 7919 & 255) + (j * 104729 & 1) * 0x8000);
        t[i] = (mmlp_tensor){.data = bits,
                             .device = {MMLP_DEVICE_CPU, 0},
                             .ndim = 2,
                             .dtype = {MMLP_TYPE_BFLOAT, 16, 1},
                             .shape = shapes[i]};
    }
    mmlp_reference_backward_args args = MMLP_REFERENCE_BACKWARD_ARGS_INIT;
    args.hidden_states = &t[0];
    args.linear_fc1_weight = &t[1];
    args.linear_fc2_weight = &t[2];
    args.grad_output = &t[3];
    args.sampled_rows = ROWS;
    args.grad_hidden_states = problem_doubles(TOKENS * HIDDEN);
    args.grad_linear_fc1_weight = problem_doubles(ROWS * HIDDEN);
    args.grad_linear_fc2_weight = problem_doubles(ROWS * FFN);
    struct timespec start_time, end_time;
    clock_gettime(CLOCK_MONOTONIC, &start_time);
    cr_assert_eq(mmlp_bundle_reference_backward(&p.bundle, &args), MMLP_OK, "%s",
                 mmlp_last_error());
    clock_gettime(CLOCK_MONOTONIC, &end_time);
    double seconds = (double)(end_time.tv_sec - start_time.tv_sec) +
                     1e-9 * (double)(end_time.tv_nsec - start_time.tv_nsec);
    cr_log_info("%.2f seconds", seconds);
    cr_expect_lt(seconds, 30, "%.2f seconds", seconds);
    free(args.grad_hidden_states);
    free(args.grad_linear_fc1_weight);
    free(args.grad_linear_fc2_weight);
    for (int i = 0; i < 4; i++)
        free(t[i].data);
    problem_free_bundle(&p.bundle);
}
