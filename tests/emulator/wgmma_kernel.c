/* wgmma_kernel.c: see wgmma_kernel.h. */
#include "wgmma_kernel.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "device.h"

void wgmma_append_list(char *text, const char *prefix, int count)
{
    char *at = text + strlen(text);
    for (int i = 0; i < count; i++)
        at += sprintf(at, "%s%s%d", i ? "," : "{", prefix, i);
    strcpy(at, "}");
}

static const char frame[] =
    ".version 8.0\n.target sm_90a\n.address_size 64\n"
    ".visible .entry kernel(.param .u64 pin, .param .u64 pout)\n{\n"
    ".shared .align 1024 .b8 shared[%d];\n"
    ".reg .b64 %%in, %%out, %%tile, %%da, %%db, %%rd<8>; .reg .b32 %%thread, %%warp, %%r<8>, "
    "%%a<4>;\n"
    ".reg .f32 %%f<8>; .reg .pred %%p<4>; .reg .%s %%d<%d>;\n"
    "ld.param.u64 %%in, [pin]; ld.param.u64 %%out, [pout]; mov.u32 %%thread, %%tid.x;\n"
    "shr.u32 %%warp, %%thread, 5; mov.u64 %%tile, shared; shr.u64 %%tile, %%tile, 4;\n"
    /* 16 bytes a thread, until all are copied */
    "mul.wide.u32 %%rd0, %%thread, 16; add.u64 %%rd0, %%rd0, %%in;\n"
    "mov.u32 %%r0, shared; mad.lo.u32 %%r0, %%thread, 16, %%r0;\n"
    "mov.u32 %%r1, shared; add.u32 %%r1, %%r1, %d; mov.u32 %%r2, %%ntid.x; mul.lo.u32 %%r3, %%r2, "
    "16;\n"
    "cvt.u64.u32 %%rd1, %%r3;\n"
    "fill: ld.global.v4.u32 {%%r4,%%r5,%%r6,%%r7}, [%%rd0]; st.shared.v4.u32 [%%r0], "
    "{%%r4,%%r5,%%r6,%%r7};\n"
    "add.u64 %%rd0, %%rd0, %%rd1; add.u32 %%r0, %%r0, %%r3; setp.lt.u32 %%p0, %%r0, %%r1; @%%p0 "
    "bra fill;\n"
    "and.b32 %%r0, %%thread, 127; mul.wide.u32 %%rd0, %%r0, %d; add.u64 %%rd0, %%rd0, %%in;\n"
    "mul.wide.u32 %%rd1, %%r0, 16; add.u64 %%rd1, %%rd1, %%in;\n"
    "ld.global.v4.u32 {%%a0,%%a1,%%a2,%%a3}, [%%rd1+%zu];\n%s"
    "fence.proxy.async.shared::cta; bar.sync 0;\nBODY:\n%s\nBODY_END:\n"
    "setp.ge.u32 %%p0, %%thread, 128; @%%p0 ret;\n"
    "mul.wide.u32 %%rd0, %%thread, %d; add.u64 %%rd0, %%rd0, %%out;\n%sret;\n}\n";

static char *kernel_text(const wgmma_kernel *k)
{
    char *text = NULL, loads[WGMMA_FRAGMENT * 48] = "", stores[WGMMA_FRAGMENT * 48] = "";
    for (int i = 0; i < k->registers; i++) {
        sprintf(loads + strlen(loads), "ld.global.b32 %%d%d, [%%rd0+%zu];\n", i,
                offsetof(wgmma_memory, d) + 4 * (size_t)i);
        sprintf(stores + strlen(stores), "st.global.b32 [%%rd0+%d], %%d%d;\n", 4 * i, i);
    }
    int row = 4 * WGMMA_FRAGMENT;
    int length =
        asprintf(&text, frame, WGMMA_SHARED, k->floats ? "f32" : "b32", k->registers, WGMMA_SHARED,
                 row, offsetof(wgmma_memory, a), loads, k->body, row, stores);
    cr_assert(length > 0);
    return text;
}

CUresult wgmma_try(const wgmma_kernel *k, wgmma_memory *memory)
{
    device_open();
    char *ptx = kernel_text(k);
    CUmodule module = device_load(ptx, k->name);
    free(ptx);
    CUdeviceptr in = device_upload(memory, sizeof *memory), out = device_alloc(sizeof memory->d);
    CUresult result = device_try(module, "kernel", 1, k->threads ? k->threads : WGMMA_THREADS, 0,
                                 (void *[]){&in, &out});
    for (unsigned i = 0; i < WGMMA_THREADS && result == CUDA_SUCCESS && k->registers; i++)
        device_download(memory->d[i], out + i * sizeof memory->d[0], 4 * (size_t)k->registers);
    device_close();
    return result;
}

void wgmma_run(const wgmma_kernel *k, wgmma_memory *memory)
{
    CUresult result = wgmma_try(k, memory);
    cr_assert(result == CUDA_SUCCESS, "%s: ended with %d\n%s", k->name, (int)result,
              device_last_report());
}
