// ptx_mbarrier.cuh: inline PTX of barriers in shared memory that threads and bulk copies arrive at (PTX ISA
// 9.0, section 9.7.13.15), of the block's named barriers (9.7.13.1) and of the fences between the ways to
// memory (9.7.13.4). Addresses are 32-bit shared addresses.

__device__ __forceinline__ void mbarrier_init(unsigned barrier, unsigned arrivals)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" : : "r"(barrier), "r"(arrivals) : "memory");
}

// Makes initialised barriers visible to the async proxy and to the other blocks of the cluster.
__device__ __forceinline__ void fence_mbarrier_init()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}

__device__ __forceinline__ void mbarrier_arrive(unsigned barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" : : "r"(barrier) : "memory");
}

// One arrival, and `bytes` of bulk copies that the phase waits for besides.
__device__ __forceinline__ void mbarrier_arrive_expect(unsigned barrier, unsigned bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" : : "r"(barrier), "r"(bytes) : "memory");
}

// Until the phase of that parity is over; the phase before the first has parity 1.
__device__ __forceinline__ void mbarrier_wait(unsigned barrier, unsigned parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}"
                 :
                 : "r"(barrier), "r"(parity)
                 : "memory");
}

// Whole warps; barrier 0 is __syncthreads.
__device__ __forceinline__ void named_barrier_sync(unsigned barrier, unsigned threads)
{
    asm volatile("bar.sync %0, %1;" : : "r"(barrier), "r"(threads) : "memory");
}

// What this thread wrote to shared memory may be read by bulk copies and wgmma that follow.
__device__ __forceinline__ void fence_proxy_async()
{
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
