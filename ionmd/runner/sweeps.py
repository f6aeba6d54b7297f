"""Single sweeps in motion: muscle MEP, train of four, triggered EMG.  No averaging: every delivery is an answer.

A sweep is cut from the unfiltered inputs, blanked, and filtered forwards only: a backward pass would smear the artefact
into the time before an onset.  A motor sweep is also handed on as a finished average of one, so that two of them
can be a baseline and each later one is judged against it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ionmd.alarm.baseline import AverageData
from ionmd.dsp.blank import blank_sweep
from ionmd.dsp.derive import Montage
from ionmd.dsp.design import design, filter_id
from ionmd.dsp.history import History
from ionmd.dsp.zerophase import filter_average
from ionmd.events import SweepSeen
from ionmd.modality.evoked import Measured
from ionmd.modality.motor import measure_sweep
from ionmd.modality.tof import measure_train
from ionmd.model import AverageResult, Mark, Reading, Source, encode_curve
from ionmd.runner.base import Pending, Report, Run, Span, SubAverage
from ionmd.runner.plan import Channel, plan_sweep
from ionmd.stim.delivery import Delivery, StimulusTally
from ionmd.testdef import TestDefinition

F64 = npt.NDArray[np.float64]


class SweepRun(Run):
    """motor, tof and temg.  A train of four gives one sweep per pulse, each pulse its own time zero."""

    def __init__(
        self, definition: TestDefinition, channels: list[Channel], rate_hz: float, source: Source, stride_in: int
    ) -> None:
        super().__init__(definition, channels, rate_hz, source)
        self.plan = plan_sweep(definition, rate_hz)
        self._tof = definition.test.modality == "tof"
        if self._tof:  # the blank belongs to each pulse, not to the train
            blank = definition.blank
            one = definition.stimulus.interval_ms * (definition.stimulus.pulses - 1) if definition.stimulus else 0.0
            if self.plan.blank is not None and blank.method != "none":
                stop = self.plan.blank[1] - round(one * rate_hz / 1000.0)
                self._blank: tuple[int, int] | None = (self.plan.blank[0], stop)
            else:
                self._blank = None
        else:
            self._blank = self.plan.blank
        self._montage = Montage([c.plus for c in channels], [c.minus for c in channels], stride_in)
        self._d = len(channels)
        self._sos = design(definition.filter, rate_hz)
        self.filter_id = filter_id(
            self._sos, "forward", "zi", (self.plan.start, self.plan.stop, rate_hz),
            (*(self._blank or ()), definition.blank.method),
        )
        self._inputs = np.zeros((self.plan.n + 1, stride_in), np.float32)
        self._sweep = np.zeros((self.plan.n + 1, self._montage.stride), np.float32)
        self._pending: deque[Pending] = deque()
        self._done = 0

    def sweep_window(self) -> tuple[int, int]:
        train = 0
        if self._tof and self.definition.stimulus is not None:
            stimulus = self.definition.stimulus
            train = round((stimulus.pulses - 1) * stimulus.interval_ms * self.rate_hz / 1000.0)
        return self.plan.start, self.plan.stop + train

    def expect(self, delivery: Delivery, zero: int) -> list[Report]:
        if not delivery.ok or delivery.no_contact:
            why = "no contact" if delivery.no_contact else "stimulus"
            self.rejected[why] += 1
            return [Report(sweeps=[self._seen(zero, why)])]
        self._pending.append(Pending(delivery, zero))
        return []

    def restart(self, sample: int, cause: str) -> None:
        self.rejected[cause] += len(self._pending)
        self._pending.clear()

    def collect(self, history: History, processed: int, spoiled: Iterable[Span]) -> list[Report]:
        reports = []
        while self._pending and self._last(self._pending[0]) + self.plan.stop <= processed:
            reports.append(self._measure(self._pending.popleft(), history, spoiled))
        return reports

    def _last(self, pending: Pending) -> int:
        marks: list[Mark] = pending.delivery.marks
        return marks[-1].sample if self._tof and marks else pending.zero

    def _cut(self, zero: int, history: History, spoiled: Iterable[Span]) -> tuple[F64 | None, str]:
        """One filtered sweep [derivation, sample], or the reason why there is none."""
        plan = self.plan
        first, stop = zero + plan.start, zero + plan.stop
        cause = next((s.cause for s in spoiled if s.start < stop and first < s.stop), "")
        if cause or not history.covers(first, plan.n):
            return None, cause or "gap"
        history.view(first, plan.n, self._inputs)
        self._montage.apply(self._inputs, plan.n, self._sweep)
        if self._blank is not None:
            a, b = max(0, self._blank[0] - plan.start), min(plan.n, self._blank[1] - plan.start)
            blank_sweep(self._sweep[: plan.n], a, b, self.definition.blank.method)
        rows = np.ascontiguousarray(self._sweep[: plan.n, : self._d].T, np.float64)
        out = filter_average(self._sos, rows, False) if len(self._sos) else rows
        a, b = plan.baseline[0] - plan.start, plan.baseline[1] - plan.start
        out -= out[:, max(0, a) : max(1, b)].mean(axis=1, keepdims=True)
        return out, ""

    def _measure(self, pending: Pending, history: History, spoiled: Iterable[Span]) -> Report:
        delivery, report = pending.delivery, Report()
        zeros = [m.sample for m in delivery.marks] if self._tof else [pending.zero]
        sweeps = []
        for zero in zeros:
            sweep, cause = self._cut(zero, history, spoiled)
            if sweep is None:
                self.rejected[cause] += 1
                report.rejected = cause
                report.sweeps.append(self._seen(zero, cause))
                return report
            sweeps.append(sweep)
        self._done += 1
        report.sweeps.append(self._seen(pending.zero))
        tally = StimulusTally()
        tally.add(delivery, self.definition.stimulus.polarity if self.definition.stimulus else "monophasic")
        stimulus, source = tally.summary(None), self.source
        average_id = f"{self.id}-{self._done}"
        first, last = zeros[0], zeros[-1] + self.plan.stop - 1
        curves = sweeps[0] if len(sweeps) == 1 else np.concatenate(sweeps)
        names = self.labels if len(sweeps) == 1 else [f"{x} T{i + 1}" for i in range(len(sweeps)) for x in self.labels]
        report.averages.append(AverageResult(
            average_id, self.id, "sweep", last, first, 1, 0, list(names), self.filter_id, source,  # type: ignore[arg-type]
            stimulus, encode_curve(curves.astype(np.float32), self.plan.t0_ms, self.plan.dt_ms),
        ))
        for d, channel in enumerate(self.channels):
            m = self._judge([s[d] for s in sweeps], channel.derivation.label)
            report.readings.append(Reading(
                self.id, channel.derivation.label, channel.derivation.role, f"{average_id}/{channel.derivation.label}",
                last, first, m.status, 1, 0, source, self.filter_id, stimulus, m.markers, m.measures,  # type: ignore[arg-type]
                m.snr_db, m.residual_noise_uv, None, "sweep", average_id,
            ))
        if self.definition.test.modality in ("motor", "tof"):  # of a train of four its first response
            windows = {label: self._window(label) for label in self.labels}
            report.sub = SubAverage(first, last, sweeps[0], [1] * self._d, report.readings)
            report.finished = AverageData(
                average_id, self.id, last, list(self.labels), self.filter_id, stimulus, sweeps[0],
                {x: sweeps[0][None, d, slice(*windows[x])] for d, x in enumerate(self.labels)},
                report.readings, windows,
            )
        return report

    def _seen(self, zero: int, reason: str = "") -> SweepSeen:
        """Every sweep is an answer of its own; `sweeps` and `rejected` count since the test began."""
        seen = SweepSeen(
            test=self.id, sample=zero, accepted=not reason, sweeps=self._done, rejected=sum(self.rejected.values()),
            derivations=[] if reason else list(self.labels),
        )
        if reason:
            seen["reason"] = reason
        return seen

    def _judge(self, sweeps: list[F64], label: str) -> Measured:
        if not self._tof:
            return measure_sweep(self.definition, label, sweeps[0], self.plan.t0_ms, self.plan.dt_ms)
        tof = measure_train(self.definition, label, sweeps, self.plan.t0_ms, self.plan.dt_ms)
        return Measured(tof.status, tof.markers, tof.measures, 1.0 if tof.count else 0.0)

    def _window(self, label: str) -> tuple[int, int]:
        """Columns of a derivation's peak-to-peak measure."""
        for rule in self.definition.measure:
            if rule.window_ms is not None and (not rule.derivations or label in rule.derivations):
                return max(0, self.plan.row(rule.window_ms[0])), min(self.plan.n, self.plan.row(rule.window_ms[1]) + 1)
        return 0, self.plan.n
