/*
 * made_backward.c: the backward pass of the bundle written by hand: one thread per output, sums in
 * rising order, so that every result repeats bit for bit.
 */
#include <criterion/criterion.h>
#include <string.h>

#include "made_bundle.h"

#define TEXT(...) #__VA_ARGS__

/* d(fc1_output), the activation again, and the terms of the gradient of the scale. */
static const char fc2_dgrad_source[] =
    "constexpr int hidden = 24, ffn = 40;\n" TEXT(extern "C" __global__ void made_fc2_dgrad(
        const float *dy, const float *w, const float *fc1, const float *b, const float *scale,
        float *dz, float *act, float *terms, long long tokens) {
        long long t = blockIdx.x;
        int f = threadIdx.x;
        if (t >= tokens || f >= ffn)
            return;
        float d = 0;
        for (int h = 0; h < hidden; h++)
            d += dy[t * hidden + h] * w[h * ffn + f];
        float gate = fc1[t * 2 * ffn + f] + b[f];
        float up = fc1[t * 2 * ffn + ffn + f] + b[ffn + f];
        float s = 1 / (1 + expf(-gate));
        dz[t * 2 * ffn + f] = d * scale[t] * up * s * (1 + gate * (1 - s));
        dz[t * 2 * ffn + ffn + f] = d * scale[t] * gate * s;
        act[t * ffn + f] = gate * s * up * scale[t];
        terms[t * ffn + f] = d * gate * s * up;
    }) "\n";

static const char scale_source[] = TEXT(
    extern "C" __global__ void made_scale(const float *terms, float *dscale, long long tokens) {
        long long t = blockIdx.x;
        float sum = 0;
        if (t >= tokens || threadIdx.x > 0)
            return;
        for (int f = 0; f < 40; f++)
            sum += terms[t * 40 + f];
        dscale[t] = sum;
    }) "\n";

/* Sums of two tokens each, and then of those. */
static const char pairs_source[] =
    TEXT(extern "C" __global__ void made_pairs(const float *dz, float *pairs, long long tokens) {
        long long t = 2ll * blockIdx.x;
        int c = threadIdx.x;
        if (t >= tokens || c >= 80)
            return;
        pairs[blockIdx.x * 80 + c] = dz[t * 80 + c] + (t + 1 < tokens ? dz[(t + 1) * 80 + c] : 0);
    }) "\n";

static const char fc1_bias_source[] = TEXT(extern "C" __global__ void made_fc1_bias(
    const float *pairs, float *db, int dtype, int beta, long long tokens) {
    int c = threadIdx.x;
    float sum = 0;
    if (dtype != 2 || c >= 80)
        return;
    for (long long p = 0; p < (tokens + 1) / 2; p++)
        sum += pairs[p * 80 + c];
    db[c] = beta ? db[c] + sum : sum;
}) "\n";

static const char fc2_bias_source[] = TEXT(extern "C" __global__ void made_fc2_bias(
    const float *dy, float *db, int dtype, int beta, long long tokens) {
    int h = threadIdx.x;
    float sum = 0;
    if (dtype != 2 || h >= 24)
        return;
    for (long long t = 0; t < tokens; t++)
        sum += dy[t * 24 + h];
    db[h] = beta ? db[h] + sum : sum;
}) "\n";

static const char fc1_dgrad_source[] = TEXT(extern "C" __global__ void made_fc1_dgrad(
    const float *dz, const float *w, float *dx, long long tokens) {
    long long t = blockIdx.x;
    int h = threadIdx.x;
    float sum = 0;
    if (t >= tokens || h >= 24)
        return;
    for (int c = 0; c < 80; c++)
        sum += dz[t * 80 + c] * w[c * 24 + h];
    dx[t * 24 + h] = sum;
}) "\n";

static const char fc2_wgrad_source[] = TEXT(extern "C" __global__ void made_fc2_wgrad(
    const float *dy, const float *act, float *dw, int beta, long long tokens) {
    int h = blockIdx.x;
    int f = threadIdx.x;
    float sum = 0;
    if (f >= 40)
        return;
    for (long long t = 0; t < tokens; t++)
        sum += dy[t * 24 + h] * act[t * 40 + f];
    dw[h * 40 + f] = beta ? dw[h * 40 + f] + sum : sum;
}) "\n";

static const char fc1_wgrad_source[] = TEXT(extern "C" __global__ void made_fc1_wgrad(
    const float *dz, const float *x, float *dw, int beta, long long tokens) {
    int c = blockIdx.x;
    int h = threadIdx.x;
    float sum = 0;
    if (h >= 24)
        return;
    for (long long t = 0; t < tokens; t++)
        sum += dz[t * 80 + c] * x[t * 24 + h];
    dw[c * 24 + h] = beta ? dw[c * 24 + h] + sum : sum;
}) "\n";

/* rows 0: the tokens; threads cover the columns. */
static const struct {
    const char *name, *source, *pass, *step, *when;
    int rows, tile_m, columns, threads;
    const char *arguments;
} kernels[] = {
    {"made_fc2_dgrad", fc2_dgrad_source, "dgrad", "linear_fc2", "always", 0, 1, 40, 64,
     "grad_output linear_fc2.weight fc1_output linear_fc1.bias per_token_scale grad_fc1_output "
     "recomputed_activation scale_terms tokens"},
    {"made_scale", scale_source, "dgrad", "per_token_scale", "always", 0, 1, 1, 32,
     "scale_terms grad.per_token_scale tokens"},
    {"made_pairs", pairs_source, "dgrad", "linear_fc1_bias_pairs", "always", 0, 2, 80, 96,
     "grad_fc1_output bias_pairs tokens"},
    {"made_fc1_bias", fc1_bias_source, "dgrad", "linear_fc1_bias", "always", 1, 1, 80, 96,
     "bias_pairs grad.linear_fc1.bias grad.linear_fc1.bias.dtype beta tokens"},
    {"made_fc2_bias", fc2_bias_source, "dgrad", "linear_fc2_bias", "grad.linear_fc2.bias", 1, 1, 24,
     32, "grad_output grad.linear_fc2.bias grad.linear_fc2.bias.dtype beta tokens"},
    {"made_fc1_dgrad", fc1_dgrad_source, "dgrad", "linear_fc1", "always", 0, 1, 24, 32,
     "grad_fc1_output linear_fc1.weight grad.hidden_states tokens"},
    {"made_fc2_wgrad", fc2_wgrad_source, "backward_dw", "linear_fc2", "always", 24, 1, 40, 64,
     "grad_output recomputed_activation grad.linear_fc2.weight beta tokens"},
    {"made_fc1_wgrad", fc1_wgrad_source, "backward_dw", "linear_fc1", "always", 80, 1, 24, 32,
     "grad_fc1_output hidden_states grad.linear_fc1.weight beta tokens"},
};
enum { KERNELS = sizeof kernels / sizeof kernels[0] };

static json_t *split_words(const char *words)
{
    json_t *array = json_array();
    char copy[512];
    cr_assert_lt((size_t)snprintf(copy, sizeof copy, "%s", words), sizeof copy);
    for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
        json_array_append_new(array, json_string(word));
    return array;
}

static void add_buffer(made_bundle *made, const char *name, const char *lifetime, int columns,
                       int tokens_per_row)
{
    json_array_append_new(json_object_get(made->manifest, "buffers"),
                          json_pack("{s:s,s:s,s:s,s:s,s:i,s:i}", "name", name, "pass", "dgrad",
                                    "lifetime", lifetime, "dtype", "fp32", "columns", columns,
                                    "tokens_per_row", tokens_per_row));
}

void made_add_backward(made_bundle *made, bool delayed)
{
    const char *lifetime = delayed ? "pending" : "scratch";
    add_buffer(made, "grad_fc1_output", lifetime, 2 * MADE_FFN, 1);
    add_buffer(made, "recomputed_activation", lifetime, MADE_FFN, 1);
    add_buffer(made, "scale_terms", "scratch", MADE_FFN, 1);
    add_buffer(made, "bias_pairs", "scratch", 2 * MADE_FFN, 2);
    json_object_set_new(json_object_get(made->manifest, "mlp"), "delay_wgrad_compute",
                        json_boolean(delayed));
    for (int i = 0; i < KERNELS; i++) {
        char file[64];
        snprintf(file, sizeof file, "%s.cu", kernels[i].name);
        made_set_source(made, file, kernels[i].source);
        json_t *kernel = json_pack(
            "{s:s,s:s,s:s,s:s,s:s,s:s,s:i,s:i,s:i,s:b,s:{s:i,s:i,s:i,s:i,s:i},s:i,s:f,s:f,s:f,s:"
            "o,s:[],s:[],s:[]}",
            "entry", kernels[i].name, "file", file, "pass", kernels[i].pass, "step",
            kernels[i].step, "when", kernels[i].when, "family", "sm_80", "most_tokens", 0,
            "threads", kernels[i].threads, "dynamic_shared_bytes", 0, "waits_for_previous", 0,
            "grid", "rows", kernels[i].rows, "tile_m", kernels[i].tile_m, "columns",
            kernels[i].columns, "tile_n", kernels[i].columns, "cluster", 0, "reduction", 0,
            "flops_per_token", 1.0, "bytes", 8.0, "bytes_per_token", 2.0, "arguments",
            split_words(kernels[i].arguments), "maps", "lines", "images");
        cr_assert_not_null(kernel);
        json_array_append_new(json_object_get(made->manifest, "kernels"), kernel);
    }
}

void made_save_activation(made_bundle *made)
{
    json_t *buffers = json_object_get(made->manifest, "buffers");
    json_object_set_new(json_object_get(made->manifest, "mlp"), "save_activation", json_true());
    json_object_set_new(json_array_get(buffers, 1), "lifetime", json_string("saved"));
    json_t *all = json_object_get(made->manifest, "kernels");
    json_t *wgrad = json_array_get(all, json_array_size(all) - 2);
    json_array_set_new(json_object_get(wgrad, "arguments"), 1, json_string("activation_output"));
}
