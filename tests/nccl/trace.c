/* trace.c: collectives in the trace of the emulator, and the order that an overlap asks for. */
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "ranks.h"
#include "trace_file.h"

static CUdeviceptr make_words(unsigned value, size_t count)
{
    CUdeviceptr words;
    CHECK_CUDA(cuMemAlloc(&words, 4 * count));
    CHECK_CUDA(cuMemsetD32(words, value, count));
    return words;
}

static void all_reduce(test_rank *own, CUdeviceptr words, size_t count, CUstream stream)
{
    CHECK_NCCL(ncclSuccess, ncclAllReduce((void *)words, (void *)words, count, ncclInt32, ncclSum,
                                          own->comm, (cudaStream_t)stream));
}

/* The event's args have these operations, as JSON. */
static void expect_operations(const json_t *event, const char *text)
{
    json_t *wanted = json_loads(text, 0, NULL);
    json_t *found = json_object_get(json_object_get(event, "args"), "operations");
    char *printed = json_dumps(found, JSON_ENCODE_ANY);
    cr_expect(wanted && json_equal(found, wanted), "found %s, wanted %s", printed, text);
    free(printed);
    json_decref(wanted);
}

/* ---- an overlap ----------------------------------------------------------------------------- */

/* Copies stand for the kernels that make dX, memsets for those of the weight gradients. */
static void overlap(test_rank *own)
{
    CUstream beside;
    CUevent made, reduced;
    CUdeviceptr words = make_words(1, 4), copy = make_words(0, 4);
    CHECK_CUDA(cuStreamCreate(&beside, CU_STREAM_NON_BLOCKING));
    CHECK_CUDA(cuEventCreate(&made, CU_EVENT_DISABLE_TIMING));
    CHECK_CUDA(cuEventCreate(&reduced, CU_EVENT_DISABLE_TIMING));
    CHECK_CUDA(cuMemcpyDtoDAsync(copy, words, 16, own->stream));
    CHECK_CUDA(cuEventRecord(made, own->stream));
    CHECK_CUDA(cuStreamWaitEvent(beside, made, 0));
    all_reduce(own, copy, 4, beside);
    CHECK_CUDA(cuEventRecord(reduced, beside));
    CHECK_CUDA(cuMemsetD32Async(words, 2, 2, own->stream));
    CHECK_CUDA(cuMemsetD32Async(words + 8, 2, 2, own->stream));
    CHECK_CUDA(cuStreamWaitEvent(own->stream, reduced, 0));
    CHECK_CUDA(cuMemcpyDtoDAsync(words, copy, 16, own->stream));
    CHECK_CUDA(cuStreamSynchronize(own->stream));
}

/* The record that a wait waits for, which is behind an operation on the operation's track. */
static void expect_joined(const json_t *trace, const json_t *wait, const json_t *operation)
{
    json_t *found = trace_where(trace, "op", trace_number_in(wait, "waits_for"));
    const json_t *record = trace_event(found, "i", "record event", 0);
    cr_expect_eq(trace_number_in(record, "tid"), trace_number_in(operation, "tid"));
    cr_expect_gt(trace_number_in(record, "op"), trace_number_in(operation, "op"));
    cr_expect_leq(trace_ended(trace_ran(trace, operation)), trace_ended(trace_ran(trace, wait)));
    json_decref(found);
}

static void expect_overlap(const json_t *trace)
{
    const json_t *made = trace_event(trace, "i", "copy device to device", 0);
    const json_t *collective = trace_event(trace, "i", "all-reduce", 0);
    json_t *beside = trace_where(trace, "tid", trace_number_in(collective, "tid"));
    json_t *own = trace_where(trace, "tid", trace_number_in(made, "tid"));
    double number = trace_number_in(collective, "op");
    expect_joined(trace, trace_event(beside, "i", "wait for event", 0), made);
    cr_expect_lt(number, trace_number_in(trace_event(own, "i", "memset", 0), "op"));
    const json_t *join = trace_event(own, "i", "wait for event", 0);
    cr_expect_gt(trace_number_in(join, "op"),
                 trace_number_in(trace_event(own, "i", "memset", 1), "op"));
    expect_joined(trace, join, collective);
    cr_expect_leq(trace_ended(trace_ran(trace, collective)),
                  trace_begun(trace_event(own, "X", "copy device to device", 1)));
    json_decref(beside);
    json_decref(own);
}

Test(nccl_trace, a_collective_beside_others_is_enqueued_before_and_joined_after_them, .timeout = 60)
{
    trace_begin("trace.json");
    ranks_run(THREADS, 2, overlap, NULL, 0);
    json_t *trace = trace_read(trace_path);
    for (int rank = 0; rank < 2; rank++) {
        json_t *own = trace_where(trace, "device", rank);
        expect_overlap(own);
        json_decref(own);
    }
    cr_expect_eq(trace_count(trace, "X", "all-reduce"), 2);
    trace_end(trace);
}

/* ---- processes ------------------------------------------------------------------------------ */

static void reduce_once(test_rank *own)
{
    all_reduce(own, make_words(1, 3), 3, own->stream);
    CHECK_CUDA(cuStreamSynchronize(own->stream));
}

Test(nccl_trace, the_files_of_two_processes_have_one_clock, .timeout = 60)
{
    glob_t files;
    json_t *traces[2];
    const json_t *ran[2];
    trace_begin("%p.json");
    ranks_run(PROCESSES, 2, reduce_once, NULL, 0);
    snprintf(trace_path, sizeof trace_path, "%s/*.json", trace_folder);
    cr_assert_eq(glob(trace_path, 0, NULL, &files), 0);
    cr_assert_eq(files.gl_pathc, 2);
    for (int i = 0; i < 2; i++) {
        traces[i] = trace_read(files.gl_pathv[i]);
        ran[i] = trace_event(traces[i], "X", "all-reduce", 0);
        snprintf(trace_path, sizeof trace_path, "%s/%.0f.json", trace_folder,
                 trace_number_in(ran[i], "pid"));
        cr_expect_str_eq(trace_path, files.gl_pathv[i]);
        expect_operations(ran[i], "[{\"name\":\"all-reduce\",\"count\":3,\"type\":\"int32\","
                                  "\"reduction\":\"sum\"}]");
    }
    cr_expect_lt(trace_begun(ran[0]), trace_ended(ran[1]));
    cr_expect_lt(trace_begun(ran[1]), trace_ended(ran[0]));
    globfree(&files);
    json_decref(traces[0]);
    trace_end(traces[1]);
}

/* ---- groups and graphs ---------------------------------------------------------------------- */

static void exchange(test_rank *own)
{
    CUdeviceptr words = make_words(1, 4);
    CHECK_NCCL(ncclSuccess, ncclGroupStart());
    for (int i = 0; i < 2; i++) {
        ncclResult_t result =
            i ? ncclRecv((void *)words, 2, ncclFloat32, 1 - own->rank, own->comm, nccl_stream(own))
              : ncclSend((void *)(words + 8), 2, ncclFloat32, 1 - own->rank, own->comm,
                         nccl_stream(own));
        CHECK_NCCL(ncclSuccess, result);
    }
    CHECK_NCCL(ncclSuccess, ncclGroupEnd());
    CHECK_CUDA(cuStreamSynchronize(own->stream));
}

Test(nccl_trace, a_group_lists_its_operations, .timeout = 60)
{
    trace_begin("trace.json");
    ranks_run(THREADS, 2, exchange, NULL, 0);
    json_t *trace = trace_read(trace_path), *second = trace_where(trace, "device", 1);
    expect_operations(trace_event(second, "X", "group", 0),
                      "[{\"name\":\"send\",\"count\":2,\"type\":\"fp32\",\"rank\":0},"
                      "{\"name\":\"receive\",\"count\":2,\"type\":\"fp32\",\"rank\":0}]");
    json_decref(second);
    trace_end(trace);
}

static void replay(test_rank *own)
{
    CUgraph graph;
    CUgraphExec exec;
    CUdeviceptr words = make_words(1, 2);
    CHECK_CUDA(cuStreamBeginCapture(own->stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    all_reduce(own, words, 2, own->stream);
    CHECK_CUDA(cuStreamEndCapture(own->stream, &graph));
    CHECK_CUDA(cuGraphInstantiate(&exec, graph, 0));
    CHECK_CUDA(cuGraphLaunch(exec, own->stream));
    CHECK_CUDA(cuGraphLaunch(exec, own->stream));
    CHECK_CUDA(cuStreamSynchronize(own->stream));
}

Test(nccl_trace, a_graph_s_collective_is_there_for_each_launch, .timeout = 60)
{
    trace_begin("trace.json");
    ranks_run(THREADS, 2, replay, NULL, 0);
    json_t *trace = trace_read(trace_path), *first = trace_where(trace, "device", 0);
    cr_expect_eq(trace_count(first, "i", "all-reduce"), 2);
    cr_expect_eq(trace_count(first, "X", "all-reduce"), 2);
    json_decref(first);
    trace_end(trace);
}
