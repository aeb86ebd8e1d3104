// persistent_tiles.cuh: which tiles a block computes. ${kernel.cluster > 1 and "Clusters of blocks take" or "Blocks take"} one after the other from an order that goes down groups of
// group_m tiles of rows, so that blocks that run together share rows and columns of the operands.
//% if kernel.cluster > 1 then
// The blocks of a cluster have tiles below each other, with the same columns; the last may have none of the rows.
//% end

constexpr int cluster = ${kernel.cluster}; // blocks

struct Tile {
    int first_row, first_column;
};

struct TileOrder {
    static constexpr unsigned tiles_n = (columns + tile_columns - 1) / tile_columns;
    static constexpr unsigned group_rows = group_m / cluster;
    unsigned tiles_m; // of clusters

    __device__ __forceinline__ explicit TileOrder(long long rows)
        : tiles_m((unsigned)((rows + tile_m * cluster - 1) / (tile_m * cluster)))
    {
    }

    __device__ __forceinline__ unsigned count() const
    {
        return tiles_m * tiles_n;
    }

    __device__ __forceinline__ Tile at(unsigned index, unsigned rank) const
    {
        const unsigned group = index / (group_rows * tiles_n);
        const unsigned in_group = index % (group_rows * tiles_n);
        const unsigned height = min(tiles_m - group * group_rows, group_rows);
        const unsigned row = group * group_rows + in_group % height;
        return {(int)((row * cluster + rank) * tile_m), (int)(in_group / height) * tile_columns};
    }
};
