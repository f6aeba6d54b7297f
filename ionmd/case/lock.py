"""One writer per state directory: an advisory lock that dies with its process."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ionmd.case.files import DIR_MODE, FILE_MODE
from ionmd.errors import StorageError


class StateLock:
    """Holds `<state-dir>/lock` by flock until `release`; a killed holder leaves no obstacle.

    Raises StorageError when another process holds it or the directory cannot be made."""

    def __init__(self, state_dir: Path) -> None:
        path = state_dir / "lock"
        try:
            state_dir.mkdir(mode=DIR_MODE, parents=True, exist_ok=True)
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        except OSError as error:
            raise StorageError(
                f"state directory {state_dir}: {error.strerror}; a writable directory was expected: "
                "choose one with --state-dir, or correct its owner and mode"
            ) from error
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._fd)
            self._fd = -1
            raise StorageError(
                f"state directory {state_dir} is in use by another ionmd (process {holder}): "
                "stop it first, or give this one its own --state-dir"
            ) from error
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Safe twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
