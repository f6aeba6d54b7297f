"""EDF, EDF+, BDF and BDF+ files (edfplus.info specification; BDF is the 24-bit variant) as a Recording.

In: a file, memory-mapped.  Out: the voltage channels of one rate in uV; annotations and Status codes as triggers.
Always: a header field that does not fit is a ConfigError that names it; a channel that is not played is named in
`skipped` with the reason; a discontinuous file (EDF+D) keeps its holes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ionmd.drivers.recording import CHUNK_ROWS, Counts, Header, Microvolts, Recording, Segment, Trigger
from ionmd.errors import ConfigError

# To microvolts; 0xB5 is the micro sign in the header's own 8-bit text.
UNITS = {"nV": 1e-3, "uV": 1.0, "UV": 1.0, "\u00b5V": 1.0, "mV": 1e3, "V": 1e6}
UNITS |= {name.lower(): factor for name, factor in UNITS.items()}
STATUS_MASK = 0xFFFF  # the upper byte of a BDF Status word is the receiver's own (battery, speed mode)
MAX_SIGNALS = 4096


@dataclass(frozen=True)
class Signal:
    """One signal of the header."""

    label: str
    unit: str
    gain: float  # physical units per count
    base: float  # physical value of count 0
    n: int  # samples in a record
    at: int  # byte offset in a record


class EdfRecording(Recording):
    def __init__(self, path: Path, rate_hz: float | None = None) -> None:
        """rate_hz: play the channels of this rate; None: the highest among the voltage channels."""
        self.path = path
        size = path.stat().st_size
        if size < 256:
            raise ConfigError(f"{path}: {size} bytes came, an EDF header has at least 256")
        with path.open("rb") as f:
            fixed = f.read(256)
            self._bytes = 3 if fixed[0] == 0xFF else 2
            ns = self._int(fixed[252:256], "number of signals", 1, MAX_SIGNALS)
            length = self._int(fixed[184:192], "number of bytes in header", 256, 256 * (MAX_SIGNALS + 1))
            if length != 256 * (ns + 1):
                raise self._wrong("number of bytes in header", length, f"256 x ({ns} signals + 1) = {256 * (ns + 1)}")
            if size < length:
                raise self._wrong("number of bytes in header", length, f"no more than the file's {size}")
            self._signals = self._read_signals(f.read(256 * ns), ns)
        self._reserved = fixed[192:236].decode("latin-1").strip()
        self._duration_s = self._float(fixed[244:252], "duration of a data record")
        record_bytes = self._bytes * sum(s.n for s in self._signals)
        there = (size - length) // record_bytes
        said = self._int(fixed[236:244], "number of data records", -1, 1 << 40)
        if said > there:
            raise self._wrong(
                "number of data records", said, f"at most the {there} whole ones that are there (a truncated copy? "
                "-1 in this field reads what is there)",
            )
        self._records = there if said == -1 else said
        if self._records < 1:
            raise self._wrong("number of data records", said, "at least one")
        self._map = np.memmap(path, np.uint8, "r", length, (self._records, record_bytes))
        self._played, skipped, rate = self._choose(rate_hz)
        self._per_record = self._played[0].n
        texts, onsets_s = self._annotations()
        segments = self._segments(onsets_s, rate)
        to_uv = [UNITS[s.unit] for s in self._played]
        self.header = Header(
            labels=tuple(s.label for s in self._played),
            rate_hz=rate,
            lsb_uv=np.array([s.gain * k for s, k in zip(self._played, to_uv, strict=True)]),
            offset_uv=np.array([s.base * k for s, k in zip(self._played, to_uv, strict=True)]),
            segments=segments,
            skipped=skipped,
        )
        zero_s = onsets_s[0] if onsets_s else 0.0
        end = segments[-1].first + segments[-1].n
        triggers = [
            Trigger(at, "annotation", text, 0, duration)
            for onset, duration, text in texts
            if 0 <= (at := math.floor((onset - zero_s) * rate + 0.5)) < end
        ]
        triggers += self._status_codes(rate, segments)
        self.header.triggers = sorted(triggers, key=lambda t: t.sample)
        self._chunk = (-1, np.empty((0, 0), np.int32), np.empty((0, 0), np.float32))

    # ------------------------------------------------------------ header

    def _wrong(self, field: str, came: object, expected: str) -> ConfigError:
        return ConfigError(f"{self.path}: {field}: {came!r} came, {expected} was expected")

    def _int(self, raw: bytes, field: str, lo: int, hi: int) -> int:
        text = raw.decode("latin-1").strip(" \0")
        try:
            value = int(text)
        except ValueError:
            raise self._wrong(field, text, "a whole number") from None
        if not (lo <= value <= hi):
            raise self._wrong(field, value, f"{lo} to {hi}")
        return value

    def _float(self, raw: bytes, field: str) -> float:
        text = raw.decode("latin-1").strip(" \0")
        try:
            value = float(text.replace(",", "."))
        except ValueError:
            raise self._wrong(field, text, "a number") from None
        if not (-1e15 <= value <= 1e15):
            raise self._wrong(field, text, "a finite number")
        return value

    def _read_signals(self, raw: bytes, ns: int) -> list[Signal]:
        widths = {"label": 16, "transducer": 80, "unit": 8, "pmin": 8, "pmax": 8, "dmin": 8, "dmax": 8, "filter": 80,
                  "n": 8, "reserved": 32}  # fmt: skip
        column: dict[str, list[bytes]] = {}
        at = 0
        for name, width in widths.items():
            column[name] = [raw[at + width * i : at + width * (i + 1)] for i in range(ns)]
            at += width * ns
        low, high = (-(1 << 23), (1 << 23) - 1) if self._bytes == 3 else (-(1 << 15), (1 << 15) - 1)
        signals: list[Signal] = []
        offset = 0
        for i in range(ns):
            label = column["label"][i].decode("latin-1").strip(" \0")
            here = f"signal {i + 1} ({label})"
            n = self._int(column["n"][i], f"{here}: number of samples in a record", 1, 1 << 24)
            dmin = self._int(column["dmin"][i], f"{here}: digital minimum", low, high)
            dmax = self._int(column["dmax"][i], f"{here}: digital maximum", low, high)
            pmin = self._float(column["pmin"][i], f"{here}: physical minimum")
            pmax = self._float(column["pmax"][i], f"{here}: physical maximum")
            if not dmin < dmax:
                raise self._wrong(f"{here}: digital maximum", dmax, f"a number above the digital minimum {dmin}")
            if pmin == pmax and not label.endswith("Annotations"):
                raise self._wrong(f"{here}: physical maximum", pmax, f"a number other than the physical minimum {pmin}")
            gain = (pmax - pmin) / (dmax - dmin)
            unit = column["unit"][i].decode("latin-1").strip(" \0")
            signals.append(Signal(label, unit, gain, pmin - dmin * gain, n, offset))
            offset += n * self._bytes
        return signals

    def _is_annotation(self, s: Signal) -> bool:
        return s.label in ("EDF Annotations", "BDF Annotations")

    def _is_status(self, s: Signal) -> bool:
        return self._bytes == 3 and s.label.lower() == "status"

    def _choose(self, rate_hz: float | None) -> tuple[list[Signal], dict[str, str], float]:
        """The channels to play, the others with their reasons, the rate."""
        skipped: dict[str, str] = {}
        voltage: list[Signal] = []
        for s in self._signals:
            if self._is_annotation(s) or self._is_status(s):
                continue
            if s.unit in UNITS:
                voltage.append(s)
            else:
                skipped[s.label] = f"physical dimension {s.unit!r} is no voltage (nV, uV, mV, V)"
        if not voltage:
            raise ConfigError(f"{self.path}: physical dimension: no signal in nV, uV, mV or V; there are {skipped}")
        if not self._duration_s > 0:
            raise self._wrong("duration of a data record", self._duration_s, "more than 0 s")
        if rate_hz is None:
            n = max(s.n for s in voltage)
        else:
            if not (0 < rate_hz <= 1e6):
                raise ConfigError(f"rate_hz: {rate_hz!r} came, 0 to 1000000 Hz was expected")
            n = math.floor(rate_hz * self._duration_s + 0.5)
            if not any(s.n == n for s in voltage):
                rates = ", ".join(f"{r:g}" for r in sorted({s.n / self._duration_s for s in voltage}))
                raise ConfigError(f"{self.path}: no channel at {rate_hz:g} Hz; there are {rates} Hz")
        rate = n / self._duration_s
        if abs(rate - round(rate)) < 1e-9 * rate:
            rate = float(round(rate))
        played = [s for s in voltage if s.n == n]
        for s in voltage:
            if s.n != n:
                skipped[s.label] = f"sampled at {s.n / self._duration_s:g} Hz, the recording is played at {rate:g} Hz"
        return played, skipped, rate

    # ------------------------------------------------------------ annotations, segments, Status

    def _annotations(self) -> tuple[list[tuple[float, float, str]], list[float]]:
        """(onset_s, duration_s, text) of every annotation, and the onset of every record (empty: plain EDF)."""
        found: list[tuple[float, float, str]] = []
        onsets: list[float] = []
        channels = [s for s in self._signals if self._is_annotation(s)]
        for first, s in enumerate(channels):
            raw = self._map[:, s.at : s.at + s.n * self._bytes]
            for record in range(self._records):
                for k, tal in enumerate(raw[record].tobytes().rstrip(b"\0").split(b"\0")):
                    if not tal:
                        continue
                    head, *texts = tal.split(b"\x14")
                    onset, _, duration = head.partition(b"\x15")
                    at_s = self._float(onset, f"annotation in record {record + 1}: onset")
                    long_s = self._float(duration, f"annotation in record {record + 1}: duration") if duration else 0.0
                    if first == 0 and k == 0:
                        onsets.append(at_s)
                    found += [(at_s, long_s, t.decode("utf-8", "replace")) for t in texts if t]
            if first == 0 and len(onsets) != self._records:
                if self._reserved.endswith("D"):
                    raise self._wrong("time-keeping annotations", len(onsets), f"one a record: {self._records}")
                onsets = []
        return found, onsets

    def _segments(self, onsets_s: list[float], rate: float) -> tuple[Segment, ...]:
        per = self._per_record
        if not self._reserved.endswith("+D"):
            return (Segment(0, 0, self._records * per),)
        if not onsets_s:
            raise self._wrong("reserved", self._reserved, "EDF+D only with an annotation signal that times the records")
        out: list[Segment] = []
        for r, onset in enumerate(onsets_s):
            at = math.floor((onset - onsets_s[0]) * rate + 0.5)
            end = out[-1].first + out[-1].n if out else 0
            if at < end - 1:
                raise self._wrong(
                    f"record {r + 1}: onset", onset, f"no overlap with the record before, which ends at sample {end},"
                )
            if out and at <= end + 1:  # onsets are rounded texts: one sample either way is no hole
                out[-1] = Segment(out[-1].first, out[-1].row, out[-1].n + per)
            else:
                out.append(Segment(at, r * per, per))
        return tuple(out)

    def _status_codes(self, rate: float, segments: tuple[Segment, ...]) -> list[Trigger]:
        """Where the code in the lower 16 bits becomes another one that is not 0."""
        found: list[Trigger] = []
        for s in self._signals:
            if not self._is_status(s):
                continue
            before: int | None = None
            step = max(1, CHUNK_ROWS // s.n)
            for r in range(0, self._records, step):
                codes = self._decode(s, r, min(step, self._records - r)) & STATUS_MASK
                prior = np.concatenate(([codes[0] if before is None else before], codes[:-1]))
                for k in np.flatnonzero((codes != prior) & (codes != 0)):
                    row = math.floor((r * s.n + int(k)) * self._per_record / s.n + 0.5)
                    seg = next(g for g in reversed(segments) if g.row <= row)
                    found.append(Trigger(seg.first + row - seg.row, "status", "", int(codes[k])))
                before = int(codes[-1])
        return found

    # ------------------------------------------------------------ samples

    def _decode(self, s: Signal, record: int, n: int) -> npt.NDArray[np.int32]:
        raw = self._map[record : record + n, s.at : s.at + s.n * self._bytes]
        if self._bytes == 2:
            return np.ascontiguousarray(raw).view("<i2").ravel().astype(np.int32)
        wide = np.zeros((n * s.n, 4), np.uint8)
        wide[:, 1:] = np.ascontiguousarray(raw).reshape(-1, 3)
        return wide.view("<i4").ravel() >> 8

    def _load(self, record: int) -> None:
        """The chunk that holds this record, decoded once."""
        step = max(1, 2 * CHUNK_ROWS // self._per_record)
        record -= record % step
        if self._chunk[0] == record:
            return
        n = min(step, self._records - record)
        counts = np.stack([self._decode(s, record, n) for s in self._played], axis=1)
        uv = (counts * self.header.lsb_uv + self.header.offset_uv).astype(np.float32)
        self._chunk = (record, counts, uv)

    def rows(self, row: int, n: int) -> tuple[Counts, Microvolts]:
        per = self._per_record
        if row < 0 or n < 0 or row + n > self._records * per:
            raise ValueError(f"rows {row}..{row + n} came, 0..{self._records * per} are there")
        parts = []
        at = row
        while at < row + n:
            self._load(at // per)
            start = self._chunk[0] * per
            k = min(row + n, start + len(self._chunk[1])) - at
            parts.append((self._chunk[1][at - start : at - start + k], self._chunk[2][at - start : at - start + k]))
            at += k
        if len(parts) == 1:
            return parts[0]
        empty = np.empty((0, len(self.labels)))
        return (
            np.concatenate([p[0] for p in parts] or [empty.astype(np.int32)]),
            np.concatenate([p[1] for p in parts] or [empty.astype(np.float32)]),
        )

    def close(self) -> None:
        self._chunk = (-1, np.empty((0, 0), np.int32), np.empty((0, 0), np.float32))
