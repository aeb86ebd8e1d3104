/* communicators.c: made, watched, ended; words exchanged; and the library behind them. */
#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "comm.h"
#include "thread_ranks.h"

static void exchange(thread_rank *rank)
{
    uint64_t all[THREAD_RANKS_MAX * COMM_WORDS];
    const uint64_t r = (uint64_t)rank->rank, own[COMM_WORDS] = {r, ~r, 7, 1ull << 63 | r};
    comm *c;
    cr_assert_eq(comm_find(&c, rank->context, rank->comm), MMLP_OK, "%s", mmlp_last_error());
    cr_expect_eq(c->ranks, rank->ranks);
    cr_expect_eq(c->rank, rank->rank);
    cr_assert_eq(comm_exchange(all, rank->context, c, own), MMLP_OK, "%s", mmlp_last_error());
    for (uint64_t i = 0; i < (uint64_t)rank->ranks; i++) {
        cr_expect_eq(all[i * COMM_WORDS], i);
        cr_expect_eq(all[i * COMM_WORDS + 1], ~i);
        cr_expect_eq(all[i * COMM_WORDS + 2], 7);
        cr_expect_eq(all[i * COMM_WORDS + 3], 1ull << 63 | i);
    }
}

Test(communicators, words_of_every_rank_reach_every_rank, .timeout = 60)
{
    with_thread_ranks(1, exchange, NULL);
    with_thread_ranks(4, exchange, NULL);
}

static void one_aborts(thread_rank *rank)
{
    uint64_t all[THREAD_RANKS_MAX * COMM_WORDS];
    const uint64_t own[COMM_WORDS] = {0};
    comm *c;
    cr_assert_eq(comm_find(&c, rank->context, rank->comm), MMLP_OK, "%s", mmlp_last_error());
    thread_barrier(rank);
    if (rank->rank == 1) {
        cr_expect_eq(mmlp_comm_abort(rank->context, rank->comm), MMLP_OK, "%s", mmlp_last_error());
        cr_expect_eq(mmlp_comm_abort(rank->context, rank->comm), MMLP_OK);
    }
    cr_expect_eq(comm_exchange(all, rank->context, c, own), MMLP_ERROR_COMM);
    const char *wanted = rank->rank == 1
                             ? "communicator: it has ended (mmlp_comm_abort); make another one"
                             : "rank 1";
    cr_expect(strstr(mmlp_last_error(), wanted), "%s", mmlp_last_error());
    if (rank->rank != 1)
        cr_expect_eq(mmlp_comm_abort(rank->context, rank->comm), MMLP_OK);
    cr_expect_eq(mmlp_comm_status(rank->context, rank->comm), MMLP_ERROR_COMM);
    cr_expect_str_eq(mmlp_last_error(), "communicator: it has ended; make another one");
}

Test(communicators, a_rank_that_aborts_makes_the_others_fail, .timeout = 60)
{
    with_thread_ranks(2, one_aborts, NULL);
}

static void use_that_of_another_device(thread_rank *rank)
{
    mmlp_context_options options = MMLP_CONTEXT_OPTIONS_INIT;
    options.device = 3;
    mmlp_context *other;
    cr_assert_eq(mmlp_context_create(&other, &options), MMLP_OK, "%s", mmlp_last_error());
    cr_expect_eq(mmlp_comm_status(other, rank->comm), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(), "communicator: found one of CUDA device 0, wanted one of "
                                        "CUDA device 3");
    mmlp_context_destroy(other);
}

Test(communicators, one_of_another_device_is_refused, .timeout = 60)
{
    with_thread_ranks(1, use_that_of_another_device, NULL);
}

Test(communicators, wrong_ranks_and_missing_things_are_named)
{
    mmlp_context *context;
    struct ncclComm *made;
    mmlp_comm_id id;
    cr_assert_eq(mmlp_context_create(&context, NULL), MMLP_OK, "%s", mmlp_last_error());
    cr_assert_eq(mmlp_comm_unique_id(&id, context), MMLP_OK, "%s", mmlp_last_error());
    cr_expect_eq(mmlp_comm_create(&made, context, &id, 2, 2), MMLP_ERROR_ARGUMENT);
    cr_expect_str_eq(mmlp_last_error(),
                     "mmlp_comm_create: found rank 2 of 2, wanted 0 to ranks - 1");
    cr_expect_null(made);
    cr_expect_eq(mmlp_comm_create(&made, NULL, &id, 2, 2), MMLP_ERROR_ARGUMENT);
    cr_expect_eq(mmlp_comm_unique_id(NULL, context), MMLP_ERROR_ARGUMENT);
    cr_expect_eq(mmlp_comm_status(context, NULL), MMLP_ERROR_ARGUMENT);
    cr_expect_eq(mmlp_comm_destroy(context, NULL), MMLP_OK);
    cr_expect_eq(mmlp_comm_destroy(context, (struct ncclComm *)&id), MMLP_ERROR_ARGUMENT);
    mmlp_context_destroy(context);
}

/* ---- the library ---------------------------------------------------------------------------- */

static mmlp_status unique_id_by(const char *nccl)
{
    mmlp_context_options options = MMLP_CONTEXT_OPTIONS_INIT;
    options.nccl = nccl;
    mmlp_context *context;
    mmlp_comm_id id;
    cr_assert_eq(mmlp_context_create(&context, &options), MMLP_OK, "%s", mmlp_last_error());
    mmlp_status status = mmlp_comm_unique_id(&id, context);
    mmlp_context_destroy(context);
    return status;
}

Test(communicators, only_what_needs_nccl_fails_where_it_is_missing)
{
    cr_expect_eq(unique_id_by("/nowhere/libnccl.so.2"), MMLP_ERROR_DRIVER);
    cr_expect(strstr(mmlp_last_error(), "NCCL: /nowhere/libnccl.so.2: "), "%s", mmlp_last_error());
    cr_expect(strstr(mmlp_last_error(), "install NCCL 2.18 or newer, or give its path"));
}

Test(communicators, an_old_nccl_is_told_what_is_needed)
{
    cr_expect_eq(unique_id_by(MMLP_TEST_OLD_NCCL), MMLP_ERROR_DRIVER);
    cr_expect(strstr(mmlp_last_error(), "has version code 21701; 2.18 or newer (21800) is needed"),
              "%s", mmlp_last_error());
}

Test(communicators, a_library_that_is_no_nccl_is_told_what_it_lacks)
{
    cr_expect_eq(unique_id_by(MMLP_TEST_LIBCUDA), MMLP_ERROR_DRIVER);
    cr_expect(strstr(mmlp_last_error(), "has no function nccl"), "%s", mmlp_last_error());
}

/* NVIDIA's library, or the case is skipped. */
static const char *nvidias(void)
{
    if (access(MMLP_TEST_NVIDIA_NCCL, R_OK) != 0) {
        fprintf(stderr, "SKIPPED: there is no %s\n", MMLP_TEST_NVIDIA_NCCL);
        cr_skip_test("NVIDIA's NCCL is not installed");
    }
    return MMLP_TEST_NVIDIA_NCCL;
}

Test(communicators, nvidias_nccl_has_every_function_and_tells_the_headers_version, .timeout = 60)
{
    const driver gpu = {.path = "libcuda.so.1"};
    nccl_library library;
    cr_assert_eq(nccl_library_open(&library, &gpu, nvidias()), MMLP_OK, "%s", mmlp_last_error());
    cr_expect_eq(library.version, NCCL_VERSION_CODE, "%d", library.version);
    nccl_library_close(&library);
}

Test(communicators, nvidias_nccl_is_not_used_for_the_emulators_devices, .timeout = 60)
{
    cr_expect_eq(unique_id_by(nvidias()), MMLP_ERROR_DRIVER);
    cr_expect(strstr(mmlp_last_error(), "is NVIDIA's, but the driver "), "%s", mmlp_last_error());
}

Test(communicators, the_emulators_nccl_is_not_used_for_a_gpu)
{
    const driver gpu = {.path = "libcuda.so.1"};
    nccl_library library;
    cr_expect_eq(nccl_library_open(&library, &gpu, MMLP_TEST_EMULATORS_NCCL), MMLP_ERROR_DRIVER);
    cr_expect(strstr(mmlp_last_error(), "is the emulator's, but the driver libcuda.so.1 is of a "
                                        "GPU"),
              "%s", mmlp_last_error());
}
