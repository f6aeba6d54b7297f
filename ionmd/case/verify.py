"""Checks a stored case from its files alone: the chain, the manifest, the raw segments against the journal.

In: a case directory.  Out: a Report; it names file, line and what is wrong.  Reads only; `recover` is the one that
mends an interrupted case.  Needs no daemon and no index.
"""

from __future__ import annotations

import time
import zlib
from dataclasses import dataclass, field
from pathlib import Path

from ionmd.case.bdf import COUNT_OFFSET
from ionmd.case.casestate import CaseState, Segment, read_state
from ionmd.case.files import OsFiles
from ionmd.case.journal import JOURNAL
from ionmd.case.manifest import case_files, hash_file, read_manifest
from ionmd.case.repair import repair
from ionmd.errors import StorageError


@dataclass
class Report:
    """`problems` empty: everything that is there is what was written."""

    case_id: str
    state: str
    lines: int = 0
    head: str = ""
    raw_samples: int = 0
    segments: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.problems


def state_word(state: CaseState) -> str:
    return state.closed or ("interrupted" if state.interrupted else "open")


def verify(case_dir: Path) -> Report:
    """What cannot be read is a problem of the report, like everything else that is wrong; nothing is raised."""
    try:
        if not (case_dir / JOURNAL).is_file():
            return Report(case_dir.name, "no case", problems=[
                f"no {JOURNAL} is there: a case directory was expected (a journal that was lost comes from a backup)"
            ])
        return _verify(case_dir)
    except OSError as error:
        name = error.filename or case_dir.name
        return Report(case_dir.name, "unreadable", problems=[
            f"{name}: {error.strerror or error}; run as the user who owns the record, or in its group"
        ])


def _verify(case_dir: Path) -> Report:
    state = read_state(case_dir)
    scan = state.scan
    report = Report(case_dir.name, state_word(state), scan.last_n, scan.last_hash, kinds=dict(state.kinds))
    report.problems += [str(finding) for finding in scan.findings]
    if not scan.size:
        report.notes.append(f"{JOURNAL} is empty: the power went before its first line was on disk")
    if scan.torn_bytes:
        word = report.notes if state.closed is None else report.problems
        word.append(f"{JOURNAL}: the last {scan.torn_bytes} bytes are a torn line (`ionmd case recover` cuts it)")
    for segment in state.segments.values():
        _segment(case_dir, state, segment.number, report)
    known = {s.file for s in state.segments.values()}
    for path in sorted(case_dir.glob("raw-*.bdf")):
        if path.name in state.unlisted or (path.name not in known and state.closed is None):
            report.notes.append(f"{path.name}: the power went before the journal could name it; not part of the record")
        elif path.name not in known:
            report.problems.append(f"{path.name}: the journal knows nothing of this file")
    _manifest(case_dir, state, report)
    return report


def _segment(case_dir: Path, state: CaseState, number: int, report: Report) -> None:
    segment = state.segments[number]
    path = case_dir / segment.file
    if segment.suspect and not segment.records:
        report.notes.append(f"{segment.file}: given up before its first sync; its samples are in the next segment")
        return
    if not path.is_file():
        report.problems.append(f"{segment.file}: the journal has it, the file is missing")
        return
    layout = segment.layout
    records = segment.records if segment.records is not None else segment.synced_records
    header = 256 * (len(layout.labels) + 2)
    size = path.stat().st_size
    expected = header + records * layout.record_bytes if segment.records is not None else None
    report.segments += 1
    report.raw_samples += records * layout.samples_per_record
    if size < header + records * layout.record_bytes:
        report.problems.append(
            f"{segment.file}: {size} bytes are there, the journal promises {header + records * layout.record_bytes}"
        )
    elif expected is not None and size != expected and not segment.suspect:
        report.problems.append(f"{segment.file}: {size} bytes are there, {expected} were expected")
    with path.open("rb") as file:
        file.seek(COUNT_OFFSET)
        count = file.read(8).decode("ascii", "replace").strip()
    if segment.records is not None and count != str(segment.records):
        report.problems.append(f"{segment.file}: its header counts {count} records, the journal {segment.records}")
    _checksums(path, segment, report)


def _checksums(path: Path, segment: Segment, report: Report) -> None:
    """Each record against the checksum that the journal has of it."""
    layout = segment.layout
    bad = []
    with path.open("rb") as file:
        for record, expected in sorted(segment.crc32.items()):
            file.seek(layout.header_bytes + record * layout.record_bytes)
            data = file.read(layout.record_bytes)
            if len(data) == layout.record_bytes and f"{zlib.crc32(data):08x}" != expected:
                bad.append(record)
    for record in bad[:10]:
        first = segment.first_sample + record * layout.samples_per_record
        report.problems.append(
            f"{segment.file}: record {record} (samples {first} to {first + layout.samples_per_record}) "
            "is not what was recorded: its checksum differs"
        )
    if len(bad) > 10:
        report.problems.append(f"{segment.file}: {len(bad) - 10} more records differ")


def _manifest(case_dir: Path, state: CaseState, report: Report) -> None:
    try:
        manifest = read_manifest(case_dir)
    except ValueError as error:
        report.problems.append(f"manifest.json is damaged: {error}")
        return
    if manifest is None:
        if state.closed is not None:
            report.notes.append("manifest.json is missing: the daemon stopped before it was written")
        return
    if state.closed is None and manifest.journal.lines < state.scan.last_n:
        report.notes.append("manifest.json is older than the case, which was resumed; it is written anew at the close")
        return
    if manifest.journal.head != state.scan.last_hash:
        report.problems.append("manifest.json: the chain's head differs from the journal's last hash")
    if manifest.journal.lines != state.scan.last_n:
        report.problems.append(f"manifest.json: {manifest.journal.lines} lines, the journal has {state.scan.last_n}")
    for path in case_files(case_dir):
        entry = manifest.files.get(path.name)
        if entry is None:
            report.problems.append(f"{path.name}: not in manifest.json")
        elif hash_file(path) != entry:
            report.problems.append(f"{path.name}: its SHA-256 differs from manifest.json")
    for name in manifest.files:
        if not (case_dir / name).is_file():
            report.problems.append(f"{name}: in manifest.json, but missing")


def recover(case_dir: Path, boot: str | None = None) -> list[str]:
    """Make an interrupted case readable and mark it so; what was done.  Done twice, the second time changes nothing.

    The caller holds the state lock.  `boot` is the running kernel's identity (tests).  StorageError: no case, or its
    files cannot be read and written."""
    try:
        names = {p.name for p in case_dir.iterdir()}
        if names and JOURNAL not in names and not any(n.startswith("raw-") for n in names):
            raise StorageError(f"{case_dir}: neither {JOURNAL} nor raw data are there; a case directory was expected")
        return list(repair(OsFiles(), case_dir, mark_ns=time.time_ns(), boot=boot).actions)
    except OSError as error:
        raise StorageError(
            f"{error.filename or case_dir}: {error.strerror or error}; files that this user may read and write were "
            "expected in a case directory"
        ) from error
