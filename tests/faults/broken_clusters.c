/*
 * broken_clusters.c: breaks what the blocks of a cluster do together in kernels of family sm_90a,
 * each in one place. A schedule holds for a process, so every test has its own.
 */
#include <criterion/criterion.h>

#include "mistakes.h"

Test(broken_clusters, the_kernels_themselves_run_without_a_report)
{
    expect_none(IN_ORDER);
}

Test(broken_clusters, the_kernels_themselves_run_without_a_report_block_by_block)
{
    expect_none(BY_BLOCK);
}

Test(broken_clusters, the_kernels_themselves_run_without_a_report_when_waits_are_brief)
{
    expect_none(BRIEF_WAITS);
}

/* ---- the mistakes ---------------------------------------------------------------------------- */

#define ARRIVE     "if (lane < cluster)\n        mbarrier_arrive_at(barrier, lane);"
#define ALL_BLOCKS "(1 << cluster) - 1"

Test(broken_clusters, a_stage_that_the_other_block_still_reads_is_filled)
{
    static const mistake mistakes[] = {
        {"the wait sees the own block alone",
         FC2_FORWARD,
         "try_wait.parity.relaxed.cluster.shared",
         "try_wait.parity.shared",
         {RACE(BULK_WRITE, WGMMA_READ) ", by another block"}},
        {"an empty stage counts the own warps",
         FC2_FORWARD,
         "consumer_warps * cluster",
         "consumer_warps",
         {RACE(BULK_WRITE, WGMMA_READ), "at the mbarrier"}},
        {"the arrivals are of the block's scope",
         FC1_DGRAD,
         "arrive.relaxed.cluster.shared",
         "arrive.release.cta.shared",
         {RACE(BULK_WRITE, WGMMA_READ) ", by another block"}},
    };
    EXPECT_REPORTS(IN_ORDER, mistakes);
}

Test(broken_clusters, a_stage_that_is_not_full_is_read)
{
    static const mistake mistakes[] = {
        {"the bytes of the other block are not expected",
         FC2_FORWARD,
         "mbarrier_arrive_expect(barrier, stage_bytes);",
         "mbarrier_arrive_expect(barrier, stage_bytes - OperandB::bytes / 2);",
         {"at the mbarrier", RACE(WGMMA_READ, BULK_WRITE)}},
        {"both blocks bring the same half",
         FC2_FORWARD,
         "destination + rank * (bytes / 2)",
         "destination + 0 * (bytes / 2)",
         {RACE(BULK_WRITE, BULK_WRITE), "B of wgmma was never written"}},
        {"panels of both blocks overlap",
         FC1_WGRAD,
         "rank * (tile_n / 64 / cluster) + i",
         "rank * (tile_n / 64 / cluster - 1) + i",
         {RACE(BULK_WRITE, BULK_WRITE), "B of wgmma was never written"}},
    };
    EXPECT_REPORTS(IN_ORDER, mistakes);
}

Test(broken_clusters, a_phase_that_never_ends_is_a_deadlock)
{
    static const mistake mistakes[] = {
        {"stages are freed for one block",
         FC2_FORWARD,
         ARRIVE,
         "if (lane == 0)\n        mbarrier_arrive_at(barrier, 0);",
         {"deadlock"}},
        {"the copies go to the own block", FC1_FORWARD, ALL_BLOCKS, "1 << rank", {"deadlock"}},
        {"the copies go to the first block", FC1_WGRAD, ALL_BLOCKS, "1", {"deadlock", "bytes"}},
        {"one block loads",
         FC2_FORWARD,
         "if (threadIdx.x == 0) {\n            RingPlace",
         "if (threadIdx.x == 0 && rank == 0) {\n            RingPlace",
         {"deadlock"}},
    };
    EXPECT_REPORTS(IN_ORDER, mistakes);
}

Test(broken_clusters, coming_and_leaving_alone_is_told)
{
    static const mistake mistakes[] = {
        {"the blocks begin when they like",
         FC2_FORWARD,
         "    cluster_sync();\n\n",
         "    __syncthreads();\n\n",
         {"mbarrier.init", "nothing orders the blocks"}},
        {"the blocks leave when they like",
         FC2_FORWARD,
         "    cluster_sync();\n}",
         "}",
         {"nothing orders that behind what another block does to its shared memory"}},
        {"they are no cluster", FC2_FORWARD, " __cluster_dims__(cluster, 1, 1)", "", {"cluster"}},
    };
    EXPECT_REPORTS(IN_ORDER, mistakes);
}

Test(broken_clusters, a_kernel_that_begins_before_the_one_before_it_ends_is_told)
{
    static const mistake mistakes[] = {
        {"nobody waits",
         FC2_FORWARD,
         "    wait_for_previous_grid();\n",
         "",
         {"reads what the grid before it may still write: no griddepcontrol.wait before it"}},
        {"the threads that store wait, behind the barrier",
         FC1_WGRAD,
         "    wait_for_previous_grid();\n    allow_next_grid();\n    cluster_sync();\n",
         "    cluster_sync();\n    if (threadIdx.x >= 128)\n        wait_for_previous_grid();\n",
         {"no griddepcontrol.wait before it"}},
        {"the kernel before it is told instead",
         FC1_DGRAD,
         "    wait_for_previous_grid();\n",
         "    allow_next_grid();\n",
         {"no griddepcontrol.wait before it"}},
    };
    EXPECT_REPORTS(IN_ORDER, mistakes);
}

Test(broken_clusters, tiles_that_both_have_or_nobody_has_are_told)
{
    static const mistake mistakes[] = {
        {"both have the same tile",
         FC2_FORWARD,
         "row * cluster + rank",
         "row * cluster",
         {RACE(BULK_WRITE, BULK_WRITE) ", by another block"}},
        {"the tile that does not exist has sums",
         BIAS_FC2_DGRAD,
         " && tile.first_row < rows",
         "",
         {"out of bounds"}},
    };
    EXPECT_REPORTS(IN_ORDER, mistakes);
}
