"""One sub-average: sweeps summed by how noisy each was, so that a noisy sweep costs its own weight and no other's.

In: blanked sweeps with the noise power of each derivation's causal stream.  Out: the blocks that `combine` weighs.
Always: the first block holds ordinary sweeps; a sweep several times noisier than the typical one goes to a block of its
own kind, and each block weighs by its own noise.  A sweep with next to no noise comes from a dead electrode: refused.
Source: docs/sources.md#weighted-average (blocks sorted by noise).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ionmd.dsp.average import Averaged, Part, SweepSum, combine
from ionmd.stim.delivery import StimulusTally

F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]

EDGES = (2.0, 6.0, 18.0, 54.0)  # noise power over the typical: the power of one sweep is uncertain to a third
DEAD = 1e-3
TYPICAL_OF = 61  # newest sweeps whose median is typical


def weight_of(kind: int) -> float:
    """Of a sweep of that block, an ordinary one being 1: the middle of its range of noise power."""
    return 1.0 if kind <= 0 else 1.0 / (EDGES[kind - 1] * math.sqrt(3.0))


class Typical:
    """Median noise power of the newest sweeps of each derivation."""

    def __init__(self, derivations: int) -> None:
        self._seen = np.full((TYPICAL_OF, derivations), np.nan)
        self._next = 0

    def classify(self, power: F64, accept: U8) -> npt.NDArray[np.int64]:
        """int64[derivation]: the block each belongs to; -1 for a dead one.  `power` is one more that was seen."""
        self._seen[self._next] = np.where(np.isfinite(power) & (accept > 0), power, np.nan)
        self._next = (self._next + 1) % TYPICAL_OF
        ordered = np.sort(self._seen, axis=0)  # nan last
        known = np.isfinite(ordered).sum(axis=0)
        median = ordered[np.maximum(known - 1, 0) // 2, np.arange(len(power))]
        some = (known > 0) & (median > 0.0)
        ratio = power / np.where(some, median, 1.0)
        block = (ratio[:, None] > np.array(EDGES)).sum(axis=1)
        return np.where(some, np.where(ratio < DEAD, -1, block), 0)


class Sub:
    """The open sub-average.  Its sums are used again; a block of noisy sweeps is made when the first one comes."""

    def __init__(self, derivations: int, samples: int) -> None:
        self.derivations, self.samples = derivations, samples
        self._sums: dict[int, SweepSum] = {}
        self._power: dict[int, F64] = {}
        self._block(0)
        self.clear()

    def clear(self) -> None:
        for kind, block in self._sums.items():
            block.clear()
            self._power[kind][:] = 0.0
        self.accepted = [(0, 0)] * self.derivations  # first and last sample of each derivation's sweeps
        self.tally = StimulusTally()
        self.first = self.last = self.tried = self.most = 0
        self.rejected: Counter[str] = Counter()
        self.mains = np.zeros(self.derivations)  # sum of the mean squares that were taken off

    def _block(self, kind: int) -> SweepSum:
        if kind not in self._sums:
            self._sums[kind] = SweepSum(self.derivations, self.samples, squares=False)
            self._power[kind] = np.zeros(self.derivations)
        return self._sums[kind]

    def add(self, sweep: npt.NDArray[np.float32], accept: U8, power: F64, kinds: npt.NDArray[np.int64]) -> None:
        for kind in sorted({int(k) for k in kinds[accept[: self.derivations] > 0]}):
            mine = ((kinds == kind) & (accept[: self.derivations] > 0)).astype(np.uint8)
            self._block(kind).add(sweep, mine)
            self._power[kind] += np.where(mine > 0, power, 0.0)
        self.most = int(sum(s.count.sum(axis=0) for s in self._sums.values()).max(initial=0))

    def blocks(self) -> list[tuple[SweepSum, F64]]:
        """The sums that hold a sweep, ordinary ones first, each with the sum of its sweeps' noise power."""
        used = [(self._sums[k], self._power[k]) for k in sorted(self._sums) if self._sums[k].count.any()]
        return used or [(self._sums[0], self._power[0])]


@dataclass(eq=False)
class Sealed:
    """A closed sub-average: what went through the filter of finished averages, which is linear, so that an average of
    these is the filtered average of their sweeps.

    parts   its blocks with the sum of their sweeps' noise power
    curves  float64[3, derivation, sample] of each block: its halves, and in the first one the mean of all
    spread  float64[derivation]: noise power of the mean, from the difference of the halves
    """

    parts: list[tuple[Part, F64]]
    curves: list[F64]
    spread: F64
    counts: npt.NDArray[np.int64]
    accepted: list[tuple[int, int]]
    tally: StimulusTally
    first: int
    last: int
    tried: int
    most: int
    rejected: Counter[str]
    mains: F64

    @property
    def mean(self) -> F64:
        """float64[derivation, sample]; zero where no sweep was accepted."""
        mean: F64 = self.curves[0][2]
        return mean


class Shelf:
    """Room for the curves of sealed sub-averages, had before the first sweep: memory does not grow with a case."""

    def __init__(self, places: int, derivations: int, samples: int) -> None:
        self._shape = (3, derivations, samples)
        self._free = [np.full(self._shape, 0.0) for _ in range(places)]  # written: otherwise it is no memory yet
        self._lent: list[Sealed] = []

    def seal(
        self, sub: Sub, filtered: Callable[[F64], F64], weighted: bool, used: Iterable[Sealed]
    ) -> Sealed:
        """`sub` closed and cleared.  What is not in `used` any longer gives its place back."""
        in_use = {id(s) for s in used}
        for gone in (s for s in self._lent if id(s) not in in_use):
            self._free += gone.curves
        self._lent = [s for s in self._lent if id(s) in in_use]
        parts, curves = [], []
        for block, power in sub.blocks():
            place = self._free.pop() if self._free else np.zeros(self._shape)
            place[:2] = [filtered(half) for half in block.halves()]
            parts.append((Part(block.count.copy(), place[:2]), power.copy()))
            curves.append(place)
        whole, _ = _combined(parts, [0] * len(parts), 1, weighted, None)
        curves[0][2] = np.where(np.isfinite(whole.mean), whole.mean, 0.0)
        halves = np.where(np.isfinite(whole.halves), whole.halves, 0.0)
        spread = ((halves[0] - halves[1]) ** 2).mean(axis=1) / 4.0
        counts = np.add.reduce([p.count for p, _ in parts]).sum(axis=0)
        sealed = Sealed(
            parts, curves, spread, counts, sub.accepted, sub.tally, sub.first, sub.last, sub.tried, sub.most,
            sub.rejected, sub.mains,
        )
        self._lent.append(sealed)
        sub.clear()
        return sealed


def join(subs: list[Sealed], weighted: bool) -> tuple[Averaged, F64]:
    """One average of sub-averages, and the share float64[sub, derivation] of each.

    Weights go by the noise of the sweeps as they came; where that is not known, by what the filter left of it."""
    parts = [p for s in subs for p in s.parts]
    owner = [k for k, s in enumerate(subs) for _ in s.parts]
    fallback = np.stack([s.spread for s in subs]) if len(parts) == len(subs) else None
    return _combined(parts, owner, len(subs), weighted, fallback)


def _combined(
    parts: list[tuple[Part, F64]], owner: list[int], subs: int, weighted: bool, fallback: F64 | None
) -> tuple[Averaged, F64]:
    power = fallback
    if any(bool(p.any()) for _, p in parts):
        counts = np.stack([part.count.sum(axis=0) for part, _ in parts]).astype(np.float64)
        total = np.stack([p for _, p in parts])
        power = np.divide(total, counts * counts, out=np.zeros_like(total), where=counts > 0)
    averaged = combine([part for part, _ in parts], weighted, power)
    share = np.zeros((subs, averaged.weights.shape[1]))
    for k, weight in zip(owner, averaged.weights, strict=True):
        share[k] += weight
    return averaged, share
