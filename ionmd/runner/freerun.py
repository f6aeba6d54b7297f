"""Free-running EMG in motion: one report a second of RMS per muscle, one for every burst.

Stimuli of other tests are held before the filter for as long as muscles may answer them, and never counted as
activity; how much was held is said.  Cautery mutes: a state with its cause, no RMS and no burst until it is over.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ionmd.dsp.history import History
from ionmd.events import EmgMuted, EmgSecond, Muscle
from ionmd.modality.despike import Despike
from ionmd.modality.emg import Burst, EmgStream, Window
from ionmd.model import Block
from ionmd.runner.base import Report, Run, Span
from ionmd.runner.plan import Channel
from ionmd.runner.stream import CausalStream
from ionmd.testdef import FreeEmg, TestDefinition

REPORT_S = 1.0
LEAST_HEARD = 0.1  # of a second; less is too little for an RMS


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
        self._muted = ""
        self._fresh_second(sample)

    def _fresh_second(self, now: int) -> None:
        self._windows: list[Window] = []
        self._bursts = [0] * len(self.channels)
        self._held = 0
        self._next = now + round(REPORT_S * self.rate_hz)

    def restart(self, sample: int, cause: str) -> None:
        self._begin(sample)

    def feed(self, block: Block, artefacts: list[Span], muted: str = "") -> list[Report]:
        if self._origin == 0 and block.first:
            self._begin(block.first)
        first, n = block.first, block.n
        held = [(max(0, s.start - first), min(n, max(s.stop, s.answered) - first)) for s in artefacts]
        rows = self._causal.feed(block, [(0, n)] if muted else [(a, b) for a, b in held if a < b])
        report = Report()
        if muted != self._muted:
            self._mute(muted, first, report)
        if muted:
            self._emg.skip(n)
        else:
            self._held += _covered(held)
            windows, bursts = self._emg.feed(self._despike.feed(rows[:n, : len(self.channels)]))
            self._windows += windows
            self._tell_bursts(bursts, report)
        if first + n >= self._next:
            self._second(first + n, report)
        return [report] if report.events else []

    def _mute(self, cause: str, sample: int, report: Report) -> None:
        """Muted, or heard again: what was open ends here, and what follows starts without a past."""
        self._muted = cause
        windows, bursts = self._emg.feed(self._despike.finish())
        self._windows += windows
        self._tell_bursts([*bursts, *self._emg.finish()], report)
        counted = self._despike.count
        self._despike = Despike(self._rule.outlier_uv, len(self.channels))
        self._despike.count += counted
        muted = EmgMuted(test=self.id, sample=sample, muted=bool(cause), cause=cause)
        report.events.append(("emg", dict(muted)))

    def _tell_bursts(self, bursts: list[Burst], report: Report) -> None:
        for burst in bursts:
            self._bursts[burst.channel] += burst.stop is None
            report.events.append(("emg", {
                "test": self.id, "burst": {
                    "derivation": self.labels[burst.channel], "start_sample": self._origin + burst.start,
                    "stop_sample": None if burst.stop is None else self._origin + burst.stop,
                    "peak_uv": round(burst.peak_uv, 2), "rms_uv": round(burst.rms_uv, 2),
                },
            }))

    def _second(self, now: int, report: Report) -> None:
        """RMS of what was heard: held samples are none."""
        heard = sum(w.n for w in self._windows)
        live = (heard - self._held) / heard if heard else 0.0
        known = bool(self._windows) and live >= LEAST_HEARD
        rms = peak = np.zeros(len(self.channels))
        active = np.zeros(len(self.channels), np.bool_)
        if self._windows:
            rms = np.sqrt(np.mean([w.rms_uv**2 for w in self._windows], axis=0) / max(live, LEAST_HEARD))
            peak = np.max([w.peak_uv for w in self._windows], axis=0)
            active = np.any([w.active for w in self._windows], axis=0)
        report.events.append(("emg", dict(EmgSecond(
            test=self.id, sample=now, held_ms=round(self._held * 1000.0 / self.rate_hz, 1),
            muscles=[
                Muscle(
                    derivation=label, rms_uv=round(float(rms[i]), 3) if known else None,
                    peak_uv=round(float(peak[i]), 2) if known else None, active=bool(known and active[i]),
                    bursts=self._bursts[i], outliers=int(self._despike.count[i]),
                )
                for i, label in enumerate(self.labels)
            ],
            muted=not known, cause="" if known else self._muted or "stimulus",
        ))))
        if known:
            report.valid = list(self.labels)
        self._fresh_second(now)

    def collect(self, history: History, processed: int, spoiled: Iterable[Span]) -> list[Report]:
        return []


def _covered(spans: list[tuple[int, int]]) -> int:
    """Rows in the union of spans that are ordered by their start."""
    total = end = 0
    for a, b in spans:
        a = max(a, end)
        if a < b:
            total, end = total + b - a, b
    return total
