"""What every request handler gets and gives.

A handler runs on the pipeline thread between two blocks.  It returns a plain value, or a Later when the answer comes
from the device; it raises Refused with a code, and then has changed nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from ionmd.errors import IonmdError
from ionmd.model import DeviceStatus
from ionmd.room.room import Room
from ionmd.service.backend import Caller


class CaseStore(Protocol):
    """The case part of the recorder that requests need."""

    def open_case(self, case_id: str, header: dict[str, Any], resume: object | None) -> int:
        """Start (or resume) the record; the first case sample of the next block."""

    def close_case(self, state: str) -> None: ...

    def prepare_resume(self, case_id: str, done: Callable[[object, IonmdError | None], None]) -> None:
        """Repair and read a case on another thread; `done` gets what open_case takes as `resume`, on any thread."""

    def list_cases(self, done: Callable[[list[dict[str, Any]], IonmdError | None], None]) -> None:
        """Read on another thread; `done` is called on any thread."""

    def path(self, case_id: str) -> str: ...

    def recording(self) -> dict[str, Any]:
        """How the record is doing, for `status`."""


@dataclass
class Desk:
    """Where requests are dealt with: the room, the store, and a way back to this thread."""

    room: Room
    store: CaseStore
    post: Callable[[Callable[[], None]], None]  # run on the pipeline thread at the next block boundary
    version: str = ""
    boot_id: str = ""
    speed: str = "1"
    template: str = "cervical"  # of a case that names none
    live_device: Callable[[], DeviceStatus] | None = None  # the counters of now; None: those of the last event

    def recording(self) -> dict[str, Any]:
        return self.store.recording()

    def device(self) -> DeviceStatus:
        return self.live_device() if self.live_device is not None else self.room.device

    def person(self, caller: Caller, by: str = "") -> str:
        return self.room.people.who(caller.uid, by or None)


class Later:
    """An answer that comes when the device has answered; `then` is called on the pipeline thread."""

    def __init__(self) -> None:
        self._done: Callable[[object, IonmdError | None], None] | None = None
        self._result: tuple[object, IonmdError | None] | None = None

    def answer(self, value: object, error: IonmdError | None = None) -> None:
        """Once; on the pipeline thread."""
        if self._result is None:
            self._result = (value, error)
            if self._done is not None:
                self._done(value, error)

    def then(self, done: Callable[[object, IonmdError | None], None]) -> None:
        self._done = done
        if self._result is not None:
            done(*self._result)
