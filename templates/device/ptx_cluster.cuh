// ptx_cluster.cuh: inline PTX of what the blocks of a cluster do together (PTX ISA 9.0).

// 9.7.13.3: all threads of all blocks; what they wrote before is seen by all after. Not .aligned: lanes of a warp may
// come one after the other.
__device__ __forceinline__ void cluster_sync()
{
    asm volatile("barrier.cluster.arrive.release;\n"
                 "barrier.cluster.wait.acquire;" ::
                     : "memory");
}

__device__ __forceinline__ unsigned cluster_rank()
{
    unsigned rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

// 9.7.9.23 mapa, 9.7.13.15.13 mbarrier.arrive: at the barrier that lies at the same address of that block. Relaxed: it says
// that wgmma has read a stage, which wgmma.wait_group has waited for, and hands no memory over. A release at the scope of the
// cluster is a fence of the whole GPU: half of a kernel's time.
__device__ __forceinline__ void mbarrier_arrive_at(unsigned barrier, unsigned rank)
{
    asm volatile("{\n"
                 ".reg .b32 remote;\n"
                 "mapa.shared::cluster.u32 remote, %0, %1;\n"
                 "mbarrier.arrive.relaxed.cluster.shared::cluster.b64 _, [remote];\n"
                 "}"
                 :
                 : "r"(barrier), "r"(rank)
                 : "memory");
}

// mbarrier_wait for mbarrier_arrive_at: the stage may be written over, nothing of it is read.
__device__ __forceinline__ void mbarrier_wait_for_cluster(unsigned barrier, unsigned parity)
{
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.relaxed.cluster.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}"
                 :
                 : "r"(barrier), "r"(parity)
                 : "memory");
}

// The box goes to the same address of every block of `blocks` (a bit each), and arrives at its barrier there.
__device__ __forceinline__ void tensor_multicast_2d(unsigned destination, const TensorMap &map, unsigned barrier, int x, int y,
                                                    unsigned short blocks)
{
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1, {%3, %4}], [%2], %5;"
                 :
                 : "r"(destination), "l"(&map), "r"(barrier), "r"(x), "r"(y), "h"(blocks)
                 : "memory");
}

__device__ __forceinline__ void tensor_multicast_3d(unsigned destination, const TensorMap &map, unsigned barrier, int x, int y,
                                                    int z, unsigned short blocks)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster "
                 "[%0], [%1, {%3, %4, %5}], [%2], %6;"
                 :
                 : "r"(destination), "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z), "h"(blocks)
                 : "memory");
}
