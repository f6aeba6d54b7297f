"""A threshold search: rising deliveries of a running on-demand test until its muscles answer.

The search is decided on the pipeline thread by the readings of each delivery; a pulse without contact is no evidence.
"""

from __future__ import annotations

import msgspec

from ionmd.commands.base import Desk, Later
from ionmd.errors import INTERLOCK, LIMIT, Refused
from ionmd.room.threshold import Search
from ionmd.service.backend import Caller
from ionmd.service.schema import ThresholdRun


def run(desk: Desk, p: ThresholdRun, caller: Caller) -> object:
    """Answers when the search ends, with the result as an event as well."""
    room = desk.room
    room.need_case()
    room.need_streaming()
    room.stimulation.lease.present(p.lease, caller.uid)
    room.stimulation.need_device()
    state = room.test(p.test)
    spec = state.definition.threshold
    if spec is None or state.output is None:
        raise Refused(f"{p.test} has no [threshold] in its test file", LIMIT)
    if not state.running:
        raise Refused(f"{p.test} is not running: start it first", INTERLOCK)
    if room.search is not None:
        raise Refused(f"a threshold search of {room.search.state.id} is running", INTERLOCK)
    later = Later()
    wanted = msgspec.structs.replace(
        spec, start=p.start or spec.start, stop=p.stop or spec.stop, step=p.step or spec.step
    )
    search = Search(room, state, wanted, lambda result: later.answer({"id": state.id, "result": result}))
    room.stimulation.by_hand.manual = None  # nothing fires by hand while it runs
    search.next()
    room.search = search
    return later
