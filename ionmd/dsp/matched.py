"""A wave of known shape in a finished average: shape where the noise hides the curve, the curve where it does not.

Pure.  In: one finished average with its noise and a Template: the mean shape of the response and the ways in which it
is known to vary.  Out: Matched: a curve m = T + g S (y - T), in which T is the template fitted to the average y, S a
Gaussian smoother and g its gain, and the variance of its values and slopes.
Always: the smoother is chosen from the misfit, so a response of another shape is not bent into the template: what the
template does not explain and the noise does not either makes the smoother narrow, and with little noise m is y itself.
Cost: some 60 points and 30 shifts, own solvers instead of BLAS: the same bytes on the same architecture.
Formulas and their origin: docs/sources.md#matched-shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ionmd.dsp import smooth
from ionmd.dsp.interval import slope_variance
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

    def at(self, times_ms: F64) -> F64:
        """float64[1 + k, time] by cubic convolution."""
        place = (times_ms - self.t0_ms) / self.dt_ms
        inside = (place >= 1.0) & (place < self.curves.shape[1] - 2)
        place = np.where(inside, place, 1.0)
        i = place.astype(np.int64)
        u = place - i
        a, b, c, d = (self.curves[:, i + k] for k in (-1, 0, 1, 2))
        out: F64 = b + 0.5 * u * (c - a + u * (2.0 * a - 5.0 * b + 4.0 * c - d + u * (3.0 * (b - c) + d - a)))
        return np.where(inside, out, 0.0)


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
    _open: F64  # float64[parameter, sample]: change of the curve with each parameter of the template
    _cover: F64  # their covariance
    _gain: F64  # float64[parameter, point]: parameters from the noise at the points of the fit
    _points: npt.NDArray[np.int64]
    _smooth: NoiseEstimate
    _cross: F64
    _unseen: tuple[float, float]

    def slope_variance(self, position: float) -> float:
        """Of the curve's central difference per sample: uV^2 per sample^2."""
        i = min(max(1, math.floor(position + 0.5)), len(self.curve) - 2)
        weight = 0.5 * (self._open[:, i + 1] - self._open[:, i - 1])
        cross = 0.5 * (self._covariance(i + 1) - self._covariance(i - 1))
        return self._total(weight, self.trust**2 * slope_variance(self._smooth), cross) + self._unseen[1]

    def difference_variance(self, a: float, b: float) -> float:
        """Of the curve's difference between two places."""
        i, j = (min(max(0, math.floor(p + 0.5)), len(self.curve) - 1) for p in (a, b))
        noise = self.trust**2 * self._smooth.variance_of_difference(i - j)
        cross = self._covariance(i) - self._covariance(j)
        return self._total(self._open[:, i] - self._open[:, j], noise, cross) + 2.0 * self._unseen[0]

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
    if not noise.known or len(points) < 4 * (len(template.curves) + 2):
        return None
    root = _cholesky(_covariance_matrix(noise, len(points), step))
    times = t0_ms + dt_ms * points.astype(np.float64)
    white = _forward(root, np.stack([mean_uv[points], np.ones(len(points))], axis=1))
    y, level = white[:, 0], white[:, 1]

    def look(shifts: list[float], prior_uv: float) -> tuple[float, F64]:
        """The best of the shifts and the coefficients there."""
        raw = np.stack([template.at(times - s) for s in shifts])  # [shift, curve, point]
        flat = _forward(root, np.ascontiguousarray(raw.reshape(-1, len(points)).T))
        found: tuple[float, float, F64] | None = None
        for k, s in enumerate(shifts):
            width = raw.shape[1]
            d = np.concatenate([flat[:, k * width : (k + 1) * width], level[:, None]], axis=1)
            c, cost = _regress(d, y, prior_uv)
            if found is None or cost < found[0]:
                found = cost, s, c
        assert found is not None  # noqa: S101 - there is at least one shift
        return found[1], found[2]

    lo, hi = shifts_ms
    count = max(1, math.ceil((hi - lo) / COARSE_MS))
    window = mean_uv[first:stop]
    shift, c = look([lo + (hi - lo) * k / count for k in range(count + 1)], float(window.max() - window.min()))
    fine = round(COARSE_MS / FINE_MS)
    shift, c = look([min(hi, max(lo, shift + FINE_MS * k)) for k in range(-fine, fine + 1)], abs(float(c[0])) or 1.0)
    prior_uv = abs(float(c[0])) or 1.0
    every = t0_ms + dt_ms * np.arange(len(mean_uv), dtype=np.float64)
    curves = template.at(every - shift)
    fitted = np.add.reduce(c[:-1, None] * curves, axis=0)
    ahead = np.add.reduce(c[:-1, None] * template.at(every - shift - dt_ms), axis=0)
    moved = (ahead - np.add.reduce(c[:-1, None] * template.at(every - shift + dt_ms), axis=0)) / (2.0 * dt_ms)
    design = np.concatenate([curves, np.ones((1, len(every))), moved[None]])
    d = _forward(root, np.ascontiguousarray(design[:, points].T))
    cover = _inverse(_normal(d, prior_uv, loose=(0, len(c) - 1, len(c))))
    if not float(c[0]) > LEAST_Z * math.sqrt(float(cover[0, 0])):
        return None
    gain = np.add.reduce(cover[:, :, None] * _backward(root, d).T[None, :, :], axis=1)
    # what is left in the window: noise less what the fit swallowed, and the misfit
    rest = mean_uv - fitted
    inside = design[:, first:stop]
    swallowed = float(np.add.reduce(np.add.reduce(_times(cover, inside) * inside, axis=0))) / (stop - first)
    left = power(rest[first:stop] - float(c[-1]))
    misfit2 = max(0.0, left - max(0.0, noise.residual_uv**2 - swallowed))
    sigma, share, unseen = _smoother(misfit2, noise, dt_ms)
    curve, opened = fitted + float(c[-1]), design
    if share > 0.0:
        curve = curve + share * (smooth.gaussian(rest, sigma) - float(c[-1]))
        opened = design - share * np.stack([smooth.gaussian(row, sigma) for row in design])
    cross = share * smooth.autocovariance(noise.autocovariance, sigma / math.sqrt(2.0))
    return Matched(
        curve, shift, float(c[0]), math.sqrt(misfit2), sigma * dt_ms, share, opened, cover, gain, points,
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
        noisy = slope_variance(noise.smoothed(s))
        gain = seen / (all_seen + noisy)
        slope = misfit2 / one**2 - 2.0 * gain * seen + gain * gain * all_seen
        cost = slope + gain * gain * noisy
        value = misfit2 * (1.0 - 2.0 * gain * one / math.sqrt(once) + gain * gain * one / math.sqrt(twice))
        if best is None or cost < best[0]:
            best = cost, s, gain, (max(0.0, value), max(0.0, slope))
    assert best is not None  # noqa: S101 - SMOOTHERS_MS is not empty
    return best[1:]


# ---------------------------------------------------------------- small dense systems, in order, without BLAS


def _sum2(weight: F64, matrix: F64) -> float:
    return float(np.add.reduce(np.add.reduce(matrix * weight, axis=1) * weight))


def _times(matrix: F64, columns: F64) -> F64:
    out: F64 = np.add.reduce(matrix[:, :, None] * columns[None, :, :], axis=1)
    return out


def _covariance_matrix(noise: NoiseEstimate, n: int, step: int) -> F64:
    """Toeplitz; the estimated autocovariance is tapered so that the matrix is positive."""
    r = noise.autocovariance
    row = np.zeros(n)
    for k in range(n):
        if k * step < len(r):
            row[k] = r[k * step] * (1.0 - k * step / len(r))
    row[0] += NUGGET * row[0]
    at = np.abs(np.arange(n)[:, None] - np.arange(n)[None, :])
    out: F64 = row[at]
    return out


def _cholesky(a: F64) -> F64:
    """Lower root; a pivot that rounding made too small is lifted."""
    a = a.copy()
    n = len(a)
    least = 1e-6 * float(a[0, 0])
    for k in range(n):
        a[k, k] = math.sqrt(max(float(a[k, k]), least))
        a[k + 1 :, k] /= a[k, k]
        a[k + 1 :, k + 1 :] -= a[k + 1 :, k, None] * a[None, k + 1 :, k]
        a[k, k + 1 :] = 0.0
    return a


def _forward(root: F64, columns: F64) -> F64:
    """root^-1 columns."""
    out = columns.copy()
    for k in range(len(root)):
        out[k] /= root[k, k]
        out[k + 1 :] -= root[k + 1 :, k, None] * out[k]
    return out


def _backward(root: F64, columns: F64) -> F64:
    """root^-T columns."""
    out = columns.copy()
    for k in range(len(root) - 1, -1, -1):
        out[k] /= root[k, k]
        out[:k] -= root[k, :k, None] * out[k]
    return out


def _normal(d: F64, prior_uv: float, loose: tuple[int, ...]) -> F64:
    """Normal equations of columns whose coefficients are, but for the loose ones, normal with sd `prior_uv`."""
    a = np.add.reduce(d[:, :, None] * d[:, None, :], axis=0)
    for k in range(len(a)):
        a[k, k] += 1e-12 * float(a[k, k]) if k in loose else 1.0 / prior_uv**2
    return np.asarray(a)


def _regress(d: F64, y: F64, prior_uv: float) -> tuple[F64, float]:
    """Coefficients and cost; the first and the last column are free, the others held by the prior."""
    a = _normal(d, prior_uv, loose=(0, d.shape[1] - 1))
    b = np.add.reduce(d * y[:, None], axis=0)
    root = _cholesky(a)
    c = _backward(root, _forward(root, b[:, None]))[:, 0]
    return c, float(np.add.reduce(y * y)) - float(np.add.reduce(b * c))


def _inverse(a: F64) -> F64:
    root = _cholesky(a)
    return _backward(root, _forward(root, np.eye(len(a))))
