// SPDX-License-Identifier: Apache-2.0
// peaks.c -- local extrema of a finished curve, with sub-sample place and prominence.
//
//   y            in   float64[hi] at least; sign 1 looks for maxima, -1 for minima
//   lo, hi       in   columns lo..hi - 1 are looked at for valleys
//   first, last  in   columns in which a peak may lie, inclusive; lo < first, last < hi - 1
//   least        in   only peaks of more prominence than this are given
//   out          out  dsp_peak[room], in time order; returns how many there are, which may be more than `room`
//   all               dsp_summit[peaks_scratch(hi - lo)]
// A peak goes up to it and down from it strictly; a plateau counts once, in its middle (as scipy.signal.find_peaks).
// Prominence: height over the higher of the two valleys, each reaching to the next strictly higher sample or to the
// edge of lo..hi.  Place: vertex of the parabola through three samples.  nan is neither higher nor lower: no peak.
// Walking from each peak to its valleys costs n log n on noise and took 7 us for 720 samples; two passes with a stack of
// peaks take each peak once.
#include "kernels.h"
#include "lanes.h"
#include <stdlib.h>

// Lowest value on the way from `at` to `stop` (not included), walking by `step` until a value is higher than `top`.
DSP_INLINE double valley(const double *y, double sign, double top, ptrdiff_t at, ptrdiff_t stop, ptrdiff_t step) {
    double low = top;
    for (; at != stop; at += step) {
        const double v = sign * y[at];
        if (v > top) break;
        low = v < low ? v : low;
    }
    return low;
}

DSP_INLINE dsp_peak describe(const double *y, size_t i, double sign, double prominence) {
    const double left = sign * y[i - 1], mid = sign * y[i], right = sign * y[i + 1];
    const double bend = left - 2.0 * mid + right;
    const double shift = bend < 0.0 ? 0.5 * (left - right) / bend : 0.0;
    return (dsp_peak){(double)i + shift, sign * (mid - 0.25 * (left - right) * shift), prominence,
                      bend < 0.0 ? -bend : 0.0, (double)i};
}

// One past the plateau that a rise into column i begins, or 0 when it does not end in a fall before hi.
DSP_INLINE size_t plateau(const double *y, double sign, size_t i, size_t hi) {
    size_t j = i + 1;
    while (j < hi && y[j] == y[i]) j++;
    return j < hi && sign * y[j] < sign * y[i] ? j : 0;
}

// summits, then an index per turn, then a byte per column
size_t peaks_scratch(size_t columns) {
    const size_t bytes = (columns / 2 + 2) * sizeof(dsp_summit) + columns * sizeof(size_t) + columns + 16;
    return bytes / sizeof(dsp_summit) + 1;
}

// up[i] = 1 where y rises from i to i + 1, i < n; returns 0 when there is a nan among the n + 1 values.
DSP_CLONES static int rises(const double *y, size_t n, double sign, uint8_t *up) {
    int odd = y[n] != y[n];
    for (size_t i = 0; i < n; i++) up[i] = sign * y[i + 1] > sign * y[i];
    for (size_t i = 0; i < n; i++) odd |= y[i] != y[i];
    return !odd;
}

// Columns where up changes, in order: by turns the end of a rise and the beginning of one.  Eight at a time, because a
// test for each sample is four fifths of the whole search (2.3 us for 720 samples).  Little-endian, as all that we run on.
DSP_INLINE size_t turns(const uint8_t *up, size_t n, size_t lo, size_t *at) {
    size_t many = 0, i = 1;
    for (; i + 8 <= n; i += 8) {
        uint64_t now, before;
        memcpy(&now, up + i, 8);
        memcpy(&before, up + i - 1, 8);
        for (uint64_t w = now ^ before; w; w &= w - 1) at[many++] = lo + i + (size_t)__builtin_ctzll(w) / 8;
    }
    for (; i < n; i++)
        if (up[i] != up[i - 1]) at[many++] = lo + i;
    return many;
}

// The same with nan, which is neither higher nor lower; every value is looked at.
static size_t summits_between_nans(const double *y, size_t lo, size_t hi, double sign, dsp_summit *all, double *tail) {
    size_t n = 0;
    double low = sign * y[lo];
    for (size_t i = lo + 1; i + 1 < hi; i++) {
        const double v = sign * y[i];
        low = v < low ? v : low;
        if (!(v > sign * y[i - 1])) continue;
        const size_t end = plateau(y, sign, i, hi);
        if (!end) continue;
        all[n++] = (dsp_summit){v, low, (i + end - 1) / 2, 0, 0.0};
        low = v;
        i = end - 1;
    }
    *tail = sign * y[hi - 1] < low ? sign * y[hi - 1] : low;
    return n;
}

// Every peak, with the lowest value between it and the one before; `tail`: the lowest behind the last one.
DSP_INLINE size_t summits(const double *y, size_t lo, size_t hi, double sign, dsp_summit *all, double *tail, int *whole) {
    size_t *at = (size_t *)(void *)(all + (hi - lo) / 2 + 2), n = 0;
    uint8_t *up = (uint8_t *)(at + (hi - lo));
    *whole = rises(y + lo, hi - lo - 1, sign, up);
    if (!*whole) return summits_between_nans(y, lo, hi, sign, all, tail);
    const size_t many = turns(up, hi - lo - 1, lo, at);
    int top = up[0];
    double low = sign * y[lo];
    for (size_t k = 0; k < many; k++, top = !top) {
        const size_t i = at[k];
        const double v = sign * y[i];
        if (!top) {
            low = v < low ? v : low;
            continue;
        }
        const size_t end = y[i + 1] != y[i] ? i + 1 : plateau(y, sign, i, hi);
        if (!end) continue;   // a step on the way up
        all[n++] = (dsp_summit){v, low, (i + end - 1) / 2, 0, 0.0};
        low = v;
    }
    *tail = sign * y[hi - 1] < low ? sign * y[hi - 1] : low;
    return n;
}

size_t peaks_find(const double *y, size_t lo, size_t hi, double sign, size_t first, size_t last, double least,
                  dsp_peak *out, size_t room, dsp_summit *all) {
    double tail;
    int whole;
    const size_t n = summits(y, lo, hi, sign, all, &tail, &whole);
    size_t found = 0;
    // The valley on its right reaches over all peaks that are not higher: those are on a stack, each with how far it saw.
    // The same from the left is kept in `before`.
    for (size_t i = n; i-- > 0;) {
        double after = i + 1 < n ? all[i + 1].before : tail;
        size_t next = i + 1;
        while (next < n && all[next].top <= all[i].top) {
            after = all[next].after < after ? all[next].after : after;
            next = all[next].next;
        }
        all[i].after = after;
        all[i].next = next;
    }
    for (size_t i = 0; i < n; i++) {
        double before = all[i].before;
        size_t previous = i;   // index + 1 of the next one to look at
        while (previous > 0 && all[previous - 1].top <= all[i].top) {
            before = all[previous - 1].before < before ? all[previous - 1].before : before;
            previous = all[previous - 1].next;
        }
        all[i].before = before;
        all[i].next = previous;
        const size_t k = all[i].index;
        const double top = all[i].top;
        if (k < first || k > last) continue;
        double after = all[i].after;
        if (!whole) {   // a rise that ends in a nan is no peak, but it is higher: look at every sample
            before = valley(y, sign, top, (ptrdiff_t)k - 1, (ptrdiff_t)lo - 1, -1);
            after = valley(y, sign, top, (ptrdiff_t)k + 1, (ptrdiff_t)hi, 1);
        }
        const double prominence = top - (before > after ? before : after);
        if (!(prominence > least)) continue;
        if (found < room) out[found] = describe(y, k, sign, prominence);
        found++;
    }
    return found;
}

static int stronger(const void *one, const void *other) {
    const dsp_peak *a = one, *b = other;
    if (a->prominence != b->prominence) return a->prominence > b->prominence ? -1 : 1;
    return a->index < b->index ? -1 : 1;
}

// peaks_rank: the most prominent first, equals in time order
void peaks_rank(dsp_peak *peak, size_t n) {
    if (n > 1) qsort(peak, n, sizeof *peak, stronger);
}
