// SPDX-License-Identifier: Apache-2.0
// mains.c -- the mains and its harmonics in a stretch of signal with holes, and taken off a sweep (ionmd/dsp/mains.py).
//
// Model of a column: level + sum over k of a_k cos(k w t) + b_k sin(k w t) + t (c cos(w t) + d sin(w t)), t from the
// middle of the stretch, in half its length.  The last two say how far w is off: with w + e come c = e b and d = -e a.
// Coefficients, in this order: level, a_1, b_1, ... a_K, b_K, c, d.
#include <string.h>

#include "cholesky.h"
#include "kernels.h"

// cos and sin of k times an angle, k = 1 .. harmonics
static void harmonics_of(double angle, size_t harmonics, double *out) {
    const double c = cos(angle), s = sin(angle);
    double x = 1.0, y = 0.0;
    for (size_t k = 0; k < harmonics; k++) {
        const double next = x * c - y * s;
        y = x * s + y * c;
        x = next;
        out[2 * k] = x, out[2 * k + 1] = y;
    }
}

size_t mains_scratch(size_t harmonics, size_t columns) {
    const size_t w = 2 * harmonics + 3;
    return w * (w + 1 + columns);
}

// Least squares by the samples in use.
//   x     in   double[n][stride]  the first `columns` are fitted
//   use   in   uint8[n]           0: a hole
//   w     in   angle of the mains from one sample to the next
//   coef  out  double[2 * harmonics + 3][columns]
//   left  out  double[columns]    mean square of what the model does not explain
// Returns how many samples were in use; below twice the coefficients nothing is fitted.
size_t mains_fit(const double *x, const uint8_t *use, size_t n, size_t stride, size_t columns, double w,
                 size_t harmonics, double *coef, double *left, double *scratch) {
    const size_t p = 2 * harmonics + 3;
    double *a = scratch, *e = a + p * p, *right = e + p;
    const double middle = 0.5 * (double)(n - 1), half = middle > 0.0 ? middle : 1.0;
    size_t used = 0;
    memset(a, 0, p * p * sizeof *a);
    memset(coef, 0, p * columns * sizeof *coef);
    memset(left, 0, columns * sizeof *left);
    for (size_t i = 0; i < n; i++) {
        if (!use[i]) continue;
        used++;
        const double t = (double)i - middle;
        e[0] = 1.0;
        harmonics_of(w * t, harmonics, e + 1);
        e[p - 2] = t / half * e[1], e[p - 1] = t / half * e[2];
        for (size_t c = 0; c < columns; c++) left[c] += x[i * stride + c] * x[i * stride + c];
        for (size_t r = 0; r < p; r++) {
            for (size_t c = 0; c <= r; c++) a[r * p + c] += e[r] * e[c];
            for (size_t c = 0; c < columns; c++) coef[r * columns + c] += e[r] * x[i * stride + c];
        }
    }
    if (used < 2 * p) return used;
    for (size_t r = 0; r < p; r++) {
        for (size_t c = 0; c < r; c++) a[c * p + r] = a[r * p + c];
        a[r * p + r] *= 1.0 + 1e-9;
    }
    memcpy(right, coef, p * columns * sizeof *right);
    root_of(a, p);
    forward(a, p, coef, columns);
    backward(a, p, coef, columns);
    for (size_t c = 0; c < columns; c++) {
        for (size_t r = 0; r < p; r++) left[c] -= right[r * columns + c] * coef[r * columns + c];
        left[c] = left[c] > 0.0 ? left[c] / (double)used : 0.0;
    }
    return used;
}

// sweep[i][c] -= the harmonics at angle first + i * w, by coef double[2 * harmonics][columns]; removed[c] += what was
// taken off, squared.
void mains_subtract(float *sweep, size_t rows, size_t stride, size_t columns, double first, double w, size_t harmonics,
                    const double *coef, double *removed) {
    double e[2 * MAINS_MOST];
    for (size_t i = 0; i < rows; i++) {
        harmonics_of(first + (double)i * w, harmonics, e);
        for (size_t c = 0; c < columns; c++) {
            double off = 0.0;
            for (size_t r = 0; r < 2 * harmonics; r++) off += coef[r * columns + c] * e[r];
            sweep[i * stride + c] = (float)((double)sweep[i * stride + c] - off);
            removed[c] += off * off;
        }
    }
}
