// SPDX-License-Identifier: Apache-2.0
// cholesky.h -- small dense systems, row by row, in order: the same bits on every instruction set.
#ifndef IONMD_DSP_CHOLESKY_H
#define IONMD_DSP_CHOLESKY_H
#include <math.h>
#include <stddef.h>

#include "lanes.h"

// Lower root of a symmetric positive matrix double[m][m], in place; a pivot that rounding made too small is lifted.
DSP_INLINE void root_of(double *a, size_t m) {
    const double least = 1e-6 * a[0];
    for (size_t k = 0; k < m; k++) {
        const double pivot = a[k * m + k], root = sqrt(pivot > least ? pivot : least);
        a[k * m + k] = root;
        for (size_t i = k + 1; i < m; i++) a[k * m + i] = a[i * m + k] /= root;  // the column, also as a row to read
        for (size_t i = k + 1; i < m; i++)
            for (size_t j = k + 1; j <= i; j++) a[i * m + j] -= a[k * m + i] * a[k * m + j];
        for (size_t i = k + 1; i < m; i++) a[k * m + i] = 0.0;
    }
}

// x[m][w] := root^-1 x
DSP_INLINE void forward(const double *root, size_t m, double *x, size_t w) {
    for (size_t k = 0; k < m; k++) {
        for (size_t c = 0; c < w; c++) x[k * w + c] /= root[k * m + k];
        for (size_t i = k + 1; i < m; i++) {
            const double f = root[i * m + k];
            for (size_t c = 0; c < w; c++) x[i * w + c] -= f * x[k * w + c];
        }
    }
}

// x[m][w] := root^-T x
DSP_INLINE void backward(const double *root, size_t m, double *x, size_t w) {
    for (size_t k = m; k-- > 0;) {
        for (size_t c = 0; c < w; c++) x[k * w + c] /= root[k * m + k];
        for (size_t i = 0; i < k; i++) {
            const double f = root[k * m + i];
            for (size_t c = 0; c < w; c++) x[i * w + c] -= f * x[k * w + c];
        }
    }
}
#endif
