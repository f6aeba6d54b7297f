"""Gaussian smoothing of a finished curve, and of the autocovariance of the noise in it.

Pure.  In: float64[sample] and a standard deviation in samples.  Out: new memory, same length; ends are held.
Symmetric, so a symmetric peak does not move.  Sums in order (ext/dsp/noise.c): the same bytes anywhere.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from ionmd.dsp.layout import F64, curves

REACH = 3.5  # standard deviations kept on each side


@lru_cache(maxsize=256)
def weights(sigma: float) -> F64:
    """Half of the kernel, centre first; the whole sums to 1."""
    if not sigma > 0.0:
        return np.ones(1)
    half = math.ceil(REACH * sigma)
    out = np.empty(half + 1)
    curves.gaussian_half(sigma, half, out)
    return out


def gaussian(x: F64, sigma: float, span: tuple[int, int] | None = None) -> F64:
    """`x` smoothed by a Gaussian of `sigma` samples; with a span only those columns are, the rest stays as it is."""
    x = np.asarray(x, np.float64)
    kernel = weights(sigma)
    if span is None:
        return _symmetric(x, kernel, float(x[0]), float(x[-1]))
    start, stop = max(0, span[0]), min(len(x), span[1])
    lo, hi = max(0, start - len(kernel)), min(len(x), stop + len(kernel))
    out = x.copy()
    if start < stop:
        out[start:stop] = _symmetric(x[lo:hi], kernel, float(x[lo]), float(x[hi - 1]))[start - lo : stop - lo]
    return out


def autocovariance(r: F64, sigma: float, lags: int | None = None) -> F64:
    """Autocovariance float64[lag] of noise after `gaussian` of the same sigma, of the first `lags` or all; what is
    beyond the lags given counts as zero."""
    kernel = weights(sigma * math.sqrt(2.0))
    count = len(r) if lags is None else min(lags, len(r))
    reach = len(kernel) - 1
    wide = np.zeros(count + 2 * reach)
    back, ahead = min(reach, len(r) - 1), min(count + reach, len(r))
    wide[reach - back : reach] = r[back:0:-1]
    wide[reach : reach + ahead] = r[:ahead]
    out = np.empty(count)
    curves.smooth_symmetric(wide, count, kernel, reach, out)
    return out


def _symmetric(x: F64, kernel: F64, before: float, after: float) -> F64:
    n, reach = len(x), len(kernel) - 1
    if reach == 0:
        return x.copy()
    wide = np.concatenate([np.full(reach, before), x, np.full(reach, after)])
    out = np.empty(n)
    curves.smooth_symmetric(wide, n, kernel, reach, out)
    return out
