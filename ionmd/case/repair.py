"""An interrupted case -> a case that every reader opens: the journal's torn tail cut, raw files trimmed and counted.

Nothing that was acknowledged is touched.  What is cut from a journal, other than one torn line, is kept in
journal.cut-NNNN; damage further back than a power cut can reach is left in place and reported.
Done twice, the second time changes nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from ionmd.case.bdf import COUNT_OFFSET, count_field
from ionmd.case.casestate import CaseState, Segment, read_state
from ionmd.case.files import Files, kernel_boot, write_all
from ionmd.case.journal import JOURNAL, Finding, Scan, canonical, head_of, parse
from ionmd.case.journalfile import JournalFile

CUT_LIMIT = 1 << 20  # a batch of lines is synced before it grows beyond this (one longer line excepted)


@dataclass
class Repair:
    """What was done to a case directory; `changed` false: it was in order."""

    case_dir: Path
    state: CaseState
    actions: list[str] = field(default_factory=list)
    damage: list[Finding] = field(default_factory=list)

    @property
    def unlisted(self) -> list[str]:
        known = {segment.file for segment in self.state.segments.values()} | self.state.unlisted
        return sorted(path.name for path in self.case_dir.glob("raw-*.bdf") if path.name not in known)

    @property
    def changed(self) -> bool:
        return bool(self.actions)


def repair(files: Files, case_dir: Path, mark_ns: int | None = None, boot: str | None = None) -> Repair:
    """Cut, trim and count; the caller holds the state lock.  OSError when the disk refuses.

    mark_ns     time of the line `case {"state": "interrupted"}`, added to a case that nobody closed; None: no line
    boot        identity of the running kernel: a segment written under the same one is complete to its last whole
                record; after a power cut only what its count says is trusted, the rest may be torn in any order"""
    boot = kernel_boot() if boot is None else boot
    scan_path = case_dir / JOURNAL
    actions: list[str] = []
    if not scan_path.exists():  # power went before the first line was safe
        fd = files.open(scan_path, os.O_RDWR | os.O_CREAT)
        os.close(fd)
        files.dirsync(case_dir)
        actions.append(f"{JOURNAL}: was missing, an empty one was made")
    state = read_state(case_dir)
    scan = state.scan
    if (scan.findings or scan.torn_bytes) and scan.size - scan.good_bytes <= max(CUT_LIMIT, scan.torn_bytes):
        actions.append(cut_tail(files, scan))
        state = read_state(case_dir)
    elif scan.torn_bytes:
        actions.append(cut_tail(files, scan, scan.size - scan.torn_bytes))
        state = read_state(case_dir)
    result = Repair(case_dir, state, actions, list(state.scan.findings))
    for segment in state.segments.values():
        _repair_segment(files, case_dir, segment, result, boot)
    if mark_ns is not None and state.closed is None and not state.interrupted:
        _mark(files, state, mark_ns, result)
    return result


def _mark(files: Files, state: CaseState, ns: int, result: Repair) -> None:
    scan = state.scan
    data = {
        "state": "interrupted", "repaired": list(result.actions), "unlisted": result.unlisted,
        "damage": [str(f) for f in [*scan.findings, *result.damage]],
        "segments": {s.file: s.records if s.records is not None else s.synced_records for s in state.segments.values()},
    }  # fmt: skip
    journal = JournalFile(files, scan.path, scan.last_n, scan.last_hash, scan.size)
    journal.add(scan.last_n + 1, head_of(scan.last_n + 1, "case", state.end_sample, ns, canonical(data)))
    try:
        journal.commit()
    finally:
        journal.close()
    result.actions.append("marked interrupted")


def _count_of(fd: int) -> int:
    text = os.pread(fd, 8, COUNT_OFFSET).decode("ascii", "replace").strip()
    return int(text) if text.isascii() and text.isdigit() else 0


def is_closed(case_dir: Path) -> bool:
    """The journal's last line is its `close` line; one short read."""
    try:
        with (case_dir / JOURNAL).open("rb") as stream:
            stream.seek(max(0, stream.seek(0, os.SEEK_END) - 4096))
            *_, last, rest = [b"", *stream.read().split(b"\n")]
    except OSError:
        return False
    line, _ = parse(last)
    return line is not None and line.kind == "close" and not rest


def cut_tail(files: Files, scan: Scan, keep: int | None = None) -> str:
    """Shorten a journal to its intact prefix; more than one torn line is kept in a file beside it."""
    keep = scan.good_bytes if keep is None else keep
    path = scan.path
    fd = files.open(path, os.O_RDWR)
    try:
        cut = os.pread(fd, scan.size - keep, keep)
        where = "it was never acknowledged"
        if b"\n" in cut:
            number = 1 + len(list(path.parent.glob(f"{path.stem}.cut-*")))
            side = path.with_name(f"{path.stem}.cut-{number:04d}")
            side_fd = files.open(side, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            try:
                write_all(files, side_fd, cut, 0)
                files.fsync(side_fd)
            finally:
                os.close(side_fd)
            files.dirsync(path.parent)
            where = f"kept in {side.name}"
        files.ftruncate(fd, keep)
        files.fsync(fd)
    finally:
        os.close(fd)
    return f"{path.name}: {len(cut)} damaged bytes after line {scan.last_n if not scan.findings else '?'} cut, {where}"


def _repair_segment(files: Files, case_dir: Path, segment: Segment, result: Repair, boot: str) -> None:
    path = case_dir / segment.file
    layout = segment.layout
    try:
        fd = files.open(path, os.O_RDWR)
    except FileNotFoundError:
        if segment.synced_records:
            result.damage.append(Finding(segment.file, 0, f"missing; the journal has {segment.synced_records} records"))
        return
    try:
        size = os.fstat(fd).st_size
        there = max(0, size - layout.header_bytes) // layout.record_bytes
        records = there if segment.records is None else min(there, segment.records)
        if segment.records is None and (not boot or segment.kernel_boot != boot):
            records = min(there, max(segment.synced_records, _count_of(fd)))
        if there < segment.synced_records:
            result.damage.append(
                Finding(segment.file, 0, f"{there} records are there, the journal has {segment.synced_records}")
            )
        keep = layout.header_bytes + records * layout.record_bytes
        changed = False
        if size > keep and segment.records is None:
            files.ftruncate(fd, keep)
            result.actions.append(f"{segment.file}: {size - keep} bytes after the last complete record cut")
            changed = True
        if size >= layout.header_bytes and os.pread(fd, 8, COUNT_OFFSET) != count_field(records) and records:
            write_all(files, fd, count_field(records), COUNT_OFFSET)
            result.actions.append(f"{segment.file}: record count set to {records}")
            changed = True
        if changed:
            files.fsync(fd)
        if segment.records is None:
            segment.synced_records = records
    finally:
        os.close(fd)
