/*
 * isa_hints.c: instructions that change how a kernel runs, and nothing that it computes: setmaxnreg
 * (PTX ISA 9.7.19.5).
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

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
