"""Who may stimulate, which tests are armed, and when their next pulse is due.

In: requests that passed roles and lease, the sample index.  Out: jobs for the control thread.  Always: everything
with an effect in the body carries a sample at least a horizon ahead; losing the lease, the device or the case stops
all of it and says so; cautery only pauses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ionmd.drivers.base import Remembered, Sequence
from ionmd.errors import INTERLOCK, LIMIT, NO_DEVICE, Refused
from ionmd.events import StimOff, StimStateChanged
from ionmd.model import Mark, StimState
from ionmd.room.byhand import ByHand
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
ALTERNATE_SLOTS = 7  # slot + 7 holds the other polarity of an alternating stimulus
START_DELAY_MS = 300  # from a start request to the first pulse: loading and arming must be over by then


class Stimulation:
    """Lease, schedule, heartbeat; `by_hand`: deliveries outside the schedule."""

    def __init__(self, room: Room, earlier: Stimulation | None = None) -> None:
        """`earlier`: of the case before; the lease is a person's, trip and heartbeat are the device's."""
        self._room = room
        self.lease: Lease = earlier.lease if earlier is not None else Lease()
        self.schedule = Schedule()
        self.by_hand = ByHand(room)
        self.paused: dict[str, int] = {}  # cause -> deliveries skipped
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
        manual = self.by_hand.manual
        if before is not None and before != holder and manual is not None and manual.next_sample is None:
            self.by_hand.disarm()
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
        self.by_hand.manual = None
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
            why = "cautery" if room.technical.cautery else self.by_hand.kept_free(at_sample)
            if why:
                self.paused[why] = self.paused.get(why, 0) + 1
                continue
            odd = state.sweeps_alternated & 1 if _alternates(state) else 0
            state.sweeps_alternated += 1
            self._ask(state, state.slot + odd * ALTERNATE_SLOTS, at_sample)
        self.by_hand.repeat(horizon)
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
            self.by_hand.manual is not None or any(s.running and s.stimulates for s in room.tests.values())
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
        self.by_hand.forget()
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


def _alternates(state: TestState) -> bool:
    return state.definition.stimulus is not None and state.definition.stimulus.polarity == "alternating"
