"""journal.jsonl: one event per line, each line holding the hash of the one before.

A line is canonical JSON (sorted keys inside `data`, no spaces, UTF-8):
    {"n":7,"kind":"event","sample":120000,"t_utc":"...Z","data":{...},"prev":"<hash of line 6>","hash":"<...>"}
`hash` is SHA-256 over the bytes of the line before `,"hash"`, so `prev` is inside it: an edited, deleted or
moved line breaks the chain at that line.  The first line's `prev` is 64 zeros.  `n` counts from 1.
Always: a line is written only after every earlier line, and a line without its newline does not exist.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

JOURNAL = "journal.jsonl"
NO_HASH = "0" * 64
_TAIL = re.compile(rb',"prev":"([0-9a-f]{64})","hash":"([0-9a-f]{64})"\}\Z')
_KIND = re.compile(r"[a-z][a-z0-9_]*\Z")
_HASH_BYTES = len(',"hash":"') + 64 + len('"}')
_CHUNK = 1 << 20
MAX_LINE = 64 << 20  # longer "lines" are damage, not events


def _plain(value: object) -> object:
    """numpy scalars as the number they are; anything else is a mistake in the program."""
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "shape", None) == ():
        return item()
    raise TypeError(f"{type(value).__name__} cannot be written to the journal")


_encoder = msgspec.json.Encoder(order="sorted", enc_hook=_plain)


def canonical(value: object) -> bytes:
    """Canonical JSON: sorted keys, no spaces, shortest form of each float (nan and inf become null)."""
    return _encoder.encode(value)


def t_utc(ns: int) -> str:
    """RFC 3339 with microseconds."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{_second(seconds)}.{rest // 1000:06d}Z"


@lru_cache(maxsize=4)  # half of what a line cost was its calendar
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def head_of(n: int, kind: str, sample: int, ns: int, data: bytes) -> bytes:
    """The line up to `prev`; `data` is canonical JSON.  ValueError for a kind that is not a word."""
    if not _KIND.match(kind):
        raise ValueError(f"journal kind {kind!r}: lower-case letters, digits and _ were expected")
    if isinstance(sample, bool) or not (0 <= sample < 1 << 64):
        raise ValueError(f"journal sample {sample!r}: 0 to 2^64-1 was expected")
    return b'{"n":%d,"kind":"%s","sample":%d,"t_utc":"%s","data":%s' % (
        n, kind.encode(), sample, t_utc(ns).encode(), data,
    )  # fmt: skip


def link(head: bytes, prev: str) -> tuple[bytes, str]:
    """`head` chained to the line before it: (whole line with newline, its hash)."""
    body = head + b',"prev":"' + prev.encode() + b'"'
    digest = hashlib.sha256(body).hexdigest()
    return body + b',"hash":"' + digest.encode() + b'"}\n', digest


class Line(msgspec.Struct, frozen=True):
    n: int
    kind: str
    sample: int
    t_utc: str
    data: Any
    prev: str
    hash: str


_decoder = msgspec.json.Decoder(Line)


def parse(raw: bytes) -> tuple[Line | None, str]:
    """(line, "") or (None, what is wrong) for one line without its newline; says nothing about its neighbours."""
    tail = _TAIL.search(raw)
    if tail is None:
        return None, "not a journal line (no hash at its end)"
    if hashlib.sha256(raw[:-_HASH_BYTES]).hexdigest().encode() != tail.group(2):
        return None, "its content does not match its hash"
    try:
        return _decoder.decode(raw), ""
    except msgspec.DecodeError as error:
        return None, f"its hash is right but it does not decode: {error}"


@dataclass(frozen=True)
class Finding:
    """One thing wrong with a file: line 0 means the file as a whole."""

    file: str
    line: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.problem}" if self.line else f"{self.file}: {self.problem}"


@dataclass
class Scan:
    """What a pass over a journal found.

    good_bytes    length of the longest intact prefix (whole lines, chain unbroken)
    torn_bytes    bytes after the last newline: a line that was being written when the lights went out
    """

    path: Path
    findings: list[Finding] = field(default_factory=list)
    lines: int = 0
    last_n: int = 0
    last_hash: str = NO_HASH
    last_sample: int = 0
    good_bytes: int = 0
    torn_bytes: int = 0
    size: int = 0


def read_lines(path: Path, scan: Scan | None = None) -> Iterator[Line]:
    """Every intact line in file order, in bounded memory; damage is noted in `scan` and skipped, never raised.

    A `scan` of an earlier, intact pass is gone on with: only lines after its `good_bytes` are read.

    OSError when the file cannot be read.  A torn last line is no finding: it was never acknowledged.
    """
    scan = scan if scan is not None else Scan(path)
    scan.size = path.stat().st_size
    intact = True
    for number, raw, whole in _split(path, scan.good_bytes, scan.lines):
        if not whole:
            scan.torn_bytes = len(raw)
            break
        line, problem = parse(raw)
        if line is None:
            scan.findings.append(Finding(path.name, number, problem))
            intact = False
            continue
        if line.prev != scan.last_hash or line.n != scan.last_n + 1:
            scan.findings.append(Finding(path.name, number, _break_of(line, scan)))
            intact = False
        scan.lines += 1
        scan.last_n, scan.last_hash = line.n, line.hash
        scan.last_sample = max(scan.last_sample, line.sample)
        if intact:
            scan.good_bytes += len(raw) + 1
        yield line


def _break_of(line: Line, scan: Scan) -> str:
    if line.n == scan.last_n + 1:
        return f"the chain is broken: line n={line.n} does not follow the line before it"
    return f"n={line.n} came, n={scan.last_n + 1} was expected: lines were removed, added or moved"


def _split(path: Path, offset: int, number: int) -> Iterator[tuple[int, bytes, bool]]:
    """(line number from 1, bytes without newline, newline was there), from byte `offset`, after line `number`."""
    rest = b""
    with path.open("rb") as stream:
        stream.seek(offset)
        while chunk := stream.read(_CHUNK):
            *whole, rest = (rest + chunk).split(b"\n")
            for raw in whole:
                number += 1
                yield number, raw, True
            if len(rest) > MAX_LINE:
                number += 1
                yield number, b"", True
                rest = b""
    if rest:
        yield number + 1, rest, False


def scan_journal(path: Path) -> Scan:
    """Read a whole journal for its findings."""
    scan = Scan(path)
    for _ in read_lines(path, scan):
        pass
    return scan
