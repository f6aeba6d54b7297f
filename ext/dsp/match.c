// SPDX-License-Identifier: Apache-2.0
// match.c -- normalised cross-correlation of short templates with finished curves.
//
//   x          in   float32[channels, n]
//   templates  in   float32[channels, m], or [m] for all (`each` 0); zero mean and unit energy each
//   out        out  float32[channels, n - m + 1]: correlation at each lag, -1..1; 0 where the curve is flat
//   scratch         float32[match_scratch(m, n - m + 1)], 64-byte aligned
// Eight channels go side by side in the lanes of a vector, so that every load is aligned and the norm is a vector too.
// The core holds LAGS sums in registers and takes two taps of the template at once: 9 loads for 16 products.  (One
// channel along the lanes needs an unaligned load per product, half of which cross a cache line.)
// Sums: products float32 over at most m taps; energy of the window float64, running.  Each curve is first freed of its
// mean, so an offset costs no digits.
#include "kernels.h"
#include "lanes.h"

enum { LAGS = 8, WIDE = 8 };

size_t match_scratch(size_t m, size_t lags) {
    const size_t rounded = (lags + LAGS - 1) / LAGS * LAGS;   // the last block of lags may read zeros beyond n
    return WIDE * (rounded + m + 1 + m + 1);
}

// sum over taps of t[k] x[k + l] for LAGS lags; t has an even number of rows (the last may be zero)
DSP_INLINE void block(const float *x, const float *t, size_t taps, f8 *sum) {
    f8 a[LAGS];
    DSP_UNROLL for (int l = 0; l < LAGS; l++) a[l] = (f8){0};
    for (size_t k = 0; k < taps; k += 2, x += 2 * WIDE, t += 2 * WIDE) {
        const f8 t0 = *(const f8 *)t, t1 = *(const f8 *)(t + WIDE);
        f8 v = *(const f8 *)x;
        DSP_UNROLL for (int l = 0; l < LAGS; l++) {
            a[l] += t0 * v;
            v = *(const f8 *)(x + (l + 1) * WIDE);
            a[l] += t1 * v;
        }
    }
    DSP_UNROLL for (int l = 0; l < LAGS; l++) sum[l] = a[l];
}

// curves c..c + 8 into the lanes of rows, mean removed; missing ones repeat the last
DSP_INLINE void side_by_side(const float *x, size_t channels, size_t n, float *out, const int centre) {
    float mean[WIDE] = {0};
    const float *row[WIDE];
    for (size_t c = 0; c < WIDE; c++) {
        row[c] = x + (c < channels ? c : channels - 1) * n;
        double sum[4] = {0};
        size_t i = 0;
        for (; centre && i + 4 <= n; i += 4) DSP_UNROLL for (size_t j = 0; j < 4; j++) sum[j] += row[c][i + j];
        for (; centre && i < n; i++) sum[0] += row[c][i];
        if (centre) mean[c] = (float)(((sum[0] + sum[1]) + (sum[2] + sum[3])) / (double)n);
    }
    for (size_t i = 0; i < n; i++)
        DSP_UNROLL for (size_t c = 0; c < WIDE; c++) out[i * WIDE + c] = row[c][i] - mean[c];
}

DSP_CLONES void match_template(const float *x, size_t channels, size_t n, const float *templates, size_t each,
                               size_t m, float *out, float *scratch) {
    const size_t lags = n - m + 1, rounded = (lags + LAGS - 1) / LAGS * LAGS, taps = (m + 1) / 2 * 2;
    float *tile = scratch, *taps_of = scratch + WIDE * (rounded + m + 1);
    for (size_t c = 0; c < channels; c += WIDE) {
        const size_t here = channels - c < WIDE ? channels - c : WIDE;
        side_by_side(x + c * n, here, n, tile, 1);
        memset(tile + n * WIDE, 0, (rounded + m + 1 - n) * WIDE * sizeof *tile);
        if (c == 0 || each) {
            side_by_side(each ? templates + c * m : templates, each ? here : 1, m, taps_of, 0);
            memset(taps_of + m * WIDE, 0, WIDE * sizeof *tile);
        }
        d4 s[2] = {{0}, {0}}, q[2] = {{0}, {0}};
        for (size_t i = 0; i < m; i++)
            DSP_UNROLL for (int h = 0; h < 2; h++) {
                const d4 v = d4_of(tile + i * WIDE + 4 * h);
                s[h] += v;
                q[h] += v * v;
            }
        for (size_t l = 0; l < lags; l += LAGS) {
            f8 sum[LAGS];
            block(tile + l * WIDE, taps_of, taps, sum);
            for (size_t i = l; i < l + LAGS && i < lags; i++) {
                const f8 product = sum[i - l];
                d4 r[2] = {d4_low(product), d4_high(product)};
                DSP_UNROLL for (int h = 0; h < 2; h++) {
                    const d4 energy = q[h] - s[h] * s[h] * d4_all(1.0 / (double)m);
                    const l4 some = energy > 0.0;
                    d4 root = (d4)(((l4)energy & some) | ((l4)d4_all(1.0) & ~some));
                    DSP_UNROLL for (int k = 0; k < 4; k++) root[k] = sqrt(root[k]);
                    r[h] = (d4)((l4)(r[h] / root) & some);
                    const d4 gone = d4_of(tile + i * WIDE + 4 * h), next = d4_of(tile + (i + m) * WIDE + 4 * h);
                    s[h] += next - gone;
                    q[h] += next * next - gone * gone;
                }
                for (size_t k = 0; k < here; k++) out[(c + k) * lags + i] = (float)r[k / 4][k % 4];
            }
        }
    }
}
