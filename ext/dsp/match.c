// SPDX-License-Identifier: Apache-2.0
// match.c -- normalised cross-correlation of short templates with finished curves.
//
//   x          in   float32[channels, n]
//   templates  in   float32[channels, m], or [m] for all (`each` 0); zero mean and unit energy each
//   out        out  float32[channels, n - m + 1]: correlation at each lag, -1..1; 0 where the curve is flat
//   scratch         float32[match_scratch(m, n - m + 1)], 64-byte aligned
// Eight channels (sixteen with 512-bit vectors) go side by side in the lanes of a vector, so that every load is aligned and
// the norm is a vector too.
// The core holds LAGS sums in registers and takes two taps of the template at once: 9 loads for 16 products.  (One
// channel along the lanes needs an unaligned load per product, half of which cross a cache line.)
// Two lags and two taps need three products instead of four:
//   t0 x0 + t1 x1 = t0 (x0 - x1) + (t0 + t1) x1        t0 x1 + t1 x2 = (t0 + t1) x1 + t1 (x2 - x1)
// so a correlation is three of half the taps at half the lags (the "fast FIR algorithm" of order 2).
// Sums: products float32 over at most m taps; energy of the window float64, running, and its root float32.  Each curve is
// first freed of its mean, so an offset costs no digits.
#include "kernels.h"
#include "lanes.h"

enum { LAGS = 8, TAPS = 64, MOST_WIDE = 16 };

typedef struct { size_t taps, lags, rows; } match_size;   // half the taps and lags, rounded up; rows of x that are read

static match_size size_of(size_t m, size_t lags) {
    const size_t taps = ((m + 1) / 2 + 1) / 2 * 2, half = ((lags + 1) / 2 + LAGS - 1) / LAGS * LAGS;
    return (match_size){taps, half, 2 * (half + taps + 1) + 1};
}

size_t match_scratch(size_t m, size_t lags) {
    const match_size size = size_of(m, lags);
    return MOST_WIDE * (size.rows + 5 * size.taps + 4 * size.lags + 3 * (size.lags + size.taps + 1) + 3 * size.lags);
}

#define WIDE 8
#define VEC f8
#define REAL d4
#define HALF f4
#define OF(p) d4_of(p)
#define NAMED(x) x##8
#define ATTRIBUTE DSP_CLONES
#include "match_pass.h"
#ifdef DSP_WIDE
#define WIDE 16
#define VEC f16
#define REAL d8
#define HALF f8
#define OF(p) d8_of(p)
#define NAMED(x) x##16
#define ATTRIBUTE DSP_WIDE
#include "match_pass.h"
#endif

void match_template(const float *x, size_t channels, size_t n, const float *templates, size_t each, size_t m,
                    float *out, float *scratch) {
#ifdef DSP_WIDE
    if (channels > 8 && dsp_wide()) {
        match16(x, channels, n, templates, each, m, out, scratch);
        return;
    }
#endif
    match8(x, channels, n, templates, each, m, out, scratch);
}
