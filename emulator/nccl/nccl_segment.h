/*
 * nccl_segment.h: the shared memory of one communicator, and who of its ranks is alive.
 *
 * A segment is a file in /dev/shm, named by the unique id, that every rank maps. Its name goes when
 * all ranks have joined. Every field has one writer, so no lock is held in it that a killed rank
 * could leave locked; a rank that changes something raises `epoch`, which sleepers watch (a futex:
 * glibc's condition variables block who signals when a sleeper has been killed).
 *
 * Who is alive: a rank holds an open-file-description lock on the byte of its number, and the
 * process that made the id one on SEGMENT_MAKER. The kernel drops them when the process ends, also
 * by kill -9, also while nobody has waited for it; threads of one process each have their own.
 */
#ifndef NCCL_SEGMENT_H
#define NCCL_SEGMENT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <nccl.h>

#define SEGMENT_MOST_RANKS  64 /* a set of ranks is one word */
#define SEGMENT_MAKER       SEGMENT_MOST_RANKS
#define SEGMENT_WINDOW      ((size_t)256 << 10) /* of a rank, in collectives */
#define SEGMENT_PAIR_WINDOW ((size_t)64 << 10)  /* from a rank to another */
#define SEGMENT_TEXT        1024

/* An operation as its rank describes it. */
typedef struct op_shape {
    int32_t kind;  /* op_kind */
    int32_t type;  /* ncclDataType_t */
    int32_t op;    /* ncclRedOp_t; 0 where the kind does not reduce */
    int32_t other; /* root or peer; 0 where there is none */
    uint64_t count;
    uint64_t
        number; /* of the communicator's collectives, or of the messages of the pair: 1, 2, … */
} op_shape;

typedef enum rank_state { RANK_ABSENT, RANK_JOINED, RANK_LEFT, RANK_ABORTED } rank_state;

/* What one rank writes. */
typedef struct segment_rank {
    _Atomic int state;
    int32_t device;
    int32_t process_id;
    uint64_t process; /* a random number: ids of processes are no names across containers */

    /* Collectives. An operation can be posted when all have posted the one before it. */
    op_shape shapes[2];               /* of operation n: [n % 2] */
    _Atomic uint64_t posted;          /* the number of the last one */
    _Atomic uint64_t filled, drained; /* chunks written to the window, and read from all windows */

    /* What it waits for, while it sleeps: valid when waits_at is the epoch. */
    _Atomic uint64_t waits_for; /* a set of ranks */
    _Atomic uint32_t waits_at;
    op_shape waits_in;

    _Atomic int failed; /* ncclResult_t; the text comes first */
    char text[SEGMENT_TEXT];
} segment_rank;

/* From one rank to another; the sender writes what is sent and filled, the receiver the rest. */
typedef struct segment_pair {
    op_shape sent[2], received[2];
    _Atomic uint64_t sends, receives; /* posted */
    _Atomic uint64_t filled, drained; /* chunks */
} segment_pair;

#define REFUSING (-1)

typedef struct segment {
    _Atomic uint32_t epoch;
    _Atomic int rank_count; /* what the first rank to join was told; 0: none has */
    _Atomic int refused;    /* the ncclResult_t of a rank that could not join; REFUSING: not yet */
    char refusal[SEGMENT_TEXT];
    segment_rank ranks[SEGMENT_MOST_RANKS];
    segment_pair pairs[SEGMENT_MOST_RANKS][SEGMENT_MOST_RANKS]; /* [from][to] */
    _Alignas(4096) unsigned char windows[SEGMENT_MOST_RANKS][SEGMENT_WINDOW];
    unsigned char pair_windows[SEGMENT_MOST_RANKS][SEGMENT_MOST_RANKS][SEGMENT_PAIR_WINDOW];
} segment;

/* Makes a segment and its id. Until segment_release_id, or the end of the process, the ranks that
 * wait for others know that the id's maker is alive. Removes what killed jobs have left. */
ncclResult_t segment_make_id(ncclUniqueId *out);
/* The id is used up: all ranks have joined, or nobody will. */
void segment_release_id(const ncclUniqueId *id);

/* Maps the segment of the id and takes the rank's place; *fd is closed when the rank leaves. */
ncclResult_t segment_join(segment **out, int *fd, const ncclUniqueId *id, int rank, int ranks);
void segment_leave(segment *shared, int fd);

/* Whether a rank, or the id's maker (SEGMENT_MAKER), holds its lock. */
bool segment_is_alive(int fd, int rank);

/* Tells the others that something has changed. */
void segment_raise(segment *shared);
/* Sleeps until the epoch is another than `seen`, or for about so long; false: it is the same. */
bool segment_sleep(segment *shared, uint32_t seen, int milliseconds);
/* A random number that is this process's own. */
uint64_t segment_process(void);

#endif
