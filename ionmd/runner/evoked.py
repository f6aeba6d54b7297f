"""An averaged evoked response in motion: sweeps -> sub-averages -> running and finished averages -> readings.

Sweeps are cut from the unfiltered inputs around each verified delivery, blanked, and summed in float64 per
derivation; rejection looks at the causal stream.  After every `sub_sweeps` accepted sweeps a sub-average is closed:
the newest few make the reading that is shown, the newest alone goes to the change rules.  After `sweeps` sweeps an
average is finished: it can become a baseline.  The finished average is filtered, never the sweeps.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from ionmd.alarm.baseline import Reference
from ionmd.alarm.evidence import SweepShares
from ionmd.dsp.blank import blank_sweep
from ionmd.dsp.derive import Montage
from ionmd.dsp.history import History
from ionmd.dsp.mains import MainsTrack
from ionmd.events import SweepSeen
from ionmd.modality.evoked import response_window
from ionmd.modality.place import prepare
from ionmd.model import Block, Reading, Source
from ionmd.runner.base import Pending, Report, Run, Span, SubAverage
from ionmd.runner.finish import Finish, Finished
from ionmd.runner.plan import Channel, plan_sweep
from ionmd.runner.reject import Rejection
from ionmd.runner.stream import BREAK
from ionmd.runner.sub import Sealed, Shelf, Sub, weight_of
from ionmd.stim.delivery import Delivery
from ionmd.testdef import TestDefinition

# The shown reading covers this many newest sub-averages: old enough to be steady, young enough to follow a change.
RECENT_SUBS = 4
# A sub-average is closed when its best derivation has enough sweeps, or after this many times as many tries.
MAX_TRIES = 4
LEAST_SUBS = 2  # sub-averages before an average may end early: one alone has halves, but nothing that repeats it


class EvokedRun(Run):
    """SSEP and every other averaged modality."""

    def __init__(
        self, definition: TestDefinition, channels: list[Channel], rate_hz: float, source: Source, stride_in: int,
        own_rate_hz: float | None, causal: bool = True, mains_hz: float = 50.0,
    ) -> None:
        super().__init__(definition, channels, rate_hz, source)
        self.plan = plan_sweep(definition, rate_hz)
        self.own_rate_hz = own_rate_hz
        self._montage = Montage([c.plus for c in channels], [c.minus for c in channels], stride_in)
        self._d, self._stride = len(channels), self._montage.stride
        subtract, mains_hz = definition.filter.mains == "subtract", definition.filter.mains_hz or mains_hz
        self._finish = Finish(definition, channels, self.plan, rate_hz, source, mains_hz if subtract else None)
        self.filter_id = self._finish.filter_id
        self._mains = MainsTrack(self._d, rate_hz, mains_hz) if subtract else None
        self._derived = np.zeros((0, self._stride), np.float32)
        self._removed = np.zeros(self._d)  # of the newest sweep, mean square
        ends_ms = [response_window(definition, x)[1] for x in self.labels]
        self._answered = round(max(ends_ms, default=0.0) * rate_hz / 1000.0)  # samples after a stimulus
        self._rejection = Rejection(definition, channels, self.plan, rate_hz, self._stride, stride_in, causal)
        self._inputs = np.zeros((self.plan.n + 1, stride_in), np.float32)
        self._sweep = np.zeros((self.plan.n + 1, self._stride), np.float32)
        self._pending: deque[Pending] = deque()
        self._averages = 0
        self._subs_done = 0
        self._current = Sub(self._d, self.plan.n)
        asked = definition.average
        places = math.ceil(asked.sweeps / asked.sub_sweeps) + RECENT_SUBS + 1
        self._shelf = Shelf(places, self._d, self.plan.n)
        self._recent: deque[Sealed] = deque(maxlen=RECENT_SUBS)
        self._whole: list[Sealed] = []
        prepare(definition, self.plan.dt_ms)
        self._against: dict[int, tuple[slice, npt.NDArray[np.float64]]] = {}  # columns, and what makes a share of them

    # ------------------------------------------------------------ samples and deliveries in

    def sweep_window(self) -> tuple[int, int]:
        return self.plan.start, self.plan.stop

    def feed(self, block: Block, artefacts: list[Span], muted: str = "") -> list[Report]:
        self._rejection.note(block, artefacts)
        if self._mains is not None:
            self._learn(self._mains, block, artefacts, muted)
        return []

    def _learn(self, mains: MainsTrack, block: Block, artefacts: list[Span], muted: str) -> None:
        """The mains of a block, outside every stimulus and what answers it."""
        if block.gap and block.gap & BREAK:
            mains.forget()
        for span in artefacts:
            mains.hide(span.start, max(span.stop, span.start + self._answered))
        if muted:
            mains.hide(block.first, block.first + block.n)
        if len(self._derived) <= block.n:
            self._derived = np.zeros((block.n + 1, self._stride), np.float32)
        self._montage.apply(block.uv, block.n, self._derived)
        mains.feed(block.first, self._derived, block.n)

    def expect(self, delivery: Delivery, zero: int) -> list[Report]:
        if not delivery.ok:
            self._current.tally.add(delivery, self._polarity)
            self._count("stimulus")
            return [Report(sweeps=[self._seen(zero, [], "stimulus")])]
        self._await(Pending(delivery, zero))
        return []

    def expect_trigger(self, zero: int) -> None:
        """A trigger of a recording: there is no delivery to verify."""
        self._await(Pending(Delivery(0, self.id, 0, 0, 0, zero), zero))

    def _await(self, pending: Pending) -> None:
        self._pending.append(pending)
        if self._mains is not None:
            blank = self.plan.blank or (0, 0)
            self._mains.hide(pending.zero + min(0, blank[0]), pending.zero + self._answered)

    @property
    def _polarity(self) -> str:
        return self.definition.stimulus.polarity if self.definition.stimulus else "monophasic"

    @property
    def shares_sweeps(self) -> bool:
        return True

    def compare_with(self, references: Mapping[str, Reference]) -> None:
        self._against = {}
        for d, label in enumerate(self.labels):
            if label in references:
                lo, hi = references[label].window
                wave = references[label].mean_uv[lo:hi]
                wave = wave - float(np.add.reduce(wave)) / len(wave)
                power = float(np.add.reduce(wave * wave))
                if power > 0.0:
                    self._against[d] = slice(lo, hi), wave / power

    def restart(self, sample: int, cause: str) -> None:
        for _ in self._pending:
            self._count(cause)
        self._pending.clear()
        self._recent.clear()
        self._whole = []
        self._current.clear()

    # ------------------------------------------------------------ sweeps

    def collect(self, history: History, processed: int, spoiled: Iterable[Span]) -> list[Report]:
        reports: list[Report] = []
        self._rejection.follow(history, processed)
        while self._pending and self._pending[0].zero + self.plan.stop <= processed:
            pending = self._pending.popleft()
            seen, shares = self._add(pending, history, spoiled)
            sub = self._current
            best = sub.most
            wanted = self.definition.average.sub_sweeps
            if best >= wanted or (sub.tried >= MAX_TRIES * wanted and best > 0):
                reports.append(self._close_sub())
            else:
                reports.append(Report())
            reports[-1].sweeps.append(seen)
            reports[-1].shares += shares
            reports[-1].rejecting = self._rejection.flips()
        return reports

    def finish(self) -> list[Report]:
        """The end of a recording: what is summed so far becomes a last average."""
        if not self._whole and not self._current.most:
            return []
        if self._current.most:
            self._seal()
        return [self._finish_average(Report())] if self._whole else []

    def _add(
        self, pending: Pending, history: History, spoiled: Iterable[Span]
    ) -> tuple[SweepSeen, list[SweepShares]]:
        zero, plan, sub = pending.zero, self.plan, self._current
        first, stop = zero + plan.start, zero + plan.stop
        sub.tried += 1
        sub.last = stop - 1
        cause = next((s.cause for s in spoiled if s.start < stop and first < s.stop), "")
        if cause or not history.covers(first, plan.n):
            self._count(cause or "gap")
            return self._seen(zero, [], cause or "gap"), []
        accept = np.ones(self._d, np.uint8)
        history.view(first, plan.n, self._inputs)
        self._montage.apply(self._inputs, plan.n, self._sweep)
        if self._mains is not None:
            removed = self._mains.remove(self._sweep, first, plan.n)
            if removed is None:
                self._count("mains")
                return self._seen(zero, [], "mains"), []
            self._removed = removed
        if plan.blank is not None:
            a, b = max(0, plan.blank[0] - plan.start), min(plan.n, plan.blank[1] - plan.start)
            blank_sweep(self._sweep[: plan.n], a, b, self.definition.blank.method)
        self._rejection.judge(zero, self._sweep, accept, history)
        for d, label in enumerate(self.labels):
            if label in self.excluded:
                accept[d] = 0
        kinds = self._rejection.kinds(accept)
        accept[: self._d][kinds < 0] = 0
        for d, label in enumerate(self.labels):
            if label not in self.excluded:
                self._rejection.tried(d, label, bool(accept[d]))
        if not accept.any():
            why = "flat" if bool((kinds < 0).any()) else "amplitude" if plan.reject_uv is not None else "excluded"
            self._count(why)
            return self._seen(zero, [], why), []
        if not int(accept.min()):
            sub.rejected["amplitude (some derivations)"] += 1
        if not sub.most:
            sub.first = zero
        sub.add(self._sweep[: plan.n], accept, self._rejection.power, kinds)
        if self._mains is not None:
            sub.mains += np.where(accept[: self._d] > 0, self._removed, 0.0)
        for d in np.flatnonzero(accept).tolist():
            sub.accepted[d] = (sub.accepted[d][0] or zero, stop - 1)
        if pending.delivery.marks:
            sub.tally.add(pending.delivery, self._polarity)
        seen = self._seen(zero, [x for x, taken in zip(self.labels, accept, strict=True) if taken])
        return seen, self._shares(zero, accept, kinds)

    def _shares(
        self, zero: int, accept: npt.NDArray[np.uint8], kinds: npt.NDArray[np.int64]
    ) -> list[SweepShares]:
        """How much of the baseline is in the sweep just added: through the finished filter, as in an average."""
        rows = [d for d in self._against if accept[d]]
        if not rows:
            return []
        curves = self._finish.filtered(self._sweep[: self.plan.n, rows].T.astype(np.float64))
        share, weight = {}, {}
        for d, curve in zip(rows, curves, strict=True):
            window, per_uv = self._against[d]
            share[self.labels[d]] = float(np.add.reduce(curve[window] * per_uv))
            weight[self.labels[d]] = weight_of(int(kinds[d]))
        return [SweepShares(zero, zero + self.plan.stop - 1, share, weight)]

    def _seen(self, zero: int, took: list[str], reason: str = "") -> SweepSeen:
        sub = self._current
        seen = SweepSeen(
            test=self.id, sample=zero, accepted=bool(took), sweeps=sub.most,
            rejected=sum(sub.rejected.values()), derivations=took,
        )
        if reason:
            seen["reason"] = reason
        return seen

    def _count(self, cause: str) -> None:
        self._current.rejected[cause] += 1
        self.rejected[cause] += 1

    # ------------------------------------------------------------ averages

    def _seal(self) -> Sealed:
        used = [*self._recent, *self._whole]
        sub = self._shelf.seal(self._current, self._finish.filtered, self.definition.average.weighted, used)
        self._subs_done += 1
        self._whole.append(sub)
        self._recent.append(sub)
        return sub

    def _close_sub(self) -> Report:
        sub = self._seal()
        report = Report()
        recent = list(self._recent)
        shown = self._measure(recent, "recent", f"{self.id}-r{self._subs_done}")
        report.averages.append(shown.result)
        report.readings += shown.readings
        counts = [int(c) for c in sub.counts]
        report.sub = SubAverage(sub.first, sub.last, sub.mean, counts, shown.readings)
        asked = self.definition.average
        done = sum(s.most for s in self._whole)
        if done >= asked.sweeps:
            report = self._finish_average(report)
        elif asked.stop_when_enough and len(self._whole) >= LEAST_SUBS and any(
            # the recent average tells when a look at the whole one is worth its time
            r.sweeps_needed is not None and r.sweeps_needed <= 1.5 * done for r in shown.readings
        ):
            so_far = self._measure(self._whole, "average", f"{self.id}-{self._averages + 1}")
            if any(map(_enough, so_far.readings)):
                report = self._finish_average(report, so_far)
        return report

    def _finish_average(self, report: Report, finished: Finished | None = None) -> Report:
        self._averages += 1
        finished = finished or self._measure(self._whole, "average", f"{self.id}-{self._averages}")
        self._whole = []
        report.averages.append(finished.result)
        report.readings += finished.readings
        report.finished = self._finish.data(finished)
        return report

    def _measure(self, subs: list[Sealed], kind: str, average_id: str) -> Finished:
        return self._finish.measure(subs, kind, average_id, self.own_rate_hz)


def _enough(reading: Reading) -> bool:
    needed = reading.sweeps_needed
    return reading.role == "alert" and reading.status == "present" and needed is not None and needed <= reading.sweeps

