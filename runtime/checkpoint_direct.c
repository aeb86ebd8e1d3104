/*
 * checkpoint_direct.c: long runs of bytes are written past the page cache (O_DIRECT), where ranks
 * that write to one file do not wait for each other, and where fsync finds nothing to do. Several
 * such writes are under way at a time, as the kernel's own asynchronous ones: a thread that waits
 * in write(2) for the disk holds the file's lock, for which all short writes wait.
 *
 * Where the system has none of that, or refuses, everything goes through the page cache.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "checkpoint.h"

void checkpoint_direct_open(checkpoint_direct *out, const checkpoint_file *file)
{
    *out = (checkpoint_direct){.file = file, .alignment = (uint64_t)sysconf(_SC_PAGESIZE)};
    out->descriptor = open(file->temporary, O_WRONLY | O_DIRECT | O_CLOEXEC);
    if (out->descriptor >= 0 &&
        syscall(SYS_io_setup, (long)CHECKPOINT_SLOTS * CHECKPOINT_DIRECT_WRITES, &out->queue) != 0)
        out->queue = 0;
}

void checkpoint_direct_close(checkpoint_direct *direct)
{
    if (direct->queue)
        syscall(SYS_io_destroy, direct->queue); /* waits for what is under way */
    if (direct->descriptor >= 0)
        close(direct->descriptor);
    direct->queue = 0;
    direct->descriptor = -1;
}

/* Hands in a write of whole pages. */
static bool submit(checkpoint_direct *direct, int slot, const char *from, uint64_t bytes,
                   uint64_t offset)
{
    struct iocb *write = &direct->writes[slot][direct->count[slot]];
    *write = (struct iocb){.aio_lio_opcode = IOCB_CMD_PWRITE,
                           .aio_fildes = (uint32_t)direct->descriptor,
                           .aio_data = (uint32_t)slot,
                           .aio_buf = (uint64_t)(uintptr_t)from,
                           .aio_nbytes = bytes,
                           .aio_offset = (int64_t)offset};
    if (syscall(SYS_io_submit, direct->queue, 1L, &write) != 1)
        return false;
    direct->count[slot]++;
    direct->under_way[slot]++;
    return true;
}

mmlp_status checkpoint_direct_write(checkpoint_direct *direct, int slot, const char *from,
                                    uint64_t bytes, uint64_t offset)
{
    const uint64_t head = (0 - offset) % direct->alignment;
    uint64_t middle = 0;
    if (direct->queue && bytes >= CHECKPOINT_DIRECT_BYTES)
        middle = (bytes - head) / direct->alignment * direct->alignment;
    if (middle == 0 || !submit(direct, slot, from + head, middle, offset + head))
        return checkpoint_write_at(direct->file, from, (size_t)bytes, offset);
    const uint64_t done = head + middle;
    MMLP_TRY(checkpoint_write_at(direct->file, from, (size_t)head, offset));
    return checkpoint_write_at(direct->file, from + done, (size_t)(bytes - done), offset + done);
}

/* What a write has left undone goes through the page cache, which says why it cannot. */
static mmlp_status finish(checkpoint_direct *direct, const struct io_event *event)
{
    const struct iocb *write = (const struct iocb *)(uintptr_t)event->obj;
    const uint64_t done = event->res > 0 ? (uint64_t)event->res : 0;
    direct->under_way[event->data]--;
    return checkpoint_write_at(direct->file, (const char *)(uintptr_t)write->aio_buf + done,
                               (size_t)(write->aio_nbytes - done),
                               (uint64_t)write->aio_offset + done);
}

mmlp_status checkpoint_direct_wait(checkpoint_direct *direct, int slot)
{
    while (direct->under_way[slot] > 0) {
        struct io_event event;
        const long count = syscall(SYS_io_getevents, direct->queue, 1L, 1L, &event, NULL);
        if (count < 0 && errno == EINTR)
            continue;
        if (count != 1)
            return checkpoint_fail_io(direct->file->path, "wait for what is written");
        MMLP_TRY(finish(direct, &event));
    }
    direct->count[slot] = 0;
    return MMLP_OK;
}
