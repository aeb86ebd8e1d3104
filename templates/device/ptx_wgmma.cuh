// ptx_wgmma.cuh: inline PTX of matrix products by a warpgroup, the four warps of 128 threads together (PTX ISA
// 9.0, section 9.7.15).
//% local d = kernel.accumulators -- of a thread
//% local type = storage == "bf16" and "bf16" or "f16"

// Registers that wgmma will read or write have been written by other instructions.
__device__ __forceinline__ void wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

__device__ __forceinline__ void wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

// Until at most `pending` of the newest groups are unfinished.
template <int pending>
__device__ __forceinline__ void wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" : : "n"(pending) : "memory");
}

// d += a b, or with adds == 0 d = a b: m64n${2 * d}k16. a, b: descriptors of tiles in shared memory.
__device__ __forceinline__ void wgmma(float (&d)[${d}], unsigned long long a, unsigned long long b, int adds)
{
    asm volatile("{\n"
                 ".reg .pred adds;\n"
                 "setp.ne.b32 adds, %${d + 2}, 0;\n"
                 "wgmma.mma_async.sync.aligned.m64n${2 * d}k16.f32.${type}.${type} {"
//% for i = 0, d - 1, 8 do
                 "${i > 0 and ", " or ""}%${i}, %${i + 1}, %${i + 2}, %${i + 3}, %${i + 4}, %${i + 5}, %${i + 6}, %${i + 7}"
//% end
                 "}, %${d}, %${d + 1}, adds, 1, 1, ${kernel.a.k_major and 0 or 1}, ${kernel.b.k_major and 0 or 1};\n"
                 "}"
                 :
//% for i = 0, d - 1, 4 do
                 "+f"(d[${i}]), "+f"(d[${i + 1}]), "+f"(d[${i + 2}]), "+f"(d[${i + 3}])${i + 4 < d and "," or ""}
//% end
                 : "l"(a), "l"(b), "r"(adds));
}

// All products of this warpgroup are done: from here on d may be touched.
__device__ __forceinline__ void wgmma_wait_all(float (&d)[${d}])
{
    asm volatile("wgmma.wait_group.sync.aligned 0;"
                 :
//% for i = 0, d - 1, 4 do
                 "+f"(d[${i}]), "+f"(d[${i + 1}]), "+f"(d[${i + 2}]), "+f"(d[${i + 3}])${i + 4 < d and "," or ""}
//% end
                 :
                 : "memory");
}

// 9.7.19.5 setmaxnreg: all warps of the warpgroup, once.
template <int registers>
__device__ __forceinline__ void release_registers()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" : : "n"(registers));
}

template <int registers>
__device__ __forceinline__ void acquire_registers()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" : : "n"(registers));
}
