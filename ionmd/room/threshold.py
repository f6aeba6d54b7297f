"""The threshold search of one test in motion: which amplitude is next, and when it is over.

In: readings of single sweeps.  Out: armed and fired deliveries, a ThresholdResult.  Always: a delivery without
contact is repeated and never counted; the criterion must be met `repeats` times at the same amplitude.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from ionmd.drivers.base import ArmToken
from ionmd.errors import LIMIT, IonmdError, Refused
from ionmd.events import ThresholdFound
from ionmd.model import Reading, ThresholdResult
from ionmd.room.teststate import TestState
from ionmd.stim.delivery import Delivery, build
from ionmd.stim.limits import BY_NAME, check_sequence
from ionmd.timers import ARM_TTL_MS, HORIZON_MS
from ionmd.units import ms_to_samples

if TYPE_CHECKING:
    from ionmd.room.room import Room

SLOT = 14
# From arming to firing: loading, reading back and arming over EP0 must be done by then.
SETTLE_MS = 100
NO_CONTACT_TRIES = 20


class Search:
    """One search; `sweep` is called with the readings of every delivery of the test."""

    def __init__(
        self, room: Room, state: TestState, start: float, stop: float, step: float, criterion_uv: float, repeats: int,
        done: Callable[[ThresholdResult], None],
    ) -> None:
        if not (0.0 < start <= stop and step > 0.0):
            raise Refused(f"threshold from {start:g} to {stop:g} by {step:g} came, a rising range was expected", LIMIT)
        self.room, self.state = room, state
        self._amplitude, self._stop, self._step = start, stop, step
        self._criterion_uv, self._repeats, self._done = criterion_uv, repeats, done
        self._met = 0
        self._steps = 0
        self._tries = 0

    def next(self) -> None:
        """Arm and fire one delivery at the present amplitude."""
        room, state = self.room, self.state
        stimulus, output = state.definition.stimulus, state.output
        if stimulus is None or output is None:
            return
        sequence = build(stimulus, output.jack, self._amplitude, state.definition.trigger.zero)
        check_sequence(sequence, BY_NAME[output.kind], room.stimulation.ceiling(output))
        self._steps += 1

        def armed(_: ArmToken | None, error: IonmdError | None) -> None:
            """Failures come back as the output's own technical alarm."""

        room.control.load_and_arm(SLOT, sequence, ARM_TTL_MS, armed)
        gap_ms = max(stimulus.min_gap_ms, HORIZON_MS + SETTLE_MS)
        at = room.now + ms_to_samples(gap_ms, room.rate_hz)
        room.deliveries.ask(state, SLOT, at, Delivery(
            room.deliveries.next_nonce(), state.id, output.jack, len(sequence.pulses), sequence.zero_at, at,
            sequence.volts, self._amplitude,
        ))

    def no_contact(self) -> None:
        """A delivery found no tissue: again, for a while."""
        self._tries += 1
        if self._tries >= NO_CONTACT_TRIES:
            self._finish(None, no_contact=True)
        else:
            self.next()

    def sweep(self, readings: list[Reading]) -> None:
        """The answer to the newest delivery."""
        self._tries = 0
        answered = [r.derivation for r in readings if _size(r) >= self._criterion_uv and r.status == "present"]
        if answered:
            self._met += 1
            if self._met >= self._repeats:
                self._finish(self._amplitude, muscles=answered)
                return
        else:
            self._met = 0
            self._amplitude = round(self._amplitude + self._step, 6)
        if self._amplitude > self._stop:
            self._finish(None)
        else:
            self.next()

    def stop(self) -> None:
        """Ended from outside (stim off, lease lost): no threshold."""
        self._finish(None)

    def _finish(self, found: float | None, no_contact: bool = False, muscles: list[str] | None = None) -> None:
        room, stimulus, output = self.room, self.state.definition.stimulus, self.state.output
        room.search = None
        tof = room.tests.get("tof")
        newest = tof.readings[-1] if tof is not None and tof.readings else None
        ratio = next((m.value for m in newest.measures if m.label == "T4/T1"), None) if newest is not None else None
        result = ThresholdResult(
            self.state.id, room.now, output.name if output else "", found, found is None and not no_contact, no_contact,
            stimulus.width_us if stimulus else 0, stimulus.polarity if stimulus else "", output.anode if output else "",
            muscles or [], ratio, self._steps,
        )
        found_at = ThresholdFound(threshold=msgspec.to_builtins(result))
        room.bus.emit("reading", found_at, kind="threshold", key=f"{self.state.id}/threshold")
        self._done(result)


def _size(reading: Reading) -> float:
    return max((m.amplitude_uv or 0.0 for m in reading.measures), default=0.0)
