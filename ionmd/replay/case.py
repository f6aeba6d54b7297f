"""A stored case again: its samples and requests through the same stages, and whether the results are the same.

In: a case directory.  Out: the results as (topic, data, sample), and at the end one ("replay", Outcome, sample).
Always: the journal's own order; an input acts when the block that ended at its sample has been processed, as it did
live.  Results are the same when their canonical JSON is equal, byte for byte (ionmd/case/canonical.py).
A case that was interrupted is compared up to its last sample that is in the record.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from ionmd import __version__
from ionmd.case.canonical import RESULTS, canonical_result, first_difference
from ionmd.case.casestate import read_state
from ionmd.case.journal import JOURNAL, Line, Scan, read_lines
from ionmd.case.samples import CaseSamples
from ionmd.errors import IonmdError, StorageError
from ionmd.model import Mark
from ionmd.replay.room import CaseRoom, MissingSamples
from ionmd.room.opening import Opening

# The recorder writes these by itself; their sample is not one at which the room was.
RECORDER_KINDS = ("raw", "close")


class Outcome(msgspec.Struct, omit_defaults=True):
    """`same`: every one of `results` was recorded and came again; `until_sample`: how far the comparison went."""

    case_id: str
    same: bool
    results: int
    until_sample: int
    difference: str = ""
    notes: list[str] = []


class Comparison:
    """Recorded and replayed results, pair by pair in their order; the first difference counts."""

    def __init__(self) -> None:
        self._recorded: deque[tuple[int, bytes]] = deque()
        self._replayed: deque[tuple[int, bytes]] = deque()
        self.equal = 0
        self.difference = ""

    def recorded(self, sample: int, result: bytes) -> None:
        self._recorded.append((sample, result))

    def replayed(self, sample: int, result: bytes) -> None:
        self._replayed.append((sample, result))

    def pair(self) -> None:
        while self._recorded and self._replayed:
            (sample, a), (_, b) = self._recorded.popleft(), self._replayed.popleft()
            if a == b:
                self.equal += 1
            else:
                self.differ(f"result {self.equal + 1}, sample {sample}: {first_difference(a, b)}")

    def differ(self, text: str) -> None:
        self.difference = self.difference or text

    def end(self, before: int | None = None) -> None:
        """No more of this sitting comes.  `before`: it broke off, so what has no counterpart from there on is none."""
        self.pair()
        for what, left in (("only in the record", self._recorded), ("only in the replay", self._replayed)):
            kept = [r for s, r in left if before is None or s < before]
            if kept:
                self.differ(f"result {self.equal + 1} is {what}: {kept[0][:160].decode('utf-8', 'replace')}")
            left.clear()


def replay_case(case_dir: Path) -> Iterator[tuple[str, Any, int]]:
    """Replay; StorageError when the case cannot be read or was recorded before its configuration was journalled."""
    try:
        if not (case_dir / JOURNAL).is_file():
            raise StorageError(
                f"{case_dir}: no {JOURNAL} is there; a case directory (`ionmd case list`) or a recording "
                "(EDF, BDF, CSV) was expected"
            )
        yield from _Replay(case_dir).run()
    except OSError as error:
        raise StorageError(f"{case_dir}: {error.strerror or error}: the case's files must be readable") from error


class _Replay:
    def __init__(self, case_dir: Path) -> None:
        self._dir = case_dir
        self._samples = CaseSamples(case_dir, read_state(case_dir))
        self._room: CaseRoom | None = None
        self._broken = ""  # why this sitting cannot be followed any more
        self._hole_end: int | None = None  # first sample after the missing ones, if any come
        self._sittings = 0
        self._last = 0
        self._compare = Comparison()
        self._results: deque[tuple[str, Any, int]] = deque()
        self._notes: list[str] = []

    def run(self) -> Iterator[tuple[str, Any, int]]:
        scan = Scan(self._dir / JOURNAL)
        for line in read_lines(scan.path, scan):
            self._take(line)
            while self._results:
                yield self._results.popleft()
            self._compare.pair()
        self._leave()
        self._samples.close()
        if not self._sittings:
            raise StorageError(
                f"{self._dir.name}: its journal has no `configuration` line, which a replay begins with: "
                "nothing was recorded after the case was made, or an older ionmd wrote it"
            )
        if scan.findings:
            self._compare.differ(f"{scan.findings[0]} (`ionmd case verify {self._dir.name}`)")
        same = not self._compare.difference
        yield "replay", Outcome(
            self._dir.name, same, self._compare.equal, self._last, self._compare.difference, self._notes
        ), self._last

    def _emit(self, kind: str, sample: int, data: bytes) -> None:
        if kind in RESULTS:
            plain = msgspec.json.decode(data)
            self._compare.replayed(sample, canonical_result(kind, sample, plain))
            self._results.append((kind, plain, sample))

    # ------------------------------------------------------------ lines

    def _take(self, line: Line) -> None:
        data = line.data if isinstance(line.data, dict) else {}
        if line.kind == "configuration":
            self._leave()
            self._open(line, data)
            return
        room = self._room
        if room is None or line.kind in RECORDER_KINDS:
            return
        if line.kind == "case" and data.get("state") in ("interrupted", "resumed"):
            return  # the next configuration tells how it goes on
        if self._broken:
            lost = line.kind in RESULTS and self._hole_end is not None and line.sample > self._hole_end
            if lost or (line.kind == "case" and data.get("state") == "closing"):
                self._compare.differ(f"{self._broken}: the results after them cannot be had again")
            return
        if line.kind in RESULTS:
            self._compare.recorded(line.sample, canonical_result(line.kind, line.sample, line.data))
        try:
            self._step(room, line, data)
        except MissingSamples as missing:
            self._missing(missing.sample, line)
        except (KeyError, TypeError, ValueError, IonmdError) as error:
            self._broken = f"journal line {line.n} ({line.kind}): {error}"
            self._compare.differ(self._broken)
        else:
            self._last = max(self._last, line.sample)
            if line.kind == "case" and data.get("state") == "closing":
                self._compare.end()
                self._room = None

    def _open(self, line: Line, data: dict[str, Any]) -> None:
        try:
            opening = msgspec.convert(data, Opening)
            self._room = CaseRoom(opening, line.sample, self._samples, self._emit)
        except (ValueError, IonmdError) as error:
            raise StorageError(f"journal line {line.n} (configuration): {error}") from error
        self._sittings += 1
        if opening.version != __version__:
            self._notes.append(f"recorded by ionmd {opening.version}, replayed by ionmd {__version__}")
        self._broken, self._hole_end = "", None

    def _step(self, room: CaseRoom, line: Line, data: dict[str, Any]) -> None:
        """Advance to the line's sample, then let it act."""
        if line.kind == "session":
            room.advance(int(data["sample"]) - int(data["gap_samples"]))
            room.session(int(data["sample"]))
            return
        room.advance(line.sample)
        if line.kind == "block":
            marks = msgspec.convert(data["marks"], list[Mark])
            room.block(int(data["first"]), int(data["samples"]), int(data["gap"]), int(data["lost"]), marks)
        elif line.kind == "outside":
            room.outside(data)
        elif line.kind == "device":
            room.device(data)
        elif line.kind in ("request", "audit") and "asked" in data:
            room.answered(int(data["asked"]), str(data.get("refused", "")))
        elif line.kind == "asked" or (line.kind == "request" and data["method"] != "case.open"):
            refused = room.request(line.n, data)
            if refused:
                self._compare.differ(f"journal line {line.n}: {refused}")

    def _missing(self, sample: int, line: Line) -> None:
        """Samples are not there: at the end of an interrupted sitting that is all there is."""
        self._last = max(self._last, sample)
        self._hole_end = next((lo for lo, _ in self._samples.stretches if lo > sample), None)
        until = "on" if self._hole_end is None else f"to {self._hole_end}"
        self._broken = f"samples from {sample} {until} are not in the record"
        self._notes.append(f"{self._broken}; the journal goes on, line {line.n} is at sample {line.sample}")

    def _leave(self) -> None:
        """The sitting was not closed: it was interrupted, or it is still going on."""
        if self._room is None:
            return
        self._notes.append(f"interrupted: compared up to sample {self._last}")
        self._compare.end(before=self._last)
        self._room = None
