"""Opening, closing and listing cases."""

from __future__ import annotations

import secrets

from ionmd.commands.base import Desk, Later
from ionmd.errors import INTERLOCK, IonmdError, Refused
from ionmd.events import CaseChanged
from ionmd.room.opening import opening_of
from ionmd.service.backend import Caller
from ionmd.service.schema import CaseClose, CaseOpen


def case_open(desk: Desk, p: CaseOpen, caller: Caller) -> object:
    """Make a case and open it; nothing runs yet.  One that is resumed is repaired and read first, which may take
    seconds: that is not done on this thread."""
    if p.resume is False:
        return _open(desk, p, caller, None)
    later = Later()

    def prepared(point: object, error: IonmdError | None) -> None:
        def finish() -> None:
            try:
                if error is not None:
                    raise error
                later.answer(_open(desk, p, caller, point))
            except IonmdError as refusal:
                later.answer(None, refusal)

        desk.post(finish)

    _need_none(desk)
    desk.store.prepare_resume(p.case_id or "", prepared)
    return later


def _need_none(desk: Desk) -> None:
    if desk.room.case is not None:
        raise Refused(f"case {desk.room.case.id} is open; close it first (ionmd case close)", INTERLOCK)


def _open(desk: Desk, p: CaseOpen, caller: Caller, resume: object | None) -> object:
    room = desk.room
    _need_none(desk)
    name = p.template or desk.template
    template = room.templates.get(name)
    if template is None:
        raise Refused(f"template {name} is unknown; there are {', '.join(room.templates)}", INTERLOCK)
    if p.montage:
        used: dict[int, str] = {}
        for label, column in p.montage.items():
            if column in used:
                raise Refused(f"montage: {label} and {used[column]} are both on input {column}", INTERLOCK)
            used[column] = label
    # 128 random bits: an id cannot be guessed or enumerated, and carries no patient identifier
    case_id = p.case_id or secrets.token_hex(16)
    person = desk.person(caller, p.by)
    header = {
        "case": case_id, "template": name, "person": person, "version": desk.version, "source": room.source,
        "montage": p.montage or {}, "resumed": p.resume,
    }
    room.now = room.bus.sample = desk.store.open_case(case_id, header, resume)
    info = room.open_case(case_id, template, person, p.montage)
    room.bus.journal("configuration", opening_of(room, p.montage or {}, desk.version))
    room.technical.tell_known_faults()
    for attendance in room.people.present():
        room.bus.journal("attendance", {"attendance": attendance})
    room.bus.emit("case", CaseChanged(state="running", case_id=case_id, template=name, resumed=p.resume))
    return {"case_id": info.id, "path": desk.store.path(case_id), "resumed": p.resume}


def case_close(desk: Desk, p: CaseClose, caller: Caller) -> object:
    """Disarm, stop, write the manifest."""
    room = desk.room
    info = room.need_case()
    if any(s.running and s.stimulates for s in room.tests.values()) or room.stimulation.by_hand.manual is not None:
        room.stimulation.schedule.stop()
        room.control.off()
        room.deliveries.ledger.cancel()
    room.stimulation.lease.release()
    for state in room.tests.values():
        room.stop_test(state)
    still_open = [a.id for a in room.book.open()]
    room.bus.emit("case", CaseChanged(state="closing", case_id=info.id, reason=p.reason, open_alarms=still_open))
    room.close_case()
    desk.store.close_case("closed")
    return {"id": info.id}


def case_list(desk: Desk, p: object, caller: Caller) -> object:
    """Read from the files, on another thread."""
    later = Later()
    desk.store.list_cases(lambda found, error: desk.post(lambda: later.answer({"cases": found}, error)))
    return later
