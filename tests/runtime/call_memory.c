/* call_memory.c: what an mlp remembers of earlier calls. */
#include <criterion/criterion.h>
#include <string.h>

#include "saved_passes.h"
#include "wgrad_ring.h"

static void add(saved_passes *saved, uintptr_t begin, size_t bytes, int64_t tokens)
{
    saved_passes_drop(saved, begin, bytes);
    saved_passes_add(saved, begin, bytes, tokens);
}

Test(saved, an_address_is_known_with_its_tokens_until_it_is_written_over)
{
    saved_passes saved = {0};
    cr_expect_eq(saved_passes_check(&saved, 4096, 5), MMLP_ERROR_ORDER);
    add(&saved, 4096, 100, 5);
    add(&saved, 8192, 100, 7);
    cr_expect_eq(saved_passes_check(&saved, 4096, 5), MMLP_OK);
    cr_expect_eq(saved_passes_check(&saved, 4096, 7), MMLP_ERROR_SHAPE);
    cr_expect_eq(saved_passes_check(&saved, 8192, 7), MMLP_OK);
    add(&saved, 4000, 97, 3); /* its last byte is the other's first */
    cr_expect_eq(saved_passes_check(&saved, 4096, 5), MMLP_ERROR_ORDER);
    add(&saved, 8292, 100, 3); /* begins where the other ends */
    cr_expect_eq(saved_passes_check(&saved, 8192, 7), MMLP_OK);
    cr_expect_eq(saved.count, 3);
}

Test(saved, once_passes_are_forgotten_an_unknown_address_is_accepted)
{
    static saved_passes saved;
    for (uintptr_t i = 1; i <= SAVED_PASSES; i++)
        add(&saved, 4096 * i, 4096, (int64_t)i);
    cr_expect_eq(saved_passes_check(&saved, 4096 * (SAVED_PASSES + 1), 1), MMLP_ERROR_ORDER);
    add(&saved, 4096 * (SAVED_PASSES + 1), 4096, 9);
    cr_expect_eq(saved.count, SAVED_PASSES);
    cr_expect_eq(saved_passes_check(&saved, 4096, 12), MMLP_OK, "the oldest is forgotten");
    cr_expect_eq(saved_passes_check(&saved, 2 * 4096, 12), MMLP_ERROR_SHAPE);
    cr_expect_eq(saved_passes_check(&saved, 4096 * (SAVED_PASSES + 1), 9), MMLP_OK);
}

Test(ring, calls_come_out_in_the_order_they_went_in)
{
    wgrad_ring ring;
    pass_call *out;
    cr_assert_eq(wgrad_ring_create(&ring, 3), MMLP_OK);
    int next_in = 0, next_out = 0;
    for (int round = 0; round < 7; round++) {
        while (wgrad_ring_check_room(&ring) == MMLP_OK) {
            pass_call call = {.tokens = next_in++};
            wgrad_ring_push(&ring, &call);
        }
        cr_expect_eq(ring.count, 3);
        for (int i = 0; i < 1 + round % 3; i++) {
            cr_assert_eq(wgrad_ring_pop(&out, &ring), MMLP_OK);
            cr_expect_eq(out->tokens, next_out++);
        }
    }
    while (wgrad_ring_pop(&out, &ring) == MMLP_OK)
        cr_expect_eq(out->tokens, next_out++);
    cr_expect_null(out);
    cr_expect_eq(next_in, next_out);
    wgrad_ring_free(&ring);
}

Test(ring, only_what_is_kept_is_guarded_and_only_against_writes)
{
    wgrad_ring ring;
    cr_assert_eq(wgrad_ring_create(&ring, 2), MMLP_OK);
    pass_call waiting = {
        .ranges = {{"kept", 1000, 100, false, true}, {"read", 2000, 100, false, false}}};
    wgrad_ring_push(&ring, &waiting);
    static const struct {
        memory_range range;
        mmlp_status status;
    } cases[] = {
        {{"writes", 1099, 50, true, false}, MMLP_ERROR_ARGUMENT},
        {{"writes", 1100, 50, true, false}, MMLP_OK},
        {{"writes", 950, 50, true, false}, MMLP_OK},
        {{"writes", 950, 51, true, false}, MMLP_ERROR_ARGUMENT},
        {{"writes", 1050, 0, true, false}, MMLP_OK},
        {{"reads", 1000, 100, false, true}, MMLP_OK},
        {{"writes", 2000, 100, true, false}, MMLP_OK},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pass_call call = {.ranges = {[RANGE_BUFFER] = cases[i].range}};
        cr_expect_eq(wgrad_ring_check_writes(&ring, &call), cases[i].status, "case %zu", i);
    }
    wgrad_ring_free(&ring);
}
