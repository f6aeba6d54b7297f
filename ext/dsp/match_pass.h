// SPDX-License-Identifier: Apache-2.0
// match_pass.h -- the core of match.c for vectors of one width; included once per width.
//   WIDE, VEC, REAL, HALF   channels in a vector, its type, that of half as many doubles, of half as many floats
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

// sum = the correlation of `taps` rows of t with x at `lags` lags
DSP_INLINE void NAMED(correlate)(const float *x, const float *t, size_t taps, size_t lags, float *sum) {
    memset(sum, 0, lags * WIDE * sizeof *sum);
    for (size_t k = 0; k < taps; k += TAPS)   // some taps at all lags, so that what is read stays in the L1 cache
        for (size_t l = 0; l < lags; l += LAGS)
            NAMED(block)(x + (l + k) * WIDE, t + k * WIDE, taps - k < TAPS ? taps - k : TAPS, sum + l * WIDE);
}

// The taps at even and odd places and their sums; taps has 2 * size.taps rows
DSP_INLINE void NAMED(taps_apart)(const float *taps, const match_size size, float *even, float *odd, float *both) {
    for (size_t k = 0; k < size.taps * WIDE; k += WIDE) {
        const VEC a = *(const VEC *)(taps + 2 * k), b = *(const VEC *)(taps + 2 * k + WIDE);
        *(VEC *)(even + k) = a;
        *(VEC *)(odd + k) = b;
        *(VEC *)(both + k) = a + b;
    }
}

// products[i] = sum over k of t[k] x[i + k], two lags and two taps with three products
DSP_INLINE void NAMED(products)(const float *tile, const match_size size, const float *even, const float *odd,
                                const float *both, float *work, float *product) {
    const size_t rows = size.lags + size.taps + 1, step = size.lags * WIDE;
    float *ahead = work, *middle = ahead + rows * WIDE, *behind = middle + rows * WIDE;
    float *first = behind + rows * WIDE, *shared = first + step, *second = shared + step;
    for (size_t j = 0; j < rows * WIDE; j += WIDE) {
        const VEC at = *(const VEC *)(tile + 2 * j), mid = *(const VEC *)(tile + 2 * j + WIDE);
        *(VEC *)(ahead + j) = at - mid;
        *(VEC *)(middle + j) = mid;
        *(VEC *)(behind + j) = *(const VEC *)(tile + 2 * j + 2 * WIDE) - mid;
    }
    NAMED(correlate)(ahead, even, size.taps, size.lags, first);
    NAMED(correlate)(middle, both, size.taps, size.lags, shared);
    NAMED(correlate)(behind, odd, size.taps, size.lags, second);
    for (size_t j = 0; j < step; j += WIDE) {
        const VEC mid = *(const VEC *)(shared + j);
        *(VEC *)(product + 2 * j) = *(const VEC *)(first + j) + mid;
        *(VEC *)(product + 2 * j + WIDE) = mid + *(const VEC *)(second + j);
    }
}

ATTRIBUTE static void NAMED(match)(const float *x, size_t channels, size_t n, const float *templates, size_t each,
                                   size_t m, float *out, float *scratch) {
    const size_t lags = n - m + 1;
    const match_size size = size_of(m, lags);
    float *tile = scratch, *taps = tile + WIDE * size.rows, *even = taps + 2 * WIDE * size.taps;
    float *odd = even + WIDE * size.taps, *both = odd + WIDE * size.taps, *product = both + WIDE * size.taps;
    float *norm = product + 2 * WIDE * size.lags, *work = norm + 2 * WIDE * size.lags;
    for (size_t c = 0; c < channels; c += WIDE) {
        const size_t here = channels - c < WIDE ? channels - c : WIDE;
        NAMED(side_by_side)(x + c * n, here, n, tile, 1);
        memset(tile + n * WIDE, 0, (size.rows - n) * WIDE * sizeof *tile);
        if (c == 0 || each) {
            NAMED(side_by_side)(each ? templates + c * m : templates, each ? here : 1, m, taps, 0);
            memset(taps + m * WIDE, 0, (2 * size.taps - m) * WIDE * sizeof *taps);
            NAMED(taps_apart)(taps, size, even, odd, both);
        }
        NAMED(products)(tile, size, even, odd, both, work, product);
        REAL s[2] = {{0}, {0}}, q[2] = {{0}, {0}};
        for (size_t i = 0; i < m; i++)
            DSP_UNROLL for (int h = 0; h < 2; h++) {
                const REAL v = OF(tile + i * WIDE + WIDE / 2 * h);
                s[h] += v;
                q[h] += v * v;
            }
        for (size_t i = 0; i < lags; i++)
            DSP_UNROLL for (int h = 0; h < 2; h++) {
                const size_t at = i * WIDE + WIDE / 2 * h;
                const REAL energy = q[h] - s[h] * s[h] * (1.0 / (double)m);
                *(HALF *)(norm + at) = __builtin_convertvector(energy, HALF);
                const REAL gone = OF(tile + at), next = OF(tile + at + m * WIDE);
                s[h] += next - gone;
                q[h] += next * next - gone * gone;
            }
        for (size_t i = 0; i < lags * WIDE; i++) {
            const float root = sqrtf(norm[i] > 0 ? norm[i] : 1);
            product[i] = norm[i] > 0 ? product[i] / root : 0;
        }
        for (size_t k = 0; k < here; k++)
            for (size_t i = 0; i < lags; i++) out[(c + k) * lags + i] = product[i * WIDE + k];
    }
}
#undef WIDE
#undef VEC
#undef REAL
#undef HALF
#undef OF
#undef NAMED
#undef ATTRIBUTE
