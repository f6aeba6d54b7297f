// SPDX-License-Identifier: Apache-2.0
// noise.c -- autocovariance of a stretch of noise.
//   x    in   double[n]      microvolts, mean not taken off (noise of a filtered average has none)
//   out  out  double[lags]   out[k] = sum of x[i] x[i + k] over i < n - k, divided by n - k
// Needs 0 < lags <= n.  A lag is one lane and its products are added in the order of i, so the bits do not depend on
// the vector width.  Sixteen lags at once: the plain loop over one lag waits for each addition.
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
