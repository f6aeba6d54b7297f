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
// Indexing: columns go in steps of 8 (stride % 16 == 0, checked at binding); sections <= 16.
#include "kernels.h"
#include "lanes.h"

enum { LANES = 4, MOST = 5, TILE = 64 };

// One pass over MANY sections and GROUPS vectors; `first` reads x, `last` writes y, else the scratch.  rows >= MANY.
DSP_INLINE void run(const int many, const int groups, const int first, const int last, const float *x, float *y,
                    double *scratch, size_t rows, size_t stride, const d4 *k, double *state) {
    d4 z1[MOST][2], z2[MOST][2], v[MOST + 1][2];   // v[s]: what section s takes next
#define EACH_GROUP DSP_UNROLL for (int g = 0; g < groups; g++)
#define LOAD(N) EACH_GROUP v[0][g] = first ? d4_of(x + (N) * stride + g * LANES) \
                                           : *(const d4 *)(scratch + ((N) * groups + g) * LANES)
#define SECTION(S) EACH_GROUP { const d4 in = v[S][g], out = k[5 * (S)] * in + z1[S][g]; \
        z1[S][g] = (k[5 * (S) + 1] * in - k[5 * (S) + 3] * out) + z2[S][g]; \
        z2[S][g] = k[5 * (S) + 2] * in - k[5 * (S) + 4] * out; v[(S) + 1][g] = out; }
#define STORE(N) EACH_GROUP { \
        if (last) *(f4 *)(y + (N) * stride + g * LANES) = __builtin_convertvector(v[many][g], f4); \
        else *(d4 *)(scratch + ((N) * groups + g) * LANES) = v[many][g]; }
    DSP_UNROLL for (int s = 0; s < many; s++) EACH_GROUP {
        z1[s][g] = *(const d4 *)(state + (size_t)(2 * s) * stride + g * LANES);
        z2[s][g] = *(const d4 *)(state + (size_t)(2 * s + 1) * stride + g * LANES);
    }
    const size_t delay = (size_t)many - 1;
    DSP_UNROLL for (int n = 0; n < many - 1; n++) {           // the pipe fills
        DSP_UNROLL for (int s = many - 1; s > 0; s--) if (s <= n) SECTION(s)
        LOAD((size_t)n);
        SECTION(0)
    }
    for (size_t n = delay; n < rows; n++) {
        DSP_UNROLL for (int s = many - 1; s > 0; s--) SECTION(s)
        if (many > 1) STORE(n - delay)
        LOAD(n);
        SECTION(0)
        if (many == 1) STORE(n)
    }
    DSP_UNROLL for (int n = 0; n < many - 1; n++) {           // and runs empty
        DSP_UNROLL for (int s = many - 1; s > 0; s--) if (s > n) SECTION(s)
        STORE(rows - delay + (size_t)n)
    }
    DSP_UNROLL for (int s = 0; s < many; s++) EACH_GROUP {
        *(d4 *)(state + (size_t)(2 * s) * stride + g * LANES) = z1[s][g];
        *(d4 *)(state + (size_t)(2 * s + 1) * stride + g * LANES) = z2[s][g];
    }
#undef EACH_GROUP
#undef LOAD
#undef SECTION
#undef STORE
}

// Fewer rows than sections in a pass: one row after the other, state in memory.
DSP_INLINE void few(const float *x, float *y, size_t rows, size_t stride, const d4 *k, int sections, double *state) {
    for (size_t n = 0; n < rows; n++)
        for (size_t c = 0; c < stride; c += LANES) {
            d4 v = d4_of(x + n * stride + c);
            for (int s = 0; s < sections; s++) {
                d4 *z1 = (d4 *)(state + (size_t)(2 * s) * stride + c), *z2 = (d4 *)((double *)z1 + stride);
                const d4 out = k[5 * s] * v + *z1;
                *z1 = (k[5 * s + 1] * v - k[5 * s + 3] * out) + *z2;
                *z2 = k[5 * s + 2] * v - k[5 * s + 4] * out;
                v = out;
            }
            *(f4 *)(y + n * stride + c) = __builtin_convertvector(v, f4);
        }
}

DSP_CLONES static void cascade(const float *x, float *y, size_t rows, size_t stride, const double *coef, int sections,
                               double *state) {
    double scratch[TILE * LANES];
    d4 k[5 * IIR_MAX_SECTIONS];
    if (sections == 0) return;
    for (int i = 0; i < 5 * sections; i++) k[i] = d4_all(coef[i]);
    const int passes = (sections + MOST - 1) / MOST;
    for (size_t r0 = 0; r0 < rows; r0 += TILE) {
        const size_t n = rows - r0 < TILE ? rows - r0 : TILE;
        const float *xt = x + r0 * stride;
        float *yt = y + r0 * stride;
        if (n < MOST) {
            few(xt, yt, n, stride, k, sections, state);
            continue;
        }
        for (size_t c = 0; c < stride && sections <= 3; c += 2 * LANES) {
            if (sections == 1) run(1, 2, 1, 1, xt + c, yt + c, scratch, n, stride, k, state + c);
            else if (sections == 2) run(2, 2, 1, 1, xt + c, yt + c, scratch, n, stride, k, state + c);
            else run(3, 2, 1, 1, xt + c, yt + c, scratch, n, stride, k, state + c);
        }
        for (size_t c = 0; c < stride && sections > 3; c += LANES)
            for (int p = 0, s = 0; p < passes; p++) {   // shared out evenly: 7 is 4 + 3
                const int many = sections / passes + (p < sections % passes), first = p == 0, last = p == passes - 1;
                const d4 *kp = k + 5 * s;
                double *z = state + (size_t)(2 * s) * stride + c;
#define RUN(M, F, L) run(M, 1, F, L, xt + c, yt + c, scratch, n, stride, kp, z)
#define ANY(M) do { if (first && last) RUN(M, 1, 1); else if (first) RUN(M, 1, 0); else if (last) RUN(M, 0, 1); \
                    else RUN(M, 0, 0); } while (0)
                if (many == 5) ANY(5);
                else if (many == 4) ANY(4);
                else ANY(3);
#undef ANY
#undef RUN
                s += many;
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
