/*
 * checkpoint.h: what the files of checkpoints share. A layout is the file's header together with
 * the pieces of it that this rank has; save and load are steps on it that all ranks take together.
 */
#ifndef MMLP_CHECKPOINT_H
#define MMLP_CHECKPOINT_H

#include <linux/aio_abi.h>

#include "base/error.h"
#include "base/safetensors_header.h"
#include "comm.h"

typedef struct checkpoint_piece {
    mmlp_sharded_tensor tensor;
    int axes;                          /* the prepended ones included */
    int64_t extent[MMLP_SHARDED_AXES]; /* 1 for prepended ones */
    char *memory;
    const safetensors_entry *entry; /* the stored tensor in which it lies */
} checkpoint_piece;

typedef struct checkpoint_layout {
    safetensors_header header;
    checkpoint_piece *pieces;
    size_t piece_count;
} checkpoint_layout;

/* ---- checkpoint_layout.c ---- */

/* From the entries alone. needs_data: each has an address. ERROR_ARGUMENT names the entry. */
mmlp_status checkpoint_layout_build(checkpoint_layout *out, const mmlp_checkpoint_args *args,
                                    bool needs_data);
void checkpoint_layout_free(checkpoint_layout *layout); /* empties it */
/* "[8, 96, 12]" */
void checkpoint_print_shape(text *out, const safetensors_entry *entry);

/* ---- checkpoint_compare.c ---- */

/* Reads the header of an open file; *data_start is where its tensors begin. ERROR_FORMAT. */
mmlp_status checkpoint_read_header(safetensors_header *out, uint64_t *data_start, int descriptor,
                                   const char *path);
/* Calls report with a line for each tensor that is not as wanted. ERROR_SHAPE carries the first. */
mmlp_status checkpoint_compare(const safetensors_header *found, const safetensors_header *wanted,
                               const char *path, void (*report)(void *user, const char *line),
                               void *user);

/* ---- checkpoint_ranks.c ---- */

enum { CHECKPOINT_WORDS = 3 };

typedef struct checkpoint_ranks {
    const char *path; /* for messages */
    mmlp_context *context;
    void *stream;
    const comm *comm; /* NULL: one rank */
    int count, rank;
    uint64_t *all; /* what every rank has given last: its status and its words */
} checkpoint_ranks;

/* The path is borrowed. */
mmlp_status checkpoint_ranks_open(checkpoint_ranks *out, const char *path,
                                  const mmlp_checkpoint_args *args);
void checkpoint_ranks_close(checkpoint_ranks *ranks);
/* Waits until every rank has come here, and hands words round (NULL: zeros). Fails on all when one
 * comes with a failure, on that one with its own line. */
mmlp_status checkpoint_agree(checkpoint_ranks *ranks, mmlp_status own,
                             const uint64_t words[CHECKPOINT_WORDS]);
uint64_t checkpoint_word(const checkpoint_ranks *ranks, int rank, int word);
/* Every rank has the same header, and the pieces that are written are each element once. Every
 * rank finds the same. ERROR_SHAPE names the tensor. */
mmlp_status checkpoint_check_pieces(checkpoint_ranks *ranks, const checkpoint_layout *layout);

/* ---- checkpoint_transfer.c ---- */

typedef struct checkpoint_file {
    int descriptor;
    const char *path;      /* for messages */
    const char *temporary; /* where it lies while it is written */
    uint64_t data_start;
} checkpoint_file;

mmlp_status checkpoint_write_at(const checkpoint_file *file, const char *from, size_t bytes,
                                uint64_t offset);
mmlp_status checkpoint_read_at(const checkpoint_file *file, char *to, size_t bytes,
                               uint64_t offset);
/* "PATH: cannot WHAT: " and what errno says. */
mmlp_status checkpoint_fail_io(const char *path, const char *what);
/* Writes the pieces that this rank has to write, or reads all. */
mmlp_status checkpoint_write_pieces(const checkpoint_file *file, const checkpoint_layout *layout,
                                    const checkpoint_ranks *ranks);
mmlp_status checkpoint_read_pieces(const checkpoint_file *file, const checkpoint_layout *layout,
                                   const checkpoint_ranks *ranks);
bool checkpoint_is_written(const checkpoint_piece *piece);

/* ---- checkpoint_direct.c ---- */

enum {
    CHECKPOINT_SLOTS = 3,             /* groups of writes, each waited for as a whole */
    CHECKPOINT_DIRECT_WRITES = 8,     /* under way in one */
    CHECKPOINT_DIRECT_BYTES = 1 << 20 /* a run from here on is written so */
};

typedef struct checkpoint_direct {
    const checkpoint_file *file;
    int descriptor;      /* of the file, with O_DIRECT; -1: the file system has none */
    uint64_t alignment;  /* of memory, place and size: a page */
    aio_context_t queue; /* 0: all goes through the page cache */
    struct iocb writes[CHECKPOINT_SLOTS][CHECKPOINT_DIRECT_WRITES];
    int count[CHECKPOINT_SLOTS], under_way[CHECKPOINT_SLOTS];
} checkpoint_direct;

/* The file is borrowed; it is opened once more. */
void checkpoint_direct_open(checkpoint_direct *out, const checkpoint_file *file);
/* Waits for what is under way, whatever becomes of it. */
void checkpoint_direct_close(checkpoint_direct *direct);
/* Writes a run, or begins to: until the slot has been waited for, its memory stays as it is. At
 * most CHECKPOINT_DIRECT_WRITES long ones in a slot. */
mmlp_status checkpoint_direct_write(checkpoint_direct *direct, int slot, const char *from,
                                    uint64_t bytes, uint64_t offset);
mmlp_status checkpoint_direct_wait(checkpoint_direct *direct, int slot);

#endif
