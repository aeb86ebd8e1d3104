/*
 * checkpoint_ranks.c: what the ranks of a checkpoint tell each other: where each stands, and what
 * it has. Whatever happens to one, all call the same steps, so that none waits for ever.
 */
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "checkpoint.h"

enum { WORDS = 1 + CHECKPOINT_WORDS };
_Static_assert((int)WORDS == (int)COMM_WORDS, "a status and words");

mmlp_status checkpoint_ranks_open(checkpoint_ranks *out, const char *path,
                                  const mmlp_checkpoint_args *args)
{
    *out = (checkpoint_ranks){
        .path = path, .context = args->context, .stream = args->stream, .count = 1};
    if (args->comm) {
        comm *found;
        MMLP_TRY(comm_find(&found, args->context, args->comm));
        out->comm = found;
        out->count = found->ranks;
        out->rank = found->rank;
    }
    size_t bytes = (size_t)out->count * WORDS * sizeof *out->all;
    out->all = malloc(bytes);
    return out->all ? MMLP_OK : mmlp_fail_memory(bytes, "what ranks say");
}

void checkpoint_ranks_close(checkpoint_ranks *ranks)
{
    free(ranks->all);
    *ranks = (checkpoint_ranks){0};
}

static mmlp_status exchange(checkpoint_ranks *ranks, const uint64_t own[WORDS])
{
    if (ranks->comm)
        return comm_exchange(ranks->all, ranks->context, ranks->comm, own);
    memcpy(ranks->all, own, WORDS * sizeof *own);
    return MMLP_OK;
}

mmlp_status checkpoint_agree(checkpoint_ranks *ranks, mmlp_status own,
                             const uint64_t words[CHECKPOINT_WORDS])
{
    uint64_t given[WORDS] = {(uint64_t)own};
    if (words)
        memcpy(given + 1, words, CHECKPOINT_WORDS * sizeof *words);
    MMLP_TRY(exchange(ranks, given));
    if (own != MMLP_OK)
        return own;
    for (int i = 0; i < ranks->count; i++) {
        mmlp_status other = (mmlp_status)ranks->all[i * WORDS];
        if (other != MMLP_OK)
            return mmlp_fail(other, "%s: rank %d failed with %s; its own line says why",
                             ranks->path, i, mmlp_status_name(other));
    }
    return MMLP_OK;
}

uint64_t checkpoint_word(const checkpoint_ranks *ranks, int rank, int word)
{
    return ranks->all[rank * WORDS + 1 + word];
}

/* ---- what the ranks have --------------------------------------------------------------------- */

/*
 * A fingerprint of a box: the sum over its elements of a product of pseudo-random weights, one for
 * each index of each axis, modulo 2^64. Of boxes that are each element of a tensor once the
 * fingerprints add up to the tensor's own; others do so by chance only, at about 1 in 2^64.
 */
static uint64_t fingerprint(const int64_t *offset, const int64_t *extent, int axes)
{
    uint64_t product = 1;
    for (int axis = 0; axis < axes; axis++) {
        uint64_t sum = 0;
        for (int64_t i = offset[axis]; i < offset[axis] + extent[axis]; i++)
            sum += XXH64(&i, sizeof i, (XXH64_hash_t)axis);
        product *= sum;
    }
    return product;
}

typedef struct coverage {
    uint64_t elements, fingerprint; /* sums over pieces */
} coverage;

static uint64_t element_count(const int64_t *extent, int axes)
{
    uint64_t count = 1;
    for (int i = 0; i < axes; i++)
        count *= (uint64_t)extent[i];
    return count;
}

static void cover(coverage *covered, const checkpoint_layout *layout)
{
    for (size_t i = 0; i < layout->piece_count; i++) {
        const checkpoint_piece *piece = &layout->pieces[i];
        coverage *one = &covered[piece->entry - layout->header.entries];
        if (!checkpoint_is_written(piece))
            continue;
        one->elements += element_count(piece->extent, piece->axes);
        one->fingerprint += fingerprint(piece->tensor.global_offset, piece->extent, piece->axes);
    }
}

static uint64_t hash_entry(const safetensors_entry *entry)
{
    uint64_t hash = XXH64(entry->name, strlen(entry->name), (XXH64_hash_t)entry->type->bits);
    hash = XXH64(entry->type->word, strlen(entry->type->word), hash);
    return XXH64(entry->shape, (size_t)entry->ndim * sizeof entry->shape[0], hash);
}

/* Of what every rank has given last: {hash, elements, fingerprint} of one tensor. */
static mmlp_status check_tensor(const checkpoint_ranks *ranks, const safetensors_entry *entry)
{
    static const int64_t origin[MMLP_SHARDED_AXES];
    coverage sum = {0, 0};
    for (int i = 0; i < ranks->count; i++) {
        if (checkpoint_word(ranks, i, 0) != checkpoint_word(ranks, 0, 0))
            return mmlp_fail(MMLP_ERROR_SHAPE,
                             "%s: ranks 0 and %d do not give the same tensors; they differ at '%s'",
                             ranks->path, i, entry->name);
        sum.elements += checkpoint_word(ranks, i, 1);
        sum.fingerprint += checkpoint_word(ranks, i, 2);
    }
    uint64_t wanted = element_count(entry->shape, entry->ndim);
    if (sum.elements != wanted)
        return mmlp_fail(
            MMLP_ERROR_SHAPE, "%s: tensor '%s': the pieces have %llu elements in all; wanted %llu",
            ranks->path, entry->name, (unsigned long long)sum.elements, (unsigned long long)wanted);
    if (sum.fingerprint != fingerprint(origin, entry->shape, entry->ndim))
        return mmlp_fail(MMLP_ERROR_SHAPE,
                         "%s: tensor '%s': pieces overlap, and others are missing; wanted each "
                         "element once",
                         ranks->path, entry->name);
    return MMLP_OK;
}

static mmlp_status check_tensors(checkpoint_ranks *ranks, const coverage *covered,
                                 const safetensors_header *header)
{
    for (size_t i = 0; i < header->count; i++) {
        const uint64_t words[] = {hash_entry(&header->entries[i]), covered[i].elements,
                                  covered[i].fingerprint};
        MMLP_TRY(checkpoint_agree(ranks, MMLP_OK, words));
        MMLP_TRY(check_tensor(ranks, &header->entries[i]));
    }
    return MMLP_OK;
}

mmlp_status checkpoint_check_pieces(checkpoint_ranks *ranks, const checkpoint_layout *layout)
{
    const size_t count = layout->header.count;
    const uint64_t words[CHECKPOINT_WORDS] = {count};
    coverage *covered = calloc(count + 1, sizeof *covered);
    mmlp_status status =
        covered ? MMLP_OK : mmlp_fail_memory(count * sizeof *covered, "what pieces cover");
    MMLP_TRY_CLEANUP(checkpoint_agree(ranks, status, words));
    for (int i = 0; i < ranks->count; i++)
        if (checkpoint_word(ranks, i, 0) != count) {
            status =
                mmlp_fail(MMLP_ERROR_SHAPE, "%s: rank %d gives %llu tensors, this one %zu",
                          ranks->path, i, (unsigned long long)checkpoint_word(ranks, i, 0), count);
            goto cleanup;
        }
    cover(covered, layout);
    status = check_tensors(ranks, covered, &layout->header);

cleanup:
    free(covered);
    return status;
}
