"""Continuous samples for `stream.open`: raw counts, filtered derivations, EMG sound.

In: every block, on the pipeline thread.  Out: bytes to the sinks of the service, which owns all back-pressure.
Always: with no sink nothing is copied; a gap is pushed as a gap, never as samples.
"""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from ionmd.errors import NO_DEVICE, NOT_MONITORED, Refused
from ionmd.model import Block, Gap
from ionmd.room.room import Room
from ionmd.service.backend import Sink, StreamSpec
from ionmd.service.schema import StreamLayout
from ionmd.service.stream import Cause


class _Source:
    """One layout; `columns` of the block's inputs."""

    def __init__(self, owner: Streams, layout: StreamLayout, columns: list[int], raw: bool) -> None:
        self.layout = layout
        self._owner, self._columns, self._raw = owner, columns, raw
        self.sink: Sink | None = None

    def start(self, sink: Sink) -> None:
        self.sink = sink
        self._owner.add(self)

    def close(self) -> None:
        self._owner.remove(self)
        self.sink = None

    def push(self, block: Block) -> None:
        sink = self.sink
        if sink is None:
            return
        if block.lost and block.gap & (Gap.LOST | Gap.SESSION):
            sink.gap(block.first - block.lost, block.lost, Cause.DEVICE)
        rows: Any = block.counts if self._raw else block.uv
        data = np.ascontiguousarray(rows[: block.n, self._columns])
        sink.push(block.first, data.tobytes(), block.n)


class Streams:
    """All open sources."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._lock = threading.Lock()
        self._sources: list[_Source] = []

    def add(self, source: _Source) -> None:
        with self._lock:
            self._sources = [*self._sources, source]

    def remove(self, source: _Source) -> None:
        with self._lock:
            self._sources = [s for s in self._sources if s is not source]

    def push(self, block: Block) -> None:
        """Pipeline thread."""
        for source in self._sources:
            source.push(block)

    def open(self, spec: StreamSpec) -> _Source:
        """Raises Refused for an unknown channel or without a device."""
        room = self._room
        if room.rate_hz <= 0.0:
            raise Refused("no amplifier gives samples", NO_DEVICE)
        if spec.kind != "raw":
            raise Refused(f"stream {spec.kind} is not offered by this version; raw is", NOT_MONITORED)
        by_name = {label: i for i, label in enumerate(room.input_labels)}
        by_name |= {e.label: e.input for e in room.electrodes.values() if e.input < room.inputs}
        names = list(spec.channels) or list(room.input_labels)
        unknown = [n for n in names if n not in by_name]
        if unknown:
            raise Refused(f"channels {', '.join(unknown)} are unknown", NOT_MONITORED)
        columns = [by_name[n] for n in names]
        layout = StreamLayout(
            kind=spec.kind, rate_hz=room.rate_hz, names=names, unit="count", lsb_uv=[room.lsb_uv[c] for c in columns],
            dtype="<i4",
        )
        return _Source(self, layout, columns, True)
