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
// Sums: products float32 over at most m taps; energy of the window float64, running.  Each curve is first freed of its
// mean, so an offset costs no digits.
#include "kernels.h"
#include "lanes.h"

enum { LAGS = 8, TAPS = 64, MOST_WIDE = 16 };

size_t match_scratch(size_t m, size_t lags) {
    const size_t rounded = (lags + LAGS - 1) / LAGS * LAGS;   // the last block of lags may read zeros beyond n
    return MOST_WIDE * (rounded + m + 1 + m + 1 + rounded);
}

#define WIDE 8
#define VEC f8
#define REAL d4
#define MASK l4
#define OF(p) d4_of(p)
#define NAMED(x) x##8
#define ATTRIBUTE DSP_CLONES
#include "match_pass.h"
#ifdef DSP_WIDE
#define WIDE 16
#define VEC f16
#define REAL d8
#define MASK l8
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
