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
// Shape: that recurrence is 12 cycles long (mul, sub, add, add), so several independent ones must be in flight.  Up to
// five sections share a pass and stay in registers; section s works on row n - s, so that within one turn of the loop
// no section waits for another (the scheduler of a core is too small to find that by itself: 1.18 against 1.45 ns).
// One to three sections are too few for that: two vectors of columns go together.  More than five take several passes
// through a scratch of doubles.  Rows are taken TILE at a time, so that they stay in the L1 cache from one column to the
// next (200 rows of 64 columns would not).
// Indexing: columns go in steps of 8 or 16 (stride % 16 == 0, checked at binding); sections <= 16.
#include "kernels.h"
#include "lanes.h"

enum { MOST = 5, TILE = 64 };

#define LANES 4
#define VEC d4
#define HALF f4
#define OF(p) d4_of(p)
#define NAMED(x) x##4
#define ATTRIBUTE DSP_CLONES
#include "iir_pass.h"
#ifdef DSP_WIDE   // eight doubles, where the machine multiplies eight at once: 0.9 instead of 1.7 ns, the same bits
#define LANES 8
#define VEC d8
#define HALF f8
#define OF(p) d8_of(p)
#define NAMED(x) x##8
#define ATTRIBUTE DSP_WIDE
#include "iir_pass.h"
#define cascade(...) (dsp_wide() ? cascade8(__VA_ARGS__) : cascade4(__VA_ARGS__))
#else
#define cascade cascade4
#endif

// n % 16 == 0.  Four sums: one alone waits four cycles for each addition (0.2 us for 64 columns of five sections).
DSP_CLONES static int all_finite(const double *state, size_t n) {
    d4 bad[4] = {{0}};   // 0 * nan and 0 * inf are nan
    for (size_t i = 0; i < n; i += 16)
        DSP_UNROLL for (size_t v = 0; v < 4; v++) bad[v] += *(const d4 *)(state + i + 4 * v) * 0.0;
    const d4 all = (bad[0] + bad[1]) + (bad[2] + bad[3]);
    return all[0] == 0 && all[1] == 0 && all[2] == 0 && all[3] == 0;
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
