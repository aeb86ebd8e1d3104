// ptx_tensor.cuh: inline PTX of bulk copies of boxes of a tensor (PTX ISA 9.0, sections 9.7.9.25.5 and 9.7.9.25.3).
// One thread issues them. Coordinates are elements, innermost first; what lies outside the tensor is loaded as
// zeros and not stored.

// What cuTensorMapEncodeTiled has filled.
struct __align__(64) TensorMap {
    unsigned char opaque[128];
};

__device__ __forceinline__ void tensor_prefetch_map(const TensorMap &map)
{
    asm volatile("prefetch.tensormap [%0];" : : "l"(&map) : "memory");
}

// The box arrives at `barrier` with all of its bytes.
__device__ __forceinline__ void tensor_load_2d(unsigned destination, const TensorMap &map, unsigned barrier, int x, int y)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
                 :
                 : "r"(destination), "l"(&map), "r"(barrier), "r"(x), "r"(y)
                 : "memory");
}

__device__ __forceinline__ void tensor_load_3d(unsigned destination, const TensorMap &map, unsigned barrier, int x, int y, int z)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];"
                 :
                 : "r"(destination), "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z)
                 : "memory");
}

__device__ __forceinline__ void tensor_store_2d(const TensorMap &map, int x, int y, unsigned source)
{
    asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%0, {%2, %3}], [%1];"
                 :
                 : "l"(&map), "r"(source), "r"(x), "r"(y)
                 : "memory");
}

// Adds to what is there.
__device__ __forceinline__ void tensor_add_2d(const TensorMap &map, int x, int y, unsigned source)
{
    asm volatile("cp.reduce.async.bulk.tensor.2d.global.shared::cta.add.tile.bulk_group [%0, {%2, %3}], [%1];"
                 :
                 : "l"(&map), "r"(source), "r"(x), "r"(y)
                 : "memory");
}

__device__ __forceinline__ void bulk_commit()
{
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
}

// Until at most `pending` of this thread's newest groups still read shared memory.
template <int pending>
__device__ __forceinline__ void bulk_wait_read()
{
    asm volatile("cp.async.bulk.wait_group.read %0;" : : "n"(pending) : "memory");
}

// Until this thread's groups are done, writes included.
__device__ __forceinline__ void bulk_wait()
{
    asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}
