/* driver_graphs.c: what a captured graph holds, and what launching it does. */
#include <dlfcn.h>
#include <stdint.h>
#include <string.h>

#include "fixture.h"

enum { COUNT = 64, BYTES = COUNT * sizeof(unsigned) };

typedef struct bench {
    CUcontext context;
    CUmodule module;
    CUfunction add, store_at;
    CUstream stream;
    CUdeviceptr in, out;
} bench;

static bench open_bench(void)
{
    bench b = {.context = open_device()};
    b.module = load_fixture();
    b.add = get_kernel(b.module, "add");
    b.store_at = get_kernel(b.module, "store_at");
    EXPECT_OK(cuStreamCreate(&b.stream, CU_STREAM_NON_BLOCKING));
    EXPECT_OK(cuMemAlloc(&b.in, BYTES));
    EXPECT_OK(cuMemAlloc(&b.out, BYTES));
    return b;
}

static void launch_add(const bench *b, CUdeviceptr out, CUdeviceptr in, unsigned value,
                       CUstream stream)
{
    unsigned count = COUNT;
    void *params[] = {&out, &in, &value, &count};
    EXPECT_OK(cuLaunchKernel(b->add, 1, 1, 1, COUNT, 1, 1, 0, stream, params, NULL));
}

static void begin(const bench *b)
{
    EXPECT_OK(cuStreamBeginCapture(b->stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
}

/* Ends the capture and makes it executable; the graph is gone afterwards. */
static CUgraphExec finish(const bench *b)
{
    CUgraph graph = NULL;
    CUgraphExec exec = NULL;
    EXPECT_OK(cuStreamEndCapture(b->stream, &graph));
    EXPECT_OK(cuGraphInstantiate(&exec, graph, 0));
    EXPECT_OK(cuGraphDestroy(graph));
    return exec;
}

static void run(CUgraphExec exec, CUstream stream)
{
    EXPECT_OK(cuGraphLaunch(exec, stream));
    EXPECT_OK(cuStreamSynchronize(stream));
}

static unsigned word_at(CUdeviceptr address)
{
    unsigned word = 0;
    EXPECT_OK(cuMemcpyDtoH(&word, address, sizeof word));
    return word;
}

static void count_call(void *counter)
{
    ++*(int *)counter;
}

/* ---- launching ------------------------------------------------------------------------------ */

Test(graphs, run_nothing_before_their_launch_and_then_on_what_memory_holds)
{
    bench b = open_bench();
    CUstream other;
    EXPECT_OK(cuStreamCreate(&other, CU_STREAM_DEFAULT));
    EXPECT_OK(cuMemsetD32(b.in, 1, COUNT));
    EXPECT_OK(cuMemsetD32(b.out, 0, COUNT));
    begin(&b);
    launch_add(&b, b.out, b.in, 5, b.stream);
    launch_add(&b, b.out, b.out, 100, b.stream);
    CUgraphExec exec = finish(&b);
    cr_expect_eq(word_at(b.out), 0);
    run(exec, b.stream);
    cr_expect_eq(word_at(b.out), 106);
    EXPECT_OK(cuMemsetD32(b.in, 1000, COUNT));
    run(exec, other); /* any stream of the context */
    cr_expect_eq(word_at(b.out + BYTES - 4), 1105);
    EXPECT_OK(cuMemsetD32(b.in, 7, COUNT));
    run(exec, NULL);
    cr_expect_eq(word_at(b.out), 112);
    EXPECT_OK(cuGraphExecDestroy(exec));
    EXPECT_OK(cuCtxDestroy(b.context));
}

Test(graphs, have_their_own_copy_of_the_parameters)
{
    bench b = open_bench();
    CUdeviceptr out = b.out, in = b.in;
    unsigned value = 5, count = COUNT;
    void *params[] = {&out, &in, &value, &count};
    EXPECT_OK(cuMemsetD32(b.in, 1, COUNT));
    begin(&b);
    EXPECT_OK(cuLaunchKernel(b.add, 1, 1, 1, COUNT, 1, 1, 0, b.stream, params, NULL));
    value = 1000;
    out = in = 0;
    params[0] = NULL;
    CUgraphExec exec = finish(&b);
    run(exec, b.stream);
    cr_expect_eq(word_at(b.out), 6);
    EXPECT_OK(cuCtxDestroy(b.context));
}

Test(graphs, take_copies_memsets_and_host_functions)
{
    bench b = open_bench();
    unsigned source[4] = {1, 2, 3, 4}, back[4] = {0}, moved[4] = {0};
    int calls = 0;
    CUDA_MEMCPY2D rows = {.srcMemoryType = CU_MEMORYTYPE_DEVICE,
                          .srcDevice = b.in,
                          .srcPitch = 8,
                          .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                          .dstDevice = b.out + 32,
                          .dstPitch = 16,
                          .WidthInBytes = 8,
                          .Height = 2};
    begin(&b);
    EXPECT_OK(cuMemcpyHtoDAsync(b.in, source, 16, b.stream));
    EXPECT_OK(cuMemcpyDtoDAsync(b.out, b.in, 16, b.stream));
    EXPECT_OK(cuMemcpyDtoHAsync(back, b.out, 16, b.stream));
    EXPECT_OK(cuMemcpyAsync((CUdeviceptr)(uintptr_t)moved, b.in, 16, b.stream));
    EXPECT_OK(cuMemsetD8Async(b.out, 0xab, 4, b.stream));
    EXPECT_OK(cuMemsetD16Async(b.out + 4, 0x1234, 2, b.stream));
    EXPECT_OK(cuMemsetD32Async(b.out + 8, 77, 1, b.stream));
    EXPECT_OK(cuMemsetD2D32Async(b.out + 32, 16, 9, 4, 2, b.stream));
    EXPECT_OK(cuMemcpy2DAsync(&rows, b.stream));
    EXPECT_OK(cuLaunchHostFunc(b.stream, count_call, &calls));
    rows.dstDevice = 0;
    CUgraphExec exec = finish(&b);
    cr_expect_eq(calls, 0);
    cr_expect_eq(back[0], 0);
    source[2] = 30;
    run(exec, b.stream);
    cr_expect_eq(calls, 1);
    cr_expect_eq(back[2], 30);
    cr_expect_eq(moved[2], 30);
    cr_expect_eq(word_at(b.out), 0xabababab);
    cr_expect_eq(word_at(b.out + 4), 0x12341234);
    cr_expect_eq(word_at(b.out + 8), 77);
    cr_expect_eq(word_at(b.out + 32), 1);
    cr_expect_eq(word_at(b.out + 40), 9);
    cr_expect_eq(word_at(b.out + 52), 4);
    run(exec, b.stream);
    cr_expect_eq(calls, 2);
    EXPECT_OK(cuCtxDestroy(b.context));
}

Test(graphs, tell_an_address_that_is_gone_at_the_launch)
{
    bench b = open_bench();
    begin(&b);
    EXPECT_OK(cuMemsetD32Async(b.out, 1, COUNT, b.stream));
    CUgraphExec exec = finish(&b);
    EXPECT_OK(cuMemFree(b.out));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuGraphLaunch(exec, b.stream));
    EXPECT_OK(cuCtxDestroy(b.context));
}

Test(graphs, tell_a_module_that_is_gone_at_the_launch)
{
    bench b = open_bench();
    begin(&b);
    EXPECT_OK(launch_store(b.store_at, b.out, b.stream));
    CUgraphExec exec = finish(&b);
    EXPECT_OK(cuModuleUnload(b.module));
    EXPECT_RESULT(CUDA_ERROR_INVALID_HANDLE, cuGraphLaunch(exec, b.stream));
    EXPECT_OK(cuCtxDestroy(b.context));
}

Test(graphs, launched_in_a_capture_become_part_of_it)
{
    bench b = open_bench();
    EXPECT_OK(cuMemsetD32(b.out, 0, COUNT));
    begin(&b);
    launch_add(&b, b.out, b.out, 1, b.stream);
    CUgraphExec inner = finish(&b);
    begin(&b);
    EXPECT_OK(cuGraphLaunch(inner, b.stream));
    EXPECT_OK(cuGraphLaunch(inner, b.stream));
    CUgraphExec outer = finish(&b);
    EXPECT_OK(cuGraphExecDestroy(inner));
    cr_expect_eq(word_at(b.out), 0);
    run(outer, b.stream);
    cr_expect_eq(word_at(b.out), 2);
    EXPECT_OK(cuCtxDestroy(b.context));
}

Test(graphs, with_a_faulting_kernel_fault_as_a_launch_does)
{
    bench b = open_bench();
    int calls = 0;
    begin(&b);
    EXPECT_OK(launch_store(b.store_at, b.out + BYTES, b.stream));
    EXPECT_OK(cuLaunchHostFunc(b.stream, count_call, &calls));
    CUgraphExec exec = finish(&b);
    EXPECT_OK(cuGraphLaunch(exec, b.stream));
    EXPECT_OK(cuGraphLaunch(exec, b.stream)); /* nobody has waited yet */
    EXPECT_RESULT(CUDA_ERROR_ILLEGAL_ADDRESS, cuStreamSynchronize(b.stream));
    EXPECT_RESULT(CUDA_ERROR_ILLEGAL_ADDRESS, cuGraphLaunch(exec, b.stream));
    cr_expect_eq(calls, 0);

    const char *(*last_report)(void) = NULL;
    void *address = dlsym(RTLD_DEFAULT, "cuEmulatorLastReport");
    memcpy(&last_report, &address, sizeof last_report);
    cr_expect(strstr(last_report(), "store_at"), "%s", last_report());
    EXPECT_OK(cuCtxDestroy(b.context));
}

/* ---- fork and join -------------------------------------------------------------------------- */

typedef struct fork {
    CUstream side;
    CUevent forked, joined;
} fork;

static fork open_fork(void)
{
    fork f;
    EXPECT_OK(cuStreamCreate(&f.side, CU_STREAM_NON_BLOCKING));
    EXPECT_OK(cuEventCreate(&f.forked, CU_EVENT_DISABLE_TIMING));
    EXPECT_OK(cuEventCreate(&f.joined, CU_EVENT_DISABLE_TIMING));
    return f;
}

Test(graphs, take_the_work_of_streams_that_are_forked_and_joined)
{
    bench b = open_bench();
    fork f = open_fork();
    CUstreamCaptureStatus status;
    EXPECT_OK(cuMemsetD32(b.in, 1, COUNT));
    begin(&b);
    launch_add(&b, b.out, b.in, 10, b.stream);
    EXPECT_OK(cuEventRecord(f.forked, b.stream));
    EXPECT_OK(cuStreamWaitEvent(f.side, f.forked, 0));
    EXPECT_OK(cuStreamIsCapturing(f.side, &status));
    cr_expect_eq(status, CU_STREAM_CAPTURE_STATUS_ACTIVE);
    launch_add(&b, b.in, b.out, 100, f.side);
    EXPECT_OK(cuEventRecord(f.joined, f.side));
    EXPECT_OK(cuStreamWaitEvent(b.stream, f.joined, 0));
    launch_add(&b, b.out, b.in, 1000, b.stream);
    CUgraphExec exec = finish(&b);
    EXPECT_OK(cuStreamIsCapturing(f.side, &status));
    cr_expect_eq(status, CU_STREAM_CAPTURE_STATUS_NONE);
    run(exec, b.stream);
    cr_expect_eq(word_at(b.out), 1111);
    launch_add(&b, b.out, b.in, 0, f.side); /* runs at once again */
    cr_expect_eq(word_at(b.out), 111);
    EXPECT_OK(cuCtxDestroy(b.context));
}

Test(graphs, need_every_fork_to_be_joined)
{
    bench b = open_bench();
    fork f = open_fork();
    CUgraph graph = (CUgraph)1;
    CUstreamCaptureStatus status;
    begin(&b);
    EXPECT_OK(cuEventRecord(f.forked, b.stream));
    EXPECT_OK(cuStreamWaitEvent(f.side, f.forked, 0));
    EXPECT_OK(launch_store(b.store_at, b.out, f.side));
    EXPECT_OK(cuEventRecord(f.joined, f.side));
    EXPECT_OK(cuStreamWaitEvent(b.stream, f.joined, 0));
    EXPECT_OK(launch_store(b.store_at, b.out, f.side)); /* behind the join */
    EXPECT_RESULT(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, cuStreamEndCapture(b.stream, &graph));
    cr_expect_null(graph);
    EXPECT_OK(cuStreamIsCapturing(f.side, &status));
    cr_expect_eq(status, CU_STREAM_CAPTURE_STATUS_NONE);
    EXPECT_RESULT(CUDA_ERROR_ILLEGAL_STATE, cuStreamEndCapture(b.stream, &graph));

    begin(&b); /* a fork without work has nothing to join */
    EXPECT_OK(cuEventRecord(f.forked, b.stream));
    EXPECT_OK(cuStreamWaitEvent(f.side, f.forked, 0));
    EXPECT_OK(cuStreamEndCapture(b.stream, &graph));
    EXPECT_OK(cuCtxDestroy(b.context));
}

Test(graphs, record_external_events_when_they_are_launched)
{
    bench b = open_bench();
    CUevent event;
    EXPECT_OK(cuEventCreate(&event, CU_EVENT_DEFAULT));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE,
                  cuEventRecordWithFlags(event, b.stream, CU_EVENT_RECORD_EXTERNAL));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE,
                  cuStreamWaitEvent(b.stream, event, CU_EVENT_WAIT_EXTERNAL));
    begin(&b);
    EXPECT_OK(cuStreamWaitEvent(b.stream, event, CU_EVENT_WAIT_EXTERNAL));
    EXPECT_OK(cuEventRecordWithFlags(event, b.stream, CU_EVENT_RECORD_EXTERNAL));
    CUgraphExec exec = finish(&b);
    float ms = -1;
    EXPECT_RESULT(CUDA_ERROR_INVALID_HANDLE, cuEventElapsedTime(&ms, event, event));
    run(exec, b.stream);
    EXPECT_OK(cuEventElapsedTime(&ms, event, event));
    cr_expect_eq(ms, 0);
    EXPECT_OK(cuEventDestroy(event));
    EXPECT_RESULT(CUDA_ERROR_INVALID_HANDLE, cuGraphLaunch(exec, b.stream));
    EXPECT_OK(cuCtxDestroy(b.context));
}

/* ---- handles -------------------------------------------------------------------------------- */

Test(graphs, list_their_nodes_and_end_with_them)
{
    bench b = open_bench();
    CUgraph graph;
    CUgraphExec exec;
    CUgraphNode nodes[5] = {NULL};
    size_t count = 0;
    int calls = 0;
    static const CUgraphNodeType types[] = {CU_GRAPH_NODE_TYPE_MEMSET, CU_GRAPH_NODE_TYPE_KERNEL,
                                            CU_GRAPH_NODE_TYPE_MEMCPY, CU_GRAPH_NODE_TYPE_HOST};
    begin(&b);
    EXPECT_OK(cuMemsetD32Async(b.in, 1, COUNT, b.stream));
    EXPECT_OK(launch_store(b.store_at, b.out, b.stream));
    EXPECT_OK(cuMemcpyDtoDAsync(b.in, b.out, 4, b.stream));
    EXPECT_OK(cuLaunchHostFunc(b.stream, count_call, &calls));
    EXPECT_OK(cuStreamEndCapture(b.stream, &graph));
    EXPECT_OK(cuGraphGetNodes(graph, NULL, &count));
    cr_expect_eq(count, 4);
    count = 5;
    EXPECT_OK(cuGraphGetNodes(graph, nodes, &count));
    cr_expect_eq(count, 4);
    cr_expect_null(nodes[4]);
    for (size_t i = 0; i < 4; i++) {
        CUgraphNodeType type = CU_GRAPH_NODE_TYPE_EMPTY;
        EXPECT_OK(cuGraphNodeGetType(nodes[i], &type));
        cr_expect_eq(type, types[i]);
    }
    EXPECT_OK(cuGraphInstantiate(&exec, graph, 0));
    EXPECT_OK(cuGraphDestroy(graph));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuGraphDestroy(graph));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuGraphGetNodes(graph, NULL, &count));
    CUgraphNodeType type;
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuGraphNodeGetType(nodes[0], &type));
    CUgraphExec second;
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuGraphInstantiate(&second, graph, 0));
    run(exec, b.stream);
    cr_expect_eq(calls, 1);
    EXPECT_OK(cuGraphExecDestroy(exec));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuGraphExecDestroy(exec));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuGraphLaunch(exec, b.stream));
    EXPECT_OK(cuCtxDestroy(b.context));
}

Test(graphs, are_instantiated_with_the_flags_that_mean_something_here)
{
    bench b = open_bench();
    CUgraph graph;
    CUgraphExec exec;
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuGraphCreate(&graph, 1));
    EXPECT_OK(cuGraphCreate(&graph, 0));
    EXPECT_OK(cuGraphInstantiate(&exec, graph, CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH));
    run(exec, b.stream); /* an empty graph */
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuGraphInstantiate(&exec, graph, 64));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE,
                  cuGraphInstantiate(&exec, graph, CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD));
    EXPECT_RESULT(CUDA_ERROR_NOT_SUPPORTED,
                  cuGraphInstantiate(&exec, graph, CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH));
    CUDA_GRAPH_INSTANTIATE_PARAMS params = {.flags = CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD,
                                            .hUploadStream = b.stream};
    EXPECT_OK(cuGraphInstantiateWithParams(&exec, graph, &params));
    cr_expect_eq(params.result_out, CUDA_GRAPH_INSTANTIATE_SUCCESS);
    EXPECT_OK(cuGraphUpload(exec, NULL));
    params.flags = 64;
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuGraphInstantiateWithParams(&exec, graph, &params));
    cr_expect_eq(params.result_out, CUDA_GRAPH_INSTANTIATE_ERROR);
    EXPECT_OK(cuCtxDestroy(b.context));
}

Test(graphs, belong_to_their_context_and_go_with_it)
{
    bench b = open_bench();
    begin(&b);
    EXPECT_OK(launch_store(b.store_at, b.out, b.stream));
    CUgraph graph;
    CUgraphExec exec;
    EXPECT_OK(cuStreamEndCapture(b.stream, &graph));
    EXPECT_OK(cuGraphInstantiate(&exec, graph, 0));
    CUcontext second;
    EXPECT_OK(cuCtxCreate(&second, NULL, 0, 0));
    EXPECT_RESULT(CUDA_ERROR_INVALID_CONTEXT, cuGraphLaunch(exec, NULL));
    EXPECT_OK(cuCtxDestroy(b.context));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuGraphDestroy(graph));
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuGraphExecDestroy(exec));
    EXPECT_OK(cuCtxDestroy(second));
}
