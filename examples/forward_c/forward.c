/*
 * forward.c: the forward pass of an MLP from a program of one's own, by megamlp.h alone.
 *
 *     megamlp-gen bundle specs/llama3_8b.lua -o llama3_8b.mlp
 *     cc forward.c $(pkg-config --cflags --libs megamlp) -o forward && ./forward llama3_8b.mlp
 * emulator
 *
 * It makes random inputs on the device, runs eight tokens, and prints the first numbers of the
 * result.
 */
#include <math.h>
#include <megamlp/megamlp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS = 8 };

static void check(mmlp_status status)
{
    if (status == MMLP_OK)
        return;
    fprintf(stderr, "forward: %s\n", mmlp_last_error());
    exit(1);
}

/* A tensor of the device: two sizes and their memory. A trainer would pass its own (DLPack's
 * DLTensor has the same layout). */
typedef struct tensor {
    mmlp_tensor view;
    int64_t shape[2];
} tensor;

static void make_tensor(tensor *t, mmlp_context *context, const char *dtype, int64_t rows,
                        int64_t columns)
{
    memset(t, 0, sizeof *t);
    t->shape[0] = rows;
    t->shape[1] = columns;
    t->view.ndim = columns > 0 ? 2 : 1;
    t->view.shape = t->shape;
    t->view.device.device_type = MMLP_DEVICE_CUDA;
    t->view.dtype.lanes = 1;
    t->view.dtype.code = strcmp(dtype, "bf16") == 0 ? MMLP_TYPE_BFLOAT : MMLP_TYPE_FLOAT;
    t->view.dtype.bits = strcmp(dtype, "fp32") == 0 ? 32 : 16;
    size_t elements = (size_t)rows * (size_t)(columns > 0 ? columns : 1);
    check(mmlp_buffer_alloc(&t->view.data, context, elements * t->view.dtype.bits / 8));
}

static void print_first(const uint16_t *bits, int count)
{
    for (int i = 0; i < count; ++i) {
        uint32_t word = (uint32_t)bits[i] << 16; /* bf16 is the upper half of fp32 */
        float value;
        memcpy(&value, &word, sizeof value);
        printf(" %9.5f", (double)value);
    }
    printf("\n");
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: forward NAME.mlp [cuda|emulator]\n");
        return 2;
    }
    mmlp_context_options options = MMLP_CONTEXT_OPTIONS_INIT;
    options.driver = argc > 2 ? argv[2] : NULL;
    mmlp_context *context;
    mmlp_bundle *bundle;
    mmlp_mlp *mlp;
    check(mmlp_context_create(&context, &options));
    check(mmlp_bundle_open(&bundle, argv[1]));
    check(mmlp_mlp_load(&mlp, context, bundle, NULL));

    mmlp_bundle_properties p = MMLP_BUNDLE_PROPERTIES_INIT;
    check(mmlp_bundle_get(bundle, &p));
    printf("%s: hidden %lld, ffn %lld, %s\n", p.name, (long long)p.hidden_size,
           (long long)p.ffn_hidden_size, p.params_dtype);
    if (strcmp(p.params_dtype, "bf16") != 0 || p.add_bias_linear || p.per_token_scale) {
        fprintf(stderr, "forward: this example takes a bf16 MLP without bias and scale\n");
        return 3;
    }

    tensor hidden_states, fc1_weight, fc2_weight, output;
    make_tensor(&hidden_states, context, p.params_dtype, TOKENS, p.hidden_size);
    make_tensor(&fc1_weight, context, p.params_dtype, p.fc1_output_size, p.hidden_size);
    make_tensor(&fc2_weight, context, p.params_dtype, p.hidden_size, p.ffn_hidden_size);
    make_tensor(&output, context, p.params_dtype, TOKENS, p.hidden_size);
    check(mmlp_mlp_fill_normal(mlp, &hidden_states.view, 1, 1, NULL));
    check(mmlp_mlp_fill_normal(mlp, &fc1_weight.view, 1 / sqrt((double)p.hidden_size), 2, NULL));
    check(
        mmlp_mlp_fill_normal(mlp, &fc2_weight.view, 1 / sqrt((double)p.ffn_hidden_size), 3, NULL));

    mmlp_memory memory = MMLP_MEMORY_INIT;
    void *scratch;
    check(mmlp_mlp_memory(mlp, MMLP_PASS_FORWARD, TOKENS, &memory));
    check(mmlp_buffer_alloc(&scratch, context, memory.scratch_bytes));

    mmlp_forward_args args = MMLP_FORWARD_ARGS_INIT;
    args.hidden_states = &hidden_states.view;
    args.linear_fc1_weight = &fc1_weight.view;
    args.linear_fc2_weight = &fc2_weight.view;
    args.output = &output.view;
    args.scratch = scratch;
    args.scratch_bytes = memory.scratch_bytes;
    check(mmlp_mlp_forward(mlp, &args, NULL));
    check(mmlp_stream_sync(context, NULL));

    uint16_t first[4];
    check(mmlp_buffer_download(context, first, output.view.data, sizeof first, NULL));
    printf("output[0][0..3]:");
    print_first(first, 4);

    check(mmlp_buffer_free(context, scratch));
    check(mmlp_buffer_free(context, hidden_states.view.data));
    check(mmlp_buffer_free(context, fc1_weight.view.data));
    check(mmlp_buffer_free(context, fc2_weight.view.data));
    check(mmlp_buffer_free(context, output.view.data));
    mmlp_mlp_unload(mlp);
    mmlp_bundle_close(bundle);
    mmlp_context_destroy(context);
    return 0;
}
