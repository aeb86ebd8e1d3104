/*
 * exec.h: what a running kernel consists of (grid, block, warp, memory) and the services handlers
 * use. Handlers (exec_*.c) are compiled once per host instruction set; everything else once.
 */
#ifndef EMU_EXEC_H
#define EMU_EXEC_H

#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "count.h"
#include "decode.h"
#include "emu.h"
#include "memory.h"
#include "schedule.h"
#include "tally.h"
#include "tensor_map.h"

enum { EXEC_BARRIERS = 16, EXEC_MAX_WARPS = 32, BULK_PIECE = 16 /* bytes */ };
enum { EXEC_MOST_CLUSTER = 16 /* blocks */ };
enum { WARPGROUP = 4 /* warps */, EXEC_WARPGROUPS = EXEC_MAX_WARPS / WARPGROUP };
#define FULL_MASK 0xffffffffu

/* Words as numbers: COMPARE_EQ, ACTION_ADD, MODE_UP, SHAPE_M16N8K16, ... */
#define COMPARE(id, spelling) COMPARE_##id,
enum {
#include "modifiers.def"
    COMPARE_COUNT
};
#define ACTION(id, spelling) ACTION_##id,
enum {
#include "modifiers.def"
    ACTION_COUNT
};
#define MODE(id, spelling) MODE_##id,
enum {
#include "modifiers.def"
    MODE_COUNT
};
#define SHAPE(id, spelling) SHAPE_##id,
enum {
#include "modifiers.def"
    SHAPE_COUNT
};

/* aux of arithmetic rows */
enum {
    AUX_ROUNDING = 3, /* 0 rn, 1 rz, 2 rm, 3 rp */
    AUX_FTZ = 1 << 2,
    AUX_SAT = 1 << 3,
    AUX_RELU = 1 << 4,
    AUX_NAN = 1 << 5,
    AUX_XORSIGN = 1 << 6,
    AUX_SATFINITE = 1 << 7,
    AUX_TO_INTEGER = 1 << 8, /* .rni and its like */
    AUX_AWAY = 1 << 9,       /* .rna */
    AUX_TYPE_SHIFT = 16,     /* cvt: destination type, then source type, 8 bits each */
};

/* aux of memory instructions */
enum {
    AUX_VECTOR = 15,      /* elements; 0 counts as 1 */
    AUX_WIDE = 1 << 4,    /* the address register has 64 bits */
    AUX_CLUSTER = 1 << 5, /* shared memory of other blocks may be meant, too */
    AUX_GENERIC = 1 << 6, /* of mapa: the addresses are generic */
    AUX_ACTION_SHIFT = 8, /* atomics: ACTION_* */
    AUX_ATOM_TYPE_SHIFT = 16,
    AUX_SPACE_SHIFT = 24,
    AUX_RETURNS = 1 << 28, /* atom, not red */
};

/* aux of mma */
enum {
    MMA_AUX_HALVES = 1,   /* 16-bit types: C and D are pairs of f16 */
    MMA_AUX_DEEP = 1,     /* 8-bit types: k32, else k16 */
    MMA_AUX_INTEGERS = 2, /* 8-bit types */
    MMA_AUX_SATURATE = 4,
    MMA_AUX_A_SHIFT = 8, /* 8-bit types: the type of A, and of B */
    MMA_AUX_B_SHIFT = 16,
};

/* How an access is seen by what watches a launch. */
enum {
    ACCESS_READ = 1,
    ACCESS_WRITE = 2,
    ACCESS_ASYNC = 4, /* cp.async's write */
    ACCESS_PART = 8,  /* of a request that is counted already */
    ACCESS_BULK = 16, /* by a bulk copy */
    ACCESS_WGMMA = 32,
    ACCESS_GENERIC = 64, /* a bulk copy's, but not through the async proxy: st.async */
};

typedef struct race_grid race_grid;
typedef struct race_block race_block;
typedef struct race_cluster race_cluster;
typedef struct wgmma_block wgmma_block;

typedef enum split_state {
    SPLIT_READY,
    SPLIT_AT_BARRIER,   /* a block barrier: `waits_for` */
    SPLIT_AT_CLUSTER,   /* barrier.cluster.wait */
    SPLIT_AT_MEETING,   /* an aligned or mask instruction: wants other lanes at the same pc */
    SPLIT_AT_WARP_SYNC, /* bar.warp.sync: any pc, mask in `waits_for` */
    SPLIT_AT_MBARRIER,  /* mbarrier.try_wait: the object's address in `waits_for` */
    SPLIT_AT_REGISTERS, /* setmaxnreg.inc: how many in `waits_for` */
    SPLIT_AT_WGMMA,     /* wgmma.wait_group: the number of a product in `waits_for` */
} split_state;

/* Lanes of a warp that are at the same instruction. */
typedef struct warp_split {
    uint32_t pc, mask;
    split_state state;
    uint32_t waits_for;
} warp_split;

/* cp.async of one warp that nobody has waited for: the bytes are there, but count as uninitialised.
 */
typedef struct async_copy {
    uint32_t mask;
    uint32_t group;
    uint32_t bytes;
    uint32_t number; /* cp.async that the warp had issued before */
    uint32_t target[IR_LANES];
} async_copy;

/* With copies=late: what a copy will move when it is waited for. */
typedef struct async_source {
    uint64_t at[IR_LANES];
    uint8_t bytes[IR_LANES]; /* of the source; the rest of the target gets zeros */
} async_source;

/* A bulk copy that has not moved yet (copies=late), or a store that is not waited for. */
typedef struct bulk_copy {
    struct exec_block *issuer;
    uint64_t global; /* of a copy from the issuer's shared memory: its offset there */
    uint32_t shared, bytes;
    uint32_t mbarrier; /* of a load: who is told */
    uint32_t group;    /* of a store: of its lane */
    uint32_t number;   /* bulk copies that the warp had issued before */
    uint8_t warp, lane;
    bool stores, reduces, has_moved, is_read;
    bool is_peer;
    bool is_value; /* st.async: of registers */
    uint8_t value[16];
    bool is_tensor; /* a box of map, from `at` on, and not a range */
    emu_tensor_map map;
    int32_t at[TENSOR_RANK];
} bulk_copy;

struct emu_warp {
    uint8_t *registers;
    uint32_t pc;       /* the instruction after the one that runs */
    uint32_t mask;     /* lanes of the running split */
    uint32_t merge_pc; /* where the nearest other split waits; ~0 none */
    int32_t budget;    /* instructions until the warp gives way; 0 or less: stop now */
    uint32_t live;     /* lanes that have not exited */
    uint32_t existing; /* lanes that the block has */
    struct exec_block *block;
    memory_span span; /* the allocation hit last; none while the launch is watched */
    uint8_t *local;   /* local_bytes for each lane */
    size_t local_bytes;
    int index;
    /* splits[running] is copied to pc/mask while it runs */
    warp_split splits[IR_LANES];
    int split_count, running;
    async_copy *copies;
    async_source *sources; /* copies=late: one for each copy */
    int copy_count, copy_capacity, source_capacity;
    uint32_t copies_issued;
    uint32_t groups[IR_LANES]; /* cp.async groups committed by each lane */
    uint32_t bulk_issued, bulk_groups[IR_LANES];
    bool waited_briefly; /* waits=brief: its last mbarrier.try_wait gave up */
    uint64_t executed;
    int32_t quantum, unused; /* the budget given; what was left of it when the warp stopped */
    int stuck;               /* quanta in a row that ended inside one of several splits */
};

typedef struct block_barrier {
    bool in_progress;
    uint32_t completed;               /* times before */
    uint32_t expected;                /* threads, when the count is written; 0: all of the block */
    uint32_t lanes[EXEC_MAX_WARPS];   /* lanes of each warp that have arrived */
    uint32_t waiting[EXEC_MAX_WARPS]; /* of these, the ones that wait */
    bool reduces;
    int action; /* of a reduction: ACTION_* */
    uint32_t value;
    uint32_t results[EXEC_MAX_WARPS]; /* register that gets the value */
} block_barrier;

/* Registers of a thread that warps of a block own, and hand to each other by setmaxnreg. */
typedef struct register_pool {
    int known; /* of each warp at its start; 0: the kernel does not say, and nothing is counted */
    int spare; /* owned by no warp */
    int owned[EXEC_MAX_WARPS];
    const emu_instr *in[EXEC_WARPGROUPS]; /* that a warpgroup executes */
    uint32_t warps[EXEC_WARPGROUPS];      /* which have executed it, one bit each */
} register_pool;

/* An object in shared memory that threads and asynchronous copies arrive at. */
typedef struct mbarrier {
    uint32_t address;
    uint32_t phase;            /* those that are over */
    int32_t pending, expected; /* arrivals: still lacking, of the next phase */
    int32_t bytes;             /* of transactions that are lacking */
    int init_warp;             /* who made it, at which step (race.h) */
    uint32_t init_step;
} mbarrier;

typedef struct exec_fault {
    CUresult result; /* CUDA_SUCCESS: none */
    char *text;
} exec_fault;

/* barrier.cluster, as one warp sees it: lanes that have arrived in the phase that runs, those of
 * them that wait, and lanes whose phase is over but that have not waited yet. */
typedef struct cluster_arrivals {
    uint32_t now, waiting, over;
} cluster_arrivals;

typedef struct exec_block {
    const struct exec_grid *grid;
    struct exec_cluster *cluster;
    unsigned index[3];
    uint64_t linear; /* its number */
    int warp_count;
    emu_warp warps[EXEC_MAX_WARPS];
    uint8_t *shared;        /* shared_bytes */
    uint64_t *shared_known; /* one bit a byte: initialised */
    bool shared_whole;      /* all of them are; false: look */
    size_t shared_bytes;
    size_t shared_limit; /* the same, or 0 so that every access is looked at */
    race_block *race;    /* NULL: races are not looked for */
    register_pool registers;
    wgmma_block *wgmma;   /* NULL: no kernel had any yet */
    block_counts *counts; /* counts_memory; NULL: nothing is counted */
    block_barrier barriers[EXEC_BARRIERS];
    mbarrier *mbarriers; /* the live ones */
    int mbarrier_count, mbarrier_capacity;
    bulk_copy *bulk; /* its stores, and loads to it, in the order of their issue */
    int bulk_count, bulk_capacity;
    cluster_arrivals arrivals[EXEC_MAX_WARPS];
    exec_fault fault;
    text printed;
    /* what is allocated, for reuse by the next block */
    block_counts counts_memory;
    uint8_t *registers_memory, *local_memory;
    size_t registers_capacity, local_capacity, shared_capacity;
} exec_block;

/* Blocks that run together, on one host thread; one block where the launch has no clusters. */
typedef struct exec_cluster {
    const struct exec_grid *grid;
    exec_block *blocks; /* by rank */
    int count;
    uint64_t linear, turn; /* its number; its place in the order of clusters */
    uint64_t random;
    bool paused;                 /* it made room for others before */
    uint32_t barriers;           /* barrier.cluster that are complete */
    uint64_t phases, gave_up_at; /* of all mbarriers; phases when try_waits last gave up */
    uint32_t gave_up;            /* how often they have since that phase began */
    race_cluster *race;          /* NULL: races are not looked for */
} exec_cluster;

/* One launch. */
typedef struct exec_grid {
    emu_machine *machine;
    const emu_arch *arch;
    const ir_kernel *kernel;
    memory_arena *memory;
    memory_tally *tally;                    /* NULL: nothing is counted */
    race_grid *race;                        /* NULL: races are not looked for */
    unsigned grid[3], block[3], cluster[3]; /* cluster: 1 each: there are none */
    bool is_explicit_cluster, is_dependent;
    size_t dynamic_shared, shared_bytes;
    size_t reserved_shared; /* where the shared memory of the system begins */
    const uint8_t *params;
    emu_schedule schedule;
    uint64_t id, blocks;
    int cluster_blocks;
    unsigned threads_per_block;
} exec_grid;

/* ---- block.c ---- */
void block_start(exec_block *block, exec_cluster *cluster, uint64_t linear);
void block_end(exec_block *block); /* all warps have ended */
bool block_has_ended(const exec_block *block);
void block_release(exec_block *block); /* frees what blocks reuse */

/* ---- cluster.c ---- */
exec_cluster *cluster_new(const exec_grid *grid);
void cluster_start(exec_cluster *cluster, uint64_t turn, uint64_t linear);
/* Runs until all warps ended (false), a fault (false), or about `instructions` were executed. */
bool cluster_run(exec_cluster *cluster, uint64_t instructions);
exec_block *cluster_faulty(exec_cluster *cluster); /* the block with a fault; NULL: none has */
uint64_t cluster_executed(const exec_cluster *cluster);
void cluster_free(exec_cluster *cluster);
int cluster_rank(const exec_block *block);
/* The block that an address of .shared::cluster is of, which has not ended; NULL: a fault was
 * raised. */
exec_block *cluster_owner(emu_warp *w, const emu_instr *in, uint32_t lanes, uint64_t address,
                          bool may_be_other, size_t bytes);
/* Where the owner's shared memory begins among the addresses that the warp may use. */
uint64_t cluster_window(const emu_warp *w, const exec_block *owner);

/* ---- cluster_barrier.c: barrier.cluster ---- */
void cluster_arrive(emu_warp *w, const emu_instr *in, uint32_t mask);
void cluster_wait(emu_warp *w, const emu_instr *in, uint32_t mask);
void cluster_recheck(exec_cluster *cluster); /* lanes ended: the barrier may be complete now */

/* One lane's value of a register of 4 or 8 bytes. */
static inline uint64_t warp_lane_value(const emu_warp *w, uint32_t offset, int lane, bool wide)
{
    uint64_t value = 0;
    memcpy(&value, w->registers + offset + (size_t)lane * (wide ? 8 : 4), wide ? 8 : 4);
    return value;
}

/* ---- warp.c: splits ---- */
bool warp_runnable(const emu_warp *w);
void warp_run(emu_warp *w, int32_t quantum); /* runs ready splits */
void warp_stop(emu_warp *w);                 /* leaves warp_run after the running instruction */
/* Lanes `taken` of the running split go to `target`, the others go on. */
void warp_jump(emu_warp *w, uint32_t taken, uint32_t target);
/* Lanes go to different places: the lanes of groups[i] to targets[i]. Together they are the split.
 */
void warp_scatter(emu_warp *w, const uint32_t *targets, const uint32_t *groups, int count);
void warp_exit_lanes(emu_warp *w, uint32_t mask);
/* The running split waits at the instruction it is at (which then runs again) or, `after`, behind
 * it. */
void warp_block(emu_warp *w, split_state state, uint32_t waits_for, bool after);
/* Lanes `mask` of the running split go back to the instruction they are at, the others go on. */
void warp_retry(emu_warp *w, uint32_t mask);
/* True when all lanes of `wanted` are here. Else the split waits for them, or a fault was raised.
 */
bool warp_meet(emu_warp *w, const emu_instr *in, uint32_t mask, uint32_t wanted, const char *what);
/* bar.warp.sync: waits until all lanes of `members` have called it. */
void warp_sync(emu_warp *w, uint32_t mask, uint32_t members);

/* ---- barrier.c ---- */
void barrier_arrive(emu_warp *w, const emu_instr *in, uint32_t mask);
void barrier_recheck(exec_block *block); /* after lanes ended: barriers may be complete now */

/* ---- mbarrier.c ---- */
void mbarrier_run(emu_warp *w, const emu_instr *in, uint32_t mask);
bool mbarrier_give_up(exec_cluster *cluster);
/* A bulk copy's bytes have come. */
void mbarrier_complete_bytes(exec_block *block, uint32_t address, uint32_t bytes);
bool mbarrier_is_live(const exec_block *block, uint64_t address);
bool mbarrier_overlaps(const exec_block *block, uint64_t address, uint64_t bytes);

/* ---- bulk.c: cp.async.bulk ---- */
void bulk_issue(emu_warp *w, const emu_instr *in, uint32_t mask);
void bulk_store_async(emu_warp *w, const emu_instr *in, uint32_t mask); /* st.async */
void bulk_commit(emu_warp *w, uint32_t mask);
void bulk_wait(emu_warp *w, const emu_instr *in, uint32_t mask);
/* copies=late: what the mbarrier there is told of moves now; UINT32_MAX: what any is. True:
 * something did. */
bool bulk_land(exec_block *block, uint32_t address);
/* All warps have ended: of the block, of the cluster. */
void bulk_leave(exec_block *block);
void bulk_end(exec_block *block);
/* A range of global memory that the copy reads or writes must lie in one allocation, and its first
 * `read` bytes must have been written; false: a fault was raised. */
bool bulk_check_global(emu_warp *w, const emu_instr *in, const bulk_copy *c, uint64_t first,
                       uint64_t bytes, uint64_t read);
void bulk_mark_written(memory_arena *arena, uint64_t first, uint64_t bytes);

/* ---- tensor.c: the form with a tensor map ---- */
uint32_t tensor_bytes(const emu_tensor_map *map); /* of a box */
/* Reads map and coordinates, checks what needs no memory; false: a fault was raised. */
bool tensor_begin(emu_warp *w, const emu_instr *in, bulk_copy *c);
bool tensor_check_rows(emu_warp *w, const emu_instr *in, const bulk_copy *c);
void tensor_move(exec_block *block, const bulk_copy *c);

/* ---- setmaxnreg.c ---- */
void setmaxnreg_start(exec_block *block);
void setmaxnreg_run(emu_warp *w, const emu_instr *in, uint32_t mask);
void setmaxnreg_end(exec_block *block); /* all warps have ended */

/* ---- wgmma.c (more in wgmma.h) ---- */
/* True when the whole warp is here, in a warpgroup of four whole warps. */
bool warpgroup_enter(emu_warp *w, const emu_instr *in, uint32_t mask, const char *what);
void wgmma_watch(ir_kernel *kernel); /* lets what touches registers of wgmma run through it */
emu_handler wgmma_touch;

/* ---- report.c ---- */
void fault_raise(emu_warp *w, const emu_instr *in, CUresult result, uint32_t lanes,
                 const char *format, ...) __attribute__((format(printf, 5, 6)));
/* With the address of the first of `lanes` and what is known about it. */
void fault_raise_address(emu_warp *w, const emu_instr *in, CUresult result, uint32_t lanes,
                         ptx_space space, uint64_t address, size_t bytes, const char *what);
/* A report that is not about one instruction: result, kernel, block, schedule. */
void fault_begin(exec_block *block, CUresult result, const char *what, text *t);
void fault_limit(exec_block *block); /* the launch has run as many instructions as it may */
/* Two accesses: `other` describes the earlier one, at a PTX line of its own. */
void fault_raise_race(emu_warp *w, const emu_instr *in, uint32_t lanes, ptx_space space,
                      uint64_t address, const char *what, const char *other, int other_line,
                      const char *missing);

/* ---- deadlock.c ---- */
void fault_deadlock(exec_cluster *cluster);

/* ---- race.c: called while races are looked for ---- */
race_grid *race_open(const memory_arena *arena); /* NULL: no address space */
void race_close(race_grid *grid);                /* NULL allowed */
void race_begin(race_grid *grid);                /* a launch: all before it is ordered */
void race_block_start(exec_block *block);
void race_cluster_start(exec_cluster *cluster);
void race_cluster_arrive(emu_warp *w, const emu_instr *in);
void race_cluster_complete(exec_cluster *cluster);
void race_cluster_wait(emu_warp *w);        /* for a phase that is over */
void race_cluster_free(race_cluster *race); /* NULL allowed */
/* All warps have ended: a block, and which of its warps, whose accesses to the shared memory of
 * this one nothing orders before; NULL: there is none. */
const exec_block *race_block_left(const exec_block *block, int *warp);
void race_block_free(race_block *race); /* NULL allowed */
/* An access in bounds, before its bytes move; the addresses are those of the space, of `mask`'s
 * lanes; owner: of shared memory. False: a fault was raised. */
bool race_access(emu_warp *w, const emu_instr *in, ptx_space space, exec_block *owner,
                 uint32_t access, const uint64_t *at, uint32_t bytes, uint32_t mask);
void race_fence(emu_warp *w, const emu_instr *in);
void race_init_fence(emu_warp *w); /* fence.mbarrier_init */
void race_copies_waited(emu_warp *w);
void race_arrive(emu_warp *w, uint32_t barrier);
void race_complete(exec_block *block, const block_barrier *barrier);
uint32_t race_step(const emu_warp *w); /* the warp's own */
bool race_knows(const emu_warp *w, const exec_block *block, int warp, uint32_t step);
void race_mbarrier_arrive(emu_warp *w, const emu_instr *in, exec_block *block, uint64_t address);
/* Who waits there will know of all cp.async that the warp has issued. */
void race_mbarrier_copied(emu_warp *w, exec_block *block, uint64_t address);
void race_mbarrier_wait(emu_warp *w, const emu_instr *in, uint64_t address);
bool race_bulk(emu_warp *w, const emu_instr *in, ptx_space space, exec_block *owner,
               uint32_t access, uint64_t first, uint64_t bytes);
/* A copy of the issuer's warp has told the mbarrier at that address of the block. */
void race_bulk_done(const exec_block *issuer, int warp, uint32_t number, exec_block *block,
                    uint64_t address);
void race_bulk_waited(emu_warp *w, uint32_t count, bool reads_alone); /* so many of its own */
void race_wgmma_waited(emu_warp *w, uint32_t count); /* products of its warpgroup */
void race_proxy_fence(emu_warp *w);
void race_phase(exec_block *block, uint64_t address); /* the object's phase is over */
void race_grids_waited(emu_warp *w);                  /* griddepcontrol.wait */

/* ---- print.c ---- */
void print_format(emu_warp *w, const emu_instr *in, uint32_t mask);
/* Copies from a generic address of one lane; false: a fault was raised. */
bool print_read(emu_warp *w, const emu_instr *in, int lane, uint64_t address, void *out,
                size_t bytes);
void print_assertion(emu_warp *w, const emu_instr *in, uint32_t mask);

#endif
