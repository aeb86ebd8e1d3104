// visit_rows.cuh: the epilogue of ${kernel.step}. A main loop stages rows of fp32 accumulators in shared
// memory and calls Epilogue::visit for each of them; every thread keeps the same four columns throughout,
// so that per-column inputs are read once.
//% local e = kernel.epilogue

//% if kernel.halves == 2 then
// The tile's first half of accumulator columns are gate columns, its second half the up columns of the
// same outputs.
//% end
struct Epilogue {
//% for _, p in ipairs(epilogue_parameters) do
    ${p.declaration};
//% end
    int column;         // of this thread's first output, within the whole
    int staged_column;  // the same within the tile
    bool inside;        // the columns exist
//% for _, c in ipairs(e.column_inputs) do
    float ${c.name}[4];
//% end

    __device__ __forceinline__ void begin(int first_column)
    {
        staged_column = 4 * (threadIdx.x % vectors_per_row);
        column = first_column + staged_column;
//% if kernel.columns % (kernel.tile_n // kernel.halves) == 0 then
        inside = true;
//% else
        inside = column < columns;
//% end
//% if #e.column_inputs > 0 then
        if (inside) {
//% for _, c in ipairs(e.column_inputs) do
            load4(${c.name}, ${c.pointer} + ${c.column_offset > 0 and c.column_offset .. " + column" or "column"});
//% end
        }
//% end
    }

    // staged: the row's tile_n accumulators; token: the row of the output.
    __device__ __forceinline__ void visit(const float *staged, long long token) const
    {
//% for half, name in ipairs(kernel.acc_names) do
        float ${name}_accumulator[4];
        load4(${name}_accumulator, staged + ${half == 1 and "staged_column" or "tile_columns + staged_column"});
//% end
//% if e.raw_store then
        if (${e.raw_store.pointer} != nullptr) {
//% for half, name in ipairs(kernel.acc_names) do
            store4(${e.raw_store.pointer} + token * ${kernel.n} + ${half == 1 and "column" or kernel.columns .. " + column"}, ${name}_accumulator);
//% end
        }
//% end
//% for _, r in ipairs(e.row_inputs) do
        const float ${r.name} = ${r.pointer}[token];
//% end
//% for _, r in ipairs(e.results) do
        float ${r.name}_values[4];
//% end
#pragma unroll
        for (int i = 0; i < 4; ++i) {
//% for _, name in ipairs(kernel.acc_names) do
            const float ${name} = ${name}_accumulator[i];
//% end
//% for _, c in ipairs(e.column_inputs) do
            const float ${c.name} = this->${c.name}[i];
//% end
            ${e.statements}
//% for _, r in ipairs(e.results) do
            ${r.name}_values[i] = ${r.value};
//% end
        }
//% for _, r in ipairs(e.results) do
        store4(${r.pointer} + token * columns + column, ${r.name}_values);
//% end
    }
};
