/* cluster_kernel.c: runs a few lines of PTX as one kernel on a grid of clusters. */
#include "cluster_kernel.h"

#include <criterion/criterion.h>
#include <stdio.h>

#include "device.h"
#include "tensor_oracle.h"

static int product(const int of[3])
{
    return of[0] * of[1] * of[2];
}

int cluster_size(const cluster_grid *g)
{
    return product(g->cluster);
}

int cluster_count(const cluster_grid *g)
{
    return product(g->clusters);
}

const char *cluster_name(const cluster_grid *g)
{
    static char name[96];
    static const char *const origins[] = {"the kernel", "the launch", "nobody"};
    snprintf(name, sizeof name, "%d x %d x %d clusters of %d x %d x %d blocks, by %s",
             g->clusters[0], g->clusters[1], g->clusters[2], g->cluster[0], g->cluster[1],
             g->cluster[2], origins[g->origin]);
    return name;
}

cluster_grid cluster_random(int threads, bool may_be_one)
{
    cluster_grid g = {.threads = threads};
    do
        for (int i = 0; i < 3; i++)
            g.cluster[i] = below(2) ? 1 : between(1, CLUSTER_BLOCKS);
    while (product(g.cluster) > CLUSTER_BLOCKS || (product(g.cluster) == 1 && !may_be_one));
    for (int i = 0; i < 3; i++)
        g.clusters[i] = between(1, 2);
    g.origin = (cluster_origin)below(product(g.cluster) == 1 ? 3 : 2);
    return g;
}

static void emit_directives(ptx_text *t, const cluster_grid *g)
{
    if (g->origin == BY_KERNEL)
        emit(t, ".explicitcluster .reqnctapercluster %d, %d, %d\n", g->cluster[0], g->cluster[1],
             g->cluster[2]);
}

/* %r0 = which of the cluster's blocks, %r1 = which cluster, as x + y * nx + z * nx * ny. */
static void emit_place(ptx_text *t, const cluster_grid *g)
{
    emit(t, "mov.u32 %%r0, 0; mov.u32 %%r1, 0;\n");
    for (int i = 2; i >= 0; i--)
        emit(t,
             "mov.u32 %%r2, %%ctaid.%c; rem.u32 %%r3, %%r2, %d; mad.lo.u32 %%r0, %%r0, %d, %%r3; "
             "div.u32 %%r3, %%r2, %d; mad.lo.u32 %%r1, %%r1, %d, %%r3;\n",
             'x' + i, g->cluster[i], g->cluster[i], g->cluster[i], g->clusters[i]);
    emit(t, "mov.u32 %%rank, %%r0; mul.lo.u32 %%cluster, %%r1, %d;\n", cluster_size(g));
}

static void emit_kernel(ptx_text *t, const cluster_grid *g, const ptx_text *body,
                        const cluster_memory *memory)
{
    emit(t, ".version 8.6\n.target sm_90a\n.address_size 64\n"
            ".const .align 64 .b8 constant[128];\n.visible .entry kernel(.param .align 64 .b8 "
            "m[128], .param .u64 pin, "
            ".param .u64 pout)\n");
    emit_directives(t, g);
    emit(t,
         "{\n.shared .align 1024 .b8 shared[%d]; .shared .align 8 .b64 barriers[4];\n"
         ".reg .b64 %%in, %%all_in, %%out, %%map, %%rd<32>; .reg .b128 %%q<8>;\n"
         ".reg .b32 %%rank, %%cluster, %%thread, %%r<32>; .reg .f32 %%f<8>; .reg .f64 %%g<8>;\n"
         ".reg .b16 %%h<8>; .reg .pred %%first, %%p<8>;\n"
         "mov.b64 %%map, m; cvta.param.u64 %%map, %%map; ld.param.u64 %%all_in, [pin]; "
         "ld.param.u64 %%out, [pout];\n"
         "mov.u32 %%thread, %%tid.x; setp.eq.u32 %%first, %%thread, 0;\n",
         CLUSTER_SHARED);
    emit_place(t, g);
    emit(t,
         "mad.wide.u32 %%all_in, %%cluster, %zu, %%all_in; mad.wide.u32 %%in, %%rank, %zu, "
         "%%all_in;\n"
         "add.u32 %%r0, %%cluster, %%rank; mad.wide.u32 %%out, %%r0, %zu, %%out;\n"
         "BODY:\n%s\nBODY_END: ret;\n}\n",
         memory->in_bytes, memory->in_bytes, memory->out_bytes, body->at);
}

void cluster_run(const cluster_grid *g, const ptx_text *body, const cluster_memory *memory,
                 const CUtensorMap *map)
{
    static const CUtensorMap none;
    ptx_text t = {0};
    size_t blocks = (size_t)(cluster_size(g) * cluster_count(g));
    emit_kernel(&t, g, body, memory);
    CUmodule module = device_load(t.at, cluster_name(g));
    CUdeviceptr in = device_upload(memory->in, memory->in_bytes ? blocks * memory->in_bytes : 1);
    CUdeviceptr out = device_alloc(blocks * memory->out_bytes);
    cr_assert_eq(cuMemsetD8(out, 0, blocks * memory->out_bytes), CUDA_SUCCESS);
    CUfunction function;
    cr_assert_eq(cuModuleGetFunction(&function, module, "kernel"), CUDA_SUCCESS);
    CUlaunchAttribute dimension = {
        .id = CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION,
        .value.clusterDim = {(unsigned)g->cluster[0], (unsigned)g->cluster[1],
                             (unsigned)g->cluster[2]},
    };
    CUlaunchConfig config = {
        .gridDimX = (unsigned)(g->cluster[0] * g->clusters[0]),
        .gridDimY = (unsigned)(g->cluster[1] * g->clusters[1]),
        .gridDimZ = (unsigned)(g->cluster[2] * g->clusters[2]),
        .blockDimX = (unsigned)g->threads,
        .blockDimY = 1,
        .blockDimZ = 1,
        .attrs = &dimension,
        .numAttrs = g->origin == BY_LAUNCH,
    };
    CUtensorMap copy = map ? *map : none;
    CUresult result = cuLaunchKernelEx(&config, function, (void *[]){&copy, &in, &out}, NULL);
    if (result == CUDA_SUCCESS)
        result = cuCtxSynchronize();
    cr_assert_eq(result, CUDA_SUCCESS, "%s: ended with %d: %s\n%s", cluster_name(g), (int)result,
                 device_last_report(), t.at);
    device_has_run();
    device_download(memory->out, out, blocks * memory->out_bytes);
    cuMemFree(in);
    cuMemFree(out);
    cuModuleUnload(module);
}
