"""Samples on their own connection: the queue of one reader, the hub that shares one source.

In: blocks from the pipeline thread through Hub.push.  Out: frames (frames.py).
Always: header and payload are made once and shared by all readers of the same spec; a reader that is too slow
loses whole oldest blocks and gets a gap frame in their place, so its samples always add up.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from ionmd.service.backend import StreamSource, StreamSpec
from ionmd.service.frames import DTYPE_CODE, Cause, Frame, end_frame, gap_header, samples_frame
from ionmd.service.schema import StreamLayout

AUDIO_AGE_S = 0.1  # emg_audio older than this is dropped, not played late


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

    def frames(self, fresh: Sequence[Frame], size: int) -> None:
        """`size` bytes, all together."""
        self._frames.extend(fresh)
        self.bytes += size
        newest = fresh[-1]
        while len(self._frames) > 1:
            oldest = self._frames[0]
            late = self._age is not None and newest.stop - oldest.first > self._age
            if not late and self.bytes <= self._limit:
                break
            self._frames.popleft()
            self.bytes -= oldest.size
            self.dropped_samples += 0 if oldest.gap else oldest.stop - oldest.first
            if self._gap_first is None:
                self._gap_first, self._gap_seq = oldest.first, oldest.seq

    def take(self, limit: int) -> list[bytes | memoryview]:
        out: list[bytes | memoryview] = []
        size = 0
        while self._lines:
            text = self._lines.popleft()
            self.bytes -= len(text)
            size += len(text)
            out.append(text)
        frames, taken = self._frames, 0
        if frames and self._gap_first is not None:
            lost = frames[0].first - self._gap_first
            out.append(gap_header(self._gap_seq, self._gap_first, lost, self._channels, Cause.SUBSCRIBER))
            self._gap_first = None
        while frames and size + taken < limit:
            frame = frames.popleft()
            taken += frame.size
            out += frame.parts
        self.bytes -= taken
        return out

    def drop_all(self) -> None:
        self._lines.clear()
        self._frames.clear()
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._lines or self._frames)


class Reader(Protocol):
    """A connection that reads samples."""

    def send_frames(self, frames: Sequence[Frame], size: int) -> None: ...

    def end_of_stream(self) -> None: ...


class Hub:
    """One source and its readers.  push, gap and end: any thread, one at a time; the rest: service thread."""

    def __init__(self, spec: StreamSpec, source: StreamSource, post: Callable[[Callable[[], None]], None]) -> None:
        self.spec = spec
        self.source = source
        self.layout: StreamLayout = source.layout
        self._post = post
        self._readers: list[Reader] = []
        self._fresh: deque[Frame] = deque()  # not given to the readers yet
        self._due = False
        self._seq = 0
        self._next = 0  # case sample after the last one that was handed on
        self._lock = threading.Lock()
        self._dtype = DTYPE_CODE[self.layout.dtype]
        self._channels = len(self.layout.names)
        self._row_bytes = 4 * self._channels
        self._started = False
        self.tokens = 0  # handed out and not yet used
        self._end: Frame | None = None

    def outbox(self, limit_bytes: int) -> StreamOutbox:
        age = int(self.layout.rate_hz * self.layout.step * AUDIO_AGE_S) if self.spec.kind == "emg_audio" else None
        return StreamOutbox(limit_bytes, age, self._channels)

    def attach(self, reader: Reader) -> None:
        """A reader that comes after the end is told so."""
        self._give()
        if self._end is not None:
            reader.send_frames([self._end], self._end.size)
            reader.end_of_stream()
            return
        self._readers.append(reader)
        if not self._started:
            self._started = True
            self.source.start(self)

    def detach(self, reader: Reader) -> None:
        if reader in self._readers:
            self._readers.remove(reader)

    @property
    def ended(self) -> bool:
        return self._end is not None

    @property
    def idle(self) -> bool:
        return not self._readers and self.tokens == 0

    # -- Sink

    def push(self, first: int, data: bytes | memoryview, n: int, flags: int = 0) -> None:
        if len(data) != n * self._row_bytes:
            raise ValueError(f"{len(data)} bytes came for {n} samples of {self._channels} channels")
        step = self.layout.step
        with self._lock:
            seq, self._seq, self._next = self._seq, self._seq + 1, first + n * step
        self._hand(samples_frame(seq, first, n, step, self._channels, self._dtype, data, flags))

    def gap(self, first: int, lost: int, cause: int) -> None:
        with self._lock:
            seq, self._seq, self._next = self._seq, self._seq + 1, first + lost
        header = gap_header(seq, first, lost, self._channels, cause)
        self._hand(Frame((header,), first, first + lost, True, len(header)))

    def end(self, cause: int) -> None:
        with self._lock:
            seq, self._seq = self._seq, self._seq + 1
            frame = end_frame(seq, self._next, self._channels, cause)

        def finish() -> None:
            self._give()
            self._end = frame
            for reader in list(self._readers):
                reader.send_frames([frame], frame.size)
                reader.end_of_stream()

        self._post(finish)

    def _hand(self, frame: Frame) -> None:
        self._fresh.append(frame)
        if not self._due:  # one turn of the service thread takes all that came until then
            self._due = True
            self._post(self._give)

    def _give(self) -> None:
        self._due = False  # before emptying: whoever appends from here on posts again
        fresh: list[Frame] = []
        while self._fresh:
            fresh.append(self._fresh.popleft())
        if fresh:
            size = sum(frame.size for frame in fresh)
            for reader in self._readers:
                reader.send_frames(fresh, size)
