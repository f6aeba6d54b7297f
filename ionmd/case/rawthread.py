"""The thread that writes and syncs raw samples, in the order in which they were handed over.

In: (writer, Record) and (writer, End) by `submit`.  Out: RawWriter calls; `ended(writer, end)` when all
before an End is on disk.  OSError never leaves: the same work is done again every RETRY_S, and `trouble`
is told when that starts and stops.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from ionmd.case.backlog import Record
from ionmd.case.files import NO_SPACE
from ionmd.case.recording import RawWriter

RETRY_S = 0.25
TroubleCall = Callable[[str, bool, str, str], None]


@dataclass(frozen=True)
class End:
    """Follows the last record of a writer; `ticket` is the caller's."""

    writer: RawWriter | None
    ticket: Any


class RawThread:
    def __init__(
        self, sync_s: float, free_bytes: Callable[[], int], reserve_bytes: int, trouble: TroubleCall,
        ended: Callable[[End], None],
    ) -> None:  # fmt: skip
        self._sync_s = sync_s
        self._free_bytes = free_bytes
        self._reserve = reserve_bytes
        self._trouble = trouble
        self._ended = ended
        self._change = threading.Condition()
        self._ready: deque[tuple[RawWriter | None, Record | End]] = deque()
        self._work: deque[tuple[RawWriter | None, Record | End]] = deque()
        self._writer: RawWriter | None = None
        self._busy = False
        self._hurry = False
        self._stopping = False
        self._synced_at = time.monotonic()
        self.shed_samples = 0
        self.sync_last_ms = 0.0
        self.sync_max_ms = 0.0
        self._thread = threading.Thread(target=self._loop, name="ionmd-raw", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, writer: RawWriter | None, items: Iterable[Record | End]) -> None:
        with self._change:
            self._ready.extend((writer, item) for item in items)
            self._change.notify_all()

    def drain(self, deadline: float) -> bool:
        """Wait until everything is synced; False at monotonic `deadline`."""
        with self._change:
            self._hurry = True
            self._change.notify_all()
            while self._busy or self._ready:
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._change.wait(left)
            self._hurry = False
            return not (self._busy or self._ready)

    def wait_progress(self, timeout_s: float) -> None:
        with self._change:
            self._change.wait(timeout_s)

    def stop(self, timeout_s: float) -> None:
        with self._change:
            self._stopping = True
            self._change.notify_all()
        self._thread.join(timeout_s)

    def _loop(self) -> None:
        retry_at = 0.0
        while True:
            with self._change:
                unsynced = self._writer is not None and not self._writer.idle
                self._busy = bool(self._work) or unsynced
                self._change.notify_all()
                while not (self._ready and not retry_at) and not self._stopping:
                    due = self._due(retry_at)
                    now = time.monotonic()
                    if due is not None and due <= now:
                        break
                    self._change.wait(None if due is None else due - now)
                self._work.extend(self._ready)
                self._ready.clear()
                self._busy = bool(self._work) or unsynced
                if self._stopping and (retry_at or not self._busy):
                    break
                if self._stopping:
                    self._hurry = True
            try:
                self._step()
                retry_at = 0.0
                self._trouble("disk_raw", False, "Samples are being recorded again", "")
            except OSError as error:
                retry_at = time.monotonic() + RETRY_S
                words = "The disk is full" if error.errno in NO_SPACE else "Samples cannot be written"
                self._trouble("disk_raw", True, f"{words}: samples wait in memory", str(error))
        if self._writer is not None:
            self._writer.abandon()

    def _due(self, retry_at: float) -> float | None:
        if not self._busy:
            return None
        if retry_at:
            return retry_at
        return 0.0 if self._work or self._hurry else self._synced_at + self._sync_s

    def _step(self) -> None:
        """Write and sync what is due; after OSError everything not yet done is still here."""
        room = self._has_room()
        while self._work:
            writer, item = self._work[0]
            if isinstance(item, End):
                if writer is not None:
                    if room:
                        writer.pump()
                    else:
                        self.shed_samples += writer.shed()
                    writer.finish()
                self._writer = None
                self._work.popleft()
                self._ended(item)
            elif writer is not None:
                self._writer = writer
                self._work.popleft()
                writer.todo.append(item)
                if room:
                    writer.pump()
                    if writer.backlog.used * 2 > writer.backlog.slots:  # catching up: memory is needed back
                        self._sync(writer)
        if self._writer is not None:
            if not room:
                raise OSError(NO_SPACE[0], "the rest of the disk is kept for the journal")
            self._writer.pump()
            if self._hurry or time.monotonic() - self._synced_at >= self._sync_s:
                self._sync(self._writer)

    def _sync(self, writer: RawWriter) -> None:
        begin = time.monotonic()
        writer.sync()
        self._synced_at = time.monotonic()
        self.sync_last_ms = (self._synced_at - begin) * 1000
        self.sync_max_ms = max(self.sync_max_ms, self.sync_last_ms)
        with self._change:
            self._change.notify_all()

    def _has_room(self) -> bool:
        """Leave the last of the disk to the journal."""
        try:
            free = self._free_bytes()
        except OSError:
            return True
        low = free < self._reserve
        self._trouble(
            "disk_space", low, "The disk is nearly full: samples are no longer recorded, events still are",
            f"{free >> 20} MiB free, {self._reserve >> 20} MiB are kept for the journal",
        )  # fmt: skip
        return not low
