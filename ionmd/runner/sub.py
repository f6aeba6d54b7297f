"""One sub-average: sweeps summed by how noisy each was, so that a noisy sweep costs its own weight and no other's.

In: blanked sweeps with the noise power of each derivation's causal stream.  Out: the blocks that `combine` weighs.
Always: the first block holds ordinary sweeps; a sweep several times noisier than the typical one goes to a block of its
own kind, and each block weighs by its own noise.  A sweep with next to no noise comes from a dead electrode: refused.
Source: docs/sources.md#weighted-average (blocks sorted by noise).
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ionmd.dsp.average import Averaged, SweepSum, combine
from ionmd.stim.delivery import StimulusTally

F64 = npt.NDArray[np.float64]
U8 = npt.NDArray[np.uint8]

EDGES = (2.0, 6.0, 18.0, 54.0)  # noise power over the typical: the power of one sweep is uncertain to a third
DEAD = 1e-3
TYPICAL_OF = 61  # newest sweeps whose median is typical


class Typical:
    """Median noise power of the newest sweeps of each derivation."""

    def __init__(self, derivations: int) -> None:
        self._seen: deque[F64] = deque(maxlen=TYPICAL_OF)
        self._derivations = derivations

    def classify(self, power: F64, accept: U8) -> npt.NDArray[np.int64]:
        """int64[derivation]: the block each belongs to; -1 for a dead one.  Then `power` is one more that was seen."""
        self._seen.append(np.where(np.isfinite(power) & (accept > 0), power, np.nan))
        out = np.zeros(self._derivations, np.int64)
        seen = np.stack(self._seen)
        for d in range(self._derivations):
            known = np.sort(seen[:, d][np.isfinite(seen[:, d])])
            typical = float(known[(len(known) - 1) // 2]) if len(known) else 0.0
            if typical > 0.0:
                ratio = float(power[d]) / typical
                out[d] = -1 if ratio < DEAD else sum(ratio > edge for edge in EDGES)
        return out


@dataclass
class Sub:
    """`sums[k]` and `power[k]` belong to block k; `mean` and `halves` are known once the sub-average is sealed."""

    derivations: int
    samples: int
    accepted: list[tuple[int, int]]  # first and last sample of each derivation's sweeps
    sums: dict[int, SweepSum] = field(default_factory=dict)
    power: dict[int, F64] = field(default_factory=dict)
    tally: StimulusTally = field(default_factory=StimulusTally)
    first: int = 0
    last: int = 0
    tried: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    mean: F64 | None = None
    halves: list[F64] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._block(0)

    def _block(self, kind: int) -> SweepSum:
        if kind not in self.sums:
            self.sums[kind] = SweepSum(self.derivations, self.samples, squares=False)
            self.power[kind] = np.zeros(self.derivations)
        return self.sums[kind]

    def add(self, sweep: npt.NDArray[np.float32], accept: U8, power: F64, kinds: npt.NDArray[np.int64]) -> None:
        for kind in sorted({int(k) for k in kinds[accept[: self.derivations] > 0]}):
            mine = ((kinds == kind) & (accept[: self.derivations] > 0)).astype(np.uint8)
            self._block(kind).add(sweep, mine)
            self.power[kind] += np.where(mine > 0, power, 0.0)

    def counts(self) -> npt.NDArray[np.int64]:
        """int64[derivation]: accepted sweeps."""
        total = np.zeros(self.derivations, np.int64)
        for s in self.sums.values():
            total += s.count.sum(axis=0)
        return total

    @property
    def most(self) -> int:
        return int(self.counts().max(initial=0))


def join(subs: list[Sub], weighted: bool, fallback: F64 | None = None) -> tuple[Averaged, F64]:
    """One average of sub-averages, and the share float64[sub, derivation] of each.

    fallback  float64[sub, derivation]: noise power of the sub-averages, for when no sweep's own power is known
    """
    blocks = [(k, s.sums[kind], s.power[kind]) for k, s in enumerate(subs) for kind in sorted(s.sums)]
    power: F64 | None = None
    if any(bool(p.any()) for _, _, p in blocks):
        counts = np.stack([b.count.sum(axis=0) for _, b, _ in blocks]).astype(np.float64)
        total = np.stack([p for _, _, p in blocks])
        power = np.divide(total, counts * counts, out=np.zeros_like(total), where=counts > 0)
    elif fallback is not None and len(blocks) == len(subs):
        power = fallback
    averaged = combine([b for _, b, _ in blocks], weighted, power)
    share = np.zeros((len(subs), averaged.weights.shape[1]))
    for (k, _, _), weight in zip(blocks, averaged.weights, strict=True):
        share[k] += weight
    return averaged, share
