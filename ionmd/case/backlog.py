"""Blocks -> whole BDF data records in a bounded, preallocated memory; the pipeline's side of the raw record.

In: Blocks in case samples, any length.  Out: Records of RawLayout.samples_per_record samples, 24 bit,
channel-major.  A record's memory is given back only after its data were synced, so that data suspect after
a failed sync can be written again.  Always: samples are never moved in time.  A gap of at most one second
is padded with the last value and noted; a longer one ends the run, and the next record starts a new
segment.  When no memory is free, samples are shed and counted, and become such a gap.
Free slots are reused last-in first-out, so that in normal operation few pages are ever touched.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ionmd.case import _pack
from ionmd.case.bdf import RawLayout
from ionmd.model import Block, Gap, Mark, MarkKind


@dataclass(slots=True)
class Record:
    """One data record on its way to disk.

    first   case sample of its first row
    run     records of one run belong into one segment
    pads    [start, stop) samples inside the record that were never measured
    notes   (sample, text) for the annotation channel
    gaps    (sample, samples, cause, padded) that were noticed in it
    """

    slot: int
    data: memoryview
    first: int
    run: int
    samples: int
    pads: list[tuple[int, int]] = field(default_factory=list)
    notes: list[tuple[int, str]] = field(default_factory=list)
    gaps: list[tuple[int, int, str, bool]] = field(default_factory=list)


class Backlog:
    """The slots of one layout, and the record that is being filled.  `put` and `end_run` belong to one thread;
    `release` may be called by another."""

    def __init__(self, layout: RawLayout, max_bytes: int, max_s: float) -> None:
        self.layout = layout
        slots = min(max_bytes // layout.record_bytes, int(max_s * 1000 / layout.record_ms))
        self.slots = max(4, slots)
        self._memory = np.zeros((self.slots, layout.record_bytes), np.uint8)
        self._free = list(range(self.slots))[::-1]
        self._last: npt.NDArray[np.int32] = np.zeros(len(layout.labels), np.int32)
        self._current: Record | None = None
        self._filled = 0
        self._run = 0
        self._waiting_gap: tuple[int, int, str, bool] | None = None  # of a run that has no record yet
        self.next_sample: int | None = None
        self.shed_samples = 0
        self.outside_24_bit = 0
        self.overlapped = 0
        self._shedding = False

    @property
    def used(self) -> int:
        return self.slots - len(self._free)

    @property
    def shedding(self) -> bool:
        return self._shedding

    def release(self, record: Record) -> None:
        self._free.append(record.slot)

    def put(self, block: Block) -> list[Record]:
        """Take rows 0..n of `block`; the records that became whole."""
        done: list[Record] = []
        row, n, first = 0, block.n, block.first
        expected = self.next_sample
        if expected is None:
            expected = self.next_sample = first
        if self._current is None and not self._free:
            self.shed_samples += n  # all of them at once: the hole is told as one gap when memory is back
            self._shedding = True
            return done
        if first > expected:
            self._gap(first - expected, _cause(block, self._shedding), done)
        elif first < expected:
            row = min(n, expected - first)
            self.overlapped += row
        pulses = [mark for mark in block.marks if mark.kind is MarkKind.PULSE]
        while row < n:
            if not self._ready():
                self.shed_samples += n - row
                self._shedding = True
                return done
            row += self._copy(block, row, n - row, pulses, done)
        self._shedding = False
        return done

    def _copy(self, block: Block, row: int, rows: int, pulses: list[Mark], done: list[Record]) -> int:
        record = self._current
        assert record is not None  # noqa: S101 - _ready said so
        rows = min(rows, record.samples - self._filled)
        inputs = len(self.layout.labels)
        self.outside_24_bit += _pack.pack(
            block.counts, row, rows, inputs, record.data, self.layout.samples_per_record, self._filled
        )
        self._last[:] = block.counts[row + rows - 1, :inputs]
        lo = block.first + row
        for mark in pulses:
            if lo <= mark.sample < lo + rows:
                record.notes.append((mark.sample, f"stim {mark.output} {mark.delivered:g}"))
        self._advance(rows, done)
        return rows

    def _advance(self, rows: int, done: list[Record]) -> None:
        record = self._current
        assert record is not None and self.next_sample is not None  # noqa: S101
        self._filled += rows
        self.next_sample += rows
        if self._filled == record.samples:
            done.append(record)
            self._current = None

    def _ready(self) -> bool:
        """A record with room for at least one row is there."""
        if self._current is not None:
            return True
        if not self._free or self.next_sample is None:
            return False
        slot = self._free.pop()
        data = memoryview(self._memory[slot])
        record = Record(slot, data, self.next_sample, self._run, self.layout.samples_per_record)
        if self._waiting_gap is not None:
            record.gaps.append(self._waiting_gap)
            self._waiting_gap = None
        self._current, self._filled = record, 0
        return True

    def _gap(self, missing: int, cause: str, done: list[Record]) -> None:
        assert self.next_sample is not None  # noqa: S101
        start, stop = self.next_sample, self.next_sample + missing
        records = -(-missing // self.layout.samples_per_record)
        if missing > self.layout.rate_hz or len(self._free) <= records or not self._ready():
            done += self.end_run()
            if self._waiting_gap is not None:  # nothing was recorded since: one hole
                start, cause = self._waiting_gap[0], self._waiting_gap[2]
            self._waiting_gap = (start, stop - start, cause, False)
            self.next_sample = stop
            return
        record = self._current
        assert record is not None  # noqa: S101
        record.gaps.append((start, missing, cause, True))
        record.notes.append((start, f"gap {missing} samples, padded: {cause}"))
        while missing and self._ready():
            rows = min(missing, self._current.samples - self._filled)  # type: ignore[union-attr]
            self._pad(rows, done)
            missing -= rows

    def _pad(self, rows: int, done: list[Record]) -> None:
        record = self._current
        assert record is not None and self.next_sample is not None  # noqa: S101
        _pack.fill(self._last, rows, self._last.size, record.data, self.layout.samples_per_record, self._filled)
        record.pads.append((self.next_sample, self.next_sample + rows))
        self._advance(rows, done)

    def end_run(self) -> list[Record]:
        """Complete the record that is being filled (its rest is padding) and start a new run."""
        done: list[Record] = []
        if self._current is not None and self._filled:
            after = self.next_sample
            self._current.notes.append((after or 0, "end of segment, padded"))
            self._pad(self._current.samples - self._filled, done)
            self.next_sample = after  # the padding is not time that passed
        elif self._current is not None:
            self._free.append(self._current.slot)
            self._current = None
        self._run += 1
        return done


def _cause(block: Block, shedding: bool) -> str:
    if shedding:
        return "shed: the disk was too slow"
    if block.gap & Gap.SESSION:
        return "new device session"
    if block.gap & Gap.OVERFLOW:
        return "device FIFO overflow"
    if block.gap & Gap.ESTIMATED:
        return "lost, estimated"
    return "lost"
