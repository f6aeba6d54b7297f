"""Who may stimulate, what is armed, and when the next pulse is due.

In: requests that passed roles and lease, the sample index.  Out: jobs for the control thread.  Always: everything
with an effect in the body carries a sample at least a horizon ahead; losing the lease, the device or the case stops
all of it and says so; cautery only pauses.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ionmd.drivers.base import Remembered, Sequence
from ionmd.errors import INTERLOCK, LIMIT, NO_DEVICE, IonmdError, Refused
from ionmd.events import StimOff, StimStateChanged
from ionmd.model import Mark, StimState
from ionmd.room.deliveries import REASONS
from ionmd.room.outside import happened
from ionmd.room.teststate import TestState
from ionmd.stim.control import Trouble
from ionmd.stim.delivery import ALTERNATION, Delivery, build
from ionmd.stim.lease import Holder, Lease
from ionmd.stim.limits import BY_NAME, check_sequence, check_setting
from ionmd.stim.schedule import Schedule, SlotRequest, make_cycle
from ionmd.testdef import OutputDef
from ionmd.timers import ARM_TTL_MS, HEARTBEAT_MS, HORIZON_MS
from ionmd.units import ma_to_ua, ms_to_samples, v_to_mv

if TYPE_CHECKING:
    from ionmd.room.room import Room

# reasons of docs/wire/ionm1.md section 6 for which a device goes SAFE by itself
BY_ITSELF = {10: "the device's watchdog missed our heartbeat", 30: "the stop button was pressed"}
MANUAL_SLOT = 15
THRESHOLD_SLOT = 14
ALTERNATE_SLOTS = 7  # slot + 7 holds the other polarity of an alternating stimulus
START_DELAY_MS = 300  # from a start request to the first pulse: loading and arming must be over by then
GUARD_MS = 5  # between a sweep of the cycle and a delivery on demand
MANUAL_ANSWER_MS = 100  # of a delivery that belongs to no test: how long its answer is kept out of other sweeps


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
        self._reserved: list[tuple[int, int]] = []  # spans in which the cycle does not stimulate
        self._fired: dict[str, int] = {}  # on-demand test -> sample of its newest delivery
        # the firmware's reason code while it is latched
        self.tripped: int = earlier.tripped if earlier is not None else 0
        self._beat: int = earlier._beat if earlier is not None else 0
        self._next_beat: int = earlier._next_beat if earlier is not None else 0

    # ------------------------------------------------------------ lease

    def acquire(self, holder: Holder, take: bool) -> str:
        """The lease's id.  A hand-over (`take`) leaves running what runs, not what waits for its `fire`: the new holder
        arms it anew."""
        before = self.lease.holder
        lease = self.lease.acquire(holder, self._room.clock_s(), take)
        if before is not None and before != holder and self.manual is not None and self.manual.next_sample is None:
            self.disarm()
        return lease

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
            room.search.stop(reason)
        stopped = [s for s in room.tests.values() if s.running and s.stimulates]
        room.bus.emit("stim", StimOff(state="off", reason=reason, tests=[s.id for s in stopped]))
        for state in stopped:
            state.suspended = reason  # a new start is what ends it
            room.monitoring.block(state.id, "stimulation stopped", f"stimulation stopped: {reason}", room.now)
        if any(s.continuous for s in stopped):
            room.technical.raised(
                "stimulation.stopped", "", f"Not monitored: stimulation stopped ({reason}). Start the tests again.",
                "high",
                [s.id for s in stopped], "", [label for s in stopped if s.run for label in s.run.labels],
            )

    # ------------------------------------------------------------ continuous tests

    def sequence(self, state: TestState, sign: int = 1) -> Sequence:
        """The checked delivery of a test at its present setting."""
        stimulus, output = state.definition.stimulus, state.output
        if stimulus is None or output is None:
            raise Refused(f"test {state.id} does not stimulate", INTERLOCK)
        check_setting(
            stimulus.amplitude, stimulus.width_us, stimulus.pulses, stimulus.interval_ms, BY_NAME[output.kind],
            self.ceiling(output),
        )
        sequence = build(stimulus, output.jack, stimulus.amplitude, state.definition.trigger.zero, sign)
        check_sequence(sequence, BY_NAME[output.kind], self.ceiling(output))
        return sequence

    def ceiling(self, output: OutputDef) -> int:
        """The lower of the template's and the cart's ceiling (uA or mV; 0: the hard limit).  Raises Refused for an
        output that the cart's configuration has switched off."""
        cart = self._room.ceilings.get(output.kind)
        if cart is not None and not (cart > 0.0):
            raise Refused(f"output {output.name} is switched off: [limits] of the configuration gives it 0", LIMIT)
        lowest = min((x for x in (output.max_amplitude, cart) if x), default=0.0)
        if not lowest:
            return 0
        return v_to_mv(lowest) if output.kind == "transcranial" else ma_to_ua(lowest)

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
        """Between blocks: a silent holder loses the lease."""
        if self.lease.expired(self._room.clock_s()):
            happened(self._room, "lease_lost", reason="the holder of the lease is silent")

    def on_trouble(self, trouble: Trouble) -> None:
        """A request to the device failed (control thread's word)."""
        if trouble.what == "fire":
            self._room.deliveries.not_accepted(trouble.nonce, trouble.reason, trouble.text)
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
            why = "cautery" if room.technical.cautery else self._kept_free(at_sample)
            if why:
                self.paused[why] = self.paused.get(why, 0) + 1
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
        changed = StimStateChanged(
            state=state.name, code=reason, reason=REASONS.get(reason, ""),  # type: ignore[typeddict-item]
            at_sample=mark.sample,
        )
        room.bus.emit("stim", changed)
        if state is StimState.TRIPPED:
            self._trip(reason)
        elif state is StimState.SAFE and reason in BY_ITSELF and (
            self.manual is not None or any(s.running and s.stimulates for s in room.tests.values())
        ):
            self.stopped(BY_ITSELF[reason])

    def _trip(self, reason: int) -> None:
        if self.tripped:
            return
        room = self._room
        self.tripped = reason
        why = REASONS.get(reason, f"reason {reason}")
        room.deliveries.latched = room.deliveries.latched or f"the stimulator tripped: {why}"
        room.technical.raised(
            "stimulus.tripped", "", f"The stimulator tripped and is latched off: {why}.", "high",
            ["it stays off until `ionmd stim reset` with the cause known"],
        )
        self.stopped("the stimulator tripped")

    def on_attach(self, remembered: Remembered) -> None:
        """A device (re)connected: its heartbeat starts at once, everything else stays off; what latched it before we
        came still does."""
        self._next_beat = 0
        self.manual = None
        self._reserved.clear()
        self._room.deliveries.begin_nonces(remembered.nonce)
        if remembered.trip_reason:
            self._trip(remembered.trip_reason)

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

    def disarm(self) -> None:
        """Take back what a person armed; its output ends what it does, everything else goes on."""
        arm, self.manual = self.manual, None
        if arm is None:
            return
        room = self._room
        room.control.abort(arm.output.jack)
        room.deliveries.ledger.cancel(output=arm.output.jack)
        for state in room.tests.values():
            if state.output is None or state.output.jack != arm.output.jack or not state.stimulating:
                continue
            if state.continuous:
                self.arm(state)  # the abort took its token as well
            elif self._fired.get(state.id, 0) > room.now:
                del self._fired[state.id]  # it will not come: no gap after it

    @property
    def armed(self) -> ManualArm | None:
        """What a person armed and may still be delivered."""
        arm = self.manual
        expired = arm is not None and arm.next_sample is None and self._room.now > arm.expires
        return None if expired else arm

    def new_token(self) -> str:
        return secrets.token_hex(6)

    def find(self, token: str) -> ManualArm:
        """The armed delivery; an old, spent or expired token is refused."""
        arm = self.manual
        if arm is None or arm.token != token:
            raise Refused("this arm token is not in force: it was spent, replaced or stopped; arm again", INTERLOCK)
        if self.armed is None:
            self.manual = None
            raise Refused("the arm token expired (10 s); arm again", INTERLOCK)
        return arm

    def fire(self, arm: ManualArm, slot: int = MANUAL_SLOT, at_sample: int | None = None) -> Delivery:
        """One delivery as soon as it may be, or at `at_sample`, if that is later."""
        state = self.test_of(arm.output)
        if state is not None and unlike(arm.sequence, self.sequence(state)):
            state = None  # not the test's own stimulus: its answer is no sweep of the test
        delivery = self.on_demand(state, arm.output, slot, arm.sequence, at_sample or 0)
        if arm.rate_hz:
            arm.next_sample = delivery.asked_sample + round(self._room.rate_hz / arm.rate_hz)
        return delivery

    def test_of(self, output: OutputDef) -> TestState | None:
        """The running on-demand test whose sweeps the deliveries on this output are."""
        return next(
            (s for s in self._room.tests.values() if s.running and not s.continuous and s.output is not None
             and s.output.jack == output.jack), None,
        )

    def on_demand(
        self, state: TestState | None, output: OutputDef, slot: int, sequence: Sequence, at_sample: int = 0
    ) -> Delivery:
        """Ask for one delivery outside the cycle.

        The cycle keeps free of it: neither does a pulse of the cycle reach into its sweep (an M wave would pass for
        a response), nor it into theirs.  Raises Refused when the test's own gap between deliveries is not over."""
        room = self._room
        before, after = self._cycle_reach()
        at = max(at_sample, room.now + ms_to_samples(HORIZON_MS, room.rate_hz) + before)
        self._need_gap(state, at)
        delivery = Delivery(
            room.deliveries.next_nonce(), state.id if state else "", output.jack, len(sequence.pulses),
            sequence.zero_at, at, sequence.volts, abs(sequence.pulses[0].amplitude) / 1000.0,
        )
        room.deliveries.ask(state, slot, at, delivery)
        train = ms_to_samples(sequence.pulses[-1].t_us / 1000.0, room.rate_hz)
        epoch = state.definition.epoch if state is not None else None
        answer = ms_to_samples(epoch.stop_ms if epoch is not None else MANUAL_ANSWER_MS, room.rate_hz)
        self._reserved = [r for r in self._reserved if r[1] > room.now]
        self._reserved.append((at - before, at + train + answer + after))
        if state is not None:
            self._fired[state.id] = at
        return delivery

    def _cycle_reach(self) -> tuple[int, int]:
        """Samples that sweeps of the running cycle reach after and before their pulse, with a guard that also covers
        what was handed out a quantum beyond the horizon; 0 without a cycle."""
        windows = [s.run.sweep_window() for s in self._room.tests.values() if s.running and s.continuous and s.run]
        if not windows:
            return 0, 0
        guard = ms_to_samples(GUARD_MS, self._room.rate_hz) + self._room.quantum
        return max(stop for _, stop in windows) + guard, max(-start for start, _ in windows) + guard

    def _kept_free(self, at_sample: int) -> str:
        return "another stimulus" if any(a <= at_sample < b for a, b in self._reserved) else ""

    def _need_gap(self, state: TestState | None, at: int) -> None:
        if state is None or state.definition.stimulus is None or state.id not in self._fired:
            return
        gap_ms = state.definition.stimulus.min_gap_ms
        passed_ms = (at - self._fired[state.id]) * 1000.0 / self._room.rate_hz
        if not (passed_ms >= gap_ms):
            raise Refused(
                f"{state.id} was delivered {max(0.0, passed_ms) / 1000:.1f} s ago; {gap_ms / 1000:g} s between its "
                f"deliveries were expected (min_gap_ms): fire again in {(gap_ms - passed_ms) / 1000:.1f} s", INTERLOCK,
            )

    def _repeat(self, horizon: int) -> None:
        arm = self.manual
        if arm is None or not arm.rate_hz:
            return
        horizon += self._cycle_reach()[0]
        while arm.next_sample is not None and arm.next_sample < horizon:
            if self.lease.holder is None:
                self.manual = None
                return
            try:
                self.fire(arm, at_sample=arm.next_sample)
            except IonmdError:
                self.manual = None
                return


def unlike(armed: Sequence, wanted: Sequence) -> list[str]:
    """In what an armed delivery differs from a test's stimulus, the amplitude apart; empty: it is one of the test's."""
    if armed.output != wanted.output or armed.volts is not wanted.volts:
        return ["output"]
    found = []
    if len(armed.pulses) != len(wanted.pulses):
        found.append(f"{len(armed.pulses)} pulses, the test has {len(wanted.pulses)}")
    a, b = armed.pulses[0], wanted.pulses[0]
    if a.width_us != b.width_us:
        found.append(f"width {a.width_us} us, the test has {b.width_us} us")
    if a.biphasic is not b.biphasic or (a.amplitude > 0) is not (b.amplitude > 0):
        found.append("another polarity")
    if not found and any(x.t_us != y.t_us for x, y in zip(armed.pulses, wanted.pulses, strict=True)):
        found.append(f"interval {armed.pulses[1].t_us / 1000:g} ms, the test has {wanted.pulses[1].t_us / 1000:g} ms")
    return found


def _alternates(state: TestState) -> bool:
    return state.definition.stimulus is not None and state.definition.stimulus.polarity == "alternating"
