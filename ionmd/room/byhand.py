"""Deliveries outside the cycle: what a person armed, and what a search asks for.

In: armed deliveries with their tokens, the sample index.  Out: fires that keep clear of the cycle, spans that the cycle
keeps free.  Always: a token is good once armed until it expires, is replaced or anything switches off; a test's own gap
between deliveries is kept.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ionmd.drivers.base import Sequence
from ionmd.errors import INTERLOCK, IonmdError, Refused
from ionmd.events import NotDelivered
from ionmd.room.teststate import TestState
from ionmd.stim.delivery import Delivery
from ionmd.testdef import OutputDef
from ionmd.timers import HORIZON_MS
from ionmd.units import ms_to_samples

if TYPE_CHECKING:
    from ionmd.room.room import Room

MANUAL_SLOT = 15
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


class ByHand:
    """`manual`: what a person armed; it may have expired (`armed`)."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self.manual: ManualArm | None = None
        self._reserved: list[tuple[int, int]] = []  # spans in which the cycle does not stimulate
        self._fired: dict[str, int] = {}  # on-demand test -> sample of its newest delivery

    def forget(self) -> None:
        """The device is another one, or has forgotten."""
        self.manual = None
        self._reserved.clear()

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
                room.stimulation.arm(state)  # the abort took its token as well
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
        if state is not None and unlike(arm.sequence, self._room.stimulation.sequence(state)):
            state = None  # not the test's own stimulus: its answer is no sweep of the test
        delivery = self.deliver(state, arm.output, slot, arm.sequence, at_sample or 0)
        if arm.rate_hz:
            arm.next_sample = delivery.asked_sample + round(self._room.rate_hz / arm.rate_hz)
        return delivery

    def test_of(self, output: OutputDef) -> TestState | None:
        """The running on-demand test whose sweeps the deliveries on this output are."""
        return next(
            (s for s in self._room.tests.values() if s.running and not s.continuous and s.output is not None
             and s.output.jack == output.jack), None,
        )

    def deliver(
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

    def kept_free(self, at_sample: int) -> str:
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

    def repeat(self, horizon: int) -> None:
        """Ask for what is due of a repeating delivery; one that cannot go on is disarmed, and that is said."""
        arm = self.manual
        if arm is None or not arm.rate_hz:
            return
        horizon += self._cycle_reach()[0]
        while arm.next_sample is not None and arm.next_sample < horizon:
            try:
                if self._room.stimulation.lease.holder is None:
                    raise Refused("nobody holds the stimulation lease", INTERLOCK)
                self.fire(arm, at_sample=arm.next_sample)
            except IonmdError as error:
                self.disarm()
                test = self.test_of(arm.output)
                self._room.bus.emit("stim", NotDelivered(
                    state="not delivered", test=test.id if test is not None else "",
                    reason=f"the repetition on {arm.output.name} ended: {error}",
                ))
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
