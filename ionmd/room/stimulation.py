"""Who may stimulate, what is armed, and when the next pulse is due.

In: requests that passed roles and lease, the sample index.  Out: jobs for the control thread.  Always: everything
with an effect in the body carries a sample at least a horizon ahead; losing the lease, the device or the case stops
all of it and says so; cautery only pauses.
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ionmd.drivers.base import Sequence
from ionmd.errors import INTERLOCK, NO_DEVICE, IonmdError, Refused
from ionmd.events import StimOff, StimStateChanged
from ionmd.model import Mark, StimState
from ionmd.room.deliveries import REASONS
from ionmd.room.outside import happened
from ionmd.room.teststate import TestState
from ionmd.stim.control import Trouble
from ionmd.stim.delivery import ALTERNATION, Delivery, build
from ionmd.stim.lease import Lease
from ionmd.stim.limits import BY_NAME, check_sequence
from ionmd.stim.schedule import Schedule, SlotRequest, make_cycle
from ionmd.testdef import OutputDef
from ionmd.timers import ARM_TTL_MS, HEARTBEAT_MS, HORIZON_MS
from ionmd.units import ma_to_ua, ms_to_samples, v_to_mv

if TYPE_CHECKING:
    from ionmd.room.room import Room

WATCHDOG = 10  # reason code of docs/wire/ionm1.md section 6
MANUAL_SLOT = 15
THRESHOLD_SLOT = 14
ALTERNATE_SLOTS = 7  # slot + 7 holds the other polarity of an alternating stimulus
START_DELAY_MS = 300  # from a start request to the first pulse: loading and arming must be over by then


@dataclass
class ManualArm:
    """One delivery that a person armed; `token` is what `fire` needs."""

    token: str
    output: OutputDef
    sequence: Sequence
    site: str
    rate_hz: float | None
    person: str
    confirm: str  # why the amplitude must be repeated first; empty: it need not
    expires: int
    next_sample: int | None = None  # of a repeating delivery


class Stimulation:
    """Lease, schedule, manual tokens, heartbeat."""

    def __init__(self, room: Room, earlier: Stimulation | None = None) -> None:
        """`earlier`: of the case before; the lease is a person's, trip and heartbeat are the device's."""
        self._room = room
        self.lease: Lease = earlier.lease if earlier is not None else Lease()
        self.schedule = Schedule()
        self.manual: ManualArm | None = None
        self.paused: dict[str, int] = {}  # cause -> deliveries skipped
        # the firmware's reason code while it is latched
        self.tripped: int = earlier.tripped if earlier is not None else 0
        self._beat: int = earlier._beat if earlier is not None else 0
        self._next_beat: int = earlier._next_beat if earlier is not None else 0

    # ------------------------------------------------------------ lease

    def lost(self, reason: str) -> None:
        """The lease is gone: stop, tell."""
        if self.lease.holder is None:
            return
        self.lease.release()
        self.stopped(reason)

    def stopped(self, reason: str) -> None:
        """Everything off and disarmed; tests that stimulated are not monitored, high."""
        room = self._room
        room.control.off()
        room.deliveries.ledger.cancel()
        self.schedule.stop()
        self.manual = None
        if room.search is not None:
            room.search.stop()
        stopped = [s for s in room.tests.values() if s.running and s.stimulates]
        room.bus.emit("stim", StimOff(state="off", reason=reason, tests=[s.id for s in stopped]))
        for state in stopped:
            room.monitoring.block(state.id, "stimulation stopped", f"stimulation stopped: {reason}", room.now)
        if any(s.continuous for s in stopped):
            room.technical.raised(
                "stimulation.stopped", "", f"Not monitored: stimulation stopped ({reason}).", "high",
                [s.id for s in stopped], "", [label for s in stopped if s.run for label in s.run.labels],
            )

    # ------------------------------------------------------------ continuous tests

    def sequence(self, state: TestState, sign: int = 1) -> Sequence:
        """The checked delivery of a test at its present setting."""
        stimulus, output = state.definition.stimulus, state.output
        if stimulus is None or output is None:
            raise Refused(f"test {state.id} does not stimulate", INTERLOCK)
        sequence = build(stimulus, output.jack, stimulus.amplitude, state.definition.trigger.zero, sign)
        check_sequence(sequence, BY_NAME[output.kind], self.ceiling(output))
        return sequence

    def ceiling(self, output: OutputDef) -> int:
        if not output.max_amplitude:
            return 0
        return v_to_mv(output.max_amplitude) if output.kind == "transcranial" else ma_to_ua(output.max_amplitude)

    def need_device(self) -> None:
        if not self._room.control.attached:
            raise Refused("no stimulator is connected", NO_DEVICE)

    def arm(self, state: TestState) -> None:
        """Load and arm a continuous test's slot(s); failures come back as a technical alarm."""
        signs = ALTERNATION if _alternates(state) else (1,)
        for k, sign in enumerate(signs):
            self._room.control.load_and_arm(state.slot + k * ALTERNATE_SLOTS, self.sequence(state, sign), ARM_TTL_MS)

    def begin_cycle(self) -> None:
        """(Re)build the interleaved cycle of the continuous tests that run; averages keep their own rate."""
        room = self._room
        states = [s for s in room.ordered() if s.running and s.continuous]
        requests = []
        for state in states:
            epoch, stimulus = state.definition.epoch, state.definition.stimulus
            if epoch is None or stimulus is None:
                continue
            requests.append(
                SlotRequest(state.id, stimulus.rate_hz, epoch.start_ms, epoch.stop_ms, state.definition.average.sweeps)
            )
        cycle = make_cycle(requests, room.rate_hz, room.mains_hz)
        for state in states:
            changed = state.own_rate_hz is not None and abs(state.own_rate_hz - cycle.rate_hz) > 1e-9
            state.own_rate_hz = cycle.rate_hz
            if state.run is not None:
                state.run.own_rate_hz = cycle.rate_hz
                if changed:
                    state.run.restart(room.now, "rate changed")
        self.schedule.begin(cycle, room.now + ms_to_samples(HORIZON_MS + START_DELAY_MS, room.rate_hz))

    # ------------------------------------------------------------ every quantum

    def watch_lease(self) -> None:
        """Between blocks: a silent holder loses the lease; monotonic, because a person is waiting, not a sample."""
        if self.lease.expired(time.monotonic()):
            happened(self._room, "lease_lost", reason="the holder of the lease is silent")

    def on_trouble(self, trouble: Trouble) -> None:
        """A request to the device failed (control thread's word)."""
        if trouble.what == "fire":
            self._room.deliveries.not_accepted(trouble.nonce, trouble.reason)
        elif trouble.what == "arm":
            name = next((s.id for s in self._room.tests.values() if s.running and s.slot == trouble.slot % 7), "")
            self._room.technical.raised(
                "stimulus.not-armed", str(trouble.slot), f"The device refused to arm: {trouble.text}.", "high",
                [trouble.reason], name,
            )

    def tick(self) -> None:
        """Hand out what is due within the horizon; beat."""
        room = self._room
        horizon = room.now + ms_to_samples(HORIZON_MS, room.rate_hz) + room.quantum
        for at_sample, test in self.schedule.due(horizon):
            state = room.tests.get(test)
            if state is None or not state.running or state.definition.stimulus is None:
                continue
            if self.lease.holder is None or room.deliveries.latched or state.suspended:
                continue
            if room.technical.cautery:
                self.paused["cautery"] = self.paused.get("cautery", 0) + 1
                continue
            odd = state.sweeps_alternated & 1 if _alternates(state) else 0
            state.sweeps_alternated += 1
            self._ask(state, state.slot + odd * ALTERNATE_SLOTS, at_sample)
        self._repeat(horizon)
        if room.now >= self._next_beat:
            self.beat()

    def beat(self) -> None:
        """Heartbeat with the sample up to which everything has been processed."""
        room = self._room
        self._next_beat = room.now + ms_to_samples(HEARTBEAT_MS, room.rate_hz)
        if room.control.attached:
            self._beat += 1
            room.control.heartbeat(self._beat, room.clock.processed(room.now), room.progress)

    def on_state(self, mark: Mark) -> None:
        """The firmware changed state by itself or on request; `value` is the reason."""
        room = self._room
        state, reason = StimState(mark.state), mark.value
        words = REASONS.get(reason, "")
        changed = StimStateChanged(
            state=state.name, code=reason, reason=words, at_sample=mark.sample,  # type: ignore[typeddict-item]
        )
        room.bus.emit("stim", changed)
        if state is StimState.TRIPPED and not self.tripped:
            self.tripped = reason
            why = REASONS.get(reason, f"reason {reason}")
            room.deliveries.latched = room.deliveries.latched or f"the stimulator tripped: {why}"
            room.technical.raised(
                "stimulus.tripped", "", f"The stimulator tripped and is latched off: {why}.", "high",
                ["it stays off until `ionmd stim reset` with the cause known"],
            )
            self.stopped("the stimulator tripped")
        elif state is StimState.SAFE and reason == WATCHDOG and any(
            s.running and s.stimulates for s in room.tests.values()
        ):
            self.stopped("the device's watchdog missed our heartbeat")

    def on_attach(self) -> None:
        """A device (re)connected: its heartbeat starts at once, everything else stays off."""
        self._next_beat = 0
        self.manual = None

    def _ask(self, state: TestState, slot: int, at_sample: int) -> None:
        room, stimulus = self._room, state.definition.stimulus
        if stimulus is None or state.output is None:
            return
        zero_at = stimulus.pulses - 1 if state.definition.trigger.zero == "last pulse" else 0
        room.deliveries.ask(state, slot, at_sample, Delivery(
            room.deliveries.next_nonce(), state.id, state.output.jack, stimulus.pulses, zero_at, at_sample,
            stimulus.unit == "V", stimulus.amplitude,
        ))

    # ------------------------------------------------------------ by hand

    def hold(self, arm: ManualArm) -> None:
        self.manual = arm

    def new_token(self) -> str:
        return secrets.token_hex(6)

    def find(self, token: str) -> ManualArm:
        """The armed delivery; an old, spent or expired token is refused."""
        arm = self.manual
        if arm is None or arm.token != token:
            raise Refused("this arm token is not in force: it was spent, replaced or stopped; arm again", INTERLOCK)
        if arm.next_sample is None and self._room.now > arm.expires:
            self.manual = None
            raise Refused("the arm token expired (10 s); arm again", INTERLOCK)
        return arm

    def fire(self, arm: ManualArm, slot: int = MANUAL_SLOT, at_sample: int | None = None) -> Delivery:
        """One delivery a horizon from now (or at `at_sample`)."""
        room = self._room
        at = max(at_sample or 0, room.now + ms_to_samples(HORIZON_MS, room.rate_hz))
        state = next(
            (s for s in room.tests.values() if s.running and not s.continuous and s.output is not None
             and s.output.jack == arm.output.jack), None,
        )
        sequence = arm.sequence
        delivery = Delivery(
            room.deliveries.next_nonce(), state.id if state else "", arm.output.jack, len(sequence.pulses),
            sequence.zero_at, at, sequence.volts, abs(sequence.pulses[0].amplitude) / 1000.0,
        )
        room.deliveries.ask(state, slot, at, delivery)
        if arm.rate_hz:
            arm.next_sample = at + round(room.rate_hz / arm.rate_hz)
        return delivery

    def _repeat(self, horizon: int) -> None:
        arm = self.manual
        while arm is not None and arm.rate_hz and arm.next_sample is not None and arm.next_sample < horizon:
            if self.lease.holder is None:
                self.manual = None
                return
            try:
                self.fire(arm, at_sample=arm.next_sample)
            except IonmdError:
                self.manual = None
                return


def _alternates(state: TestState) -> bool:
    return state.definition.stimulus is not None and state.definition.stimulus.polarity == "alternating"
