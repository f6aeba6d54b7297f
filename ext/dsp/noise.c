// SPDX-License-Identifier: Apache-2.0
// noise.c -- autocovariance of a stretch of noise; a curve smoothed by a symmetric kernel.
// autocovariance:
//   x    in   double[n]      microvolts, mean not taken off (noise of a filtered average has none)
//   out  out  double[lags]   out[k] = sum of x[i] x[i + k] over i < n - k, divided by n - k
// Needs 0 < lags <= n.  A lag is one lane and its products are added in the order of i, so the bits do not depend on
// the vector width.  Sixteen lags at once: the plain loop over one lag waits for each addition.
#include <math.h>

#include "lanes.h"
#include "kernels.h"

enum { LAGS = 16 };  // four vectors: each is a chain of additions, and a machine keeps that many going

DSP_CLONES
void autocovariance(const double *x, size_t n, size_t lags, double *out) {
    size_t k = 0;
    for (; k + LAGS <= lags; k += LAGS) {
        const size_t common = n - (k + LAGS - 1);  // products that all these lags have
        d4 a = {0}, b = {0}, c = {0}, d = {0};
        for (size_t i = 0; i < common; i++) {
            const double *later = x + i + k;
            const d4 now = {x[i], x[i], x[i], x[i]};
            a += *(const d4 *)later * now;
            b += *(const d4 *)(later + 4) * now;
            c += *(const d4 *)(later + 8) * now;
            d += *(const d4 *)(later + 12) * now;
        }
        double sum[LAGS];
        *(d4 *)sum = a, *(d4 *)(sum + 4) = b, *(d4 *)(sum + 8) = c, *(d4 *)(sum + 12) = d;
        for (size_t j = 0; j < LAGS; j++) {
            for (size_t i = common; i < n - (k + j); i++) sum[j] += x[i] * x[i + k + j];
            out[k + j] = sum[j] / (double)(n - (k + j));
        }
    }
    for (; k < lags; k++) {
        double total = 0.0;
        for (size_t i = 0; i < n - k; i++) total += x[i] * x[i + k];
        out[k] = total / (double)(n - k);
    }
}

// Half of a Gaussian kernel whose whole sums to 1: double[reach + 1], centre first; sigma > 0 in samples.
void gaussian_half(double sigma, size_t reach, double *out) {
    double total = 0.0;
    for (size_t i = reach + 1; i-- > 0;) {
        const double z = (double)i / sigma;
        out[i] = exp(-0.5 * (z * z));
        total += i ? 2.0 * out[i] : out[i];
    }
    for (size_t i = 0; i <= reach; i++) out[i] /= total;
}

// A symmetric kernel over a curve that was lengthened by `reach` values at both ends.
//   wide    in   double[n + 2 reach]
//   kernel  in   double[reach + 1]   centre first
//   out     out  double[n]
// Each output adds its pairs from the centre outwards, whatever the vector width.
DSP_CLONES
void smooth_symmetric(const double *wide, size_t n, const double *kernel, size_t reach, double *out) {
    const double *x = wide + reach;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const d4 centre = {kernel[0], kernel[0], kernel[0], kernel[0]};
        d4 a = *(const d4 *)(x + i) * centre, b = *(const d4 *)(x + i + 4) * centre;
        for (size_t r = 1; r <= reach; r++) {
            const d4 k = {kernel[r], kernel[r], kernel[r], kernel[r]};
            a += k * (*(const d4 *)(x + i - r) + *(const d4 *)(x + i + r));
            b += k * (*(const d4 *)(x + i + 4 - r) + *(const d4 *)(x + i + 4 + r));
        }
        *(d4 *)(out + i) = a, *(d4 *)(out + i + 4) = b;
    }
    for (; i < n; i++) {
        double a = x[i] * kernel[0];
        for (size_t r = 1; r <= reach; r++) a += kernel[r] * (x[i - r] + x[i + r]);
        out[i] = a;
    }
}
