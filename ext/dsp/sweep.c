// SPDX-License-Identifier: Apache-2.0
// sweep.c -- from inputs to derivations, and from sweeps to sums.
#include "kernels.h"
#include "lanes.h"
#ifdef DSP_WIDE
#include <immintrin.h>
#endif

// derive: y[r][k] = x[r][plus[k]] - x[r][minus[k]]
//   x      in   float32[rows, stride_in]     inputs against the common reference
//   y      out  float32[rows, stride_out]    derivations; never x
//   plus   in   int32[stride_out]            column of x, or stride_in for "nothing" (zero); same for minus
// Indices are checked once, when the montage is made; padding derivations are nothing - nothing = 0.
enum { MAX_STRIDE = 256 };
#ifdef DSP_WIDE
// Up to 64 inputs are four vectors, out of which two permutations and a choice take any sixteen: 0.1 instead of 0.5 ns.
DSP_WIDE DSP_INLINE __m512 pick(const __m512 *row, __m512i from, __mmask16 some) {
    const __m512 low = _mm512_permutex2var_ps(row[0], from, row[1]);
    const __m512 high = _mm512_permutex2var_ps(row[2], from, row[3]);
    const __mmask16 upper = _mm512_test_epi32_mask(from, _mm512_set1_epi32(32));
    return _mm512_maskz_mov_ps(some, _mm512_mask_mov_ps(low, upper, high));
}

DSP_WIDE static void derive_wide(const float *x, float *y, size_t rows, size_t stride_in, size_t stride_out,
                                 const int32_t *plus, const int32_t *minus) {
    const __m512i nothing = _mm512_set1_epi32((int)stride_in);
    for (size_t k = 0; k < stride_out; k += 16) {
        const __m512i p = _mm512_loadu_si512(plus + k), m = _mm512_loadu_si512(minus + k);
        const __mmask16 has_p = _mm512_cmpneq_epi32_mask(p, nothing), has_m = _mm512_cmpneq_epi32_mask(m, nothing);
        for (size_t r = 0; r < rows; r++) {
            const float *at = x + r * stride_in;
            __m512 row[4];
            DSP_UNROLL for (size_t v = 0; v < 4; v++) row[v] = 16 * v < stride_in ? _mm512_loadu_ps(at + 16 * v)
                                                                                : _mm512_setzero_ps();
            _mm512_storeu_ps(y + r * stride_out + k, _mm512_sub_ps(pick(row, p, has_p), pick(row, m, has_m)));
        }
    }
}
#endif

void derive(const float *x, float *y, size_t rows, size_t stride_in, size_t stride_out, const int32_t *plus,
            const int32_t *minus) {
#ifdef DSP_WIDE
    if (stride_in <= 64 && dsp_wide()) {
        derive_wide(x, y, rows, stride_in, stride_out, plus, minus);
        return;
    }
#endif
    float row[MAX_STRIDE + 1];
    row[stride_in] = 0;
    for (size_t r = 0; r < rows; r++, x += stride_in, y += stride_out) {
        memcpy(row, x, stride_in * sizeof *x);
        for (size_t k = 0; k < stride_out; k++) y[k] = row[plus[k]] - row[minus[k]];
    }
}

// hold: rows that are no signal keep the last good row (ionmd/dsp/blank.py has the rule)
//   x      i/o  float32[rows, stride]
//   spans  in   int64[count, 2]   rows [start, stop) of this block, by their start; parts outside 0..rows are ignored
//   good   i/o  float32[stride]   the last good row
//   seen   i/o  whether there was one; before any, the first row of the span itself is held
void hold(float *x, size_t rows, size_t stride, const int64_t *spans, size_t count, float *good, int *seen) {
    const size_t bytes = stride * sizeof *x;
    int64_t end = 0;   // rows before this one are settled
    const int64_t n = (int64_t)rows;
    for (size_t i = 0; i < count; i++) {
        const int64_t first = spans[2 * i] > end ? spans[2 * i] : end, last = spans[2 * i + 1] < n ? spans[2 * i + 1] : n;
        if (first >= last) continue;
        if (first > end) memcpy(good, x + (size_t)(first - 1) * stride, bytes);
        else if (!*seen) memcpy(good, x + (size_t)first * stride, bytes);
        *seen = 1;
        for (int64_t r = first; r < last; r++) memcpy(x + (size_t)r * stride, good, bytes);
        end = last;
    }
    if (end < n) {
        memcpy(good, x + (rows - 1) * stride, bytes);
        *seen = 1;
    }
}

// sweep_extremes: smallest and largest value of each column
//   x       in   float32[rows, stride], rows >= 1
//   lo, hi  out  float32[stride]; both nan when the column holds a nan, so that `not (hi - lo <= limit)` refuses it
// One sum per column carries nan (min and max would drop it).  32 columns fit in registers; they are left every TILE
// rows, so that a wide sweep is still read in the order in which it lies in memory.
enum { TILE = 32 };
DSP_INLINE void extremes(const int vectors, const float *x, size_t rows, size_t stride, float *lo, float *hi,
                         float *total) {
    f8 l[4], h[4], t[4];
    DSP_UNROLL for (int v = 0; v < vectors; v++) {
        l[v] = *(const f8 *)(lo + 8 * v);
        h[v] = *(const f8 *)(hi + 8 * v);
        t[v] = *(const f8 *)(total + 8 * v);
    }
    for (size_t r = 0; r < rows; r++)
        DSP_UNROLL for (int v = 0; v < vectors; v++) {
            const f8 a = *(const f8 *)(x + r * stride + 8 * v);
            l[v] = f8_min(a, l[v]);
            h[v] = f8_max(a, h[v]);
            t[v] += a;
        }
    DSP_UNROLL for (int v = 0; v < vectors; v++) {
        *(f8 *)(lo + 8 * v) = l[v];
        *(f8 *)(hi + 8 * v) = h[v];
        *(f8 *)(total + 8 * v) = t[v];
    }
}

// Functions of their own: inlined into a larger one, gcc 12 takes the lanes apart and makes 16 scalar minima of two.
DSP_CLONES static void extremes32(const float *x, size_t rows, size_t stride, float *lo, float *hi, float *total) {
    extremes(4, x, rows, stride, lo, hi, total);
}
DSP_CLONES static void extremes16(const float *x, size_t rows, size_t stride, float *lo, float *hi, float *total) {
    extremes(2, x, rows, stride, lo, hi, total);
}

#ifdef DSP_WIDE
// 64 columns: twelve running values, enough to hide the four cycles of each (0.03 instead of 0.08 ns).
DSP_WIDE static void extremes64(const float *x, size_t rows, size_t stride, float *lo, float *hi, float *total) {
    __m512 l[4], h[4], t[4];
    DSP_UNROLL for (int v = 0; v < 4; v++) {
        l[v] = _mm512_loadu_ps(lo + 16 * v);
        h[v] = _mm512_loadu_ps(hi + 16 * v);
        t[v] = _mm512_loadu_ps(total + 16 * v);
    }
    for (size_t r = 0; r < rows; r++)
        DSP_UNROLL for (int v = 0; v < 4; v++) {
            const __m512 a = _mm512_loadu_ps(x + r * stride + 16 * v);
            l[v] = _mm512_min_ps(a, l[v]);
            h[v] = _mm512_max_ps(a, h[v]);
            t[v] = _mm512_add_ps(t[v], a);
        }
    DSP_UNROLL for (int v = 0; v < 4; v++) {
        _mm512_storeu_ps(lo + 16 * v, l[v]);
        _mm512_storeu_ps(hi + 16 * v, h[v]);
        _mm512_storeu_ps(total + 16 * v, t[v]);
    }
}
#endif

// Rows more, into lo, hi and total that hold what came before.
static void more_extremes(const float *x, size_t rows, size_t stride, float *lo, float *hi, float *total) {
    for (size_t r0 = 0; r0 < rows; r0 += TILE) {
        const size_t n = rows - r0 < TILE ? rows - r0 : TILE;
        const float *tile = x + r0 * stride;
        size_t c = 0;
#ifdef DSP_WIDE
        if (stride >= 64 && dsp_wide())
            for (; c + 64 <= stride; c += 64) extremes64(tile + c, n, stride, lo + c, hi + c, total + c);
#endif
        for (; c + 32 <= stride; c += 32) extremes32(tile + c, n, stride, lo + c, hi + c, total + c);
        for (; c < stride; c += 16) extremes16(tile + c, n, stride, lo + c, hi + c, total + c);
    }
}

// A column whose sum is nan held a nan (or inf and -inf: refused just as well).
DSP_CLONES static void spoil(size_t stride, float *lo, float *hi, const float *total) {
    for (size_t c = 0; c < stride; c += 8) {
        const f8 t = *(const f8 *)(total + c);
        const i8 bad = t != t;
        *(f8 *)(lo + c) = (f8)(*(const i8 *)(lo + c) | bad);
        *(f8 *)(hi + c) = (f8)(*(const i8 *)(hi + c) | bad);
    }
}

void sweep_extremes(const float *x, size_t rows, size_t stride, float *lo, float *hi) {
    float total[MAX_STRIDE] = {0};
    memcpy(lo, x, stride * sizeof *x);
    memcpy(hi, x, stride * sizeof *x);
    more_extremes(x, rows, stride, lo, hi, total);
    spoil(stride, lo, hi, total);
}

// chunk_extremes: keeps the extremes of every CHUNK rows of a ring up to date, while the rows are still in the cache
//   ring      in   float32[capacity, stride]; capacity % SWEEP_CHUNK == 0
//   at, rows  in   the rows just written: at..at + rows, modulo the capacity
//   lo, hi    i/o  float32[capacity / SWEEP_CHUNK, stride], each as of sweep_extremes
// window_extremes: sweep_extremes of at..at + rows of that ring, which then reads 1/16 of what it would
// A chunk that a gap entered in its middle keeps old rows; no window without a gap holds such a chunk whole.
void chunk_extremes(const float *ring, size_t capacity, size_t stride, size_t at, size_t rows, float *lo,
                               float *hi) {
    while (rows) {
        const size_t in = at % SWEEP_CHUNK, n = rows < SWEEP_CHUNK - in ? rows : SWEEP_CHUNK - in;
        const float *x = ring + at * stride;
        float *l = lo + at / SWEEP_CHUNK * stride, *h = hi + at / SWEEP_CHUNK * stride, total[MAX_STRIDE];
        memset(total, 0, stride * sizeof *total);
        if (in == 0) {
            memcpy(l, x, stride * sizeof *x);
            memcpy(h, x, stride * sizeof *x);
        } else {
            memcpy(total, l, stride * sizeof *x);   // nan stays nan
        }
        more_extremes(x, n, stride, l, h, total);
        spoil(stride, l, h, total);
        rows -= n;
        at = (at + n) % capacity;
    }
}

void window_extremes(const float *ring, size_t capacity, size_t stride, size_t at, size_t rows,
                                const float *chunk_lo, const float *chunk_hi, float *lo, float *hi) {
    float total[MAX_STRIDE] = {0}, least[MAX_STRIDE], most[MAX_STRIDE];
    memcpy(lo, ring + at * stride, stride * sizeof *ring);
    memcpy(hi, lo, stride * sizeof *ring);
    while (rows) {
        const size_t in = at % SWEEP_CHUNK, left = SWEEP_CHUNK - in;
        size_t n = rows < left ? rows : left;
        if (in || n < SWEEP_CHUNK) {
            more_extremes(ring + at * stride, n, stride, lo, hi, total);
        } else {   // as many whole chunks as lie in one piece
            const size_t room = rows < capacity - at ? rows : capacity - at, chunks = room / SWEEP_CHUNK;
            const size_t first = at / SWEEP_CHUNK * stride;
            memcpy(least, lo, stride * sizeof *lo);
            memcpy(most, hi, stride * sizeof *hi);
            more_extremes(chunk_lo + first, chunks, stride, lo, most, total);
            more_extremes(chunk_hi + first, chunks, stride, least, hi, total);
            n = chunks * SWEEP_CHUNK;
        }
        rows -= n;
        at = (at + n) % capacity;
    }
    spoil(stride, lo, hi, total);
}

// sweep_add: one sweep into the running sums of the columns that accept it, alternating between two halves
//   x        in   float32[rows, stride]
//   accept   in   uint8[stride]             0: the column is left alone (whatever it holds, nan included)
//   count    i/o  int64[2, stride]          sweeps in each half; the smaller half is next
//   sum      i/o  float64[2, rows, stride]
//   squares  i/o  float64[rows, stride] or NULL
// Sums are float64: 4000 sweeps on a 300 mV offset summed in float32 shift the mean by microvolts (test_dsp_average).
// Columns are taken 16 at a time; when all 16 go to one half only that half is touched, and when the whole row does (the
// usual case) the sweep and the sums are walked straight through.  Sweep and sums are larger than the L2 cache and come
// as three streams; asked for AHEAD values early they take 0.25 instead of 0.33 ns (64 columns, 4000 rows).
enum { AHEAD = 1024 };
DSP_INLINE void add_line(const float *x, double *sum, double *squares, size_t n, const int sq) {
    for (size_t i = 0; i < n; i += 16) {
        __builtin_prefetch(x + i + AHEAD);
        __builtin_prefetch(sum + i + AHEAD / 8, 1);
        __builtin_prefetch(sum + i + AHEAD / 8 + 8, 1);
        DSP_UNROLL for (size_t v = i; v < i + 16; v += 4) {
            const d4 a = d4_of(x + v);
            *(d4 *)(sum + v) += a;
            if (sq) *(d4 *)(squares + v) += a * a;
        }
    }
}

DSP_INLINE void add_masked(const float *x, double *sum, double *other, double *squares, const l4 *m0, const l4 *m1) {
    for (int v = 0; v < 4; v++) {
        const d4 a = d4_of(x + 4 * v);
        const d4 b = (d4)((l4)a & (m0[v] | m1[v]));
        *(d4 *)(sum + 4 * v) += (d4)((l4)a & m0[v]);
        *(d4 *)(other + 4 * v) += (d4)((l4)a & m1[v]);
        if (squares) *(d4 *)(squares + 4 * v) += b * b;
    }
}

DSP_CLONES static void add(const float *x, size_t rows, size_t stride, const uint8_t *accept, int64_t *count,
                           double *sum, double *squares) {
    enum { NONE, FIRST, SECOND, MIXED };
    l4 mask[2][MAX_STRIDE / 4];
    int kind[MAX_STRIDE / 16] = {NONE}, alike = 1;
    double *half[2] = {sum, sum + rows * stride};
    for (size_t c = 0; c < stride; c += 16) {
        int n0 = 0, n1 = 0;
        for (size_t k = c; k < c + 16; k++) {
            const int second = count[k] > count[stride + k], on = accept[k] != 0;
            mask[0][k / 4][k % 4] = on && !second ? -1 : 0;
            mask[1][k / 4][k % 4] = on && second ? -1 : 0;
            n0 += on && !second;
            n1 += on && second;
            count[(second ? stride : 0) + k] += on;
        }
        kind[c / 16] = n0 + n1 == 0 ? NONE : n0 == 16 ? FIRST : n1 == 16 ? SECOND : MIXED;
        alike &= kind[c / 16] == kind[0];
    }
    if (alike && kind[0] == NONE) return;
    if (alike && kind[0] != MIXED) {
        if (squares) add_line(x, half[kind[0] == SECOND], squares, rows * stride, 1);
        else add_line(x, half[kind[0] == SECOND], squares, rows * stride, 0);
        return;
    }
    for (size_t r = 0; r < rows; r++)
        for (size_t c = 0; c < stride; c += 16) {
            const size_t at = r * stride + c;
            const int to = kind[c / 16];
            double *q = squares ? squares + at : NULL;
            if (to == MIXED) add_masked(x + at, half[0] + at, half[1] + at, q, mask[0] + c / 4, mask[1] + c / 4);
            else if (to != NONE && q) add_line(x + at, half[to == SECOND] + at, q, 16, 1);
            else if (to != NONE) add_line(x + at, half[to == SECOND] + at, q, 16, 0);
        }
}

void sweep_add(const float *x, size_t rows, size_t stride, const uint8_t *accept, int64_t *count, double *sum,
               double *squares) {
    add(x, rows, stride, accept, count, sum, squares);
}

// sweep_add_many: `many` sweeps, as so many calls of sweep_add would add them, bit for bit (each half in their order)
//   x       in   many pointers to float32[rows, stride]
//   accept  in   uint8[many, stride]
// Adding one sweep moves 20 bytes a sample, 16 of them sums.  Groups of sixteen, eight or four that every column accepts
// touch the sums once: 0.13, 0.16 and 0.31 instead of 0.47 ns (64 columns, 4000 rows).
enum { SOON = 256 };
DSP_INLINE void add_group(const int many, const float *const *x, size_t n, double *even, double *odd) {
    for (size_t i = 0; i < n; i += 16) {
        d4 a[4], b[4];
        DSP_UNROLL for (int v = 0; v < 4; v++) {
            a[v] = *(const d4 *)(even + i + 4 * v);
            b[v] = *(const d4 *)(odd + i + 4 * v);
        }
        DSP_UNROLL for (int k = 0; k < many; k++) __builtin_prefetch(x[k] + i + SOON);
        DSP_UNROLL for (int k = 0; k < many; k += 2) DSP_UNROLL for (int v = 0; v < 4; v++) {
            a[v] += d4_of(x[k] + i + 4 * v);
            b[v] += d4_of(x[k + 1] + i + 4 * v);
        }
        DSP_UNROLL for (int v = 0; v < 4; v++) {
            *(d4 *)(even + i + 4 * v) = a[v];
            *(d4 *)(odd + i + 4 * v) = b[v];
        }
    }
}
DSP_CLONES static void add_eight(const float *const *x, size_t n, double *even, double *odd) {
    add_group(8, x, n, even, odd);
}
DSP_CLONES static void add_four(const float *const *x, size_t n, double *even, double *odd) {
    add_group(4, x, n, even, odd);
}

// Which half takes the first of the group in every column, 0 or 1; -1 where they differ or a column refuses a sweep.
static int together(const uint8_t *accept, size_t many, size_t stride, const int64_t *count) {
    const int second = count[0] > count[stride];
    int alike = 1;
    for (size_t c = 0; c < stride; c++) alike &= (count[c] > count[stride + c]) == second;
    for (size_t i = 0; i < many * stride; i++) alike &= accept[i] != 0;
    return alike ? second : -1;
}

// Sixteen: the sums of CHUNK values stay in the L1 cache between the first eight sweeps and the others.
enum { CHUNK = 512 };
static void add_sixteen(const float *const *x, size_t n, double *even, double *odd) {
    for (size_t i = 0; i < n; i += CHUNK) {
        const float *at[16];
        for (size_t k = 0; k < 16; k++) at[k] = x[k] + i;
        for (size_t k = 0; k < 16; k += 8) add_eight(at + k, n - i < CHUNK ? n - i : CHUNK, even + i, odd + i);
    }
}

void sweep_add_many(const float *const *x, size_t many, size_t rows, size_t stride, const uint8_t *accept,
                    int64_t *count, double *sum, double *squares) {
    double *half[2] = {sum, sum + rows * stride};
    while (many) {
        const size_t group = many >= 16 ? 16 : many >= 8 ? 8 : many >= 4 ? 4 : 1;
        const int first = group > 1 && !squares ? together(accept, group, stride, count) : -1;
        const size_t done = first < 0 ? 1 : group;
        if (first < 0) {
            add(x[0], rows, stride, accept, count, sum, squares);
        } else {
            (group == 16 ? add_sixteen : group == 8 ? add_eight : add_four)(x, rows * stride, half[first], half[1 - first]);
            for (size_t c = 0; c < 2 * stride; c++) count[c] += (int64_t)group / 2;
        }
        x += done, accept += done * stride, many -= done;
    }
}
