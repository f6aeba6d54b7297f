"""What every sweep says about the baseline, and what the newest of them say together.

In: of each accepted sweep its share of the baseline waveform, per derivation.  Out: when it is time to look, the shares
over a window of the newest sweeps, and one number for all derivations of a test.  Always: a noisy sweep counts for
less than one; two whole windows share no sweep.  Pure, plain sums in order.

A sub-average is a poor unit for this: a loss that begins within it waits for the next one, and 25 sweeps vary so much
that chance crosses every few minutes.  What windows of 1.8 sub-averages do instead: docs/sources.md#change-rule.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

WINDOW_SUBS = 1.8
LOOKS_PER_SUB = 5
MOST_TRIES = 4  # a window is not stretched over more than this many times its sweeps, however noisy they are
INDEPENDENT = 0.1  # share of a covariance that is not believed: it comes from some 24 sub-averages

Look = Literal["", "glance", "whole"]


@dataclass(frozen=True)
class SweepShares:
    """One sweep: share of the baseline waveform by derivation, and its weight, 1 for an ordinary sweep."""

    zero: int
    last: int
    share: Mapping[str, float]
    weight: Mapping[str, float]


@dataclass(frozen=True)
class Window:
    """Shares over the sweeps from `first` (a time zero) to `last`; `sweeps`: how many ordinary ones they are worth."""

    first: int
    last: int
    ratio: dict[str, float]
    sweeps: dict[str, float]


@dataclass(frozen=True)
class Spread:
    """How the shares of one sweep vary together: covariance float64[derivation, derivation]."""

    labels: Sequence[str] = ()
    covariance: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))

    def se(self, label: str, sweeps: float) -> float:
        """Standard error of a share over so many sweeps; inf when it is not known."""
        k = list(self.labels).index(label) if label in self.labels else -1
        return math.sqrt(float(self.covariance[k, k]) / sweeps) if k >= 0 and sweeps > 0.0 else math.inf

    def pooled(self, found: Mapping[str, tuple[float, float]]) -> tuple[float, float] | None:
        """One share for the derivations of `found` (share, its standard error) and its standard error: each by what it
        adds to the others; None without any."""
        names = [label for label in found if label in self.labels and math.isfinite(found[label][1])]
        if not names:
            return None
        at = [list(self.labels).index(label) for label in names]
        sd = [math.sqrt(max(1e-12, float(self.covariance[k, k]))) for k in at]
        se = [found[label][1] for label in names]
        shared = [
            [1.0 if i == j else (1.0 - INDEPENDENT) * float(self.covariance[i, j]) / (a * b)
             for j, b in zip(at, sd, strict=True)]
            for i, a in zip(at, sd, strict=True)
        ]  # fmt: skip
        both = [[r * se[i] * se[j] for j, r in enumerate(row)] for i, row in enumerate(shared)]
        weight = [max(0.0, w) for w in _solve(both)]
        total = math.fsum(weight)
        weight = [w / total for w in weight]
        ratio = math.fsum(w * found[label][0] for w, label in zip(weight, names, strict=True))
        variance = math.fsum(a * b * both[i][j] for i, a in enumerate(weight) for j, b in enumerate(weight))
        return ratio, math.sqrt(max(0.0, variance))


class Evidence:
    """The newest sweeps of one test."""

    def __init__(self, sub_sweeps: int) -> None:
        self.need = WINDOW_SUBS * sub_sweeps
        self._step = sub_sweeps / LOOKS_PER_SUB
        self._sweeps: deque[SweepShares] = deque(maxlen=math.ceil(MOST_TRIES * self.need))
        self._since_look = self._fresh = 0.0

    def clear(self) -> None:
        """Nothing is compared across a gap, another baseline or other settings."""
        self._sweeps.clear()
        self._since_look = self._fresh = 0.0

    def add(self, sweep: SweepShares) -> None:
        self._sweeps.append(sweep)
        worth = max(sweep.weight.values(), default=0.0)
        self._since_look += worth
        self._fresh += worth

    def due(self) -> Look:
        """Is it time to look?  `whole`: none of the window's sweeps was in a whole window before."""
        if self._fresh >= self.need:
            return "whole"
        return "glance" if self._since_look >= self._step else ""

    def looked(self, whole: bool) -> None:
        """A look was taken; after a whole one (or one that raised an alarm) the next whole window begins afresh."""
        self._since_look = 0.0
        if whole:
            self._fresh = 0.0

    def window(self) -> Window | None:
        """The newest sweeps, as many as are worth a whole window in some derivation; None while there are too few."""
        return self._newest(self.need, None)

    def ratio(self, label: str, since: int | None = None) -> float | None:
        """A derivation's share over the sweeps since a time, or over a whole window; None below a third of one."""
        window = self._newest(math.inf if since is not None else self.need, since, whole=False)
        if window is None or not window.sweeps.get(label, 0.0) * 3.0 >= self.need:
            return None
        return window.ratio[label]

    def _newest(self, need: float, since: int | None, whole: bool = True) -> Window | None:
        total: dict[str, float] = {}
        mass: dict[str, float] = {}
        first = last = -1
        for sweep in reversed(self._sweeps):
            if since is not None and sweep.zero < since:
                break
            last = sweep.last if last < 0 else last
            first = sweep.zero
            for label, share in sweep.share.items():
                mass[label] = mass.get(label, 0.0) + sweep.weight[label]
                total[label] = total.get(label, 0.0) + sweep.weight[label] * share
            if max(mass.values(), default=0.0) >= need:
                break
        else:
            if whole and len(self._sweeps) < (self._sweeps.maxlen or 0):
                return None
        ratio = {label: total[label] / mass[label] for label in total if mass[label] > 0.0}
        return Window(first, last, ratio, mass) if ratio else None


def _solve(a: list[list[float]]) -> list[float]:
    """x of a x = 1 for a small symmetric positive matrix: Gauss, in order."""
    n = len(a)
    rows = [[*row, 1.0] for row in a]
    for k in range(n):
        for i in range(k + 1, n):
            f = rows[i][k] / rows[k][k]
            rows[i] = [x - f * y for x, y in zip(rows[i], rows[k], strict=True)]
    x = [0.0] * n
    for k in range(n - 1, -1, -1):
        x[k] = (rows[k][n] - math.fsum(rows[k][j] * x[j] for j in range(k + 1, n))) / rows[k][k]
    return x
