/* kernel.c: runs a few lines of PTX as one kernel. */
#include "kernel.h"

#include <criterion/criterion.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"

static unsigned cluster_blocks;
static bool is_dependent;

void kernel_clusters(unsigned blocks)
{
    cluster_blocks = blocks;
}

void kernel_dependent(void)
{
    is_dependent = true;
}

static char *wrap(const char *body)
{
    char *text = NULL, cluster[80] = "";
    if (cluster_blocks)
        snprintf(cluster, sizeof cluster, ".explicitcluster .reqnctapercluster %u, 1, 1",
                 cluster_blocks);
    int length = asprintf(
        &text,
        ".version 9.0\n.target sm_100\n.address_size 64\n"
        ".visible .entry kernel(.param .u64 pin, .param .u64 pout) %s\n{\n"
        "  .shared .align 1024 .b8 shared[16384];\n"
        "  .reg .b64 %%in, %%out, %%rd<32>; .reg .b32 %%thread, %%r<64>; .reg .f32 %%f<32>;\n"
        "  .reg .b16 %%h<16>; .reg .pred %%p<16>;\n"
        "  ld.param.u64 %%in, [pin]; ld.param.u64 %%out, [pout]; mov.u32 %%thread, %%tid.x;\n"
        "  cvta.to.global.u64 %%in, %%in; cvta.to.global.u64 %%out, %%out;\n"
        "BODY:\n%s\nBODY_END:\n  ret;\n}\n",
        cluster, body);
    cr_assert(length > 0);
    return text;
}

static CUresult run(const char *name, const char *body, unsigned blocks, unsigned threads,
                    const void *in, size_t in_bytes, void *out, size_t out_bytes)
{
    device_open();
    char *ptx = wrap(body);
    CUmodule module = device_load(ptx, name);
    free(ptx);
    CUdeviceptr device_in = device_upload(in_bytes ? in : "", in_bytes ? in_bytes : 1);
    CUdeviceptr device_out = device_alloc(out_bytes);
    cr_assert_eq(cuMemsetD8(device_out, 0, out_bytes), CUDA_SUCCESS);
    void *arguments[] = {&device_in, &device_out};
    CUresult result = (is_dependent ? device_try_dependent : device_try)(module, "kernel", blocks,
                                                                         threads, 0, arguments);
    if (result == CUDA_SUCCESS && out) {
        device_download(out, device_out, out_bytes);
        cuMemFree(device_in);
        cuMemFree(device_out);
        cuModuleUnload(module);
    }
    device_close();
    return result;
}

void kernel_run(const char *name, const char *body, unsigned blocks, unsigned threads,
                const void *in, size_t in_bytes, void *out, size_t out_bytes)
{
    CUresult result = run(name, body, blocks, threads, in, in_bytes, out, out_bytes);
    cr_assert(result == CUDA_SUCCESS, "%s: ended with %d", name, (int)result);
}

CUresult kernel_try(const char *name, const char *body, unsigned blocks, unsigned threads,
                    const void *in, size_t in_bytes, size_t out_bytes)
{
    return run(name, body, blocks, threads, in, in_bytes, NULL, out_bytes);
}

void kernel_mistakes(const kernel_mistake *mistakes, size_t count, const void *in, size_t in_bytes)
{
    for (size_t i = 0; i < count; i++) {
        const kernel_mistake *m = &mistakes[i];
        CUresult result = kernel_try(m->name, m->body, cluster_blocks ? cluster_blocks : 1,
                                     m->threads, in, in_bytes, 1024);
        const char *report = device_last_report();
        cr_expect_neq(result, CUDA_SUCCESS, "%s", m->name);
        for (int s = 0; s < 2 && m->said[s]; s++)
            cr_expect(strstr(report, m->said[s]), "%s: '%s' is not in\n%s", m->name, m->said[s],
                      report);
    }
}
