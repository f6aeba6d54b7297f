"""Single-sample outliers of a converter or a file, flagged and bridged before any filter sees them.

In: samples float[n, channel], in blocks of any size.  Out: the same, two samples late, outliers bridged.
Always: an outlier is flagged for one of two reasons.  It stands alone: further than `limit_uv` from the mean of its two
neighbours and AGREE times further than the largest step among the four around it; real EMG at 1 kHz and more never does
that, its neighbours follow the peak.  Or it recurs: once an outlier has come back REPEATS times with exactly one value
at even distances, that very value where the next one is due is one more, also inside activity that hides it.
Numbers: docs/sources.md#emg-free.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

AGREE = 4.0
REPEATS = 4
SLACK = 2  # samples per period by which a recurring outlier may be early or late ...
MOST_SLACK = 8  # ... and all in all since it was last seen


@dataclass
class Recurring:
    """One channel's recurring outlier; `hits` outliers of `value` came `period` samples apart (or multiples of it)."""

    value: float = 0.0
    last: int = -1
    period: int = 0
    hits: int = 0

    @property
    def known(self) -> bool:
        return self.hits >= REPEATS

    def off(self, sample: int) -> int | None:
        """Samples between `sample` and the nearest place where one is due; None: none is due there."""
        if self.period <= 0:
            return None
        gap = abs(sample - self.last)
        k = max(1, (gap + self.period // 2) // self.period)
        away = abs(gap - k * self.period)
        return away if away <= min(MOST_SLACK, SLACK * k) else None

    def learn(self, sample: int, value: float) -> None:
        """An outlier that stood alone."""
        if self.known and value != self.value:
            return
        if value != self.value or self.last < 0:
            self.value, self.last, self.period, self.hits = value, sample, 0, 1
            return
        if self.off(sample) is not None:
            self.hits += 1
        elif not self.known:
            self.period, self.hits = sample - self.last, 2
        self.last = sample


class Despike:
    """`count` outliers per channel, `places` the newest 1000 as (sample, channel).

    recurring   what an earlier pass over the same recording has learned; a live stream learns as it goes
    """

    def __init__(self, limit_uv: float, channels: int, recurring: list[Recurring] | None = None) -> None:
        self.limit_uv = limit_uv
        self.count: npt.NDArray[np.int64] = np.zeros(channels, np.int64)
        self.places: list[tuple[int, int]] = []
        self.recurring = recurring or [Recurring() for _ in range(channels)]
        self._held: F64 = np.zeros((0, channels))
        self._first = 0  # stream sample of _held row 0
        self._done = 0  # rows of _held that were given out

    def feed(self, samples_uv: npt.NDArray[np.floating]) -> F64:
        """float64[n, channel] in; what is certain by now out, in order."""
        x = np.concatenate([self._held, np.asarray(samples_uv, np.float64)])
        stop = max(self._done, len(x) - 2)
        if self.limit_uv > 0.0 and stop > max(self._done, 2):
            lo = max(self._done, 2)
            before, left, right, after = (x[lo + k : stop + k] for k in (-2, -1, 1, 2))
            middle = 0.5 * (left + right)
            step = np.maximum(np.maximum(np.abs(left - before), np.abs(right - left)), np.abs(after - right))
            away = np.abs(x[lo:stop] - middle)
            flags = (away > self.limit_uv) & (away > AGREE * step)
            for c, one in enumerate(self.recurring):
                if one.known:
                    self._due(one, x[lo:stop, c], flags[:, c], self._first + lo)
                for r in np.flatnonzero(flags[:, c]).tolist():
                    one.learn(self._first + lo + r, float(x[lo + r, c]))
            if flags.any():
                x[lo:stop][flags] = middle[flags]
                self.count += flags.sum(axis=0)
                self.places += [(self._first + lo + int(r), int(c)) for r, c in zip(*np.nonzero(flags), strict=True)]
                self.places = self.places[-1000:]
        out = x[self._done : stop].copy()
        keep = max(0, stop - 2)
        self._held, self._first, self._done = x[keep:].copy(), self._first + keep, stop - keep
        return out

    def _due(self, one: Recurring, x: F64, flags: npt.NDArray[np.bool_], first: int) -> None:
        """Flag the recurring value where it is due; of several within the slack the one nearest to it."""
        best: dict[int, tuple[int, int]] = {}
        for r in np.flatnonzero(x == one.value).tolist():
            off = one.off(first + r)
            if off is None:
                continue
            turn = (abs(first + r - one.last) + one.period // 2) // one.period * (1 if first + r >= one.last else -1)
            if turn not in best or off < best[turn][0]:
                best[turn] = off, r
        for _, r in best.values():
            flags[r] = True

    def finish(self) -> F64:
        """The last samples, which have no right neighbours."""
        out = self._held[self._done :].copy()
        self._done = len(self._held)
        return out
