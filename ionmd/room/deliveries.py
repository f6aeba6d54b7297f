"""Deliveries: what was asked of the stimulator, what came back as pulse marks, and whose sweep it is.

In: fire decisions (from the schedule, or a person's `stim.fire`) and device marks.  Out: verified deliveries to the
running tests, `stim` events, technical alarms.  Always: a pulse that nobody asked for switches everything off and
latches; a delivery that did not come back as set is never averaged and says so.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ionmd.errors import INTERLOCK, Refused
from ionmd.events import AboutToFire, DeliveryDone, NotDelivered, ProbeContact
from ionmd.model import Mark, MarkKind
from ionmd.runner.base import Span
from ionmd.stim.delivery import Delivery, Ledger
from ionmd.units import ms_to_samples

if TYPE_CHECKING:
    from ionmd.room.room import Room
    from ionmd.room.teststate import TestState

# After this many failed deliveries in a row the output's tests are "not monitored: stimulus not delivered".
FAILED_IN_A_ROW = 2
# A delivery that left no mark this long after its sample is missing.
MISSING_AFTER_MS = 1000
# A muscle of a nerve that is stimulated for an evoked response has answered (M wave) and is quiet again by then.
MUSCLE_ANSWER_MS = 30.0
REASONS = {
    7: "its arm token was spent, had expired or never came", 8: "a repeated request", 9: "the request came too late",
    10: "the watchdog", 11: "the stimulator had tripped", 13: "too soon after the last delivery",
    14: "delivered less than set: open circuit or compliance",
    15: "delivered more, longer or the other way than set", 16: "a stray pulse",
    20: "switched off", 21: "a bus reset", 22: "the arm token expired", 23: "no contact", 25: "cautery",
    27: "another train was running", 30: "the stop button",
}


class Deliveries:
    """The ledger and its consequences."""

    def __init__(self, room: Room, earlier: Deliveries | None = None) -> None:
        """`earlier`: those of the case before; what is still on its way, the nonces and a latch are the device's."""
        self._room = room
        self.ledger: Ledger = earlier.ledger if earlier is not None else Ledger()
        self.artefacts: deque[Span] = deque(maxlen=256)
        self.nonce: int = earlier.nonce if earlier is not None else 0
        self._failed: dict[int, int] = {}  # output -> failed in a row
        self._last: dict[int, Delivery] = {}  # output -> newest verified delivery
        self.pulses = 0
        self.latched: str = earlier.latched if earlier is not None else ""

    def next_nonce(self) -> int:
        self.nonce += 1
        return self.nonce

    def begin_nonces(self, seen: int) -> None:
        """Nonces must grow for as long as the device has power, also across our own restarts: on from the greatest
        that it has seen."""
        self.nonce = max(self.nonce, seen)

    def ask(self, state: TestState | None, slot: int, at_sample: int, delivery: Delivery) -> None:
        """Queue one fire; `at_sample` in case samples, at least a horizon ahead."""
        room = self._room
        if self.latched:
            raise Refused(f"stimulation is latched off: {self.latched}; after its cause: `ionmd stim reset`", INTERLOCK)
        self.ledger.expect(delivery)
        if state is not None and state.definition.stimulus is not None and state.definition.stimulus.announce:
            in_ms = round((at_sample - room.now) * 1000.0 / room.rate_hz)
            soon = AboutToFire(state="about to fire", test=state.id, at_sample=at_sample, in_ms=in_ms)
            room.bus.emit("stim", soon)
        room.control.fire(slot, delivery.nonce, room.clock.to_device(at_sample))

    def artefacts_from(self, sample: int) -> list[Span]:
        """Stimulus windows that reach `sample` or later, answers included, in order; older ones are forgotten."""
        while self.artefacts and max(self.artefacts[0].stop, self.artefacts[0].answered) <= sample:
            self.artefacts.popleft()
        return list(self.artefacts)

    def last_delivered(self, output: int) -> int:
        """Magnitude (uA or mV) of the newest verified delivery on an output; 0 before the first."""
        found = self._last.get(output)
        return 0 if found is None or not found.marks else round(abs(found.marks[0].delivered) * 1000)

    def failing(self, output: int) -> str:
        """Why an output's newest deliveries failed; empty when they did not."""
        return "not delivered" if self._failed.get(output, 0) >= FAILED_IN_A_ROW else ""

    def verdict(self, test: str) -> tuple[bool, str]:
        """Was the test's newest stimulus delivered, and the sentence about it."""
        state = self._room.tests[test]
        if state.output is None:
            return True, ""
        jack = state.output.jack
        last = self._last.get(jack)
        if self._failed.get(jack, 0) or last is None:
            return False, f"the stimulus on {state.output.name} was not delivered"
        unit = "V" if last.volts else "mA"
        return True, f"stimulus delivered: {abs(last.marks[0].delivered):g} of {abs(last.marks[0].set):g} {unit} set"

    # ------------------------------------------------------------ marks

    def on_mark(self, mark: Mark) -> None:
        if mark.kind is MarkKind.PULSE:
            self.pulses += 1
        delivery = self.ledger.take(mark)
        if mark.kind is MarkKind.PULSE:
            self._artefact(mark, self._room.tests.get(delivery.test) if delivery is not None else None)
        if delivery is None:
            if mark.kind is MarkKind.PULSE:
                self._stray(mark)
            return
        if delivery.ended:
            self._ended(delivery)

    def _artefact(self, mark: Mark, state: TestState | None) -> None:
        """Every pulse blanks the causal streams, with the widest window of the tests that run; muscles may answer it
        for longer."""
        room = self._room
        stop_ms = max(
            (s.definition.blank.stop_ms for s in room.tests.values() if s.run and s.definition.blank.method != "none"),
            default=3.0,
        )
        answer_ms = MUSCLE_ANSWER_MS
        if state is not None and not state.continuous and state.definition.epoch is not None:
            answer_ms = state.definition.epoch.stop_ms
        self.artefacts.append(Span(
            mark.sample, mark.sample + ms_to_samples(stop_ms, room.rate_hz), "stimulus",
            mark.sample + ms_to_samples(answer_ms, room.rate_hz),
        ))

    def _ended(self, delivery: Delivery) -> None:
        room = self._room
        state = room.tests.get(delivery.test)
        done = DeliveryDone(
            nonce=delivery.nonce, test=delivery.test, output=delivery.output, ok=delivery.ok,
            no_contact=delivery.no_contact, refused=delivery.refused, zero_sample=delivery.zero_sample,
            volts=delivery.volts, zero_at=delivery.zero_at, pulses=[
                (m.sample, m.set, m.delivered, m.width_us, m.polarity, int(m.ok), int(m.no_contact))
                for m in delivery.marks
            ],
        )
        if state is not None and state.continuous:
            room.bus.journal("delivery", done)
        else:
            room.bus.emit("stim", DeliveryDone(state="delivery", **done), kind="delivery")
        if delivery.marks and not delivery.no_contact and delivery.ok:
            self._last[delivery.output] = delivery
        if state is not None and state.output is not None and state.output.connection == "hand-held probe":
            self._probe(state, delivery)
        elif delivery.ok:
            self._delivered(delivery.output)
        elif delivery.refused != 25 and not delivery.cancelled:  # cautery pauses, it is no failure of delivery
            self._not_delivered(delivery)
        if state is None or state.run is None or not state.running:
            return
        zero = delivery.zero_sample if delivery.zero_sample is not None else delivery.asked_sample
        for report in state.run.expect(delivery, zero):
            room.changes.report(state, report)

    def _probe(self, state: TestState, delivery: Delivery) -> None:
        if not delivery.marks:
            self._unanswered(state.id, REASONS.get(delivery.refused, f"refused with reason {delivery.refused}"))
            return
        contact = not delivery.no_contact
        if self._failed.get(delivery.output) != (0 if contact else 1):
            self._failed[delivery.output] = 0 if contact else 1
            name = state.output.name if state.output is not None else ""
            found = ProbeContact(state="contact" if contact else "no contact", output=name, test=state.id)
            self._room.bus.emit("stim", found)
        search = self._room.search
        if not contact and search is not None and search.state is state:
            search.no_contact()

    def _unanswered(self, test: str, why: str) -> None:
        room, search = self._room, self._room.search
        room.bus.emit("stim", NotDelivered(state="not delivered", test=test, reason=why))
        if search is not None and search.state.id == test:
            search.unanswered(why)

    def _delivered(self, output: int) -> None:
        if self._failed.pop(output, 0) >= FAILED_IN_A_ROW:
            self._room.technical.over("stimulus.not-delivered", str(output), "the stimulus is delivered again")
        for state in self._tests_on(output):
            self._room.monitoring.unblock(state.id, "stimulus not delivered", self._room.now)

    def _not_delivered(self, delivery: Delivery, text: str = "") -> None:
        failed = self._failed[delivery.output] = self._failed.get(delivery.output, 0) + 1
        if failed < FAILED_IN_A_ROW and delivery.refused != 14:
            return
        room = self._room
        states = self._tests_on(delivery.output)
        name = states[0].output.name if states and states[0].output else f"output {delivery.output}"
        why = REASONS.get(delivery.refused) or text or (REASONS[14] if delivery.marks else f"reason {delivery.refused}")
        unit = "V" if delivery.volts else "mA"
        got = "no pulse came" if delivery.worst is None else f"{abs(delivery.worst):g} {unit} measured"
        asked = f"{abs(delivery.marks[0].set if delivery.marks else delivery.set):g} {unit}"
        for state in states:
            if delivery.refused in (7, 14, 22):  # the device aborted this output and destroyed its tokens
                state.suspended = why
            room.monitoring.block(state.id, "stimulus not delivered", f"stimulus not delivered on {name}", room.now)
        room.technical.raised(
            "stimulus.not-delivered", str(delivery.output),
            f"Stimulus not delivered on {name}: {why}. Check lead and electrodes, then start the test again.",
            "high", [f"{asked} set, {got}"], states[0].id if states else "",
            [label for s in states for label in (s.run.labels if s.run else [])],
        )

    def _tests_on(self, output: int) -> list[TestState]:
        return [s for s in self._room.tests.values() if s.output is not None and s.output.jack == output]

    def _stray(self, mark: Mark) -> None:
        """A pulse that nobody asked for."""
        self.latched = f"a pulse on output {mark.output} that nobody asked for"
        self._room.control.off()
        self._room.technical.raised(
            "stimulus.stray", str(mark.output),
            f"A pulse left output {mark.output} that nobody asked for: all outputs are off and stay off.",
            "high", [f"sample {mark.sample}, {mark.delivered:g} delivered"], "", [],
        )
        self._room.stimulation.stopped("a stray pulse")

    def not_accepted(self, nonce: int, reason: str, text: str) -> None:
        """The device refused a fire request outright (`reason`: its word, perhaps none): there will be no mark."""
        delivery = self.ledger.withdraw(nonce)
        if delivery is not None and not delivery.cancelled:
            code = {"TOKEN": 7, "LATE": 9, "TRIPPED": 11, "RATE": 13, "CAUTERY": 25}.get(reason, 6)
            delivery.ended, delivery.refused = True, code
            if self._hand_held(delivery):
                self._unanswered(delivery.test, REASONS.get(code, text))
            elif code != 25:
                self._not_delivered(delivery, text)

    def _hand_held(self, delivery: Delivery) -> bool:
        state = self._room.tests.get(delivery.test)
        return state is not None and state.output is not None and state.output.connection == "hand-held probe"

    def missing(self) -> None:
        """Deliveries whose sample passed without any mark."""
        limit = self._room.now - ms_to_samples(MISSING_AFTER_MS, self._room.rate_hz)
        for delivery in self.ledger.forget_before(limit):
            delivery.ended, delivery.refused = True, delivery.refused or 9
            if self._hand_held(delivery):
                self._unanswered(delivery.test, "no mark of it came back")
            else:
                self._not_delivered(delivery)
