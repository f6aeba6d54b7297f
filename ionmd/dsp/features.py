"""Features of free-running EMG over one window: RMS, line length, peak, bursts.

In: causal-filtered rows float32[n, stride], in blocks of any size.  Out: one Features per window.
Always: sums are float32 within 16 rows of the window and float64 across them, so the cut into blocks changes nothing;
nan in a channel makes its RMS and line length nan (never a quiet channel).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ionmd.dsp.layout import F32, F64, kernels, stride_of

I32 = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Features:
    """Of one window, each [channel].

    rms_uv, line_length_uv (sum of |steps|), peak_uv (largest |x|), over (samples with |x| > threshold), bursts
    (crossings of the threshold after at least `quiet` samples below it), n (samples)
    """

    rms_uv: F64
    line_length_uv: F64
    peak_uv: F32
    over: I32
    bursts: I32
    n: int


class EmgFeatures:
    """Accumulates windows.  `threshold_uv` [channel] may be changed between windows; `quiet` >= 1 samples."""

    def __init__(self, channels: int, threshold_uv: npt.ArrayLike, quiet: int) -> None:
        if not (1 <= quiet < 0x3FFFFFFF):
            raise ValueError(f"quiet of {quiet} samples came, at least 1 was expected")
        self.channels = channels
        stride = stride_of(channels)
        self._threshold: F32 = np.full(stride, np.inf, np.float32)
        self._partial: F32 = np.zeros((2, stride), np.float32)
        self._previous: F32 = np.zeros(stride, np.float32)
        self._gap: I32 = np.full(stride, quiet, np.int32)  # nothing seen yet counts as quiet
        self._squares: F64 = np.zeros(stride)
        self._length: F64 = np.zeros(stride)
        self._peak: F32 = np.zeros(stride, np.float32)
        self._over: I32 = np.zeros(stride, np.int32)
        self._bursts: I32 = np.zeros(stride, np.int32)
        self._quiet = quiet
        self.set_threshold(threshold_uv)
        self.kernel = kernels.Emg(
            stride, quiet, self._threshold, self._partial, self._previous, self._gap, self._squares, self._length,
            self._peak, self._over, self._bursts,
        )  # fmt: skip

    def set_threshold(self, threshold_uv: npt.ArrayLike) -> None:
        limit = np.broadcast_to(np.asarray(threshold_uv, np.float32), (self.channels,))
        if not bool((limit > 0).all()):
            raise ValueError("a burst threshold that is not positive came, microvolts above 0 were expected")
        self._threshold[: self.channels] = limit

    def add(self, x: F32, n: int, first: int = 0) -> None:
        """Rows first..first+n of x into the current window."""
        self.kernel.add(x, first, n)

    def finish(self) -> Features:
        """The window so far; a new one begins with the next row (line length and bursts go on across the cut)."""
        c, n = self.channels, int(self.kernel.n)
        with np.errstate(invalid="ignore", divide="ignore"):
            rms = np.sqrt((self._squares + self._partial[0])[:c] / n) if n else np.full(c, np.nan)
        result = Features(
            rms, (self._length + self._partial[1])[:c], self._peak[:c].copy(), self._over[:c].copy(),
            self._bursts[:c].copy(), n,
        )
        self.kernel.clear()
        return result

    def reset(self) -> None:
        """Forget the last row and the running gap: after lost samples."""
        self.kernel.clear()
        self.kernel.forget()
        self._gap[:] = self._quiet
