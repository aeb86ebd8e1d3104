// gemm_sizes.cuh: the sizes of ${kernel.entry}, and of one block's tile.

//% if kernel.k == nil then
constexpr int m = ${kernel.m};
//% else
constexpr int reduction = ${kernel.k}; // length of each dot product
//% end
constexpr int columns = ${kernel.columns}; // of the output
constexpr int tile_m = ${kernel.tile_m}; // rows of a block
constexpr int tile_n = ${kernel.tile_n}; // accumulator columns of a block
//% if kernel.halves == 2 then
constexpr int tile_columns = tile_n / 2; // outputs of a block: half its accumulators are gates, half ups
//% else
constexpr int tile_columns = tile_n;
//% end
constexpr int tile_k = ${kernel.tile_k};
constexpr int stages = ${kernel.stages};
constexpr int threads = ${kernel.threads};
constexpr int group_m = ${kernel.group_m}; // tiles along the rows that share columns while they are in L2
constexpr int shared_bytes = ${kernel.shared_bytes};
