"""The case that is being recorded, and what remains to be done when it ends."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from pathlib import Path

from ionmd.case.backlog import Backlog
from ionmd.case.digest import DigestThread
from ionmd.case.files import Files, make_dirs
from ionmd.case.index import open_index
from ionmd.case.manifest import FileEntry, hash_file, write_manifest
from ionmd.case.recording import Numbering, RawWriter
from ionmd.case.sink import Durable, Sink
from ionmd.case.troubles import call
from ionmd.errors import StorageError

_CASE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")


def check_case_id(case_id: str) -> None:
    """Refuse what could leave the cases directory or hide in it."""
    if not _CASE_ID.match(case_id):
        raise StorageError(
            f"case id {case_id!r}: 1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit, were expected"
        )


class OpenCase:
    """The open case as the threads see it; without a layout (no amplifier yet) there is no backlog and no writer."""

    def __init__(self, case_id: str, case_dir: Path, sink: Sink, numbering: Numbering) -> None:
        self.case_id = case_id
        self.dir = case_dir
        self.sink = sink
        self.numbering = numbering
        self.backlog: Backlog | None = None
        self.writer: RawWriter | None = None
        self.hashes: dict[str, FileEntry] = {}

    def take_hash(self, path: Path) -> None:
        """Digest thread: a segment has its final content."""
        self.hashes[path.name] = hash_file(path)


class Ending:
    """What follows the last sample of a layout; `state` None: only a layout ended, the case goes on."""

    def __init__(
        self, case: OpenCase, state: str | None = None, sample: int = 0, on_durable: Durable | None = None,
        on_closed: Callable[[Path], None] | None = None,
    ) -> None:  # fmt: skip
        self.case = case
        self.state = state
        self.sample = sample
        self._on_durable = on_durable
        self._on_closed = on_closed
        self._lines = 0
        self._safe = threading.Event()

    def durable(self, n: int) -> None:
        """The `close` line is on disk."""
        self._lines = n
        self._safe.set()
        if self._on_durable is not None:
            self._on_durable(n)

    def finish(self, digest: DigestThread, files: Files, now_ns: Callable[[], int]) -> None:
        """Digest thread: manifest and index; waits for the `close` line, because its hash is the chain's head."""
        while not self._safe.wait(0.2):
            if digest.stopping:
                return  # verify and recover do without a manifest
        case = self.case
        write_manifest(files, case.dir, str(self.state), self._lines, case.sink.file.last_hash, now_ns(), case.hashes)
        if self._on_closed is not None:
            call(self._on_closed, case.dir)
        open_index(case.dir).close()


class MakingFiles:
    """Files that make the case's directory when it is not there (yet, or any more)."""

    def __init__(self, files: Files, directory: Path) -> None:
        self._files = files
        self._directory = directory
        self.pwrite, self.fsync, self.ftruncate = files.pwrite, files.fsync, files.ftruncate
        self.rename, self.dirsync = files.rename, files.dirsync

    def open(self, path: Path, flags: int) -> int:
        make_dirs(self._files, self._directory)
        return self._files.open(path, flags)
