"""The causal stream of one test: derivations, artefact held before the filter, streaming band-pass, short history.

Rejection and continuous EMG look at this stream; evoked sweeps are cut from the unfiltered inputs instead.  Who needs
every sample at once calls `feed` with each block; who looks at it only when a sweep is complete notes what to hold and
lets `follow` catch up from the history of the inputs, in a few long calls instead of 200 short ones a second.  Both
give the same bytes: no kernel depends on how its samples are cut.  Nothing is allocated after construction.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from ionmd.dsp.chain import Chain
from ionmd.dsp.derive import Montage
from ionmd.dsp.design import design
from ionmd.dsp.history import History
from ionmd.dsp.iir import Cascade
from ionmd.dsp.layout import F32
from ionmd.model import Block, Gap
from ionmd.runner.base import Span
from ionmd.runner.plan import Channel
from ionmd.testdef import Filter

BREAK = Gap.LOST | Gap.SESSION


class CausalStream:
    """Filtered derivations of a test, `[sample, derivation]`."""

    def __init__(self, channels: list[Channel], stride_in: int, spec: Filter, rate_hz: float, keep_s: float) -> None:
        montage = Montage([c.plus for c in channels], [c.minus for c in channels], stride_in)
        self.stride = montage.stride
        self._montage, self._cascade = montage, Cascade(design(spec, rate_hz), self.stride)
        capacity = max(1, round(0.1 * rate_hz))
        self._chain = Chain(montage, self._cascade, capacity)
        self.rows = self._chain.rows
        self.history = History(self.stride, max(1, round(keep_s * rate_hz)), rate_hz, keep_extremes=True)
        self._fresh = True
        self.restarted = False  # the newest rows begin a new past
        self._inputs = np.zeros((capacity, stride_in), np.float32)
        self._at: int | None = None  # next sample to follow
        self._spans: deque[tuple[int, int]] = deque()  # artefacts from there on, in order of their start

    def note(self, block: Block, artefacts: Sequence[Span]) -> None:
        """Take down what `follow` must know of this block: artefacts to hold, and whether the stream breaks."""
        if self._at is None or (block.gap and block.gap & BREAK):
            self._at, self._fresh = block.first, True
            self._spans.clear()
        for span in artefacts:
            if not self._spans or (span.start, span.stop) > self._spans[-1]:
                self._spans.append((span.start, span.stop))

    def follow(self, history: History, stop: int) -> None:
        """Filter the noted samples before `stop` out of the history of the inputs."""
        while self._at is not None and self._at < stop:
            first, n = self._at, min(stop - self._at, len(self.rows))
            history.view(first, n, self._inputs)
            while self._spans and self._spans[0][1] <= first:
                self._spans.popleft()
            spans = [(max(0, a - first), min(n, b - first)) for a, b in self._spans if a < first + n]
            self._filter(self._inputs, first, n, spans)
            self._at = first + n

    def behind(self, stop: int) -> int:
        """Samples that were noted and not followed yet."""
        return 0 if self._at is None else stop - self._at

    def feed(self, block: Block, spans: list[tuple[int, int]]) -> F32:
        """Filter the block; rows 0..block.n of the result are valid until the next call.

        spans  row ranges [start, stop) of this block to hold at the last good value"""
        if block.gap and block.gap & BREAK:  # an input that clips is no reason to restart the others
            self._fresh = True
        return self._filter(block.uv, block.first, block.n, spans)

    def _filter(self, inputs_uv: F32, first: int, n: int, spans: list[tuple[int, int]]) -> F32:
        derived = self._chain.derived
        self.restarted = self._fresh and n > 0
        if self.restarted:
            self._chain.forget()
            self._montage.apply(inputs_uv, 1, derived)
            self._cascade.settle(derived[0])
            self._fresh = False
        if not self._chain.feed(inputs_uv, n, spans):
            # nan or inf would stay in the filter for ever: settle those columns on what comes now
            bad = self._cascade.poisoned()
            self._cascade.settle(derived[n - 1], bad)
            self.rows[:n, : len(bad)][:, bad] = 0.0
        self.history.push(first, self.rows, n)
        return self.rows
