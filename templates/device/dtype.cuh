// dtype.cuh: the storage type, and four of its elements, or of fp32's, at a time.

//% if storage ~= "float" then
struct ${storage} {
    unsigned short bits;
};

__device__ __forceinline__ void unpack4(float (&values)[4], uint2 pairs)
{
    values[0] = ${storage}_to_fp32((unsigned short)pairs.x);
    values[1] = ${storage}_to_fp32((unsigned short)(pairs.x >> 16));
    values[2] = ${storage}_to_fp32((unsigned short)pairs.y);
    values[3] = ${storage}_to_fp32((unsigned short)(pairs.y >> 16));
}

// source: 8-byte aligned, in global memory, not written by this kernel.
__device__ __forceinline__ void load4(float (&values)[4], const ${storage} *source)
{
    unpack4(values, global_load_8(source));
}

// source: 8-byte aligned, in global memory.
__device__ __forceinline__ void load4_mutable(float (&values)[4], const ${storage} *source)
{
    unpack4(values, global_load_8_mutable(source));
}

// destination: 8-byte aligned, in global memory. Rounds to nearest, ties to even.
__device__ __forceinline__ void store4(${storage} *destination, const float (&values)[4])
{
    global_store_8(destination, fp32_to_${storage}x2(values[0], values[1]),
                   fp32_to_${storage}x2(values[2], values[3]));
}

//% if kernel.accumulators then
// One of the two in a word.
__device__ __forceinline__ float unpack(unsigned pair, int which)
{
    return ${storage}_to_fp32((unsigned short)(which == 0 ? pair : pair >> 16));
}

// source: 4-byte aligned, in global memory, not written by this kernel.
__device__ __forceinline__ void load2(float (&values)[2], const ${storage} *source)
{
    const unsigned pair = global_load_4(source);
    values[0] = unpack(pair, 0);
    values[1] = unpack(pair, 1);
}

//% end
// The value as the storage type holds it.
__device__ __forceinline__ float as_stored(float value)
{
    return ${storage}_to_fp32(fp32_to_${storage}(value));
}

//% else
__device__ __forceinline__ float as_stored(float value)
{
    return value;
}

//% end
// source: 16-byte aligned, anywhere.
__device__ __forceinline__ void load4(float (&values)[4], const float *source)
{
    const float4 four = *reinterpret_cast<const float4 *>(source);
    values[0] = four.x;
    values[1] = four.y;
    values[2] = four.z;
    values[3] = four.w;
}

__device__ __forceinline__ void load4_mutable(float (&values)[4], const float *source)
{
    load4(values, source);
}

// destination: 16-byte aligned, anywhere.
__device__ __forceinline__ void store4(float *destination, const float (&values)[4])
{
    *reinterpret_cast<float4 *>(destination) = make_float4(values[0], values[1], values[2], values[3]);
}
