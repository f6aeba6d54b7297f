"""The six calls by which the record reaches the disk, so that tests can break each of them.

open, pwrite, fsync, ftruncate, rename, dirsync.  Everything that changes a file of the record goes through
one `Files` object; reading does not.  Directories are 0700, files 0600.  All calls raise OSError, nothing
else.  EINTR is repeated by Python itself (PEP 475), a short write by `write_all`; nothing else is repeated
here, because a failed fsync may have dropped the data it was asked to keep: the caller writes it again
from memory.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Protocol

DIR_MODE = 0o700
FILE_MODE = 0o600
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


class Files(Protocol):
    def open(self, path: Path, flags: int) -> int: ...
    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int: ...
    def fsync(self, fd: int) -> None: ...
    def ftruncate(self, fd: int, length: int) -> None: ...
    def rename(self, source: Path, target: Path) -> None: ...
    def dirsync(self, path: Path) -> None: ...


class OsFiles:
    """The real disk."""

    def open(self, path: Path, flags: int) -> int:
        # O_NOFOLLOW: a link planted in the state directory must not redirect the record
        return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        return os.pwrite(fd, data, offset)

    def fsync(self, fd: int) -> None:
        os.fdatasync(fd)

    def ftruncate(self, fd: int, length: int) -> None:
        os.ftruncate(fd, length)

    def rename(self, source: Path, target: Path) -> None:
        os.replace(source, target)  # noqa: PTH105 - one spelling for all six calls

    def dirsync(self, path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_all(files: Files, fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`; a short write goes on where it stopped."""
    view = memoryview(data)
    while view:
        done = files.pwrite(fd, view, offset)
        if done <= 0:
            raise OSError(5, "pwrite wrote nothing")
        view = view[done:]
        offset += done


def write_atomic(files: Files, path: Path, data: bytes) -> None:
    """Old content or new content, never half: temporary file, sync, rename, directory sync."""
    temporary = path.with_name(path.name + ".tmp")
    fd = files.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        write_all(files, fd, data, 0)
        files.fsync(fd)
    finally:
        os.close(fd)
    files.rename(temporary, path)
    files.dirsync(path.parent)


def make_dirs(files: Files, path: Path) -> None:
    """`path` and its missing parents, each synced into the directory above it."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        path = path.parent
    for directory in reversed(missing):
        directory.mkdir(mode=DIR_MODE, exist_ok=True)
        files.dirsync(directory.parent)


def free_bytes(path: Path) -> int:
    stat = os.statvfs(path)
    return stat.f_bavail * stat.f_frsize


def same_file(fd: int, path: Path) -> bool:
    """The open file is still the one that `path` names."""
    mine = os.fstat(fd)
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino)


def kernel_boot() -> str:
    """Identity of this run of the kernel.  While it lasts, what was written is there even if it was not synced."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
