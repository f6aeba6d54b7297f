// SPDX-License-Identifier: Apache-2.0
// emg.c -- features of free-running EMG, accumulated over one window in any number of blocks.
//
//   x          in   float32[rows, stride]   causal-filtered microvolts
//   threshold  in   float32[stride]         a sample is "over" when |x| > threshold
//   quiet      in   rows that |x| must have stayed under before the next crossing is a new burst
//   phase      in   rows already in this window: chunks of CHUNK rows are counted from the window's start
//   partial    i/o  float32[2, stride]      sums of x^2 and |dx| of the chunk that is not full yet
//   previous   i/o  float32[stride]         last row of the block before (line length goes across blocks)
//   gap        i/o  int32[stride]           rows since the last one over, saturating
//   squares, length  i/o  float64[stride]   sums over full chunks; the window's total adds `partial`
//   peak, over, bursts  i/o  float32, int32, int32 [stride]   largest |x|, rows over, bursts begun
// Sums: float32 within a chunk, float64 across chunks; as chunks belong to the window, the cut into blocks changes
// nothing.  A nan makes squares and length nan; it is never "over".
// Shape: muscles are quiet nearly always, so a chunk is first summed, and its crossings are counted in a second pass only
// if its largest value is over somewhere.  Worst case (bursts everywhere) is twice the time.
// Indexing: stride % 16 == 0 and rows * stride values are checked at binding.
#include "kernels.h"
#include "lanes.h"

enum { CHUNK = 16, TILE = 64, LONG_AGO = 0x3fffffff };

DSP_INLINE int any(i8 m) {
    const l4 q = (l4)m;
    return (q[0] | q[1] | q[2] | q[3]) != 0;
}

DSP_CLONES static void tile(const float *x, size_t rows, size_t stride, const float *threshold, int32_t quiet,
                            size_t phase, float *partial, float *previous, int32_t *gap, double *squares,
                            double *length, float *peak, int32_t *over, int32_t *bursts) {
    for (size_t c = 0; c < stride; c += 8) {
        f8 sq = *(const f8 *)(partial + c), len = *(const f8 *)(partial + stride + c);
        f8 before = *(const f8 *)(previous + c), top = *(const f8 *)(peak + c);
        const f8 limit = *(const f8 *)(threshold + c);
        i8 since = *(const i8 *)(gap + c);
        for (size_t r = 0; r < rows;) {
            const size_t room = CHUNK - (phase + r) % CHUNK, n = rows - r < room ? rows - r : room;
            const float *p = x + r * stride + c;
            f8 high = {0};
            for (size_t i = 0; i < n; i++) {
                const f8 v = *(const f8 *)(p + i * stride);
                sq += v * v;
                len += f8_abs(v - before);
                high = f8_top(f8_abs(v), high);
                before = v;
            }
            top = f8_top(high, top);
            if (any(high > limit)) {
                i8 beyond = *(const i8 *)(over + c), begun = *(const i8 *)(bursts + c);
                for (size_t i = 0; i < n; i++) {
                    const i8 is_over = f8_abs(*(const f8 *)(p + i * stride)) > limit;
                    begun -= is_over & (since >= quiet);
                    beyond -= is_over;
                    since = (since + 1) & ~is_over;
                }
                *(i8 *)(over + c) = beyond;
                *(i8 *)(bursts + c) = begun;
            } else {
                since += (int32_t)n;
            }
            since = (since & (since < LONG_AGO)) | (LONG_AGO & (since >= LONG_AGO));
            r += n;
            if (n == room) {
                *(d4 *)(squares + c) += d4_low(sq);
                *(d4 *)(squares + c + 4) += d4_high(sq);
                *(d4 *)(length + c) += d4_low(len);
                *(d4 *)(length + c + 4) += d4_high(len);
                sq = len = (f8){0};
            }
        }
        *(f8 *)(partial + c) = sq;
        *(f8 *)(partial + stride + c) = len;
        *(f8 *)(previous + c) = before;
        *(f8 *)(peak + c) = top;
        *(i8 *)(gap + c) = since;
    }
}

// Rows are taken TILE at a time, so that they stay in the L1 cache from one group of columns to the next.
void emg_features(const float *x, size_t rows, size_t stride, const float *threshold, int32_t quiet, size_t phase,
                  float *partial, float *previous, int32_t *gap, double *squares, double *length, float *peak,
                  int32_t *over, int32_t *bursts) {
    for (size_t r = 0; r < rows; r += TILE)
        tile(x + r * stride, rows - r < TILE ? rows - r : TILE, stride, threshold, quiet, phase + r, partial, previous, gap,
             squares, length, peak, over, bursts);
}
