/* nccl_segment.c: see nccl_segment.h. */
#include "nccl/nccl_segment.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "nccl/nccl_error.h"

#define FOLDER "/dev/shm"
#define PREFIX "emu-nccl-"

/* Descriptors that this process holds, so that a fork does not keep them alive in its child. */
typedef struct held {
    struct held *next;
    int fd;
    bool is_maker;
    ncclUniqueId id;
} held;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static held *all_held;
static uint64_t process;

/* ---- descriptors and their locks ------------------------------------------------------------ */

static void before_fork(void)
{
    pthread_mutex_lock(&lock);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&lock);
}

static void after_fork_in_child(void)
{
    while (all_held) {
        held *next = all_held->next;
        close(all_held->fd);
        free(all_held);
        all_held = next;
    }
    process = 0;
    pthread_mutex_unlock(&lock);
}

static void watch_forks(void)
{
    if (pthread_atfork(before_fork, after_fork, after_fork_in_child) != 0)
        abort(); /* only when memory is out at the first call */
}

static bool hold(int fd, const ncclUniqueId *id, bool is_maker)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    held *h = malloc(sizeof *h);
    if (!h)
        return false;
    pthread_mutex_lock(&lock);
    *h = (held){all_held, fd, is_maker, *id};
    all_held = h;
    pthread_mutex_unlock(&lock);
    return true;
}

/* Closes the descriptor of the id's maker, or without an id fd. */
static void let_go(int fd, const ncclUniqueId *id)
{
    pthread_mutex_lock(&lock);
    for (held **link = &all_held; *link; link = &(*link)->next) {
        held *h = *link;
        if (id ? h->is_maker && memcmp(&h->id, id, sizeof *id) == 0 : h->fd == fd) {
            *link = h->next;
            close(h->fd);
            free(h);
            break;
        }
    }
    pthread_mutex_unlock(&lock);
}

static struct flock lock_of(int rank)
{
    return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = rank, .l_len = 1};
}

static bool take_lock(int fd, int rank)
{
    struct flock wanted = lock_of(rank);
    return fcntl(fd, F_OFD_SETLK, &wanted) == 0;
}

/* A descriptor does not see its own locks: nobody asks for its own rank. */
bool segment_is_alive(int fd, int rank)
{
    struct flock found = lock_of(rank);
    return fcntl(fd, F_OFD_GETLK, &found) != 0 || found.l_type != F_UNLCK;
}

/* ---- files ---------------------------------------------------------------------------------- */

static void path_of(char path[static 160], const ncclUniqueId *id)
{
    snprintf(path, 160, FOLDER "/%.127s", id->internal);
}

static bool is_abandoned(int fd)
{
    struct flock any = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 0};
    return fcntl(fd, F_OFD_GETLK, &any) == 0 && any.l_type == F_UNLCK;
}

/* A segment is locked before it gets its name, so one without a lock is a killed job's. */
static void remove_abandoned(void)
{
    DIR *folder = opendir(FOLDER);
    if (!folder)
        return;
    for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
        if (strncmp(entry->d_name, PREFIX, strlen(PREFIX)) != 0)
            continue;
        int fd = openat(dirfd(folder), entry->d_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
            continue; /* another user's, or gone */
        if (is_abandoned(fd))
            unlinkat(dirfd(folder), entry->d_name, 0);
        close(fd);
    }
    closedir(folder);
}

static ncclResult_t make_file(int fd, const ncclUniqueId *id)
{
    char path[160], own[64];
    path_of(path, id);
    snprintf(own, sizeof own, "/proc/self/fd/%d", fd);
    if (ftruncate(fd, sizeof(segment)) != 0 || !take_lock(fd, SEGMENT_MAKER) ||
        linkat(AT_FDCWD, own, AT_FDCWD, path, AT_SYMLINK_FOLLOW) != 0)
        return error_set(ncclSystemError, "cannot make %s: %s", path, strerror(errno));
    return hold(fd, id, true) ? ncclSuccess : error_set(ncclSystemError, "out of memory");
}

ncclResult_t segment_make_id(ncclUniqueId *out)
{
    uint64_t number[2];
    remove_abandoned();
    if (getrandom(number, sizeof number, 0) != (ssize_t)sizeof number)
        return error_set(ncclSystemError, "no random numbers: %s", strerror(errno));
    memset(out, 0, sizeof *out);
    snprintf(out->internal, sizeof out->internal, PREFIX "%016llx%016llx",
             (unsigned long long)number[0], (unsigned long long)number[1]);
    int fd = open(FOLDER, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_set(ncclSystemError, "cannot make a file in " FOLDER ": %s", strerror(errno));
    ncclResult_t result = make_file(fd, out);
    if (result != ncclSuccess)
        close(fd);
    return result;
}

void segment_release_id(const ncclUniqueId *id)
{
    char path[160];
    path_of(path, id);
    unlink(path);
    let_go(-1, id);
}

__attribute__((destructor)) static void remove_unused_ids(void)
{
    pthread_mutex_lock(&lock);
    for (held *h = all_held; h; h = h->next) {
        char path[160];
        path_of(path, &h->id);
        unlink(path);
    }
    pthread_mutex_unlock(&lock);
}

/* ---- joining -------------------------------------------------------------------------------- */

/* The pages that the rank writes to exist from now on: a full /dev/shm is an error here, and not a
 * SIGBUS later. */
static bool reserve(int fd, const segment *shared, int rank, int ranks)
{
    const void *own = shared->windows[rank], *pairs = shared->pair_windows[rank];
    off_t base = (off_t)(uintptr_t)shared;
    errno = posix_fallocate(fd, 0, (off_t)offsetof(segment, windows));
    if (errno == 0)
        errno = posix_fallocate(fd, (off_t)(uintptr_t)own - base, SEGMENT_WINDOW);
    if (errno == 0)
        errno = posix_fallocate(fd, (off_t)(uintptr_t)pairs - base,
                                (off_t)((size_t)ranks * SEGMENT_PAIR_WINDOW));
    return errno == 0;
}

static ncclResult_t take_place(segment *shared, int fd, int rank, int ranks)
{
    int before = 0;
    if (!reserve(fd, shared, rank, ranks))
        return error_set(ncclSystemError, "no room for rank %d in " FOLDER ": %s", rank,
                         strerror(errno));
    if (!atomic_compare_exchange_strong(&shared->rank_count, &before, ranks) && before != ranks)
        return error_set(ncclInvalidUsage,
                         "rank %d joins a communicator of %d ranks; ranks that came before it have "
                         "one of %d",
                         rank, ranks, before);
    if (!take_lock(fd, rank) || atomic_load(&shared->ranks[rank].state) != RANK_ABSENT)
        return error_set(ncclInvalidUsage, "two ranks join the communicator as rank %d", rank);
    return ncclSuccess;
}

static ncclResult_t map_file(segment **out, int *fd, const ncclUniqueId *id)
{
    char path[160];
    path_of(path, id);
    if (strncmp(id->internal, PREFIX, strlen(PREFIX)) != 0 || strchr(id->internal, '/') != NULL)
        return error_set(ncclInvalidArgument, "the unique id was not made by ncclGetUniqueId");
    *fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (*fd < 0)
        return error_set(ncclRemoteError,
                         "cannot open %s (%s): the process that made the unique id has ended, or "
                         "the id has made a communicator before",
                         path, strerror(errno));
    void *mapped = mmap(NULL, sizeof(segment), PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
    if (mapped == MAP_FAILED) {
        close(*fd);
        return error_set(ncclSystemError, "cannot map %s: %s", path, strerror(errno));
    }
    *out = mapped;
    return ncclSuccess;
}

/* All who wait for this rank fail with its error. */
static void refuse(segment *shared, ncclResult_t why)
{
    int none = 0;
    if (!atomic_compare_exchange_strong(&shared->refused, &none, REFUSING))
        return;
    snprintf(shared->refusal, sizeof shared->refusal, "%s", error_text());
    atomic_store(&shared->refused, (int)why);
    segment_raise(shared);
}

ncclResult_t segment_join(segment **out, int *fd, const ncclUniqueId *id, int rank, int ranks)
{
    segment *shared;
    *out = NULL;
    ncclResult_t result = map_file(&shared, fd, id);
    if (result != ncclSuccess)
        return result;
    if (!hold(*fd, id, false)) {
        munmap(shared, sizeof *shared);
        close(*fd);
        return error_set(ncclSystemError, "out of memory");
    }
    result = take_place(shared, *fd, rank, ranks);
    if (result != ncclSuccess) {
        refuse(shared, result);
        segment_leave(shared, *fd);
        return result;
    }
    *out = shared;
    return ncclSuccess;
}

void segment_leave(segment *shared, int fd)
{
    munmap(shared, sizeof *shared);
    let_go(fd, NULL);
}

/* ---- waking and sleeping -------------------------------------------------------------------- */

void segment_raise(segment *shared)
{
    atomic_fetch_add(&shared->epoch, 1);
    syscall(SYS_futex, &shared->epoch, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
}

bool segment_sleep(segment *shared, uint32_t seen, int milliseconds)
{
    struct timespec most = {milliseconds / 1000, milliseconds % 1000 * 1000000L};
    syscall(SYS_futex, &shared->epoch, FUTEX_WAIT, seen, &most, NULL, 0);
    return atomic_load(&shared->epoch) != seen;
}

uint64_t segment_process(void)
{
    pthread_mutex_lock(&lock);
    while (process == 0) {
        if (getrandom(&process, sizeof process, 0) != (ssize_t)sizeof process)
            process = (uint64_t)getpid();
    }
    uint64_t found = process;
    pthread_mutex_unlock(&lock);
    return found;
}
