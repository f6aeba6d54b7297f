"""Sweeps into averages: running sums in two alternating halves, and sub-averages into one.

In: sweeps float32[sample, stride].  Out: float64[derivation, sample].
Always: sums are float64; a derivation that refuses a sweep is not touched by it, whatever it holds; the halves
alternate per derivation, so their difference is noise alone (the +- average).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ionmd import aligned
from ionmd.dsp.layout import F32, F64, curves, kernels, stride_of

I64 = npt.NDArray[np.int64]
WEIGHT_CAP = 3.0  # times the median weight of a derivation's sweeps: no sub-average may win by being quiet


class SweepSum:
    """Sums of one (sub-)average: `derivations` columns, `samples` rows; allocates here and never again.

    count     int64[2, derivations]: sweeps in each half
    `squares=False` drops the sum of squares (and `variance`), a third of the work.
    """

    def __init__(self, derivations: int, samples: int, squares: bool = True) -> None:
        self.derivations = derivations
        self.samples = samples
        self.stride = stride_of(derivations)
        self._count: I64 = np.zeros((2, self.stride), np.int64)
        self._sum: F64 = aligned.zeros((2, samples, self.stride))
        self._squares: F64 | None = aligned.zeros((samples, self.stride)) if squares else None
        self._accept = np.zeros(self.stride, np.uint8)
        self._many = np.zeros((kernels.MOST_SWEEPS, self.stride), np.uint8)
        self._kernel = kernels.Sums(self._count, self._sum, self._squares, samples, self.stride)

    @property
    def count(self) -> I64:
        return self._count[:, : self.derivations]

    def add(self, sweep: F32, accept: npt.NDArray[np.uint8] | npt.NDArray[np.bool_] | None = None) -> None:
        """Add one sweep float32[>= samples, stride] to the derivations whose `accept` is not 0 (None: all)."""
        if accept is None:
            self._accept[: self.derivations] = 1
        else:
            if len(accept) < self.derivations:
                raise ValueError(f"accept of {len(accept)} came, {self.derivations} were expected")
            self._accept[: self.derivations] = accept[: self.derivations]
        # padding goes with column 0: whole vectors then agree, and the padding holds zeros anyway
        self._accept[self.derivations :] = self._accept[0]
        self._kernel.add(sweep, self._accept)

    def add_many(self, sweeps: Sequence[F32], accept: npt.NDArray[np.uint8] | None = None) -> None:
        """As `add` for each in turn, bit for bit, in half the time; accept uint8[sweep, derivations]."""
        if accept is not None and accept.shape != (len(sweeps), self.derivations):
            raise ValueError(f"accept of shape {accept.shape} came, {(len(sweeps), self.derivations)} was expected")
        for k in range(0, len(sweeps), kernels.MOST_SWEEPS):
            part = sweeps[k : k + kernels.MOST_SWEEPS]
            rows = self._many[: len(part)]
            rows[:, : self.derivations] = 1 if accept is None else accept[k : k + len(part)]
            rows[:, self.derivations :] = rows[:, :1]
            self._kernel.add_many(part, rows)

    def mean(self) -> F64:
        """float64[derivation, sample]; nan where no sweep was accepted."""
        return self._divide(self._sum[0] + self._sum[1], self._count.sum(axis=0))

    def halves(self) -> F64:
        """float64[2, derivation, sample]: the means of the two halves."""
        return np.stack([self._divide(self._sum[h], self._count[h]) for h in (0, 1)])

    def variance(self) -> F64:
        """float64[derivation, sample]: variance of a single sweep around the mean; nan below two sweeps."""
        if self._squares is None:
            raise ValueError("this sum was made with squares=False")
        n = self._count.sum(axis=0)[: self.derivations].astype(np.float64)[:, None]
        mean = self.mean()
        with np.errstate(divide="ignore", invalid="ignore"):
            var = (self._squares.T[: self.derivations] - n * mean * mean) / (n - 1.0)
        return np.where(n >= 2, np.maximum(var, 0.0), np.nan)

    def clear(self) -> None:
        self._count[:] = 0
        self._sum[:] = 0
        if self._squares is not None:
            self._squares[:] = 0

    def _divide(self, total: F64, count: I64) -> F64:
        n = count[: self.derivations].astype(np.float64)[:, None]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.ascontiguousarray(total.T[: self.derivations]) / n  # 0/0 is nan: nothing measured


def sweep_extremes(sweep: F32, lo_row: int, hi_row: int) -> tuple[F32, F32]:
    """Smallest and largest value of each column in rows lo_row..hi_row; both nan where the column holds a nan.

    Reject with `not (hi - lo <= limit)`: that refuses nan and inf as well.
    """
    stride = sweep.shape[1]
    lo, hi = np.empty(stride, np.float32), np.empty(stride, np.float32)
    kernels.extremes(sweep, stride, lo_row, hi_row, lo, hi)
    return lo, hi


class Halves(Protocol):
    """What an average is made of: a SweepSum, or a Part."""

    @property
    def count(self) -> I64:
        """int64[2, derivation]: sweeps in each half."""

    def halves(self) -> F64:
        """float64[2, derivation, sample]: the means of the two halves; nothing is read where `count` is 0."""


@dataclass(frozen=True)
class Part:
    """A closed sum whose halves went through a linear filter since."""

    count: I64
    curves: F64

    def halves(self) -> F64:
        return self.curves


@dataclass(frozen=True)
class Averaged:
    """One average made of sub-averages.

    mean      float64[derivation, sample]      nan where no sweep was accepted
    halves    float64[2, derivation, sample]   alternating sweeps, weighted as the mean
    n         int64[derivation]                sweeps used
    weights   float64[sub, derivation]         sum to 1 over the subs used
    flat      bool[sub, derivation]            without any noise: a dead channel, weight 0
    """

    mean: F64
    halves: F64
    n: I64
    weights: F64
    flat: npt.NDArray[np.bool_]

    def plus_minus(self) -> F64:
        """float64[derivation, sample]: half the difference of the halves: the noise of the mean, no response."""
        result: F64 = (self.halves[0] - self.halves[1]) / 2
        return result


def combine(subs: Sequence[Halves], weighted: bool, power: F64 | None = None) -> Averaged:
    """Sub-averages into one average.

    weighted   weight = 1 / noise power, per sweep at most 3 x the median; else by the number of sweeps
    power      float64[sub, derivation], noise power of each sub-average's mean if the caller knows it better (after
               the filter, for instance); None: mean square of its +- average around its own mean level
    A sub-average with no noise at all while others have some is a dead channel: it is marked and gets no weight.
    """
    if not subs:
        raise ValueError("no sub-average came, at least one was expected")
    counts = [s.count for s in subs]
    parts = [s.halves() for s in subs]
    if any(p.shape != parts[0].shape for p in parts):
        raise ValueError("sub-averages of different shapes came, equal ones were expected")
    in_half = np.stack(counts)  # [sub, half, derivation]
    count = in_half.sum(axis=1)
    if power is None:
        power = np.stack([_half_difference_power(p) for p in parts])
    if power.shape != count.shape:
        raise ValueError(f"noise power of shape {power.shape} came, {count.shape} was expected")
    flat = (count > 0) & (power == 0) & (power > 0).any(axis=0)
    weights = _weights(count, power, flat) if weighted else _share(np.where(flat, 0.0, count.astype(np.float64)))
    within = np.divide(in_half, count[:, None], out=np.zeros(in_half.shape), where=in_half > 0)
    mean, halves = np.zeros(parts[0].shape[1:]), np.zeros(parts[0].shape)
    _mix(parts, weights[:, None] * within, [mean, mean])
    # a sub of one sweep has one half only: each half is mixed over the subs that have it
    _mix(parts, np.stack([_share(np.where(in_half[:, h] > 0, weights, 0.0)) for h in (0, 1)], axis=1), list(halves))
    mean[weights.sum(axis=0) == 0] = np.nan
    halves[(weights[:, None] * (in_half > 0)).sum(axis=0) == 0] = np.nan
    return Averaged(mean, halves, np.where(weights > 0, count, 0).sum(axis=0), weights, flat)


def _mix(parts: Sequence[F64], share: F64, outs: Sequence[F64]) -> None:
    """outs[half] += share[part, half, derivation] of each part, in order.  Kernel: ext/dsp/blend.c."""
    for part, factor in zip(parts, np.ascontiguousarray(share), strict=True):
        for half, factors, out in zip(part, factor, outs, strict=True):
            curves.blend(half, factors, *half.shape, out)


def _half_difference_power(halves: F64) -> F64:
    noise = (halves[0] - halves[1]) / 2
    noise = noise - noise.mean(axis=-1, keepdims=True)  # an electrode's offset drift is not the filter's business
    result: F64 = (noise * noise).mean(axis=-1)
    return result


def _weights(count: I64, power: F64, flat: npt.NDArray[np.bool_]) -> F64:
    """1/power where it is known, capped; a sub with sweeps but unknown power gets the smallest weight of the others."""
    with np.errstate(divide="ignore"):
        raw = np.where((count > 0) & (power > 0), 1.0 / power, np.nan)
    result = np.zeros_like(raw)
    for k in range(raw.shape[1]):
        known = np.isfinite(raw[:, k])
        if not known.any():  # no noise anywhere, or one half only: by the number of sweeps
            result[:, k] = np.where(flat[:, k], 0.0, count[:, k])
            continue
        each = raw[known, k] / count[known, k]
        cap = WEIGHT_CAP * _middle(each, count[known, k])
        result[known, k] = np.minimum(each, cap) * count[known, k]
        unknown = (count[:, k] > 0) & ~known & ~flat[:, k]
        result[unknown, k] = result[known, k].min()
    return _share(result)


def _middle(values: F64, count: I64) -> float:
    """Median of `values`, each there `count` times."""
    order = np.argsort(values, kind="stable")
    reached = np.add.accumulate(count[order])
    return float(values[order][int(np.searchsorted(reached, 0.5 * float(reached[-1])))])


def _share(weights: F64) -> F64:
    total = weights.sum(axis=0, keepdims=True)
    result: F64 = np.divide(weights, total, out=np.zeros_like(weights), where=total > 0)
    return result
