/*
 * broken_hopper.c: breaks kernels of family sm_90a, each in one place, and expects the emulator,
 * which looks for races, to say what is wrong. A schedule holds for a process, so every test has
 * its own.
 */
#include <criterion/criterion.h>
#include <stdlib.h>

#include "mistakes.h"

Test(broken_hopper, the_kernels_themselves_run_without_a_report)
{
    expect_none(IN_ORDER);
}

Test(broken_hopper, the_kernels_themselves_run_without_a_report_block_by_block)
{
    expect_none(BY_BLOCK);
}

Test(broken_hopper, the_kernels_themselves_run_without_a_report_when_waits_are_brief)
{
    expect_none(BRIEF_WAITS);
}

/* ---- the mistakes ---------------------------------------------------------------------------- */

Test(broken_hopper, a_kernel_that_begins_before_the_one_before_it_ends_is_told)
{
    static const mistake mistakes[] = {
        {"nobody waits",
         BIAS_FC2_DGRAD,
         "    wait_for_previous_grid();\n",
         "",
         {"reads what the grid before it may still write: no griddepcontrol.wait before it"}},
    };
    EXPECT_REPORTS(IN_ORDER, mistakes);
}

#define WAIT_EMPTY   "mbarrier_wait(empty + 8 * place.stage, place.parity ^ 1); // free at first\n"
#define WAIT_FULL    "mbarrier_wait(full + 8 * place.stage, place.parity);\n"
#define EXPECT_STAGE "mbarrier_arrive_expect(barrier, stage_bytes);"
#define RELEASE      "release_stage(empty + 8 * before, lane);\n"
#define INDENT       "                "

Test(broken_hopper, a_stage_that_is_not_full_is_read)
{
    static const mistake mistakes[] = {
        {"no wait for a full stage",
         FC2_FORWARD,
         WAIT_FULL,
         "",
         {RACE(WGMMA_READ, BULK_WRITE), RACE(BULK_WRITE, WGMMA_READ)}},
        {"A's bytes alone are expected",
         FC2_FORWARD,
         EXPECT_STAGE,
         "mbarrier_arrive_expect(barrier, OperandA::bytes);",
         {RACE(WGMMA_READ, BULK_WRITE)}},
        {"no bytes are expected",
         FC2_FORWARD,
         EXPECT_STAGE,
         "mbarrier_arrive(barrier);",
         {RACE(WGMMA_READ, BULK_WRITE)}},
        {"B begins a tile too late",
         FC1_WGRAD,
         "descriptor(shared + OperandA::bytes,",
         "descriptor(shared + OperandA::bytes + OperandB::bytes,",
         {RACE(WGMMA_READ, BULK_WRITE)}},
        {"no barrier after mbarrier.init",
         FC2_FORWARD,
         "    __syncthreads();\n\n    // The same",
         "    // The same",
         {"no barrier between this and its mbarrier.init by warp 0",
          "mbarrier.init has not been called there"}},
    };
    EXPECT_REPORTS(BY_BLOCK, mistakes);
}

Test(broken_hopper, a_stage_that_is_not_empty_is_filled)
{
    static const mistake mistakes[] = {
        {"no wait for an empty stage",
         FC2_FORWARD,
         WAIT_EMPTY,
         "",
         {"race: " BULK_WRITE, "1 arrivals, but the phase lacks 0"}},
        {"the consumers wait for the wrong parity",
         FC2_FORWARD,
         WAIT_FULL,
         "mbarrier_wait(full + 8 * place.stage, place.parity ^ 1);\n",
         {WGMMA_READ, "deadlock"}},
        {"half of the arrivals free a stage",
         FC2_FORWARD,
         "consumer_warps * cluster",
         "4 * cluster",
         {RACE(BULK_WRITE, WGMMA_READ), "deadlock"}},
        {"the last stage of a tile is freed before the wait",
         FC2_FORWARD,
         "wgmma_wait_all(d);\n" INDENT RELEASE,
         RELEASE "wgmma_wait_all(d);",
         {RACE(BULK_WRITE, WGMMA_READ)}},
        {"two groups stay in flight",
         FC1_WGRAD,
         "wgmma_wait<1>();",
         "wgmma_wait<2>();",
         {RACE(BULK_WRITE, WGMMA_READ)}},
        {"no wait in the loop", FC1_WGRAD, "wgmma_wait<1>();", "", {RACE(BULK_WRITE, WGMMA_READ)}},
        {"the parity of the ring never flips",
         FC2_FORWARD,
         "            parity ^= 1;\n        }\n    }",
         "        }\n    }",
         {"race: " BULK_WRITE, "1 arrivals, but the phase lacks 0"}},
        {"the panels of the epilogue begin a stage too early",
         FC2_FORWARD,
         "staged_offset = stages * stage_bytes",
         "staged_offset = (stages - 1) * stage_bytes",
         {"stmatrix.sync", "a plain store has overwritten it"}}, /* the barriers move along */
    };
    EXPECT_REPORTS(IN_ORDER, mistakes);
}

Test(broken_hopper, a_phase_that_never_ends_is_a_deadlock)
{
    static const mistake mistakes[] = {
        {"the producer waits for the wrong parity",
         FC2_FORWARD,
         WAIT_EMPTY,
         "mbarrier_wait(empty + 8 * place.stage, place.parity);\n",
         {"mbarrier.try_wait.parity"}},
        {"16 bytes too many are expected",
         FC2_FORWARD,
         EXPECT_STAGE,
         "mbarrier_arrive_expect(barrier, stage_bytes + 16);",
         {"(phase 0 lacks 0 of 1 arrivals and 16 bytes)"}},
        {"16 bytes too few are expected",
         FC2_FORWARD,
         EXPECT_STAGE,
         "mbarrier_arrive_expect(barrier, stage_bytes - 16);",
         {"(phase 0 lacks 0 of 1 arrivals and -16 bytes)"}},
        {"one arrival too many frees a stage",
         FC2_FORWARD,
         "consumer_warps * cluster",
         "4 * consumers * cluster + 1",
         {"arrivals and 0 bytes)"}},
        {"the last stage of a tile is not freed",
         FC2_FORWARD,
         "wgmma_wait_all(d);\n" INDENT RELEASE,
         "wgmma_wait_all(d);\n",
         {"arrivals and 0 bytes)"}},
        {"the inputs are not freed",
         FC2_DGRAD,
         "mbarrier_arrive(inputs_empty);",
         "",
         {"(phase 0 lacks 2 of 2 arrivals and 0 bytes)"}},
        {"both warpgroups are counted where one comes",
         FC1_FORWARD,
         "named_barrier_sync(1 + warpgroup, 128);",
         "named_barrier_sync(1 + warpgroup, 256);",
         {"barrier 2   128 of 256 threads have arrived"}},
        {"more registers are taken than there are",
         FC1_WGRAD,
         "consumer_registers = 232",
         "consumer_registers = 240",
         {"for 240 registers a thread"}},
        {"the producers give no registers back",
         FC1_WGRAD,
         "release_registers<producer_registers>();",
         "",
         {"for 232 registers a thread"}},
    };
    EXPECT_REPORTS(IN_ORDER, mistakes);
}

Test(broken_hopper, a_warpgroup_that_breaks_the_rules_of_wgmma_is_told)
{
    static const mistake mistakes[] = {
        {"no wgmma.fence",
         FC1_WGRAD,
         WAIT_FULL INDENT "wgmma_fence();",
         WAIT_FULL,
         {"no wgmma.fence before the warp's first wgmma"}},
        {"a fence before the first product alone",
         FC1_WGRAD,
         WAIT_FULL INDENT "wgmma_fence();",
         WAIT_FULL "if (k_tile == 0) { d[0] = 0; wgmma_fence(); d[1] = 0; }",
         {"was touched by another instruction after the warp's last wgmma.fence"}},
        {"no commit",
         FC1_WGRAD,
         INDENT "wgmma_commit();",
         "",
         {IN_FLIGHT, RACE(BULK_WRITE, WGMMA_READ)}},
        {"the last wait leaves a group in flight",
         FC1_WGRAD,
         "\"wgmma.wait_group.sync.aligned 0;\"",
         "\"wgmma.wait_group.sync.aligned 1;\"",
         {IN_FLIGHT}},
        {"no last wait", FC1_WGRAD, "wgmma_wait_all(d);", "", {IN_FLIGHT}},
        {"an accumulator is touched in flight",
         FC1_WGRAD,
         INDENT "wgmma_commit();",
         INDENT "wgmma_commit();\n" INDENT "d[0] += 1.0f;",
         {IN_FLIGHT}},
        {"the warps of a warpgroup have tiles of their own",
         FC1_WGRAD,
         "descriptor(shared + (warpgroup - 1)",
         "descriptor(shared + threadIdx.x / 32 % 4 * 1024 + (warpgroup - 1)",
         {"the warps of a warpgroup issue different products"}},
        {"one warp of four gives registers back",
         FC1_WGRAD,
         "release_registers<producer_registers>();",
         "if (threadIdx.x < 32) release_registers<producer_registers>();",
         {"registers a thread: it has 168"}},
    };
    EXPECT_REPORTS(IN_ORDER, mistakes);
}

Test(broken_hopper, a_copy_that_more_than_one_thread_starts_is_told)
{
    static const mistake mistakes[] = {
        {"a whole warp loads",
         FC2_FORWARD,
         "if (threadIdx.x == 0) {\n            RingPlace",
         "if (threadIdx.x < 32) {\n            RingPlace",
         {"1 arrivals, but the phase lacks 0"}},
        {"a whole warp stores",
         FC1_FORWARD,
         "issues = threadIdx.x % 128 == 0",
         "issues = threadIdx.x % 128 < 32",
         {RACE(BULK_WRITE, BULK_WRITE) ", by the same warp"}},
        {"two warps store",
         FC1_FORWARD,
         "issues = threadIdx.x % 128 == 0",
         "issues = threadIdx.x % 64 == 0",
         {RACE(BULK_WRITE, BULK_WRITE) ", by another warp of the block"}},
        {"the warpgroups store the same rows",
         FC2_FORWARD,
         "tile.first_row + 64 * warpgroup",
         "tile.first_row + 32 * warpgroup",
         {RACE(BULK_WRITE, BULK_WRITE) ", by another warp of the block"}},
        {"two blocks have the same tile",
         FC2_FORWARD,
         "in_group % height",
         "in_group / 2 % height",
         {RACE(BULK_WRITE, BULK_WRITE) ", by another block"}},
        {"a block stores a tile twice",
         FC2_FORWARD,
         "in_group % height",
         "in_group % (height - 1)",
         {RACE(BULK_WRITE, BULK_WRITE) ", by the same warp"}},
        {"every lane frees a stage",
         FC2_FORWARD,
         RELEASE INDENT "before",
         "release_stage(empty + 8 * before, 0);\n" INDENT "before",
         {"at the mbarrier"}},
    };
    EXPECT_REPORTS(IN_ORDER, mistakes);
}

Test(broken_hopper, a_panel_that_is_stored_or_written_too_early_is_told)
{
    static const mistake mistakes[] = {
        {"no proxy fence",
         FC1_FORWARD,
         "        fence_proxy_async();\n",
         "",
         {"missing     fence.proxy.async between the write and the bulk copy"}},
        {"no barrier before a panel is stored",
         FC1_FORWARD,
         "fence_proxy_async();\n        named_barrier_sync(1 + warpgroup, 128);",
         "fence_proxy_async();",
         {UNWRITTEN ": 8192 bytes at a shared address"}},
        {"every barrier counts a warp too few",
         FC1_FORWARD,
         ": : \"r\"(barrier), \"r\"(threads)",
         ": : \"r\"(barrier), \"r\"(threads - 32)",
         {UNWRITTEN ": 8192 bytes at a shared address", RACE(BULK_READ, "write")}},
        {"no barrier after a panel was read",
         FC1_FORWARD,
         "bulk_wait_read<staged_panels - 1>();\n        }\n        named_barrier_sync(1 + "
         "warpgroup, 128);",
         "bulk_wait_read<staged_panels - 1>();\n        }",
         {RACE("write", BULK_READ) ", by another warp"}},
        {"no wait for a panel's store",
         FC1_FORWARD,
         "            if (panel == 0)\n                bulk_wait_read<0>();\n            else\n"
         "                bulk_wait_read<staged_panels - 1>();\n",
         "",
         {RACE("write", BULK_READ)}},
        {"a store too many may be unfinished",
         BIAS_FC2_DGRAD,
         "bulk_wait_read<staged_panels - 1>",
         "bulk_wait_read<staged_panels>",
         {RACE("write", BULK_READ)}},
        {"no commit of a store",
         FC1_FORWARD,
         "                bulk_commit();",
         "",
         {RACE("write", BULK_READ)}},
        {"no wait at the end",
         FC1_FORWARD,
         "if (epilogue.issues)\n            bulk_wait();",
         "",
         {"the block has ended while bulk copies read its shared memory"}},
        {"a panel is half as large as its store",
         FC1_FORWARD,
         "panel_bytes = 8192",
         "panel_bytes = 4096",
         {"stmatrix.sync"}},
        {"the warpgroups share a barrier",
         FC1_FORWARD,
         "named_barrier_sync(1 + warpgroup, 128);",
         "named_barrier_sync(1, 128);",
         {"at a shared address", NULL}},
    };
    EXPECT_REPORTS(BY_BLOCK, mistakes);
}

Test(broken_hopper, sums_and_inputs_that_are_not_waited_for_are_a_race)
{
    static const char before[] =
        "named_barrier_sync(consumers_barrier, 32 * consumer_warps);\n        for";
    static const mistake mistakes[] = {
        {"the barrier of both is that of one",
         BIAS_FC2_DGRAD,
         "consumers_barrier = 3",
         "consumers_barrier = 1",
         {"misuse of barrier 1"}},
        {"no barrier before the sums are read",
         BIAS_FC2_DGRAD,
         before,
         "for",
         {RACE("read", "write") ", by another warp"}},
        {"the barriers count differently",
         BIAS_FC2_DGRAD,
         before,
         "named_barrier_sync(consumers_barrier, 128);\n        for",
         {"misuse of barrier 3", RACE("read", "write")}},
        {"no barrier after the sums were read",
         BIAS_FC2_DGRAD,
         "        named_barrier_sync(consumers_barrier, 32 * consumer_warps);\n    }",
         "    }",
         {RACE("write", "read") ", by another warp"}},
        {"no wait for the inputs",
         FC2_DGRAD,
         "mbarrier_wait(inputs_full, inputs_parity);",
         "",
         {RACE("read", BULK_WRITE)}},
        {"half of the inputs are expected",
         FC2_DGRAD,
         "(inputs_full, consumers * input_panels * panel_bytes);",
         "(inputs_full, input_panels * panel_bytes);",
         {RACE("read", BULK_WRITE)}},
        {"the parity of the inputs never flips",
         FC2_DGRAD,
         "            inputs_parity ^= 1;\n            epilogue",
         "            epilogue",
         {BULK_WRITE, "deadlock"}},
        {"no wait for the inputs' place",
         FC2_DGRAD,
         "mbarrier_wait(inputs_empty, inputs_parity ^ 1);",
         "",
         {"race: " BULK_WRITE, "1 arrivals, but the phase lacks 0"}},
        {"one warpgroup frees the inputs of both",
         FC2_DGRAD,
         "mbarrier_init(inputs_empty, consumers);",
         "mbarrier_init(inputs_empty, 1);",
         {"race: " BULK_WRITE, "deadlock"}},
        {"the inputs are freed while they are stored",
         FC2_DGRAD,
         "bulk_wait_read<0>();\n",
         "\n",
         {RACE(BULK_WRITE, BULK_READ)}},
    };
    EXPECT_REPORTS(IN_ORDER, mistakes);
}

Test(broken_hopper, a_copy_that_its_tensor_does_not_allow_is_told)
{
    static const mistake mistakes[] = {
        {"adds instead of storing",
         FC2_FORWARD,
         INDENT "tensor_store_2d(",
         INDENT "tensor_add_2d(",
         {UNWRITTEN ": 128 bytes at a global address"}},
        {"two coordinates for three dimensions",
         FC1_FORWARD,
         "tensor_load_3d(destination + 0 * (bytes / 2), map, barrier, k, first, 0",
         "tensor_load_2d(destination + 0 * (bytes / 2), map, barrier, k, first",
         {"a copy in 2 dimensions with a tensor map of 3"}},
        {"the second half of a stage is not on 128 bytes",
         FC1_FORWARD,
         "destination + 1 * (bytes / 2)",
         "destination + 1 * (bytes / 2) + 64",
         {"misaligned", "at a shared address"}},
    };
    EXPECT_REPORTS(IN_ORDER, mistakes);
}

Test(broken_hopper, a_wait_that_is_not_repeated_is_told)
{
    static const mistake mistakes[] = {
        {"try_wait once", FC2_FORWARD, "\"@!done bra again;\\n\"", "", {WGMMA_READ, BULK_WRITE}},
    };
    EXPECT_REPORTS(BRIEF_WAITS, mistakes);
}

Test(broken_hopper, a_map_of_a_row_more_than_there_is_is_out_of_bounds)
{
    static const char said[] = "out of bounds: 128 bytes at a global address";
    static const mistake activations = {"the map of A", FC1_WGRAD, NULL, NULL, {said}},
                         weights = {"the map of B", FC1_FORWARD, NULL, NULL, {said}};
    expect_report(&activations, "grad_fc1_output");
    expect_report(&weights, "linear_fc1.weight");
}
