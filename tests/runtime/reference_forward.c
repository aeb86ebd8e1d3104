/* reference_forward.c: the fp64 reference: its types, its stages, its speed. */
#include <criterion/criterion.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "made_bundle.h"

/* A host tensor of small exact numbers, the same in every type. */
static mmlp_tensor make_tensor(int code, int bits, int64_t *shape, int rank, int salt)
{
    int64_t count = shape[0] * (rank == 2 ? shape[1] : 1);
    void *elements = malloc((size_t)count * (size_t)bits / 8);
    for (int64_t i = 0; i < count; i++) {
        float value = (float)((i * 7 + salt) % 9 - 4) / 8.0f;
        uint32_t word;
        memcpy(&word, &value, sizeof word);
        if (bits == 64)
            ((double *)elements)[i] = (double)value;
        else if (bits == 32)
            ((float *)elements)[i] = value;
        else if (code == MMLP_TYPE_BFLOAT)
            ((uint16_t *)elements)[i] = (uint16_t)(word >> 16);
        else /* fp16: these values are normal or zero */
            ((uint16_t *)elements)[i] =
                (uint16_t)((word >> 16 & 0x8000) |
                           (value == 0 ? 0
                                       : ((word >> 23 & 0xff) - 112) << 10 | (word >> 13 & 0x3ff)));
    }
    return (mmlp_tensor){.data = elements,
                         .device = {MMLP_DEVICE_CPU, 0},
                         .ndim = rank,
                         .dtype = {(uint8_t)code, (uint8_t)bits, 1},
                         .shape = shape};
}

typedef struct inputs {
    int64_t shapes[5][2];
    mmlp_tensor tensors[5];
    mmlp_reference_forward_args args;
} inputs;

static void start(inputs *in, int64_t hidden, int64_t ffn, int64_t tokens, int code, int bits)
{
    int64_t shapes[5][2] = {
        {tokens, hidden}, {2 * ffn, hidden}, {2 * ffn, 0}, {hidden, ffn}, {tokens, 0}};
    memcpy(in->shapes, shapes, sizeof shapes);
    for (int i = 0; i < 5; i++)
        in->tensors[i] = make_tensor(code, bits, in->shapes[i], shapes[i][1] ? 2 : 1, i);
    in->args = (mmlp_reference_forward_args)MMLP_REFERENCE_FORWARD_ARGS_INIT;
    in->args.hidden_states = &in->tensors[0];
    in->args.linear_fc1_weight = &in->tensors[1];
    in->args.linear_fc1_bias = &in->tensors[2];
    in->args.linear_fc2_weight = &in->tensors[3];
    in->args.per_token_scale = &in->tensors[4];
}

static void finish(inputs *in)
{
    for (int i = 0; i < 5; i++)
        free(in->tensors[i].data);
}

static double number(int64_t i, int salt)
{
    return (double)((i * 7 + salt) % 9 - 4) / 8.0;
}

/* The output element by element, straight from the definition. */
static double plain_output(int64_t t, int64_t h, int64_t hidden, int64_t ffn)
{
    double output = 0;
    for (int64_t f = 0; f < ffn; f++) {
        double gate = 0, up = 0;
        for (int64_t k = 0; k < hidden; k++) {
            gate += number(t * hidden + k, 0) * number(f * hidden + k, 1);
            up += number(t * hidden + k, 0) * number((ffn + f) * hidden + k, 1);
        }
        gate += number(f, 2);
        up += number(ffn + f, 2);
        output += gate / (1 + exp(-gate)) * up * number(t, 4) * number(h * ffn + f, 3);
    }
    return output;
}

Test(reference, every_type_gives_the_numbers_of_the_definition)
{
    static const int types[][2] = {{MMLP_TYPE_BFLOAT, 16},
                                   {MMLP_TYPE_FLOAT, 16},
                                   {MMLP_TYPE_FLOAT, 32},
                                   {MMLP_TYPE_FLOAT, 64}};
    enum { TOKENS = 67 }; /* more than one block, and no multiple of a vector */
    made_bundle made;
    mmlp_bundle *bundle = made_open(&made);
    for (int type = 0; type < 4; type++) {
        inputs in;
        start(&in, MADE_HIDDEN, MADE_FFN, TOKENS, types[type][0], types[type][1]);
        double *output = malloc(TOKENS * MADE_HIDDEN * sizeof *output);
        in.args.output = output;
        cr_assert_eq(mmlp_bundle_reference_forward(bundle, &in.args), MMLP_OK, "%s",
                     mmlp_last_error());
        for (int64_t t = 0; t < TOKENS; t++) {
            for (int64_t h = 0; h < MADE_HIDDEN; h++)
                cr_assert_float_eq(output[t * MADE_HIDDEN + h],
                                   plain_output(t, h, MADE_HIDDEN, MADE_FFN), 1e-12);
        }
        free(output);
        finish(&in);
    }
    mmlp_bundle_close(bundle);
    made_free(&made);
}

Test(reference, special_fp16_values_are_read_exactly)
{
    static const uint16_t halves[MADE_FFN] = {0x0001, 0x03ff, 0x0400, 0x7bff, 0x8001, 0x8000};
    static const double wanted[] = {0x1p-24, 1023 * 0x1p-24, 0x1p-14, 65504, -0x1p-24, -0.0};
    made_bundle made;
    mmlp_bundle *bundle = made_open(&made);
    inputs in;
    start(&in, MADE_HIDDEN, MADE_FFN, 1, MMLP_TYPE_FLOAT, 64);
    int64_t shape[2] = {1, MADE_FFN};
    mmlp_tensor stored = {.data = (void *)halves,
                          .device = {MMLP_DEVICE_CPU, 0},
                          .ndim = 2,
                          .dtype = {MMLP_TYPE_FLOAT, 16, 1},
                          .shape = shape};
    double output[MADE_HIDDEN];
    in.args.stored_activation = &stored;
    in.args.output = output;
    for (int column = 0; column < 6; column++) {
        double *weights = in.tensors[3].data;
        memset(weights, 0, MADE_HIDDEN * MADE_FFN * sizeof *weights);
        weights[column] = 1;
        cr_assert_eq(mmlp_bundle_reference_forward(bundle, &in.args), MMLP_OK);
        cr_expect_eq(output[0], wanted[column], "column %d", column);
    }
    finish(&in);
    mmlp_bundle_close(bundle);
    made_free(&made);
}

Test(reference, an_input_that_a_wanted_stage_reads_must_be_there)
{
    made_bundle made;
    mmlp_bundle *bundle = made_open(&made);
    inputs in;
    start(&in, MADE_HIDDEN, MADE_FFN, 2, MMLP_TYPE_FLOAT, 32);
    double fc1[2 * 2 * MADE_FFN], output[2 * MADE_HIDDEN];
    in.args.linear_fc1_bias = NULL;
    in.args.fc1_output = fc1;
    cr_expect_eq(mmlp_bundle_reference_forward(bundle, &in.args), MMLP_OK);
    in.args.output = output;
    cr_expect_eq(mmlp_bundle_reference_forward(bundle, &in.args), MMLP_ERROR_ARGUMENT);
    cr_expect(strstr(mmlp_last_error(), "linear_fc1.bias: NULL was given"), "%s",
              mmlp_last_error());
    in.args.linear_fc1_bias = &in.tensors[2];
    in.tensors[0].device.device_type = MMLP_DEVICE_CUDA;
    cr_expect_eq(mmlp_bundle_reference_forward(bundle, &in.args), MMLP_ERROR_SHAPE);
    finish(&in);
    mmlp_bundle_close(bundle);
    made_free(&made);
}

Test(reference, no_tokens_are_no_work)
{
    made_bundle made;
    mmlp_bundle *bundle = made_open(&made);
    inputs in;
    start(&in, MADE_HIDDEN, MADE_FFN, 0, MMLP_TYPE_FLOAT, 32);
    double output;
    in.args.output = &output;
    cr_expect_eq(mmlp_bundle_reference_forward(bundle, &in.args), MMLP_OK, "%s", mmlp_last_error());
    finish(&in);
    mmlp_bundle_close(bundle);
    made_free(&made);
}

Test(reference, a_large_layer_takes_under_two_seconds)
{
    enum { HIDDEN = 4096, FFN = 14336, TOKENS = 8 };
    made_bundle made = made_start();
    json_t *mlp = json_object_get(made.manifest, "mlp");
    json_object_set_new(mlp, "hidden_size", json_integer(HIDDEN));
    json_object_set_new(mlp, "ffn_hidden_size", json_integer(FFN));
    json_object_set_new(mlp, "fc1_output_size", json_integer(2 * FFN));
    made_write(&made);
    mmlp_bundle *bundle = NULL;
    cr_assert_eq(mmlp_bundle_open(&bundle, made.folder), MMLP_OK, "%s", mmlp_last_error());
    inputs in;
    start(&in, HIDDEN, FFN, TOKENS, MMLP_TYPE_BFLOAT, 16);
    double *output = malloc(TOKENS * HIDDEN * sizeof *output);
    in.args.output = output;
    struct timespec start_time, end_time;
    clock_gettime(CLOCK_MONOTONIC, &start_time);
    cr_assert_eq(mmlp_bundle_reference_forward(bundle, &in.args), MMLP_OK);
    clock_gettime(CLOCK_MONOTONIC, &end_time);
    double seconds = (double)(end_time.tv_sec - start_time.tv_sec) +
                     1e-9 * (double)(end_time.tv_nsec - start_time.tv_nsec);
    cr_log_info("%.2f seconds", seconds);
    cr_expect_lt(seconds, MMLP_TEST_SLOW ? 20 : 2);
    free(output);
    finish(&in);
    mmlp_bundle_close(bundle);
    made_free(&made);
}
