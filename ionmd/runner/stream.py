"""The causal stream of one test: derivations, artefact held before the filter, streaming band-pass, short history.

Rejection and continuous EMG look at this stream; evoked sweeps are cut from the unfiltered inputs instead.  One call
per block; nothing is allocated after construction.
"""

from __future__ import annotations

import numpy as np

from ionmd.dsp.chain import Chain
from ionmd.dsp.derive import Montage
from ionmd.dsp.design import butter_sos, notch_sos
from ionmd.dsp.history import History
from ionmd.dsp.iir import Cascade
from ionmd.dsp.layout import F32, F64
from ionmd.model import Block
from ionmd.runner.plan import Channel
from ionmd.testdef import Filter

NOTCH_Q = 30.0


def design(spec: Filter, rate_hz: float) -> F64:
    """Second-order sections of a filter of a test file; none (0, 6) when it filters nothing."""
    sections = []
    if spec.kind == "butterworth" and spec.band_hz is not None:
        low, high = spec.band_hz
        if not (high < 0.49 * rate_hz):
            high = 0.0  # the device's own anti-alias filter is below this edge already
        if low > 0.0 or high > 0.0:
            sections.append(butter_sos(spec.order, (low, high), rate_hz))
    if spec.notch_hz > 0.0:
        sections.append(notch_sos(spec.notch_hz, NOTCH_Q, rate_hz))
    return np.concatenate(sections) if sections else np.zeros((0, 6))


class CausalStream:
    """Filtered derivations of a test, `[sample, derivation]`."""

    def __init__(self, channels: list[Channel], stride_in: int, spec: Filter, rate_hz: float, keep_s: float) -> None:
        montage = Montage([c.plus for c in channels], [c.minus for c in channels], stride_in)
        self.stride = montage.stride
        self._montage, self._cascade = montage, Cascade(design(spec, rate_hz), self.stride)
        self._chain = Chain(montage, self._cascade, max(1, round(0.1 * rate_hz)))
        self.rows = self._chain.rows
        self.history = History(self.stride, max(1, round(keep_s * rate_hz)), rate_hz, keep_extremes=True)
        self._fresh = True

    def feed(self, block: Block, spans: list[tuple[int, int]]) -> F32:
        """Filter the block; rows 0..block.n of the result are valid until the next call.

        spans  row ranges [start, stop) of this block to hold at the last good value"""
        n, derived = block.n, self._chain.derived
        if n and (block.gap or self._fresh):
            self._chain.forget()
            self._montage.apply(block.uv, 1, derived)
            self._cascade.settle(derived[0])
            self._fresh = False
        if not self._chain.feed(block.uv, n, spans):
            # nan or inf would stay in the filter for ever: settle those columns on what comes now
            bad = self._cascade.poisoned()
            self._cascade.settle(derived[n - 1], bad)
            self.rows[:n, : len(bad)][:, bad] = 0.0
        self.history.push(block.first, self.rows, n)
        return self.rows
