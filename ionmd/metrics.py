"""The daemon itself, once a second of samples, on the `metrics` topic.

In: blocks, and the counters of recorder and socket.  Out: one event; nothing of it is recorded, and no finding depends
on it: these are the only numbers here that come from the host's clocks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from ionmd import events
from ionmd.model import Block
from ionmd.room.room import Room
from ionmd.service.backend import ServiceStats

_PAGE_KIB = os.sysconf("SC_PAGE_SIZE") // 1024


class RecordStats(Protocol):
    @property
    def backlog_s(self) -> float: ...

    @property
    def journal_pending(self) -> int: ...


class Metrics:
    """Pipeline thread."""

    def __init__(self, room: Room, record: Callable[[], RecordStats], service: Callable[[], ServiceStats]) -> None:
        self._room, self._record, self._service = room, record, service
        self._next = 0
        self._from = (0, time.monotonic(), time.process_time())  # sample, host seconds, seconds of processor
        self._lost = 0
        self._fifo = 0

    def push(self, block: Block) -> None:
        self._lost += block.lost
        self._fifo = max(self._fifo, block.fifo_permille)

    def after(self) -> None:
        room = self._room
        if room.now < self._next:
            return
        self._next = room.now + round(room.rate_hz)
        now = (room.now, time.monotonic(), time.process_time())
        samples, wall_s, cpu_s = (b - a for a, b in zip(self._from, now, strict=True))
        self._from = now
        record, service = self._record(), self._service()
        room.bus.show("metrics", events.Metrics(
            rate_hz=room.rate_hz,
            speed=round(samples / room.rate_hz / wall_s, 3) if wall_s > 0.0 else 0.0,
            cpu_permille=round(1000.0 * cpu_s / wall_s) if wall_s > 0.0 else 0,
            # procfs: there is no disk behind it
            rss_kib=int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * _PAGE_KIB,
            fifo_permille=self._fifo,
            lost_samples=self._lost,
            recorder_backlog_s=round(record.backlog_s, 3),
            journal_pending=record.journal_pending,
            subscribers=service.connections,
            stream_dropped_samples=service.stream_dropped_samples,
        ))
        self._fifo = 0
