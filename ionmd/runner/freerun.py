"""Free-running EMG in motion: one report a second of RMS per muscle, one for every burst.

The stimulus windows of other tests are held before the filter and never counted as activity; how much was held is said.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ionmd.dsp.history import History
from ionmd.modality.despike import Despike
from ionmd.modality.emg import Burst, EmgStream, Window
from ionmd.model import Block
from ionmd.runner.base import Report, Run, Span
from ionmd.runner.plan import Channel
from ionmd.runner.stream import CausalStream
from ionmd.testdef import FreeEmg, TestDefinition

REPORT_S = 1.0


class FreeRun(Run):
    """emg_free."""

    def __init__(
        self, definition: TestDefinition, channels: list[Channel], rate_hz: float, source: str, stride_in: int
    ) -> None:
        super().__init__(definition, channels, rate_hz, source)
        self._rule = definition.emg or FreeEmg()
        self._causal = CausalStream(channels, stride_in, definition.causal or definition.filter, rate_hz, 0.2)
        self._begin(0)

    def _begin(self, sample: int) -> None:
        self._despike = Despike(self._rule.outlier_uv, len(self.channels))
        self._emg = EmgStream(self._rule, len(self.channels), self.rate_hz)
        self._origin = sample
        self._windows: list[Window] = []
        self._held = 0
        self._next = sample + round(REPORT_S * self.rate_hz)

    def restart(self, sample: int, cause: str) -> None:
        self._begin(sample)

    def feed(self, block: Block, artefacts: list[Span]) -> list[Report]:
        if self._origin == 0 and block.first:
            self._begin(block.first)
        spans = [(max(0, s.start - block.first), min(block.n, s.stop - block.first)) for s in artefacts]
        spans = [(a, b) for a, b in spans if a < b]
        self._held += sum(b - a for a, b in spans)
        rows = self._causal.feed(block, spans)
        windows, bursts = self._emg.feed(self._despike.feed(rows[: block.n, : len(self.channels)]))
        self._windows += windows
        report = Report(events=[("emg", self._burst(b)) for b in bursts])
        if block.first + block.n >= self._next and self._windows:
            report.events.append(("emg", self._second(block.first + block.n)))
        return [report] if report.events else []

    def _burst(self, burst: Burst) -> dict[str, object]:
        return {
            "test": self.id, "burst": {
                "derivation": self.labels[burst.channel], "start_sample": self._origin + burst.start,
                "stop_sample": None if burst.stop is None else self._origin + burst.stop,
                "peak_uv": round(burst.peak_uv, 2), "rms_uv": round(burst.rms_uv, 2),
            },
        }

    def _second(self, now: int) -> dict[str, object]:
        rms = np.sqrt(np.mean([w.rms_uv**2 for w in self._windows], axis=0))
        peak = np.max([w.peak_uv for w in self._windows], axis=0)
        active = np.any([w.active for w in self._windows], axis=0)
        data = {
            "test": self.id, "sample": now, "held_ms": round(self._held * 1000.0 / self.rate_hz, 1),
            "muscles": [
                {"derivation": label, "rms_uv": round(float(rms[i]), 3), "peak_uv": round(float(peak[i]), 2),
                 "active": bool(active[i]), "outliers": int(self._despike.count[i])}
                for i, label in enumerate(self.labels)
            ],
        }
        self._windows.clear()
        self._held = 0
        self._next = now + round(REPORT_S * self.rate_hz)
        return data

    def collect(self, history: History, processed: int, spoiled: Iterable[Span]) -> list[Report]:
        return []
