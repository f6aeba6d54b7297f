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

DSP_CLONES void ionm_unpack24(const uint8_t *p, uint32_t rows, uint32_t inputs, uint32_t stride, const float *lsb,
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
