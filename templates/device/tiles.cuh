// tiles.cuh: where a block's tile lies. Tiles are numbered down groups of group_m tiles of rows, so that
// blocks that run together share rows and columns of the operands.

struct Tile {
    long long first_row;
    int first_column;
};

__device__ __forceinline__ Tile tile_of_block(long long rows)
{
    constexpr unsigned tiles_n = (columns + tile_columns - 1) / tile_columns;
    const unsigned tiles_m = (unsigned)((rows + tile_m - 1) / tile_m);
    const unsigned group = blockIdx.x / (group_m * tiles_n);
    const unsigned in_group = blockIdx.x % (group_m * tiles_n);
    const unsigned group_rows = min(tiles_m - group * group_m, (unsigned)group_m);
    return {(long long)(group * group_m + in_group % group_rows) * tile_m,
            (int)(in_group / group_rows) * tile_columns};
}
