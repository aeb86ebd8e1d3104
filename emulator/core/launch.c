/*
 * launch.c: runs a grid. The calling thread and the machine's workers take clusters in the
 * schedule's order (a launch without clusters has them of one block); one that runs for very long
 * makes room for others, so that blocks which wait for each other finish.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "exec.h"
#include "machine.h"

/* A cluster's first turn is long enough for most to end in it; one that did not end may be waiting
 * for a block that has not begun, so its later turns are short. */
enum { FIRST_SLICE = 2000000, LATER_SLICE = 65536, MOST_RESIDENT = 1024 };

/* Once a cluster has a fault, those of earlier turns go on, for the first fault is the one
 * reported; but not for ever, as they may wait for the one that stopped. */
enum { MOST_AFTER_FAULT = 4 * FIRST_SLICE };

typedef struct printed_block {
    uint64_t linear;
    text printed;
} printed_block;

/* The grid all threads of the crew work on. */
typedef struct launch_job {
    const exec_grid *grid;
    uint64_t first, end; /* clusters of the wave that runs, and their turns */
    _Atomic uint64_t next;
    _Atomic uint64_t executed;
    _Atomic uint64_t faulty; /* the first cluster with a fault; those of later turns need not run */
    pthread_mutex_t lock;    /* of what follows */
    block_counts counts;     /* of all blocks, if they are counted */
    exec_fault fault;
    printed_block *printed;
    size_t printed_count, printed_capacity;
} launch_job;

static uint64_t clusters_of(const exec_grid *grid)
{
    return grid->blocks / (uint64_t)grid->cluster_blocks;
}

struct launch_crew {
    pthread_t *threads;
    int count;
    pthread_mutex_t lock;
    pthread_cond_t begin, end;
    launch_job *job; /* NULL: nothing to do */
    uint64_t turn;   /* number of jobs so far */
    int busy;
    bool quit;
};

/* Clusters of one thread: those that run and spare ones to reuse. */
typedef struct cluster_set {
    exec_cluster **running;
    int running_count, running_capacity;
    exec_cluster **spare;
    int spare_count, spare_capacity;
} cluster_set;

static exec_cluster *take_cluster(cluster_set *set, const exec_grid *grid)
{
    return set->spare_count ? set->spare[--set->spare_count] : cluster_new(grid);
}

static bool start_next(launch_job *job, cluster_set *set)
{
    if (set->running_count >= MOST_RESIDENT) {
        return false;
    }
    uint64_t turn = atomic_fetch_add(&job->next, 1);
    if (turn >= job->end || turn > atomic_load(&job->faulty)) {
        return false;
    }
    uint64_t linear =
        job->first + schedule_block(&job->grid->schedule, turn - job->first, job->end - job->first);
    exec_cluster *cluster = take_cluster(set, job->grid);
    cluster_start(cluster, turn, linear);
    POOL_GROW(set->running, set->running_count, set->running_capacity);
    set->running[set->running_count++] = cluster;
    return true;
}

/* Of a cluster's faults the first block's is kept. */
static void keep_fault(launch_job *job, exec_cluster *cluster)
{
    exec_block *faulty = cluster_faulty(cluster);
    pthread_mutex_lock(&job->lock);
    if (cluster->turn < atomic_load(&job->faulty)) {
        free(job->fault.text);
        job->fault = faulty->fault;
        faulty->fault.text = NULL;
        atomic_store(&job->faulty, cluster->turn);
    }
    pthread_mutex_unlock(&job->lock);
    for (int i = 0; i < cluster->count; i++) {
        free(cluster->blocks[i].fault.text);
    }
}

static void keep_output(launch_job *job, exec_block *block)
{
    if (block->counts) {
        pthread_mutex_lock(&job->lock);
        count_add(&job->counts, block->counts, job->grid->kernel);
        pthread_mutex_unlock(&job->lock);
    }
    if (block->printed.length) {
        pthread_mutex_lock(&job->lock);
        POOL_GROW(job->printed, job->printed_count, job->printed_capacity);
        job->printed[job->printed_count++] = (printed_block){block->linear, block->printed};
        pthread_mutex_unlock(&job->lock);
        block->printed = (text){0};
    }
}

static void finish_cluster(launch_job *job, cluster_set *set, int index)
{
    exec_cluster *cluster = set->running[index];
    uint64_t executed = cluster_executed(cluster), limit = job->grid->machine->instruction_limit;
    executed += atomic_fetch_add(&job->executed, executed);
    if (limit && executed > limit && !cluster_faulty(cluster)) {
        fault_limit(cluster->blocks);
    }
    if (cluster_faulty(cluster)) {
        keep_fault(job, cluster);
    }
    for (int i = 0; i < cluster->count; i++) {
        keep_output(job, &cluster->blocks[i]);
    }
    set->running[index] = set->running[--set->running_count];
    POOL_GROW(set->spare, set->spare_count, set->spare_capacity);
    set->spare[set->spare_count++] = cluster;
}

/* Whether nothing that the cluster may still do is reported. */
static bool is_useless(launch_job *job, const exec_cluster *cluster)
{
    uint64_t faulty = atomic_load(&job->faulty);
    return cluster->turn > faulty ||
           (faulty != UINT64_MAX && cluster_executed(cluster) > MOST_AFTER_FAULT);
}

static void work(launch_job *job)
{
    cluster_set set = {0};
    bool more = true;
    int turn = 0;
    while (more || set.running_count) {
        if (more && turn >= set.running_count) {
            more = start_next(job, &set);
            turn = more ? set.running_count - 1 : 0;
            if (!set.running_count) {
                break;
            }
        }
        turn = turn < set.running_count ? turn : 0;
        exec_cluster *cluster = set.running[turn];
        uint64_t slice = cluster->paused ? LATER_SLICE : FIRST_SLICE;
        uint64_t limit = job->grid->machine->instruction_limit;
        slice = limit && slice > limit ? limit : slice;
        if (is_useless(job, cluster) || !cluster_run(cluster, slice) ||
            (limit && cluster_executed(cluster) > limit)) {
            finish_cluster(job, &set, turn);
        } else {
            cluster->paused = true;
            turn++;
        }
    }
    for (int i = 0; i < set.spare_count; i++) {
        cluster_free(set.spare[i]);
    }
    free(set.running);
    free(set.spare);
}

/* ---- the crew ---- */

static void *worker(void *argument)
{
    launch_crew *crew = argument;
    uint64_t seen = 0;
    pthread_mutex_lock(&crew->lock);
    for (;;) {
        while (!crew->quit && crew->turn == seen) {
            pthread_cond_wait(&crew->begin, &crew->lock);
        }
        if (crew->quit) {
            break;
        }
        seen = crew->turn;
        launch_job *job = crew->job;
        pthread_mutex_unlock(&crew->lock);
        work(job);
        pthread_mutex_lock(&crew->lock);
        if (--crew->busy == 0) {
            pthread_cond_signal(&crew->end);
        }
    }
    pthread_mutex_unlock(&crew->lock);
    return NULL;
}

static launch_crew *crew_begin(int threads)
{
    launch_crew *crew = pool_require(calloc(1, sizeof *crew));
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->begin, NULL);
    pthread_cond_init(&crew->end, NULL);
    crew->threads = pool_require(calloc((size_t)threads, sizeof *crew->threads));
    for (int i = 0; i < threads - 1; i++) {
        if (pthread_create(&crew->threads[i], NULL, worker, crew) != 0) {
            break;
        }
        crew->count++;
    }
    return crew;
}

void launch_crew_end(launch_crew *crew)
{
    if (!crew) {
        return;
    }
    pthread_mutex_lock(&crew->lock);
    crew->quit = true;
    pthread_cond_broadcast(&crew->begin);
    pthread_mutex_unlock(&crew->lock);
    for (int i = 0; i < crew->count; i++) {
        pthread_join(crew->threads[i], NULL);
    }
    pthread_cond_destroy(&crew->begin);
    pthread_cond_destroy(&crew->end);
    pthread_mutex_destroy(&crew->lock);
    free(crew->threads);
    free(crew);
}

static void run_job(emu_machine *machine, launch_job *job)
{
    int threads = machine->threads > 0 ? machine->threads : (int)sysconf(_SC_NPROCESSORS_ONLN);
    if (threads <= 1 || clusters_of(job->grid) == 1 || machine->race) {
        work(job);
        return;
    }
    if (!machine->crew) {
        machine->crew = crew_begin(threads);
    }
    launch_crew *crew = machine->crew;
    pthread_mutex_lock(&crew->lock);
    crew->job = job;
    crew->turn++;
    crew->busy = crew->count;
    pthread_cond_broadcast(&crew->begin);
    pthread_mutex_unlock(&crew->lock);
    work(job);
    pthread_mutex_lock(&crew->lock);
    while (crew->busy) {
        pthread_cond_wait(&crew->end, &crew->lock);
    }
    crew->job = NULL;
    pthread_mutex_unlock(&crew->lock);
}

/* ---- the API ---- */

static int by_block(const void *a, const void *b)
{
    uint64_t x = ((const printed_block *)a)->linear, y = ((const printed_block *)b)->linear;
    return x < y ? -1 : x > y;
}

static void print_all(launch_job *job)
{
    if (job->printed_count) {
        qsort(job->printed, job->printed_count, sizeof *job->printed, by_block);
    }
    for (size_t i = 0; i < job->printed_count; i++) {
        fwrite(job->printed[i].printed.chars, 1, job->printed[i].printed.length, stdout);
        text_free(&job->printed[i].printed);
    }
    if (job->printed_count) {
        fflush(stdout);
    }
    free(job->printed);
}

/* What the kernel was compiled for comes first, then what the launch says; 0: neither. */
static void find_cluster(const ir_kernel *kernel, const emu_launch *launch, unsigned cluster[3])
{
    const int *required = kernel->function->reqnctapercluster;
    for (int i = 0; i < 3; i++) {
        cluster[i] = required[0] ? (unsigned)required[i] : launch->cluster[i];
    }
}

static bool cluster_fits(const emu_arch *arch, const ir_kernel *kernel, const emu_launch *launch)
{
    unsigned cluster[3], blocks = 1;
    find_cluster(kernel, launch, cluster);
    if (!cluster[0]) {
        return !kernel->function->is_explicit_cluster;
    }
    for (int i = 0; i < 3; i++) {
        unsigned given = launch->cluster[i];
        if (cluster[i] == 0 || cluster[i] > EXEC_MOST_CLUSTER || launch->grid[i] % cluster[i] ||
            (given && given != cluster[i])) {
            return false;
        }
        blocks *= cluster[i];
    }
    int most = kernel->function->maxclusterrank;
    return blocks <= EXEC_MOST_CLUSTER && (!most || blocks <= (unsigned)most) &&
           (blocks == 1 || arch->cc_major >= 9);
}

static bool is_launchable(const emu_machine *machine, const ir_kernel *kernel,
                          const emu_launch *launch)
{
    const int *required = kernel->function->reqntid, *most = kernel->function->maxntid;
    uint64_t threads = 1, limit = 1024;
    for (int i = 0; i < 3; i++) {
        if (launch->grid[i] == 0 || launch->block[i] == 0 || launch->block[i] > 1024 ||
            (required[0] && (unsigned)required[i] != launch->block[i])) {
            return false;
        }
        threads *= launch->block[i];
    }
    if (most[0]) {
        limit = (uint64_t)most[0] * (uint64_t)most[1] * (uint64_t)most[2];
    }
    return cluster_fits(machine->arch, kernel, launch) && threads <= 1024 && threads <= limit &&
           launch->grid[1] <= 65535 && launch->grid[2] <= 65535 && launch->block[2] <= 64 &&
           kernel->shared_dynamic + launch->dynamic_shared_bytes <=
               (size_t)machine->arch->shared_per_block_optin;
}

/* One wave after the other, each of at most so many blocks, but at least a cluster. */
static void run_waves(emu_machine *machine, launch_job *job, uint64_t wave_blocks)
{
    const exec_grid *grid = job->grid;
    uint64_t wave = wave_blocks / (uint64_t)grid->cluster_blocks, clusters = clusters_of(grid);
    wave = wave ? wave : 1;
    while (job->end < clusters && atomic_load(&job->faulty) == UINT64_MAX) {
        uint64_t left = clusters - job->end;
        job->first = job->end;
        job->end += wave < left ? wave : left;
        atomic_store(&job->next, job->first);
        if (grid->tally) {
            tally_begin_wave(grid->tally);
        }
        run_job(machine, job);
    }
}

/* Counts that are those of a launch as a whole; returns the blocks of a wave. */
static uint64_t begin_counting(emu_counters *counters, launch_job *job,
                               const emu_function *function)
{
    const exec_grid *grid = job->grid;
    int resident = emu_blocks_per_sm(function, grid->threads_per_block, grid->dynamic_shared);
    uint64_t wave_blocks = (uint64_t)(resident ? resident : 1) * (uint64_t)grid->arch->sm_count;
    counters->blocks = grid->blocks;
    counters->waves = (grid->blocks + wave_blocks - 1) / wave_blocks;
    counters->blocks_per_sm = (uint64_t)resident;
    counters->registers = (uint64_t)grid->kernel->registers;
    tally_begin_launch(grid->tally);
    count_begin(&job->counts, grid->kernel);
    return wave_blocks;
}

static void end_counting(emu_counters *counters, launch_job *job)
{
    const memory_tally *tally = job->grid->tally;
    count_sum(counters, &job->counts, job->grid->kernel);
    count_free(&job->counts);
    counters->bytes_read = tally->bytes[TALLY_READ];
    counters->bytes_written = tally->bytes[TALLY_WRITTEN];
    counters->bytes_touched = tally->touched;
    counters->wave_bytes = tally->wave_bytes;
}

static void run_grid(emu_counters *counters, const emu_function *function, const exec_grid *grid,
                     CUresult *result, char *report, size_t report_bytes)
{
    launch_job job = {.grid = grid};
    atomic_store(&job.faulty, UINT64_MAX);
    pthread_mutex_init(&job.lock, NULL);
    uint64_t wave_blocks = grid->tally ? begin_counting(counters, &job, function) : grid->blocks;
    run_waves(grid->machine, &job, wave_blocks);
    print_all(&job);
    if (grid->tally) {
        end_counting(counters, &job);
    }
    *result = job.fault.result;
    if (report && report_bytes) {
        snprintf(report, report_bytes, "%s", job.fault.text ? job.fault.text : "");
    }
    free(job.fault.text);
    pthread_mutex_destroy(&job.lock);
}

CUresult emu_run(emu_machine *machine, emu_function *function, const emu_launch *launch,
                 const void *params, char *report, size_t report_bytes)
{
    const ir_kernel *kernel = function->kernel;
    if (report && report_bytes) {
        report[0] = 0;
    }
    if (!is_launchable(machine, kernel, launch)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    exec_grid grid = {.machine = machine,
                      .arch = machine->arch,
                      .kernel = kernel,
                      .memory = &machine->memory,
                      .dynamic_shared = launch->dynamic_shared_bytes,
                      .is_dependent = launch->is_dependent,
                      .params = params,
                      .schedule = machine->schedule};
    memcpy(grid.grid, launch->grid, sizeof grid.grid);
    memcpy(grid.block, launch->block, sizeof grid.block);
    find_cluster(kernel, launch, grid.cluster);
    grid.is_explicit_cluster = grid.cluster[0] != 0;
    for (int i = 0; i < 3; i++) {
        grid.cluster[i] = grid.cluster[i] ? grid.cluster[i] : 1;
    }
    grid.cluster_blocks = (int)(grid.cluster[0] * grid.cluster[1] * grid.cluster[2]);
    grid.blocks = (uint64_t)grid.grid[0] * grid.grid[1] * grid.grid[2];
    grid.threads_per_block = launch->block[0] * launch->block[1] * launch->block[2];
    grid.shared_bytes = launch->dynamic_shared_bytes
                            ? kernel->shared_dynamic + launch->dynamic_shared_bytes
                            : kernel->shared_static;
    grid.reserved_shared = (grid.shared_bytes + IR_RESERVED_SHARED_ALIGN - 1) &
                           ~(size_t)(IR_RESERVED_SHARED_ALIGN - 1);
    CUresult result;
    emu_counters counters = {0};
    pthread_mutex_lock(&machine->launching);
    emu_counted *counted = machine->counted;
    void *counted_user = machine->counted_user;
    grid.id = ++machine->launches;
    grid.tally = counted ? &machine->tally : NULL;
    if (machine->race) {
        grid.race = machine->race;
        race_begin(machine->race);
    }
    run_grid(&counters, function, &grid, &result, report, report_bytes);
    pthread_mutex_unlock(&machine->launching);
    if (counted) {
        counted(counted_user, kernel->name, &counters);
    }
    return result;
}

CUresult emu_count(emu_machine *machine, emu_counted *counted, void *user)
{
    CUresult result = CUDA_SUCCESS;
    pthread_mutex_lock(&machine->launching);
    if (!counted) {
        tally_close(&machine->tally);
    } else if (!machine->counted && !tally_open(&machine->tally, &machine->memory)) {
        result = CUDA_ERROR_OUT_OF_MEMORY;
        counted = NULL;
    }
    machine->counted = counted;
    machine->counted_user = user;
    pthread_mutex_unlock(&machine->launching);
    return result;
}

void emu_limit_instructions(emu_machine *machine, uint64_t most)
{
    pthread_mutex_lock(&machine->launching);
    machine->instruction_limit = most;
    pthread_mutex_unlock(&machine->launching);
}
