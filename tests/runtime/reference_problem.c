/* reference_problem.c: makes small MLPs in memory, for tests of the fp64 references. */
#include "reference_problem.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- an MLP --------------------------------------------------------------------------------- */

/* A program that is being written; node() gives the index of the operation. */
static int node(program *p, program_op op, int a, int b, int c)
{
    int index;
    cr_assert_eq(program_add(&index, p, op, a, b, c), MMLP_OK);
    return index;
}

int problem_input(program *p, const char *name)
{
    int index;
    cr_assert_eq(program_input(&index, p, name), MMLP_OK);
    return index;
}

static int constant(program *p, double value)
{
    int index;
    cr_assert_eq(program_constant(&index, p, value), MMLP_OK);
    return index;
}

enum { CLAMP_EIGHTHS = 3 }; /* the limit, 3/8 */

/* clamp(gate) + bias, and the mask of the clamp. */
static int gate_of(program *p, const variant *v, int *mask)
{
    int gate = problem_input(p, "gate");
    *mask = -1;
    if (v->clamp_before_bias) {
        int low = constant(p, -CLAMP_EIGHTHS / 8.0), high = constant(p, CLAMP_EIGHTHS / 8.0);
        int zero = constant(p, 0), one = constant(p, 1);
        int below = node(p, PROGRAM_where, node(p, PROGRAM_less, gate, low, -1), zero, one);
        *mask = node(p, PROGRAM_where, node(p, PROGRAM_greater, gate, high, -1), zero, below);
        gate = node(p, PROGRAM_clamp, gate, low, high);
    }
    return v->bias ? node(p, PROGRAM_add, gate, problem_input(p, "gate_bias"), -1) : gate;
}

static int times_scale(program *p, const variant *v, int value)
{
    return v->scale ? node(p, PROGRAM_mul, value, problem_input(p, "scale"), -1) : value;
}

/* Gated: silu(gate) * up; not gated: tanh(gate); times the scale. With the derivative, written by
 * hand, when `results` is given. Returns the activation. */
static int write_activation(program *p, const variant *v, bundle_backward_results *results)
{
    int mask, z = gate_of(p, v, &mask);
    int one = constant(p, 1), act, slope, up = -1, value;
    if (v->gated) {
        int s = node(p, PROGRAM_sigmoid, z, -1, -1);
        up = problem_input(p, "up");
        if (v->bias)
            up = node(p, PROGRAM_add, up, problem_input(p, "up_bias"), -1);
        act = node(p, PROGRAM_mul, z, s, -1);
        int rest = node(p, PROGRAM_mul, z, node(p, PROGRAM_sub, one, s, -1), -1);
        slope = node(p, PROGRAM_mul, s, node(p, PROGRAM_add, one, rest, -1), -1);
        value = node(p, PROGRAM_mul, act, up, -1);
    } else {
        act = value = node(p, PROGRAM_tanh, z, -1, -1);
        slope = node(p, PROGRAM_sub, one, node(p, PROGRAM_mul, act, act, -1), -1);
    }
    int activation = times_scale(p, v, value);
    if (!results)
        return activation;
    *results = (bundle_backward_results){activation, -1, -1, -1, -1, -1};
    int d = problem_input(p, "d_activation");
    if (v->scale)
        results->scale = node(p, PROGRAM_mul, d, value, -1);
    d = times_scale(p, v, d);
    int d_z = node(p, PROGRAM_mul, d, slope, -1);
    if (v->gated) {
        d_z = node(p, PROGRAM_mul, d_z, up, -1);
        results->up = node(p, PROGRAM_mul, d, act, -1);
    }
    results->gate = mask >= 0 ? node(p, PROGRAM_mul, d_z, mask, -1) : d_z;
    if (v->bias) {
        results->gate_bias = d_z;
        results->up_bias = results->up;
    }
    return activation;
}

void problem_make_bundle(mmlp_bundle *b, const variant *v, int64_t hidden, int64_t ffn)
{
    *b = (mmlp_bundle){.name = "made",
                       .hidden_size = hidden,
                       .ffn_hidden_size = ffn,
                       .fc1_output_size = v->gated ? 2 * ffn : ffn,
                       .gated_linear_unit = v->gated,
                       .add_bias_linear = v->bias,
                       .per_token_scale = v->scale,
                       .fc2_bias = v->fc2_bias};
    b->activation_result = write_activation(&b->activation, v, NULL);
    write_activation(&b->backward, v, &b->backward_results);
    int sum = problem_input(&b->output, "accumulator");
    if (v->fc2_bias == MMLP_FC2_BIAS_FOLDED || v->fc2_bias == MMLP_FC2_BIAS_ADDED) {
        int bias = problem_input(&b->output, "bias");
        if (v->fc2_bias == MMLP_FC2_BIAS_FOLDED)
            bias = times_scale(&b->output, v, bias);
        sum = node(&b->output, PROGRAM_add, sum, bias, -1);
    }
    b->output_result = sum;
}

void problem_free_bundle(mmlp_bundle *b)
{
    program_free(&b->activation);
    program_free(&b->output);
    program_free(&b->backward);
}

/* ---- its tensors ---------------------------------------------------------------------------- */

int64_t problem_elements(const mmlp_tensor *t)
{
    return t->shape[0] * (t->ndim == 2 ? t->shape[1] : 1);
}

double *problem_values(const problem *p, int tensor)
{
    return p->tensors[tensor].data;
}

double *problem_doubles(int64_t count)
{
    double *out = malloc((size_t)count * sizeof *out + 1);
    cr_assert_not_null(out);
    for (int64_t i = 0; i < count; i++)
        out[i] = NAN; /* what is not written is seen */
    return out;
}

/* Numbers in (-1, 1) that look random, the same on every run. */
static double number(uint64_t i, uint64_t salt)
{
    uint64_t x = (i + 1) * 0x9e3779b97f4a7c15u ^ salt * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (double)(int64_t)(x ^ x >> 31) * 0x1p-63;
}

bool problem_has(const variant *v, int tensor)
{
    return tensor == B1 || tensor == B2 ? v->bias : tensor == SCALE ? v->scale : true;
}

void problem_start(problem *p, variant v, int64_t hidden, int64_t ffn, int64_t tokens)
{
    memset(p, 0, sizeof *p);
    p->variant = v;
    p->tokens = tokens;
    problem_make_bundle(&p->bundle, &v, hidden, ffn);
    int64_t fc1 = p->bundle.fc1_output_size;
    const int64_t shapes[TENSORS][2] = {
        [X] = {tokens, hidden}, [W1] = {fc1, hidden},  [B1] = {fc1, 0},        [W2] = {hidden, ffn},
        [B2] = {hidden, 0},     [SCALE] = {tokens, 0}, [DY] = {tokens, hidden}};
    memcpy(p->shapes, shapes, sizeof shapes);
    for (int i = 0; i < TENSORS; i++) {
        p->tensors[i] = (mmlp_tensor){.device = {MMLP_DEVICE_CPU, 0},
                                      .ndim = shapes[i][1] ? 2 : 1,
                                      .dtype = {MMLP_TYPE_FLOAT, 64, 1},
                                      .shape = p->shapes[i]};
        int64_t count = problem_elements(&p->tensors[i]);
        double *out = p->tensors[i].data = problem_doubles(count);
        for (int64_t j = 0; j < count; j++)
            out[j] = number((uint64_t)j, (uint64_t)i);
    }
    p->args = (mmlp_reference_backward_args)MMLP_REFERENCE_BACKWARD_ARGS_INIT;
    p->args.grad_output = &p->tensors[DY];
    p->args.hidden_states = &p->tensors[X];
    p->args.linear_fc1_weight = &p->tensors[W1];
    p->args.linear_fc1_bias = v.bias ? &p->tensors[B1] : NULL;
    p->args.linear_fc2_weight = &p->tensors[W2];
    p->args.linear_fc2_bias = v.bias ? &p->tensors[B2] : NULL;
    p->args.per_token_scale = v.scale ? &p->tensors[SCALE] : NULL;
}

void problem_finish(problem *p)
{
    for (int i = 0; i < TENSORS; i++)
        free(p->tensors[i].data);
    problem_free_bundle(&p->bundle);
}

void problem_run(problem *p)
{
    cr_assert_eq(mmlp_bundle_reference_backward(&p->bundle, &p->args), MMLP_OK, "%s",
                 mmlp_last_error());
}

double **problem_gradient(problem *p, int tensor)
{
    double **const all[TENSORS] = {
        [X] = &p->args.grad_hidden_states,    [W1] = &p->args.grad_linear_fc1_weight,
        [B1] = &p->args.grad_linear_fc1_bias, [W2] = &p->args.grad_linear_fc2_weight,
        [B2] = &p->args.grad_linear_fc2_bias, [SCALE] = &p->args.grad_per_token_scale};
    return all[tensor];
}

/* Room for every gradient that this MLP has. */
void problem_want_all(problem *p)
{
    for (int i = 0; i < DY; i++) {
        if (problem_has(&p->variant, i))
            *problem_gradient(p, i) = problem_doubles(problem_elements(&p->tensors[i]));
    }
}

void problem_free_gradients(problem *p)
{
    for (int i = 0; i < DY; i++)
        free(*problem_gradient(p, i));
}
