// SPDX-License-Identifier: Apache-2.0
// iir.c -- cascade of second-order sections, streaming, direct form II transposed.
//
//   x      in   float32[rows, stride]        may be y (in place)
//   y      out  float32[rows, stride]
//   coef   in   float64[sections, 5]         b0 b1 b2 a1 a2 of each section, a0 = 1
//   state  i/o  float64[sections, 2, stride] z1, z2 of each section and column (scipy's zi, columns last)
//   returns 1 when the state is finite, 0 when some column carries nan or inf (it stays so until it is settled)
//
// The arithmetic and its order are scipy.signal.sosfilt's in float64, so that the result is float32(scipy) bit for bit:
//   y = b0 v + z1;  z1 = (b1 v - a1 y) + z2;  z2 = b2 v - a2 y
// Shape: that recurrence is 12 cycles long (mul, sub, add, add), so several independent ones must be in flight.
// Two sections of GROUP vectors are fused; a scratch of ROWS rows carries doubles to the next two sections.
// Indexing: columns go in steps of 16 (stride % 16 == 0, checked at binding), rows < rows, sections <= 16.
#include "kernels.h"
#include "lanes.h"

enum { LANES = 4, GROUP = 2, ROWS = 128 };

#define STEP(V, Z1, Z2, K) do { d4 y_ = (K)[0] * V + Z1; Z1 = ((K)[1] * V - (K)[3] * y_) + Z2; \
                                Z2 = (K)[2] * V - (K)[4] * y_; V = y_; } while (0)

// PAIR sections (1 or 2) of one group of columns; `first` reads x, `last` writes y, else the scratch
DSP_INLINE void run(const int pair, const int first, const int last, const float *x, float *y, double *scratch,
                    size_t rows, size_t stride, const double *k, double *state) {
    d4 z1[2][GROUP], z2[2][GROUP];
    DSP_UNROLL for (int s = 0; s < pair; s++)
        DSP_UNROLL for (int g = 0; g < GROUP; g++) {
            z1[s][g] = *(const d4 *)(state + (size_t)(2 * s) * stride + g * LANES);
            z2[s][g] = *(const d4 *)(state + (size_t)(2 * s + 1) * stride + g * LANES);
        }
    for (size_t n = 0; n < rows; n++) {
        d4 v[GROUP];
        DSP_UNROLL for (int g = 0; g < GROUP; g++)
            v[g] = first ? __builtin_convertvector(*(const f4 *)(x + n * stride + g * LANES), d4)
                         : *(const d4 *)(scratch + (n * GROUP + g) * LANES);
        DSP_UNROLL for (int s = 0; s < pair; s++)
            DSP_UNROLL for (int g = 0; g < GROUP; g++) STEP(v[g], z1[s][g], z2[s][g], k + 5 * s);
        DSP_UNROLL for (int g = 0; g < GROUP; g++) {
            if (last) *(f4 *)(y + n * stride + g * LANES) = __builtin_convertvector(v[g], f4);
            else *(d4 *)(scratch + (n * GROUP + g) * LANES) = v[g];
        }
    }
    DSP_UNROLL for (int s = 0; s < pair; s++)
        DSP_UNROLL for (int g = 0; g < GROUP; g++) {
            *(d4 *)(state + (size_t)(2 * s) * stride + g * LANES) = z1[s][g];
            *(d4 *)(state + (size_t)(2 * s + 1) * stride + g * LANES) = z2[s][g];
        }
}

DSP_CLONES static void cascade(const float *x, float *y, size_t rows, size_t stride, const double *coef, int sections,
                               double *state) {
    double scratch[ROWS * LANES * GROUP];
    for (size_t r0 = 0; r0 < rows; r0 += ROWS) {
        const size_t rn = rows - r0 < ROWS ? rows - r0 : ROWS;
        for (size_t c = 0; c < stride; c += LANES * GROUP) {
            const float *xx = x + r0 * stride + c;
            float *yy = y + r0 * stride + c;
            for (int s = 0; s < sections; s += 2) {
                const double *k = coef + 5 * s;
                double *z = state + (size_t)(2 * s) * stride + c;
                const int two = s + 1 < sections, last = s + 2 >= sections;
                if (s == 0 && last && two) run(2, 1, 1, xx, yy, scratch, rn, stride, k, z);
                else if (s == 0 && last) run(1, 1, 1, xx, yy, scratch, rn, stride, k, z);
                else if (s == 0) run(2, 1, 0, xx, yy, scratch, rn, stride, k, z);
                else if (!last) run(2, 0, 0, xx, yy, scratch, rn, stride, k, z);
                else if (two) run(2, 0, 1, xx, yy, scratch, rn, stride, k, z);
                else run(1, 0, 1, xx, yy, scratch, rn, stride, k, z);
            }
        }
    }
}

DSP_CLONES static int all_finite(const double *state, size_t n) {
    d4 bad = {0};   // 0 * nan and 0 * inf are nan
    for (size_t i = 0; i < n; i += 4) bad += *(const d4 *)(state + i) * 0.0;
    return bad[0] == 0 && bad[1] == 0 && bad[2] == 0 && bad[3] == 0;
}

int iir_f32(const float *x, float *y, size_t rows, size_t stride, const double *coef, int sections, double *state) {
    const uint64_t mode = dsp_flush_on();
    if (sections == 0 && x != y) memcpy(y, x, rows * stride * sizeof *x);
    cascade(x, y, rows, stride, coef, sections, state);
    const int ok = all_finite(state, (size_t)(2 * sections) * stride);
    dsp_flush_restore(mode);
    return ok;
}

// One float64 signal of n values `step` apart (-1: backwards), for finished averages; state float64[sections, 2].
// Same order of operations, so equal to scipy.signal.sosfilt bit for bit.  Returns 1 when the state is finite.
int iir_f64_signal(const double *x, double *y, size_t n, ptrdiff_t step, const double *coef, int sections,
                   double *state) {
    for (size_t i = 0; i < n; i++) {
        double v = x[(ptrdiff_t)i * step];
        for (int s = 0; s < sections; s++) {
            const double *k = coef + 5 * s;
            double *z = state + 2 * s;
            const double o = k[0] * v + z[0];
            z[0] = (k[1] * v - k[3] * o) + z[1];
            z[1] = k[2] * v - k[4] * o;
            v = o;
        }
        y[(ptrdiff_t)i * step] = v;
    }
    int ok = 1;
    for (int i = 0; i < 2 * sections; i++) ok &= isfinite(state[i]) != 0;
    return ok;
}
