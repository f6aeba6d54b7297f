"""One test of the case: its definition with the settings in force, whether it runs, and what belongs to it."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

import msgspec

from ionmd.alarm.baseline import AverageData, Baseline
from ionmd.alarm.evidence import Evidence
from ionmd.alarm.watch import ChangeWatch
from ionmd.errors import INTERLOCK, LIMIT, Refused
from ionmd.events import TestInfo
from ionmd.model import Marker, Reading
from ionmd.runner.base import Run
from ionmd.testdef import AlarmRule, OutputDef, TestDefinition

KEEP_AVERAGES = 8
KEEP_READINGS = 64


@dataclass
class TestState:
    """Mutable; owned by the room."""

    __test__ = False  # not a pytest class

    definition: TestDefinition
    rule: AlarmRule | None
    output: OutputDef | None
    slot: int
    run: Run | None = None
    running: bool = False
    missing: dict[str, str] = field(default_factory=dict)
    own_rate_hz: float | None = None
    averages: deque[AverageData] = field(default_factory=lambda: deque(maxlen=KEEP_AVERAGES))
    readings: deque[Reading] = field(default_factory=lambda: deque(maxlen=KEEP_READINGS))
    baselines: dict[str, Baseline] = field(default_factory=dict)
    active_baseline: str = ""
    first_baseline: str = ""
    manual: dict[tuple[str, str], Marker] = field(default_factory=dict)  # (derivation, label)
    rejected_readings: set[str] = field(default_factory=set)
    excluded: dict[str, str] = field(default_factory=dict)
    watch: ChangeWatch | None = None
    recent_ratio: dict[str, deque[float]] = field(default_factory=dict)
    evidence: Evidence | None = None  # of a running averaged test
    finished: int = 0
    sweeps_alternated: int = 0
    suspended: str = ""  # why its output is not stimulated although the test runs; a new start ends it

    @property
    def id(self) -> str:
        return self.definition.test.id

    @property
    def title(self) -> str:
        return self.definition.test.title or self.id

    @property
    def baseline(self) -> Baseline | None:
        return self.baselines.get(self.active_baseline)

    @property
    def alert_labels(self) -> list[str]:
        """Derivations that speak for the patient, without those that a person excluded."""
        return [d.label for d in self.definition.derivations if d.role == "alert" and d.label not in self.excluded]

    @property
    def stimulates(self) -> bool:
        return self.definition.stimulus is not None and self.output is not None

    @property
    def stimulating(self) -> bool:
        """Its output is, or may be, stimulated now."""
        return self.running and self.stimulates and not self.suspended

    @property
    def continuous(self) -> bool:
        """Stimulated at a rate, in the interleaved cycle; the others deliver on demand."""
        stimulus = self.definition.stimulus
        return stimulus is not None and stimulus.rate_hz > 0.0 and self.definition.test.modality == "evoked"

    def last_reading(self, derivation: str) -> Reading | None:
        return next((r for r in reversed(self.readings) if r.derivation == derivation), None)

    def find_average(self, average_id: str) -> AverageData:
        for average in self.averages:
            if average.id == average_id:
                return average
        known = ", ".join(a.id for a in self.averages) or "none finished yet"
        raise Refused(f"{self.id}: average {average_id} is unknown ({known})", INTERLOCK)

    def begin_comparison(self) -> None:
        """Whatever is compared with the baseline from now on has nothing to do with what came before."""
        self.recent_ratio.clear()
        if self.evidence is not None:
            self.evidence.clear()
        if self.watch is not None:
            self.watch.reset()
        if self.run is not None:
            self.run.compare_with(self.baseline.references if self.baseline is not None else {})

    def ratio(self, derivation: str, since: int | None = None) -> float | None:
        """Share of the baseline waveform in the sweeps since a time, or in the newest; None without enough of them."""
        if self.evidence is not None:
            return self.evidence.ratio(derivation, since)
        found = self.recent_ratio.get(derivation)
        return sum(found) / len(found) if found else None

    def info(self, age_s: float | None) -> TestInfo:
        d = self.definition
        labels = self.run.labels if self.run is not None else [x.label for x in d.derivations]
        return TestInfo(
            self.id, d.test.modality, d.test.side, d.test.title, self.running, labels, self.missing, d.stimulus,
            self.output.name if self.output else "", self.own_rate_hz, self.finished,
            dict(self.run.rejected) if self.run else {}, age_s, self.active_baseline, sorted(self.excluded),
        )


def with_stimulus(definition: TestDefinition, **changes: object) -> TestDefinition:
    """The same test with other stimulus settings; outside the test's own range is refused."""
    stimulus = definition.stimulus
    if stimulus is None:
        raise Refused(f"test {definition.test.id} has no stimulus to set", INTERLOCK)
    changed = msgspec.structs.replace(stimulus, **changes)
    lo, hi = changed.range
    if hi > 0.0 and not (lo <= changed.amplitude <= hi):
        raise Refused(
            f"{definition.test.id}: {changed.amplitude:g} {changed.unit} came, {lo:g} to {hi:g} {changed.unit} is this "
            "test's range; edit the test file to change it", LIMIT,
        )
    return msgspec.structs.replace(definition, stimulus=changed)
