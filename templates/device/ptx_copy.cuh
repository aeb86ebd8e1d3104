// ptx_copy.cuh: inline PTX for moving data. Inline PTX stands in the ptx_*.cuh files alone, one thin function
// an instruction; section numbers are those of the PTX ISA 9.0 document.

__device__ __forceinline__ unsigned shared_address(const void *pointer)
{
    return (unsigned)__cvta_generic_to_shared(pointer);
}

// 9.7.9.25.3 cp.async: copies 16 bytes to shared memory past L1; the bytes from source_bytes on (0 or 16)
// are written as zeros and not read.
__device__ __forceinline__ void cp_async_16(unsigned destination, const void *source,
                                            int source_bytes)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
                 :
                 : "r"(destination), "l"(__cvta_generic_to_global(source)), "r"(source_bytes)
                 : "memory");
}

__device__ __forceinline__ void cp_async_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most `pending` of this thread's newest groups are unfinished.
template <int pending>
__device__ __forceinline__ void cp_async_wait()
{
    asm volatile("cp.async.wait_group %0;" : : "n"(pending) : "memory");
}

// 9.7.9.8 ld, read-only data: 8 bytes from an 8-byte aligned address.
__device__ __forceinline__ uint2 global_load_8(const void *source)
{
    uint2 words;
    asm("ld.global.nc.v2.b32 {%0, %1}, [%2];"
        : "=r"(words.x), "=r"(words.y)
        : "l"(__cvta_generic_to_global(source)));
    return words;
}

// 9.7.9.8 ld: 8 bytes from an 8-byte aligned address that this kernel may write.
__device__ __forceinline__ uint2 global_load_8_mutable(const void *source)
{
    uint2 words;
    asm volatile("ld.global.v2.b32 {%0, %1}, [%2];"
                 : "=r"(words.x), "=r"(words.y)
                 : "l"(__cvta_generic_to_global(source))
                 : "memory");
    return words;
}

// 9.7.9.11 st: 8 bytes to an 8-byte aligned address.
__device__ __forceinline__ void global_store_8(void *destination, unsigned low, unsigned high)
{
    asm volatile("st.global.v2.b32 [%0], {%1, %2};"
                 :
                 : "l"(__cvta_generic_to_global(destination)), "r"(low), "r"(high)
                 : "memory");
}
//% if kernel.accumulators then

// 9.7.9.8 ld, read-only data: 4 bytes from a 4-byte aligned address.
__device__ __forceinline__ unsigned global_load_4(const void *source)
{
    unsigned word;
    asm("ld.global.nc.b32 %0, [%1];" : "=r"(word) : "l"(__cvta_generic_to_global(source)));
    return word;
}

// Shared memory, 8 and 4 bytes.
__device__ __forceinline__ void shared_store_8(unsigned destination, float low, float high)
{
    asm volatile("st.shared.v2.f32 [%0], {%1, %2};" : : "r"(destination), "f"(low), "f"(high) : "memory");
}

__device__ __forceinline__ float shared_load_4(unsigned source)
{
    float value;
    asm volatile("ld.shared.f32 %0, [%1];" : "=f"(value) : "r"(source) : "memory");
    return value;
}
//% end
