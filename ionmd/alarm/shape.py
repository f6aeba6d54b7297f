"""Size and likeness of one waveform against another.

Sums are math.fsum: exactly rounded, so the same samples give the same bytes on every machine.
"""

from __future__ import annotations

from math import fsum, sqrt

import numpy as np
import numpy.typing as npt

Wave = npt.NDArray[np.float64]


def _centred(x: Wave) -> list[float]:
    values: list[float] = x.tolist()
    mean = fsum(values) / len(values)
    return [v - mean for v in values]


def projection(x: Wave, reference: Wave) -> float:
    """How much of `reference` is in `x`: 1.0 unchanged, 0.0 gone, the least-squares factor.  nan for a flat reference.

    All samples of the window vote, so it varies far less than a peak-to-peak value of the same sweeps."""
    a, b = _centred(x), _centred(reference)
    power = fsum(v * v for v in b)
    return fsum(p * q for p, q in zip(a, b, strict=True)) / power if power > 0.0 else float("nan")


def correlation(x: Wave, y: Wave) -> float:
    """Pearson's r; 0.0 when either is flat."""
    a, b = _centred(x), _centred(y)
    power = fsum(v * v for v in a) * fsum(v * v for v in b)
    return fsum(p * q for p, q in zip(a, b, strict=True)) / sqrt(power) if power > 0.0 else 0.0
