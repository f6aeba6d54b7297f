"""manifest.json: what a closed case consists of, so that a copy can be checked by anyone.

    {"case_id", "state", "created_utc", "ionmd", "journal": {"lines", "head"}, "files": {name: {"bytes", "sha256"}}}
`state` is how the case was closed.  index.sqlite is derived and not listed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from ionmd import __version__
from ionmd.case.files import Files, write_atomic
from ionmd.case.journal import JOURNAL, t_utc

MANIFEST = "manifest.json"


class FileEntry(msgspec.Struct, frozen=True):
    bytes: int
    sha256: str


class JournalEntry(msgspec.Struct, frozen=True):
    lines: int
    head: str


class Manifest(msgspec.Struct, frozen=True):
    case_id: str
    state: str
    created_utc: str
    ionmd: str
    journal: JournalEntry
    files: dict[str, FileEntry]


def hash_file(path: Path) -> FileEntry:
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
        return FileEntry(stream.tell(), digest.hexdigest())


def case_files(case_dir: Path) -> list[Path]:
    """What a manifest lists: the journal, what was cut from it, and the raw segments."""
    return sorted([*case_dir.glob(JOURNAL), *case_dir.glob("journal.cut-*"), *case_dir.glob("raw-*.bdf")])


def write_manifest(
    files: Files, case_dir: Path, state: str, lines: int, head: str, now_ns: int,
    known: dict[str, FileEntry] | None = None,
) -> Manifest:  # fmt: skip
    """`known`: hashes of segments that were taken when they were finished."""
    entries = {path.name: (known or {}).get(path.name) or hash_file(path) for path in case_files(case_dir)}
    manifest = Manifest(case_dir.name, state, t_utc(now_ns), __version__, JournalEntry(lines, head), entries)
    text = msgspec.json.format(msgspec.json.encode(manifest, order="sorted"), indent=1)
    write_atomic(files, case_dir / MANIFEST, text + b"\n")
    return manifest


def read_manifest(case_dir: Path) -> Manifest | None:
    """None when there is none; msgspec.DecodeError (a ValueError) when it is damaged."""
    try:
        raw = (case_dir / MANIFEST).read_bytes()
    except FileNotFoundError:
        return None
    return msgspec.json.decode(raw, type=Manifest)


