// SPDX-License-Identifier: Apache-2.0
// welch.c -- power spectra of segments of rows, added to a running sum.
//
//   x         in   float32[(count - 1) step + n, stride]   sample-major, as all streams here
//   n         in   a power of two, WELCH_SHORTEST to WELCH_LONGEST
//   window    in   float32[n]
//   twiddles  in   float32[n, 2]               cos and -sin of 2 pi k / n (welch_twiddles)
//   power     i/o  float32[n / 2 + 1, stride]  += |spectrum of (x - mean) window|^2 of each segment
//   scratch        float32[welch_scratch(n)], 64-byte aligned
// Real input: columns c..c+7 are the real part and c+8..c+15 the imaginary part of eight complex transforms, one in each
// lane; at the end Z[k] and Z[n - k] are taken apart into the two real spectra.
// L1 blocked: n = A B.  B transforms of A points over rows B a + b, turned by the twiddles, then A transforms of B
// points; each (at most 64 points, 4 KiB) stays in the L1 cache, and the whole only passes through L2 once in between.
// Rows p and A - p of the second step hold each other's mirror images, so they are done together and the power is taken
// while they are still in L1.  The small transforms are radix 8 and 4 with natural order in and out.  Rows of the
// scratch are B + 1 long: at a power of two all of them would fall into two sets of the cache.
// Indexing: stride % 16 == 0 and n are checked at binding.
#include "kernels.h"
#include "lanes.h"

typedef struct { f8 re, im; } cplx;

DSP_INLINE cplx add(cplx a, cplx b) { return (cplx){a.re + b.re, a.im + b.im}; }
DSP_INLINE cplx sub(cplx a, cplx b) { return (cplx){a.re - b.re, a.im - b.im}; }
DSP_INLINE cplx turn(cplx a, float c, float s) { return (cplx){a.re * c - a.im * s, a.re * s + a.im * c}; }
DSP_INLINE cplx times_minus_i(cplx a) { return (cplx){a.im, -a.re}; }

DSP_INLINE void dft2(cplx *v) {
    const cplx a = v[0], b = v[1];
    v[0] = add(a, b);
    v[1] = sub(a, b);
}

DSP_INLINE void dft4(cplx *v) {
    const cplx s = add(v[0], v[2]), d = sub(v[0], v[2]), t = add(v[1], v[3]), e = times_minus_i(sub(v[1], v[3]));
    v[0] = add(s, t);
    v[1] = add(d, e);
    v[2] = sub(s, t);
    v[3] = sub(d, e);
}

DSP_INLINE void dft8(cplx *v) {
    const float h = 0.70710678f;
    cplx even[4], odd[4];
    DSP_UNROLL for (int i = 0; i < 4; i++) {
        even[i] = add(v[i], v[i + 4]);
        odd[i] = sub(v[i], v[i + 4]);
    }
    odd[1] = (cplx){(odd[1].re + odd[1].im) * h, (odd[1].im - odd[1].re) * h};
    odd[2] = times_minus_i(odd[2]);
    odd[3] = (cplx){(odd[3].im - odd[3].re) * h, -(odd[3].im + odd[3].re) * h};
    dft4(even);
    dft4(odd);
    DSP_UNROLL for (int i = 0; i < 4; i++) {
        v[2 * i] = even[i];
        v[2 * i + 1] = odd[i];
    }
}

DSP_INLINE void dft(const int radix, cplx *v) {
    if (radix == 8) dft8(v);
    else if (radix == 4) dft4(v);
    else if (radix == 2) dft2(v);
}

// Where the points of a small transform come from and go to; inlined, so that no pass only copies.
typedef struct {
    const cplx *in;        // rows with the level removed
    const float *window, *tw;
    cplx *work;
    cplx mean;
    size_t n, A, B, b;     // b: which transform of the first step
} plan;

// first step: x[B a + b] of the window; X[p] turned by the twiddle of p b, into row p
DSP_INLINE cplx fetch_first(const plan *t, const cplx *row, size_t a) {
    (void)row;
    const cplx x = sub(t->in[a * (t->B + 1) + t->b], t->mean);
    const float w = t->window[t->B * a + t->b];
    return (cplx){x.re * w, x.im * w};
}
DSP_INLINE void put_first(const plan *t, cplx *row, size_t p, cplx x) {
    (void)row;
    const float *w = t->tw + 2 * t->b * p;
    t->work[p * (t->B + 1) + t->b] = turn(x, w[0], w[1]);
}
// second step: one row of the scratch to another array
DSP_INLINE cplx fetch_second(const plan *t, const cplx *row, size_t b) { (void)t; return row[b]; }
DSP_INLINE void put_second(const plan *t, cplx *row, size_t q, cplx x) { (void)t; row[q] = x; }

typedef cplx (*fetch_fn)(const plan *, const cplx *, size_t);
typedef void (*put_fn)(const plan *, cplx *, size_t, cplx);

// P Q points; `tw` belongs to n points
DSP_INLINE void small(const int P, const int Q, fetch_fn fetch, put_fn put, const plan *t, const cplx *from, cplx *to) {
    const size_t unit = t->n / (size_t)(P * Q);
    cplx mid[64];
    for (int j = 0; j < Q; j++) {
        cplx u[8];
        DSP_UNROLL for (int i = 0; i < P; i++) u[i] = fetch(t, from, (size_t)(Q * i + j));
        dft(P, u);
        DSP_UNROLL for (int i = 0; i < P; i++) {
            const float *w = t->tw + 2 * unit * (size_t)(i * j);
            mid[i * Q + j] = i == 0 ? u[i] : turn(u[i], w[0], w[1]);
        }
    }
    for (int i = 0; i < P; i++) {
        cplx u[8];
        DSP_UNROLL for (int j = 0; j < Q; j++) u[j] = mid[i * Q + j];
        dft(Q, u);
        DSP_UNROLL for (int j = 0; j < Q; j++) put(t, to, (size_t)(i + P * j), u[j]);
    }
}

DSP_INLINE void points(size_t size, fetch_fn fetch, put_fn put, const plan *t, const cplx *from, cplx *to) {
    if (size == 8) small(8, 1, fetch, put, t, from, to);
    else if (size == 16) small(4, 4, fetch, put, t, from, to);
    else if (size == 32) small(8, 4, fetch, put, t, from, to);
    else small(8, 8, fetch, put, t, from, to);
}

// |(Z[k] + Z*[n-k]) / 2|^2 and |(Z[k] - Z*[n-k]) / 2i|^2
DSP_INLINE void split(cplx a, cplx b, cplx *power) {
    const f8 ar = a.re + b.re, ai = a.im - b.im, br = a.im + b.im, bi = b.re - a.re;
    power->re += (ar * ar + ai * ai) * 0.25f;
    power->im += (br * br + bi * bi) * 0.25f;
}

DSP_INLINE void segment(const float *x, size_t n, size_t A, size_t B, size_t stride, const float *window,
                        const float *tw, cplx *sum, cplx *in, cplx *work) {
    const size_t pitch = B + 1;
    cplx out[2][64], mean = {{0}, {0}};
    const cplx level = {*(const f8 *)x, *(const f8 *)(x + 8)};   // an electrode's offset would cost the digits of the mean
    for (size_t a = 0; a < A; a++) {
        cplx part = {{0}, {0}};
        for (size_t b = 0; b < B; b++, x += stride) {
            const cplx row = sub((cplx){*(const f8 *)x, *(const f8 *)(x + 8)}, level);
            in[a * pitch + b] = row;
            part = add(part, row);
        }
        mean = add(mean, part);
    }
    mean.re *= 1.0f / (float)n;
    mean.im *= 1.0f / (float)n;
    plan t = {in, window, tw, work, mean, n, A, B, 0};
    for (t.b = 0; t.b < B; t.b++) points(A, fetch_first, put_first, &t, NULL, NULL);
    for (size_t p = 0; p <= A / 2; p++) {
        const size_t mirror = (A - p) % A;
        points(B, fetch_second, put_second, &t, work + p * pitch, out[0]);
        if (mirror != p) points(B, fetch_second, put_second, &t, work + mirror * pitch, out[1]);
        const cplx *other = mirror != p ? out[1] : out[0];
        for (size_t q = 0; q < B; q++) split(out[0][q], other[p ? B - 1 - q : (B - q) % B], sum + p * B + q);
    }
}

// sum[p][q] belongs to k = p + A q, or, from n / 2 up, to its mirror image with the two columns' roles unchanged
DSP_INLINE void scatter(const cplx *sum, size_t n, size_t A, size_t B, size_t stride, float *power) {
    for (size_t p = 0; p <= A / 2; p++)
        for (size_t q = 0; q < B; q++) {
            const size_t k = p + A * q;
            if (k > n / 2 && (p == 0 || 2 * p == A)) continue;   // its mirror image is in the same row
            float *at = power + (k <= n / 2 ? k : n - k) * stride;
            *(f8 *)at += sum[p * B + q].re;
            *(f8 *)(at + 8) += sum[p * B + q].im;
        }
}

DSP_INLINE void segments(const float *x, size_t n, size_t A, size_t B, size_t step, size_t count, size_t stride,
                         const float *window, const float *tw, float *power, cplx *scratch) {
    const size_t bins = (A / 2 + 1) * B;
    cplx *sum = scratch, *in = sum + bins, *work = in + A * (B + 1);
    memset(sum, 0, bins * sizeof *sum);
    for (size_t i = 0; i < count; i++) segment(x + i * step * stride, n, A, B, stride, window, tw, sum, in, work);
    scatter(sum, n, A, B, stride, power);
}

DSP_CLONES void welch_segments(const float *x, size_t n, size_t step, size_t count, size_t stride, const float *window,
                               const float *twiddles, float *power, float *scratch) {
    for (size_t c = 0; c < stride; c += 16) {
#define OF(A, B) segments(x + c, n, A, B, step, count, stride, window, twiddles, power + c, (cplx *)scratch)
        switch (n) {
            case 64: OF(8, 8); break;
            case 128: OF(16, 8); break;
            case 256: OF(16, 16); break;
            case 512: OF(32, 16); break;
            case 1024: OF(32, 32); break;
            case 2048: OF(64, 32); break;
            case 4096: OF(64, 64); break;
        }
#undef OF
    }
}

size_t welch_scratch(size_t n) { return 16 * (n / 2 + 64 + 2 * (n + 64)); }

// Roots of unity from square roots alone (half angles and products), so that they are the same bits on every machine:
// a library's sine is not.  float64 inside, error below 1e-15.  0 when n is no power of two of the range.
int welch_twiddles(size_t n, float *out) {
    if (n < WELCH_SHORTEST || n > WELCH_LONGEST || n & (n - 1)) return 0;
    double c[WELCH_LONGEST], s[WELCH_LONGEST];
    c[0] = 1.0, s[0] = 0.0;
    c[n / 2] = -1.0, s[n / 2] = 0.0;
    c[n / 4] = 0.0, s[n / 4] = -1.0;
    c[3 * n / 4] = 0.0, s[3 * n / 4] = 1.0;
    // c, s of the angle of n / 8, n / 16, ...: half of the one before; others are a known one plus that step
    for (size_t step = n / 8; step; step /= 2) {
        const double whole = c[2 * step], half_c = sqrt(0.5 * (1.0 + whole)), half_s = -sqrt(0.5 * (1.0 - whole));
        for (size_t k = step; k < n; k += 2 * step) {
            const double pc = c[k - step], ps = s[k - step];
            c[k] = pc * half_c - ps * half_s;
            s[k] = ps * half_c + pc * half_s;
        }
    }
    for (size_t k = 0; k < n; k++) out[2 * k] = (float)c[k], out[2 * k + 1] = (float)s[k];
    return 1;
}
