"""One journal and the lines on their way into it.

Lines get their number when they are handed in and are never dropped; they wait in memory while the disk
is out of order.  `push` belongs to the caller's lock, everything else to the journal thread.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ionmd.case.journalfile import JournalFile

BATCH_BYTES = 1 << 18  # written and synced at once; repair.CUT_LIMIT must stay above it

Durable = Callable[[int], None]


class Sink:
    def __init__(self, case_id: str, file: JournalFile) -> None:
        self.case_id = case_id
        self.file = file
        self.next_n = file.committed_n + 1
        self.queue: deque[tuple[int, bytes, Durable | None]] = deque()
        self.since: float | None = None  # when the oldest waiting line came
        self.urgent = False
        self.closing = False
        self._waiting: deque[tuple[int, Durable]] = deque()

    @property
    def pending(self) -> int:
        return self.next_n - 1 - self.file.committed_n

    def push(self, head: Callable[[int], bytes], now: float, on_durable: Durable | None) -> int:
        n = self.next_n
        self.queue.append((n, head(n), on_durable))
        self.next_n = n + 1
        if self.since is None:
            self.since = now
        self.urgent = self.urgent or on_durable is not None
        return n

    def commit_batch(self) -> tuple[int, list[tuple[int, Durable]]]:
        """Write and sync up to BATCH_BYTES: (last committed n, callbacks that are due).  OSError: call again."""
        size = BATCH_BYTES if self.file.dirty else 0  # a batch that failed goes first, unchanged
        while self.queue and size < BATCH_BYTES:
            n, head, on_durable = self.queue.popleft()
            self.file.add(n, head)
            size += len(head) + 200
            if on_durable is not None:
                self._waiting.append((n, on_durable))
        self.file.commit()
        due = []
        while self._waiting and self._waiting[0][0] <= self.file.committed_n:
            due.append(self._waiting.popleft())
        return self.file.committed_n, due
