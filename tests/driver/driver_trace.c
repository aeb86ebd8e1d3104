/* driver_trace.c: MMLP_EMULATOR_TRACE: what streams were given and ran, read back as JSON. */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver/cu_emulator.h"
#include "fixture.h"
#include "gate.h"
#include "trace_file.h"

static CUstream make_stream(void)
{
    CUstream stream;
    EXPECT_OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    return stream;
}

static CUdeviceptr make_words(size_t count)
{
    CUdeviceptr words;
    EXPECT_OK(cuMemAlloc(&words, 4 * count));
    return words;
}

/* Device 0's number of the stream: its track. */
static double track_of(CUstream stream)
{
    unsigned long long id;
    EXPECT_OK(cuStreamGetId(stream, &id));
    return (double)id;
}

static void expect_number(double wanted, const json_t *event, const char *key)
{
    double found = trace_number_in(event, key);
    cr_expect_eq(found, wanted, "%s of %s is %g, wanted %g", key,
                 json_string_value(json_object_get(event, "name")), found, wanted);
}

/* The operation ran after it was enqueued and before `after` began (NULL: no matter when). */
static void expect_order(const json_t *trace, const json_t *enqueued, const json_t *after)
{
    const json_t *ran = trace_ran(trace, enqueued);
    cr_expect_leq(trace_number_in(enqueued, "ts"), trace_begun(ran));
    if (after)
        cr_expect_leq(trace_ended(ran), trace_begun(after));
}

/* ---- operations ----------------------------------------------------------------------------- */

Test(trace, an_operation_is_enqueued_and_then_runs_on_the_track_of_its_stream)
{
    static const char *const names[] = {"memset", "store_at", "copy device to device",
                                        "host function"};
    trace_begin("trace.json");
    open_device();
    CUstream stream = make_stream();
    CUdeviceptr words = make_words(8);
    EXPECT_OK(cuMemsetD32Async(words, 1, 8, stream));
    EXPECT_OK(launch_store(get_kernel(load_fixture(), "store_at"), words, stream));
    EXPECT_OK(cuMemcpyDtoDAsync(words + 16, words, 12, stream));
    EXPECT_OK(cuLaunchHostFunc(stream, free, NULL));
    json_t *trace = trace_read(trace_path);
    for (size_t i = 0; i < 4; i++) {
        const json_t *enqueued = trace_event(trace, "i", names[i], 0);
        expect_number((double)i + 1, enqueued, "op");
        expect_number(track_of(stream), enqueued, "tid");
        expect_number(getpid(), enqueued, "pid");
        expect_number(0, enqueued, "device");
        expect_number(track_of(stream), trace_ran(trace, enqueued), "tid");
        expect_order(trace, enqueued, i < 3 ? trace_event(trace, "X", names[i + 1], 0) : NULL);
    }
    expect_number(32, trace_event(trace, "X", names[0], 0), "bytes");
    expect_number(12, trace_event(trace, "X", names[2], 0), "bytes");
    trace_end(trace);
}

Test(trace, a_kernel_shows_its_grid_and_its_block)
{
    trace_begin("trace.json");
    open_device();
    CUfunction limited = get_kernel(load_fixture(), "limited");
    EXPECT_OK(cuLaunchKernel(limited, 5, 2, 3, 64, 1, 1, 0, make_stream(), NULL, NULL));
    json_t *trace = trace_read(trace_path);
    json_t *wanted = json_pack("{s[iii]s[iii]}", "grid", 5, 2, 3, "block", 64, 1, 1);
    json_t *args = json_object_get(trace_event(trace, "X", "limited", 0), "args");
    cr_expect(json_equal(json_object_get(args, "grid"), json_object_get(wanted, "grid")));
    cr_expect(json_equal(json_object_get(args, "block"), json_object_get(wanted, "block")));
    json_decref(wanted);
    trace_end(trace);
}

Test(trace, a_copy_of_rows_shows_the_bytes_it_copies)
{
    trace_begin("trace.json");
    open_device();
    CUdeviceptr words = make_words(16);
    EXPECT_OK(cuMemsetD32(words, 1, 16));
    const CUDA_MEMCPY2D rows = {.srcMemoryType = CU_MEMORYTYPE_DEVICE,
                                .srcDevice = words,
                                .srcPitch = 8,
                                .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                                .dstDevice = words + 32,
                                .dstPitch = 8,
                                .WidthInBytes = 4,
                                .Height = 3};
    EXPECT_OK(cuMemcpy2DAsync(&rows, make_stream()));
    json_t *trace = trace_read(trace_path);
    expect_number(12, trace_event(trace, "X", "copy of rows", 0), "bytes");
    trace_end(trace);
}

static void CUDA_CB count_call(CUstream stream, CUresult status, void *calls)
{
    (void)stream, (void)status;
    ++*(int *)calls;
}

Test(trace, what_runs_inside_its_call_is_there_too)
{
    trace_begin("trace.json");
    unsigned long long id;
    int calls = 0;
    unsigned word = 3;
    EXPECT_OK(cuCtxGetId(open_device(), &id));
    CUdeviceptr words = make_words(2);
    EXPECT_OK(cuMemcpyHtoD(words, &word, sizeof word));
    EXPECT_OK(cuMemsetD8(words, 1, 8));
    EXPECT_OK(cuMemcpyDtoH(&word, words, sizeof word));
    EXPECT_OK(cuStreamAddCallback(NULL, count_call, &calls, 0));
    json_t *trace = trace_read(trace_path);
    expect_number((double)id, trace_event(trace, "X", "copy host to device", 0), "tid");
    expect_number(2, trace_event(trace, "X", "memset", 0), "op");
    expect_number(4, trace_event(trace, "X", "copy device to host", 0), "bytes");
    expect_number(4, trace_event(trace, "X", "callback", 0), "op");
    cr_expect_eq(calls, 1);
    trace_end(trace);
}

Test(trace, processes_and_streams_have_names)
{
    static char program[] = "the \"program\"";
    program_invocation_short_name = program;
    trace_begin("trace.json");
    open_device();
    unsigned long long id = (unsigned long long)track_of(make_stream());
    char wanted[64];
    json_t *trace = trace_read(trace_path);
    const json_t *process = trace_event(trace, "M", "process_name", 0);
    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(process, "args"), "name")),
                     program);
    const json_t *track = trace_event(trace, "M", "thread_name", 1); /* after the context's */
    expect_number((double)id, track, "tid");
    snprintf(wanted, sizeof wanted, "device 0, stream %llu", id);
    cr_expect_str_eq(json_string_value(json_object_get(json_object_get(track, "args"), "name")),
                     wanted);
    trace_end(trace);
}

/* ---- events --------------------------------------------------------------------------------- */

Test(trace, a_wait_names_the_record_it_waits_for_and_lasts_until_that_ran)
{
    trace_begin("trace.json");
    open_device();
    CUfunction store_at = get_kernel(load_fixture(), "store_at");
    CUstream waits = make_stream(), other = make_stream();
    CUdeviceptr words = make_words(1);
    CUevent event;
    EXPECT_OK(cuEventCreate(&event, 0));
    EXPECT_OK(cuEventRecord(event, other)); /* an earlier one, which is not meant */
    enqueue_gate(waits, 0);
    EXPECT_OK(cuEventRecord(event, waits));
    EXPECT_OK(cuStreamWaitEvent(other, event, 0));
    EXPECT_OK(launch_store(store_at, words, other));
    json_t *early = trace_read(trace_path);
    cr_expect_eq(trace_count(early, "i", "store_at"), 1);
    cr_expect_eq(trace_count(early, "X", "store_at"), 0);
    cr_expect_eq(trace_count(early, "X", "gate"), 0);
    json_decref(early);
    open_gates(1);
    EXPECT_OK(cuCtxSynchronize());
    json_t *trace = trace_read(trace_path);
    const json_t *gate = trace_event(trace, "i", "gate", 0);
    const json_t *record = trace_event(trace, "i", "record event", 1);
    const json_t *wait = trace_event(trace, "i", "wait for event", 0);
    const json_t *kernel = trace_event(trace, "i", "store_at", 0);
    expect_number(track_of(waits), record, "tid");
    expect_number(track_of(other), wait, "tid");
    expect_number(trace_number_in(record, "op"), wait, "waits_for");
    expect_number(trace_number_in(record, "event"), wait, "event");
    expect_order(trace, gate, trace_ran(trace, record));
    cr_expect_leq(trace_ended(trace_ran(trace, record)), trace_ended(trace_ran(trace, wait)));
    expect_order(trace, wait, trace_ran(trace, kernel));
    trace_end(trace);
}

Test(trace, a_wait_for_what_is_done_comes_after_what_its_stream_has_still_to_run)
{
    trace_begin("trace.json");
    open_device();
    CUstream stream = make_stream(), other = make_stream();
    CUevent event, never;
    EXPECT_OK(cuEventCreate(&event, 0));
    EXPECT_OK(cuEventCreate(&never, 0));
    EXPECT_OK(cuEventRecord(event, other));
    enqueue_gate(stream, 0);
    EXPECT_OK(cuStreamWaitEvent(stream, event, 0));
    EXPECT_OK(cuStreamWaitEvent(stream, never, 0));
    open_gates(1);
    EXPECT_OK(cuStreamSynchronize(stream));
    json_t *trace = trace_read(trace_path);
    const json_t *wait = trace_event(trace, "X", "wait for event", 0);
    expect_number(1, wait, "waits_for");
    expect_order(trace, trace_event(trace, "i", "gate", 0), wait);
    const json_t *unrecorded = trace_event(trace, "X", "wait for event", 1);
    cr_expect_null(json_object_get(json_object_get(unrecorded, "args"), "waits_for"));
    trace_end(trace);
}

Test(trace, what_is_behind_a_fault_is_enqueued_and_does_not_run)
{
    trace_begin("trace.json");
    open_device();
    CUstream stream = make_stream();
    enqueue_gate(stream, 0);
    EXPECT_OK(cuMemsetD32Async(4096, 2, 1, stream)); /* no memory is there */
    EXPECT_OK(cuLaunchHostFunc(stream, free, NULL));
    open_gates(1);
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuStreamSynchronize(stream));
    json_t *trace = trace_read(trace_path);
    cr_expect_eq(trace_count(trace, "X", "memset"), 1);
    cr_expect_eq(trace_count(trace, "i", "host function"), 1);
    cr_expect_eq(trace_count(trace, "X", "host function"), 0);
    trace_end(trace);
}

/* ---- graphs --------------------------------------------------------------------------------- */

Test(trace, a_graph_s_nodes_are_there_for_each_launch_and_not_for_the_capture)
{
    trace_begin("trace.json");
    open_device();
    CUstream stream = make_stream(), beside = make_stream();
    CUdeviceptr words = make_words(4);
    CUfunction store_at = get_kernel(load_fixture(), "store_at");
    CUgraph graph;
    CUgraphExec exec;
    CUevent fork, outside;
    EXPECT_OK(cuEventCreate(&fork, 0));
    EXPECT_OK(cuEventCreate(&outside, 0));
    EXPECT_OK(cuEventRecord(outside, stream)); /* before the graph's: not what is waited for */
    EXPECT_OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    EXPECT_OK(cuMemsetD32Async(words, 1, 4, stream));
    EXPECT_OK(cuEventRecord(fork, stream));
    EXPECT_OK(cuStreamWaitEvent(beside, fork, 0));
    EXPECT_OK(launch_store(store_at, words, beside));
    EXPECT_OK(cuEventRecord(fork, beside));
    EXPECT_OK(cuStreamWaitEvent(stream, fork, 0));
    EXPECT_OK(cuEventRecordWithFlags(outside, stream, CU_EVENT_RECORD_EXTERNAL));
    EXPECT_OK(cuStreamEndCapture(stream, &graph));
    EXPECT_OK(cuGraphInstantiate(&exec, graph, 0));
    json_t *trace = trace_read(trace_path);
    cr_expect_eq(trace_count(trace, "i", "memset"), 0);
    json_decref(trace);
    EXPECT_OK(cuGraphLaunch(exec, stream));
    EXPECT_OK(cuGraphLaunch(exec, beside));
    EXPECT_OK(cuStreamWaitEvent(stream, outside, 0));
    trace = trace_read(trace_path);
    const CUstream launched[] = {stream, beside};
    for (size_t i = 0; i < 2; i++) {
        const json_t *kernel = trace_event(trace, "i", "store_at", i);
        expect_number(track_of(launched[i]), kernel, "tid");
        expect_order(trace, trace_event(trace, "i", "memset", i), trace_ran(trace, kernel));
        expect_order(trace, kernel, trace_event(trace, "X", "record event", i + 1));
    }
    cr_expect_eq(trace_count(trace, "X", "memset"), 2);
    cr_expect_eq(trace_count(trace, "i", "wait for event"), 1);
    const json_t *wait = trace_event(trace, "X", "wait for event", 0);
    cr_expect_null(json_object_get(json_object_get(wait, "args"), "waits_for"));
    trace_end(trace);
}

/* ---- the file ------------------------------------------------------------------------------- */

static void do_nothing(void *unused)
{
    (void)unused;
}

static const char *describe_oddly(FILE *args, const void *unused)
{
    (void)args, (void)unused;
    return "say \"\\n\" 100%\n\t\x01\x7f\xc3(";
}

Test(trace, names_are_escaped_and_foreign_bytes_replaced)
{
    trace_begin("trace.json");
    open_device();
    CUstream stream = make_stream();
    EXPECT_OK(cuEmulatorLaunchWaiting(stream, do_nothing, describe_oddly, "", 1));
    EXPECT_OK(cuStreamSynchronize(stream));
    json_t *trace = trace_read(trace_path);
    trace_event(trace, "i", "say \"\\n\" 100%\n\t\x01\x7f\xef\xbf\xbd(", 0);
    trace_event(trace, "X", "say \"\\n\" 100%\n\t\x01\x7f\xef\xbf\xbd(", 0);
    trace_end(trace);
}

/* A process that is killed in the middle of its work. */
static void die_at_work(void)
{
    open_device();
    CUstream stream = make_stream();
    EXPECT_OK(cuMemsetD32Async(make_words(1), 1, 1, stream));
    enqueue_gate(stream, 0);
    raise(SIGKILL);
}

Test(trace, percent_p_is_the_process_and_the_file_is_whole_when_that_is_killed)
{
    int status;
    trace_begin("trace.%p.%p.json");
    pid_t child = fork();
    if (child == 0)
        die_at_work();
    cr_assert_eq(waitpid(child, &status, 0), child);
    cr_assert(WIFSIGNALED(status));
    snprintf(trace_path, sizeof trace_path, "%s/trace.%d.%d.json", trace_folder, child, child);
    json_t *trace = trace_read(trace_path);
    expect_number(child, trace_event(trace, "X", "memset", 0), "pid");
    cr_expect_eq(trace_count(trace, "i", "gate"), 1);
    cr_expect_eq(trace_count(trace, "X", "gate"), 0);
    trace_end(trace);
}

/* What the calls print. */
static void capture_stderr(char text[static 1024], void (*calls)(void))
{
    FILE *file = tmpfile();
    int saved = dup(2);
    fflush(stderr);
    dup2(fileno(file), 2);
    calls();
    fflush(stderr);
    dup2(saved, 2);
    close(saved);
    rewind(file);
    text[fread(text, 1, 1023, file)] = '\0';
    fclose(file);
}

static void work_untraced(void)
{
    unsigned word = 0;
    open_device();
    EXPECT_OK(cuInit(0));
    CUdeviceptr words = make_words(1);
    EXPECT_OK(launch_store(get_kernel(load_fixture(), "store_at"), words, NULL));
    EXPECT_OK(cuMemcpyDtoH(&word, words, sizeof word));
    cr_expect_eq(word, 7);
}

static void expect_untraced(const char *wanted)
{
    char line[1024], text[1024];
    snprintf(line, sizeof line, "libcuda (emulator): MMLP_EMULATOR_TRACE: %s %s", trace_path,
             wanted);
    capture_stderr(text, work_untraced);
    cr_expect_str_eq(text, line);
}

Test(trace, a_file_that_cannot_be_written_gives_one_line_and_work_goes_on)
{
    trace_begin("no-such-folder/trace.json");
    expect_untraced("cannot be written: No such file or directory; nothing is traced\n");
    trace_end(NULL);
}

Test(trace, a_file_that_another_process_writes_is_left_to_it)
{
    int ends[2];
    char byte;
    trace_begin("trace.json");
    cr_assert_eq(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        work_untraced();
        _exit(write(ends[1], "", 1) == 1 ? pause() : 1);
    }
    cr_assert_eq(read(ends[0], &byte, 1), 1);
    expect_untraced("is written by another process: %p in the name becomes a process's number; "
                    "nothing is traced\n");
    json_t *trace = trace_read(trace_path);
    expect_number(child, trace_event(trace, "X", "store_at", 0), "pid");
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    trace_end(trace);
}

static void work_long(void)
{
    open_device();
    CUdeviceptr words = make_words(1);
    for (int i = 0; i < 100; i++)
        EXPECT_OK(cuMemsetD32(words, 1, 1));
}

Test(trace, a_full_disk_ends_the_trace_with_one_line_and_leaves_it_whole)
{
    char text[1024], line[1024];
    const struct rlimit least = {4000, 4000};
    trace_begin("trace.json");
    signal(SIGXFSZ, SIG_IGN);
    cr_assert_eq(setrlimit(RLIMIT_FSIZE, &least), 0);
    capture_stderr(text, work_long);
    snprintf(line, sizeof line, "libcuda (emulator): MMLP_EMULATOR_TRACE: %s cannot be written",
             trace_path);
    cr_expect_eq(strncmp(text, line, strlen(line)), 0, "%s", text);
    cr_expect_str_eq(strstr(text, "; "), "; nothing more is traced\n");
    json_t *trace = trace_read(trace_path);
    size_t count = trace_count(trace, "i", "memset");
    cr_expect(count > 5 && count < 20, "%zu are left", count);
    trace_end(trace);
}
