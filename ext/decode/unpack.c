/* SPDX-License-Identifier: Apache-2.0
 * unpack.c -- rows of little-endian int24 -> int32 counts, float32 microvolts, smallest and largest count.
 *
 *   p           in   uint8[rows, inputs, 3], and IONM_UNPACK_SLACK readable bytes behind it
 *   lsb         in   float32[stride]         microvolts per count; 0 in the padding
 *   counts, uv  out  int32, float32[rows, stride]; columns from `inputs` to the next multiple of 8 become 0,
 *                    the padding beyond that is not touched
 *   lo, hi      i/o  int32[stride]           extremes so far
 * Shape: 16 input bytes hold four samples and a bit; one byte shuffle puts each into the upper three bytes of an int32,
 * one arithmetic shift brings it down with its sign (the byte it drags along falls out).  Sixteen columns go down the
 * rows together, so that scale and extremes stay in registers; TILE rows only, because a column of 64-byte pieces of
 * long rows uses few sets of the L1 cache (64 rows: 0.16 ns, 16 rows: 0.11).
 */
#include "unpack.h"

#include "lanes.h"
#ifdef DSP_WIDE
#include <immintrin.h>
#endif

enum { TILE = 16 };

/* eight samples of 24 bytes; reads 28 */
DSP_INLINE i8 eight(const uint8_t *p) {
    const b16 a = *(const b16 *)p, b = *(const b16 *)(p + 12);
    const b32 both = __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19,
                                             20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31);
    return (i8)__builtin_shufflevector(both, both, 0, 0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9, 10, 11, 16, 16, 17, 18, 19,
                                       19, 20, 21, 22, 22, 23, 24, 25, 25, 26, 27) >> 8;
}

/* `vectors` times eight columns; `mask` is for the last of them */
DSP_INLINE void columns(const int vectors, const uint8_t *p, uint32_t rows, uint32_t row_bytes, uint32_t stride,
                        const float *lsb, i8 mask, int32_t *counts, float *uv, int32_t *lo, int32_t *hi) {
    i8 least[2], most[2];
    f8 scale[2];
    DSP_UNROLL for (int v = 0; v < vectors; v++) {
        least[v] = *(const i8 *)(lo + 8 * v);
        most[v] = *(const i8 *)(hi + 8 * v);
        scale[v] = *(const f8 *)(lsb + 8 * v);
    }
    for (uint32_t r = 0; r < rows; r++, p += row_bytes, counts += stride, uv += stride)
        DSP_UNROLL for (int v = 0; v < vectors; v++) {
            i8 n = eight(p + 24 * v);
            if (v == vectors - 1) n &= mask;
            *(i8 *)(counts + 8 * v) = n;
            *(f8 *)(uv + 8 * v) = __builtin_convertvector(n, f8) * scale[v];
            least[v] = i8_min(n, least[v]);
            most[v] = i8_max(n, most[v]);
        }
    DSP_UNROLL for (int v = 0; v < vectors; v++) {
        *(i8 *)(lo + 8 * v) = least[v];
        *(i8 *)(hi + 8 * v) = most[v];
    }
}

DSP_CLONES static void unpack(const uint8_t *p, uint32_t rows, uint32_t inputs, uint32_t stride, const float *lsb,
                              int32_t *counts, float *uv, int32_t *lo, int32_t *hi) {
    const i8 all = {-1, -1, -1, -1, -1, -1, -1, -1}, number = {0, 1, 2, 3, 4, 5, 6, 7};
    for (uint32_t r0 = 0; r0 < rows; r0 += TILE) {
        const uint32_t n = rows - r0 < TILE ? rows - r0 : TILE;
        const size_t at = (size_t)r0 * stride;
        const uint8_t *tile = p + (size_t)r0 * inputs * 3;
        uint32_t c = 0;
        for (; c + 16 <= inputs; c += 16)
            columns(2, tile + 3 * c, n, 3 * inputs, stride, lsb + c, all, counts + at + c, uv + at + c, lo + c, hi + c);
        for (; c < inputs; c += 8) {
            const i8 mask = number < (int32_t)(inputs - c);
            columns(1, tile + 3 * c, n, 3 * inputs, stride, lsb + c, mask, counts + at + c, uv + at + c, lo + c, hi + c);
        }
    }
}

#ifdef DSP_WIDE
/* The same with 64-byte vectors, which hold a row of 64 columns with its scale and extremes in registers: 0.07 ns. */
DSP_WIDE DSP_INLINE void wide(const int vectors, const uint8_t *p, uint32_t rows, uint32_t row_bytes, uint32_t stride,
                     const float *lsb, int32_t *counts, float *uv, int32_t *lo, int32_t *hi) {
    const b64 spread = {0, 0, 1, 2, 0, 3, 4, 5, 0, 6, 7, 8, 0, 9, 10, 11, 16, 16, 17, 18, 16, 19, 20, 21, 16, 22, 23, 24,
                        16, 25, 26, 27, 32, 32, 33, 34, 32, 35, 36, 37, 32, 38, 39, 40, 32, 41, 42, 43, 48, 48, 49, 50,
                        48, 51, 52, 53, 48, 54, 55, 56, 48, 57, 58, 59};
    const i16 twelve = {0, 1, 2, 3, 3, 4, 5, 6, 6, 7, 8, 9, 9, 10, 11, 12};   /* four samples to each 16 bytes */
    i16 least[4], most[4];
    f16 scale[4];
    DSP_UNROLL for (int v = 0; v < vectors; v++) {
        least[v] = *(const i16 *)(lo + 16 * v);
        most[v] = *(const i16 *)(hi + 16 * v);
        scale[v] = *(const f16 *)(lsb + 16 * v);
    }
    for (uint32_t r = 0; r < rows; r++, p += row_bytes, counts += stride, uv += stride)
        DSP_UNROLL for (int v = 0; v < vectors; v++) {
            const b64 bytes = (b64)__builtin_shuffle(*(const i16 *)(p + 48 * v), twelve);
            const i16 n = (i16)__builtin_shuffle(bytes, spread) >> 8;
            *(i16 *)(counts + 16 * v) = n;
            *(f16 *)(uv + 16 * v) = __builtin_convertvector(n, f16) * scale[v];
            least[v] = (i16)_mm512_min_epi32((__m512i)n, (__m512i)least[v]);
            most[v] = (i16)_mm512_max_epi32((__m512i)n, (__m512i)most[v]);
        }
    DSP_UNROLL for (int v = 0; v < vectors; v++) {
        *(i16 *)(lo + 16 * v) = least[v];
        *(i16 *)(hi + 16 * v) = most[v];
    }
}

DSP_WIDE static void unpack_wide(const uint8_t *p, uint32_t rows, uint32_t inputs, uint32_t stride, const float *lsb,
                                 int32_t *counts, float *uv, int32_t *lo, int32_t *hi) {
    uint32_t c = 0;
    for (; c + 64 <= inputs; c += 64)
        wide(4, p + 3 * c, rows, 3 * inputs, stride, lsb + c, counts + c, uv + c, lo + c, hi + c);
    for (; c + 32 <= inputs; c += 32)
        wide(2, p + 3 * c, rows, 3 * inputs, stride, lsb + c, counts + c, uv + c, lo + c, hi + c);
    for (; c < inputs; c += 16)
        wide(1, p + 3 * c, rows, 3 * inputs, stride, lsb + c, counts + c, uv + c, lo + c, hi + c);
}
#endif

void ionm_unpack24(const uint8_t *p, uint32_t rows, uint32_t inputs, uint32_t stride, const float *lsb, int32_t *counts,
                   float *uv, int32_t *lo, int32_t *hi) {
#ifdef DSP_WIDE
    if (inputs % 16 == 0 && dsp_wide()) {   /* no padding to keep at zero */
        unpack_wide(p, rows, inputs, stride, lsb, counts, uv, lo, hi);
        return;
    }
#endif
    unpack(p, rows, inputs, stride, lsb, counts, uv, lo, hi);
}
