"""The recorder as the request handlers see it: `CaseStore` of commands/base.py.

In: what a request asks of the record, on the pipeline thread.  Out: answers, some of them from the recorder's own
thread.  Always: trouble of the disk is a refusal with code 1002, never an exception of the pipeline.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ionmd.case.earlier import ResumePoint
from ionmd.case.listing import list_cases
from ionmd.case.recorder import Recorder
from ionmd.errors import NO_DEVICE, IonmdError, Refused, StorageError
from ionmd.room.room import Room


class Store:
    """The recorder as the request handlers see it."""

    def __init__(self, recorder: Recorder, room: Room, wait: bool, announce: Callable[[str | None], None]) -> None:
        """wait: read a case to be resumed at once, on the caller's thread.  announce: the open case, None without."""
        self._recorder, self._room, self._wait, self._announce = recorder, room, wait, announce

    def prepare_resume(self, case_id: str, done: Callable[[object, IonmdError | None], None]) -> None:
        def prepare() -> None:
            try:
                done(self._recorder.prepare_resume(case_id), None)
            except StorageError as error:
                done(None, Refused(str(error), 1002))

        if self._wait:
            prepare()  # the device waits, and the sample at which the case opens does not depend on the disk
        else:
            self._recorder.background(prepare)

    def open_case(self, case_id: str, header: dict[str, Any], resume: object | None) -> int:
        room = self._room
        labels = _input_names(room, header)
        try:
            if isinstance(resume, ResumePoint):
                point = self._recorder.resume_case(
                    case_id, labels or None, room.lsb_uv or 0.03125, room.rate_hz, prepared=resume
                )
                room.clock.rebase(max(point.end_sample, room.clock.next_sample))
                self._announce(case_id)
                return room.clock.next_sample
            if not labels:
                raise Refused("no amplifier has answered yet: its inputs must be known to open a case", NO_DEVICE)
            self._recorder.open_case(case_id, header, labels, room.lsb_uv, room.rate_hz)
        except StorageError as error:
            raise Refused(str(error), 1002) from error
        self._announce(case_id)
        return room.now

    def close_case(self, state: str) -> None:
        self._recorder.close_case(state, sample=self._room.now)
        self._announce(None)

    def list_cases(self, done: Callable[[list[dict[str, Any]], IonmdError | None], None]) -> None:
        def job() -> None:
            try:
                done(list_cases(self._recorder.state_dir), None)
            except StorageError as error:
                done([], error)

        self._recorder.background(job)

    def path(self, case_id: str) -> str:
        return str(self._recorder.state_dir / "cases" / case_id)

    def recording(self) -> dict[str, Any]:
        stats = self._recorder.stats()
        return {f: getattr(stats, f) for f in stats.__dataclass_fields__}


def _input_names(room: Room, header: dict[str, Any]) -> list[str]:
    """Electrode labels where the montage has them, the amplifier's own elsewhere: what the BDF+ file shows."""
    template = room.templates.get(header.get("template", ""))
    names = list(room.input_labels)
    for electrode in template.electrode if template is not None else []:
        column = header.get("montage", {}).get(electrode.label, electrode.input)
        if column < len(names):
            names[column] = electrode.label[:16]
    return names
