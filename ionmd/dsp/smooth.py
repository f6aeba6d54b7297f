"""Gaussian smoothing of a finished curve, and of the autocovariance of the noise in it.

Pure.  In: float64[sample] and a standard deviation in samples.  Out: new memory, same length; ends are held.
Symmetric, so a symmetric peak does not move.  Weights by `math.exp` and plain sums: no BLAS, the same bytes anywhere.
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
    half = max(0, math.ceil(REACH * sigma))
    raw = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(half + 1)] if sigma > 0.0 else [1.0]
    total = raw[0] + 2.0 * math.fsum(raw[1:])
    return np.array([w / total for w in raw])


def gaussian(x: F64, sigma: float) -> F64:
    """`x` smoothed by a Gaussian of `sigma` samples."""
    return _symmetric(np.asarray(x, np.float64), weights(sigma), float(x[0]), float(x[-1]))


def autocovariance(r: F64, sigma: float) -> F64:
    """Autocovariance float64[lag] of noise after `gaussian` of the same sigma; zero beyond the lags given."""
    kernel = weights(sigma * math.sqrt(2.0))
    reach = len(kernel) - 1
    both = np.concatenate([r[:0:-1], r])
    smooth = _symmetric(np.concatenate([np.zeros(reach), both, np.zeros(reach)]), kernel, 0.0, 0.0)
    middle = reach + len(r) - 1
    return smooth[middle : middle + len(r)].copy()


def _symmetric(x: F64, kernel: F64, before: float, after: float) -> F64:
    n, reach = len(x), len(kernel) - 1
    if reach == 0:
        return x.copy()
    wide = np.concatenate([np.full(reach, before), x, np.full(reach, after)])
    out = np.empty(n)
    curves.smooth_symmetric(wide, n, kernel, reach, out)
    return out
