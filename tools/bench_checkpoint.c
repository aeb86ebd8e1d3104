/*
 * bench_checkpoint.c: megamlp-bench checkpoint, how fast two ranks save and load a stack of MLPs,
 * beside cp of the same file. Each makes a new file; what waits to be written is flushed before.
 */
#include <fcntl.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "tool.h"

extern char **environ;

enum {
    RANKS = 2,
    LAYERS = 6, /* of Llama 3 8B: 2.0 GiB */
    HIDDEN_SIZE = 4096,
    FFN_HIDDEN_SIZE = 14336,
    TENSORS = 3, /* of a layer: gate and up, fc2 */
    PATTERN_BYTES = 1 << 20
};

typedef enum step { SAVE, LOAD, COPY, COPY_FLUSHED, STEPS } step;
static const char *const step_names[STEPS] = {"save", "load", "cp", "cp, then fsync"};

typedef struct stack {
    int rank;
    const char *path;
    const mmlp_comm_id *id;
    step step;
    mmlp_context *context;
    struct ncclComm *comm;
    char *weights[LAYERS][2];
    mmlp_sharded_tensor places[LAYERS * TENSORS];
    mmlp_checkpoint_tensor tensors[LAYERS * TENSORS];
    int code; /* 0, or the exit code after printing why */
} stack;

/* ---- what a rank has ------------------------------------------------------------------------- */

/* Other bytes than zeros, which a file system might not store. */
static unsigned char pattern[PATTERN_BYTES];

static void make_pattern(void)
{
    for (size_t i = 0; i < PATTERN_BYTES; i++)
        pattern[i] = (unsigned char)(i * i + i / 251);
}

static mmlp_status fill(mmlp_context *context, char *weight, size_t bytes)
{
    mmlp_status status = MMLP_OK;
    for (size_t at = 0; status == MMLP_OK && at < bytes; at += PATTERN_BYTES)
        status = mmlp_buffer_upload(context, weight + at, pattern, PATTERN_BYTES, NULL);
    return status;
}

static mmlp_status make_weight(char **out, mmlp_context *context, size_t bytes)
{
    mmlp_status status = mmlp_buffer_alloc((void **)out, context, bytes);
    return status == MMLP_OK ? fill(context, *out, bytes) : status;
}

static mmlp_status take_entries(stack *s, const mmlp_sharded_dict *dict, int layer)
{
    mmlp_status status = MMLP_OK;
    for (int i = 0; status == MMLP_OK && i < TENSORS; i++) {
        mmlp_sharded_tensor *place = &s->places[layer * TENSORS + i];
        mmlp_checkpoint_tensor *tensor = &s->tensors[layer * TENSORS + i];
        *place = (mmlp_sharded_tensor)MMLP_SHARDED_TENSOR_INIT;
        *tensor = (mmlp_checkpoint_tensor)MMLP_CHECKPOINT_TENSOR_INIT;
        status = mmlp_sharded_tensor_get(dict, i, place);
        tensor->tensor = place;
        tensor->data = s->weights[layer][i / 2] + 2 * place->first_row * place->local_shape[1];
    }
    return status;
}

static mmlp_status make_layer(stack *s, int layer)
{
    const mmlp_sharded_offset offset = {0, layer, LAYERS};
    mmlp_sharded_module module = MMLP_SHARDED_MODULE_INIT;
    mmlp_sharded_options options = MMLP_SHARDED_OPTIONS_INIT;
    mmlp_sharded_dict *dict = NULL;
    module.hidden_size = HIDDEN_SIZE;
    module.ffn_hidden_size = FFN_HIDDEN_SIZE / RANKS;
    module.tensor_model_parallel_size = RANKS;
    module.gated_linear_unit = 1;
    options.prefix = "decoder.layers.mlp.";
    options.offsets = &offset;
    options.offset_count = 1;
    options.tp_rank = s->rank;
    const size_t bytes = (size_t)2 * HIDDEN_SIZE * FFN_HIDDEN_SIZE / RANKS;
    mmlp_status status = mmlp_sharded_state_dict(&dict, &module, &options);
    if (status == MMLP_OK)
        status = make_weight(&s->weights[layer][0], s->context, 2 * bytes);
    if (status == MMLP_OK)
        status = make_weight(&s->weights[layer][1], s->context, bytes);
    if (status == MMLP_OK)
        status = take_entries(s, dict, layer);
    mmlp_sharded_dict_free(dict);
    return status;
}

static void *make_stack(void *argument)
{
    stack *s = argument;
    mmlp_status status = mmlp_comm_create(&s->comm, s->context, s->id, RANKS, s->rank);
    for (int layer = 0; status == MMLP_OK && layer < LAYERS; layer++)
        status = make_layer(s, layer);
    s->code = status == MMLP_OK ? 0 : tool_fail_status(status);
    return NULL;
}

static void free_stack(stack *s)
{
    for (int layer = 0; layer < LAYERS; layer++)
        for (int i = 0; i < 2; i++)
            mmlp_buffer_free(s->context, s->weights[layer][i]);
    mmlp_comm_destroy(s->context, s->comm);
    mmlp_context_destroy(s->context);
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void *move_stack(void *argument)
{
    stack *s = argument;
    mmlp_checkpoint_args args = MMLP_CHECKPOINT_ARGS_INIT;
    args.tensors = s->tensors;
    args.count = LAYERS * TENSORS;
    args.context = s->context;
    args.comm = s->comm;
    mmlp_status status = s->step == SAVE ? mmlp_checkpoint_save(s->path, &args)
                                         : mmlp_checkpoint_load(s->path, &args);
    s->code = status == MMLP_OK ? 0 : tool_fail_status(status);
    return NULL;
}

/* On a thread of each rank. Returns the exit code of the first that failed. */
static int on_every_rank(stack stacks[RANKS], void *(*body)(void *))
{
    pthread_t threads[RANKS];
    int code = 0;
    for (int i = 0; i < RANKS; i++)
        if (pthread_create(&threads[i], NULL, body, &stacks[i]) != 0)
            return tool_fail(EXIT_DEVICE, "cannot start a thread");
    for (int i = 0; i < RANKS; i++) {
        pthread_join(threads[i], NULL);
        code = code ? code : stacks[i].code;
    }
    return code;
}

static int copy_file(const char *from, const char *to, int flushes)
{
    const char *const arguments[] = {"cp", from, to, NULL};
    pid_t child;
    int status, descriptor;
    if (posix_spawnp(&child, "cp", NULL, NULL, (char *const *)arguments, environ) != 0 ||
        waitpid(child, &status, 0) != child || status != 0)
        return tool_fail(EXIT_INPUT, "cp %s %s: failed", from, to);
    if (!flushes)
        return 0;
    descriptor = open(to, O_WRONLY | O_CLOEXEC);
    if (descriptor < 0 || fsync(descriptor) != 0)
        return tool_fail(EXIT_INPUT, "%s: cannot flush", to);
    close(descriptor);
    return 0;
}

static int time_step(double *seconds, stack stacks[RANKS], step kind, const char *copy)
{
    unlink(copy);
    if (kind == SAVE)
        unlink(stacks[0].path);
    sync();
    const double start = tool_milliseconds();
    int code;
    for (int i = 0; i < RANKS; i++)
        stacks[i].step = kind;
    if (kind == SAVE || kind == LOAD)
        code = on_every_rank(stacks, move_stack);
    else
        code = copy_file(stacks[0].path, copy, kind == COPY_FLUSHED);
    *seconds = (tool_milliseconds() - start) / 1e3;
    return code;
}

/* Each step comes first, second, ... in turn: what came before it has used memory and disk. */
static int time_all(double seconds[STEPS][BENCH_RUNS], stack stacks[RANKS], const char *copy)
{
    int code = time_step(&seconds[SAVE][0], stacks, SAVE, copy);
    for (int run = 0; run < BENCH_RUNS; run++)
        for (int i = 0; code == 0 && i < STEPS; i++) {
            const step kind = (step)((run + i) % STEPS);
            code = time_step(&seconds[kind][run], stacks, kind, copy);
        }
    return code;
}

static int print(double seconds[STEPS][BENCH_RUNS], const char *path)
{
    struct stat properties;
    double medians[STEPS];
    if (stat(path, &properties) != 0)
        return tool_fail(EXIT_INPUT, "%s: is gone", path);
    const double gib = (double)properties.st_size / (1 << 30);
    for (int i = 0; i < STEPS; i++)
        medians[i] = bench_median(seconds[i]);
    printf("%d layers of %d x %d, gated, bf16, %d ranks: %.2f GiB in %s\n\n", LAYERS, HIDDEN_SIZE,
           FFN_HIDDEN_SIZE, RANKS, gib, path);
    printf("%-16s %8s %8s %10s %18s\n", "", "seconds", "GiB/s", "x cp", "x cp, then fsync");
    for (int i = 0; i < STEPS; i++)
        printf("%-16s %8.2f %8.2f %10.2f %18.2f\n", step_names[i], medians[i], gib / medians[i],
               medians[COPY] / medians[i], medians[COPY_FLUSHED] / medians[i]);
    return 0;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static int open_devices(stack stacks[RANKS], mmlp_comm_id *id, const char *path)
{
    mmlp_status status = MMLP_OK;
    setenv("MMLP_DRIVER", "emulator", 0);
    setenv("MMLP_EMULATOR_DEVICE", "a100:2", 0);
    for (int i = 0; status == MMLP_OK && i < RANKS; i++) {
        mmlp_context_options options = MMLP_CONTEXT_OPTIONS_INIT;
        options.device = i;
        stacks[i] = (stack){.rank = i, .path = path, .id = id};
        status = mmlp_context_create(&stacks[i].context, &options);
    }
    if (status == MMLP_OK)
        status = mmlp_comm_unique_id(id, stacks[0].context);
    return status == MMLP_OK ? 0 : tool_fail_status(status);
}

static int run(const char *path, const char *copy)
{
    stack stacks[RANKS] = {{0}};
    double seconds[STEPS][BENCH_RUNS];
    mmlp_comm_id id;
    make_pattern();
    int code = open_devices(stacks, &id, path);
    if (code == 0)
        code = on_every_rank(stacks, make_stack);
    if (code == 0)
        code = time_all(seconds, stacks, copy);
    if (code == 0)
        code = print(seconds, path);
    for (int i = 0; i < RANKS; i++)
        free_stack(&stacks[i]);
    return code;
}

int bench_checkpoint(void)
{
    char *folder = tool_temporary_folder(), *path = NULL, *copy = NULL;
    int code = EXIT_DEVICE;
    if (!folder)
        return code;
    if (asprintf(&path, "%s/stack.safetensors", folder) < 0 ||
        asprintf(&copy, "%s/copy.safetensors", folder) < 0)
        tool_fail(code, "out of memory");
    else
        code = run(path, copy);
    free(copy);
    free(path);
    tool_remove_folder(folder);
    return code;
}
