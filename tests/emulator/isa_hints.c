/*
 * isa_hints.c: instructions that change how a kernel runs, and nothing that it computes: setmaxnreg
 * (PTX ISA 9.7.19.5), griddepcontrol (9.7.13.13), and prefetches of what bulk copies will read
 * (9.7.9.15, 9.7.9.25.4.3 and 9.7.9.25.5.4).
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "cluster_kernel.h"
#include "device.h"
#include "tensor_oracle.h"

/* ---- setmaxnreg ------------------------------------------------------------------------------ */

enum { THREADS = 256, VALUES = 8 };

/*
 * Of two warpgroups the first gives what the second takes, and gets it back; values in registers
 * live across all four.
 */
static const char frame[] =
    ".version 8.0\n.target sm_90a\n.address_size 64\n"
    ".visible .entry kernel(.param .u64 pmemory) .maxntid %d, 1, 1\n.maxnreg %d\n{\n"
    ".reg .b64 %%at; .reg .b32 %%thread, %%v<%d>; .reg .pred %%first;\n"
    "ld.param.u64 %%at, [pmemory]; mov.u32 %%thread, %%tid.x;\n"
    "setp.lt.u32 %%first, %%thread, 128; mad.wide.u32 %%at, %%thread, %d, %%at;\n"
    "ld.global.v4.b32 {%%v0,%%v1,%%v2,%%v3}, [%%at]; "
    "ld.global.v4.b32 {%%v4,%%v5,%%v6,%%v7}, [%%at+16];\n"
    "@%%first bra gives; bra takes;\nBODY:\n"
    "gives: setmaxnreg.dec.sync.aligned.u32 %d; bar.sync 0; setmaxnreg.inc.sync.aligned.u32 %d; "
    "bra end;\n"
    "takes: setmaxnreg.inc.sync.aligned.u32 %d; bar.sync 0; setmaxnreg.dec.sync.aligned.u32 %d;\n"
    "BODY_END:\nend: bar.sync 0;\n"
    "not.b32 %%v0, %%v0; not.b32 %%v7, %%v7; st.global.v4.b32 [%%at], {%%v0,%%v1,%%v2,%%v3}; "
    "st.global.v4.b32 [%%at+16], {%%v4,%%v5,%%v6,%%v7};\nret;\n}\n";

static void check_registers(int start, int kept)
{
    char ptx[2048], name[64];
    uint32_t in[THREADS][VALUES], out[THREADS][VALUES];
    for (int i = 0; i < THREADS; i++)
        for (int k = 0; k < VALUES; k++)
            in[i][k] = (uint32_t)below(1 << 30);
    int taken = 2 * start - kept;
    snprintf(name, sizeof name, "%d registers become %d and %d", start, kept, taken);
    snprintf(ptx, sizeof ptx, frame, THREADS, start, VALUES, (int)sizeof in[0], kept, start, taken,
             start);
    CUmodule module = device_load(ptx, name);
    CUdeviceptr memory = device_upload(in, sizeof in);
    device_run(module, "kernel", 1, THREADS, 0, (void *[]){&memory}, name);
    device_download(out, memory, sizeof out);
    for (int i = 0; i < THREADS; i++)
        for (int k = 0; k < VALUES; k++)
            cr_assert_eq(out[i][k], k % 7 ? in[i][k] : ~in[i][k], "%s: value %d of thread %d", name,
                         k, i);
    cuModuleUnload(module);
    cuMemFree(memory);
}

Test(isa_hints, setmaxnreg_moves_every_number_of_registers_and_no_value_changes)
{
    static const int starts[] = {24, 128, 136, 144, 256};
    random_start(1);
    device_open();
    for (size_t i = 0; i < sizeof starts / sizeof *starts; i++)
        for (int kept = 24; kept <= starts[i]; kept += 8)
            if (2 * starts[i] - kept <= 256)
                check_registers(starts[i], kept);
    device_close();
}

/* ---- griddepcontrol and prefetches ----------------------------------------------------------- */

static const char *const hints[] = {
    "griddepcontrol.launch_dependents;",
    "griddepcontrol.wait;",
    "@%p1 griddepcontrol.launch_dependents;",
    "@!%p1 griddepcontrol.wait;",
    "cp.async.bulk.prefetch.L2.global [%in], 16;",
    "cp.async.bulk.prefetch.L2.global [%in+16], %r9;",
    "@%p1 cp.async.bulk.prefetch.L2.global.L2::cache_hint [%in], %r9, %rd9;",
    "prefetch.param.tensormap [m];",
    "prefetch.tensormap [%map];",
    "prefetch.const.tensormap [constant];",
};

/* All words of a thread are in registers, in shared memory and in global memory around it. */
static void check_hint(const char *hint, const CUtensorMap *map)
{
    static uint32_t in[2][THREADS][VALUES], out[2][THREADS][VALUES];
    static const cluster_grid g = {{2, 1, 1}, {1, 1, 1}, THREADS, BY_LAUNCH};
    ptx_text t = {0};
    random_bytes(in, sizeof in);
    emit(&t,
         "mad.wide.u32 %%rd0, %%thread, %d, %%in; mad.wide.u32 %%rd1, %%thread, %d, %%out; "
         "mov.u32 %%r8, shared; mad.lo.u32 %%r8, %%thread, 16, %%r8; mov.u32 %%r9, 64; "
         "createpolicy.fractional.L2::evict_last.b64 %%rd9; setp.gt.u32 %%p1, %%thread, 40;\n"
         "ld.global.v4.b32 {%%r0,%%r1,%%r2,%%r3}, [%%rd0]; "
         "ld.global.v4.b32 {%%r4,%%r5,%%r6,%%r7}, [%%rd0+16]; "
         "st.shared.v4.b32 [%%r8], {%%r4,%%r5,%%r6,%%r7};\n%s\n"
         "ld.shared.v4.b32 {%%r4,%%r5,%%r6,%%r7}, [%%r8]; "
         "st.global.v4.b32 [%%rd1], {%%r0,%%r1,%%r2,%%r3}; "
         "st.global.v4.b32 [%%rd1+16], {%%r4,%%r5,%%r6,%%r7};\n",
         4 * VALUES, 4 * VALUES, hint);
    cluster_run(&g, &t, &(cluster_memory){in, sizeof in[0], out, sizeof out[0]}, map);
    cr_assert_arr_eq(out, in, sizeof in, "%s", hint);
}

static CUtensorMap map_of(const shape *s, CUdeviceptr tensor)
{
    CUtensorMap map;
    cr_assert_eq(encode_shape(&map, s, tensor), CUDA_SUCCESS);
    return map;
}

/* Boxes inside of the tensor, and outside; %r8 is a multiple of 16, as the first coordinate must
 * be.
 */
static void check_tensor_prefetches(const shape *s, const CUtensorMap *map)
{
    static const char *const coordinates[RANK] = {"0", "%r8, 1", "-16, %r1, %r2",
                                                  "0, 0, -5, 1000000", "%r8, %r1, %r2, %r3, %r4"};
    for (int form = 0; form < 4; form++) {
        char hint[256];
        snprintf(hint, sizeof hint,
                 "cp.async.bulk.prefetch.tensor.%dd.L2.global%s%s [%%map, {%s}]%s;", s->rank,
                 form & 1 ? ".tile" : "", form & 2 ? ".L2::cache_hint" : "",
                 coordinates[s->rank - 1], form & 2 ? ", %rd9" : "");
        check_hint(hint, map);
    }
}

Test(isa_hints, griddepcontrol_and_prefetches_change_nothing)
{
    random_start(2);
    device_open();
    CUdeviceptr tensor = device_alloc(TENSOR);
    for (int rank = 1; rank <= RANK; rank++) {
        shape s = random_shape(rank, &tensor_types[rank], 0);
        CUtensorMap map = map_of(&s, tensor);
        check_tensor_prefetches(&s, &map);
        for (size_t i = 0; rank == 1 && i < sizeof hints / sizeof *hints; i++)
            check_hint(hints[i], &map);
    }
    cuMemFree(tensor);
    device_close();
}
