/* interrupted_calls.c: see interrupted.h. */
#include "interrupted.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static atomic_int calls_left = -1; /* below zero: none fails */
static atomic_bool has_failed;
static bool kills_then, shortens_now, was_interrupted;
static const char *path_to_cut;
static int reads_until_cut;
static interrupted_direct direct_writes = DIRECT_WHOLE;
static atomic_int direct_count;

void interrupt_after(int calls, bool kills)
{
    kills_then = kills;
    atomic_store(&has_failed, false);
    atomic_store(&calls_left, calls);
}

bool interrupt_never(void)
{
    atomic_store(&calls_left, -1);
    return atomic_load(&has_failed);
}

void interrupt_shorten(bool shortens)
{
    shortens_now = shortens;
}

void interrupt_truncate(const char *path)
{
    path_to_cut = path;
    reads_until_cut = 2;
}

void interrupt_direct(interrupted_direct how)
{
    direct_writes = how;
    direct_count = 0;
}

int interrupt_direct_count(void)
{
    return direct_count;
}

static bool must_fail(void)
{
    int left = atomic_load(&calls_left);
    while (left > 0 && !atomic_compare_exchange_weak(&calls_left, &left, left - 1))
        ;
    if (left != 0)
        return false;
    if (kills_then)
        raise(SIGKILL);
    atomic_store(&calls_left, -1); /* what cleans up works */
    atomic_store(&has_failed, true);
    errno = ENOSPC;
    return true;
}

static bool is_interrupted(size_t *bytes)
{
    if (!shortens_now)
        return false;
    *bytes = *bytes < 7 ? *bytes : 7;
    was_interrupted = !was_interrupted;
    errno = EINTR;
    return was_interrupted;
}

int __real_open(const char *path, int flags, ...);
int __real_unlink(const char *path);
int __real_fallocate(int descriptor, int mode, off_t offset, off_t bytes);
ssize_t __real_pwrite(int descriptor, const void *from, size_t bytes, off_t offset);
ssize_t __real_pread(int descriptor, void *to, size_t bytes, off_t offset);
int __real_fsync(int descriptor);
int __real_close(int descriptor);
int __real_rename(const char *from, const char *to);
long __real_syscall(long number, ...);
int __wrap_open(const char *path, int flags, ...);
int __wrap_unlink(const char *path);
int __wrap_fallocate(int descriptor, int mode, off_t offset, off_t bytes);
ssize_t __wrap_pwrite(int descriptor, const void *from, size_t bytes, off_t offset);
ssize_t __wrap_pread(int descriptor, void *to, size_t bytes, off_t offset);
int __wrap_fsync(int descriptor);
int __wrap_close(int descriptor);
int __wrap_rename(const char *from, const char *to);
long __wrap_syscall(long number, ...);

int __wrap_open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    if (flags & O_CREAT) {
        va_list args;
        va_start(args, flags);
        mode = va_arg(args, mode_t);
        va_end(args);
    }
    return must_fail() ? -1 : __real_open(path, flags, mode);
}

int __wrap_unlink(const char *path)
{
    return must_fail() ? -1 : __real_unlink(path);
}

int __wrap_fallocate(int descriptor, int mode, off_t offset, off_t bytes)
{
    return must_fail() ? -1 : __real_fallocate(descriptor, mode, offset, bytes);
}

ssize_t __wrap_pwrite(int descriptor, const void *from, size_t bytes, off_t offset)
{
    if (must_fail() || is_interrupted(&bytes))
        return -1;
    return __real_pwrite(descriptor, from, bytes, offset);
}

ssize_t __wrap_pread(int descriptor, void *to, size_t bytes, off_t offset)
{
    if (is_interrupted(&bytes))
        return -1;
    if (reads_until_cut > 0 && --reads_until_cut == 0 && truncate(path_to_cut, 64) != 0)
        return -1;
    return __real_pread(descriptor, to, bytes, offset);
}

int __wrap_fsync(int descriptor)
{
    return must_fail() ? -1 : __real_fsync(descriptor);
}

int __wrap_close(int descriptor)
{
    bool fails = must_fail();
    int result = __real_close(descriptor);
    if (fails)
        errno = ENOSPC;
    return fails ? -1 : result;
}

int __wrap_rename(const char *from, const char *to)
{
    return must_fail() ? -1 : __real_rename(from, to);
}

/* ---- asynchronous writes --------------------------------------------------------------------- */

enum { UNDER_WAY_MAX = 64, PAGE = 4096 };

/* What the kernel sees in place of the caller's. */
static struct {
    struct iocb cut;
    struct iocb *whole;
} under_way[UNDER_WAY_MAX];

static long submit_cut(long queue, struct iocb *whole)
{
    const int i = direct_count % UNDER_WAY_MAX;
    struct iocb *cut = &under_way[i].cut;
    *cut = *whole;
    cut->aio_nbytes = PAGE;
    under_way[i].whole = whole;
    return __real_syscall(SYS_io_submit, queue, 1L, &cut);
}

static long submit(long queue, struct iocb **write)
{
    long count = direct_writes == DIRECT_WHOLE ? __real_syscall(SYS_io_submit, queue, 1L, write)
                                               : submit_cut(queue, *write);
    direct_count += count == 1;
    return count;
}

static long get_event(long queue, struct io_event *event)
{
    size_t bytes = sizeof *event;
    if (is_interrupted(&bytes))
        return -1;
    long count = __real_syscall(SYS_io_getevents, queue, 1L, 1L, event, NULL);
    for (int i = 0; count == 1 && i < UNDER_WAY_MAX; i++)
        if (event->obj == (uintptr_t)&under_way[i].cut)
            event->obj = (uintptr_t)under_way[i].whole;
    if (direct_writes == DIRECT_FAILS)
        event->res = -EIO;
    return count;
}

long __wrap_syscall(long number, ...)
{
    va_list args;
    va_start(args, number);
    const long queue = va_arg(args, long);
    if (must_fail()) {
        va_end(args);
        return -1;
    }
    long result;
    if (number == SYS_io_submit) {
        (void)va_arg(args, long);
        result = submit(queue, va_arg(args, struct iocb **));
    } else if (number == SYS_io_getevents) {
        (void)va_arg(args, long);
        (void)va_arg(args, long);
        result = get_event(queue, va_arg(args, struct io_event *));
    } else { /* io_setup, io_destroy */
        result = __real_syscall(number, queue, va_arg(args, void *));
    }
    va_end(args);
    return result;
}
