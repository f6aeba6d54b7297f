"""Is what is shown of a test still true?  Comparisons that cannot be made, sweeps that are all rejected, old readings.

In: reports and readings as they come, and the samples that pass.  Out: reasons of "not monitored", and a reminder
(technical alarm `reading.old`) when a test that stimulates at a rate has had no valid reading for the template's
`reminder_min`; in a step that the template marks critical it is medium, and comes at once when no derivation of the
test can be judged.  Always: a reminder ends with the next valid reading, and says how old the last one is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ionmd.model import Reading
from ionmd.runner.base import Report

if TYPE_CHECKING:
    from ionmd.room.room import Room
    from ionmd.room.teststate import TestState

STEP_S = 1.0
DEFAULT_REMINDER_MIN = 3.0
# These alone are enough for the reminder at once in a critical step; the others have alarms of their own.
UNTOLD = frozenset({"all sweeps rejected", "no comparison"})


class Validity:
    """Of every running test of the room."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._next = 0

    def reading(self, state: TestState, reading: Reading) -> None:
        """A reading with its comparison: can it be held against the baseline, and is it valid?

        Valid is what was measured with the stimulus verified: a response that is there, or one that is gone."""
        room = self._room
        refused = reading.vs.refused if reading.vs is not None else ""
        if refused:
            room.monitoring.block(state.id, "no comparison", refused, room.now, reading.derivation)
        else:
            room.monitoring.unblock(state.id, "no comparison", room.now, reading.derivation)
        judged = reading.status in ("present", "absent") and reading.stimulus.ok
        if judged and reading.id not in state.rejected_readings:
            room.monitoring.valid_reading(state.id, reading.derivation, reading.sample)

    def report(self, state: TestState, report: Report) -> None:
        """Derivations whose sweeps began or ceased to be rejected one and all."""
        room = self._room
        for label, rejecting in report.rejecting.items():
            if rejecting:
                text = "every sweep is rejected: noise or movement"
                room.monitoring.block(state.id, "all sweeps rejected", text, room.now, label)
            else:
                room.monitoring.unblock(state.id, "all sweeps rejected", room.now, label)

    def tick(self) -> None:
        """Once a second of samples: whose last valid reading has grown old."""
        room = self._room
        if room.now < self._next:
            return
        self._next = room.now + round(STEP_S * room.rate_hz)
        head = room.template.template if room.template is not None else None
        limit_s = 60.0 * (head.reminder_min if head is not None else DEFAULT_REMINDER_MIN)
        critical = head is not None and room.people.step in head.critical_steps
        for state in room.tests.values():
            if state.running and state.continuous:
                self._remind(state, limit_s, critical)

    def _remind(self, state: TestState, limit_s: float, critical: bool) -> None:
        room = self._room
        since = room.monitoring.valid_since(state.id, state.alert_labels)
        age_s = (room.now - since) / room.rate_hz
        keys, reasons = room.monitoring.reasons(state.id, state.alert_labels)
        at_once = critical and bool(keys & UNTOLD)
        if age_s < limit_s and not at_once:
            room.technical.over("reading.old", state.id, "a valid reading came")
            return
        old = f"{age_s / 60.0:.0f} min" if age_s >= 60.0 else f"{age_s:.0f} s"
        room.technical.raised(
            "reading.old", state.id, f"{state.title} has had no valid reading for {old}: it is not monitored.",
            "medium" if critical else "low", reasons or ["no reading came although nothing is known to be wrong"],
            state.id, list(state.alert_labels),
        )
