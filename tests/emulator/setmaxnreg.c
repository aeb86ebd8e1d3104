/*
 * setmaxnreg.c: registers that warpgroups hand to each other: who gets them, who waits for ever,
 * and what may not be done.
 */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

#include "device.h"

/* 384 threads in three warpgroups: 168 registers each fit. %group is the warpgroup's number, %warp
 * the warp's. */
#define BOUNDED ".maxntid 384, 1, 1"
#define GROUP0  "setp.eq.u32 %p, %group, 0; @%p bra first;\n"
#define INC(n)  "setmaxnreg.inc.sync.aligned.u32 " n ";\n"
#define DEC(n)  "setmaxnreg.dec.sync.aligned.u32 " n ";\n"

static const char frame[] =
    ".version 8.0\n.target %s\n.address_size 64\n"
    ".visible .entry kernel(.param .u64 pout) %s\n{\n"
    ".reg .b64 %%out, %%at; .reg .b32 %%thread, %%group, %%warp; .reg .pred %%p;\n"
    "ld.param.u64 %%out, [pout]; mov.u32 %%thread, %%tid.x;\n"
    "shr.u32 %%group, %%thread, 7; shr.u32 %%warp, %%thread, 5;\nBODY:\n%s\nBODY_END:\n"
    "mul.wide.u32 %%at, %%thread, 4; add.u64 %%at, %%at, %%out; st.global.u32 [%%at], %%thread;\n"
    "ret;\n}\n";

enum { THREADS = 384 };

static CUresult try(const char *name, const char *directives, const char *body, uint32_t *found)
{
    char ptx[4096];
    snprintf(ptx, sizeof ptx, frame, "sm_90a", directives, body);
    device_open();
    CUmodule module = device_load(ptx, name);
    CUdeviceptr out = device_alloc(THREADS * 4);
    CUresult result = device_try(module, "kernel", 1, THREADS, 0, (void *[]){&out});
    if (result == CUDA_SUCCESS)
        device_download(found, out, THREADS * 4);
    device_close();
    return result;
}

static void expect_ends(const char *name, const char *directives, const char *body)
{
    uint32_t found[THREADS];
    CUresult result = try(name, directives, body, found);
    cr_assert(result == CUDA_SUCCESS, "%s: %d\n%s", name, (int)result, device_last_report());
    for (uint32_t i = 0; i < THREADS; i++)
        cr_assert_eq(found[i], i, "%s: thread %u", name, i);
}

Test(setmaxnreg, what_one_warpgroup_gives_the_others_take)
{
    expect_ends("40 + 232 + 232", BOUNDED,
                GROUP0 INC("232") "bra end;\nfirst:\n" DEC("40") "end:\n");
    expect_ends(
        "back and forth", BOUNDED,
        GROUP0 INC("232") "bar.sync 1, 256;\n" DEC("168") "bar.sync 2; bra end;\nfirst:\n" DEC(
            "40") "bar.sync 2;\n" INC("168") "end:\n");
    expect_ends("what it has already", BOUNDED, INC("168") "bar.sync 0;\n" DEC("168"));
    expect_ends(".maxnreg", ".maxntid 384, 1, 1\n.maxnreg 96",
                GROUP0 INC("112") "bra end;\nfirst:\n" DEC("64") "end:\n");
    expect_ends("two blocks on a multiprocessor", ".maxntid 384, 1, 1\n.minnctapersm 2",
                GROUP0 INC("96") "bra end;\nfirst:\n" DEC("48") "end:\n");
}

Test(setmaxnreg, without_bounds_it_has_no_effect)
{
    expect_ends("more than there are", "", INC("256") "bar.sync 0;\n" DEC("24"));
}

static void expect_fault(const char *name, const char *body, const char *said, const char *also)
{
    uint32_t found[THREADS];
    cr_expect_neq(try(name, BOUNDED, body, found), CUDA_SUCCESS, "%s", name);
    const char *report = device_last_report();
    cr_expect(strstr(report, said), "%s: '%s' is not in\n%s", name, said, report);
    cr_expect(strstr(report, also), "%s: '%s' is not in\n%s", name, also, report);
}

Test(setmaxnreg, inc_takes_and_dec_gives)
{
    expect_fault("dec", DEC("176"), "setmaxnreg.dec to 176 registers a thread: the warp has 168",
                 "PTX line");
    expect_fault("inc", INC("160"), "setmaxnreg.inc to 160 registers a thread: the warp has 168",
                 "PTX line");
}

Test(setmaxnreg, registers_that_nobody_gives_are_waited_for)
{
    expect_fault("nobody", INC("176"), "deadlock",
                 "waits for 176 registers a thread: it has 168, and the block has 0 to spare");
    expect_fault("too few", GROUP0 INC("232") "bra end;\nfirst:\n" DEC("48") "end:\n", "deadlock",
                 "waits for 232 registers a thread: it has 168, and the block has 32 to spare");
}

Test(setmaxnreg, a_warpgroup_executes_it_together)
{
    expect_fault("three warps of four",
                 "setp.eq.u32 %p, %warp, 2; @%p bra skip;\n" DEC("40") "skip:\n", "has ended",
                 "warps 0x00000004, for the one at line");
    expect_fault("another one",
                 "setp.eq.u32 %p, %warp, 2; @%p bra other;\n" DEC("40") "bra end;\nother:\n" DEC(
                     "40") "end:\n",
                 "setmaxnreg before warps 0x0000000", "of the warpgroup have executed the one");
    expect_fault("a lane under a guard", "setp.ne.u32 %p, %thread, 5; @%p " DEC("40"),
                 "setmaxnreg in a diverged warp", "0x00000020");
}

Test(setmaxnreg, what_the_isa_does_not_have_does_not_load)
{
    static const struct {
        const char *target, *statement, *said;
    } cases[] = {
        {"sm_90", DEC("40"), "'setmaxnreg' needs .target sm_90a"},
        {"sm_90a", DEC("16"), "'setmaxnreg' of 16 registers: a multiple of 8 from 24 to 256"},
        {"sm_90a", INC("264"), "'setmaxnreg' of 264 registers: a multiple of 8 from 24 to 256"},
        {"sm_90a", INC("100"), "'setmaxnreg' of 100 registers: a multiple of 8 from 24 to 256"},
        {"sm_90a", INC("%warp"), "must be an integer constant"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char ptx[4096], log[1024] = "";
        CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
        void *values[] = {log, (void *)(size_t)sizeof log};
        CUmodule module = NULL;
        snprintf(ptx, sizeof ptx, frame, cases[i].target, "", cases[i].statement);
        device_open();
        cr_expect_neq(cuModuleLoadDataEx(&module, ptx, 2, options, values), CUDA_SUCCESS);
        cr_expect(strstr(log, cases[i].said), "'%s' is not in\n%s", cases[i].said, log);
        device_close();
    }
}
