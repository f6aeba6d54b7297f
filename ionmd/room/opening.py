"""What a case begins with: the configuration, and what of the room outlives a case (people, device, lease).

In: the room as it is when a case opens.  Out: one struct, the journal line `configuration`; and back again into a
fresh room.  Always: a room made of it behaves from its sample on like the one it was taken from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ionmd.model import Attendance, DeviceStatus
from ionmd.stim.delivery import Delivery
from ionmd.stim.lease import Holder
from ionmd.testdef import Template, TestDefinition

if TYPE_CHECKING:
    from ionmd.room.room import Room


class Input(msgspec.Struct, frozen=True):
    label: str
    lsb_uv: float


class Opening(msgspec.Struct, frozen=True, omit_defaults=True):
    """`tests` are the definitions as they were (settings changed later are requests); `pending` deliveries of an
    earlier case may still leave marks; an impedance of None is an open circuit."""

    case_id: str
    person: str
    montage: dict[str, int]
    template: Template
    tests: list[TestDefinition]
    mains_hz: float
    rate_hz: float
    inputs: list[Input]
    source: str
    version: str
    device: DeviceStatus
    stimulator: bool = False
    present: list[Attendance] = []
    lease: Holder | None = None
    nonce: int = 0
    pending: list[Delivery] = []
    latched: str = ""
    tripped: int = 0
    aux: dict[str, bool] = {}  # line, as text: canonical JSON knows no other keys
    cautery_since: int | None = None
    impedance_kohm: dict[str, float | None] = {}  # input, as text


def opening_of(room: Room, montage: dict[str, int], version: str) -> Opening:
    """The open case's beginning; call it right after Room.open_case."""
    case, template = room.need_case(), room.template
    if template is None:
        raise ValueError("a case without a template cannot be open")
    return Opening(
        case.id, case.person, montage, template, [s.definition for s in room.tests.values()], room.mains_hz,
        room.rate_hz, [Input(a, b) for a, b in zip(room.input_labels, room.lsb_uv, strict=False)], room.source, version,
        room.device, room.control.attached, room.people.present(), room.stimulation.lease.holder,
        room.deliveries.nonce, room.deliveries.ledger.pending(), room.deliveries.latched, room.stimulation.tripped,
        {str(line): level for line, level in room.technical.aux.items()}, room.technical.cautery_since,
        {str(i): None if kohm == float("inf") else kohm for i, kohm in room.technical.impedance_kohm.items()},
    )


def restore(room: Room, opening: Opening, sample: int) -> None:
    """Open the case in a fresh room, at `sample`; the pipeline's shape is set by the caller."""
    room.now = room.bus.sample = sample
    room.source = opening.source  # type: ignore[assignment]
    room.device = opening.device
    room.input_labels = [i.label for i in opening.inputs]
    room.lsb_uv = [i.lsb_uv for i in opening.inputs]
    for attendance in opening.present:
        room.people.sign_in(attendance.person, attendance.uid, attendance.since)
    if opening.lease is not None:
        room.stimulation.lease.acquire(opening.lease, 0.0)
    room.deliveries.nonce = opening.nonce
    for delivery in opening.pending:
        room.deliveries.ledger.expect(delivery)
    room.deliveries.latched, room.stimulation.tripped = opening.latched, opening.tripped
    room.technical.aux = {int(line): level for line, level in opening.aux.items()}
    room.technical.cautery_since = opening.cautery_since
    room.technical.impedance_kohm = {
        int(i): float("inf") if kohm is None else kohm for i, kohm in opening.impedance_kohm.items()
    }
    room.open_case(opening.case_id, opening.template, opening.person, opening.montage)
    room.mains_hz = opening.mains_hz
    room.technical.tell_known_faults()
