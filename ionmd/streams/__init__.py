"""Continuous samples for `stream.open`: raw counts, filtered derivations, EMG sound.

In: every block, on the pipeline thread.  Out: bytes to the sinks of the service, which owns all back-pressure.
Always: with no sink nothing is copied; a gap is pushed as a gap, never as samples; a source that fails ends by itself
and never takes the pipeline along.
"""

from __future__ import annotations

import threading

import structlog

from ionmd.errors import NO_DEVICE, Refused
from ionmd.model import Block
from ionmd.room.room import Room
from ionmd.service.backend import StreamSpec
from ionmd.service.frames import Cause
from ionmd.streams.audio import open_audio
from ionmd.streams.filtered import open_filtered
from ionmd.streams.raw import open_raw
from ionmd.streams.source import Source

log = structlog.get_logger()
_OPEN = {"raw": open_raw, "filtered": open_filtered, "emg_audio": open_audio}


class Streams:
    """All open sources."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._lock = threading.Lock()
        self._sources: tuple[Source, ...] = ()
        self._block: Block | None = None

    def open(self, spec: StreamSpec) -> Source:
        """Service thread.  Raises Refused for an unknown channel, or when there is nothing to stream."""
        if self._room.rate_hz <= 0.0:
            raise Refused("no amplifier gives samples; see `ionmd doctor`", NO_DEVICE)
        return _OPEN[spec.kind](self._room, spec, self._add, self._remove)

    def push(self, block: Block) -> None:
        """A block enters the pipeline (pipeline thread)."""
        self._block = block if self._sources else None

    def after(self) -> None:
        """All stages have seen the block: marks are booked, tests have filtered it (pipeline thread)."""
        block, self._block = self._block, None
        if block is None:
            return
        for source in self._sources:
            try:
                source.push(block)
            except Exception:
                log.exception("stream_failed", kind=source.layout.kind)
                source.end(Cause.HOST)

    def _add(self, source: Source) -> None:
        with self._lock:
            self._sources = (*self._sources, source)

    def _remove(self, source: Source) -> None:
        with self._lock:
            self._sources = tuple(s for s in self._sources if s is not source)
