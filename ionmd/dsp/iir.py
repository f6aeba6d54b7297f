"""The streaming filter: a cascade of second-order sections over rows of samples.

In and out: float32[n, stride_of(channels)], in place allowed.  State: float64, kept across blocks of any size.
Always: the result is scipy.signal.sosfilt in float64, rounded once to float32, bit for bit on every instruction set;
subnormals come out as zero.  nan and inf are never hidden: `process` returns False from the first block that meets
one until those columns are settled again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ionmd import aligned
from ionmd.dsp.design import check_sos, sosfilt_zi
from ionmd.dsp.layout import F32, F64, kernels, stride_of


class Cascade:
    """`sos` float64[sections, 6] (0 to 16 sections) over `channels` columns.  Starts at rest (zero state).

    process(x, y, n) -> bool   filters rows 0..n of x into y; True: the state of every column is finite.
    It is the bound kernel itself: one Python call less per block.
    """

    process: Callable[[F32, F32, int], bool]

    def __init__(self, sos: F64, channels: int) -> None:
        self.sos = check_sos(np.asarray(sos, np.float64).reshape(-1, 6))
        if len(self.sos) > kernels.MAX_SECTIONS:
            raise ValueError(f"{len(self.sos)} sections came, at most {kernels.MAX_SECTIONS} were expected")
        self.channels = channels
        self.stride = stride_of(channels)
        self._zi = sosfilt_zi(self.sos)
        self._state: F64 = aligned.zeros((len(self.sos), 2, self.stride))
        coef = np.ascontiguousarray(self.sos[:, [0, 1, 2, 4, 5]])
        self.kernel = kernels.Iir(coef, self._state, self.stride, len(self.sos))
        self.process = self.kernel.process

    def settle(self, row: npt.NDArray[np.floating], columns: npt.NDArray[np.bool_] | None = None) -> None:
        """State as if each column had held `row`'s value forever; `columns` limits it to some of them.

        Use it at the start, after a gap, and after amplifier recovery: an electrode offset of 100 mV would otherwise
        ring for seconds.  A column whose value is not finite is put at rest.
        """
        row = np.asarray(row)
        if row.ndim != 1 or not (self.channels <= len(row) <= self.stride):
            raise ValueError(f"a row of shape {row.shape} came, {self.channels} to {self.stride} values were expected")
        full = np.zeros(self.stride)
        full[: self.channels] = row[: self.channels]
        state = self._zi[:, :, None] * np.where(np.isfinite(full), full, 0.0)
        self._put(state, columns)

    def reset(self, columns: npt.NDArray[np.bool_] | None = None) -> None:
        """At rest: zero state."""
        self._put(np.zeros_like(self._state), columns)

    def poisoned(self) -> npt.NDArray[np.bool_]:
        """bool[channels]: columns whose state holds nan or inf."""
        finite = np.isfinite(self._state[:, :, : self.channels])
        bad: npt.NDArray[np.bool_] = np.logical_not(finite.reshape(-1, self.channels).all(axis=0))
        return bad

    def state(self) -> F64:
        """A copy, float64[sections, 2, channels]."""
        return self._state[:, :, : self.channels].copy()

    def _put(self, state: F64, columns: npt.NDArray[np.bool_] | None) -> None:
        if columns is None:
            self._state[:] = state
            return
        columns = np.asarray(columns)
        if columns.dtype != np.bool_ or columns.shape != (self.channels,):
            raise ValueError(f"columns {columns.shape} {columns.dtype} came, bool[{self.channels}] was expected")
        which = np.flatnonzero(columns)
        self._state[:, :, which] = state[:, :, which]
