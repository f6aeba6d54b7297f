"""Records -> raw-NNNN.bdf, live.  Used by the raw thread of the recorder only.

Always: the header's record count never exceeds what has been synced, so a file cut at any instant opens as
an exact synced prefix; a record's memory is released only after its sync; after a failed sync the file is
suspect beyond its last count, and everything newer goes from memory into a new segment.
ENOSPC is waited out in place (the same bytes go to the same offset later); other errors start a new segment.
Journal lines of kind `raw` come out through `note`; docs/record.md has their fields.
"""

from __future__ import annotations

import contextlib
import errno
import os
import zlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ionmd.case.backlog import Backlog, Record
from ionmd.case.bdf import COUNT_OFFSET, RawLayout, annotation, count_field, header, limits_of, time_stamp
from ionmd.case.files import NO_SPACE, Files, kernel_boot, make_dirs, same_file, write_all

NOTE_RECORDS = 100  # one journal line with the checksums of this many records


def segment_name(number: int) -> str:
    return f"raw-{number:04d}.bdf"


class Numbering:
    """The next free segment number of a case, shared by its layouts."""

    def __init__(self, next_number: int = 1) -> None:
        self.next = next_number


class _Segment:
    """One open file."""

    def __init__(self, fd: int, number: int, run: int, first: int, header_bytes: int) -> None:
        self.fd = fd
        self.number = number
        self.run = run
        self.first = first
        self.bytes = header_bytes
        self.written = 0
        self.synced = 0
        self.noted = 0
        self.crcs: list[int] = []
        self.valid: list[list[int]] = []

    def add_valid(self, record: Record) -> None:
        start, end = record.first, record.first + record.samples
        for lo, hi in [*record.pads, (end, end)]:
            if lo > start:
                if self.valid and self.valid[-1][1] == start:
                    self.valid[-1][1] = lo
                else:
                    self.valid.append([start, lo])
            start = max(start, hi)


class RawWriter:
    """Writes the records of one layout of one case."""

    def __init__(
        self, files: Files, case_dir: Path, backlog: Backlog, numbering: Numbering,
        note: Callable[[int, dict[str, Any]], None], now_ns: Callable[[], int], max_bytes: int,
        finished: Callable[[Path], None],
    ) -> None:  # fmt: skip
        self.files = files
        self.case_dir = case_dir
        self.backlog = backlog
        self.layout: RawLayout = backlog.layout
        self.numbering = numbering
        self.note = note
        self.now_ns = now_ns
        self.max_bytes = max_bytes
        self.finished = finished  # a segment has its final content
        self.bytes_written = 0
        self.todo: deque[Record] = deque()
        self.unsynced: deque[Record] = deque()
        self.notes_dropped = 0
        self.suspects = 0
        self._segment: _Segment | None = None
        self._notes: deque[tuple[int, str]] = deque()
        self._prepared: Record | None = None

    @property
    def idle(self) -> bool:
        return not self.todo and not self.unsynced

    def pump(self) -> None:
        """Write all that waits.  OSError: try again later, nothing is lost meanwhile."""
        while self.todo:
            record = self.todo[0]
            segment = self._segment
            if segment and (segment.run != record.run or segment.bytes + len(record.data) > self.max_bytes):
                self.finish()
                segment = None
            segment = segment or self._open(record)
            if self._prepared is not record:
                self._annotate(segment, record)
                self._prepared = record
            try:
                write_all(self.files, segment.fd, record.data, segment.bytes)
            except OSError as error:
                if error.errno not in NO_SPACE:
                    self._give_up(f"write failed: {error.strerror}")
                raise
            self.todo.popleft()
            self.unsynced.append(record)
            segment.crcs.append(zlib.crc32(record.data))
            segment.bytes += len(record.data)
            segment.written += 1
            self.bytes_written += len(record.data)

    def sync(self) -> None:
        """Make what was written durable, then say so in the header."""
        segment = self._segment
        if segment is None or not self.unsynced:
            return
        try:
            self._still_there(segment)
            self.files.fsync(segment.fd)
        except OSError as error:
            self._give_up(f"sync failed: {error.strerror}")
            raise
        segment.synced = segment.written
        with contextlib.suppress(OSError):  # the data are safe; the count follows with the next sync
            write_all(self.files, segment.fd, count_field(segment.synced), COUNT_OFFSET)
        while self.unsynced:
            record = self.unsynced.popleft()
            segment.add_valid(record)
            for sample, samples, cause, padded in record.gaps:
                self.note(record.first, {
                    "state": "gap", "segment": segment.number, "first_sample": sample, "samples": samples,
                    "cause": cause, "padded": padded,
                })  # fmt: skip
            self.backlog.release(record)
        if segment.synced - segment.noted >= NOTE_RECORDS:
            self._note_synced(segment)

    def finish(self) -> None:
        """Sync and close the open segment; a next record opens another."""
        segment = self._segment
        if segment is None:
            return
        self.sync()
        try:
            write_all(self.files, segment.fd, count_field(segment.synced), COUNT_OFFSET)
            self.files.fsync(segment.fd)
        except OSError as error:
            self._give_up(f"sync failed: {error.strerror}")
            raise
        self.notes_dropped += len(self._notes)
        self._notes.clear()
        self._note_synced(segment)
        self._close("closed")

    def shed(self) -> int:
        """Give up what is not written yet (the case is closed on a full disk); the samples given up."""
        samples = sum(record.samples for record in self.todo)
        for record in self.todo:
            self.backlog.release(record)
        self.todo.clear()
        return samples

    def abandon(self) -> None:
        """Close the descriptor and nothing else (the process ends with the disk out of order)."""
        if self._segment is not None:
            os.close(self._segment.fd)
            self._segment = None

    def _open(self, record: Record) -> _Segment:
        number = self.numbering.next
        path = self.case_dir / segment_name(number)
        make_dirs(self.files, self.case_dir)
        # no line of the journal names this number yet: an earlier attempt that failed is overwritten
        fd = self.files.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            head = header(self.layout, self.now_ns())
            write_all(self.files, fd, head, 0)
            self.files.fsync(fd)
            self.files.dirsync(self.case_dir)
        except OSError:
            os.close(fd)
            raise
        self.numbering.next = number + 1
        self._segment = segment = _Segment(fd, number, record.run, record.first, len(head))
        self._prepared = None
        self.note(record.first, {
            "state": "open", "segment": number, "file": path.name, "first_sample": record.first,
            "kernel_boot": kernel_boot(), "rate_hz": self.layout.rate_hz, "record_ms": self.layout.record_ms,
            "inputs": [
                {"label": label, "lsb_uv": lsb, "limits_exact": limits_of(lsb).exact}
                for label, lsb in zip(self.layout.labels, self.layout.lsb_uv, strict=True)
            ],
        })  # fmt: skip
        return segment

    def _annotate(self, segment: _Segment, record: Record) -> None:
        """Fill the record's annotation signal: its time, then as many notes as fit; the rest waits for the next."""
        self._notes.extend(record.notes)
        area = record.data[self.layout.annotation_offset :]
        text = time_stamp(segment.written, self.layout.record_ms)
        while self._notes:
            sample, words = self._notes[0]
            more = annotation(sample - segment.first, self.layout.rate_hz, words)
            if len(text) + len(more) > len(area):
                break
            text += more
            self._notes.popleft()
        area[:] = text.ljust(len(area), b"\0")

    def _still_there(self, segment: _Segment) -> None:
        path = self.case_dir / segment_name(segment.number)
        if not same_file(segment.fd, path):
            raise OSError(errno.ENOENT, "the file was removed or replaced while it was being written", str(path))

    def _note_synced(self, segment: _Segment) -> None:
        crcs = segment.crcs[: segment.synced - segment.noted]
        if crcs:
            last = segment.first + segment.synced * self.layout.samples_per_record
            self.note(last, {
                "state": "synced", "segment": segment.number, "from_record": segment.noted,
                "records": segment.synced, "crc32": "".join(f"{crc:08x}" for crc in crcs),
            })  # fmt: skip
        segment.crcs = segment.crcs[len(crcs) :]
        segment.noted = segment.synced

    def _give_up(self, why: str) -> None:
        """The open segment is suspect beyond its last sync: leave it, and write everything newer elsewhere."""
        segment = self._segment
        if segment is None:
            return
        self.suspects += 1
        self.todo.extendleft(reversed(self.unsynced))
        self.unsynced.clear()
        self.notes_dropped += sum(sample < self.todo[0].first for sample, _ in self._notes) if self.todo else 0
        self._notes.clear()
        self._prepared = None
        keep = self.layout.header_bytes + segment.synced * self.layout.record_bytes
        with contextlib.suppress(OSError):
            self.files.ftruncate(segment.fd, keep)
            if segment.synced:
                write_all(self.files, segment.fd, count_field(segment.synced), COUNT_OFFSET)
        self._note_synced(segment)
        self._close("suspect", why)

    def _close(self, state: str, why: str = "") -> None:
        segment = self._segment
        assert segment is not None  # noqa: S101
        with contextlib.suppress(OSError):
            os.close(segment.fd)
        self._segment = None
        line: dict[str, Any] = {
            "state": state, "segment": segment.number, "file": segment_name(segment.number),
            "first_sample": segment.first, "records": segment.synced, "valid": segment.valid,
        }  # fmt: skip
        if why:
            line["why"] = why
        last = segment.first + segment.synced * self.layout.samples_per_record
        self.note(segment.valid[-1][1] if segment.valid else last, line)
        self.finished(self.case_dir / segment_name(segment.number))
