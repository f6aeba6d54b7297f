"""The thread that commits journal lines: within GROUP_COMMIT_S, at once when somebody waits for one.

In: lines by `push`, from any thread.  Out: files; the callbacks of lines that are on disk.  OSError never leaves: lines
wait in memory without limit and so do their callbacks, the same commit is tried again every RETRY_S, and `disk_journal`
is told when that starts and stops.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from ionmd.case.journal import head_of
from ionmd.case.rawthread import RETRY_S
from ionmd.case.sink import Durable, Sink
from ionmd.case.troubles import Troubles, call

GROUP_COMMIT_S = 0.05


class JournalThread:
    """The journals that are open; the first is the system's."""

    def __init__(
        self, troubles: Troubles, on_committed: Callable[[str, int], None] | None, now_ns: Callable[[], int]
    ) -> None:
        self._troubles = troubles
        self._on_committed = on_committed
        self._now_ns = now_ns
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._idle = threading.Condition(self._lock)
        self._sinks: list[Sink] = []
        self._stopping = False
        self.commit_last_ms = 0.0
        self.commit_max_ms = 0.0
        self._thread = threading.Thread(target=self._loop, name="ionmd-journal", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def add(self, sink: Sink) -> None:
        with self._lock:
            self._sinks.append(sink)

    def push(self, sink: Sink, kind: str, sample: int, data: bytes, on_durable: Durable | None = None) -> int:
        """One line, `data` is canonical JSON; its number at once, on_durable(n) when it is on disk."""
        with self._lock:
            return self._push(sink, kind, sample, data, on_durable)

    def last(self, sink: Sink, kind: str, sample: int, data: bytes, on_durable: Durable | None) -> None:
        """The last line of a journal, which is closed when it is on disk."""
        with self._lock:
            self._push(sink, kind, sample, data, on_durable)
            sink.closing = True

    def _push(self, sink: Sink, kind: str, sample: int, data: bytes, on_durable: Durable | None) -> int:
        ns = self._now_ns()
        n = sink.push(lambda n: head_of(n, kind, sample, ns, data), time.monotonic(), on_durable)
        if on_durable is not None or len(sink.queue) == 1:
            self._work.notify()
        return n

    def drain(self, deadline: float) -> bool:
        """Wait until every line is on disk; False at monotonic `deadline`."""
        with self._lock:
            for sink in self._sinks:
                sink.urgent = True
            self._work.notify_all()
            while any(sink.pending for sink in self._sinks):
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._idle.wait(left)
        return True

    def stop(self, timeout_s: float) -> None:
        with self._lock:
            self._stopping = True
            self._work.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        for sink in self._sinks:
            sink.file.close()

    def _loop(self) -> None:
        retry_at = 0.0
        while True:
            with self._lock:
                while True:
                    now = time.monotonic()
                    due = self._due()
                    if self._stopping and (due is None or retry_at > now):
                        return
                    if due is not None:
                        due = max(due, retry_at)
                        if due <= now:
                            break
                    self._work.wait(None if due is None else due - now)
                sinks = [sink for sink in self._sinks if sink.queue or sink.file.dirty]
                for sink in sinks:
                    sink.since, sink.urgent = None, False
            failed = False
            for sink in sinks:
                failed = not self._commit(sink) or failed
            retry_at = time.monotonic() + RETRY_S if failed else 0.0
            if not failed:
                self._troubles.tell("disk_journal", False, "The journal is being written again")
            with self._lock:
                for sink in [s for s in self._sinks if s.closing and not s.pending]:
                    sink.file.close()
                    self._sinks.remove(sink)
                self._idle.notify_all()

    def _due(self) -> float | None:
        """When there is something to do, or None; under the lock."""
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
                self._troubles.tell(
                    "disk_journal", True, "The record cannot be written: lines wait in memory", str(error)
                )
                return False
            self.commit_last_ms = (time.monotonic() - begin) * 1000
            self.commit_max_ms = max(self.commit_max_ms, self.commit_last_ms)
            for number, on_durable in due:
                call(on_durable, number)
            if self._on_committed is not None:
                call(self._on_committed, sink.case_id, n)
        return True
