"""A recording on disk as the house sees it: named inputs in microvolts on one uniform time line, and its triggers.

In: a file (edf.py, csvfile.py).  Out: rows of counts and uV, segments, triggers, and what was left out and why.
Always: sample 0 is the first recorded row; a stretch that was never recorded stays a hole in the time line (segments
tell where), it is never closed up.  Nothing is read beyond the header before it is asked for.
"""

from __future__ import annotations

import fnmatch
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ionmd.errors import ConfigError

Counts = npt.NDArray[np.int32]
Microvolts = npt.NDArray[np.float32]
CHUNK_ROWS = 16_384


@dataclass(frozen=True)
class Trigger:
    """One event of the recording.  kind: annotation (text), status (code) or column (text is its name)."""

    sample: int
    kind: str
    text: str = ""
    code: int = 0
    duration_s: float = 0.0


@dataclass(frozen=True)
class Segment:
    """Rows `row`..`row + n` of the file lie at `first`..`first + n` of the time line."""

    first: int
    row: int
    n: int


@dataclass
class Header:
    """What a file says about itself, in the house's terms."""

    labels: tuple[str, ...]
    rate_hz: float
    lsb_uv: npt.NDArray[np.float64]
    offset_uv: npt.NDArray[np.float64]
    segments: tuple[Segment, ...]
    triggers: list[Trigger] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  # label -> why it is no input


class Recording(ABC):
    """An opened file.  `read` gives microvolts of any stretch; rows that were never recorded are nan."""

    path: Path
    header: Header

    @property
    def labels(self) -> tuple[str, ...]:
        return self.header.labels

    @property
    def rate_hz(self) -> float:
        return self.header.rate_hz

    @property
    def n_samples(self) -> int:
        """Length of the time line, holes included."""
        last = self.header.segments[-1]
        return last.first + last.n

    @property
    def triggers(self) -> list[Trigger]:
        return self.header.triggers

    @property
    def skipped(self) -> dict[str, str]:
        """Channels of the file that are not played, each with its reason."""
        return self.header.skipped

    @abstractmethod
    def rows(self, row: int, n: int) -> tuple[Counts, Microvolts]:
        """File rows as int32 counts and float32 uV, both `[row, input]`; `n` <= CHUNK_ROWS.  Views: copy to keep."""

    def read(self, first: int, n: int) -> Microvolts:
        """float32[n, input] of the time line from sample `first`; nan where nothing was recorded."""
        if n < 0 or first < 0 or first + n > self.n_samples:
            raise ValueError(f"samples {first}..{first + n} came, 0..{self.n_samples} are there")
        out = np.full((n, len(self.labels)), np.nan, np.float32)
        for s in self.header.segments:
            lo, hi = max(first, s.first), min(first + n, s.first + s.n)
            while lo < hi:
                k = min(hi - lo, CHUNK_ROWS)
                out[lo - first : lo - first + k] = self.rows(s.row + lo - s.first, k)[1]
                lo += k
        return out

    def edges(self, column: str, rule: str = "rising") -> list[Trigger]:
        """Triggers at the edges of one input, see `edge_samples` for the rules."""
        if column not in self.labels:
            raise ConfigError(f"{self.path}: no column {column!r}; there are {', '.join(self.labels)}")
        at = self.labels.index(column)
        found: list[Trigger] = []
        for s in self.header.segments:
            x = np.concatenate(
                [self.rows(s.row + k, min(CHUNK_ROWS, s.n - k))[1][:, at].copy() for k in range(0, s.n, CHUNK_ROWS)]
            )
            found += [Trigger(s.first + int(k), "column", column, 1) for k in edge_samples(x, rule)]
        return found

    def close(self) -> None:  # noqa: B027  (a reader without resources has nothing to do)
        """Safe twice."""


def edge_samples(values: npt.NDArray[np.floating], rule: str = "rising") -> npt.NDArray[np.intp]:
    """First sample of each edge.

    rule  `rising` or `falling`: through the middle between the smallest and largest value;
          `> X` or `< X`: becomes greater (smaller) than X.
    A column that already fulfils the rule at its first sample has no edge there."""
    words = rule.split()
    if rule in ("rising", "falling"):
        middle = (float(values.min()) + float(values.max())) / 2 if len(values) else 0.0
        on = values > middle if rule == "rising" else values < middle
    elif len(words) == 2 and words[0] in "<>":
        try:
            level = float(words[1])
        except ValueError:
            level = float("nan")
        if not (-1e12 <= level <= 1e12):
            raise ConfigError(f"onset_rule {rule!r}: a number was expected after {words[0]}")
        on = values > level if words[0] == ">" else values < level
    else:
        raise ConfigError(f"onset_rule {rule!r} came; rising, falling, `> X` or `< X` (microvolts) was expected")
    return np.flatnonzero(on[1:] & ~on[:-1]) + 1


def select_triggers(triggers: Iterable[Trigger], source: str, code: str = "") -> list[Trigger]:
    """Those a test file's `[trigger] source, code` asks for.

    annotation: `code` is the text, `*` and `?` are wildcards, empty takes all;  status: `code` is the number, empty
    takes all;  column, external: all edges of the column that was opened as trigger."""
    if source == "annotation":
        picked = [t for t in triggers if t.kind == "annotation"]
        return [t for t in picked if not code or t.text == code or fnmatch.fnmatchcase(t.text, code)]
    if source == "status":
        if code and not code.strip().isdecimal():
            raise ConfigError(f"trigger code {code!r} came; a status trigger's code is a whole number")
        return [t for t in triggers if t.kind == "status" and (not code or t.code == int(code))]
    if source in ("column", "external"):
        return [t for t in triggers if t.kind == "column" or source == "external"]
    raise ConfigError(f"trigger source {source!r} came; annotation, status, column or external serves a recording")


def open_recording(path: str | Path, rate_hz: float | None = None, trigger_column: str = "",
                   trigger_rule: str = "rising") -> Recording:
    """Opens by content: EDF, BDF (with +), else CSV.  `trigger_column`'s edges are added to the triggers."""
    from ionmd.drivers.csvfile import CsvRecording
    from ionmd.drivers.edf import EdfRecording

    path = Path(path)
    try:
        with path.open("rb") as f:
            magic = f.read(8)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror}") from exc
    recording: Recording
    if magic == b"0       " or magic == b"\xffBIOSEMI":
        recording = EdfRecording(path, rate_hz)
        if trigger_column:
            recording.header.triggers += recording.edges(trigger_column, trigger_rule)
            recording.header.triggers.sort(key=lambda t: t.sample)
    elif path.suffix.lower() in (".edf", ".bdf", ".rec"):
        raise ConfigError(
            f"{path}: version: {magic!r} came, '0       ' (EDF) or '\\xffBIOSEMI' (BDF) was expected"
        )
    else:
        recording = CsvRecording(path, trigger_column, trigger_rule)
    return recording
