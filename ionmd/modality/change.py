"""How much of a reference response is in a short average, and has it moved?

In: a sub-average (25 sweeps or so) and the reference it belongs to, both filtered alike.  Out: the ratio of amplitudes
by projection on the reference's own shape, and the shift in latency, each with a standard error.  Projection uses every
sample of the response, a peak-to-peak amplitude only two: the same sweeps say several times more.
Always: the noise is that of the sub-average and is coloured; neighbouring samples are not counted twice.  Pure.
Formulas: docs/sources.md#projection.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ionmd.dsp.noise import NoiseEstimate

F64 = npt.NDArray[np.float64]


def _sum(x: F64) -> float:
    return float(np.add.reduce(x))


def _cut(curve: F64, window: tuple[int, int]) -> F64:
    part = curve[max(0, window[0]) : min(len(curve), window[1])]
    return part - _sum(part) / max(1, len(part))


def projection_ratio(
    sub_mean_uv: F64, reference_uv: F64, window: tuple[int, int], noise: NoiseEstimate
) -> tuple[float, float]:
    """(ratio, se): the amplitude of the reference's shape in `sub_mean_uv`, 1 for no change, 0 for lost.

    window   (start, stop) columns of the response
    noise    of the sub-average, e.g. noise.scaled of the running average to its sweeps
    (nan, inf) when the reference is flat in the window.
    """
    reference, sub = _cut(reference_uv, window), _cut(sub_mean_uv, window)
    energy = _sum(reference * reference)
    if not energy > 0.0:
        return math.nan, math.inf
    ratio = _sum(sub * reference) / energy
    return ratio, math.sqrt(_variance_of_projection(reference, noise)) / energy


def _variance_of_projection(shape: F64, noise: NoiseEstimate) -> float:
    """Variance of the sum over samples of noise x shape."""
    r = noise.autocovariance
    n = len(shape)
    total = float(r[0]) * _sum(shape * shape)
    for lag in range(1, min(len(r), n)):
        total += 2.0 * float(r[lag]) * _sum(shape[: n - lag] * shape[lag:])
    return max(0.0, total)


def latency_shift(
    sub_mean_uv: F64, reference_uv: F64, window: tuple[int, int], noise: NoiseEstimate, most: int
) -> tuple[float, float]:
    """(shift, se) in samples: how much later `sub_mean_uv` comes than the reference, by cross-correlation.

    most     the largest shift looked for, in samples; a maximum there is no maximum: (nan, inf)
    """
    start, stop = max(most, window[0]), min(len(reference_uv) - most, window[1])
    if stop - start < 4:
        return math.nan, math.inf
    reference = _cut(reference_uv, (start, stop))
    score = []
    for shift in range(-most, most + 1):
        moved = _cut(sub_mean_uv, (start + shift, stop + shift))
        score.append(_sum(moved * reference))
    best = max(range(len(score)), key=score.__getitem__)
    if best in (0, len(score) - 1) or not score[best] > 0.0:
        return math.nan, math.inf
    left, mid, right = score[best - 1], score[best], score[best + 1]
    bend = left - 2.0 * mid + right
    if not bend < 0.0:
        return math.nan, math.inf
    place = best - most + 0.5 * (left - right) / bend
    slope = np.empty_like(reference)
    slope[1:-1] = 0.5 * (reference[2:] - reference[:-2])
    slope[0], slope[-1] = slope[1], slope[-2]
    return place, math.sqrt(_variance_of_projection(slope, noise)) / -bend
