/*
 * checkpoint_transfer.c: moves pieces between memory and the file. A piece is contiguous in memory;
 * in the file it is rows, or runs of them, at the places that its offsets say. Device memory goes
 * through pinned buffers of bounded size; while one is filled, others are being written.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "checkpoint.h"
#include "context.h"

enum { STAGING_BYTES = CHECKPOINT_DIRECT_WRITES * CHECKPOINT_DIRECT_BYTES };

bool checkpoint_is_written(const checkpoint_piece *piece)
{
    const int64_t *replica = piece->tensor.replica_id;
    return replica[0] == 0 && replica[1] == 0 && replica[2] == 0;
}

/* ---- the file -------------------------------------------------------------------------------- */

mmlp_status checkpoint_fail_io(const char *path, const char *what)
{
    return mmlp_fail(MMLP_ERROR_IO, "%s: cannot %s: %s", path, what, strerror(errno));
}

mmlp_status checkpoint_write_at(const checkpoint_file *file, const char *from, size_t bytes,
                                uint64_t offset)
{
    while (bytes > 0) {
        ssize_t count = pwrite(file->descriptor, from, bytes, (off_t)offset);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return checkpoint_fail_io(file->path, "write");
        from += count;
        offset += (uint64_t)count;
        bytes -= (size_t)count;
    }
    return MMLP_OK;
}

mmlp_status checkpoint_read_at(const checkpoint_file *file, char *to, size_t bytes, uint64_t offset)
{
    while (bytes > 0) {
        ssize_t count = pread(file->descriptor, to, bytes, (off_t)offset);
        if (count < 0 && errno == EINTR)
            continue;
        if (count < 0)
            return checkpoint_fail_io(file->path, "read");
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
    char *staging[CHECKPOINT_SLOTS]; /* one for each slot; to read, the first alone */
    checkpoint_direct direct;        /* to write */
    int next_slot;
    bool is_write;
} transfer;

/* Where byte `first` of the piece lies in the file; *left is what of its run follows. */
static uint64_t offset_of(const transfer *t, const checkpoint_piece *piece, uint64_t first,
                          uint64_t *left)
{
    const runs r = runs_of(piece);
    *left = r.bytes - first % r.bytes;
    return t->file->data_start + place_of(piece, &r, first / r.bytes) + first % r.bytes;
}

/* `bytes` of the piece from its byte `first` on, which lie at `host`. */
static mmlp_status move_bytes(transfer *t, const checkpoint_piece *piece, int slot, char *host,
                              uint64_t first, uint64_t bytes)
{
    while (bytes > 0) {
        uint64_t length, at = offset_of(t, piece, first, &length);
        length = length < bytes ? length : bytes;
        MMLP_TRY(t->is_write ? checkpoint_direct_write(&t->direct, slot, host, length, at)
                             : checkpoint_read_at(t->file, host, (size_t)length, at));
        host += length;
        first += length;
        bytes -= length;
    }
    return MMLP_OK;
}

static mmlp_status write_part(transfer *t, const checkpoint_piece *piece, uint64_t first,
                              uint64_t bytes)
{
    const int slot = t->next_slot;
    char *host = piece->memory + first;
    t->next_slot = (slot + 1) % CHECKPOINT_SLOTS;
    MMLP_TRY(checkpoint_direct_wait(&t->direct, slot));
    if (t->context) { /* bytes that begin a page of the file begin one of the memory */
        uint64_t left;
        host = t->staging[slot] + offset_of(t, piece, first, &left) % t->direct.alignment;
        MMLP_TRY(mmlp_buffer_download(t->context, host, piece->memory + first, (size_t)bytes,
                                      t->stream));
    }
    return move_bytes(t, piece, slot, host, first, bytes);
}

static mmlp_status read_part(transfer *t, const checkpoint_piece *piece, uint64_t first,
                             uint64_t bytes)
{
    char *memory = piece->memory + first;
    if (!t->context)
        return move_bytes(t, piece, 0, memory, first, bytes);
    MMLP_TRY(move_bytes(t, piece, 0, t->staging[0], first, bytes));
    return mmlp_buffer_upload(t->context, memory, t->staging[0], (size_t)bytes, t->stream);
}

static mmlp_status move_piece(transfer *t, const checkpoint_piece *piece)
{
    const runs r = runs_of(piece);
    const uint64_t all = r.bytes * r.count;
    for (uint64_t first = 0; first < all; first += STAGING_BYTES) {
        uint64_t bytes = all - first < STAGING_BYTES ? all - first : STAGING_BYTES;
        MMLP_TRY(t->is_write ? write_part(t, piece, first, bytes)
                             : read_part(t, piece, first, bytes));
    }
    return MMLP_OK;
}

/* Each rank begins elsewhere, that they do not all write the same rows at the same time. */
static mmlp_status move_pieces(transfer *t, const checkpoint_layout *layout,
                               const checkpoint_ranks *ranks)
{
    const size_t count = layout->piece_count;
    const size_t start = count * (size_t)ranks->rank / (size_t)ranks->count;
    for (size_t i = 0; i < count; i++) {
        const checkpoint_piece *piece = &layout->pieces[(start + i) % count];
        if (!t->is_write || checkpoint_is_written(piece))
            MMLP_TRY(move_piece(t, piece));
    }
    return MMLP_OK;
}

/* ---- staging --------------------------------------------------------------------------------- */

static mmlp_status alloc_staging(transfer *t, int slots)
{
    const driver *d = &t->context->cuda;
    const size_t bytes = STAGING_BYTES + t->direct.alignment;
    mmlp_status status = MMLP_OK;
    MMLP_TRY(context_enter(t->context));
    for (int i = 0; status == MMLP_OK && i < slots; i++) {
        void *staging = NULL;
        status = driver_check(d, d->cuMemHostAlloc(&staging, bytes, 0),
                              "a pinned buffer of %zu bytes", bytes);
        t->staging[i] = staging;
    }
    context_leave(t->context);
    return status;
}

static void free_staging(transfer *t)
{
    if (!t->staging[0] || context_enter(t->context) != MMLP_OK)
        return;
    for (int i = 0; i < CHECKPOINT_SLOTS; i++)
        if (t->staging[i])
            t->context->cuda.cuMemFreeHost(t->staging[i]);
    context_leave(t->context);
}

/* ---- all ------------------------------------------------------------------------------------- */

static mmlp_status write_pieces(transfer *t, const checkpoint_layout *layout,
                                const checkpoint_ranks *ranks)
{
    if (t->context)
        MMLP_TRY(alloc_staging(t, CHECKPOINT_SLOTS));
    MMLP_TRY(move_pieces(t, layout, ranks));
    for (int slot = 0; slot < CHECKPOINT_SLOTS; slot++)
        MMLP_TRY(checkpoint_direct_wait(&t->direct, slot));
    return MMLP_OK;
}

mmlp_status checkpoint_write_pieces(const checkpoint_file *file, const checkpoint_layout *layout,
                                    const checkpoint_ranks *ranks)
{
    transfer t = {
        .file = file, .context = ranks->context, .stream = ranks->stream, .is_write = true};
    checkpoint_direct_open(&t.direct, file);
    mmlp_status status = write_pieces(&t, layout, ranks);
    checkpoint_direct_close(&t.direct); /* before the memory goes that is being written */
    free_staging(&t);
    return status;
}

mmlp_status checkpoint_read_pieces(const checkpoint_file *file, const checkpoint_layout *layout,
                                   const checkpoint_ranks *ranks)
{
    transfer t = {.file = file, .context = ranks->context, .stream = ranks->stream};
    mmlp_status status = t.context ? alloc_staging(&t, 1) : MMLP_OK;
    if (status == MMLP_OK)
        status = move_pieces(&t, layout, ranks);
    free_staging(&t);
    return status;
}
