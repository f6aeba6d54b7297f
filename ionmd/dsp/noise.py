"""How noisy is a finished average?

Pure.  In: a filtered average with its halves (odd and even sweeps) and parts (successive sub-averages), all filtered
and baseline-corrected alike.  Out: NoiseEstimate: residual noise of the average in its own band, its autocovariance
(neighbouring samples of filtered noise are not independent), Fmp, SNR and split-half reproducibility.
Always: what is common to all parts is taken for response, what differs between them for noise.  The contrasts between
parts and the contrast odd - even are orthogonal, so both are used and their degrees of freedom add.
Formulas: docs/sources.md#residual-noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ionmd.dsp import smooth
from ionmd.dsp.layout import curves
from ionmd.dsp.presence import effective_dof, snr_db

F64 = npt.NDArray[np.float64]
PIECES = 16
MOST_PARTS = 20
NOTHING_UV = 1e-10  # less is rounding: a dead or constant column has no noise to judge by
QUIETER = 0.3  # this quantile of the pieces' power ...
QUIETER_IS = 1.6  # ... times this is the mean of a stationary noise (pieces of some four independent values)
LAG_MS = 12.0  # the noise of a 30 Hz high-pass is uncorrelated beyond about 10 ms


@dataclass(frozen=True)
class NoiseEstimate:
    """Noise of one derivation of one average.

    residual_uv      rms of the noise left in the average
    contrasts        independent noise waveforms it was estimated from (degrees of freedom per independent sample)
    autocovariance   float64[lag], uV^2, of the noise left in the average; lag 0 = residual_uv ** 2
    window           (start, stop) columns for which fmp, snr_db and reproducibility hold
    halves           the two half-averages, when there are any
    sweeps           accepted sweeps, 0 when unknown
    known            False: nothing to estimate from; residual_uv is then 0 and says nothing
    """

    residual_uv: float
    contrasts: float
    autocovariance: F64
    dt_ms: float
    window: tuple[int, int]
    fmp: float = 0.0
    snr_db: float = -20.0
    reproducibility: float | None = None
    plus_minus_uv: float | None = None
    halves: tuple[F64, F64] | None = None
    sweeps: int = 0
    known: bool = True
    noise_samples: int = 0
    _cache: dict[int, float] = field(default_factory=dict, repr=False, compare=False)

    def dof(self, samples: int) -> float:
        """Independent values in so many samples."""
        if samples not in self._cache:
            self._cache[samples] = effective_dof(self.autocovariance, samples)
        return self._cache[samples]

    @property
    def noise_dof(self) -> float:
        """Degrees of freedom of residual_uv ** 2."""
        return max(1.0, self.contrasts * self.dof(self.noise_samples))

    def scaled(self, sweeps: int) -> NoiseEstimate:
        """The noise that an average of `sweeps` such sweeps would have: power goes with 1 / sweeps."""
        if not (self.known and self.sweeps > 0 and sweeps > 0):
            return self
        r = self.autocovariance * (self.sweeps / sweeps)
        return replace(self, autocovariance=r, residual_uv=math.sqrt(float(r[0])), sweeps=sweeps, _cache={})

    def smoothed(self, sigma: float) -> NoiseEstimate:
        """The noise of the same average after `smooth.gaussian` by `sigma` samples."""
        if not (self.known and sigma > 0.0):
            return self
        r = smooth.autocovariance(self.autocovariance, sigma)
        return replace(self, autocovariance=r, residual_uv=math.sqrt(max(0.0, float(r[0]))), _cache={})

    def variance_of_difference(self, lag_samples: float) -> float:
        """Variance of n(t) - n(t + lag) of the noise in the average."""
        r = self.autocovariance
        i = min(abs(lag_samples), len(r) - 1.0)
        k = min(int(i), len(r) - 2)
        at = float(r[k]) + (i - k) * float(r[k + 1] - r[k]) if abs(lag_samples) < len(r) - 1 else 0.0
        return max(0.0, 2.0 * (float(r[0]) - at))


def _sum(values: F64) -> float:
    return float(np.add.reduce(values))


def power(values: F64) -> float:
    """Mean of squares."""
    return _sum(values * values) / max(1, len(values))


def correlation(a: F64, b: F64) -> float:
    """Correlation of two stretches; 0 when either is flat."""
    a, b = a - _sum(a) / len(a), b - _sum(b) / len(b)
    scale = math.sqrt(_sum(a * a) * _sum(b * b))
    return _sum(a * b) / scale if scale > 0.0 else 0.0


def estimate(
    mean_uv: F64,
    halves: Sequence[F64],
    parts: Sequence[F64],
    counts: Sequence[float],
    window: tuple[int, int],
    dt_ms: float,
    beyond: Sequence[F64] = (),
) -> NoiseEstimate:
    """The noise of `mean_uv`, from whatever parts of it there are.

    mean_uv   float64[sample]
    halves    two half-averages of the same sweeps, or none
    parts     successive sub-averages of the same sweeps, or none
    counts    sweeps in each part; times its weight in `mean_uv` where parts weigh differently
    window    (start, stop) columns that hold the response; noise is taken from `start` to the end of the average
    beyond    half the difference of the halves outside the average's epoch, where a file has more of it
    """
    lo = min(max(0, window[0]), max(0, len(mean_uv) - 8))
    lags = _lags(len(mean_uv) - lo, dt_ms)
    total = np.zeros(lags)
    contrasts = 0.0
    used = _grouped([(p[lo:], c) for p, c in zip(parts, counts, strict=True) if c > 0])
    sweeps = sum(c for _, c in used)
    whole = round(sweeps)
    if len(used) >= 2:
        middle = np.zeros(len(mean_uv) - lo)
        for part, count in used:
            middle += part * (count / sweeps)
        for part, count in used:
            total += _autocovariance(part - middle, lags) * (count / sweeps)
        contrasts += len(used) - 1.0
    pm = None
    if len(halves) == 2:
        half_difference = (halves[0][lo:] - halves[1][lo:]) * 0.5
        pm = math.sqrt(power(half_difference))
        pooled, weight = _autocovariance(half_difference, lags) * len(half_difference), len(half_difference)
        for stretch in beyond:
            if len(stretch) > lags:
                pooled += _autocovariance(stretch, lags) * len(stretch)
                weight += len(stretch)
        total += pooled / weight
        contrasts += weight / len(half_difference)
    both = (np.asarray(halves[0]), np.asarray(halves[1])) if len(halves) == 2 else None
    if contrasts == 0.0:
        return NoiseEstimate(0.0, 0.0, np.zeros(2), dt_ms, window, sweeps=whole, known=False)
    shares = (len(used) - 1.0 if len(used) >= 2 else 0.0) + (1.0 if both is not None else 0.0)
    return _finish(mean_uv, total / shares, contrasts, dt_ms, window, both, pm, whole, len(mean_uv) - lo)


def _grouped(parts: list[tuple[F64, float]]) -> list[tuple[F64, float]]:
    """Neighbours joined until there are MOST_PARTS at most: more say little more about the noise, and cost as much."""
    each = math.ceil(len(parts) / MOST_PARTS)
    if each <= 1:
        return parts
    found = []
    for k in range(0, len(parts), each):
        total = sum(c for _, c in parts[k : k + each])
        joined = np.zeros(len(parts[0][0]))
        for part, count in parts[k : k + each]:
            joined += part * (count / total)
        found.append((joined, total))
    return found


def estimate_from_stretches(
    mean_uv: F64, stretches: Sequence[F64], window: tuple[int, int], dt_ms: float
) -> NoiseEstimate:
    """The noise of an average of which there are no parts: from stretches of it that hold no response.

    The stretches went through the filter of the average.  They are cut into pieces; the shape of the autocovariance is
    that of the whole, its level that of the quieter pieces: the late end of a strong response in half of them, or an
    artefact, does not pass for noise.
    """
    usable = [s - _sum(s) / len(s) for s in stretches if len(s) >= 16]
    if not usable:
        return NoiseEstimate(0.0, 0.0, np.zeros(2), dt_ms, window, known=False)
    longest = max(len(s) for s in usable)
    lags = _lags(longest, dt_ms)
    total, weight = np.zeros(lags), 0
    levels = []
    piece = max(8, sum(len(s) for s in usable) // PIECES)
    for s in usable:
        part = _autocovariance(s, min(lags, len(s) // 2))
        total[: len(part)] += part * len(s)
        weight += len(s)
        levels += [power(s[k : k + piece]) for k in range(0, max(1, len(s) - piece + 1), piece)]
    levels.sort()
    quiet = levels[int(QUIETER * (len(levels) - 1) + 0.5)] * QUIETER_IS
    shape = total / weight
    if shape[0] > 0.0:
        shape *= min(1.0, quiet / float(shape[0]))
    return _finish(mean_uv, shape, weight / longest, dt_ms, window, None, None, 0, longest)


def _finish(
    mean_uv: F64, autocovariance: F64, contrasts: float, dt_ms: float, window: tuple[int, int],
    halves: tuple[F64, F64] | None, plus_minus_uv: float | None, sweeps: int, noise_samples: int,
) -> NoiseEstimate:  # fmt: skip
    residual2 = float(autocovariance[0])
    a, b = max(0, window[0]), min(len(mean_uv), window[1])
    fmp = power(mean_uv[a:b]) / residual2 if residual2 > NOTHING_UV**2 and b > a else 0.0
    reproducibility = correlation(halves[0][a:b], halves[1][a:b]) if halves is not None and b > a + 2 else None
    return NoiseEstimate(
        math.sqrt(max(0.0, residual2)), contrasts, autocovariance, dt_ms, window, fmp, snr_db(fmp), reproducibility,
        plus_minus_uv, halves, sweeps, residual2 > NOTHING_UV**2, noise_samples,
    )  # fmt: skip


def _lags(samples: int, dt_ms: float) -> int:
    return max(2, min(samples // 2, int(LAG_MS / dt_ms) + 1))


def _autocovariance(x: F64, lags: int) -> F64:
    """Each lag over the products it has.  Kernel: ext/dsp/noise.c."""
    out = np.empty(lags)
    curves.autocovariance(np.ascontiguousarray(x, np.float64), len(x), lags, out)
    return out
