"""`raw`: converter counts as they came, unblanked and unfiltered; lsb_uv of the layout makes them microvolts."""

from __future__ import annotations

import numpy as np

from ionmd.errors import NOT_MONITORED, Refused
from ionmd.model import Block
from ionmd.room.room import Room
from ionmd.service.backend import Sink, StreamSpec
from ionmd.service.frames import FrameFlag
from ionmd.service.schema import StreamLayout
from ionmd.streams.source import Listed, Source, as_bytes


class Raw(Source):
    """Columns of the inputs."""

    def __init__(self, room: Room, layout: StreamLayout, columns: list[int], add: Listed, remove: Listed) -> None:
        super().__init__(room, layout, add, remove)
        self._columns = np.array(columns, np.intp)

    def _give(self, sink: Sink, block: Block, flags: FrameFlag) -> None:
        rows = block.counts[: block.n].take(self._columns, axis=1)
        sink.push(block.first, as_bytes(rows.astype("<i4", copy=False)), block.n, flags)


def open_raw(room: Room, spec: StreamSpec, add: Listed, remove: Listed) -> Source:
    """Channels by the amplifier's own label or by electrode; Refused when one is neither."""
    by_name = {label: i for i, label in enumerate(room.input_labels)}
    by_name |= {e.label: e.input for e in list(room.electrodes.values()) if e.input < room.inputs}
    names = list(spec.channels) or list(room.input_labels)
    if unknown := [n for n in names if n not in by_name]:
        raise Refused(f"channels {', '.join(unknown)} are unknown; there are {', '.join(by_name)}", NOT_MONITORED)
    columns = [by_name[n] for n in names]
    layout = StreamLayout("raw", room.rate_hz, names, "count", "<i4", [room.lsb_uv[c] for c in columns])
    return Raw(room, layout, columns, add, remove)
