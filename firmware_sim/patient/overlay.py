"""Answers waiting to be rendered: float32[input, sample] that later pulses may still add to.

Always: nothing is added before the sample that is rendered next, so a sample is final once it was taken.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class Overlay:
    def __init__(self, inputs: int, longest: int, chunk: int) -> None:
        self._longest = longest
        self._buf = np.zeros((inputs, 4 * (longest + chunk)), np.float32)
        self._base = 0  # sample of column 0
        self._end = 0  # sample after the last one written

    def _reach(self, first: int) -> None:
        """Make room for `longest` samples from `first` on; drops what lies before `first`."""
        if first - self._base + self._longest <= self._buf.shape[1]:
            return
        live = max(0, min(self._end - first, self._buf.shape[1] - (first - self._base)))
        k = first - self._base
        if live > 0:
            self._buf[:, :live] = self._buf[:, k : k + live].copy()
        self._buf[:, max(0, live) :] = 0.0
        self._base = first

    def add(self, row: int, at: int, wave: Floats, gain: float, now: int) -> None:
        """row += gain * wave from sample `at`; the part before `now` has been rendered and is dropped."""
        self._reach(now)
        n = min(len(wave), self._longest)
        skip = max(0, now - at)
        if skip >= n:
            return
        k = at + skip - self._base
        stop = min(k + n - skip, self._buf.shape[1])
        self._buf[row, k:stop] += np.float32(gain) * wave[skip : skip + stop - k]
        self._end = max(self._end, at + n)

    def add_outer(self, at: int, gains: Floats, wave: Floats, now: int) -> None:
        """Every input: += gains[input] * wave."""
        self._reach(now)
        n = min(len(wave), self._longest)
        skip = max(0, now - at)
        if skip >= n:
            return
        k = at + skip - self._base
        stop = min(k + n - skip, self._buf.shape[1])
        self._buf[:, k:stop] += np.multiply.outer(gains, wave[skip : skip + stop - k])
        self._end = max(self._end, at + n)

    def take(self, first: int, n: int) -> Floats | None:
        """View of samples first .. first + n; None when nothing was added there."""
        if self._end <= first:
            return None
        self._reach(first)
        k = first - self._base
        if k + n > self._buf.shape[1]:
            raise ValueError(f"{n} samples asked, at most {self._longest} in one piece")
        return self._buf[:, k : k + n]
