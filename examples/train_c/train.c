/*
 * train.c: trains two MLPs, one behind the other, by megamlp.h alone: forward, dgrad and delayed
 * weight gradients on the device, SGD on fp32 weights on the host.
 *
 *     megamlp-gen bundle examples/train_c/model.lua -o model.mlp
 *     mpicc train.c $(pkg-config --cflags --libs megamlp) -lm -o train && ./train model.mlp
 * emulator
 *
 * Under mpirun the ranks share the work: with the bundle of model_tp2.lua each has a part of every
 * weight (tensor parallelism), with that of model.lua a part of the tokens (data parallelism).
 *
 *     mpirun -np 2 ./train model.mlp emulator
 *
 * The task is one batch of tokens: waves, which can be learnt, and noise, which cannot. The loss is
 * half the mean squared difference; it is printed every ten steps.
 */
#include <math.h>
#include <megamlp/megamlp.h>
#include <mpi.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 2, TOKENS = 128, STEPS = 200, SEED = 1 };
static const float LEARNING_RATE = 1.0f;

static mmlp_context *context;
static mmlp_mlp *mlp;               /* both layers have the same shape: one handle serves them */
static void *device[64], *host[64]; /* all memory, freed at the end */
static int device_count, host_count;

static int ranks = 1, rank;     /* processes of mpirun */
static int64_t tokens = TOKENS; /* of this rank */
static struct ncclComm *comm;   /* of all ranks; NULL: there is one */

static void check(mmlp_status status)
{
    if (status != MMLP_OK) {
        fprintf(stderr, "train: %s\n", mmlp_last_error());
        if (ranks > 1)
            MPI_Abort(MPI_COMM_WORLD, 1); /* the others wait for this one */
        exit(1);
    }
}

static void *device_memory(size_t bytes)
{
    check(mmlp_buffer_alloc(&device[device_count], context, bytes));
    return device[device_count++];
}

static void *host_memory(size_t bytes)
{
    if (!(host[host_count] = calloc(1, bytes)))
        exit(1);
    return host[host_count++];
}

typedef struct tensor {
    mmlp_tensor view;
    int64_t shape[2];
    size_t elements, bytes;
} tensor;

static void make_tensor(tensor *t, uint8_t type, uint8_t bits, int64_t rows, int64_t columns)
{
    size_t elements = (size_t)(rows * columns), bytes = elements * bits / 8;
    *t = (tensor){.shape = {rows, columns}, .elements = elements, .bytes = bytes};
    t->view = (mmlp_tensor){.data = device_memory(bytes),
                            .device = {MMLP_DEVICE_CUDA, 0},
                            .ndim = 2,
                            .dtype = {type, bits, 1},
                            .shape = t->shape};
}

static uint16_t to_bf16(float value) /* to nearest, ties to even */
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static float from_bf16(uint16_t half)
{
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* bf16 on the device, fp32 on the host, gradients in fp32. */
typedef struct weight {
    tensor value, main_grad;
    float *master, *gradient; /* on the host, as what follows */
    uint16_t *rounded;
} weight;

static void make_weight(weight *w, int64_t rows, int64_t columns)
{
    make_tensor(&w->value, MMLP_TYPE_BFLOAT, 16, rows, columns);
    make_tensor(&w->main_grad, MMLP_TYPE_FLOAT, 32, rows, columns);
    w->master = host_memory(w->main_grad.bytes);
    w->gradient = host_memory(w->main_grad.bytes);
    w->rounded = host_memory(w->value.bytes);
}

/* master -= rate * main_grad; the device gets the rounded numbers. */
static void update(weight *w, float rate)
{
    check(mmlp_buffer_download(context, w->gradient, w->main_grad.view.data, w->main_grad.bytes,
                               NULL));
    for (size_t i = 0; i < w->value.elements; i++) {
        w->master[i] -= rate * w->gradient[i];
        w->rounded[i] = to_bf16(w->master[i]);
    }
    check(mmlp_buffer_upload(context, w->value.view.data, w->rounded, w->value.bytes, NULL));
}

typedef struct layer {
    weight fc1, fc2;
    tensor output, grad_input;
    mmlp_forward_args forward;
    mmlp_dgrad_args dgrad;
    mmlp_reduce_grads_args reduce;
} layer;

/* Everything a pass is given stays where it is: the arguments are filled once. */
static void make_layer(layer *l, const mmlp_bundle_properties *p, const tensor *input,
                       const tensor *grad_output)
{
    mmlp_memory forward = MMLP_MEMORY_INIT, dgrad = MMLP_MEMORY_INIT;
    check(mmlp_mlp_memory(mlp, MMLP_PASS_FORWARD, tokens, &forward));
    check(mmlp_mlp_memory(mlp, MMLP_PASS_DGRAD, tokens, &dgrad));
    make_weight(&l->fc1, p->fc1_output_size, p->hidden_size);
    make_weight(&l->fc2, p->hidden_size, p->ffn_hidden_size);
    make_tensor(&l->output, MMLP_TYPE_BFLOAT, 16, tokens, p->hidden_size);
    make_tensor(&l->grad_input, MMLP_TYPE_BFLOAT, 16, tokens, p->hidden_size);

    mmlp_forward_args *f = &l->forward;
    *f = (mmlp_forward_args)MMLP_FORWARD_ARGS_INIT;
    f->hidden_states = &input->view;
    f->linear_fc1_weight = &l->fc1.value.view;
    f->linear_fc2_weight = &l->fc2.value.view;
    f->output = &l->output.view;
    f->saved_bytes = forward.saved_bytes;
    f->scratch_bytes = forward.scratch_bytes;
    f->saved = device_memory(f->saved_bytes);
    f->scratch = device_memory(f->scratch_bytes);

    mmlp_dgrad_args *d = &l->dgrad;
    *d = (mmlp_dgrad_args)MMLP_DGRAD_ARGS_INIT;
    d->grad_output = &grad_output->view;
    d->hidden_states = f->hidden_states;
    d->linear_fc1_weight = f->linear_fc1_weight;
    d->linear_fc2_weight = f->linear_fc2_weight;
    d->grad_hidden_states = &l->grad_input.view;
    d->grad_linear_fc1_weight = &l->fc1.main_grad.view;
    d->grad_linear_fc2_weight = &l->fc2.main_grad.view;
    d->beta = 0; /* one microbatch a step: nothing to add to */
    d->saved = f->saved;
    d->saved_bytes = f->saved_bytes;
    d->pending_bytes = dgrad.pending_bytes;
    d->scratch_bytes = dgrad.scratch_bytes;
    d->pending = device_memory(d->pending_bytes);
    d->scratch = device_memory(d->scratch_bytes);

    l->reduce = (mmlp_reduce_grads_args)MMLP_REDUCE_GRADS_ARGS_INIT;
    l->reduce.grad_linear_fc1_weight = d->grad_linear_fc1_weight;
    l->reduce.grad_linear_fc2_weight = d->grad_linear_fc2_weight;
}

/* MPI carries the communicator's id and the losses, and nothing else. */
static void start_ranks(int *argc, char ***argv)
{
    if (!getenv("OMPI_COMM_WORLD_SIZE") && !getenv("PMI_SIZE"))
        return; /* not under mpirun */
    MPI_Init(argc, argv);
    MPI_Comm_size(MPI_COMM_WORLD, &ranks);
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
}

/* All ranks share every MLP, or each has its own part of the tokens. */
static void share_work(const mmlp_bundle_properties *p)
{
    mmlp_comm_id id;
    if (p->tensor_model_parallel_size != ranks && p->tensor_model_parallel_size != 1) {
        fprintf(stderr, "train: %s is for mpirun -np %d\n", p->name, p->tensor_model_parallel_size);
        exit(2);
    }
    if (ranks == 1)
        return;
    if (rank == 0)
        check(mmlp_comm_unique_id(&id, context));
    MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD);
    check(mmlp_comm_create(&comm, context, &id, ranks, rank));
    bool splits_tokens = p->tensor_model_parallel_size == 1;
    check(mmlp_mlp_bind_comm(mlp, splits_tokens ? MMLP_GROUP_DP : MMLP_GROUP_TP, comm));
    if (splits_tokens)
        tokens = TOKENS / ranks;
}

/* Initial weights, in fp32: main_grad is there for them, with the right type and shape. */
static void initialise(layer *l, uint64_t seed)
{
    mmlp_init_args init = MMLP_INIT_ARGS_INIT;
    init.linear_fc1_weight = &l->fc1.main_grad.view;
    init.linear_fc2_weight = &l->fc2.main_grad.view;
    init.seed = seed;
    check(mmlp_mlp_init_weights(mlp, &init, NULL));
    update(&l->fc1, -1);
    update(&l->fc2, -1);
}

static float noise(uint32_t *state) /* uniform in [-1, 1) */
{
    *state = *state * 1664525u + 1013904223u;
    return (float)(*state >> 8) * 0x1p-23f - 1;
}

static void make_task(uint16_t *input, float *target, int64_t hidden)
{
    uint32_t state = SEED;
    for (int64_t i = 0; i < TOKENS * hidden; i++) {
        input[i] = to_bf16(2 * noise(&state));
        target[i] = sinf(0.1f * (float)(i / hidden) + (float)(i % hidden)) + noise(&state);
    }
}

/* The loss of this rank's tokens, as a part of all; its gradient takes the output's place. */
static double loss_of(uint16_t *output, const float *target, size_t own, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < own; i++) {
        float difference = from_bf16(output[i]) - target[i];
        sum += 0.5 * (double)difference * (double)difference;
        output[i] = to_bf16(difference / (float)count);
    }
    if (own < count)
        MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
    return sum / (double)count;
}

int main(int argc, char **argv)
{
    mmlp_context_options context_options = MMLP_CONTEXT_OPTIONS_INIT;
    mmlp_mlp_options options = MMLP_MLP_OPTIONS_INIT;
    mmlp_bundle_properties p = MMLP_BUNDLE_PROPERTIES_INIT;
    mmlp_bundle *bundle;
    start_ranks(&argc, &argv);
    if (argc < 2) {
        fprintf(stderr, "usage: train NAME.mlp [cuda|emulator]\n");
        return 2;
    }
    context_options.driver = argc > 2 ? argv[2] : NULL; /* a GPU for each rank: give it .device */
    options.wgrad_depth = LAYERS;
    check(mmlp_context_create(&context, &context_options));
    check(mmlp_bundle_open(&bundle, argv[1]));
    check(mmlp_bundle_get(bundle, &p));
    check(mmlp_mlp_load(&mlp, context, bundle, &options));
    share_work(&p);
    tensor input, grad_output;
    layer layers[LAYERS];
    make_tensor(&input, MMLP_TYPE_BFLOAT, 16, tokens, p.hidden_size);
    make_tensor(&grad_output, MMLP_TYPE_BFLOAT, 16, tokens, p.hidden_size);
    for (int i = 0; i < LAYERS; i++) {
        make_layer(&layers[i], &p, i == 0 ? &input : &layers[i - 1].output,
                   i == LAYERS - 1 ? &grad_output : &layers[i + 1].grad_input);
        initialise(&layers[i], (uint64_t)(SEED + i));
    }
    const size_t all = TOKENS * (size_t)p.hidden_size, own = input.elements;
    const size_t first = own < all ? (size_t)rank * own : 0;
    uint16_t *values = host_memory(all * sizeof *values);
    float *target = host_memory(all * sizeof *target);
    make_task(values, target, p.hidden_size);
    check(mmlp_buffer_upload(context, input.view.data, values + first, input.bytes, NULL));
    const void *output = layers[LAYERS - 1].output.view.data;
    for (int step = 0; step <= STEPS; step++) {
        for (int i = 0; i < LAYERS; i++)
            check(mmlp_mlp_forward(mlp, &layers[i].forward, NULL));
        check(mmlp_buffer_download(context, values, output, input.bytes, NULL));
        double loss = loss_of(values, target + first, own, all);
        if (step % 10 == 0 && rank == 0)
            printf("step %3d  loss %.6f\n", step, loss);
        check(mmlp_buffer_upload(context, grad_output.view.data, values, grad_output.bytes, NULL));
        for (int i = LAYERS - 1; i >= 0; i--)
            check(mmlp_mlp_dgrad(mlp, &layers[i].dgrad, NULL));
        for (int i = 0; i < LAYERS; i++)
            check(mmlp_mlp_backward_dw(mlp, NULL)); /* in the order of the dgrad calls */
        for (int i = 0; own < all && i < LAYERS; i++)
            check(mmlp_mlp_reduce_grads(mlp, &layers[i].reduce, -1));
        check(mmlp_mlp_wait_grads(mlp, NULL));
        for (int i = 0; i < LAYERS; i++) {
            update(&layers[i].fc1, LEARNING_RATE);
            update(&layers[i].fc2, LEARNING_RATE);
        }
    }
    while (device_count > 0)
        check(mmlp_buffer_free(context, device[--device_count]));
    while (host_count > 0)
        free(host[--host_count]);
    mmlp_mlp_unload(mlp);
    mmlp_bundle_close(bundle);
    check(mmlp_comm_destroy(context, comm));
    mmlp_context_destroy(context);
    if (ranks > 1)
        MPI_Finalize();
    return 0;
}
