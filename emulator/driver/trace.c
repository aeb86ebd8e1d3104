/*
 * trace.c: see trace.h. Every event is written when it happens, in one write over the array's end,
 * which it brings along: the file is whole JSON at any time, however the process ends.
 */
#include "driver/trace.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#define ARRAY_END       "\n]\n"
#define ARRAY_END_BYTES (sizeof ARRAY_END - 1)

struct trace_op {
    unsigned long long number, track;
    uint64_t begun; /* nanoseconds */
    char members[]; /* of its events, to the end of the object */
};

static atomic_bool is_open;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the rest */
static char *path;
static int file;
static off_t end; /* where the array's end is */
static unsigned long long last_number;

/* ---- the file, under the lock --------------------------------------------------------------- */

static const char unwritable[] = "cannot be written: ";

/* What has been written stays whole, as far as the system lets it. */
static void give_up(const char *what, const char *why)
{
    fprintf(stderr, "libcuda (emulator): MMLP_EMULATOR_TRACE: %s %s%s; nothing %s traced\n", path,
            what, why, end ? "more is" : "is");
    if (end && ftruncate(file, end) == 0 && pwrite(file, ARRAY_END, ARRAY_END_BYTES, end) < 0)
        fprintf(stderr, "libcuda (emulator): %s has lost its end\n", path);
    if (file >= 0)
        close(file);
    free(path);
    is_open = false;
}

/* The text, which ends with the array's end, in the place of the array's end so far. */
static void write_text(const char *text, size_t bytes)
{
    errno = ENOSPC; /* for a write that was cut short */
    if (pwrite(file, text, bytes, end) == (ssize_t)bytes) {
        end += (off_t)(bytes - ARRAY_END_BYTES);
        return;
    }
    give_up(unwritable, strerror(errno));
}

/* An event, from its first member on; out of memory: it is left out. */
__attribute__((format(printf, 1, 2))) static void write_event(const char *format, ...)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = is_open ? open_memstream(&text, &bytes) : NULL;
    if (!out)
        return;
    va_list arguments;
    va_start(arguments, format);
    fprintf(out, "%s{\"pid\":%d,", end ? ",\n" : "[\n", (int)getpid());
    vfprintf(out, format, arguments);
    fputs("}" ARRAY_END, out);
    va_end(arguments);
    if (fclose(out) == 0)
        write_text(text, bytes);
    free(text);
}

/* ---- texts ---------------------------------------------------------------------------------- */

/* A JSON string. Bytes beyond ASCII might be no UTF-8: each becomes the replacement character. */
static void put_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (const unsigned char *c = (const unsigned char *)text; *c; c++) {
        if (*c >= 0x80)
            fputs("\\ufffd", out);
        else if (*c < 0x20 || *c == '"' || *c == '\\')
            fprintf(out, "\\u%04x", *c);
        else
            fputc(*c, out);
    }
    fputc('"', out);
}

/* NULL when out of memory. */
static char *expand_path(const char *pattern)
{
    char *expanded = NULL;
    size_t bytes;
    FILE *out = open_memstream(&expanded, &bytes);
    if (!out)
        return NULL;
    for (const char *c = pattern; *c; c++) {
        bool is_process = c[0] == '%' && c[1] == 'p';
        if (is_process)
            fprintf(out, "%d", (int)getpid());
        else
            fputc(*c, out);
        c += is_process;
    }
    fclose(out);
    return expanded;
}

static uint64_t now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time); /* one for all processes: their traces fit together */
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* Chrome wants microseconds; printf's fractions depend on the locale. */
#define TIME_FORMAT          "%llu.%03u"
#define TIME_ARGUMENTS(time) (unsigned long long)((time) / 1000), (unsigned)((time) % 1000)

/* ---- beginning ------------------------------------------------------------------------------ */

static void name_process(void)
{
    char *name = NULL;
    size_t bytes;
    FILE *out = open_memstream(&name, &bytes);
    if (!out)
        return;
    put_string(out, program_invocation_short_name);
    fclose(out);
    write_event("\"tid\":0,\"ph\":\"M\",\"name\":\"process_name\",\"args\":{\"name\":%s}", name);
    free(name);
}

static void open_file(const char *pattern)
{
    path = expand_path(pattern);
    if (!path)
        return;
    file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0)
        give_up(unwritable, strerror(errno));
    else if (flock(file, LOCK_EX | LOCK_NB) != 0) /* until this process ends */
        give_up("is written by another process: ", "%p in the name becomes a process's number");
    else if (ftruncate(file, 0) != 0)
        give_up(unwritable, strerror(errno));
    else
        is_open = true;
    name_process();
}

void trace_open(const char *pattern)
{
    if (!pattern)
        return;
    pthread_mutex_lock(&lock);
    open_file(pattern);
    pthread_mutex_unlock(&lock);
}

void trace_name_track(unsigned long long track, CUdevice device, const char *stream)
{
    if (!is_open)
        return;
    pthread_mutex_lock(&lock);
    write_event(
        "\"tid\":%llu,\"ph\":\"M\",\"name\":\"thread_name\",\"args\":{\"name\":\"device %d, "
        "%s %llu\"}",
        track, device, stream, track);
    pthread_mutex_unlock(&lock);
}

/* ---- operations ----------------------------------------------------------------------------- */

/* With the next number. */
static trace_op *make_op(unsigned long long track, CUdevice device, const char *category,
                         trace_describe *describe, const void *arguments)
{
    char *members = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&members, &bytes);
    if (!out)
        return NULL;
    fprintf(out, "\"cat\":\"%s\",\"args\":{\"op\":%llu,\"device\":%d", category, last_number + 1,
            device);
    const char *name = describe(out, arguments);
    fputs("},\"name\":", out);
    put_string(out, name);
    trace_op *op = fclose(out) == 0 ? malloc(sizeof *op + bytes + 1) : NULL;
    if (op) {
        *op = (trace_op){.number = ++last_number, .track = track};
        memcpy(op->members, members, bytes + 1);
    }
    free(members);
    return op;
}

trace_op *trace_enqueue(unsigned long long track, CUdevice device, const char *category,
                        trace_describe *describe, const void *arguments)
{
    if (!is_open)
        return NULL;
    pthread_mutex_lock(&lock);
    uint64_t time = now();
    trace_op *op = make_op(track, device, category, describe, arguments);
    if (op)
        write_event("\"tid\":%llu,\"ph\":\"i\",\"s\":\"t\",\"ts\":" TIME_FORMAT ",%s", track,
                    TIME_ARGUMENTS(time), op->members);
    pthread_mutex_unlock(&lock);
    return op;
}

unsigned long long trace_number(const trace_op *op)
{
    return op ? op->number : 0;
}

void trace_begin(trace_op *op)
{
    if (op)
        op->begun = now();
}

void trace_end(trace_op *op)
{
    if (!op)
        return;
    uint64_t ended = now();
    pthread_mutex_lock(&lock);
    write_event("\"tid\":%llu,\"ph\":\"X\",\"ts\":" TIME_FORMAT ",\"dur\":" TIME_FORMAT ",%s",
                op->track, TIME_ARGUMENTS(op->begun), TIME_ARGUMENTS(ended - op->begun),
                op->members);
    pthread_mutex_unlock(&lock);
    free(op);
}

void trace_drop(trace_op *op)
{
    free(op);
}
