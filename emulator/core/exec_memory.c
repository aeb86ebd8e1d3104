/*
 * exec_memory.c: ld and st. One handler for each space and element size; aux has the number of
 * elements. Checks come first (exec_access.h), then the bytes move without further looks.
 */
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "exec_access.h"

/* ---- moving bytes ---- */

static inline bool is_contiguous(const lane_addresses *a, u32 bytes)
{
    if (a->highest - a->lowest != (u64)31 * bytes) {
        return false;
    }
    u64 difference = 0;
    for (u32 i = 0; i < IR_LANES; i++) {
        difference |= a->at[i] ^ (a->lowest + (u64)i * bytes);
    }
    return difference == 0;
}

/* Four 32-bit elements for every lane: QUAD_LANES lanes at a time, which are transposed in blocks
 * of four lanes by four elements. */
#if defined(__AVX512F__)
enum { QUAD_LANES = 16 };
typedef __m512 quads;

static inline quads gather_quads(uintptr_t base, const u64 *at)
{
    __m512 v = _mm512_castps128_ps512(_mm_loadu_ps((const float *)(void *)host(base, at[0])));
    v = _mm512_insertf32x4(v, _mm_loadu_ps((const float *)(void *)host(base, at[4])), 1);
    v = _mm512_insertf32x4(v, _mm_loadu_ps((const float *)(void *)host(base, at[8])), 2);
    return _mm512_insertf32x4(v, _mm_loadu_ps((const float *)(void *)host(base, at[12])), 3);
}

static inline void scatter_quads(quads v, uintptr_t base, const u64 *at)
{
    _mm_storeu_ps((float *)(void *)host(base, at[0]), _mm512_castps512_ps128(v));
    _mm_storeu_ps((float *)(void *)host(base, at[4]), _mm512_extractf32x4_ps(v, 1));
    _mm_storeu_ps((float *)(void *)host(base, at[8]), _mm512_extractf32x4_ps(v, 2));
    _mm_storeu_ps((float *)(void *)host(base, at[12]), _mm512_extractf32x4_ps(v, 3));
}

static inline void transpose4(quads v[4])
{
    __m512d t0 = _mm512_castps_pd(_mm512_unpacklo_ps(v[0], v[1])),
            t1 = _mm512_castps_pd(_mm512_unpacklo_ps(v[2], v[3])),
            t2 = _mm512_castps_pd(_mm512_unpackhi_ps(v[0], v[1])),
            t3 = _mm512_castps_pd(_mm512_unpackhi_ps(v[2], v[3]));
    v[0] = _mm512_castpd_ps(_mm512_unpacklo_pd(t0, t1));
    v[1] = _mm512_castpd_ps(_mm512_unpackhi_pd(t0, t1));
    v[2] = _mm512_castpd_ps(_mm512_unpacklo_pd(t2, t3));
    v[3] = _mm512_castpd_ps(_mm512_unpackhi_pd(t2, t3));
}
#elif defined(__SSE2__)
enum { QUAD_LANES = 4 };
typedef __m128 quads;

static inline quads gather_quads(uintptr_t base, const u64 *at)
{
    return _mm_loadu_ps((const float *)(void *)host(base, at[0]));
}

static inline void scatter_quads(quads v, uintptr_t base, const u64 *at)
{
    _mm_storeu_ps((float *)(void *)host(base, at[0]), v);
}

static inline void transpose4(quads v[4])
{
    __m128 t0 = _mm_unpacklo_ps(v[0], v[1]), t1 = _mm_unpacklo_ps(v[2], v[3]);
    __m128 t2 = _mm_unpackhi_ps(v[0], v[1]), t3 = _mm_unpackhi_ps(v[2], v[3]);
    v[0] = _mm_movelh_ps(t0, t1);
    v[1] = _mm_movehl_ps(t1, t0);
    v[2] = _mm_movelh_ps(t2, t3);
    v[3] = _mm_movehl_ps(t3, t2);
}
#endif

#if defined(__SSE2__)
static inline void load_quads(emu_warp *w, const emu_instr *in, const lane_addresses *a,
                              uintptr_t base)
{
    float *d[4] = {REG(float, 0), REG(float, 1), REG(float, 2), REG(float, 3)};
    for (int i = 0; i < IR_LANES; i += QUAD_LANES) {
        quads v[4];
        for (int k = 0; k < 4; k++) {
            v[k] = gather_quads(base, a->at + i + k);
        }
        transpose4(v);
        for (int k = 0; k < 4; k++) {
            memcpy(d[k] + i, &v[k], sizeof v[k]);
        }
    }
}

static inline void store_quads(emu_warp *w, const emu_instr *in, const lane_addresses *a,
                               uintptr_t base)
{
    const float *from[4] = {REG(const float, 1), REG(const float, 2), REG(const float, 3),
                            REG(const float, 4)};
    for (int i = 0; i < IR_LANES; i += QUAD_LANES) {
        quads v[4];
        for (int k = 0; k < 4; k++) {
            memcpy(&v[k], from[k] + i, sizeof v[k]);
        }
        transpose4(v);
        for (int k = 0; k < 4; k++) {
            scatter_quads(v[k], base, a->at + i + k);
        }
    }
}
#else
static inline void load_quads(emu_warp *w, const emu_instr *in, const lane_addresses *a,
                              uintptr_t base)
{
    for (int i = 0; i < IR_LANES; i++) {
        for (int k = 0; k < 4; k++) {
            memcpy(REG(u32, k) + i, host(base, a->at[i]) + 4 * k, 4);
        }
    }
}

static inline void store_quads(emu_warp *w, const emu_instr *in, const lane_addresses *a,
                               uintptr_t base)
{
    for (int i = 0; i < IR_LANES; i++) {
        for (int k = 0; k < 4; k++) {
            memcpy(host(base, a->at[i]) + 4 * k, REG(const u32, k + 1) + i, 4);
        }
    }
}
#endif

static inline void load_lanes(emu_warp *w, const emu_instr *in, u32 mask, const lane_addresses *a,
                              uintptr_t base, u32 bytes)
{
    u32 count = in->aux & AUX_VECTOR;
    if (mask == FULL_MASK && count == 1 && is_contiguous(a, bytes)) {
        memcpy(REG(u8, 0), host(base, a->lowest), (size_t)IR_LANES * bytes);
        return;
    }
    if (mask == FULL_MASK && count == 4 && bytes == 4) {
        load_quads(w, in, a, base);
        return;
    }
    for (u32 k = 0; k < count; k++) {
        u8 *d = REG(u8, k);
        LANES(memcpy(d + (u32)i * bytes, host(base, a->at[i]) + k * bytes, bytes););
    }
}

static inline void store_lanes(emu_warp *w, const emu_instr *in, u32 mask, const lane_addresses *a,
                               uintptr_t base, u32 bytes)
{
    u32 count = in->aux & AUX_VECTOR;
    if (mask == FULL_MASK && count == 1 && is_contiguous(a, bytes)) {
        memcpy(host(base, a->lowest), REG(u8, 1), (size_t)IR_LANES * bytes);
        return;
    }
    if (mask == FULL_MASK && count == 4 && bytes == 4) {
        store_quads(w, in, a, base);
        return;
    }
    /* lanes in order, so that the highest wins when several write one place */
    for (u32 left = mask; left; left &= left - 1) {
        int i = __builtin_ctz(left);
        for (u32 k = 0; k < count; k++) {
            memcpy(host(base, a->at[i]) + k * bytes, REG(u8, k + 1) + (u32)i * bytes, bytes);
        }
    }
}

/* ---- one access in a known space; addresses are offsets there ---- */

static inline void load_global(emu_warp *w, const emu_instr *in, u32 mask, const lane_addresses *a,
                               u32 bytes)
{
    u32 total = bytes * (in->aux & AUX_VECTOR);
    if (check_global(w, in, a, total, total, ACCESS_READ, mask)) {
        load_lanes(w, in, mask, a, 0, bytes);
    }
}

static inline void load_owned(emu_warp *w, exec_block *owner, const emu_instr *in, u32 mask,
                              const lane_addresses *a, u32 bytes)
{
    u32 total = bytes * (in->aux & AUX_VECTOR);
    if (check_shared(w, owner, in, a, total, total, ACCESS_READ, mask)) {
        load_lanes(w, in, mask, a, (uintptr_t)owner->shared, bytes);
    }
}

static __attribute__((noinline)) void load_cluster(emu_warp *w, const emu_instr *in, u32 mask,
                                                   const lane_addresses *a, u32 bytes)
{
    owner_visit v = {.w = w, .in = in, .a = a, .bytes = bytes, .left = mask};
    while (ISA(next_owner)(&v)) {
        load_owned(w, v.owner, in, v.lanes, &v.at, bytes);
    }
}

static inline void load_shared(emu_warp *w, const emu_instr *in, u32 mask, const lane_addresses *a,
                               u32 bytes)
{
    if (is_far(a)) {
        load_cluster(w, in, mask, a, bytes);
        return;
    }
    load_owned(w, w->block, in, mask, a, bytes);
}

/* Local memory is one piece for each lane. */
static inline bool enter_local(emu_warp *w, const emu_instr *in, u32 mask, lane_addresses *a,
                               u32 total)
{
    if (!check_window(w, in, a, total, total, SPACE_LOCAL, w->local_bytes, mask)) {
        return false;
    }
    for (u32 i = 0; i < IR_LANES; i++) {
        a->at[i] += (u64)i * w->local_bytes;
    }
    a->lowest = 0;
    a->highest = 0; /* never contiguous */
    return true;
}

static inline void load_local(emu_warp *w, const emu_instr *in, u32 mask, lane_addresses *a,
                              u32 bytes)
{
    if (enter_local(w, in, mask, a, bytes * (in->aux & AUX_VECTOR))) {
        load_lanes(w, in, mask, a, (uintptr_t)w->local, bytes);
    }
}

static inline void load_param(emu_warp *w, const emu_instr *in, u32 mask, const lane_addresses *a,
                              u32 bytes)
{
    const exec_grid *g = w->block->grid;
    u32 total = bytes * (in->aux & AUX_VECTOR);
    if (check_window(w, in, a, total, total, SPACE_PARAM, g->kernel->param_bytes, mask)) {
        load_lanes(w, in, mask, a, (uintptr_t)g->params, bytes);
    }
}

static inline void load_generic(emu_warp *w, const emu_instr *in, u32 mask, const lane_addresses *a,
                                u32 bytes)
{
    if (a->highest >> 48 == 0) {
        load_global(w, in, mask, a, bytes);
        return;
    }
    /* destinations may be the address register: all spaces are picked before any load */
    lane_addresses parts[4];
    static const ptx_space spaces[4] = {SPACE_GLOBAL, SPACE_SHARED, SPACE_LOCAL, SPACE_PARAM};
    u32 masks[4];
    for (int s = 0; s < 4; s++) {
        masks[s] = pick_space(a, spaces[s], mask, &parts[s]);
    }
    if (masks[0]) {
        load_global(w, in, masks[0], &parts[0], bytes);
    }
    if (masks[1]) {
        load_shared(w, in, masks[1], &parts[1], bytes);
    }
    if (masks[2]) {
        load_local(w, in, masks[2], &parts[2], bytes);
    }
    if (masks[3]) {
        load_param(w, in, masks[3], &parts[3], bytes);
    }
}

static inline void store_global(emu_warp *w, const emu_instr *in, u32 mask, const lane_addresses *a,
                                u32 bytes)
{
    u32 total = bytes * (in->aux & AUX_VECTOR);
    if (!check_global(w, in, a, total, total, ACCESS_WRITE, mask)) {
        return;
    }
    store_lanes(w, in, mask, a, 0, bytes);
    if (!w->span.whole) {
        mark_global(w, w->block->grid->memory->known, a, total, mask);
    }
}

static inline void store_owned(emu_warp *w, exec_block *owner, const emu_instr *in, u32 mask,
                               const lane_addresses *a, u32 bytes)
{
    u32 total = bytes * (in->aux & AUX_VECTOR);
    if (check_shared(w, owner, in, a, total, total, ACCESS_WRITE, mask)) {
        store_lanes(w, in, mask, a, (uintptr_t)owner->shared, bytes);
        mark_shared((u8 *)owner->shared_known, a, total, mask);
    }
}

static __attribute__((noinline)) void store_cluster(emu_warp *w, const emu_instr *in, u32 mask,
                                                    const lane_addresses *a, u32 bytes)
{
    owner_visit v = {.w = w, .in = in, .a = a, .bytes = bytes, .left = mask};
    while (ISA(next_owner)(&v)) {
        store_owned(w, v.owner, in, v.lanes, &v.at, bytes);
    }
}

static inline void store_shared(emu_warp *w, const emu_instr *in, u32 mask, const lane_addresses *a,
                                u32 bytes)
{
    if (is_far(a)) {
        store_cluster(w, in, mask, a, bytes);
        return;
    }
    store_owned(w, w->block, in, mask, a, bytes);
}

static inline void store_local(emu_warp *w, const emu_instr *in, u32 mask, lane_addresses *a,
                               u32 bytes)
{
    if (enter_local(w, in, mask, a, bytes * (in->aux & AUX_VECTOR))) {
        store_lanes(w, in, mask, a, (uintptr_t)w->local, bytes);
    }
}

static inline void store_generic(emu_warp *w, const emu_instr *in, u32 mask,
                                 const lane_addresses *a, u32 bytes)
{
    lane_addresses part;
    if (a->highest >> 48 == 0) {
        store_global(w, in, mask, a, bytes);
        return;
    }
    u32 picked = pick_space(a, SPACE_GLOBAL, mask, &part);
    if (picked) {
        store_global(w, in, picked, &part, bytes);
    }
    if ((picked = pick_space(a, SPACE_SHARED, mask, &part))) {
        store_shared(w, in, picked, &part, bytes);
    }
    if ((picked = pick_space(a, SPACE_LOCAL, mask, &part))) {
        store_local(w, in, picked, &part, bytes);
    }
    if ((picked = pick_space(a, SPACE_PARAM, mask, &part))) {
        fault_raise(w, in, CUDA_ERROR_ILLEGAL_ADDRESS, picked, "a store to a kernel parameter");
    }
}

#define LOAD(space, bytes)                                                                         \
    DEFINE_HANDLER(ld_##space##_##bytes)                                                           \
    {                                                                                              \
        lane_addresses a;                                                                          \
        read_addresses(&a, w, in, (int)(in->aux & AUX_VECTOR), in->aux &AUX_WIDE, in->imm, mask);  \
        load_##space(w, in, mask, &a, bytes);                                                      \
    }
#define STORE(space, bytes)                                                                        \
    DEFINE_HANDLER(st_##space##_##bytes)                                                           \
    {                                                                                              \
        lane_addresses a;                                                                          \
        read_addresses(&a, w, in, 0, in->aux &AUX_WIDE, in->imm, mask);                            \
        store_##space(w, in, mask, &a, bytes);                                                     \
    }
#define ALL_SIZES(what, space)                                                                     \
    what(space, 1) what(space, 2) what(space, 4) what(space, 8) what(space, 16)
ALL_SIZES(LOAD, global)
ALL_SIZES(LOAD, shared)
ALL_SIZES(LOAD, local)
ALL_SIZES(LOAD, param)
ALL_SIZES(LOAD, generic)
ALL_SIZES(STORE, global)
ALL_SIZES(STORE, shared)
ALL_SIZES(STORE, local)
ALL_SIZES(STORE, generic)
