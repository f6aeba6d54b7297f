"""Power spectra of a stream by Welch's method: the rows of a density spectral array.

In: rows float32[n, stride].  Out: float64[channels, n / 2 + 1], uV^2 per Hz, one-sided, Hann window, mean removed.
Always: equal to scipy.signal.welch (its defaults) within 1e-4 of the largest value (float32 transforms); twiddles and
window are made of square roots alone, so that the bytes are the same on every machine.
"""

from __future__ import annotations

import numpy as np

from ionmd.dsp.layout import F32, F64, curves, stride_of


def roots_of_unity(n: int) -> F32:
    """float32[n, 2]: cosine and minus sine of 2 pi k / n."""
    out = np.empty((n, 2), np.float32)
    curves.roots_of_unity(n, out)
    return out


class Welch:
    """Averages segments of `samples` (a power of two, 64 to 4096) of `channels` columns at `rate_hz`."""

    def __init__(self, channels: int, samples: int, rate_hz: float) -> None:
        self.channels, self.samples, self.rate_hz = channels, samples, rate_hz
        self.stride = stride_of(channels)
        self._twiddles = roots_of_unity(samples)
        self._window = (0.5 - 0.5 * self._twiddles[:, 0].astype(np.float64)).astype(np.float32)
        self._power: F32 = np.zeros((samples // 2 + 1, self.stride), np.float32)
        self._kernel = curves.Welch(self._window, self._twiddles, self._power, samples, self.stride)
        self.segments = 0
        # one-sided: what lies at negative frequencies is counted at the positive ones, except 0 and half the rate
        energy = float(np.square(self._window, dtype=np.float64).sum())
        self._scale = np.full(samples // 2 + 1, 2.0 / (rate_hz * energy))
        self._scale[[0, -1]] /= 2.0

    @property
    def frequencies_hz(self) -> F64:
        result: F64 = np.arange(self.samples // 2 + 1, dtype=np.float64) * (self.rate_hz / self.samples)
        return result

    def add(self, x: F32, first: int = 0, count: int | None = None, step: int | None = None) -> int:
        """Segments of rows from `first`, `step` apart (half a segment), as many as there are; returns how many."""
        step = self.samples // 2 if step is None else step
        if count is None:
            count = max(0, (len(x) - first - self.samples) // step + 1)
        self._kernel.add(x, first, step, count)
        self.segments += count
        return count

    def density(self) -> F64:
        """float64[channels, samples / 2 + 1]; nan before the first segment."""
        scale = self._scale / self.segments if self.segments else np.full_like(self._scale, np.nan)
        result: F64 = np.multiply(self._power.T[: self.channels], scale)
        return result

    def clear(self) -> None:
        self._power[:] = 0
        self.segments = 0
