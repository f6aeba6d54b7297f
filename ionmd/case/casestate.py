"""What one pass over a case's journal tells: header, segments, gaps, how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ionmd.case.bdf import RawLayout
from ionmd.case.journal import JOURNAL, Finding, Line, Scan, read_lines


@dataclass
class Segment:
    """A raw segment as the journal knows it.  `records` is None while no line has closed it."""

    number: int
    file: str
    first_sample: int
    layout: RawLayout
    records: int | None = None
    synced_records: int = 0
    valid: list[list[int]] = field(default_factory=list)
    gaps: list[tuple[int, int]] = field(default_factory=list)
    crc32: dict[int, str] = field(default_factory=dict)
    suspect: bool = False
    kernel_boot: str = ""


@dataclass
class CaseState:
    """What one pass over a case's journal tells."""

    scan: Scan
    header: dict[str, Any] = field(default_factory=dict)
    segments: dict[int, Segment] = field(default_factory=dict)
    closed: str | None = None
    interrupted: bool = False
    last_session: dict[str, Any] | None = None
    kinds: dict[str, int] = field(default_factory=dict)
    unlisted: set[str] = field(default_factory=set)  # raw files whose `open` line was lost with the power
    first_utc: str = ""
    last_utc: str = ""

    @property
    def end_sample(self) -> int:
        """First sample that no line and no raw record has used."""
        raw = (s.first_sample + (s.records or s.synced_records) * s.layout.samples_per_record
               for s in self.segments.values())  # fmt: skip
        return max([self.scan.last_sample, *raw], default=0)

    def take(self, line: Line) -> None:
        self.kinds[line.kind] = self.kinds.get(line.kind, 0) + 1
        self.first_utc = self.first_utc or line.t_utc
        self.last_utc = line.t_utc
        data = line.data if isinstance(line.data, dict) else {}
        if line.kind == "case":
            if data.get("state") == "open" and not self.header:
                self.header = data
            self.interrupted = data.get("state") == "interrupted"
            self.unlisted.update(str(name) for name in data.get("unlisted", ()))
            if data.get("state") == "resumed":
                self.closed = None
        elif line.kind == "close":
            self.closed = str(data.get("state", "closed"))
        elif line.kind == "session":
            self.last_session = data
        elif line.kind == "raw":
            self._take_raw(data)

    def _take_raw(self, data: dict[str, Any]) -> None:
        try:
            number, state = int(data["segment"]), data["state"]
            if state == "open":
                layout = RawLayout([x["label"] for x in data["inputs"]], [x["lsb_uv"] for x in data["inputs"]],
                                   int(data["rate_hz"]), int(data["record_ms"]))  # fmt: skip
                self.segments[number] = Segment(number, str(data["file"]), int(data["first_sample"]), layout,
                                                kernel_boot=str(data.get("kernel_boot", "")))  # fmt: skip
                return
            segment = self.segments[number]
            if state == "gap":
                segment.gaps.append((int(data["first_sample"]), int(data["samples"])))
            elif state == "synced":
                segment.synced_records = int(data["records"])
                start, crcs = int(data["from_record"]), str(data["crc32"])
                segment.crc32.update({start + i // 8: crcs[i : i + 8] for i in range(0, len(crcs), 8)})
            elif state in ("closed", "suspect"):
                segment.records = segment.synced_records = int(data["records"])
                segment.valid = [[int(lo), int(hi)] for lo, hi in data["valid"]]
                segment.suspect = state == "suspect"
        except (KeyError, TypeError, ValueError) as error:
            self.scan.findings.append(Finding(JOURNAL, self.scan.last_n, f"raw line without {error}"))


def read_state(case_dir: Path) -> CaseState:
    """One pass over the journal; OSError when there is none."""
    scan = Scan(case_dir / JOURNAL)
    state = CaseState(scan)
    for line in read_lines(scan.path, scan):
        state.take(line)
    return state
