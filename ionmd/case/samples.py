"""The counts of a stored case by case sample, from its raw segments and the journal's valid ranges.

In: a case directory and what its journal says.  Out: counts, exactly as measured; padding is never given.
Always: reads only, one record in memory.  A case that was interrupted is read as far as its header's count or the
last synced record goes, whichever is more.
"""

from __future__ import annotations

import bisect
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from ionmd.case import _pack
from ionmd.case.bdf import COUNT_OFFSET
from ionmd.case.casestate import CaseState, Segment


class CaseSamples:
    """`stretches` are [first, stop) of what can be read, in order."""

    def __init__(self, case_dir: Path, state: CaseState) -> None:
        self._dir = case_dir
        found = [(lo, hi, segment) for segment in state.segments.values() for lo, hi in _valid(case_dir, segment)]
        found.sort(key=lambda s: s[0])
        self.stretches = [(lo, hi) for lo, hi, _ in found]
        self._starts = [lo for lo, _ in self.stretches]
        self._segments = [segment for _, _, segment in found]
        self._file: BinaryIO | None = None
        self._open: Segment | None = None
        self._record = -1
        self._data = memoryview(b"")

    @property
    def end(self) -> int:
        """One past the newest sample; 0 when there is none."""
        return self.stretches[-1][1] if self.stretches else 0

    def read(self, first: int, n: int, counts: npt.NDArray[np.int32]) -> int:
        """Samples first.. into counts[0..], `[sample, input]`; how many of the `n` are there without a hole."""
        done = 0
        while done < n:
            i = bisect.bisect_right(self._starts, first + done) - 1
            if i < 0 or first + done >= self.stretches[i][1]:
                break
            segment = self._segments[i]
            size = segment.layout.samples_per_record
            record, at = divmod(first + done - segment.first_sample, size)
            rows = min(n - done, size - at, self.stretches[i][1] - first - done)
            self._load(segment, record)
            _pack.unpack(self._data, size, at, rows, len(segment.layout.labels), counts, done)
            done += rows
        return done

    def close(self) -> None:
        """Safe twice."""
        if self._file is not None:
            self._file.close()
        self._file = self._open = None

    def _load(self, segment: Segment, record: int) -> None:
        if segment is not self._open or self._file is None:
            self.close()
            self._file = (self._dir / segment.file).open("rb")
            self._open, self._record = segment, -1
        if record != self._record:
            layout = segment.layout
            self._file.seek(layout.header_bytes + record * layout.record_bytes)
            self._data = memoryview(self._file.read(layout.record_bytes))
            self._record = record


def _valid(case_dir: Path, segment: Segment) -> list[tuple[int, int]]:
    """What was measured and is there; a record of which the file has only a part is not."""
    path, layout = case_dir / segment.file, segment.layout
    if not path.is_file():
        return []
    whole = max(0, path.stat().st_size - layout.header_bytes) // layout.record_bytes
    if segment.records is None:
        with path.open("rb") as file:
            file.seek(COUNT_OFFSET)
            text = file.read(8).decode("ascii", "replace").strip()
        counted = int(text) if text.isascii() and text.isdigit() else 0
        records = min(whole, max(segment.synced_records, counted))
        stop = segment.first_sample + records * layout.samples_per_record
        return without([(segment.first_sample, stop)], segment.gaps)
    stop = segment.first_sample + min(whole, segment.records) * layout.samples_per_record
    return [(lo, min(hi, stop)) for lo, hi in segment.valid if lo < stop]


def without(stretches: list[tuple[int, int]], gaps: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """`stretches` with (first, samples) of each gap cut out."""
    for first, samples in sorted(gaps):
        cut = []
        for lo, hi in stretches:
            cut += [(a, b) for a, b in ((lo, min(hi, first)), (max(lo, first + samples), hi)) if a < b]
        stretches = cut
    return stretches
