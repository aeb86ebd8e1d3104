// ptx_grid.cuh: inline PTX of what grids of one stream say to each other (PTX ISA 9.0, 9.7.13.13). Both do nothing in a launch
// that is not a programmatic dependent one and has no such launch behind it.

// Until the grids before are over: what they wrote is seen after.
__device__ __forceinline__ void wait_for_previous_grid()
{
    asm volatile("griddepcontrol.wait;" ::: "memory");
}

// The next grid may begin once every block has said so or has ended.
__device__ __forceinline__ void allow_next_grid()
{
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
