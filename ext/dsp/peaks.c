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
// peaks take each sample once.
#include "kernels.h"
#include "lanes.h"

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

size_t peaks_scratch(size_t columns) { return columns / 2 + 1; }

size_t peaks_find(const double *y, size_t lo, size_t hi, double sign, size_t first, size_t last, double least,
                  dsp_peak *out, size_t room, dsp_summit *all) {
    // every peak, and the lowest value between it and the one before
    size_t n = 0, found = 0;
    double low = sign * y[lo];
    int whole = low == low;
    for (size_t i = lo + 1; i + 1 < hi; i++) {
        const double v = sign * y[i];
        whole &= v == v;
        low = v < low ? v : low;
        if (!(v > sign * y[i - 1])) continue;
        const size_t end = plateau(y, sign, i, hi);
        if (!end) continue;
        all[n++] = (dsp_summit){v, low, (i + end - 1) / 2, 0, 0.0};
        low = v;
        i = end - 1;
    }
    const double tail = sign * y[hi - 1] < low ? sign * y[hi - 1] : low;
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
