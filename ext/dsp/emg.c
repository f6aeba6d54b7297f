// SPDX-License-Identifier: Apache-2.0
// emg.c -- features of free-running EMG, accumulated over one window in any number of blocks.
//
//   x          in   float32[rows, stride]   causal-filtered microvolts
//   threshold  in   float32[stride]         a sample is "over" when |x| > threshold
//   quiet      in   rows that |x| must have stayed under before the next crossing is a new burst
//   previous   i/o  float32[stride]         last row of the block before (line length goes across blocks)
//   gap        i/o  int32[stride]           rows since the last one over, saturating
//   squares, length, peak, over, bursts  i/o  sums of x^2 and |dx|, largest |x|, rows over, bursts begun
// Sums are float64 and taken row by row, so the cut into blocks changes nothing.  A nan makes squares and length nan.
#include "kernels.h"
#include "lanes.h"

DSP_CLONES void emg_features(const float *x, size_t rows, size_t stride, const float *threshold, int32_t quiet,
                             float *previous, int32_t *gap, double *squares, double *length, float *peak,
                             int32_t *over, int32_t *bursts) {
    for (size_t c = 0; c < stride; c += 8) {
        d4 s0 = *(const d4 *)(squares + c), s1 = *(const d4 *)(squares + c + 4);
        d4 l0 = *(const d4 *)(length + c), l1 = *(const d4 *)(length + c + 4);
        f8 before = *(const f8 *)(previous + c), top = *(const f8 *)(peak + c);
        const f8 limit = *(const f8 *)(threshold + c);
        i8 since = *(const i8 *)(gap + c), beyond = *(const i8 *)(over + c), begun = *(const i8 *)(bursts + c);
        for (size_t r = 0; r < rows; r++) {
            union { f8 all; f4 part[2]; } d;
            const f8 v = *(const f8 *)(x + r * stride + c), size = f8_abs(v);
            d.all = f8_abs(v - before);
            before = v;
            top = f8_max(size, top);
            const i8 is_over = size > limit;
            begun -= is_over & (since >= quiet);
            beyond -= is_over;
            since = (since - (since < 0x3fffffff)) & ~is_over;
            const d4 v0 = __builtin_convertvector(*(const f4 *)(x + r * stride + c), d4);
            const d4 v1 = __builtin_convertvector(*(const f4 *)(x + r * stride + c + 4), d4);
            s0 += v0 * v0;
            s1 += v1 * v1;
            l0 += __builtin_convertvector(d.part[0], d4);
            l1 += __builtin_convertvector(d.part[1], d4);
        }
        *(d4 *)(squares + c) = s0;
        *(d4 *)(squares + c + 4) = s1;
        *(d4 *)(length + c) = l0;
        *(d4 *)(length + c + 4) = l1;
        *(f8 *)(previous + c) = before;
        *(f8 *)(peak + c) = top;
        *(i8 *)(gap + c) = since;
        *(i8 *)(over + c) = beyond;
        *(i8 *)(bursts + c) = begun;
    }
}
