"""The device's side of requests in a replay: nothing is sent, answers come when the journal has them.

In: what a room asks of its stimulator.  Out: the callbacks of requests that wait for the device, for whoever reads
the journal.  Always: no thread, no device.
"""

from __future__ import annotations

from collections.abc import Callable

from ionmd.drivers.base import ArmToken, Sequence, Stimulator
from ionmd.errors import IonmdError
from ionmd.stim.control import ArmDone, Control

Answer = Callable[[IonmdError | None], None]


class RecordedControl(Control):
    """A Control that is never started."""

    def __init__(self) -> None:
        super().__init__(lambda trouble: None)
        self._there = False
        self._waiting: list[Answer] = []

    def waiting(self) -> list[Answer]:
        """Callbacks since the last call: those of the request that has just been executed."""
        found, self._waiting = self._waiting, []
        return found

    @property
    def attached(self) -> bool:
        return self._there

    def present(self, there: bool) -> None:
        self._there = there

    def attach(self, stimulator: Stimulator | None) -> None:
        self._there = stimulator is not None

    def off(self) -> None:
        """Nothing is on."""

    def load_and_arm(self, slot: int, sequence: Sequence, ttl_ms: int, done: ArmDone | None = None) -> None:
        if done is not None:
            self._waiting.append(lambda error: done(None if error else ArmToken(slot, 0, 0), error))

    def reset(self, reason: int, done: Answer) -> None:
        self._waiting.append(done)

    def impedance(self, inputs: tuple[int, ...], done: Answer) -> None:
        self._waiting.append(done)

    def _put(
        self, job: Callable[[Stimulator], None], failed: Callable[[IonmdError], None], any_generation: bool = False
    ) -> None:
        """Fires, heartbeats and aborts: what came of them is in the journal."""
