"""index.sqlite: what a case's journal says, as tables to look things up in.  Derived from the journal alone.

In: a case directory.  Out: an Index whose content belongs to the journal as it is now.  Always: deleting or damaging
it loses nothing; it is read on from where it ended while the journal grows, and made anew when it does not fit the
journal or is no sound database.  Where the directory cannot be written, or another process is writing the index, it
is made in memory for this one look.  It is not part of the record: no manifest lists it, `verify` never asks it.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from types import TracebackType
from typing import Any

from ionmd.case.files import FILE_MODE
from ionmd.case.index_tables import SCHEMA, VERSION, Rows
from ionmd.case.journal import JOURNAL, NO_HASH, Scan, parse, read_lines
from ionmd.errors import StorageError

INDEX = "index.sqlite"
_TAIL_BYTES = 1 << 16


class Index:
    """Open for reading; `sql` may be asked anything.  A context manager."""

    def __init__(self, sql: sqlite3.Connection, in_memory: bool) -> None:
        self.sql = sql
        self.in_memory = in_memory

    def __enter__(self) -> Index:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.sql.close()

    def facts(self) -> dict[str, Any]:
        """Header, state and how far the journal was read (the rows of `meta`, docs/record.md)."""
        return dict(self.sql.execute("SELECT key, value FROM meta").fetchall())

    def kinds(self) -> dict[str, int]:
        return dict(self.sql.execute("SELECT kind, lines FROM kinds ORDER BY kind").fetchall())

    def rows(self, table: str) -> list[dict[str, Any]]:
        """All rows of a table of SCHEMA, in the order of its first columns: that of the journal, or by key."""
        if table not in SCHEMA:
            raise ValueError(f"table {table!r} came; {', '.join(SCHEMA)} are there")
        found = self.sql.execute(f"SELECT * FROM {table} ORDER BY 1, 2, rowid")  # noqa: S608 - a name of SCHEMA
        names = [d[0] for d in found.description]
        return [dict(zip(names, row, strict=True)) for row in found]


def open_index(case_dir: Path) -> Index:
    """The index of a case, brought up to its journal.  OSError when there is none, StorageError for a forged one."""
    size = (case_dir / JOURNAL).stat().st_size
    path = case_dir / INDEX
    for attempt in range(2):
        sql = None
        try:
            sql = _connect(path)
            _follow(sql, case_dir, size)
            return Index(sql, in_memory=False)
        except (sqlite3.Error, OSError) as error:
            if sql is not None:
                sql.close()
            if attempt or isinstance(error, OSError) or _busy(error) or not _removed(path):
                break
    sql = sqlite3.connect(":memory:", isolation_level=None)
    try:
        _follow(sql, case_dir, size)
    except sqlite3.Error as error:
        sql.close()
        raise StorageError(f"{case_dir / JOURNAL}: no index can be made of it: {error}") from error
    return Index(sql, in_memory=True)


def _connect(path: Path) -> sqlite3.Connection:
    if path.is_symlink():
        path.unlink()  # a link planted here must not be followed
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE))
    sql = sqlite3.connect(path, timeout=1.0, isolation_level=None)
    try:
        sql.execute("PRAGMA journal_mode = WAL")
        sql.execute("PRAGMA synchronous = NORMAL")
        sound = sql.execute("PRAGMA quick_check(1)").fetchone()
        if sound != ("ok",):
            raise sqlite3.DatabaseError(f"{path}: {sound}")
    except BaseException:
        sql.close()
        raise
    return sql


def _busy(error: BaseException) -> bool:
    return isinstance(error, sqlite3.OperationalError) and "locked" in str(error)


def _removed(path: Path) -> bool:
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        with contextlib.suppress(FileNotFoundError):
            try:
                path.with_name(name).unlink()
            except PermissionError:
                return False
    return True


def _follow(sql: sqlite3.Connection, case_dir: Path, size: int) -> None:
    """Read the journal on from where the index ends; from its beginning when the index is of another one."""
    scan = _point(sql, case_dir)
    if scan is not None and scan.good_bytes == size:
        return
    sql.execute("BEGIN IMMEDIATE")
    try:
        scan = _point(sql, case_dir)  # another process may have been faster
        if scan is None:
            scan = Scan(case_dir / JOURNAL)
            for (name,) in sql.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                sql.execute(f'DROP TABLE "{name}"')
            for table, columns in SCHEMA.items():
                sql.execute(f"CREATE TABLE {table} ({columns})")
        rows = Rows(sql)
        for line in read_lines(scan.path, scan):
            rows.put(line)
        rows.finish(
            index_version=VERSION, case_id=case_dir.name, lines=scan.last_n, head=scan.last_hash,
            journal_bytes=-1 if scan.findings else scan.good_bytes, damaged_lines=len(scan.findings),
            last_sample=scan.last_sample,
        )
        sql.execute("COMMIT")
    except BaseException:
        sql.execute("ROLLBACK")
        raise


def _point(sql: sqlite3.Connection, case_dir: Path) -> Scan | None:
    """How far the index has read this journal; None when it is of another journal, of another version or empty."""
    try:
        facts = dict(sql.execute("SELECT key, value FROM meta").fetchall())
    except sqlite3.OperationalError as error:
        if _busy(error):
            raise
        return None
    end = facts.get("journal_bytes", -1)
    if facts.get("index_version") != VERSION or not isinstance(end, int) or end < 0:
        return None
    path = case_dir / JOURNAL
    if _hash_before(path, end) != facts.get("head"):
        return None
    return Scan(path, lines=facts["lines"], last_n=facts["lines"], last_hash=facts["head"],
                last_sample=facts["last_sample"], good_bytes=end)  # fmt: skip


def _hash_before(path: Path, end: int) -> str:
    """Hash of the line that ends at byte `end`; its neighbours are taken to be those that were read before."""
    if end == 0:
        return NO_HASH
    with path.open("rb") as stream:
        reach = _TAIL_BYTES
        while True:
            stream.seek(max(0, end - reach))
            tail = stream.read(min(reach, end))
            if len(tail) != min(reach, end) or not tail.endswith(b"\n"):
                return ""
            start = tail.rfind(b"\n", 0, -1) + 1
            if start or reach >= end:
                line, _ = parse(tail[start:-1])
                return line.hash if line is not None else ""
            reach *= 16
