// SPDX-License-Identifier: Apache-2.0
// match_pass.h -- the core of match.c for vectors of one width; included once per width.
//   WIDE, VEC, REAL, MASK   channels in a vector, its type, that of half as many doubles, of their masks
//   OF(p)   WIDE / 2 floats as doubles;   NAMED(x)  the name of x for this width;   ATTRIBUTE  of the entry
// sum[l] += sum over taps of t[k] x[k + l] for LAGS lags; t has an even number of rows (the last may be zero)
DSP_INLINE void NAMED(block)(const float *x, const float *t, size_t taps, float *sum) {
    VEC a[LAGS];
    DSP_UNROLL for (int l = 0; l < LAGS; l++) a[l] = *(const VEC *)(sum + l * WIDE);
    for (size_t k = 0; k < taps; k += 2, x += 2 * WIDE, t += 2 * WIDE) {
        const VEC t0 = *(const VEC *)t, t1 = *(const VEC *)(t + WIDE);
        VEC v = *(const VEC *)x;
        DSP_UNROLL for (int l = 0; l < LAGS; l++) {
            a[l] += t0 * v;
            v = *(const VEC *)(x + (l + 1) * WIDE);
            a[l] += t1 * v;
        }
    }
    DSP_UNROLL for (int l = 0; l < LAGS; l++) *(VEC *)(sum + l * WIDE) = a[l];
}

// curves c..c + WIDE into the lanes of rows, mean removed; missing ones repeat the last
DSP_INLINE void NAMED(side_by_side)(const float *x, size_t channels, size_t n, float *out, const int centre) {
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

ATTRIBUTE static void NAMED(match)(const float *x, size_t channels, size_t n, const float *templates, size_t each,
                                   size_t m, float *out, float *scratch) {
    const size_t lags = n - m + 1, rounded = (lags + LAGS - 1) / LAGS * LAGS, taps = (m + 1) / 2 * 2;
    float *tile = scratch, *taps_of = scratch + WIDE * (rounded + m + 1);
    float *sums = taps_of + WIDE * (m + 1);
    for (size_t c = 0; c < channels; c += WIDE) {
        const size_t here = channels - c < WIDE ? channels - c : WIDE;
        NAMED(side_by_side)(x + c * n, here, n, tile, 1);
        memset(tile + n * WIDE, 0, (rounded + m + 1 - n) * WIDE * sizeof *tile);
        if (c == 0 || each) {
            NAMED(side_by_side)(each ? templates + c * m : templates, each ? here : 1, m, taps_of, 0);
            memset(taps_of + m * WIDE, 0, WIDE * sizeof *tile);
        }
        REAL s[2] = {{0}, {0}}, q[2] = {{0}, {0}};
        for (size_t i = 0; i < m; i++)
            DSP_UNROLL for (int h = 0; h < 2; h++) {
                const REAL v = OF(tile + i * WIDE + WIDE / 2 * h);
                s[h] += v;
                q[h] += v * v;
            }
        memset(sums, 0, rounded * WIDE * sizeof *sums);
        for (size_t k = 0; k < taps; k += TAPS)   // some taps at all lags, so that what is read stays in the L1 cache
            for (size_t l = 0; l < lags; l += LAGS)
                NAMED(block)(tile + (l + k) * WIDE, taps_of + k * WIDE, taps - k < TAPS ? taps - k : TAPS,
                             sums + l * WIDE);
        for (size_t l = 0; l < lags; l += LAGS) {
            for (size_t i = l; i < l + LAGS && i < lags; i++) {
                const float *product = sums + i * WIDE;
                REAL r[2] = {OF(product), OF(product + WIDE / 2)};
                DSP_UNROLL for (int h = 0; h < 2; h++) {
                    const REAL energy = q[h] - s[h] * s[h] * (1.0 / (double)m);
                    const MASK some = energy > 0.0;
                    REAL root = (REAL)(((MASK)energy & some) | ((MASK)((REAL){0} + 1.0) & ~some));
                    DSP_UNROLL for (int k = 0; k < WIDE / 2; k++) root[k] = sqrt(root[k]);
                    r[h] = (REAL)((MASK)(r[h] / root) & some);
                    const REAL gone = OF(tile + i * WIDE + WIDE / 2 * h), next = OF(tile + (i + m) * WIDE + WIDE / 2 * h);
                    s[h] += next - gone;
                    q[h] += next * next - gone * gone;
                }
                for (size_t k = 0; k < here; k++) out[(c + k) * lags + i] = (float)r[k / (WIDE / 2)][k % (WIDE / 2)];
            }
        }
    }
}
#undef WIDE
#undef VEC
#undef REAL
#undef MASK
#undef OF
#undef NAMED
#undef ATTRIBUTE
