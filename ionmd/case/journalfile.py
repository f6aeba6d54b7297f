"""The writing end of one journal, and what it does when the disk fails or the file is taken away."""

from __future__ import annotations

import os
from pathlib import Path

from ionmd.case.files import NO_SPACE, Files, same_file, write_all
from ionmd.case.journal import NO_HASH, link

_CHUNK = 1 << 20


class JournalFile:
    """Used by one thread.

    `add` chains heads in memory, `commit` writes and syncs all that is not yet safe.  After a failed call
    everything unsynced is kept and written again at the same offset by the next commit, through a freshly
    opened descriptor: after a failed fsync the kernel may have dropped the pages and called them clean.
    """

    def __init__(self, files: Files, path: Path, last_n: int = 0, last_hash: str = NO_HASH, size: int = 0) -> None:
        self.files = files
        self.path = path
        self.committed_n = last_n
        self.last_hash = last_hash
        self.offset = size  # everything before it is on disk
        self._added_n = last_n
        self._unsynced: list[bytes] = []
        self._fd = -1

    @property
    def dirty(self) -> bool:
        return bool(self._unsynced)

    def add(self, n: int, head: bytes) -> None:
        line, self.last_hash = link(head, self.last_hash)
        self._unsynced.append(line)
        self._added_n = n

    def commit(self) -> None:
        """Raises OSError; then nothing more than before counts as committed."""
        if not self._unsynced:
            return
        data = b"".join(self._unsynced)
        try:
            if self._fd >= 0 and not same_file(self._fd, self.path):
                self._restore()
            if self._fd < 0:
                self._open()
            write_all(self.files, self._fd, data, self.offset)
            self.files.fsync(self._fd)
        except OSError as error:
            if error.errno not in NO_SPACE:
                self.close()
            raise
        self.offset += len(data)
        self._unsynced.clear()
        self.committed_n = self._added_n

    def _open(self) -> None:
        fd = self.files.open(self.path, os.O_RDWR | os.O_CREAT)
        try:
            size = os.fstat(fd).st_size
            if size < self.offset:
                raise OSError(5, f"{size} bytes are there, {self.offset} were written and synced", str(self.path))
            if size > self.offset:  # leftovers of a failed write
                self.files.ftruncate(fd, self.offset)
            self.files.dirsync(self.path.parent)
        except OSError:
            os.close(fd)
            raise
        self._fd = fd

    def _restore(self) -> None:
        """The journal was removed or renamed under us; the open descriptor still has it: write it back."""
        copy = self.path.with_name(self.path.name + ".tmp")
        fd = self.files.open(copy, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            at = 0
            while at < self.offset:
                chunk = os.pread(self._fd, min(_CHUNK, self.offset - at), at)
                if not chunk:
                    raise OSError(5, "the removed journal cannot be read back", str(self.path))
                write_all(self.files, fd, chunk, at)
                at += len(chunk)
            self.files.fsync(fd)
            self.files.rename(copy, self.path)
            self.files.dirsync(self.path.parent)
        except OSError:
            os.close(fd)
            raise
        os.close(self._fd)
        self._fd = fd

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
