"""The threshold search of one test in motion: which amplitude is next, and when it is over.

In: readings of single sweeps.  Out: armed and fired deliveries, a ThresholdResult.  Always: a delivery without
contact, without a usable sweep or refused by the device is repeated and never counted; the criterion must be met
`repeats` times at the same amplitude; a search that was ended from outside says so and has no threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from ionmd.drivers.base import ArmToken, Sequence
from ionmd.errors import LIMIT, IonmdError, Refused
from ionmd.events import ThresholdFound
from ionmd.model import Reading, ThresholdResult
from ionmd.room.teststate import TestState
from ionmd.stim.delivery import build
from ionmd.stim.limits import BY_NAME, check_sequence
from ionmd.testdef import ThresholdSearch
from ionmd.timers import ARM_TTL_MS, HORIZON_MS
from ionmd.units import ms_to_samples

if TYPE_CHECKING:
    from ionmd.room.room import Room

SLOT = 14
# From arming to firing: loading, reading back and arming over EP0 must be done by then.
SETTLE_MS = 100
TRIES = 20  # in a row without an answer: no contact, cautery, rejected sweeps


class Search:
    """One search; `sweep` is called with the readings of every delivery of the test."""

    def __init__(
        self, room: Room, state: TestState, spec: ThresholdSearch, done: Callable[[ThresholdResult], None]
    ) -> None:
        if not (0.0 < spec.start <= spec.stop and spec.step > 0.0):
            raise Refused(
                f"threshold from {spec.start:g} to {spec.stop:g} by {spec.step:g} came, a rising range was expected",
                LIMIT,
            )
        self.room, self.state = room, state
        self._amplitude, self._spec, self._done = spec.start, spec, done
        self._sequence(spec.stop)  # the last step must be allowed before the first one is given
        self._met = 0
        self._steps = 0
        self._last = -(1 << 40)  # sample of the newest delivery
        self._tries = 0

    def _sequence(self, amplitude: float) -> Sequence:
        """The checked delivery at that amplitude."""
        stimulus, output = self.state.definition.stimulus, self.state.output
        if stimulus is None or output is None:
            raise Refused(f"test {self.state.id} does not stimulate", LIMIT)
        lo, hi = stimulus.range
        if hi > 0.0 and not (lo <= amplitude <= hi):
            raise Refused(
                f"{self.state.id}: {amplitude:g} {stimulus.unit} came, {lo:g} to {hi:g} {stimulus.unit} is this test's "
                "range", LIMIT,
            )
        sequence = build(stimulus, output.jack, amplitude, self.state.definition.trigger.zero)
        check_sequence(sequence, BY_NAME[output.kind], self.room.stimulation.ceiling(output))
        return sequence

    def next(self) -> None:
        """Arm and fire one delivery at the present amplitude."""
        room, state = self.room, self.state
        sequence = self._sequence(self._amplitude)
        stimulus, output = state.definition.stimulus, state.output
        if stimulus is None or output is None:
            return

        def armed(_: ArmToken | None, error: IonmdError | None) -> None:
            """Failures come back as the output's own technical alarm."""

        room.control.load_and_arm(SLOT, sequence, ARM_TTL_MS, armed)
        gap_ms = max(stimulus.min_gap_ms, 1000.0 / self._spec.rate_hz, HORIZON_MS + SETTLE_MS)
        at = max(self._last + ms_to_samples(gap_ms, room.rate_hz),
                 room.now + ms_to_samples(HORIZON_MS + SETTLE_MS, room.rate_hz))
        self._last = room.stimulation.by_hand.deliver(state, output, SLOT, sequence, at).asked_sample
        self._steps += 1

    def no_contact(self) -> None:
        """A delivery found no tissue: again, for a while."""
        self._again("", no_contact=True)

    def unanswered(self, why: str) -> None:
        """A delivery that gave no sweep (cautery, a gap, refused by the device): again, for a while."""
        self._again(why)

    def _again(self, why: str, no_contact: bool = False) -> None:
        self._tries += 1
        if self._tries >= TRIES:
            self._finish(None, no_contact=no_contact, ended=why)
        else:
            self._go_on()

    def _go_on(self) -> None:
        try:
            self.next()
        except IonmdError as error:
            self._finish(None, ended=str(error))

    def sweep(self, readings: list[Reading]) -> None:
        """The answer to the newest delivery."""
        self._tries = 0
        answered = [r.derivation for r in readings if _size(r) >= self._spec.criterion_uv and r.status == "present"]
        if answered:
            self._met += 1
            if self._met >= self._spec.repeats:
                self._finish(self._amplitude, muscles=answered)
                return
        else:
            self._met = 0
            self._amplitude = round(self._amplitude + self._spec.step, 6)
        if self._amplitude > self._spec.stop:
            self._finish(None)
        else:
            self._go_on()

    def stop(self, why: str) -> None:
        """Ended from outside (stim off, lease lost, test stopped): no threshold."""
        self._finish(None, ended=why)

    def _finish(
        self, found: float | None, no_contact: bool = False, muscles: list[str] | None = None, ended: str = ""
    ) -> None:
        room, stimulus, output = self.room, self.state.definition.stimulus, self.state.output
        room.search = None
        tof = room.tests.get("tof")
        newest = tof.readings[-1] if tof is not None and tof.readings else None
        ratio = next((m.value for m in newest.measures if m.label == "T4/T1"), None) if newest is not None else None
        not_reached = found is None and not no_contact and not ended
        result = ThresholdResult(
            self.state.id, room.now, output.name if output else "", found, not_reached, no_contact,
            stimulus.width_us if stimulus else 0, stimulus.polarity if stimulus else "", output.anode if output else "",
            muscles or [], ratio, self._steps, ended,
        )
        found_at = ThresholdFound(threshold=msgspec.to_builtins(result))
        room.bus.emit("reading", found_at, kind="threshold", key=f"{self.state.id}/threshold")
        self._done(result)


def _size(reading: Reading) -> float:
    return max((m.amplitude_uv or 0.0 for m in reading.measures), default=0.0)
