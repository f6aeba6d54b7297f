"""What the three kinds of stream share: life, gaps, flags, and the end when their layout no longer holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ionmd.model import Block, Gap
from ionmd.room.room import Room
from ionmd.service.backend import Sink
from ionmd.service.frames import Cause, FrameFlag
from ionmd.service.schema import StreamLayout

Listed = Callable[["Source"], None]


class Source(ABC):
    """One layout, one sink.  `add` and `remove` list it with its owner while it has a sink."""

    def __init__(self, room: Room, layout: StreamLayout, add: Listed, remove: Listed) -> None:
        self.layout = layout
        self._room, self._add, self._remove = room, add, remove
        self._shape = (room.inputs, room.rate_hz)
        self._sink: Sink | None = None

    def start(self, sink: Sink) -> None:
        self._sink = sink
        self._add(self)

    def close(self) -> None:
        self._remove(self)
        self._sink = None

    def end(self, cause: Cause) -> None:
        """The layout no longer holds: readers are told.  Pipeline thread."""
        sink, self._sink = self._sink, None
        self._remove(self)
        if sink is not None:
            sink.end(cause)

    def push(self, block: Block) -> None:
        """One block that all stages have seen.  Pipeline thread."""
        sink = self._sink
        if sink is None:
            return
        if (self._room.inputs, self._room.rate_hz) != self._shape:
            self.end(Cause.SESSION)
            return
        if block.lost and block.gap & (Gap.LOST | Gap.SESSION):
            sink.gap(block.first - block.lost, block.lost, _cause(block.gap))
        if block.n:
            self._give(sink, block, self._flags(block))

    @abstractmethod
    def _give(self, sink: Sink, block: Block, flags: FrameFlag) -> None:
        """Push rows 0..block.n of the layout's channels."""

    def _flags(self, block: Block) -> FrameFlag:
        flags = FrameFlag.NONE
        if block.gap & Gap.CLIPPED:
            flags |= FrameFlag.CLIPPED
        if self.stimulus_spans(block):
            flags |= FrameFlag.STIMULUS
        if self.cautery_spans(block):
            flags |= FrameFlag.CAUTERY
        return flags

    def stimulus_spans(self, block: Block) -> list[tuple[int, int]]:
        """Rows [start, stop) of this block that lie in a stimulus window."""
        return _rows([(s.start, s.stop) for s in self._room.deliveries.artefacts_from(block.first)], block)

    def cautery_spans(self, block: Block) -> list[tuple[int, int]]:
        """Rows [start, stop) of this block with cautery, the quiet time after it included."""
        return _rows([(s.start, s.stop) for s in self._room.technical.spans() if s.cause == "cautery"], block)


def _rows(spans: list[tuple[int, int]], block: Block) -> list[tuple[int, int]]:
    first, n = block.first, block.n
    inside = [(max(0, start - first), min(n, stop - first)) for start, stop in spans]
    return [(a, b) for a, b in inside if a < b]


def _cause(gap: Gap) -> Cause:
    if gap & Gap.SESSION:
        return Cause.SESSION
    return Cause.DEVICE if gap & Gap.OVERFLOW else Cause.USB


def as_bytes(rows: npt.NDArray[np.generic]) -> memoryview:
    """A fresh C-contiguous array as the payload itself, without another copy."""
    return rows.data.cast("B")
