/*
 * race.h: the race detector behind MMLP_EMULATOR_CHECK=race. Two accesses race when they touch the
 * same bytes, one of them writes, no chain of barriers, fences and atomics orders them, and they
 * are not both strong (atomic, volatile, relaxed...) with scopes that cover each other.
 *
 * A warp is one thread here: its instructions are ordered, lanes that race within one warp are not
 * looked for. Its clock counts its steps (a step ends where others can learn of it) and holds, for
 * every warp of every block that it has heard of, the last step and the last cp.async that lie
 * before its own next instruction.
 *
 * Blocks of a checked launch run on one host thread: nothing here is locked.
 */
#ifndef EMU_RACE_H
#define EMU_RACE_H

#include "wgmma.h"

/* ---- race_clock.c ---- */

/* What is known of the warps of one block: their steps, how many of each one's cp.async and of its
 * bulk copies have been waited for, and the steps that lie before a fence to the async proxy. Of a
 * bulk copy, either all that it does has been waited for, or what it reads. */
typedef struct race_part {
    uint64_t block;
    uint32_t steps[EXEC_MAX_WARPS], copies[EXEC_MAX_WARPS];
    uint32_t bulk[EXEC_MAX_WARPS], bulk_reads[EXEC_MAX_WARPS];
    uint32_t bulk_over[EXEC_MAX_WARPS]; /* may be written over: see clock_join_completed */
    uint32_t proxied[EXEC_MAX_WARPS];
    uint32_t inits[EXEC_MAX_WARPS];  /* the steps up to which their mbarrier.inits are known */
    uint32_t wgmma[EXEC_WARPGROUPS]; /* how many of its products */
} race_part;

typedef struct race_clock {
    race_part *parts; /* sorted by block */
    size_t count, capacity;
} race_clock;

race_part *clock_find(const race_clock *clock, uint64_t block); /* NULL: none */
void clock_join(race_clock *clock, const race_clock *other);    /* the later of each */
/* Of `other` what any message tells, also a relaxed one: asynchronous operations that have been
 * waited for are over, and what they read or wrote may be written over. (To read what a copy wrote
 * takes an acquire.) */
void clock_join_completed(race_clock *clock, const race_clock *other);
void clock_reset(race_clock *clock, const race_part *first); /* this part alone, or nothing */
void clock_free(race_clock *clock);

/* ---- race_shadow.c ---- */

enum { RACE_GRANULE = 64 };

enum race_kind {
    RACE_READ = 1,
    RACE_WRITE = 2,
    RACE_STRONG = 4,
    RACE_WIDE = 8,      /* strong, with a scope that covers other blocks */
    RACE_ASYNC = 16,    /* written by cp.async */
    RACE_BULK = 32,     /* through the async proxy: by a bulk copy ... */
    RACE_WGMMA = 64,    /* ... or by wgmma, which has RACE_BULK too */
    RACE_GENERIC = 256, /* with RACE_BULK, but not through the proxy: by st.async */
    RACE_CLUSTER = 128, /* strong, with a scope that covers the cluster and no more */
};

/* An access that later ones may race with. Warps of a block that do the same at steps of the same
 * number, as they do between barriers of all, share a record. */
typedef struct race_record {
    uint64_t bytes; /* of the granule, one bit each; none: the record is free */
    uint32_t block; /* modulo 2^32 */
    uint32_t warps; /* one bit each */
    uint32_t clock; /* the step of each; of a copy, how many the warp had issued before */
    uint32_t kind;
    uint32_t instr; /* index in the code */
    uint32_t lanes;
    uint32_t next;   /* in race_shadow.more; 0: none */
    uint32_t launch; /* of the first in a list: the list is empty in other launches */
} race_record;

/* The records of a space: one for every granule, where a list of more begins. */
typedef struct race_shadow {
    race_record *granules;
    size_t granule_count;
    race_record *more;
    uint32_t count, capacity; /* of more; the first is not used */
    uint32_t launch;
    size_t begun; /* lists since the map was given back */
} race_shadow;

/* Within the block, within the cluster, and beyond it. */
enum { SCOPE_BLOCK, SCOPE_CLUSTER, SCOPE_DEVICE, SCOPES };

typedef struct race_warp {
    uint64_t group[SCOPES]; /* the numbers of its block and its cluster, 0 */
    race_clock clock;
    uint32_t known_clock;      /* a step's number, 0: none */
    uint32_t known_warps;      /* of the block: the step with this number is known */
    race_clock fenced[SCOPES]; /* the clock at the last fence of at least this scope */
    race_clock seen[SCOPES];   /* what a fence of this scope will make known */
    uint64_t last_address;     /* of the place that `seen` has */
    uint32_t last_version;
    bool grids_over; /* those before its own */
} race_warp;

/* One access of a warp: record has all but lanes and bytes. */
typedef struct race_visit {
    race_record record;
    race_warp *warp;
    const exec_cluster *cluster;
    const race_part *own; /* of its clock: the block's */
    uint64_t origin;      /* of the addresses */
    uint64_t address;     /* of a conflict */
    race_record earlier;  /* the other side */
} race_visit;

/* False: the access races with visit->earlier. */
bool shadow_access(race_shadow *shadow, race_visit *visit, const uint64_t *at, uint32_t bytes,
                   uint32_t mask);
void shadow_reset(race_shadow *shadow, size_t bytes);

/* ---- race_sync.c: fences, and what atomics and flags carry from warp to warp ---- */

/* What a reader of the value at an address may learn. */
typedef struct race_place {
    uint64_t address; /* 0: a free entry; others have 1 added */
    uint32_t version;
    race_clock released[SCOPES];
    uint64_t group[SCOPES]; /* for which block, and which cluster */
} race_place;

typedef struct race_places {
    race_place *table;
    size_t count, capacity; /* capacity: a power of two */
    uint32_t version;
} race_places;

/* A strong read, and a strong write that does (an atomic operation) or does not read too. */
void sync_acquire(race_warp *warp, race_places *places, const emu_instr *in, const uint64_t *at,
                  uint32_t mask);
void sync_release(race_warp *warp, race_places *places, const emu_instr *in, bool reads,
                  const uint64_t *at, uint32_t mask);
/* An arrival at an mbarrier of `block`, for the scopes that have both the warp and that block. */
void sync_arrive(race_warp *warp, race_places *places, uint64_t block, const emu_instr *in,
                 uint64_t address);
void sync_fence(race_warp *warp, const emu_instr *in);
/* Who of the block acquires at the address learns of that. */
void sync_add(race_places *places, uint64_t block, const race_clock *clock, uint64_t address);
/* What has been left at one address is added to what was left at another. */
void sync_move(race_places *places, uint64_t from, uint64_t to);
void sync_forget(race_places *places);
void sync_free(race_places *places);

/* ---- race.c ---- */
void race_next_step(emu_warp *w);

struct race_grid {
    race_shadow global;
    size_t map_bytes; /* of global.granules */
    race_places places;
};

struct race_block {
    race_shadow shared;
    race_places places;
    race_clock
        visitors; /* the last steps and bulk copies of other blocks that touched its memory */
    race_clock barriers[EXEC_BARRIERS], barriers_seen[EXEC_BARRIERS][SCOPES];
    race_warp warps[EXEC_MAX_WARPS];
    uint32_t grid_waits[EXEC_MAX_WARPS]; /* the step of each one's griddepcontrol.wait; 0: none */
};

/* barrier.cluster: what the arrivals of the phase that runs have released, and those before. */
struct race_cluster {
    race_clock arriving, over;
};

/* ---- race_grids.c ---- */
/* False: the grids before may still run, and a fault was raised. */
bool race_grids_over(emu_warp *w, const emu_instr *in, uint32_t access, uint64_t address,
                     uint32_t bytes, uint32_t lanes);

/* ---- race_report.c ---- */
void race_report(emu_warp *w, const emu_instr *in, ptx_space space, const race_visit *visit);

#endif
