"""The room: everything clinical that the daemon knows, in one place, owned by one thread.

Components are nouns: people, tests, deliveries, stimulation, technical, changes, monitoring, book.  They act on each
other only through here.  Nothing in here reads a clock except the lease's keep-alive; time is `now`, the first
case sample that has not been processed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import msgspec

from ionmd.alarm.book import AlarmBook
from ionmd.alarm.evidence import Evidence
from ionmd.alarm.monitored import Monitoring
from ionmd.alarm.watch import ChangeWatch
from ionmd.clock import SampleClock
from ionmd.dsp.design import design
from ionmd.errors import INTERLOCK, NO_CASE, NO_DEVICE, Refused
from ionmd.events import AlarmsPaused, MonitoringChanged, PauseInfo
from ionmd.model import DeviceStatus, Electrode, Source
from ionmd.room.bus import Bus
from ionmd.room.changes import Changes
from ionmd.room.deliveries import Deliveries
from ionmd.room.people import People
from ionmd.room.stimulation import Stimulation
from ionmd.room.technical import Technical
from ionmd.room.teststate import TestState
from ionmd.room.threshold import Search
from ionmd.room.validity import Validity
from ionmd.runner.make import make_run
from ionmd.runner.plan import resolve
from ionmd.stim.control import Control
from ionmd.testdef import Template, TestDefinition

QUANTUM_MS = 5


@dataclass(frozen=True)
class Pause:
    """Alarms paused by a person: a state with a cause and an end."""

    until: int
    reason: str
    person: str


@dataclass
class CaseInfo:
    id: str
    opened_sample: int
    template: str
    person: str


@dataclass
class Room:
    """`definitions` is the catalogue; a template's tests become TestStates when a case opens."""

    bus: Bus
    control: Control
    definitions: dict[str, TestDefinition]
    templates: dict[str, Template]
    mains_hz: float = 50.0
    clock: SampleClock = field(default_factory=SampleClock)
    source: Source = "device"
    rate_hz: float = 0.0
    quantum: int = 1  # samples of QUANTUM_MS
    inputs: int = 0
    stride: int = 0
    lsb_uv: list[float] = field(default_factory=list)
    input_labels: list[str] = field(default_factory=list)
    device: DeviceStatus = field(default_factory=lambda: DeviceStatus("absent"))
    case: CaseInfo | None = None
    template: Template | None = None
    electrodes: dict[str, Electrode] = field(default_factory=dict)
    tests: dict[str, TestState] = field(default_factory=dict)
    now: int = 0
    progress: int = 0
    clock_s: Callable[[], float] = time.monotonic  # a person is waiting, not a sample: the lease alone counts it
    pause: Pause | None = None
    search: Search | None = None
    ceilings: dict[str, float] = field(default_factory=dict)  # kind of output -> mA or V of this cart; 0: switched off

    def __post_init__(self) -> None:
        self.people = People()
        self.changes = Changes(self)
        self.deliveries = Deliveries(self)
        self.technical = Technical(self)
        self.stimulation = Stimulation(self)
        self._begin()

    def _begin(self) -> None:
        """What begins with a case.  A replay begins there as well: whatever survives must be in room/opening.py."""
        self.book = AlarmBook()
        self.monitoring = Monitoring()
        self.deliveries = Deliveries(self, self.deliveries)
        self.technical = Technical(self, self.technical)
        self.stimulation = Stimulation(self, self.stimulation)
        self.validity = Validity(self)
        self.pause = self.search = None

    # ------------------------------------------------------------ demands

    def need_case(self) -> CaseInfo:
        if self.case is None:
            raise Refused("no case is open: `ionmd case new` opens one", NO_CASE)
        return self.case

    def need_streaming(self) -> None:
        if self.rate_hz <= 0.0 or self.device.state != "streaming":
            raise Refused(f"no samples arrive (device {self.device.state}); see `ionmd doctor`", NO_DEVICE)

    def test(self, name: str) -> TestState:
        state = self.tests.get(name)
        if state is None:
            known = ", ".join(self.tests) or "none: open a case first"
            raise Refused(f"test {name} is not in this case ({known})", INTERLOCK)
        return state

    def ordered(self) -> list[TestState]:
        """Tests in the order of the template's interleave list, then the others."""
        order = list(self.template.interleave) if self.template else []
        return sorted(self.tests.values(), key=lambda s: (order.index(s.id) if s.id in order else len(order), s.slot))

    # ------------------------------------------------------------ case

    def open_case(self, case_id: str, template: Template, person: str, montage: dict[str, int] | None) -> CaseInfo:
        """A fresh case: nothing of an earlier one survives but the people and the device."""
        self.case = CaseInfo(case_id, self.now, template.template.id, person)
        self.template = template
        self.mains_hz = template.template.mains_hz or self.mains_hz
        self.electrodes = {e.label: e for e in template.electrode}
        for label, column in (montage or {}).items():
            electrode = self.electrodes.get(label) or Electrode(label, column)
            self.electrodes[label] = msgspec.structs.replace(electrode, input=column)
        self.people.new_case()
        self._begin()
        outputs = {o.name: o for o in template.output}
        self.tests = {}
        for slot, name in enumerate(template.tests):
            definition = self.definitions[name]
            output = outputs.get(definition.stimulus.output) if definition.stimulus is not None else None
            rule = template.alarm.get(name, definition.alarm)
            self.tests[name] = TestState(definition, rule, output, min(slot, 6))
        return self.case

    def close_case(self) -> None:
        for state in self.tests.values():
            self.stop_test(state)
        self.tell_monitoring()
        self.case, self.template, self.tests = None, None, {}
        self.monitoring = Monitoring()

    # ------------------------------------------------------------ tests

    def start_test(self, state: TestState) -> None:
        """Build the runner for the electrodes and the rate at hand; what is missing is named, not hidden."""
        self.need_streaming()
        channels, missing = resolve(state.definition.derivations, self.electrodes, self.inputs)
        if not channels:
            why = "; ".join(f"{k}: {v}" for k, v in missing.items())
            raise Refused(f"test {state.id} has no derivation that can be recorded ({why})", INTERLOCK)
        state.missing = missing
        state.run = make_run(
            state.definition, channels, self.rate_hz, self.source, self.stride, state.own_rate_hz, self.mains_hz
        )
        state.run.excluded = set(state.excluded)
        self._journal_filter(state.definition, getattr(state.run, "filter_id", ""))
        state.running = True
        state.suspended = ""
        confirm = state.rule.confirm if state.rule is not None else 2
        separate = state.definition.test.modality == "motor"
        pairs = [(d.label, self.electrodes.get(d.plus)) for d in state.definition.derivations]
        sides = {label: electrode.side for label, electrode in pairs if electrode is not None}
        state.watch = ChangeWatch(
            state.id, state.title, state.definition.test.side, self.rate_hz, confirm, separate, sides
        )
        state.evidence = Evidence(state.definition.average.sub_sweeps) if state.run.shares_sweeps else None
        state.begin_comparison()
        for derivation in state.definition.derivations:
            self.monitoring.watch(state.id, derivation.label, self.now)
            self.monitoring.unblock(state.id, "stimulation stopped", self.now, derivation.label)
            if derivation.label in missing:
                self.monitoring.block(state.id, "electrode", missing[derivation.label], self.now, derivation.label)
            elif state.rule is not None and state.baseline is None:
                self.monitoring.block(state.id, "no baseline", "no baseline yet", self.now, derivation.label)
        if self.technical.cautery:
            self.monitoring.block(state.id, "cautery", "cautery", self.now)
        for channel in channels:
            bad = [i for i in (channel.plus, channel.minus) if i in self.technical.faults]
            if bad:
                text = f"electrode {self.technical.label(bad[0])}: {self.technical.faults[bad[0]]}"
                self.monitoring.block(state.id, "electrode", text, self.now, channel.derivation.label)

    def _journal_filter(self, definition: TestDefinition, filter_id: str) -> None:
        """Second-order sections in force: of finished sweeps and averages, and of the streams that run along."""
        finished, causal = (
            design(spec, self.rate_hz).tolist() for spec in (definition.filter, definition.causal or definition.filter)
        )
        self.bus.journal("filter", {
            "test": definition.test.id, "filter_id": filter_id, "sos": finished, "causal_sos": causal,
        })

    def stop_test(self, state: TestState) -> None:
        if not state.running:
            return
        state.running = False
        if self.search is not None and self.search.state is state:
            self.search.stop("the test was stopped")
        self.monitoring.forget(state.id)
        if state.stimulates and state.output is not None:
            self.deliveries.ledger.cancel(state.id)

    def activate_baseline(self, state: TestState, baseline_id: str) -> None:
        """Compare against this one from now on; crossings must be seen afresh, open alarms stay open."""
        state.active_baseline = baseline_id
        state.begin_comparison()
        for label, reference in state.baselines[baseline_id].references.items():
            self.monitoring.unblock(state.id, "no baseline", self.now, label)
            if reference.monitorable:
                self.monitoring.unblock(state.id, "not monitorable at baseline", self.now, label)
            else:
                self.monitoring.block(
                    state.id, "not monitorable at baseline", "absent or not replicating at baseline: not monitorable",
                    self.now, label,
                )

    def begin_pause(self, seconds: float, reason: str, person: str) -> None:
        self.pause = Pause(self.now + round(seconds * (self.rate_hz or 1.0)), reason, person)
        info = PauseInfo(until_sample=self.pause.until, reason=reason, person=person)
        self.bus.emit("case", AlarmsPaused(pause=info), kind="pause")

    def end_pause(self) -> None:
        """When its time is over."""
        if self.pause is not None and self.now >= self.pause.until:
            self.pause = None
            self.bus.emit("case", AlarmsPaused(pause=None), kind="pause")

    def tell_monitoring(self) -> None:
        """Publish which derivations became monitored, or not: why."""
        for s in self.monitoring.drain(self.now, self.rate_hz or 1.0):
            changed = MonitoringChanged(
                test=s.test, derivation=s.derivation, monitored=s.monitored, why=s.why, reasons=s.reasons
            )
            self.bus.emit("quality", changed, key=f"{s.test}/{s.derivation}")

    def restart_averages(self, cause: str) -> None:
        """After a gap or a reconnect: nothing is averaged across it."""
        for state in self.tests.values():
            if state.run is not None and state.running:
                state.run.restart(self.now, cause)
                state.begin_comparison()

    @property
    def reach(self) -> int:
        """Samples of history that the longest sweep of a running test needs."""
        windows = [s.run.sweep_window() for s in self.tests.values() if s.run is not None]
        return max((stop - start for start, stop in windows), default=0)
