"""From a runner's report to what everybody sees: comparison, criteria, cause, alarm, episode.

In: a Report of a running test.  Out: average, reading and alarm events on the bus.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from ionmd.alarm.baseline import Baseline, Reference, stimulus_changed, stimulus_differs
from ionmd.alarm.cause import DOWN, Surroundings
from ionmd.alarm.criteria import Judged, compare, judge, judge_sweep, measure_value
from ionmd.alarm.evidence import SweepShares
from ionmd.alarm.shape import projection
from ionmd.alarm.watch import Observation
from ionmd.events import RepeatWanted, Told
from ionmd.model import Alarm, Comparison, Reading
from ionmd.room.teststate import TestState
from ionmd.runner.base import Report, SubAverage

if TYPE_CHECKING:
    from ionmd.room.room import Room

# Ratios of this many newest single sweeps say what a control derivation does.
CONTROL_SUBS = 3
# Below this share a control is down rather than drifting, and explains no more than this much.
LARGEST_DRIFT = 0.5


class Changes:
    """Judges every report of every test against its baselines."""

    def __init__(self, room: Room) -> None:
        self._room = room

    def report(self, state: TestState, report: Report) -> None:
        """Publish one report: averages first, then readings with their comparison, then what they mean."""
        room = self._room
        room.validity.report(state, report)
        compared: list[Reading] = []
        ratios = self._ratios(state, report.sub) if report.sub is not None else {}
        for reading in report.readings:
            compared.append(self.annotate(state, reading, ratios.get(reading.derivation)))
        for average in report.averages:
            room.bus.emit("average", average, key=f"{average.test}/{average.kind}")
        for reading in compared:
            state.readings.append(reading)
            room.validity.reading(state, reading)
            room.bus.emit("reading", reading, key=f"{reading.test}/{reading.derivation}/{reading.kind}")
        for seen in report.sweeps:
            room.bus.show("sweep", seen, key=state.id)  # the record has the deliveries and the averages
        for topic, data in report.events:
            room.bus.emit(topic, data, key=_key(data))
        for label in report.valid:
            room.monitoring.valid_reading(state.id, label, room.now)
        if report.finished is not None:
            state.averages.append(report.finished)
            state.finished += 1
        search = room.search
        if search is not None and search.state is state:
            if any(r.kind == "sweep" for r in compared):
                search.sweep(compared)
            elif report.rejected:
                search.unanswered(report.rejected)
        if report.sub is not None and state.evidence is None:
            self._judge(state, report.sub, {r.derivation: r for r in compared}, ratios)
        for share in report.shares:
            self._look(state, share)

    def annotate(self, state: TestState, reading: Reading, sub_ratio: float | None = None) -> Reading:
        """The reading with its comparison, manual markers and surgical step."""
        markers = list(reading.markers)
        for (derivation, label), manual in state.manual.items():
            if derivation == reading.derivation:
                markers = [
                    msgspec.structs.replace(manual, auto=m, provenance="copied") if m.label == label else m
                    for m in markers
                ]
        reading = msgspec.structs.replace(reading, markers=markers, step=self._room.people.step)
        return msgspec.structs.replace(reading, vs=self.comparison(state, reading, sub_ratio))

    def comparison(self, state: TestState, reading: Reading, sub_ratio: float | None) -> Comparison | None:
        """Against the active baseline, with the first accepted one beside it; None without any."""
        base, rule = state.baseline, state.rule
        if base is None or rule is None:
            return None
        reference = base.references.get(reading.derivation)
        if reference is None:
            return Comparison(base.info.id, refused="this derivation is not in the baseline")
        if reading.filter_id != base.info.filter_id:
            return Comparison(base.info.id, refused="the filter differs from the baseline's: set a new baseline")
        if reason := stimulus_differs(reading.stimulus, base.stimulus):
            return Comparison(base.info.id, refused=f"no comparison: {reason}")
        found = compare(reading, reference.reading, base.info.id, rule)
        flags = [f for f in (stimulus_changed(reading.stimulus, base.stimulus),) if f]
        if not reference.monitorable:
            flags.append("not monitorable at baseline")
        shorter = found.latency_change_ms is not None and found.latency_change_ms < -1.0
        if shorter:
            flags.append("latency is shorter than at baseline: a technical cause is likely")
        first = state.baselines.get(state.first_baseline)
        first_ref = first.references.get(reading.derivation) if first is not None else None
        first_ratio = None
        if first_ref is not None:
            first_ratio = compare(reading, first_ref.reading, state.first_baseline, rule).amplitude_ratio
        return msgspec.structs.replace(
            found, drift_corrected_ratio=None if sub_ratio is None else round(sub_ratio / self._expected(state)[0], 4),
            first_baseline=state.first_baseline, first_amplitude_ratio=first_ratio, flags=flags,
        )

    def _ratios(self, state: TestState, sub: SubAverage) -> dict[str, float]:
        """Each derivation's share of its baseline in the newest sub-average: of the waveform, or of the size of a
        muscle response."""
        base = state.baseline
        if base is None or state.run is None:
            return {}
        found = {}
        for d, label in enumerate(state.run.labels):
            reference = base.references.get(label)
            if reference is not None and sub.counts[d] > 0:
                lo, hi = reference.window
                size = self._size_ratio(sub, label, reference, state)
                ratio = projection(sub.uv[d, lo:hi], reference.mean_uv[lo:hi]) if size is None else size
                found[label] = ratio
                state.recent_ratio.setdefault(label, deque(maxlen=CONTROL_SUBS)).append(ratio)
        return found

    def _look(self, state: TestState, share: SweepShares) -> None:
        """One more sweep of an averaged test: when it is time, what the newest sweeps say against the baseline."""
        evidence, base, rule, watch = state.evidence, state.baseline, state.rule, state.watch
        if evidence is None or base is None or rule is None or watch is None:
            return
        evidence.add(share)
        look = evidence.due()
        window = evidence.window() if look else None
        if window is None:
            return
        evidence.looked(look == "whole")
        expected, expected_se, drift = self._expected(state, window.first)
        judged: dict[str, Judged] = {}
        for label, ratio in window.ratio.items():
            reading = self._comparable(state, base, label, state.last_reading(label))
            if reading is not None:
                se = base.spread.se(label, window.sweeps[label])
                reference = base.references[label].reading
                judged[label] = judge(reading, reference, rule, ratio, se, expected, expected_se)
                if judged[label].judgeable:
                    self._room.monitoring.valid_reading(state.id, label, window.last)
        if not judged:
            return
        known = {k: (j.ratio, j.se) for k, j in judged.items() if j.ratio is not None and j.se is not None}
        around = self.surroundings(state, judged, window.first)
        seen = Observation(window.last, window.first, judged, around, drift, base.spread.pooled(known))
        alarms = (watch.observe if look == "whole" else watch.glance)(seen, self._room.book)
        if alarms and look == "glance":
            evidence.looked(whole=True)  # what confirms it must be sweeps that come from now on
        for alarm in alarms:
            self.tell(alarm)

    @staticmethod
    def _comparable(state: TestState, base: Baseline, label: str, reading: Reading | None) -> Reading | None:
        """The reading, when its derivation speaks for the patient and may be compared."""
        reference = base.references.get(label)
        if reading is None or reference is None or not reference.monitorable or label in state.excluded:
            return None
        if reading.role != "alert" or (reading.vs is not None and reading.vs.refused):
            return None
        return reading

    def _judge(
        self, state: TestState, sub: SubAverage, readings: dict[str, Reading], ratios: dict[str, float]
    ) -> None:
        """A single sweep, which is an answer of its own."""
        base, rule, room = state.baseline, state.rule, self._room
        if base is None or rule is None or state.watch is None:
            return
        expected, expected_se, drift = self._expected(state)
        single = state.watch.separate
        judged: dict[str, Judged] = {}
        for label, ratio in ratios.items():
            reading = self._comparable(state, base, label, readings.get(label))
            if reading is None:
                continue
            reference = base.references[label]
            if single:
                judged[label] = judge_sweep(reading, reference.reading, rule, ratio, expected)
                continue
            judged[label] = judge(
                reading, reference.reading, rule, ratio, reference.sub_ratio_sd, expected, expected_se
            )
            if judged[label].judgeable:
                room.monitoring.valid_reading(state.id, label, reading.sample)
        if not judged:
            return
        seen = Observation(sub.sample, sub.first_sample, judged, self.surroundings(state, judged), drift)
        for alarm in state.watch.observe(seen, room.book):
            self.tell(alarm)
            if single and alarm.state == "possible":  # the room repeats at once; nobody waits for the next interval
                room.bus.emit("stim", RepeatWanted(state="repeat wanted", test=state.id, alarm=alarm.id))

    def tell(self, alarm: Alarm) -> None:
        """Publish an alarm; a confirmed change opens its episode."""
        room = self._room
        room.bus.emit("alarm", alarm)
        opened = alarm.kind == "physiological" and alarm.state in ("possible", "active")
        if opened and not any(e.alarm == alarm.id for e in room.people.episodes.values()):
            episode = room.people.open_episode(alarm.id, alarm.sample)
            room.bus.emit("case", Told(episode=episode), kind="episode")

    def surroundings(self, state: TestState, judged: dict[str, Judged], since: int | None = None) -> Surroundings:
        """What the cause of the derivations that crossed is judged by: delivery, electrodes, controls since then."""
        room = self._room
        delivered, text = room.deliveries.verdict(state.id)
        crossed = [label for label, j in judged.items() if j.crossed]
        around = Surroundings(delivered, text, room.technical.electrode_faults(state, crossed))
        for role, crosses, name, ratio in self._controls(state, since):
            if role == "peripheral control":
                around.peripheral[name] = ratio
            elif crosses:
                around.crossing[name] = ratio
            elif state.watch is not None and state.watch.separate and ratio is not None and ratio >= DOWN:
                # a train of four answers for the relaxant alone: steady, it does not part the cord from anaesthesia
                around.notes.append(f"control {name}: {100 * ratio:.0f} % of baseline, no relaxant")
            else:
                around.outside[name] = ratio
        if state.watch is not None and state.watch.separate:  # the other muscles of the train are its controls
            others = [label for label in judged if label not in crossed] or crossed
            around.crossing |= {f"{state.id}/{label}": judged[label].ratio for label in others}
        return around

    @staticmethod
    def _size_ratio(sub: SubAverage, label: str, reference: Reference, state: TestState) -> float | None:
        """Share of the baseline's size in a single sweep, 0 when its response is absent; None for averages."""
        reading = next((r for r in sub.readings if r.derivation == label), None)
        if reading is None or reading.kind != "sweep":
            return None
        measure = state.rule.measure if state.rule is not None else ""
        now, then = measure_value(reading, measure), measure_value(reference.reading, measure)
        return 0.0 if reading.status == "absent" or now is None or not then else now / then

    def _controls(self, state: TestState, since: int | None = None) -> list[tuple[str, bool, str, float | None]]:
        """(role, crosses the level at risk, name, share of its baseline) of each control the template gives a test.

        A derivation of another test is written test/derivation.  Only a monitorable, running control counts."""
        template = self._room.template
        found: list[tuple[str, bool, str, float | None]] = []
        for control in template.control if template is not None else []:
            if control.test != state.id:
                continue
            name, _, label = control.derivation.rpartition("/")
            other = self._room.tests.get(name) if name else state
            if other is None or not other.running or other.baseline is None or label in other.excluded:
                continue
            reference = other.baseline.references.get(label)
            if reference is not None and reference.monitorable:
                found.append((control.role, control.crosses_level, control.derivation, other.ratio(label, since)))
        return found

    def _expected(self, state: TestState, since: int | None = None) -> tuple[float, float, str]:
        """(factor, its standard error, reason) that drift alone predicts, from controls outside the level at risk."""
        ratios = [
            ratio for role, crosses, _, ratio in self._controls(state, since)
            if role == "systemic control" and not crosses and ratio is not None
        ]
        if not ratios:
            return 1.0, 0.0, ""
        mean = sum(ratios) / len(ratios)
        factor = min(max(mean, LARGEST_DRIFT), 1.0)  # a rise of controls never excuses a fall here
        reason = f"independent controls are at {100 * mean:.0f} % of baseline as well" if factor < 0.9 else ""
        return factor, 0.1, reason


def _key(data: dict[str, object]) -> str:
    """Bursts of a muscle replace each other at a slow reader, but no page; nor does muting."""
    burst = data.get("burst")
    if "muted" in data and "muscles" not in data:
        return f"{data.get('test')}/muted"
    return f"{data.get('test')}/{burst['derivation']}" if isinstance(burst, dict) else str(data.get("test", ""))
