"""Samples on their own connection: frames, the queue of one reader, the hub that shares one source.

In: blocks from the pipeline thread through Hub.push.  Out: 40-byte little-endian headers with payload.
Always: header and payload are made once and shared by all readers of the same spec; a reader that is too slow
loses whole oldest blocks and gets a gap frame in their place, so its samples always add up.

    offset  type  field
         0  u32   magic "IONS"
         4  u8    version 1
         5  u8    type: 1 samples, 2 gap, 3 end
         6  u16   flags: 1 muted (cautery or stimulus), 2 clipped, 4 blanked
         8  u64   seq of the frame at its source
        16  u64   case sample index of the first sample
        24  u32   samples in the frame, or samples lost
        28  u16   channels
        30  u8    payload: 0 none, 1 int32 counts, 2 float32 uV
        31  u8    cause of a gap or end: 1 device, 2 usb, 3 host, 4 this reader was too slow, 5 new session, 6 closing
        32  u32   payload bytes after this header
        36  u32   reserved, 0
"""

from __future__ import annotations

import struct
import threading
from collections import deque
from collections.abc import Callable
from enum import IntEnum, IntFlag
from typing import Protocol

from ionmd.service.backend import StreamSource, StreamSpec
from ionmd.service.schema import StreamLayout

HEADER = struct.Struct("<IBBHQQIHBBII")
MAGIC = int.from_bytes(b"IONS", "little")
AUDIO_AGE_S = 0.1  # emg_audio older than this is dropped, not played late
_COUNT_MAX = 2**32 - 1


class FrameType(IntEnum):
    SAMPLES = 1
    GAP = 2
    END = 3


class FrameFlag(IntFlag):
    NONE = 0
    MUTED = 1
    CLIPPED = 2
    BLANKED = 4


class Cause(IntEnum):
    NONE = 0
    DEVICE = 1
    USB = 2
    HOST = 3
    SUBSCRIBER = 4
    SESSION = 5
    CLOSING = 6


DTYPE_CODE = {"<i4": 1, "<f4": 2}


class Frame:
    """One frame as it goes out, `wire`: made once for all readers, one buffer so that a reader costs one list entry.

    A plain class: a frozen dataclass takes three times as long to make.
    """

    __slots__ = ("first", "gap", "n", "size", "wire")

    def __init__(self, wire: bytes, first: int, n: int, gap: bool) -> None:
        self.wire, self.first, self.n, self.gap = wire, first, n, gap
        self.size = len(wire)


def samples_frame(seq: int, first: int, n: int, channels: int, dtype: int, payload: bytes, flags: int) -> Frame:
    header = HEADER.pack(
        MAGIC, 1, FrameType.SAMPLES, flags, seq, first, n, channels, dtype, Cause.NONE, len(payload), 0
    )
    return Frame(header + payload, first, n, False)


def gap_header(seq: int, first: int, lost: int, channels: int, cause: int) -> bytes:
    """One gap; more than 2**32 - 1 samples become several frames."""
    out = b""
    while True:
        part = min(lost, _COUNT_MAX)
        out += HEADER.pack(MAGIC, 1, FrameType.GAP, 0, seq, first, part, channels, 0, cause, 0, 0)
        first, lost = first + part, lost - part
        if lost <= 0:
            return out


class StreamOutbox:
    """Frames that wait for one reader."""

    def __init__(self, limit_bytes: int, max_age_samples: int | None, channels: int) -> None:
        self._lines: deque[bytes] = deque()
        self._frames: deque[Frame] = deque()
        self._limit = limit_bytes
        self._age = max_age_samples
        self._channels = channels
        self._gap_first: int | None = None
        self._gap_seq = 0
        self.bytes = 0
        self.reply_bytes = 0
        self.dropped_samples = 0

    def line(self, text: bytes) -> None:
        """The layout, before any frame."""
        self._lines.append(text)
        self.bytes += len(text)

    def frame(self, frame: Frame) -> None:
        self._frames.append(frame)
        self.bytes += frame.size
        end = frame.first + frame.n
        while len(self._frames) > 1:
            oldest = self._frames[0]
            late = self._age is not None and end - oldest.first > self._age
            if not late and self.bytes <= self._limit:
                break
            self._frames.popleft()
            self.bytes -= oldest.size
            self.dropped_samples += 0 if oldest.gap else oldest.n
            if self._gap_first is None:
                self._gap_first = oldest.first
                self._gap_seq = int.from_bytes(oldest.wire[8:16], "little")

    def take(self, limit: int) -> list[bytes]:
        out: list[bytes] = []
        size = 0
        while self._lines:
            text = self._lines.popleft()
            self.bytes -= len(text)
            size += len(text)
            out.append(text)
        while self._frames and size < limit:
            frame = self._frames.popleft()
            self.bytes -= frame.size
            size += frame.size
            if self._gap_first is not None:
                lost = frame.first - self._gap_first
                out.append(gap_header(self._gap_seq, self._gap_first, lost, self._channels, Cause.SUBSCRIBER))
                self._gap_first = None
            out.append(frame.wire)
        return out

    def drop_all(self) -> None:
        self._lines.clear()
        self._frames.clear()
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._lines or self._frames)


class Reader(Protocol):
    """A connection that reads samples."""

    def send_frame(self, frame: Frame) -> None: ...

    def end_of_stream(self) -> None: ...


class Hub:
    """One source and its readers.  push, gap and end: any thread, one at a time; the rest: service thread."""

    def __init__(self, spec: StreamSpec, source: StreamSource, post: Callable[[Callable[[], None]], None]) -> None:
        self.spec = spec
        self.source = source
        self.layout: StreamLayout = source.layout
        self._post = post
        self._readers: list[Reader] = []
        self._seq = 0
        self._next = 0  # case sample after the last one that was handed on
        self._lock = threading.Lock()
        self._dtype = DTYPE_CODE[self.layout.dtype]
        self._channels = len(self.layout.names)
        self._row_bytes = 4 * self._channels
        self._started = False
        self.tokens = 0  # handed out and not yet used
        self.ended = False

    def outbox(self, limit_bytes: int) -> StreamOutbox:
        age = int(self.layout.rate_hz * AUDIO_AGE_S) if self.spec.kind == "emg_audio" else None
        return StreamOutbox(limit_bytes, age, self._channels)

    def attach(self, reader: Reader) -> None:
        self._readers.append(reader)
        if not self._started:
            self._started = True
            self.source.start(self)

    def detach(self, reader: Reader) -> None:
        if reader in self._readers:
            self._readers.remove(reader)

    @property
    def idle(self) -> bool:
        return not self._readers and self.tokens == 0

    # -- Sink

    def push(self, first: int, data: bytes, n: int, flags: int = 0) -> None:
        if len(data) != n * self._row_bytes:
            raise ValueError(f"{len(data)} bytes came for {n} samples of {self._channels} channels")
        with self._lock:
            seq, self._seq, self._next = self._seq, self._seq + 1, first + n
        self._hand(samples_frame(seq, first, n, self._channels, self._dtype, data, flags))

    def gap(self, first: int, lost: int, cause: int) -> None:
        with self._lock:
            seq, self._seq, self._next = self._seq, self._seq + 1, first + lost
        self._hand(Frame(gap_header(seq, first, lost, self._channels, cause), first, lost, True))

    def end(self, cause: int) -> None:
        with self._lock:
            seq, self._seq = self._seq, self._seq + 1
            first = self._next
        header = HEADER.pack(MAGIC, 1, FrameType.END, 0, seq, first, 0, self._channels, 0, cause, 0, 0)
        frame = Frame(header, first, 0, True)

        def finish() -> None:
            self.ended = True
            for reader in list(self._readers):
                reader.send_frame(frame)
                reader.end_of_stream()

        self._post(finish)

    def _hand(self, frame: Frame) -> None:
        def give() -> None:
            for reader in self._readers:
                reader.send_frame(frame)

        self._post(give)
