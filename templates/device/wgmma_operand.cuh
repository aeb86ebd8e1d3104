// wgmma_operand.cuh: ${operand.struct} brings tiles of ${operand.name} to shared memory and describes them to wgmma. Both
// ways of lying in memory end in rows of 128 bytes whose 16-byte chunks are exchanged by the row (swizzle of 128
// bytes, PTX ISA 9.0, section 5.5.7), so a stage begins on 1024 bytes.
//% local is_a = operand.struct == "OperandA"
//% local halves = not is_a and kernel.halves == 2
struct ${operand.struct} {
    static constexpr int bytes = ${operand.tile} * tile_k * 2; // of a stage
//% if operand.k_major then
    // ${operand.name} [${operand.rows_text}, ${operand.stride}] is contiguous along the reduction: a row of the tile is a row of 128
    // bytes, eight rows are 1024 bytes, and the next 16 elements of the reduction lie 32 bytes further.
    static constexpr int k_step_bytes = 32;
    static constexpr unsigned leading_bytes = 16; // not read in this layout
//% else
    // ${operand.name} [${operand.rows_text}, ${operand.stride}] is contiguous across the reduction: the tile is panels of 64 columns,
    // in each one row of 128 bytes for every step of the reduction.
    static constexpr int panel_bytes = tile_k * 128;
    static constexpr int k_step_bytes = 16 * 128;
    static constexpr unsigned leading_bytes = panel_bytes; // from a panel to the next
//% end

//% local shared_by = is_a and 1 or kernel.cluster -- blocks that have the same rows of it
//% local call = shared_by > 1 and "tensor_multicast" or "tensor_load"
//% local last = shared_by > 1 and ", (1 << cluster) - 1" or ""
    // Starts the copies of one k tile; first: ${operand.k_major and "row" or "column"} of the tile's first element${halves and " in either half" or ""}.
//% if shared_by > 1 then
    // Each block of the cluster brings its part to all of them.
//% end
    static __device__ __forceinline__ void load(unsigned destination, const TensorMap &map, unsigned barrier, int first, int k_tile${shared_by > 1 and ", unsigned rank" or ""})
    {
        const int k = k_tile * tile_k;
//% if operand.k_major then
//%     local parts = is_a and 1 or 2
//%     for part = 0, parts // shared_by - 1 do
//%         local which = shared_by > 1 and "rank" or part
//%         local to = parts == 1 and "destination" or ("destination + " .. which .. " * (bytes / 2)")
//%         if halves then
        // ${shared_by > 1 and "Gate rows, or the up rows of the same outputs." or (part == 0 and "Gate rows," or "then the up rows of the same outputs.")}
        ${call}_3d(${to}, map, barrier, k, first, ${which}${last});
//%         else
        ${call}_2d(${to}, map, barrier, k, first${parts == 1 and "" or " + " .. which .. " * (tile_n / 2)"}${last});
//%         end
//%     end
//% else
#pragma unroll
        for (int i = 0; i < ${operand.tile} / 64${shared_by > 1 and " / cluster" or ""}; ++i) {
            const int panel = ${shared_by > 1 and "rank * (" .. operand.tile .. " / 64 / cluster) + i" or "i"};
            ${call}_2d(destination + panel * panel_bytes, map, barrier, first + 64 * panel, k${last});
        }
//% end
    }
};
