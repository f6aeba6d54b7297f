"""The filter of finished averages: forwards and backwards, so that no latency moves.

In: float64[derivation, sample].  Out: the same shape, new memory.
Always: equal to scipy.signal.sosfiltfilt (odd padding of its default length) over the span; samples outside the span
come back unfiltered.  Not for onsets: a backward pass smears the artefact into the time before it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ionmd.dsp.design import check_sos, sosfilt_zi
from ionmd.dsp.layout import F64, kernels


def pad_length(sos: F64) -> int:
    """Samples added at each end: three times the filter's taps."""
    sos = np.asarray(sos).reshape(-1, 6)
    taps = 2 * len(sos) + 1 - min(int((sos[:, 2] == 0).sum()), int((sos[:, 5] == 0).sum()))
    return 3 * taps


def filter_average(sos: F64, mean: npt.ArrayLike, zero_phase: bool, span: tuple[int, int] | None = None) -> F64:
    """Filter each row of `mean` (or one row alone).

    zero_phase   True: forwards and backwards; False: forwards only, started as if the first value had stood forever
    span         (start, stop) samples; None: all
    Raises ValueError when the span is too short for the padding, or holds nan or inf.
    """
    sos = check_sos(np.asarray(sos, np.float64).reshape(-1, 6))
    x = np.array(mean, np.float64, order="C")
    if x.ndim not in (1, 2):
        raise ValueError(f"an array of {x.ndim} axes came, [derivation, sample] was expected")
    start, stop = (0, x.shape[-1]) if span is None else span
    if not (0 <= start < stop <= x.shape[-1]):
        raise ValueError(f"span {start} to {stop} came, a range inside 0 to {x.shape[-1]} was expected")
    if len(sos) == 0:
        return x
    pad = pad_length(sos) if zero_phase else 0
    if stop - start <= pad:
        raise ValueError(f"a span of {stop - start} samples came, more than {pad} expected for {len(sos)} sections")
    coef = np.ascontiguousarray(sos[:, [0, 1, 2, 4, 5]])
    zi = sosfilt_zi(sos)
    for row in x.reshape(-1, x.shape[-1]):
        part = row[start:stop]
        if not bool(np.isfinite(part).all()):
            raise ValueError("nan or inf came in an average, finite microvolts were expected: was any sweep accepted?")
        part[:] = _both_ways(coef, zi, part, pad) if zero_phase else _forwards(coef, zi, part)
    return x


def _forwards(coef: F64, zi: F64, x: F64) -> F64:
    y = np.ascontiguousarray(x)
    out = np.empty_like(y)
    kernels.sosfilt_signal(coef, y, out, False, zi * y[0])
    return out


def _both_ways(coef: F64, zi: F64, x: F64, pad: int) -> F64:
    long = np.concatenate([2 * x[0] - x[pad:0:-1], x, 2 * x[-1] - x[-2 : -pad - 2 : -1]])
    kernels.sosfilt_signal(coef, long, long, False, zi * long[0])
    kernels.sosfilt_signal(coef, long, long, True, zi * long[-1])
    return long[pad : pad + len(x)]
