"""The recorder: what the pipeline hands over reaches the disk, and the pipeline never waits for it.

In: journal lines and Blocks from the pipeline thread.  Out: files of docs/record.md; callbacks on the
journal thread after fdatasync.  Two threads write, so that an acknowledgement never waits for 8 MB of samples:
`journal` commits lines (within 50 ms, at once when somebody waits), `raw` writes records and syncs each second;
a third, `digest`, hashes finished segments and writes manifests.
Always: disk trouble never reaches the caller; lines wait in memory without limit, acknowledgements wait with
them, samples wait in the backlog and are then shed with a counted gap.
"""

from __future__ import annotations

import os
import queue
import re
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from ionmd.case.backlog import Backlog, Record
from ionmd.case.bdf import RawLayout, make_layout
from ionmd.case.files import Files, OsFiles, free_bytes, make_dirs
from ionmd.case.journal import JOURNAL, JournalFile, canonical, head_of, scan_journal
from ionmd.case.lock import StateLock
from ionmd.case.manifest import FileEntry, hash_file, write_manifest
from ionmd.case.rawthread import RETRY_S, End, RawThread
from ionmd.case.recording import Numbering, RawWriter
from ionmd.case.repair import CaseState, cut_tail, is_closed, repair
from ionmd.case.sink import Durable, Sink
from ionmd.errors import StorageError
from ionmd.model import Block

log = structlog.get_logger()
GROUP_COMMIT_S = 0.05
_CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


@dataclass(frozen=True)
class Trouble:
    """A state of the record that somebody must know: `code` disk_journal, disk_raw, disk_space, disk_manifest,
    raw_shed, raw_layout, raw_value."""

    code: str
    active: bool
    sentence: str
    detail: str = ""


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


@dataclass(frozen=True)
class ResumePoint:
    """What a case needs to go on: read and repaired by `prepare_resume`, on any thread."""

    case_id: str
    state: CaseState
    next_segment: int
    actions: tuple[str, ...]
    unlisted: tuple[str, ...] = ()

    @property
    def end_sample(self) -> int:
        return self.state.end_sample


class _Case:
    """The open case as the two threads see it."""

    def __init__(self, case_id: str, case_dir: Path, sink: Sink, numbering: Numbering) -> None:
        self.case_id = case_id
        self.dir = case_dir
        self.sink = sink
        self.numbering = numbering
        self.backlog: Backlog | None = None
        self.writer: RawWriter | None = None
        self.hashes: dict[str, FileEntry] = {}


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
        self._on_committed = on_committed
        self._on_trouble = on_trouble
        self._segment_bytes = segment_bytes
        self._backlog_bytes = backlog_bytes
        self._backlog_s = backlog_s
        self.now_ns = now_ns
        self._lock = threading.Lock()
        self._to_journal = threading.Condition(self._lock)
        self._idle = threading.Condition(self._lock)
        self._repair_lock = threading.Lock()
        self._state_lock: StateLock | None = None
        self._known: set[str] = set()
        self._resumed: set[str] = set()  # cases of an earlier daemon that this one took up again
        self._sinks: list[Sink] = []
        self._case: _Case | None = None
        self._raw = RawThread(sync_s, lambda: free(self.state_dir), reserve_bytes, self._trouble, self._raw_ended)
        self._digest: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._troubles: dict[str, Trouble] = {}
        self.stopping = False
        self._shed_before = 0
        self._bytes_before = 0
        self._suspects_before = 0
        self._commit_last_ms = 0.0
        self._commit_max_ms = 0.0
        self._threads: list[threading.Thread] = []

    # ------------------------------------------------------------ life

    def start(self) -> None:
        """Take the state directory and open the system journal.  StorageError: it is in use or not writable."""
        self._state_lock = StateLock(self.state_dir)
        try:
            make_dirs(self.files, self.state_dir / "cases")
            make_dirs(self.files, self.state_dir / "system")
            self._sinks = [self._system_sink()]
            self._known = {path.name for path in (self.state_dir / "cases").iterdir()}
        except OSError as error:
            self._state_lock.release()
            raise StorageError(f"state directory {self.state_dir}: {error}; a writable one was expected") from error
        for name, body in (("journal", self._journal_loop), ("digest", self._digest_loop)):
            thread = threading.Thread(target=body, name=f"ionmd-{name}", daemon=True)
            thread.start()
            self._threads.append(thread)
        self._raw.start()
        left_over = sorted(self._known)  # only what an earlier daemon left: a case of this life may be half written
        self._digest.put(lambda: self._recover_all(left_over))

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
            self._end_layout(self._case, _Closing(self, self._case))
            self._case = None
        done = self.drain(timeout_s)
        self.stopping = True
        self._raw.stop(2.0)
        with self._lock:
            self._to_journal.notify_all()
        self._digest.put(None)
        for thread in self._threads:
            thread.join(2.0)
        self._threads.clear()
        for sink in self._sinks:
            sink.file.close()
        if self._state_lock is not None:
            self._state_lock.release()
        return done

    def drain(self, timeout_s: float) -> bool:
        """Wait until all that was handed in is on disk (tests, shutdown).  Partial records stay in memory."""
        deadline = time.monotonic() + timeout_s
        if not self._raw.drain(deadline):
            return False
        with self._lock:
            for sink in self._sinks:
                sink.urgent = True
            self._to_journal.notify_all()
            while any(sink.pending for sink in self._sinks):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._idle.wait(left)
        while self._digest.unfinished_tasks:
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.002)
        return True

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
            sink = Sink(case_id, JournalFile(_MakingFiles(self.files, case_dir), case_dir / JOURNAL))
            self._sinks.append(sink)
            self._case = _Case(case_id, case_dir, sink, Numbering())
            self._new_layout(self._case, layout)
            first = {**header, "case_id": case_id, "state": "open"}
            return self._push(sink, "case", 0, canonical(first), None)

    def prepare_resume(self, case_id: str) -> ResumePoint:
        """Repair and read an existing case; blocks (an 8 h case: under a second), so not for the pipeline thread.

        StorageError: no such case, or the disk refuses."""
        check_case_id(case_id)
        case_dir = self.state_dir / "cases" / case_id
        with self._repair_lock:
            self._resumed.add(case_id)
        if not case_dir.is_dir():
            raise StorageError(f"case {case_id} does not exist: `ionmd case list` shows the ones that do")
        try:
            with self._repair_lock:
                result = repair(self.files, case_dir)
        except OSError as error:
            raise StorageError(f"case {case_id}: {error}; it cannot be resumed while the disk refuses") from error
        numbers = [int(p.stem[4:]) for p in case_dir.glob("raw-*.bdf") if p.stem[4:].isdigit()]
        next_segment = max([*numbers, *result.state.segments], default=0) + 1
        return ResumePoint(case_id, result.state, next_segment, tuple(result.actions), tuple(result.unlisted))

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
            files = _MakingFiles(self.files, case_dir)
            sink = Sink(case_id, JournalFile(files, scan.path, scan.last_n, scan.last_hash, scan.size))
            self._sinks.append(sink)
            self._case = case = _Case(case_id, case_dir, sink, Numbering(point.next_segment))
            if layout is None and state.segments:
                layout = state.segments[max(state.segments)].layout
            if layout is not None:
                self._new_layout(case, layout)
            data = {
                "state": "resumed", "case_id": case_id, "was": state.closed or "interrupted",
                "repaired": list(point.actions), "unlisted": list(point.unlisted),
                "damage": [str(f) for f in scan.findings],
            }  # fmt: skip
            self._push(sink, "case", point.end_sample, canonical(data), None)
        return point

    def set_layout(self, labels: Sequence[str], lsb_uv: float | Sequence[float], rate_hz: float) -> None:
        """Another amplifier or rate: what follows goes into a new segment.  ConfigError as for open_case."""
        layout = make_layout(labels, lsb_uv, rate_hz)
        with self._lock:
            case = self._case
            if case is None or (case.backlog is not None and case.backlog.layout == layout):
                return
            self._end_layout(case, _Closing(self, case))
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
            self._end_layout(case, _Closing(self, case, state, sample, on_durable, on_closed))
            self._case = None

    def _refuse_second(self) -> None:
        if self._case is not None:
            raise StorageError(f"case {self._case.case_id} is open: close it first")

    def _new_layout(self, case: _Case, layout: RawLayout) -> None:
        case.backlog = Backlog(layout, self._backlog_bytes, self._backlog_s)

        def note(sample: int, data: dict[str, Any]) -> None:
            with self._lock:
                self._push(case.sink, "raw", sample, canonical(data), None)

        case.writer = RawWriter(self.files, case.dir, case.backlog, case.numbering, note, self.now_ns,
                                self._segment_bytes, lambda path: self._segment_finished(case, path))  # fmt: skip

    def _end_layout(self, case: _Case, ticket: _Closing) -> None:
        records: list[Record | End] = []
        if case.backlog is not None:
            records += case.backlog.end_run()
            self._shed_before += case.backlog.shed_samples
        self._raw.submit(case.writer, [*records, End(case.writer, ticket)])

    # ------------------------------------------------------------ what the pipeline hands over

    def journal(self, kind: str, sample: int, data: object, on_durable: Durable | None = None) -> int:
        """One line into the open case's journal, or the system's; its number at once, on_durable(n) after fdatasync.

        TypeError/ValueError: `data` cannot be JSON or `kind` is not a word; disk trouble never shows here."""
        encoded = canonical(data)
        with self._lock:
            return self._push(self._case.sink if self._case else self._sinks[0], kind, sample, encoded, on_durable)

    def _push(self, sink: Sink, kind: str, sample: int, data: bytes, on_durable: Durable | None) -> int:
        ns = self.now_ns()
        n = sink.push(lambda n: head_of(n, kind, sample, ns, data), time.monotonic(), on_durable)
        if on_durable is not None or len(sink.queue) == 1:
            self._to_journal.notify()
        return n

    def raw(self, block: Block) -> None:
        """Copy rows 0..n into the backlog; without an open case, nothing."""
        case = self._case
        if case is None or case.backlog is None:
            return
        backlog = case.backlog
        if block.inputs != len(backlog.layout.labels):
            self._trouble("raw_layout", True, "Samples are not recorded: the amplifier's inputs changed",
                          f"{block.inputs} inputs came, {len(backlog.layout.labels)} were declared")  # fmt: skip
            return
        if "raw_layout" in self._troubles:
            self._trouble("raw_layout", False, "Samples are being recorded again")
        outside = backlog.outside_24_bit
        done = backlog.put(block)
        if done:
            self._raw.submit(case.writer, done)
        if backlog.shedding or "raw_shed" in self._troubles:
            self._trouble("raw_shed", backlog.shedding, "The disk is too slow: samples are not being recorded",
                          f"{backlog.shed_samples} samples")  # fmt: skip
        if backlog.outside_24_bit != outside:
            self._trouble("raw_value", True, "Counts outside 24 bits were recorded as the converter's end stop",
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
            sink = case.sink if case else (self._sinks[0] if self._sinks else None)
            return RecorderStats(
                case.case_id if case else None, sink.next_n - 1 if sink else 0, sink.pending if sink else 0,
                backlog.used * backlog.layout.record_ms / 1000 if backlog else 0.0,
                backlog.used * 1000 // backlog.slots if backlog else 0,
                self._shed_before + self._raw.shed_samples + (backlog.shed_samples if backlog else 0),
                self._bytes_before + (writer.bytes_written if writer else 0),
                self._raw.sync_last_ms, self._raw.sync_max_ms, self._commit_last_ms, self._commit_max_ms,
                self._suspects_before + (writer.suspects if writer else 0), tuple(sorted(self._troubles)),
            )  # fmt: skip

    # ------------------------------------------------------------ trouble

    def _trouble(self, code: str, active: bool, sentence: str, detail: str = "") -> None:
        """Tell a change of state once; callable from every thread."""
        with self._lock:
            if active == (code in self._troubles):
                return
            trouble = Trouble(code, active, sentence, detail)
            if active:
                self._troubles[code] = trouble
            else:
                del self._troubles[code]
        (log.error if active else log.info)("record_trouble", code=code, active=active, detail=detail)
        if self._on_trouble is not None:
            _call(self._on_trouble, trouble)

    # ------------------------------------------------------------ journal thread

    def _journal_loop(self) -> None:
        retry_at = 0.0
        while True:
            with self._lock:
                while True:
                    now = time.monotonic()
                    due = self._next_commit()
                    if self.stopping and (due is None or retry_at > now):
                        return
                    if due is not None:
                        due = max(due, retry_at)
                        if due <= now:
                            break
                    self._to_journal.wait(None if due is None else due - now)
                sinks = [sink for sink in self._sinks if sink.queue or sink.file.dirty]
                for sink in sinks:
                    sink.since, sink.urgent = None, False
            failed = False
            for sink in sinks:
                failed = not self._commit(sink) or failed
            retry_at = time.monotonic() + RETRY_S if failed else 0.0
            if not failed:
                self._trouble("disk_journal", False, "The journal is being written again")
            with self._lock:
                for sink in [s for s in self._sinks if s.closing and not s.pending]:
                    sink.file.close()
                    self._sinks.remove(sink)
                self._idle.notify_all()

    def _next_commit(self) -> float | None:
        """When the journal thread must act, or None; under the lock."""
        times = []
        for sink in self._sinks:
            if sink.file.dirty or (sink.urgent and sink.queue):
                times.append(0.0)
            elif sink.queue:
                times.append((sink.since or 0.0) + GROUP_COMMIT_S)
        return min(times, default=None)

    def _commit(self, sink: Sink) -> bool:
        while sink.queue or sink.file.dirty:
            begin = time.monotonic()
            try:
                n, due = sink.commit_batch()
            except OSError as error:
                self._trouble("disk_journal", True, "The record cannot be written: lines wait in memory", str(error))
                return False
            self._commit_last_ms = (time.monotonic() - begin) * 1000
            self._commit_max_ms = max(self._commit_max_ms, self._commit_last_ms)
            for number, on_durable in due:
                _call(on_durable, number)
            if self._on_committed is not None:
                _call(self._on_committed, sink.case_id, n)
        return True

    # ------------------------------------------------------------ the end of a case

    def _raw_ended(self, end: End) -> None:
        """Raw thread: all samples of a layout are on disk."""
        ticket: _Closing = end.ticket
        with self._lock:
            if end.writer is not None:
                self._bytes_before += end.writer.bytes_written
                self._suspects_before += end.writer.suspects
                end.writer.bytes_written = end.writer.suspects = 0
            if ticket.state is None:
                return
            data = canonical({"state": ticket.state})
            self._push(ticket.case.sink, "close", ticket.sample, data, ticket.durable)
            ticket.case.sink.closing = True
        self._digest.put(ticket.manifest)

    def _segment_finished(self, case: _Case, path: Path) -> None:
        def take_hash() -> None:
            case.hashes[path.name] = hash_file(path)

        self._digest.put(take_hash)

    def _digest_loop(self) -> None:
        """Hash finished segments and write manifests, at low priority: an hour of 64 inputs is 28 GB."""
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
        while (job := self._digest.get()) is not None:
            try:
                job()
            except OSError as error:
                self._trouble("disk_manifest", True, "The manifest of a case cannot be written", str(error))
            self._digest.task_done()
        self._digest.task_done()

    def _recover_all(self, left_over: list[str]) -> None:
        """After the start: what an interrupted daemon left is made readable."""
        for name in left_over:
            case_dir = self.state_dir / "cases" / name
            with self._repair_lock:
                if name not in self._resumed and case_dir.is_dir() and not is_closed(case_dir):
                    result = repair(self.files, case_dir, mark_ns=self.now_ns())
                    log.warning("case_interrupted", case_id=case_dir.name, actions=result.actions)


class _Closing:
    """What remains to do when the last sample of a case is on disk; `state` None: only a layout ended."""

    def __init__(
        self, recorder: Recorder, case: _Case, state: str | None = None, sample: int = 0,
        on_durable: Durable | None = None, on_closed: Callable[[Path], None] | None = None,
    ) -> None:  # fmt: skip
        self.recorder = recorder
        self.case = case
        self.state = state
        self.sample = sample
        self.on_durable = on_durable
        self.on_closed = on_closed
        self._lines = 0
        self._safe = threading.Event()

    def durable(self, n: int) -> None:
        self._lines = n
        self._safe.set()
        if self.on_durable is not None:
            self.on_durable(n)

    def manifest(self) -> None:
        """Digest thread: waits for the `close` line, because its hash is the chain's head."""
        while not self._safe.wait(0.2):
            if self.recorder.stopping:
                return  # verify and recover do without a manifest
        case = self.case
        write_manifest(self.recorder.files, case.dir, str(self.state), self._lines, case.sink.file.last_hash,
                       self.recorder.now_ns(), case.hashes)  # fmt: skip
        if self.on_closed is not None:
            _call(self.on_closed, case.dir)


class _MakingFiles:
    """Files that make the case's directory when it is not there (yet, or any more)."""

    def __init__(self, files: Files, directory: Path) -> None:
        self._files = files
        self._directory = directory
        self.pwrite, self.fsync, self.ftruncate = files.pwrite, files.fsync, files.ftruncate
        self.rename, self.dirsync = files.rename, files.dirsync

    def open(self, path: Path, flags: int) -> int:
        make_dirs(self._files, self._directory)
        return self._files.open(path, flags)


def check_case_id(case_id: str) -> None:
    """Refuse what could leave the cases directory or hide in it."""
    if not _CASE_ID.match(case_id):
        raise StorageError(
            f"case id {case_id!r}: 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit, were expected"
        )


def _call(function: Callable[..., None], *args: object) -> None:
    """A listener's mistake must not stop the record."""
    try:
        function(*args)
    except Exception:
        log.exception("recorder_callback_failed", callback=getattr(function, "__qualname__", repr(function)))

