"""Requests that wait for their sample.

In: calls with how to reply.  Out: their execution, at once or when `at_sample` is the next sample to come.  Always: on
the pipeline thread; the order of arrival holds among requests for one sample; a sample that has passed is a refusal.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

from ionmd.commands.base import Desk
from ionmd.commands.table import Reply, execute
from ionmd.errors import Refused
from ionmd.service.backend import Call


@dataclass(order=True)
class _Waiting:
    sample: int
    order: int
    call: Call
    reply: Reply


class Planned:
    """The requests of one room."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._waiting: list[_Waiting] = []
        self._order = 0

    @property
    def next_sample(self) -> int | None:
        """Where a block must end for the next of them."""
        return self._waiting[0].sample if self._waiting else None

    def take(self, call: Call, reply: Reply) -> None:
        """Execute it, or keep it for its sample."""
        at, room = getattr(call.params, "at_sample", None), self._desk.room
        # for people `at_sample` of these says when it happened or shall happen; an agenda says when to ask
        own_sense = call.method in ("event.add", "stim.fire") and call.caller.connection_id != 0
        if at is None or own_sense or (room.rate_hz <= 0.0 and at == 0):
            execute(self._desk, call, reply)
            return
        if at < room.now:
            reply(None, Refused(f"{call.method}: at_sample {at} has passed by {room.now - at} samples", 1003))
            return
        self._order += 1
        heapq.heappush(self._waiting, _Waiting(at, self._order, call, reply))

    def run_due(self) -> None:
        while self._waiting and self._waiting[0].sample <= self._desk.room.now:
            due = heapq.heappop(self._waiting)
            execute(self._desk, due.call, due.reply)
