"""Disks that fail: behind the recorder's six calls, over a real directory."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import numpy as np

from ionmd.case.files import OsFiles

SECTOR = 512


class FailingFiles(OsFiles):
    """The nth counted call (from 1) fails `times` times with `code`; a failing pwrite may write half first."""

    def __init__(self, nth: int, code: int = errno.EIO, times: int = 1, calls: str = "", torn: bool = False) -> None:
        self.nth, self.code, self.times, self.calls, self.torn = nth, code, times, calls.split(), torn
        self.count = 0
        self.fired = 0
        self._lock = threading.Lock()

    def _step(self, call: str) -> bool:
        with self._lock:
            if self.calls and call not in self.calls:
                return False
            self.count += 1
            if self.count >= self.nth and self.fired < self.times:
                self.fired += 1
                return True
            return False

    def _fail(self, call: str) -> None:
        if self._step(call):
            raise OSError(self.code, os.strerror(self.code))

    def open(self, path, flags):
        self._fail("open")
        return super().open(path, flags)

    def pwrite(self, fd, data, offset):
        if self._step("pwrite"):
            if self.torn and len(data) > 1:
                super().pwrite(fd, bytes(data)[: len(data) // 2], offset)
            raise OSError(self.code, os.strerror(self.code))
        return super().pwrite(fd, data, offset)

    def fsync(self, fd):
        self._fail("fsync")
        super().fsync(fd)

    def ftruncate(self, fd, length):
        self._fail("ftruncate")
        super().ftruncate(fd, length)

    def rename(self, source, target):
        self._fail("rename")
        super().rename(source, target)

    def dirsync(self, path):
        self._fail("dirsync")
        super().dirsync(path)


class LyingDisk(OsFiles):
    """Remembers what was not synced; `cut` takes the power away: of each unsynced write a random subset of sectors
    survives, in any order.  A file whose directory was never synced keeps its content (the harder case is
    covered by `forget_new`)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._undo: dict[Path, list[tuple[int, bytes, int, int]]] = {}  # (offset, old bytes, new length, old size)
        self._names: dict[int, Path] = {}
        self.dead = False
        self.calls = 0
        self.die_at = 0

    def _alive(self) -> None:
        self.calls += 1
        if self.die_at and self.calls >= self.die_at:
            self.dead = True
        if self.dead:
            raise OSError(errno.EIO, "no power")

    def open(self, path, flags):
        with self._lock:
            self._alive()
            fd = super().open(path, flags)
            self._names[fd] = Path(path)
            return fd

    def pwrite(self, fd, data, offset):
        with self._lock:
            self._alive()
            size = os.fstat(fd).st_size
            with self._names[fd].open("rb") as old_file:
                old_file.seek(offset)
                old = old_file.read(len(data))
            self._undo.setdefault(self._names[fd], []).append((offset, old, len(data), size))
            return super().pwrite(fd, data, offset)

    def fsync(self, fd):
        with self._lock:
            self._alive()
            self._undo.pop(self._names[fd], None)

    def ftruncate(self, fd, length):
        with self._lock:
            self._alive()
            super().ftruncate(fd, length)

    def rename(self, source, target):
        with self._lock:
            self._alive()
            super().rename(source, target)
            self._undo.pop(Path(target), None)

    def dirsync(self, path):
        with self._lock:
            self._alive()

    def cut(self, rng: np.random.Generator) -> None:
        with self._lock:
            self.dead = True
            for path, writes in self._undo.items():
                if not path.exists():
                    continue
                with path.open("r+b") as file:
                    for offset, old, length, size in reversed(writes):
                        for at in range(0, length, SECTOR):
                            if rng.random() < 0.5:
                                end = min(at + SECTOR, length)
                                file.seek(offset + at)
                                file.write(old[at:end].ljust(end - at, b"\0"))
                        if rng.random() < 0.3:
                            file.truncate(max(size, offset + int(rng.integers(0, length + 1))))
            self._undo.clear()
