"""Which sweeps are too large, too noisy or dead, by derivation.

In: the inputs' history, the sweep that was cut.  Out: `accept` of each derivation, its kind (how noisy), and when a
derivation begins or ends to lose every sweep.  Always: written so that nan is refused.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ionmd.dsp.average import sweep_extremes
from ionmd.dsp.history import History
from ionmd.model import Block
from ionmd.runner.base import Span
from ionmd.runner.plan import Channel, SweepPlan
from ionmd.runner.stream import CausalStream
from ionmd.runner.sub import Typical
from ionmd.testdef import TestDefinition


class Rejection:
    """By amplitude of the causally filtered stream (of the sweep itself when there is none: `causal` false).

    power  float64[derivation]  mean square of the newest sweep's causal stream; 0: not known
    """

    def __init__(
        self, definition: TestDefinition, channels: list[Channel], plan: SweepPlan, rate_hz: float, stride: int,
        stride_in: int, causal: bool,
    ) -> None:  # fmt: skip
        self._plan, self._d = plan, len(channels)
        self._sub_sweeps = definition.average.sub_sweeps
        self._causal = None
        if causal and plan.reject_uv is not None:
            keep_s = (plan.stop - plan.start) / rate_hz + 0.5
            self._causal = CausalStream(channels, stride_in, definition.causal or definition.filter, rate_hz, keep_s)
        self._rows = np.zeros((max(1, plan.reject[1] - plan.reject[0]) + 1, stride), np.float32)
        self.power = np.zeros(self._d)
        self._ordinary = np.zeros(self._d, np.int64)
        self._typical = Typical(self._d)
        self._unaccepted = [0] * self._d  # tries since the last accepted sweep of each derivation
        self._flips: dict[str, bool] = {}

    def note(self, block: Block, artefacts: list[Span]) -> None:
        if self._causal is not None:
            self._causal.note(block, artefacts)

    def follow(self, history: History, processed: int) -> None:
        """The history of the inputs does not hold much more than a sweep."""
        if self._causal is not None and self._causal.behind(processed) > self._plan.n:
            self._causal.follow(history, processed)

    def judge(self, zero: int, sweep: npt.NDArray[np.float32], accept: npt.NDArray[np.uint8], history: History) -> None:
        """accept[k] = 0 where column k is refused; the others are left alone."""
        if self._plan.reject_uv is None:
            return
        lo, hi = self._plan.reject
        limit = self._plan.reject_uv
        if self._causal is not None:
            self._causal.follow(history, zero + hi)
            if self._causal.history.covers(zero + lo, hi - lo):
                self._causal.history.within(zero + lo, hi - lo, limit, accept)
            else:
                accept[:] = 0
                return
            self._causal.history.view(zero + lo, hi - lo, self._rows)
            seen = self._rows[: hi - lo, : self._d].astype(np.float64)
            self.power[:] = np.add.reduce(seen * seen, axis=0) / (hi - lo)
            return
        low, high = sweep_extremes(sweep, lo - self._plan.start, hi - self._plan.start)
        for d in range(self._d):
            # written so that nan is refused
            if not (-limit <= low[d] and high[d] <= limit):
                accept[d] = 0

    def kinds(self, accept: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
        """int64[derivation] of the newest sweep, as of Typical.classify: how noisy, -1: dead."""
        if self._plan.reject_uv is None:
            return self._ordinary
        return self._typical.classify(self.power, accept)

    def tried(self, d: int, label: str, accepted: bool) -> None:
        """Note when a whole sub-average's worth of sweeps was rejected, and when that ends."""
        limit = self._sub_sweeps
        if accepted:
            if self._unaccepted[d] >= limit:
                self._flips[label] = False
            self._unaccepted[d] = 0
        else:
            self._unaccepted[d] += 1
            if self._unaccepted[d] == limit:
                self._flips[label] = True

    def flips(self) -> dict[str, bool]:
        """Derivations that began (true) or ended to lose every sweep since the last call."""
        flips, self._flips = self._flips, {}
        return flips
