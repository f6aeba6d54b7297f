"""The disk with a clock beside it: is somebody waiting for it, and for how long.

In: the six calls.  Out: the same calls, and `waiting_s`.  A thread inside a call is not stuck, it waits; the daemon
says so with an alarm and keeps what comes in memory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ionmd.case.files import Files


class TimedFiles:
    """Wraps any Files.  Looked at from other threads: a dict of one entry a thread is enough."""

    def __init__(self, files: Files, now_s: Callable[[], float] = time.monotonic) -> None:
        self._files, self.now_s = files, now_s
        self._inside: dict[str, float] = {}  # thread name -> since when

    def waiting_s(self, thread: str = "") -> float:
        """How long that thread (any: the longest) has been inside a call; 0 when it is not."""
        since = [at for name, at in list(self._inside.items()) if not thread or name == thread]
        return max((self.now_s() - at for at in since), default=0.0)

    def inside(self, thread: str) -> bool:
        return thread in self._inside

    @contextmanager
    def _timed(self) -> Iterator[None]:
        name = threading.current_thread().name
        self._inside[name] = self.now_s()
        try:
            yield
        finally:
            self._inside.pop(name, None)

    def open(self, path: Path, flags: int) -> int:
        with self._timed():
            return self._files.open(path, flags)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        with self._timed():
            return self._files.pwrite(fd, data, offset)

    def fsync(self, fd: int) -> None:
        with self._timed():
            self._files.fsync(fd)

    def ftruncate(self, fd: int, length: int) -> None:
        with self._timed():
            self._files.ftruncate(fd, length)

    def rename(self, source: Path, target: Path) -> None:
        with self._timed():
            self._files.rename(source, target)

    def dirsync(self, path: Path) -> None:
        with self._timed():
            self._files.dirsync(path)
