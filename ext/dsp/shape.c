// SPDX-License-Identifier: Apache-2.0
// shape.c -- a known shape and its ways to vary, fitted to a curve in coloured noise (ionmd/dsp/matched.py).
// Matrices are row by row.  `curves` is double[k][length], k <= SHAPE_MOST - 2.  A sum is added in the order of its index
// and lanes are columns, so the bits do not depend on the vector width.
#include <string.h>

#include "cholesky.h"
#include "kernels.h"

// out[i * stride + c] = curve c at place first + i * step (in samples), by cubic convolution; zero outside the curve.
void shape_at(const double *curves, size_t k, size_t length, double first, double step, size_t n, size_t stride,
              double *out) {
    for (size_t i = 0; i < n; i++) {
        const double place = first + (double)i * step;
        double *to = out + i * stride;
        if (!(place >= 1.0 && place < (double)length - 2.0)) {
            for (size_t c = 0; c < k; c++) to[c] = 0.0;
            continue;
        }
        const size_t at = (size_t)place;
        const double u = place - (double)at;
        for (size_t j = 0; j < k; j++) {
            const double *x = curves + j * length + at, a = x[-1], b = x[0], c = x[1], d = x[2];
            to[j] = b + 0.5 * u * (c - a + u * (2.0 * a - 5.0 * b + 4.0 * c - d + u * (3.0 * (b - c) + d - a)));
        }
    }
}

// Lower root double[m][m] of the Toeplitz matrix of `row` double[m].
void shape_root(const double *row, size_t m, double *root) {
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < m; j++) root[i * m + j] = row[i > j ? i - j : j - i];
    root_of(root, m);
}

// Normal equations double[w][w] of d[m][w].  Coefficients from 1 to `held` are normal with sd `prior`, the rest are free.
static void normal(const double *d, size_t m, size_t w, size_t held, double prior, double *a) {
    memset(a, 0, w * w * sizeof *a);
    for (size_t i = 0; i < m; i++)
        for (size_t r = 0; r < w; r++)
            for (size_t c = 0; c < w; c++) a[r * w + c] += d[i * w + r] * d[i * w + c];
    for (size_t r = 0; r < w; r++) a[r * w + r] += r > 0 && r <= held ? 1.0 / (prior * prior) : 1e-12 * a[r * w + r];
}

// y and a level of one through the root: white[m][2]
static void whiten(const double *root, const double *y, size_t m, double *white) {
    for (size_t i = 0; i < m; i++) white[2 * i] = y[i], white[2 * i + 1] = 1.0;
    forward(root, m, white, 2);
}

size_t shape_scratch(size_t m) { return (2 * SHAPE_MOST + 2) * m; }

// The best of `shifts` places for the shape, and its coefficients: the k curves, then a level.
//   root    in   double[m][m]       of the covariance of the noise at the points
//   y       in   double[m]          the curve at the points
//   firsts  in   double[shifts]     place of point 0 in the shape for each shift, points are `step` apart
//   prior   in   sd of the coefficients of curves 1 to k - 1
//   best    out  double[k + 1];  returns the index of the shift
size_t shape_search(const double *curves, size_t k, size_t length, const double *root, const double *y, size_t m,
                    const double *firsts, size_t shifts, double step, double prior, double *best, double *scratch) {
    const size_t w = k + 1;
    double *white = scratch, *d = white + 2 * m, *x = d + w * m, a[SHAPE_MOST * SHAPE_MOST], c[SHAPE_MOST], least = 0.0;
    size_t found = 0;
    whiten(root, y, m, white);
    for (size_t s = 0; s < shifts; s++) {
        shape_at(curves, k, length, firsts[s], step, m, k, x);
        forward(root, m, x, k);
        memset(c, 0, sizeof c);
        for (size_t i = 0; i < m; i++) {
            memcpy(d + i * w, x + i * k, k * sizeof *d);
            d[i * w + k] = white[2 * i + 1];
            for (size_t j = 0; j < w; j++) c[j] += d[i * w + j] * white[2 * i];
        }
        double b[SHAPE_MOST], explained = 0.0;
        memcpy(b, c, sizeof b);
        normal(d, m, w, k - 1, prior, a);
        root_of(a, w);
        forward(a, w, c, 1);
        backward(a, w, c, 1);
        for (size_t j = 0; j < w; j++) explained += b[j] * c[j];
        if (s == 0 || explained > least) {
            least = explained, found = s;
            memcpy(best, c, w * sizeof *best);
        }
    }
    return found;
}

// Covariance of the coefficients of design[m][w], and how they follow the noise at the points.
//   held    in   coefficients 1 to held have the prior
//   cover   out  double[w][w]
//   gain    out  double[w][m]
void shape_cover(const double *root, const double *design, size_t m, size_t w, size_t held, double prior, double *cover,
                 double *gain, double *scratch) {
    double *d = scratch, a[SHAPE_MOST * SHAPE_MOST];
    memcpy(d, design, m * w * sizeof *d);
    forward(root, m, d, w);
    normal(d, m, w, held, prior, a);
    root_of(a, w);
    memset(cover, 0, w * w * sizeof *cover);
    for (size_t r = 0; r < w; r++) cover[r * w + r] = 1.0;
    forward(a, w, cover, w);
    backward(a, w, cover, w);
    backward(root, m, d, w);
    for (size_t r = 0; r < w; r++)
        for (size_t i = 0; i < m; i++) {
            double total = 0.0;
            for (size_t c = 0; c < w; c++) total += cover[r * w + c] * d[i * w + c];
            gain[r * m + i] = total;
        }
}
