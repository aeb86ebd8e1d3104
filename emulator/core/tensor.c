/*
 * tensor.c: the tensor form of cp.async.bulk (PTX ISA 5.5 and 9.7.9.25.5): a box of a tensor, tiled
 * mode. A box lies densely in shared memory, dimension 0 innermost; swizzling then exchanges the
 * 16-byte chunks within 128 bytes, by bits of the shared address itself. What lies outside the
 * tensor is loaded as zeros and not stored, but that stores and reductions write whole chunks. This
 * and what is refused as an illegal instruction are not in the ISA: an H200 does so.
 */
#include <stdlib.h>
#include <string.h>

#include "exec.h"
#include "smallfloat.h"

enum { CHUNK = 16, TARGET_ALIGN = 128 };

/* ---- rows: what has one place in all dimensions but the innermost -----------------------------
 */

typedef struct tensor_row {
    uint64_t shared;       /* of its first byte, before swizzling */
    uint64_t global;       /* of its first byte inside the tensor */
    uint32_t first, bytes; /* that are copied: whole chunks, but for the last one of a load */
    uint32_t inside;       /* of these, in the tensor */
} tensor_row;

static uint32_t row_bytes(const emu_tensor_map *m)
{
    return (uint32_t)m->box[0] * m->element_bytes;
}

static uint32_t row_count(const emu_tensor_map *m)
{
    uint32_t count = 1;
    for (int i = 1; i < m->rank; i++) {
        count *= m->box[i];
    }
    return count;
}

uint32_t tensor_bytes(const emu_tensor_map *m)
{
    return row_count(m) * row_bytes(m);
}

static tensor_row find_row(const bulk_copy *c, uint32_t number)
{
    const emu_tensor_map *m = &c->map;
    tensor_row row = {.shared = c->shared + (uint64_t)number * row_bytes(m), .global = m->address};
    bool inside = true;
    for (int i = 1; i < m->rank; i++) {
        int64_t at = (int64_t)c->at[i] + (int64_t)(number % m->box[i]) * m->steps[i];
        number /= m->box[i];
        inside &= at >= 0 && at < (int64_t)m->sizes[i];
        row.global += (uint64_t)at * m->strides[i];
    }
    int64_t begin = c->at[0] < 0 ? 0 : c->at[0], end = (int64_t)c->at[0] + m->box[0];
    end = end > (int64_t)m->sizes[0] ? (int64_t)m->sizes[0] : end;
    if (inside && begin < end) {
        row.first = (uint32_t)(begin - c->at[0]) * m->element_bytes;
        row.inside = (uint32_t)(end - begin) * m->element_bytes;
        row.bytes = c->stores ? (row.inside + CHUNK - 1) / CHUNK * CHUNK : row.inside;
        row.global += (uint64_t)begin * m->element_bytes;
    }
    return row;
}

/* Where the chunk of a dense address lies. */
static uint64_t swizzled(const emu_tensor_map *m, uint64_t address)
{
    uint64_t bits = (UINT64_C(1) << m->swizzled_bits) - 1;
    return address ^ (address >> 7 & bits) << 4;
}

/* ---- moving ---------------------------------------------------------------------------------- */

static uint64_t add_element(const emu_tensor_map *m, uint64_t a, uint64_t b)
{
    switch (m->type) {
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32:
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT32_FTZ:
    case CU_TENSOR_MAP_DATA_TYPE_TFLOAT32:
    case CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ:
        return bits_of_f32(f32_of_bits((uint32_t)a) + f32_of_bits((uint32_t)b));
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT64:
        return bits_of_f64(f64_of_bits(a) + f64_of_bits(b));
    case CU_TENSOR_MAP_DATA_TYPE_FLOAT16:
        return f32_to_f16(f16_to_f32((uint16_t)a) + f16_to_f32((uint16_t)b));
    case CU_TENSOR_MAP_DATA_TYPE_BFLOAT16:
        return f32_to_bf16(bf16_to_f32((uint16_t)a) + bf16_to_f32((uint16_t)b));
    default: /* whole numbers: the low bits are right, signed or not */
        return a + b;
    }
}

/* One element of global memory, which other blocks may add to as well. */
static void reduce_element(const emu_tensor_map *m, uint8_t *to, const uint8_t *from)
{
    uint64_t b = 0;
    memcpy(&b, from, m->element_bytes);
    if (m->element_bytes == 8) {
        uint64_t old = __atomic_load_n((uint64_t *)(void *)to, __ATOMIC_RELAXED);
        while (!__atomic_compare_exchange_n((uint64_t *)(void *)to, &old, add_element(m, old, b),
                                            true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        }
    } else if (m->element_bytes == 4) {
        uint32_t old = __atomic_load_n((uint32_t *)(void *)to, __ATOMIC_RELAXED);
        while (!__atomic_compare_exchange_n((uint32_t *)(void *)to, &old,
                                            (uint32_t)add_element(m, old, b), true,
                                            __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        }
    } else {
        uint16_t old = __atomic_load_n((uint16_t *)(void *)to, __ATOMIC_RELAXED);
        while (!__atomic_compare_exchange_n((uint16_t *)(void *)to, &old,
                                            (uint16_t)add_element(m, old, b), true,
                                            __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
        }
    }
}

static void move_chunk(exec_block *block, const bulk_copy *c, const tensor_row *row, uint32_t at)
{
    uint8_t *shared = block->shared + swizzled(&c->map, row->shared + at);
    uint8_t *global = (uint8_t *)(uintptr_t)(row->global + at - row->first);
    uint32_t end = row->first + row->bytes;
    uint32_t bytes = at < row->first || at >= end ? 0 : end - at < CHUNK ? end - at : CHUNK;
    if (bytes == CHUNK && !c->reduces) { /* most are whole */
        memcpy(c->stores ? global : shared, c->stores ? shared : global, CHUNK);
    } else if (!c->stores) {
        memset(shared, 0, CHUNK);
        memcpy(shared, global, bytes);
    } else {
        for (uint32_t i = 0; i < bytes; i += c->map.element_bytes) {
            reduce_element(&c->map, global + i, shared + i);
        }
    }
}

void tensor_move(exec_block *block, const bulk_copy *c)
{
    for (uint32_t r = 0; r < row_count(&c->map); r++) {
        tensor_row row = find_row(c, r);
        for (uint32_t at = 0; at < row.bytes; at += 64) { /* rows that come soon, most likely */
            __builtin_prefetch((const void *)(uintptr_t)(row.global + 8 * c->map.strides[1] + at));
        }
        for (uint32_t at = 0; at < row_bytes(&c->map); at += CHUNK) {
            move_chunk(block, c, &row, at);
        }
        if (c->stores && !c->reduces && row.bytes) { /* a sum is as good as what was there */
            bulk_mark_written(block->grid->memory, row.global, row.bytes);
        }
    }
}

/* ---- what is checked when it is issued --------------------------------------------------------
 */

/* The map of a generic address; false: a fault was raised. */
static bool read_map(emu_warp *w, const emu_instr *in, int lane, uint64_t address,
                     emu_tensor_map *map)
{
    const exec_grid *g = w->block->grid;
    uint64_t offset = address & (IR_WINDOW_BYTES - 1);
    const void *from = NULL;
    memory_allocation found;
    if (address % 64) {
        fault_raise_address(w, in, CUDA_ERROR_MISALIGNED_ADDRESS, 1u << lane, SPACE_GENERIC,
                            address, TENSOR_MAP_BYTES, "misaligned tensor map");
        return false;
    }
    if (address >> 48 == IR_PARAM_WINDOW >> 48) {
        from = offset + TENSOR_MAP_BYTES <= g->kernel->param_bytes ? g->params + offset : NULL;
    } else if (address >> 48 == 0 && memory_find(g->memory, address, &found) &&
               address + TENSOR_MAP_BYTES <= found.base + found.bytes) {
        from = (const void *)(uintptr_t)address;
    }
    if (!from) {
        fault_raise_address(w, in, CUDA_ERROR_ILLEGAL_ADDRESS, 1u << lane, SPACE_GENERIC, address,
                            TENSOR_MAP_BYTES, "a tensor map out of bounds");
        return false;
    }
    memcpy(map, from, sizeof *map);
    if (map->check != tensor_map_check(map)) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, 1u << lane,
                    "what lies at 0x%llx is no tensor map: cuTensorMapEncodeTiled makes them",
                    (unsigned long long)address);
        return false;
    }
    return true;
}

static const char *name_of(const emu_instr *in)
{
    return in->aux & BULK_REDUCES      ? "cp.reduce.async.bulk.tensor"
           : in->aux & BULK_PREFETCHES ? "cp.async.bulk.prefetch.tensor"
                                       : "cp.async.bulk.tensor";
}

/* What an addition of a map's type is called where there is none. */
static const char *type_without_sums(const emu_tensor_map *m)
{
    switch (m->type) {
    case CU_TENSOR_MAP_DATA_TYPE_UINT8:
        return "u8";
    case CU_TENSOR_MAP_DATA_TYPE_UINT16:
        return "u16";
    case CU_TENSOR_MAP_DATA_TYPE_INT64:
        return "s64";
    default:
        return NULL;
    }
}

static bool check_type(emu_warp *w, const emu_instr *in, const bulk_copy *c)
{
    const char *type = c->reduces ? type_without_sums(&c->map) : NULL;
    if (type) {
        fault_raise(w, in, CUDA_ERROR_ILLEGAL_INSTRUCTION, 1u << c->lane,
                    "%s of .add with a tensor map of %s: u32, s32, u64 or floats are wanted",
                    name_of(in), type);
    }
    return !type;
}

static bool check_coordinates(emu_warp *w, const emu_instr *in, const bulk_copy *c)
{
    int64_t inner = (int64_t)c->at[0] * c->map.element_bytes;
    if (inner % CHUNK) {
        fault_raise(w, in, CUDA_ERROR_ILLEGAL_INSTRUCTION, 1u << c->lane,
                    "%s at the innermost coordinate %d, byte %lld of a row: a multiple of 16 bytes "
                    "is wanted",
                    name_of(in), c->at[0], (long long)inner);
        return false;
    }
    for (int i = 0; c->stores && i < c->map.rank; i++) {
        if (c->at[i] < 0) {
            fault_raise(w, in, CUDA_ERROR_ILLEGAL_INSTRUCTION, 1u << c->lane,
                        "%s to the coordinate %d of dimension %d: of what is written, 0 or more is "
                        "wanted",
                        name_of(in), c->at[i], i);
            return false;
        }
    }
    return true;
}

bool tensor_begin(emu_warp *w, const emu_instr *in, bulk_copy *c)
{
    int rank = (int)(in->aux >> TENSOR_RANK_SHIFT & 7);
    if (!read_map(w, in, c->lane, c->global, &c->map)) {
        return false;
    }
    if (c->map.rank != rank) {
        fault_raise(w, in, CUDA_ERROR_LAUNCH_FAILED, 1u << c->lane,
                    "a copy in %d dimensions with a tensor map of %d", rank, c->map.rank);
        return false;
    }
    for (int i = 0; i < rank; i++) {
        memcpy(&c->at[i], w->registers + in->r[4 + i] + (size_t)c->lane * 4, sizeof c->at[i]);
    }
    c->bytes = tensor_bytes(&c->map);
    if (!check_type(w, in, c) || !check_coordinates(w, in, c)) {
        return false;
    }
    if (c->shared % TARGET_ALIGN) {
        fault_raise_address(w, in, CUDA_ERROR_MISALIGNED_ADDRESS, 1u << c->lane, SPACE_SHARED,
                            c->shared, TARGET_ALIGN, "misaligned");
        return false;
    }
    return true;
}

bool tensor_check_rows(emu_warp *w, const emu_instr *in, const bulk_copy *c)
{
    for (uint32_t r = 0; r < row_count(&c->map); r++) {
        tensor_row row = find_row(c, r);
        uint32_t read = c->stores && !c->reduces ? 0 : row.inside;
        if (row.bytes && !bulk_check_global(w, in, c, row.global, row.bytes, read)) {
            return false;
        }
    }
    return true;
}
