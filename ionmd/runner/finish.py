"""From sub-averages to a finished average and its readings.

In: closed sub-averages.  Out: the average, a reading of each derivation, what a baseline needs of it.
Always: the finished average is filtered, never the sweeps; `filter_id` names everything that shapes its curve.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ionmd.alarm.baseline import AverageData
from ionmd.dsp.design import design, filter_id
from ionmd.dsp.noise import estimate
from ionmd.dsp.zerophase import filter_average
from ionmd.modality.enough import sweeps_needed
from ionmd.modality.evoked import measure_average, response_window, rules_of
from ionmd.model import AverageResult, Reading, Source, encode_curve
from ionmd.runner.plan import Channel, SweepPlan
from ionmd.runner.sub import Sealed, join
from ionmd.stim.delivery import StimulusTally
from ionmd.testdef import TestDefinition

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Finished:
    """mean_uv float64[derivation, sample], filtered; `subs`: what it is made of."""

    result: AverageResult
    readings: list[Reading]
    mean_uv: F64
    subs: list[Sealed]


class Finish:
    """Of one test.  `subtracts_hz`: the mains that is taken off its sweeps; None: none."""

    def __init__(
        self, definition: TestDefinition, channels: list[Channel], plan: SweepPlan, rate_hz: float, source: Source,
        subtracts_hz: float | None,
    ) -> None:  # fmt: skip
        self.definition, self.channels, self.plan, self.source = definition, channels, plan, source
        self.labels = [c.derivation.label for c in channels]
        self._subtracts = subtracts_hz is not None
        self._sos = design(definition.filter, rate_hz)
        self.filter_id = filter_id(
            self._sos, "zero" if definition.filter.zero_phase else "forward", "odd", (plan.start, plan.stop, rate_hz),
            (*(plan.blank or ()), definition.blank.method, *(("mains", subtracts_hz) if self._subtracts else ())),
        )

    def window(self, label: str) -> tuple[int, int]:
        """Columns of a finished curve in which a derivation's response lies: its marker windows, or the whole
        presence window when no marker is looked for."""
        rules = rules_of(self.definition, label)
        start, stop = response_window(self.definition, label)
        if rules:
            start, stop = min(r.window_ms[0] for r in rules), max(r.window_ms[1] for r in rules)
        return max(0, self.plan.row(start)), min(self.plan.n, self.plan.row(stop) + 1)

    def filtered(self, mean_uv: F64) -> F64:
        """The finished filter, then the pre-stimulus mean taken off; a derivation without sweeps is zero.  Linear."""
        spec = self.definition.filter
        out = np.where(np.isfinite(mean_uv), mean_uv, 0.0)
        if len(self._sos):
            span = (0, self.plan.n)
            if spec.span_ms is not None:
                span = (max(0, self.plan.row(spec.span_ms[0])), min(self.plan.n, self.plan.row(spec.span_ms[1])))
            out = filter_average(self._sos, out, spec.zero_phase, span)
        a, b = self.plan.baseline[0] - self.plan.start, self.plan.baseline[1] - self.plan.start
        out -= out[:, max(0, a) : max(1, b)].mean(axis=1, keepdims=True)
        return out

    def measure(self, subs: list[Sealed], kind: str, average_id: str, own_rate_hz: float | None) -> Finished:
        """The average of `subs`, weighted as the test wants, and a reading of each derivation."""
        averaged, share = join(subs, self.definition.average.weighted)
        mean, *halves = (np.where(np.isfinite(x), x, 0.0) for x in (averaged.mean, *averaged.halves))
        parts = [s.mean for s in subs]
        tally, reasons = StimulusTally(), Counter[str]()
        for s in subs:
            tally.merge(s.tally)
            reasons.update(s.rejected)
        stimulus = tally.summary(own_rate_hz)
        first, last = subs[0].first, subs[-1].last
        test = self.definition.test.id
        readings = []
        for d, channel in enumerate(self.channels):
            label = channel.derivation.label
            n = int(averaged.n[d])
            went_in = [s.accepted[d] for s in subs if s.accepted[d][1]] or [(first, last)]
            tried = sum(s.tried for s in subs)
            noise = estimate(
                mean[d], [h[d] for h in halves], [p[d] for p in parts],
                [float(w) * n for w in share[:, d]], self.window(label), self.plan.dt_ms,
            )
            measured = measure_average(self.definition, label, mean[d], self.plan.t0_ms, self.plan.dt_ms, noise)
            readings.append(
                Reading(
                    test, label, channel.derivation.role, f"{average_id}/{label}", went_in[-1][1], went_in[0][0],
                    measured.status, n,
                    tried - n, self.source, self.filter_id, stimulus, measured.markers, measured.measures,
                    measured.snr_db, measured.residual_noise_uv, measured.reproducibility, kind, average_id,
                    rejected_reasons=dict(reasons), sweeps_needed=sweeps_needed(self.definition, measured, n),
                    mains_uv=self._mains_uv(subs, d),
                )
            )
        most = int(averaged.n[: len(self.channels)].max(initial=0))
        curve = encode_curve(mean.astype(np.float32), self.plan.t0_ms, self.plan.dt_ms)
        result = AverageResult(
            average_id, test, kind, last, first, most, sum(s.tried for s in subs) - most, list(self.labels),
            self.filter_id, self.source, stimulus, curve, dict(reasons), self.plan.dt_ms * 1000.0 / math.sqrt(12.0),
        )
        return Finished(result, readings, mean, subs)

    def data(self, finished: Finished) -> AverageData:
        """What a baseline keeps of it."""
        result = finished.result
        windows = {label: self.window(label) for label in self.labels}
        parts = {x: np.stack([s.mean[d, slice(*windows[x])] for s in finished.subs]) for d, x in enumerate(self.labels)}
        return AverageData(
            result.id, result.test, result.sample, list(self.labels), self.filter_id, result.stimulus, finished.mean_uv,
            parts, finished.readings, windows,
        )

    def _mains_uv(self, subs: list[Sealed], d: int) -> float | None:
        """Rms of the mains that was taken off the accepted sweeps; None when it is left in."""
        n = sum(int(s.counts[d]) for s in subs)
        if not self._subtracts or n == 0:
            return None
        return round(math.sqrt(sum(float(s.mains[d]) for s in subs) / n), 3)
