/* wgmma_oracle.c: see wgmma_oracle.h. */
#include "wgmma_oracle.h"

#include <stddef.h>

const wgmma_type wgmma_types[A_TYPES] = {
    [A_F16] = {"f16", 16, &format_f16},
    [A_BF16] = {"bf16", 16, &format_bf16},
    [A_TF32] = {"tf32", 32, NULL},
    [A_E4M3] = {"e4m3", 8, &format_e4m3},
    [A_E5M2] = {"e5m2", 8, &format_e5m2},
    [A_S8] = {"s8", 8, NULL},
    [A_U8] = {"u8", 8, NULL},
};

uint32_t wgmma_encode(wgmma_element type, double exact, uint32_t noise)
{
    if (type == A_TF32)
        return (uint32_t)bits_of_float((float)exact) | (noise & 0x1fff);
    if (type == A_S8 || type == A_U8)
        return (uint32_t)(int)exact & 0xff;
    return (uint32_t)format_from_double(*wgmma_types[type].format, exact, ROUND_NEAREST);
}

double wgmma_decode(wgmma_element type, uint32_t bits)
{
    switch (type) {
    case A_TF32:
        return (double)float_of(bits & ~UINT32_C(0x1fff));
    case A_S8:
        return (int8_t)bits;
    case A_U8:
        return (uint8_t)bits;
    default:
        return format_to_double(*wgmma_types[type].format, bits);
    }
}

enum { CHUNK = 16 }; /* bytes that a swizzle keeps together; T elements */

/*
 * The canonical layout of "Canonical Layouts", in bytes and without the swizzle: either index is
 * split into T or 8, what a span has, and the rest.
 */
static int plain_offset(const wgmma_tile *t, int mn, int k)
{
    int per_chunk = CHUNK / t->element_bytes, span = t->swizzle ? t->swizzle : CHUNK;
    if (!t->is_mn_major) {
        int in_chunk = k % per_chunk * t->element_bytes, chunk = k / per_chunk;
        return mn % 8 * span + mn / 8 * t->stride + in_chunk +
               chunk * (t->swizzle ? CHUNK : t->leading);
    }
    int in_chunk = mn % per_chunk * t->element_bytes, chunk = mn / per_chunk, chunks = span / CHUNK;
    int next_mn = t->swizzle ? t->leading : t->stride, next_k = t->swizzle ? t->stride : t->leading;
    return in_chunk + chunk % chunks * CHUNK + chunk / chunks * next_mn + k % 8 * span +
           k / 8 * next_k;
}

/* Swizzle<B, 4, 3>: the B bits from bit 7 on change the B bits from bit 4 on. */
static int swizzled(const wgmma_tile *t, int offset)
{
    int mask = t->swizzle ? t->swizzle / CHUNK - 1 : 0;
    return offset ^ ((offset >> 7 & mask) << 4);
}

int wgmma_place(const wgmma_tile *t, int mn, int k)
{
    int start = plain_offset(t, t->mn, t->k);
    return t->pattern + swizzled(t, start + plain_offset(t, mn, k));
}

static uint64_t encoded(int bytes)
{
    return ((unsigned)bytes & 0x3ffff) >> 4;
}

uint64_t wgmma_descriptor(const wgmma_tile *t)
{
    /* Repeating patterns start at 1024, 512, 256 bytes unless the base offset says otherwise. */
    bool is_aligned = t->pattern % (t->swizzle ? 8 * t->swizzle : CHUNK) == 0;
    uint64_t base = is_aligned ? 0 : (uint64_t)t->pattern >> 7 & 7;
    uint64_t mode = t->swizzle == 128 ? 1 : (t->swizzle == 64 ? 2 : (t->swizzle == 32 ? 3 : 0));
    return encoded(t->pattern + plain_offset(t, t->mn, t->k)) | encoded(t->leading) << 16 |
           encoded(t->stride) << 32 | base << 49 | mode << 62;
}

/*
 * Figures of 9.7.15.5.1.1. A warp has 16 rows, a lane two of them, 8 apart. Of A its register has 4
 * bytes of a row; the third and fourth are 16 bytes on.
 */
wgmma_position wgmma_a_position(int thread, int index, int part, int element_bytes)
{
    int lane = thread % 32, byte = lane % 4 * 4 + index / 2 * 16;
    return (wgmma_position){thread / 32 % 4 * 16 + lane / 4 + index % 2 * 8,
                            byte / element_bytes + part};
}

/* Of D it has two neighbours in each of its rows, then those 8 columns on. */
wgmma_position wgmma_d_position(int thread, int index, int part, int parts)
{
    int lane = thread % 32, element = index * parts + part;
    return (wgmma_position){thread / 32 % 4 * 16 + lane / 4 + element / 2 % 2 * 8,
                            element / 4 * 8 + lane % 4 * 2 + element % 2};
}
