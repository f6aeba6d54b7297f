"""The last seconds of rows, found by their sample index.

In: rows as they come, each block with the index of its first.  Out: copies of any stretch still held.
Always: a stretch is given only when every sample of it was pushed; a jump of the index is remembered, so that no sweep
is ever cut across a gap.
"""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt

from ionmd import aligned
from ionmd.dsp.layout import F32, kernels, stride_of


class History:
    """Ring of float32 rows: `samples` of them, `stride_of(channels)` columns, at `rate` Hz.

    oldest, newest   first and last sample held; newest is oldest - 1 while empty
    keep_extremes    smallest and largest values are kept as rows come, for `within` (`samples` is rounded up to 32)
    """

    def __init__(self, channels: int, samples: int, rate: float, keep_extremes: bool = False) -> None:
        if samples < 1:
            raise ValueError(f"a history of {samples} samples came, at least 1 was expected")
        if keep_extremes:
            samples = -(-samples // kernels.CHUNK) * kernels.CHUNK
        self.channels = channels
        self.samples = samples
        self.rate = rate
        stride = stride_of(channels)
        self._rows: F32 = aligned.zeros((samples, stride), np.float32)
        self.lo: F32 = np.zeros(stride, np.float32)  # of the window that `within` looked at last
        self.hi: F32 = np.zeros(stride, np.float32)
        self._extremes = None
        if keep_extremes:
            tables = [aligned.zeros((samples // kernels.CHUNK, stride), np.float32) for _ in range(2)]
            self._extremes = kernels.Extremes(self._rows, *tables, self.lo, self.hi, samples, stride)
        self._start = 0  # oldest sample held, the ring's size and gaps considered
        self._stop = 0  # one past the newest
        self._empty = True
        self._holes: deque[tuple[int, int]] = deque()  # [first missing, first present again), in order

    @property
    def oldest(self) -> int:
        return self._start

    @property
    def newest(self) -> int:
        return self._stop - 1

    @property
    def stop(self) -> int:
        """One past the newest sample: where the next push continues without a gap."""
        return self._stop

    def push(self, first: int, rows: F32, n: int) -> None:
        """Append rows[:n], whose first is sample `first`.  Going back raises ValueError; a jump ahead is a gap."""
        if not (0 <= n <= len(rows)) or rows.shape[1] != self._rows.shape[1]:
            raise ValueError(f"{n} rows of {rows.shape} came, rows of {self._rows.shape[1]} columns were expected")
        if n == 0:
            return
        if self._empty:
            self._start = self._stop = first
            self._empty = False
        if first < self._stop:
            raise ValueError(f"sample {first} came, {self._stop} or later was expected: clear() before going back")
        if first > self._stop:
            self._holes.append((self._stop, first))
        keep = min(n, self.samples)
        at = (first + n - keep) % self.samples
        head = min(keep, self.samples - at)
        self._rows[at : at + head] = rows[n - keep : n - keep + head]
        if head < keep:
            self._rows[: keep - head] = rows[n - keep + head : n]
        if self._extremes is not None:
            self._extremes.update(at, keep)
        self._stop = first + n
        self._start = max(self._start, self._stop - self.samples)
        while self._holes and self._holes[0][1] <= self._start:
            self._holes.popleft()
        if self._holes and self._holes[0][0] <= self._start:
            self._start = self._holes.popleft()[1]

    def covers(self, first: int, n: int) -> bool:
        """Whether samples first..first+n are all held, with no gap among them."""
        if n < 1 or first < self._start or first + n > self._stop:
            return False
        return not any(lost < first + n and again > first for lost, again in self._holes)

    def view(self, first: int, n: int, out: F32) -> None:
        """Copy samples first..first+n into out[:n].  Raises ValueError unless `covers(first, n)`."""
        self._need(first, n)
        at = first % self.samples
        head = min(n, self.samples - at)
        out[:head] = self._rows[at : at + head]
        if head < n:
            out[head:n] = self._rows[: n - head]

    def within(self, first: int, n: int, limit: float, accept: npt.NDArray[np.uint8]) -> bool:
        """accept[k] = 1 where column k stays in -limit..limit in samples first..first+n, else 0 (nan too).

        Says whether any is 1.  Needs `keep_extremes`; raises ValueError unless `covers(first, n)`."""
        if self._extremes is None:
            raise ValueError("this history keeps no extremes")
        self._need(first, n)
        self._extremes.window(first % self.samples, n)
        return bool(self._extremes.within(limit, accept))

    def _need(self, first: int, n: int) -> None:
        if not self.covers(first, n):
            held = f"{self._start} to {self.newest}" + (f" with {len(self._holes)} gaps" if self._holes else "")
            raise ValueError(f"samples {first} to {first + n - 1} are not held whole: {held}")

    def clear(self) -> None:
        """Forget everything: the next push may have any index."""
        self._empty = True
        self._start = self._stop = 0
        self._holes.clear()
