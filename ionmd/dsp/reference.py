"""The kernels in plain numpy: the oracle that the same tests run on.

Same arguments, same results as the compiled faces, written for reading and for nothing else.  scipy is not imported
here (the daemon never needs it); the tests hold both twins against scipy itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ionmd.dsp.design import sosfilt_zi
from ionmd.dsp.layout import F32, F64, stride_of

TINY = float(np.finfo(np.float32).tiny)


def sosfilt(sos: F64, x: F64, state: F64) -> F64:
    """float64[n, columns] through a cascade; state float64[sections, 2, columns] is updated.  scipy's order."""
    y = np.array(x, np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        for n in range(len(y)):
            v = y[n]
            for (b0, b1, b2, _, a1, a2), z in zip(sos, state, strict=True):
                out = b0 * v + z[0]
                z[0] = (b1 * v - a1 * out) + z[1]
                z[1] = b2 * v - a2 * out
                v = out
            y[n] = v
    return y


class Cascade:
    """Twin of iir.Cascade."""

    def __init__(self, sos: F64, channels: int) -> None:
        self.sos = np.asarray(sos, np.float64).reshape(-1, 6)
        self.channels, self.stride = channels, stride_of(channels)
        self._state = np.zeros((len(self.sos), 2, self.stride))

    def process(self, x: F32, y: F32, n: int) -> bool:
        exact = sosfilt(self.sos, x[:n].astype(np.float64), self._state)
        with np.errstate(over="ignore"):
            rounded = exact.astype(np.float32)
        rounded[np.abs(exact) < TINY] = 0
        y[:n] = rounded
        return bool(np.isfinite(self._state).all())

    def settle(self, row: npt.NDArray[np.floating], columns: npt.NDArray[np.bool_] | None = None) -> None:
        which = np.arange(self.channels) if columns is None else np.flatnonzero(columns)
        values = np.where(np.isfinite(row[: self.channels]), row[: self.channels], 0).astype(np.float64)
        self._state[:, :, which] = (sosfilt_zi(self.sos)[:, :, None] * values)[:, :, which]

    def reset(self, columns: npt.NDArray[np.bool_] | None = None) -> None:
        self._state[:, :, np.arange(self.stride) if columns is None else np.flatnonzero(columns)] = 0

    def poisoned(self) -> npt.NDArray[np.bool_]:
        return np.array([not np.isfinite(self._state[:, :, c]).all() for c in range(self.channels)])


class Montage:
    """Twin of derive.Montage."""

    def __init__(self, plus: npt.ArrayLike, minus: npt.ArrayLike, stride_in: int) -> None:
        self.plus, self.minus = np.asarray(plus), np.asarray(minus)
        self.derivations, self.stride_in, self.stride = len(self.plus), stride_in, stride_of(len(self.plus))

    def apply(self, uv: F32, n: int, out: F32) -> None:
        out[:n] = 0
        for k, (p, m) in enumerate(zip(self.plus, self.minus, strict=True)):
            zero = np.zeros(n, np.float32)
            out[:n, k] = (uv[:n, p] if p >= 0 else zero) - (uv[:n, m] if m >= 0 else zero)


def sweep_extremes(sweep: F32, lo_row: int, hi_row: int) -> tuple[F32, F32]:
    """Twin of average.sweep_extremes (np.min keeps nan)."""
    return sweep[lo_row:hi_row].min(axis=0), sweep[lo_row:hi_row].max(axis=0)


class SweepSum:
    """Twin of average.SweepSum: plain lists of what was accepted, summed in order."""

    def __init__(self, derivations: int, samples: int, squares: bool = True) -> None:
        self.derivations, self.samples = derivations, samples
        self.count = np.zeros((2, derivations), np.int64)
        self._sum = np.zeros((2, derivations, samples))
        self._squares = np.zeros((derivations, samples))

    def add(self, sweep: F32, accept: npt.NDArray[np.uint8] | None = None) -> None:
        for d in range(self.derivations):
            if accept is not None and not accept[d]:
                continue
            half = int(self.count[0, d] > self.count[1, d])
            column = sweep[: self.samples, d].astype(np.float64)
            self.count[half, d] += 1
            self._sum[half, d] += column
            self._squares[d] += column * column

    def mean(self) -> F64:
        with np.errstate(invalid="ignore", divide="ignore"):
            result: F64 = (self._sum[0] + self._sum[1]) / self.count.sum(axis=0)[:, None]
        return result

    def halves(self) -> F64:
        with np.errstate(invalid="ignore", divide="ignore"):
            result: F64 = self._sum / self.count[:, :, None]
        return result

    def clear(self) -> None:
        for a in (self.count, self._sum, self._squares):
            a[:] = 0


def filter_average(sos: F64, mean: F64, zero_phase: bool, span: tuple[int, int] | None = None) -> F64:
    """Twin of zerophase.filter_average."""
    out = np.array(mean, np.float64)
    start, stop = (0, out.shape[-1]) if span is None else span
    x, zi = out[..., start:stop].reshape(-1, stop - start).T, sosfilt_zi(sos)[:, :, None]
    if not zero_phase:
        out[..., start:stop] = sosfilt(sos, x, zi * x[0]).T.reshape(out[..., start:stop].shape)
        return out
    pad = 3 * (2 * len(sos) + 1 - min(int((sos[:, 2] == 0).sum()), int((sos[:, 5] == 0).sum())))
    long = np.concatenate([2 * x[0] - x[pad:0:-1], x, 2 * x[-1] - x[-2 : -pad - 2 : -1]])
    long = sosfilt(sos, long, zi * long[0])[::-1]
    long = sosfilt(sos, long, zi * long[0])[::-1]
    out[..., start:stop] = long[pad : pad + len(x)].T.reshape(out[..., start:stop].shape)
    return out


def emg_window(x: F32, threshold: F32, quiet: int) -> dict[str, npt.NDArray[np.generic]]:
    """Twin of features.EmgFeatures over one first window, float32[n, channels]."""
    size = np.abs(x)
    over = size > threshold
    bursts = np.zeros(x.shape[1], np.int32)
    for c in range(x.shape[1]):
        gap = quiet
        for here in over[:, c]:
            bursts[c] += bool(here) and gap >= quiet
            gap = 0 if here else gap + 1
    steps = np.abs(np.diff(x, axis=0, prepend=x[:1]))
    return {
        "rms_uv": np.sqrt(_chunked_sum(x * x) / len(x)),
        "line_length_uv": _chunked_sum(steps),
        "peak_uv": size.max(axis=0),
        "over": over.sum(axis=0).astype(np.int32),
        "bursts": bursts,
    }


def _chunked_sum(x: F32, chunk: int = 16) -> F64:
    """float32 sums of 16 rows, in order, then float64 sums of those."""
    total = np.zeros(x.shape[1])
    for i in range(0, len(x), chunk):
        total += np.add.accumulate(x[i : i + chunk], axis=0)[-1]
    return total


def hold(x: F32, spans: Sequence[tuple[int, int]]) -> F32:
    """Twin of blank.Hold over a whole recording at once."""
    out = x.copy()
    for start, stop in sorted(spans):
        first, last = max(start, 0), min(stop, len(x))
        if first < last:
            out[first:last] = out[first - 1] if first > 0 else out[first]
    return out


class Int24:
    """Twin of chain.Int24."""

    def __init__(self, lsb_uv: Sequence[float], rows: int) -> None:
        self.inputs, self.stride = len(lsb_uv), stride_of(len(lsb_uv))
        self._lsb = np.asarray(lsb_uv, np.float32)
        self.counts = np.zeros((rows, self.stride), np.int32)
        self.uv = np.zeros((rows, self.stride), np.float32)
        self.counts_lo, self.counts_hi = np.zeros(self.stride, np.int32), np.zeros(self.stride, np.int32)

    def process(self, raw: bytes | npt.NDArray[np.uint8], n: int) -> None:
        packed = np.frombuffer(raw, np.uint8)[: 3 * n * self.inputs].reshape(n, self.inputs, 3)
        wide = packed.astype(np.int32)
        value = wide[..., 0] | wide[..., 1] << 8 | wide[..., 2] << 16
        counts = np.where(value >= 1 << 23, value - (1 << 24), value)
        self.counts[:n, : self.inputs] = counts
        self.uv[:n, : self.inputs] = counts.astype(np.float32) * self._lsb
        self.counts_lo[: self.inputs], self.counts_hi[: self.inputs] = counts.min(axis=0), counts.max(axis=0)


def peaks(
    curve: F64, sign: int, start: float, stop: float, bounds: tuple[int, int], least: float = -np.inf
) -> list[tuple[int, float, float, float, float]]:
    """Twin of waves.peaks: (index, position, value, prominence, curvature), the most prominent first."""
    y = curve if sign > 0 else -curve
    lo, hi = bounds
    first, last = max(lo + 1, int(np.ceil(start))), min(hi - 2, int(np.floor(stop)))
    step = np.sign(np.diff(y[lo:hi]))
    moving = np.flatnonzero(step)
    found = []
    for a, b in pairwise(moving):
        k = lo + (int(a) + 1 + int(b)) // 2
        if not (step[a] > 0 > step[b] and first <= k <= last):
            continue
        before, after = y[lo:k], y[k + 1 : hi]
        left, right = np.flatnonzero(before > y[k]), np.flatnonzero(after > y[k])
        low_left = before[left[-1] + 1 :] if len(left) else before
        low_right = after[: right[0]] if len(right) else after
        prominence = float(y[k] - max(np.fmin.reduce(low, initial=y[k]) for low in (low_left, low_right)))
        if prominence <= least:
            continue
        p, q, r = float(y[k - 1]), float(y[k]), float(y[k + 1])
        bend = p - 2.0 * q + r
        shift = 0.5 * (p - r) / bend if bend < 0.0 else 0.0
        found.append((k, k + shift, sign * (q - 0.25 * (p - r) * shift), prominence, max(0.0, -bend)))
    return sorted(found, key=lambda peak: -peak[3])


def match(templates: F64, x: F64) -> F64:
    """Twin of match.TemplateMatch, float64: Pearson's r of each template with each stretch of its curve."""
    m = templates.shape[-1]
    out = np.zeros((len(x), x.shape[1] - m + 1))
    for c, curve in enumerate(x):
        t = templates[min(c, len(templates) - 1)]
        t = t - t.mean()
        for lag in range(out.shape[1]):
            w = curve[lag : lag + m] - curve[lag : lag + m].mean()
            energy = float((w * w).sum() * (t * t).sum())
            out[c, lag] = (w * t).sum() / np.sqrt(energy) if energy > 0.0 else 0.0
    return out


def welch(x: F64, samples: int, rate_hz: float, step: int) -> F64:
    """Twin of spectrum.Welch over float64[n, channels]: density float64[channels, samples / 2 + 1]."""
    window = 0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(samples) / samples)
    turn = np.exp(-2j * np.pi * np.outer(np.arange(samples // 2 + 1), np.arange(samples)) / samples)
    parts = []
    for first in range(0, len(x) - samples + 1, step):
        s = x[first : first + samples]
        parts.append(np.abs(turn @ ((s - s.mean(axis=0)) * window[:, None])) ** 2)
    density: F64 = np.mean(parts, axis=0).T * 2.0 / (rate_hz * (window**2).sum())
    density[:, [0, -1]] /= 2.0
    return density


def autocovariance(x: F64, lags: int) -> F64:
    """Twin of ext/dsp/noise.c: mean product at each lag over the products it has."""
    n = len(x)
    return np.array([np.sum(x[: n - k] * x[k:]) / (n - k) for k in range(lags)])
