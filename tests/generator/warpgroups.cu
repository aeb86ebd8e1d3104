// warpgroups.cu: kernels with warpgroup instructions, for cubins.c, which defines HAS_ and the name of each that
// it wants.

// A product that reads and writes d. rest: what follows scale-d.
#define WGMMA(type, d, constraint, sources, rest)                                                                       \
    asm volatile("{ .reg .pred p; setp.ne.b32 p, %5, 0;\n"                                                             \
                 "wgmma.mma_async.sync.aligned." type " {%0, %1, %2, %3}, " sources ", p" rest "; }"                    \
                 : constraint(d[0]), constraint(d[1]), constraint(d[2]), constraint(d[3])                               \
                 : "l"(tile), "r"(n))
#define BEGIN(out, tile, n)                                                                                             \
    float f[4] = {out[0], out[1], out[2], out[3]};                                                                      \
    int r[4] = {n, n + 1, n + 2, n + 3};                                                                                \
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory")
#define END(out)                                                                                                        \
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");                                                      \
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");                                                      \
    for (int i = 0; i < 4; i++)                                                                                         \
    out[4 * threadIdx.x + i] = f[i] + r[i]
#define PARAMETERS float *out, unsigned long long tile, int n

#ifdef HAS_every_type
extern "C" __global__ void __launch_bounds__(128, 1) every_type(PARAMETERS)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
    BEGIN(out, tile, n);
    WGMMA("m64n8k16.f32.bf16.bf16", f, "+f", "%4, %4", ", 1, 1, 0, 0");
    WGMMA("m64n8k16.f32.f16.f16", f, "+f", "{%5, %5, %5, %5}, %4", ", 1, 1, 0");
    WGMMA("m64n8k8.f32.tf32.tf32", f, "+f", "%4, %4", ", 1, 1");
    WGMMA("m64n8k32.f32.e4m3.e5m2", f, "+f", "%4, %4", ", 1, 1");
    WGMMA("m64n8k32.s32.s8.u8", r, "+r", "%4, %4", "");
    WGMMA("m64n8k256.s32.b1.b1.and.popc", r, "+r", "%4, %4", "");
    END(out);
}
#endif

#ifdef HAS_none
extern "C" __global__ void none(PARAMETERS)
{
    out[threadIdx.x] = tile * n;
}
#endif

// Nothing says how many registers a thread has at its start: ptxas leaves setmaxnreg out.
#ifdef HAS_unbounded
extern "C" __global__ void unbounded(PARAMETERS)
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 56;");
    BEGIN(out, tile, n);
    WGMMA("m64n8k16.f32.bf16.bf16", f, "+f", "%4, %4", ", 1, 1, 0, 0");
    END(out);
}
#endif

// The second product writes over what the first has left: ptxas leaves that one out.
#ifdef HAS_overwritten
extern "C" __global__ void __launch_bounds__(128, 1) overwritten(PARAMETERS)
{
    BEGIN(out, tile, 0);
    WGMMA("m64n8k16.f32.bf16.bf16", f, "+f", "%4, %4", ", 1, 1, 0, 0");
    n = 0;
    WGMMA("m64n8k16.f32.bf16.bf16", f, "+f", "%4, %4", ", 1, 1, 0, 0");
    END(out);
}
#endif
