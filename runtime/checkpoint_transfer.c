/*
 * checkpoint_transfer.c: moves pieces between memory and the file. A piece is contiguous in memory;
 * in the file it is rows, or runs of them, at the places that its offsets say. Device memory goes
 * through one pinned buffer of bounded size. Long runs are written past the page cache: ranks that
 * write to one file would wait for each other there, and fsync would come on top.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint.h"
#include "context.h"

enum {
    STAGING_BYTES = 8 << 20,
    DIRECT_ALIGNMENT = 4096, /* of memory, place and size, for O_DIRECT */
    DIRECT_BYTES = 1 << 20   /* runs from here on are written so */
};

bool checkpoint_is_written(const checkpoint_piece *piece)
{
    const int64_t *replica = piece->tensor.replica_id;
    return replica[0] == 0 && replica[1] == 0 && replica[2] == 0;
}

/* ---- the file -------------------------------------------------------------------------------- */

mmlp_status checkpoint_write_at(const checkpoint_file *file, const char *from, size_t bytes,
                                uint64_t offset)
{
    while (bytes > 0) {
        ssize_t count = pwrite(file->descriptor, from, bytes, (off_t)offset);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return mmlp_fail(MMLP_ERROR_IO, "%s: cannot write: %s", file->path, strerror(errno));
        from += count;
        offset += (uint64_t)count;
        bytes -= (size_t)count;
    }
    return MMLP_OK;
}

/* The aligned middle of a run past the page cache, where the file system and the address allow it;
 * the rest through it. */
static mmlp_status write_run(const checkpoint_file *file, const char *from, uint64_t bytes,
                             uint64_t offset)
{
    const uint64_t head = (0 - offset) % DIRECT_ALIGNMENT;
    if (file->direct < 0 || bytes < DIRECT_BYTES)
        return checkpoint_write_at(file, from, (size_t)bytes, offset);
    const uint64_t middle = (bytes - head) / DIRECT_ALIGNMENT * DIRECT_ALIGNMENT;
    ssize_t count = pwrite(file->direct, from + head, (size_t)middle, (off_t)(offset + head));
    const uint64_t done = head + (count > 0 ? (uint64_t)count : 0);
    MMLP_TRY(checkpoint_write_at(file, from, (size_t)head, offset));
    return checkpoint_write_at(file, from + done, (size_t)(bytes - done), offset + done);
}

mmlp_status checkpoint_read_at(const checkpoint_file *file, char *to, size_t bytes, uint64_t offset)
{
    while (bytes > 0) {
        ssize_t count = pread(file->descriptor, to, bytes, (off_t)offset);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return mmlp_fail(MMLP_ERROR_IO, "%s: cannot read: %s", file->path, strerror(errno));
        if (count == 0)
            return mmlp_fail(MMLP_ERROR_IO, "%s: ends at byte %llu: it was cut while it was read",
                             file->path, (unsigned long long)offset);
        to += count;
        offset += (uint64_t)count;
        bytes -= (size_t)count;
    }
    return MMLP_OK;
}

/* ---- where a piece lies ---------------------------------------------------------------------- */

/* The piece as `count` runs, each contiguous in the file: an index of each of the first `axes`. */
typedef struct runs {
    int axes;
    uint64_t bytes; /* of one */
    uint64_t count;
} runs;

static runs runs_of(const checkpoint_piece *piece)
{
    const int64_t *whole = piece->entry->shape;
    runs r = {piece->axes, piece->entry->type->bits / 8, 1};
    bool is_whole = true; /* so far, from the last axis on */
    while (r.axes > 0 && is_whole) {
        r.axes--;
        r.bytes *= (uint64_t)piece->extent[r.axes];
        is_whole = piece->extent[r.axes] == whole[r.axes];
    }
    for (int i = 0; i < r.axes; i++)
        r.count *= (uint64_t)piece->extent[i];
    return r;
}

/* Where run number `run` begins, in bytes behind the header. */
static uint64_t place_of(const checkpoint_piece *piece, const runs *r, uint64_t run)
{
    const int64_t *whole = piece->entry->shape, *offset = piece->tensor.global_offset;
    uint64_t element = 0, stride = 1;
    for (int i = piece->axes - 1; i >= 0; i--) {
        uint64_t index = (uint64_t)offset[i];
        if (i < r->axes) {
            index += run % (uint64_t)piece->extent[i];
            run /= (uint64_t)piece->extent[i];
        }
        element += index * stride;
        stride *= (uint64_t)whole[i];
    }
    return piece->entry->begin + element * (piece->entry->type->bits / 8);
}

/* ---- moving ---------------------------------------------------------------------------------- */

typedef struct transfer {
    const checkpoint_file *file;
    mmlp_context *context; /* NULL: host memory */
    void *stream;
    char *staging;
    bool is_write;
} transfer;

/* `bytes` of the piece from its byte `first` on, which lie at `host`. */
static mmlp_status move_bytes(const transfer *t, const checkpoint_piece *piece, char *host,
                              uint64_t first, uint64_t bytes)
{
    const runs r = runs_of(piece);
    while (bytes > 0) {
        uint64_t within = first % r.bytes, length = r.bytes - within;
        length = length < bytes ? length : bytes;
        uint64_t at = t->file->data_start + place_of(piece, &r, first / r.bytes) + within;
        MMLP_TRY(t->is_write ? write_run(t->file, host, length, at)
                             : checkpoint_read_at(t->file, host, (size_t)length, at));
        host += length;
        first += length;
        bytes -= length;
    }
    return MMLP_OK;
}

static mmlp_status move_staged(const transfer *t, const checkpoint_piece *piece, uint64_t first,
                               uint64_t bytes)
{
    const runs r = runs_of(piece);
    const uint64_t place = place_of(piece, &r, first / r.bytes) + first % r.bytes;
    char *memory = piece->memory + first;
    char *staging = t->staging + (t->file->data_start + place) % DIRECT_ALIGNMENT;
    if (!t->is_write) {
        MMLP_TRY(move_bytes(t, piece, staging, first, bytes));
        return mmlp_buffer_upload(t->context, memory, staging, (size_t)bytes, t->stream);
    }
    MMLP_TRY(mmlp_buffer_download(t->context, staging, memory, (size_t)bytes, t->stream));
    return move_bytes(t, piece, staging, first, bytes);
}

static mmlp_status move_piece(const transfer *t, const checkpoint_piece *piece)
{
    const runs r = runs_of(piece);
    const uint64_t all = r.bytes * r.count;
    if (!t->context)
        return move_bytes(t, piece, piece->memory, 0, all);
    for (uint64_t first = 0; first < all; first += STAGING_BYTES)
        MMLP_TRY(move_staged(t, piece, first,
                             all - first < STAGING_BYTES ? all - first : STAGING_BYTES));
    return MMLP_OK;
}

static mmlp_status alloc_staging(transfer *t)
{
    const driver *d = &t->context->cuda;
    void *staging = NULL;
    MMLP_TRY(context_enter(t->context));
    mmlp_status status =
        driver_check(d, d->cuMemHostAlloc(&staging, STAGING_BYTES + DIRECT_ALIGNMENT, 0),
                     "a pinned buffer of %d bytes", STAGING_BYTES + DIRECT_ALIGNMENT);
    context_leave(t->context);
    t->staging = staging;
    return status;
}

static void free_staging(transfer *t)
{
    if (!t->staging || context_enter(t->context) != MMLP_OK)
        return;
    t->context->cuda.cuMemFreeHost(t->staging);
    context_leave(t->context);
}

/* Each rank begins elsewhere: what one writes past the page cache waits for the disk, what goes
 * through it for the other ranks, and so both go on at the same time. */
static mmlp_status move_pieces(transfer *t, const checkpoint_layout *layout,
                               const checkpoint_ranks *ranks)
{
    const size_t count = layout->piece_count;
    const size_t start = count * (size_t)ranks->rank / (size_t)ranks->count;
    mmlp_status status = MMLP_OK;
    if (t->context)
        MMLP_TRY(alloc_staging(t));
    for (size_t i = 0; status == MMLP_OK && i < count; i++) {
        const checkpoint_piece *piece = &layout->pieces[(start + i) % count];
        if (!t->is_write || checkpoint_is_written(piece))
            status = move_piece(t, piece);
    }
    free_staging(t);
    return status;
}

mmlp_status checkpoint_write_pieces(const checkpoint_file *file, const checkpoint_layout *layout,
                                    const checkpoint_ranks *ranks)
{
    transfer t = {file, ranks->context, ranks->stream, NULL, true};
    return move_pieces(&t, layout, ranks);
}

mmlp_status checkpoint_read_pieces(const checkpoint_file *file, const checkpoint_layout *layout,
                                   const checkpoint_ranks *ranks)
{
    transfer t = {file, ranks->context, ranks->stream, NULL, false};
    return move_pieces(&t, layout, ranks);
}
