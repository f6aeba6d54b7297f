"""A wave of known shape in a finished average: shape where the noise hides the curve, the curve where it does not.

Pure.  In: one finished average with its noise and a Template: the mean shape of the response and the ways in which it
is known to vary.  Out: Matched: a curve m = T + g S (y - T), in which T is the template fitted to the average y, S a
Gaussian smoother and g its gain, and the variance of its values and slopes.
Always: the smoother is chosen from the misfit, so a response of another shape is not bent into the template: what the
template does not explain and the noise does not either makes the smoother narrow, and with little noise m is y itself.
Kernel: ext/dsp/shape.c, without BLAS: the same bytes on the same architecture.  Where a curve is looked at, and only
there, its variances are worked out.
Formulas and their origin: docs/sources.md#matched-shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ionmd.dsp import smooth
from ionmd.dsp.interval import slope_variance
from ionmd.dsp.layout import curves as kernels
from ionmd.dsp.noise import NoiseEstimate, power

F64 = npt.NDArray[np.float64]

GRID_MS = 0.5  # points of the fit: the noise below 500 Hz says little more in between
COARSE_MS, FINE_MS = 0.4, 0.1
NUGGET = 0.02  # of the noise's variance: what its autocovariance, itself an estimate, cannot be trusted for
LEAST_Z = 3.0  # amplitude over its error below which nothing is known about a shape
MISFIT_MS = 1.2  # time over which a misfit of the shape stays alike
SMOOTHERS_MS = (0.0, 0.1, 0.2, 0.3, 0.45, 0.65, 0.95, 1.4)


@dataclass(frozen=True)
class Template:
    """A shape as the finished filter leaves it.

    curves    float64[1 + k, sample]: the mean shape, 1 uV peak to peak, then k ways to vary, each times its sd
    t0_ms, dt_ms  its axis; it is zero outside
    window_ms     where it is compared with an average
    """

    curves: F64
    t0_ms: float
    dt_ms: float
    window_ms: tuple[float, float]

    def at(self, first_ms: float, step_ms: float, count: int) -> F64:
        """float64[1 + k, time] by cubic convolution."""
        k = len(self.curves)
        out = np.empty((count, k))
        kernels.shape_at(self.curves, k, (first_ms - self.t0_ms) / self.dt_ms, step_ms / self.dt_ms, count, out)
        return out.T


@dataclass(frozen=True)
class _Fit:
    """The template laid on the samples of a curve: its ways to vary, a level, and its movement in time."""

    template: Template
    heights: F64  # of the template's curves
    start_ms: float  # of sample 0 in the template's own time
    dt_ms: float

    def fitted(self, count: int, ahead: float = 0.0, first: int = 0, step: int = 1) -> F64:
        """The template at samples first, first + step, ...; `ahead` in samples."""
        one = Template(np.add.reduce(self.heights[:, None] * self.template.curves)[None], self.template.t0_ms,
                       self.template.dt_ms, self.template.window_ms)  # fmt: skip
        curve: F64 = one.at(self.start_ms + (first + ahead) * self.dt_ms, step * self.dt_ms, count)[0]
        return curve

    def design(self, count: int, first: int, step: int = 1) -> F64:
        """float64[parameter, sample]: change of the fit with each curve, its level and its shift in ms."""
        out = np.empty((len(self.heights) + 2, count))
        out[:-2] = self.template.at(self.start_ms + first * self.dt_ms, step * self.dt_ms, count)
        out[-2] = 1.0
        out[-1] = self.fitted(count, -1.0, first, step) - self.fitted(count, 1.0, first, step)
        out[-1] /= 2.0 * self.dt_ms
        return out


@dataclass(frozen=True)
class Matched:
    """curve  float64[sample], the average as far as its noise lets it be seen; smoothed_ms and
    trust  sd and gain of the smoother (0 and 1: the curve is the average, gain 0: it is the template); shift_ms  of the
    template; amplitude_uv  its peak to peak; misfit_uv  rms of what neither template nor noise explains."""

    curve: F64
    shift_ms: float
    amplitude_uv: float
    misfit_uv: float
    smoothed_ms: float
    trust: float
    _fit: _Fit
    _cover: F64  # covariance of the parameters
    _gain: F64  # float64[parameter, point]: parameters from the noise at the points of the fit
    _points: npt.NDArray[np.int64]
    _smooth: NoiseEstimate
    _cross: F64
    _unseen: tuple[float, float]

    def slope_variance(self, position: float) -> float:
        """Of the curve's central difference per sample: uV^2 per sample^2."""
        i = min(max(1, math.floor(position + 0.5)), len(self.curve) - 2)
        weight = 0.5 * (self._open(i + 1) - self._open(i - 1))
        cross = 0.5 * (self._covariance(i + 1) - self._covariance(i - 1))
        return self._total(weight, self.trust**2 * slope_variance(self._smooth), cross) + self._unseen[1]

    def difference_variance(self, a: float, b: float) -> float:
        """Of the curve's difference between two places."""
        i, j = (min(max(0, math.floor(p + 0.5)), len(self.curve) - 1) for p in (a, b))
        noise = self.trust**2 * self._smooth.variance_of_difference(i - j)
        cross = self._covariance(i) - self._covariance(j)
        return self._total(self._open(i) - self._open(j), noise, cross) + 2.0 * self._unseen[0]

    def _open(self, i: int) -> F64:
        """float64[parameter]: change of the curve at sample i: what the smoother does not give back."""
        kernel = smooth.weights(self.smoothed_ms / self._fit.dt_ms)
        reach = len(kernel) - 1
        design = self._fit.design(2 * reach + 1, i - reach)
        both = np.concatenate([kernel[:0:-1], kernel])
        found: F64 = design[:, reach] - self.trust * np.add.reduce(design * both, axis=1)
        return found

    def _covariance(self, i: int) -> F64:
        """Of the noise at the points with the smoothed noise at sample i."""
        lag = np.abs(self._points - i)
        known = lag < len(self._cross)
        return np.where(known, self._cross[np.where(known, lag, 0)], 0.0)

    def _total(self, weight: F64, noise: float, cross: F64) -> float:
        own = _sum2(weight, self._cover)
        with_noise = float(np.add.reduce(np.add.reduce(self._gain * cross, axis=1) * weight))
        return max(0.0, own + noise + 2.0 * with_noise)


def match(
    mean_uv: F64, t0_ms: float, dt_ms: float, template: Template, shifts_ms: tuple[float, float], noise: NoiseEstimate
) -> Matched | None:
    """The curve of `mean_uv` with the template's help; None when there is too little of the shape in it.

    mean_uv    float64[sample], through the filter that the template went through
    shifts_ms  (earliest, latest) place of the template's own time zero
    """
    step = max(1, math.floor(GRID_MS / dt_ms + 0.5))
    first = max(0, math.ceil((template.window_ms[0] - t0_ms) / dt_ms))
    stop = min(len(mean_uv), math.floor((template.window_ms[1] - t0_ms) / dt_ms) + 1)
    points = np.arange(first, stop, step)
    m, k = len(points), len(template.curves)
    if not noise.known or m < 4 * (k + 2):
        return None
    root = np.empty((m, m))
    kernels.shape_root(_covariance_row(noise, m, step), m, root)
    y = mean_uv[points]

    def look(shifts: list[float], prior_uv: float) -> tuple[float, F64]:
        """The best of the shifts and the coefficients there."""
        places = np.array([(t0_ms + dt_ms * first - s - template.t0_ms) / template.dt_ms for s in shifts])
        best = np.empty(k + 1)
        at = kernels.shape_search(
            template.curves, k, root, y, m, places, len(shifts), step * dt_ms / template.dt_ms, prior_uv, best
        )
        return shifts[at], best

    lo, hi = shifts_ms
    count = max(1, math.ceil((hi - lo) / COARSE_MS))
    window = mean_uv[first:stop]
    shift, c = look([lo + (hi - lo) * i / count for i in range(count + 1)], float(window.max() - window.min()) or 1.0)
    fine = round(COARSE_MS / FINE_MS)
    shift, c = look([min(hi, max(lo, shift + FINE_MS * i)) for i in range(-fine, fine + 1)], abs(float(c[0])) or 1.0)
    fit = _Fit(template, c[:-1], t0_ms - shift, dt_ms)
    design = fit.design(m, first, step)
    cover, gain = np.empty((k + 2, k + 2)), np.empty((k + 2, m))
    kernels.shape_cover(root, np.ascontiguousarray(design.T), m, k + 2, k - 1, abs(float(c[0])) or 1.0, cover, gain)
    if not float(c[0]) > LEAST_Z * math.sqrt(float(cover[0, 0])):
        return None
    # what is left in the window: noise less what the fit swallowed, and the misfit
    fitted = fit.fitted(len(mean_uv))
    rest = mean_uv - fitted
    swallowed = float(np.add.reduce(np.add.reduce(_times(cover, design) * design, axis=0))) / m
    left = power(rest[first:stop] - float(c[-1]))
    misfit2 = max(0.0, left - max(0.0, noise.residual_uv**2 - swallowed))
    sigma, share, unseen = _smoother(misfit2, noise, dt_ms)
    curve = fitted + float(c[-1])
    if share > 0.0:
        curve = curve + share * (smooth.gaussian(rest, sigma) - float(c[-1]))
    cross = share * smooth.autocovariance(noise.autocovariance, sigma / math.sqrt(2.0))
    return Matched(
        curve, shift, float(c[0]), math.sqrt(misfit2), sigma * dt_ms, share, fit, cover, gain, points,
        noise.smoothed(sigma), cross, unseen,
    )  # fmt: skip


def _smoother(misfit2: float, noise: NoiseEstimate, dt_ms: float) -> tuple[float, float, tuple[float, float]]:
    """Wiener's choice among Gaussian smoothers: sd in samples, gain, and the variance of value and slope that remain.

    The misfit is taken for a Gaussian process of sd sqrt(misfit2) that stays alike over MISFIT_MS; gain times smoother
    is what estimates its slope with the least mean square error, since latency hangs on the slope.
    """
    if not misfit2 > 0.0:
        return 0.0, 0.0, (0.0, 0.0)
    best: tuple[float, float, float, tuple[float, float]] | None = None
    one = MISFIT_MS / dt_ms
    for sigma_ms in SMOOTHERS_MS:
        s = sigma_ms / dt_ms
        once, twice = one * one + s * s, one * one + 2.0 * s * s
        seen, all_seen = misfit2 * one / once**1.5, misfit2 * one / twice**1.5
        r = smooth.autocovariance(noise.autocovariance, s, 3)
        noisy = max(0.0, float(r[0] - r[2]) / 2.0)  # of its slope, as interval.slope_variance
        gain = seen / (all_seen + noisy)
        slope = misfit2 / one**2 - 2.0 * gain * seen + gain * gain * all_seen
        cost = slope + gain * gain * noisy
        value = misfit2 * (1.0 - 2.0 * gain * one / math.sqrt(once) + gain * gain * one / math.sqrt(twice))
        if best is None or cost < best[0]:
            best = cost, s, gain, (max(0.0, value), max(0.0, slope))
    assert best is not None  # noqa: S101 - SMOOTHERS_MS is not empty
    return best[1:]


def _sum2(weight: F64, matrix: F64) -> float:
    return float(np.add.reduce(np.add.reduce(matrix * weight, axis=1) * weight))


def _times(matrix: F64, columns: F64) -> F64:
    out: F64 = np.add.reduce(matrix[:, :, None] * columns[None, :, :], axis=1)
    return out


def _covariance_row(noise: NoiseEstimate, n: int, step: int) -> F64:
    """First row of the Toeplitz matrix; the estimated autocovariance is tapered so that the matrix is positive."""
    r = noise.autocovariance
    row = np.zeros(n)
    for k in range(n):
        if k * step < len(r):
            row[k] = r[k * step] * (1.0 - k * step / len(r))
    row[0] += NUGGET * row[0]
    return row
