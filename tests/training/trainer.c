/*
 * trainer.c: the losses that examples/train_c prints, against the same training in fp64, written
 * out here: two SwiGLU MLPs, plain SGD. Definitions: EXAMPLE, the program; BUNDLE and BUNDLE_TP2,
 * of its model.lua and model_tp2.lua; MPIRUN, two ranks.
 */
#include <criterion/criterion.h>
#include <math.h>
#include <megamlp/megamlp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS = 128, HIDDEN = 64, FFN = 128, LAYERS = 2, STEPS = 200 };
static const double RATE = 1.0;

typedef struct layer {
    double gate[FFN][HIDDEN], up[FFN][HIDDEN], down[HIDDEN][FFN];
    double input[TOKENS][HIDDEN], g[TOKENS][FFN], u[TOKENS][FFN], a[TOKENS][FFN];
} layer;

/* ---- fp64 ------------------------------------------------------------------------------------ */

static double logistic(double x)
{
    return 1 / (1 + exp(-x));
}

static void forward(layer *l, double output[TOKENS][HIDDEN])
{
    for (int t = 0; t < TOKENS; t++) {
        for (int f = 0; f < FFN; f++) {
            double g = 0, u = 0;
            for (int h = 0; h < HIDDEN; h++) {
                g += l->input[t][h] * l->gate[f][h];
                u += l->input[t][h] * l->up[f][h];
            }
            l->g[t][f] = g;
            l->u[t][f] = u;
            l->a[t][f] = g * logistic(g) * u;
        }
        for (int h = 0; h < HIDDEN; h++) {
            output[t][h] = 0;
            for (int f = 0; f < FFN; f++)
                output[t][h] += l->a[t][f] * l->down[h][f];
        }
    }
}

/* The gradient of the output becomes that of the input; the weights take their step. */
static void backward(layer *l, double gradient[TOKENS][HIDDEN])
{
    static double before_gate[FFN][HIDDEN], before_up[FFN][HIDDEN], before_down[HIDDEN][FFN];
    memcpy(before_gate, l->gate, sizeof before_gate);
    memcpy(before_up, l->up, sizeof before_up);
    memcpy(before_down, l->down, sizeof before_down);
    for (int t = 0; t < TOKENS; t++) {
        double d_input[HIDDEN] = {0};
        for (int f = 0; f < FFN; f++) {
            double d_a = 0, s = logistic(l->g[t][f]);
            for (int h = 0; h < HIDDEN; h++) {
                d_a += gradient[t][h] * before_down[h][f];
                l->down[h][f] -= RATE * gradient[t][h] * l->a[t][f];
            }
            double d_u = d_a * l->g[t][f] * s;
            double d_g = d_a * l->u[t][f] * s * (1 + l->g[t][f] * (1 - s));
            for (int h = 0; h < HIDDEN; h++) {
                d_input[h] += d_g * before_gate[f][h] + d_u * before_up[f][h];
                l->gate[f][h] -= RATE * d_g * l->input[t][h];
                l->up[f][h] -= RATE * d_u * l->input[t][h];
            }
        }
        memcpy(gradient[t], d_input, sizeof d_input);
    }
}

static double noise(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 8) * 0x1p-23 - 1;
}

/* A number of at most 8 significant bits near x, as bf16 has. */
static double rounded(double x)
{
    int exponent;
    double mantissa = frexp(x, &exponent);
    return ldexp(nearbyint(ldexp(mantissa, 8)), exponent - 8);
}

static void train(double losses[STEPS + 1], layer layers[LAYERS])
{
    static double input[TOKENS][HIDDEN], target[TOKENS][HIDDEN], output[TOKENS][HIDDEN];
    uint32_t state = 1;
    for (int t = 0; t < TOKENS; t++) {
        for (int h = 0; h < HIDDEN; h++) {
            input[t][h] = rounded(2 * noise(&state));
            target[t][h] = sin(0.1 * t + h) + noise(&state);
        }
    }
    for (int step = 0; step <= STEPS; step++) {
        memcpy(layers[0].input, input, sizeof input);
        forward(&layers[0], layers[1].input);
        forward(&layers[1], output);
        losses[step] = 0;
        for (int t = 0; t < TOKENS; t++) {
            for (int h = 0; h < HIDDEN; h++) {
                output[t][h] -= target[t][h];
                losses[step] += 0.5 * output[t][h] * output[t][h] / (TOKENS * HIDDEN);
                output[t][h] /= TOKENS * HIDDEN;
            }
        }
        backward(&layers[1], output);
        backward(&layers[0], output);
    }
}

/* ---- the same start -------------------------------------------------------------------------- */

static mmlp_context *context;
static mmlp_mlp *mlp;

static void fetch(double *out, const mmlp_tensor *tensor, size_t count)
{
    float *values = malloc(count * sizeof *values);
    cr_assert(values);
    cr_assert_eq(mmlp_buffer_download(context, values, tensor->data, count * sizeof *values, NULL),
                 MMLP_OK);
    for (size_t i = 0; i < count; i++)
        out[i] = (double)values[i];
    free(values);
}

/* The library's initial weights, which another test compares with their formula. */
static void initialise(layer *l, uint64_t seed)
{
    static double fc1[2 * FFN * HIDDEN];
    int64_t shapes[2][2] = {{2 * FFN, HIDDEN}, {HIDDEN, FFN}};
    mmlp_tensor weights[2];
    for (int i = 0; i < 2; i++) {
        weights[i] = (mmlp_tensor){.device = {MMLP_DEVICE_CUDA, 0},
                                   .ndim = 2,
                                   .dtype = {MMLP_TYPE_FLOAT, 32, 1},
                                   .shape = shapes[i]};
        size_t bytes = (size_t)(shapes[i][0] * shapes[i][1]) * sizeof(float);
        cr_assert_eq(mmlp_buffer_alloc(&weights[i].data, context, bytes), MMLP_OK);
    }
    mmlp_init_args args = MMLP_INIT_ARGS_INIT;
    args.linear_fc1_weight = &weights[0];
    args.linear_fc2_weight = &weights[1];
    args.seed = seed;
    cr_assert_eq(mmlp_mlp_init_weights(mlp, &args, NULL), MMLP_OK, "%s", mmlp_last_error());
    fetch(fc1, &weights[0], 2 * FFN * HIDDEN);
    memcpy(l->gate, fc1, sizeof l->gate);
    memcpy(l->up, fc1 + FFN * HIDDEN, sizeof l->up);
    fetch(&l->down[0][0], &weights[1], HIDDEN * FFN);
    for (int i = 0; i < 2; i++)
        mmlp_buffer_free(context, weights[i].data);
}

/* ---- the example ----------------------------------------------------------------------------- */

static void run_example(double printed[STEPS + 1], const char *command)
{
    FILE *output = popen(command, "r");
    char line[128];
    int step, lines = 0;
    double loss;
    cr_assert(output);
    while (fgets(line, sizeof line, output)) {
        cr_assert_eq(sscanf(line, "step %d loss %lf", &step, &loss), 2, "%s", line);
        cr_assert(step >= 0 && step <= STEPS);
        printed[step] = loss;
        lines++;
    }
    cr_assert_eq(pclose(output), 0);
    cr_assert_eq(lines, STEPS / 10 + 1);
}

static void follows_fp64(const char *command)
{
    static layer layers[LAYERS];
    static double printed[STEPS + 1], losses[STEPS + 1];
    mmlp_bundle *bundle;
    mmlp_context_options options = MMLP_CONTEXT_OPTIONS_INIT;
    options.driver = "emulator";
    cr_assert_eq(mmlp_context_create(&context, &options), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(mmlp_bundle_open(&bundle, BUNDLE), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(mmlp_mlp_load(&mlp, context, bundle, NULL), MMLP_OK, "%s", mmlp_last_error());
    for (int i = 0; i < LAYERS; i++)
        initialise(&layers[i], (uint64_t)(1 + i));
    mmlp_mlp_unload(mlp);
    mmlp_bundle_close(bundle);
    mmlp_context_destroy(context);

    run_example(printed, command);
    train(losses, layers);
    static const int steps[] = {0, 50, 100, 200};
    for (int i = 0; i < 4; i++) {
        double difference = printed[steps[i]] / losses[steps[i]] - 1;
        fprintf(stderr, "step %3d: loss %.6f, in fp64 %.6f (%+.2f %%)\n", steps[i],
                printed[steps[i]], losses[steps[i]], 100 * difference);
        cr_expect_lt(fabs(difference), 0.02);
    }
    cr_expect_lt(losses[STEPS], 0.8 * losses[0], "it learns");
}

Test(trainer, the_loss_follows_training_in_fp64_for_200_steps)
{
    follows_fp64(EXAMPLE " " BUNDLE " emulator");
}

Test(trainer, two_ranks_with_half_of_the_tokens_each_have_the_same_losses)
{
    follows_fp64(MPIRUN EXAMPLE " " BUNDLE " emulator");
}

Test(trainer, two_ranks_with_half_of_every_weight_each_have_the_same_losses)
{
    follows_fp64(MPIRUN EXAMPLE " " BUNDLE_TP2 " emulator");
}
