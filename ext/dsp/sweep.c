// SPDX-License-Identifier: Apache-2.0
// sweep.c -- from inputs to derivations, and from sweeps to sums.
#include "kernels.h"
#include "lanes.h"

// derive: y[r][k] = x[r][plus[k]] - x[r][minus[k]]
//   x      in   float32[rows, stride_in]     inputs against the common reference
//   y      out  float32[rows, stride_out]    derivations; never x
//   plus   in   int32[stride_out]            column of x, or stride_in for "nothing" (zero); same for minus
// Indices are checked once, when the montage is made; padding derivations are nothing - nothing = 0.
enum { MAX_STRIDE = 256 };
void derive(const float *x, float *y, size_t rows, size_t stride_in, size_t stride_out, const int32_t *plus,
            const int32_t *minus) {
    float row[MAX_STRIDE + 1];
    row[stride_in] = 0;
    for (size_t r = 0; r < rows; r++, x += stride_in, y += stride_out) {
        memcpy(row, x, stride_in * sizeof *x);
        for (size_t k = 0; k < stride_out; k++) y[k] = row[plus[k]] - row[minus[k]];
    }
}

// sweep_extremes: smallest and largest value of each column
//   x       in   float32[rows, stride], rows >= 1
//   lo, hi  out  float32[stride]; both nan when the column holds a nan, so that `not (hi - lo <= limit)` refuses it
// One sum per column carries nan (min and max would drop it); 32 columns at a time are two whole cache lines.
DSP_INLINE void extremes(const int vectors, const float *x, size_t rows, size_t stride, float *lo, float *hi) {
    f8 l[4], h[4], t[4];
    DSP_UNROLL for (int v = 0; v < vectors; v++) l[v] = h[v] = t[v] = *(const f8 *)(x + 8 * v);
    for (size_t r = 1; r < rows; r++)
        DSP_UNROLL for (int v = 0; v < vectors; v++) {
            const f8 a = *(const f8 *)(x + r * stride + 8 * v);
            l[v] = f8_min(a, l[v]);
            h[v] = f8_max(a, h[v]);
            t[v] += a;
        }
    DSP_UNROLL for (int v = 0; v < vectors; v++) {
        const i8 bad = t[v] != t[v];   // also inf - inf: refused just as well
        *(f8 *)(lo + 8 * v) = (f8)((i8)l[v] | bad);
        *(f8 *)(hi + 8 * v) = (f8)((i8)h[v] | bad);
    }
}

DSP_CLONES void sweep_extremes(const float *x, size_t rows, size_t stride, float *lo, float *hi) {
    size_t c = 0;
    for (; c + 32 <= stride; c += 32) extremes(4, x + c, rows, stride, lo + c, hi + c);
    for (; c < stride; c += 16) extremes(2, x + c, rows, stride, lo + c, hi + c);
}

// sweep_add: one sweep into the running sums of the columns that accept it, alternating between two halves
//   x        in   float32[rows, stride]
//   accept   in   uint8[stride]             0: the column is left alone (whatever it holds, nan included)
//   count    i/o  int64[2, stride]          sweeps in each half; the smaller half is next
//   sum      i/o  float64[2, rows, stride]
//   squares  i/o  float64[rows, stride] or NULL
// Sums are float64: 4000 sweeps on a 300 mV offset summed in float32 shift the mean by microvolts (test_dsp_average).
// Columns are taken 16 at a time; when all 16 go to one half (the usual case) only that half is touched.
DSP_INLINE void add_row16(const float *x, double *sum, double *squares, size_t rows, size_t stride, const int sq) {
    for (size_t r = 0; r < rows; r++, x += stride, sum += stride, squares += sq ? stride : 0)
        DSP_UNROLL for (int v = 0; v < 4; v++) {
            const d4 a = __builtin_convertvector(*(const f4 *)(x + 4 * v), d4);
            *(d4 *)(sum + 4 * v) += a;
            if (sq) *(d4 *)(squares + 4 * v) += a * a;
        }
}

DSP_INLINE void add_masked16(const float *x, double *sum, double *squares, size_t rows, size_t stride, const l4 *m0,
                             const l4 *m1) {
    double *other = sum + rows * stride;
    for (size_t r = 0; r < rows; r++, x += stride, sum += stride, other += stride, squares += squares ? stride : 0)
        for (int v = 0; v < 4; v++) {
            const d4 a = __builtin_convertvector(*(const f4 *)(x + 4 * v), d4);
            const d4 a0 = (d4)((l4)a & m0[v]), a1 = (d4)((l4)a & m1[v]), b = (d4)((l4)a & (m0[v] | m1[v]));
            *(d4 *)(sum + 4 * v) += a0;
            *(d4 *)(other + 4 * v) += a1;
            if (squares) *(d4 *)(squares + 4 * v) += b * b;
        }
}

DSP_CLONES static void add(const float *x, size_t rows, size_t stride, const uint8_t *accept, int64_t *count,
                           double *sum, double *squares) {
    for (size_t c = 0; c < stride; c += 16) {
        l4 m0[4], m1[4];
        int n0 = 0, n1 = 0;
        for (int k = 0; k < 16; k++) {
            const int half = count[c + k] > count[stride + c + k], on = accept[c + k] != 0;
            m0[k / 4][k % 4] = on && !half ? -1 : 0;
            m1[k / 4][k % 4] = on && half ? -1 : 0;
            n0 += on && !half;
            n1 += on && half;
            count[(half ? stride : 0) + c + k] += on;
        }
        double *q = squares ? squares + c : NULL;
        if (n0 + n1 == 0) continue;
        if (n0 == 16 && q) add_row16(x + c, sum + c, q, rows, stride, 1);
        else if (n0 == 16) add_row16(x + c, sum + c, q, rows, stride, 0);
        else if (n1 == 16 && q) add_row16(x + c, sum + rows * stride + c, q, rows, stride, 1);
        else if (n1 == 16) add_row16(x + c, sum + rows * stride + c, q, rows, stride, 0);
        else add_masked16(x + c, sum + c, q, rows, stride, m0, m1);
    }
}

void sweep_add(const float *x, size_t rows, size_t stride, const uint8_t *accept, int64_t *count, double *sum,
               double *squares) {
    add(x, rows, stride, accept, count, sum, squares);
}
