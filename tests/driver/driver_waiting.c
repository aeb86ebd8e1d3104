/* Streams that wait: work that waits for others runs beside its caller, and what follows after it.
 */
#include <pthread.h>
#include <string.h>

#include "driver/cu_emulator.h"
#include "fixture.h"
#include "gate.h"

static void *open_first_gate(void *unused)
{
    open_gates(1);
    return unused;
}

static CUstream make_stream(unsigned flags)
{
    CUstream stream;
    EXPECT_OK(cuStreamCreate(&stream, flags));
    return stream;
}

static CUdeviceptr make_word(void)
{
    CUdeviceptr word;
    EXPECT_OK(cuMemAlloc(&word, 4));
    EXPECT_OK(cuMemsetD32(word, 1, 1));
    return word;
}

/* What the device has now, whatever is enqueued. */
static unsigned peek(CUdeviceptr word)
{
    unsigned value;
    EXPECT_OK(cuEmulatorRead(&value, word, sizeof value));
    return value;
}

Test(waiting, the_call_and_calls_behind_it_return_and_run_in_order)
{
    open_device();
    CUstream stream = make_stream(CU_STREAM_NON_BLOCKING);
    CUdeviceptr word = make_word();
    enqueue_gate(stream, 0);
    EXPECT_OK(cuMemsetD32Async(word, 2, 1, stream));
    enqueue_gate(stream, 1);
    EXPECT_OK(cuMemsetD32Async(word, 3, 1, stream));
    EXPECT_RESULT(CUDA_ERROR_NOT_READY, cuStreamQuery(stream));
    cr_assert_eq(peek(word), 1);
    open_gates(2);
    EXPECT_OK(cuStreamSynchronize(stream));
    EXPECT_OK(cuStreamQuery(stream));
    cr_assert_eq(peek(word), 3);
    cr_assert_eq(count_passed(), 2);
}

Test(waiting, another_stream_does_not_wait_until_an_event_ties_it)
{
    open_device();
    CUstream waits = make_stream(CU_STREAM_NON_BLOCKING);
    CUstream other = make_stream(CU_STREAM_NON_BLOCKING);
    CUdeviceptr word = make_word();
    CUevent event;
    EXPECT_OK(cuEventCreate(&event, 0));
    enqueue_gate(waits, 0);
    EXPECT_OK(cuEventRecord(event, waits));
    EXPECT_RESULT(CUDA_ERROR_NOT_READY, cuEventQuery(event));
    EXPECT_OK(cuMemsetD32Async(word, 2, 1, other));
    EXPECT_OK(cuStreamSynchronize(other));
    cr_assert_eq(peek(word), 2);
    EXPECT_OK(cuStreamWaitEvent(other, event, 0));
    EXPECT_OK(cuMemsetD32Async(word, 3, 1, other));
    EXPECT_RESULT(CUDA_ERROR_NOT_READY, cuStreamQuery(other));
    cr_assert_eq(peek(word), 2);
    open_gates(1);
    EXPECT_OK(cuStreamSynchronize(other));
    EXPECT_OK(cuEventSynchronize(event));
    cr_assert_eq(peek(word), 3);
}

Test(waiting, the_default_stream_waits_for_blocking_streams_and_they_for_it)
{
    open_device();
    CUstream first = make_stream(CU_STREAM_DEFAULT), second = make_stream(CU_STREAM_DEFAULT);
    CUstream apart = make_stream(CU_STREAM_NON_BLOCKING);
    CUdeviceptr word = make_word(), free_word = make_word();
    enqueue_gate(first, 0);
    EXPECT_OK(cuMemsetD32Async(word, 2, 1, NULL));
    EXPECT_OK(cuMemsetD32Async(word, 3, 1, second));
    EXPECT_OK(cuMemsetD32Async(free_word, 2, 1, apart));
    cr_assert_eq(peek(word), 1);
    cr_assert_eq(peek(free_word), 2);
    open_gates(1);
    EXPECT_OK(cuStreamSynchronize(second));
    cr_assert_eq(peek(word), 3);
}

Test(waiting, synchronous_copies_and_frees_wait)
{
    open_device();
    CUstream stream = make_stream(CU_STREAM_DEFAULT);
    CUdeviceptr word = make_word(), freed = make_word();
    unsigned value = 0;
    enqueue_gate(stream, 0);
    EXPECT_OK(cuMemsetD32Async(word, 2, 1, stream));
    EXPECT_OK(cuMemsetD32Async(freed, 2, 1, stream));
    EXPECT_OK(cuMemFreeAsync(freed, stream));
    cr_assert_eq(peek(freed), 1);
    pthread_t opener;
    cr_assert_eq(pthread_create(&opener, NULL, open_first_gate, NULL), 0);
    EXPECT_OK(cuMemcpyDtoHAsync(&value, word, 4, stream)); /* pageable: waits */
    cr_assert_eq(value, 2);
    pthread_join(opener, NULL);
    EXPECT_OK(cuCtxSynchronize());
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuMemFree(freed));
}

Test(waiting, an_error_behind_waiting_work_is_a_fault_of_the_context)
{
    open_device();
    CUstream stream = make_stream(CU_STREAM_NON_BLOCKING);
    enqueue_gate(stream, 0);
    EXPECT_OK(cuMemsetD32Async(4096, 2, 1, stream));
    open_gates(1);
    EXPECT_RESULT(CUDA_ERROR_INVALID_VALUE, cuStreamSynchronize(stream));
    cr_assert_str_eq(cuEmulatorLastReport(), "libcuda (emulator): work behind an operation that "
                                             "waited ended with CUDA_ERROR_INVALID_VALUE");
}

Test(waiting, a_graph_replays_it_in_its_place)
{
    open_device();
    CUstream stream = make_stream(CU_STREAM_NON_BLOCKING);
    CUdeviceptr word = make_word();
    CUgraph graph;
    CUgraphExec exec;
    EXPECT_OK(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    enqueue_gate(stream, 0);
    EXPECT_OK(cuMemsetD32Async(word, 2, 1, stream));
    EXPECT_OK(cuStreamEndCapture(stream, &graph));
    EXPECT_OK(cuGraphInstantiate(&exec, graph, 0));
    EXPECT_OK(cuGraphLaunch(exec, stream));
    EXPECT_OK(cuGraphLaunch(exec, stream));
    cr_assert_eq(peek(word), 1);
    open_gates(1);
    EXPECT_OK(cuStreamSynchronize(stream));
    cr_assert_eq(peek(word), 2);
    cr_assert_eq(count_passed(), 2);
}
