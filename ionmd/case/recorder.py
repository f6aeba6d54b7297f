"""The recorder: what the pipeline hands over reaches the disk, and the pipeline never waits for it.

In: journal lines and Blocks from the pipeline thread.  Out: files of docs/record.md; callbacks on the
journal thread after fdatasync.  Two threads write, so that an acknowledgement never waits for 8 MB of samples:
journalthread.py commits lines, rawthread.py writes records and syncs each second; a third, digest.py, hashes finished
segments and writes manifests and indexes.
Always: disk trouble never reaches the caller; lines wait in memory without limit, acknowledgements wait with
them, samples wait in the backlog and are then shed with a counted gap.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from ionmd.case.backlog import Backlog, Record
from ionmd.case.bdf import RawLayout, make_layout
from ionmd.case.digest import DigestThread
from ionmd.case.earlier import EarlierCases, ResumePoint
from ionmd.case.files import Files, OsFiles, free_bytes, make_dirs
from ionmd.case.journal import JOURNAL, canonical, scan_journal
from ionmd.case.journalfile import JournalFile
from ionmd.case.journalthread import JournalThread
from ionmd.case.lock import StateLock
from ionmd.case.opencase import Ending, MakingFiles, OpenCase, check_case_id
from ionmd.case.rawthread import End, RawThread
from ionmd.case.recording import Numbering, RawWriter
from ionmd.case.repair import cut_tail
from ionmd.case.sink import Durable, Sink
from ionmd.case.troubles import Trouble, Troubles
from ionmd.errors import StorageError
from ionmd.model import Block

log = structlog.get_logger()


@dataclass(frozen=True)
class RecorderStats:
    case_id: str | None
    journal_lines: int  # of the open journal, handed in
    journal_pending: int  # of these, not yet on disk
    backlog_s: float
    backlog_permille: int
    shed_samples: int
    raw_bytes: int
    sync_last_ms: float
    sync_max_ms: float
    journal_sync_last_ms: float
    journal_sync_max_ms: float
    suspect_segments: int
    troubles: tuple[str, ...]


class Recorder:
    """One per state directory.  Life: start -> (open_case | resume_case ... close_case)* -> stop."""

    def __init__(
        self, state_dir: Path, files: Files | None = None,
        on_committed: Callable[[str, int], None] | None = None, on_trouble: Callable[[Trouble], None] | None = None, *,
        sync_s: float = 1.0, segment_bytes: int = 1 << 30, backlog_bytes: int = 64 << 20, backlog_s: float = 120.0,
        reserve_bytes: int = 256 << 20, now_ns: Callable[[], int] = time.time_ns,
        free: Callable[[Path], int] = free_bytes,
    ) -> None:  # fmt: skip
        """on_committed(case_id, n): lines up to n of that journal (`""`: the system's) are on disk.  The raw record
        stops while less than `reserve_bytes` are free, which leaves that room to the journal."""
        self.state_dir = Path(state_dir)
        self.files: Files = files or OsFiles()
        self._segment_bytes = segment_bytes
        self._backlog_bytes = backlog_bytes
        self._backlog_s = backlog_s
        self.now_ns = now_ns
        self._lock = threading.Lock()  # the open case and the counters of those before
        self._state_lock: StateLock | None = None
        self._earlier = EarlierCases(self.files, self.state_dir / "cases", now_ns)
        self._known: set[str] = set()
        self._case: OpenCase | None = None
        self._troubles = Troubles(on_trouble)
        self._system: Sink | None = None
        self._journal = JournalThread(self._troubles, on_committed, now_ns)
        self._raw = RawThread(
            sync_s, lambda: free(self.state_dir), reserve_bytes, self._troubles.tell, self._raw_ended
        )
        self._digest = DigestThread(self._troubles)
        self._shed_before = 0
        self._bytes_before = 0
        self._suspects_before = 0

    # ------------------------------------------------------------ life

    def start(self) -> None:
        """Take the state directory and open the system journal.  StorageError: it is in use or not writable."""
        self._state_lock = StateLock(self.state_dir)
        try:
            make_dirs(self.files, self.state_dir / "cases")
            make_dirs(self.files, self.state_dir / "system")
            self._system = self._system_sink()
            self._journal.add(self._system)
            self._known = {path.name for path in (self.state_dir / "cases").iterdir()}
        except OSError as error:
            self._state_lock.release()
            raise StorageError(f"state directory {self.state_dir}: {error}; a writable one was expected") from error
        self._journal.start()
        self._digest.start()
        self._raw.start()
        left_over = sorted(self._known)  # only what an earlier daemon left: a case of this life may be half written
        self._digest.submit(lambda: self._earlier.recover(left_over))

    def _system_sink(self) -> Sink:
        path = self.state_dir / "system" / JOURNAL
        if not path.exists():
            return Sink("", JournalFile(self.files, path))
        scan = scan_journal(path)
        if scan.torn_bytes:
            cut_tail(self.files, scan, scan.size - scan.torn_bytes)
        for finding in scan.findings:
            log.error("system_journal_damaged", line=finding.line, problem=finding.problem)
        return Sink("", JournalFile(self.files, path, scan.last_n, scan.last_hash, scan.size - scan.torn_bytes))

    def stop(self, timeout_s: float = 10.0) -> bool:
        """Write what waits and let go of the directory; an open case stays open and can be resumed.

        False: the disk did not take everything in time."""
        if self._case is not None:
            self._end_layout(self._case, Ending(self._case))
            self._case = None
        done = self.drain(timeout_s)
        self._digest.stopping = True
        self._raw.stop(2.0)
        self._journal.stop(2.0)
        self._digest.stop(2.0)
        if self._state_lock is not None:
            self._state_lock.release()
        return done

    def drain(self, timeout_s: float) -> bool:
        """Wait until all that was handed in is on disk (tests, shutdown).  Partial records stay in memory."""
        deadline = time.monotonic() + timeout_s
        return self._raw.drain(deadline) and self._journal.drain(deadline) and self._digest.drain(deadline)

    def background(self, job: Callable[[], None]) -> None:
        """Run on the digest thread, after what waits there: reading old cases, never on the pipeline's time."""
        self._digest.submit(job)

    # ------------------------------------------------------------ cases

    def open_case(
        self, case_id: str, header: dict[str, Any], labels: Sequence[str], lsb_uv: float | Sequence[float],
        rate_hz: float,
    ) -> int:  # fmt: skip
        """Start a new case; returns the number of its first line.

        ConfigError: a label, lsb or rate cannot be recorded.  StorageError: bad or known id, another case is open."""
        layout = make_layout(labels, lsb_uv, rate_hz)
        check_case_id(case_id)
        with self._lock:
            self._refuse_second()
            if case_id in self._known:
                raise StorageError(f"case {case_id} exists: choose another id, or open it to resume")
            self._known.add(case_id)
            case_dir = self.state_dir / "cases" / case_id
            sink = Sink(case_id, JournalFile(MakingFiles(self.files, case_dir), case_dir / JOURNAL))
            self._journal.add(sink)
            self._case = OpenCase(case_id, case_dir, sink, Numbering())
            self._new_layout(self._case, layout)
            first = {**header, "case_id": case_id, "state": "open"}
            return self._journal.push(sink, "case", 0, canonical(first))

    def prepare_resume(self, case_id: str) -> ResumePoint:
        """Repair and read an existing case, on any thread but the pipeline's: it takes as long as its journal."""
        return self._earlier.prepare(case_id)

    def resume_case(
        self, case_id: str, labels: Sequence[str] | None = None, lsb_uv: float | Sequence[float] = 0.03125,
        rate_hz: float = 0, *, prepared: ResumePoint | None = None,
    ) -> ResumePoint:  # fmt: skip
        """Go on with a case: its journal continues, samples go to a new segment.  Without `labels` the layout is
        that of its last segment.  Does not block when `prepared` is given."""
        layout = make_layout(labels, lsb_uv, rate_hz) if labels is not None else None
        with self._lock:
            self._refuse_second()
        point = prepared or self.prepare_resume(case_id)
        scan, state = point.state.scan, point.state
        case_dir = self.state_dir / "cases" / case_id
        with self._lock:
            self._refuse_second()
            files = MakingFiles(self.files, case_dir)
            sink = Sink(case_id, JournalFile(files, scan.path, scan.last_n, scan.last_hash, scan.size))
            self._journal.add(sink)
            self._case = case = OpenCase(case_id, case_dir, sink, Numbering(point.next_segment))
            if layout is None and state.segments:
                layout = state.segments[max(state.segments)].layout
            if layout is not None:
                self._new_layout(case, layout)
            data = {
                "state": "resumed", "case_id": case_id, "was": state.closed or "interrupted",
                "repaired": list(point.actions), "unlisted": list(point.unlisted),
                "damage": [str(f) for f in scan.findings],
            }  # fmt: skip
            self._journal.push(sink, "case", point.end_sample, canonical(data))
        return point

    def set_layout(self, labels: Sequence[str], lsb_uv: float | Sequence[float], rate_hz: float) -> None:
        """Another amplifier or rate: what follows goes into a new segment.  ConfigError as for open_case."""
        layout = make_layout(labels, lsb_uv, rate_hz)
        with self._lock:
            case = self._case
            if case is None or (case.backlog is not None and case.backlog.layout == layout):
                return
            self._end_layout(case, Ending(case))
            self._new_layout(case, layout)

    def close_case(
        self, state: str = "closed", on_durable: Durable | None = None, on_closed: Callable[[Path], None] | None = None,
        sample: int = 0,
    ) -> None:  # fmt: skip
        """End the open case: last samples, `close` line (then on_durable), manifest.json (then on_closed).

        Lines handed in from now on belong to the system journal."""
        with self._lock:
            case = self._case
            if case is None:
                raise StorageError("no case is open")
            self._end_layout(case, Ending(case, state, sample, on_durable, on_closed))
            self._case = None

    def _refuse_second(self) -> None:
        if self._case is not None:
            raise StorageError(f"case {self._case.case_id} is open: close it first")

    def _new_layout(self, case: OpenCase, layout: RawLayout) -> None:
        case.backlog = Backlog(layout, self._backlog_bytes, self._backlog_s)

        def note(sample: int, data: dict[str, Any]) -> None:
            self._journal.push(case.sink, "raw", sample, canonical(data))

        def finished(path: Path) -> None:
            self._digest.submit(lambda: case.take_hash(path))

        case.writer = RawWriter(
            self.files, case.dir, case.backlog, case.numbering, note, self.now_ns, self._segment_bytes, finished
        )

    def _end_layout(self, case: OpenCase, ticket: Ending) -> None:
        records: list[Record | End] = []
        if case.backlog is not None:
            records += case.backlog.end_run()
            self._shed_before += case.backlog.shed_samples
        self._raw.submit(case.writer, [*records, End(case.writer, ticket)])

    # ------------------------------------------------------------ what the pipeline hands over

    def journal(self, kind: str, sample: int, data: object, on_durable: Durable | None = None) -> int:
        """One line into the open case's journal, or the system's; its number at once, on_durable(n) after fdatasync.

        TypeError/ValueError: `data` cannot be JSON or `kind` is not a word; disk trouble never shows here."""
        sink = self._case.sink if self._case else self._system
        if sink is None:
            raise StorageError("a line came before the recorder was started")
        return self._journal.push(sink, kind, sample, canonical(data), on_durable)

    def raw(self, block: Block) -> None:
        """Copy rows 0..n into the backlog; without an open case, nothing."""
        case = self._case
        if case is None or case.backlog is None:
            return
        backlog = case.backlog
        if block.inputs != len(backlog.layout.labels):
            self._troubles.tell("raw_layout", True, "Samples are not recorded: the amplifier's inputs changed",
                          f"{block.inputs} inputs came, {len(backlog.layout.labels)} were declared")  # fmt: skip
            return
        if "raw_layout" in self._troubles:
            self._troubles.tell("raw_layout", False, "Samples are being recorded again")
        outside = backlog.outside_24_bit
        done = backlog.put(block)
        if done:
            self._raw.submit(case.writer, done)
        if backlog.shedding or "raw_shed" in self._troubles:
            self._troubles.tell("raw_shed", backlog.shedding, "The disk is too slow: samples are not being recorded",
                          f"{backlog.shed_samples} samples")  # fmt: skip
        if backlog.outside_24_bit != outside:
            self._troubles.tell("raw_value", True, "Counts outside 24 bits were recorded as the converter's end stop",
                          f"{backlog.outside_24_bit} values")  # fmt: skip

    def raw_break(self) -> None:
        """The device is gone: what is there is written now, and the next block starts a new segment."""
        case = self._case
        if case is not None and case.backlog is not None:
            self._raw.submit(case.writer, case.backlog.end_run())

    def wait_room(self, timeout_s: float) -> bool:
        """For `--speed max` only, where the device can wait: True once half of the backlog is free."""
        deadline = time.monotonic() + timeout_s
        while True:
            backlog = self._case.backlog if self._case else None
            if backlog is None or backlog.used * 2 <= backlog.slots:
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._raw.wait_progress(min(left, 0.05))

    def stats(self) -> RecorderStats:
        with self._lock:
            case, backlog = self._case, self._case.backlog if self._case else None
            writer = case.writer if case else None
            sink = case.sink if case else self._system
            return RecorderStats(
                case.case_id if case else None, sink.next_n - 1 if sink else 0, sink.pending if sink else 0,
                backlog.used * backlog.layout.record_ms / 1000 if backlog else 0.0,
                backlog.used * 1000 // backlog.slots if backlog else 0,
                self._shed_before + self._raw.shed_samples + (backlog.shed_samples if backlog else 0),
                self._bytes_before + (writer.bytes_written if writer else 0),
                self._raw.sync_last_ms, self._raw.sync_max_ms,
                self._journal.commit_last_ms, self._journal.commit_max_ms,
                self._suspects_before + (writer.suspects if writer else 0), self._troubles.names(),
            )  # fmt: skip

    # ------------------------------------------------------------ the end of a case

    def _raw_ended(self, end: End) -> None:
        """Raw thread: all samples of a layout are on disk."""
        ticket: Ending = end.ticket
        with self._lock:
            if end.writer is not None:
                self._bytes_before += end.writer.bytes_written
                self._suspects_before += end.writer.suspects
                end.writer.bytes_written = end.writer.suspects = 0
        if ticket.state is not None:
            data = canonical({"state": ticket.state})
            self._journal.last(ticket.case.sink, "close", ticket.sample, data, ticket.durable)
            self._digest.submit(lambda: ticket.finish(self._digest, self.files, self.now_ns))
