"""BDF+ bytes: header, exact physical limits, annotation lists.  Pure functions, no files.

Source: www.edfplus.info/specs (EDF, EDF+) and www.biosemi.com/faq/file_format.htm (24-bit variant).
A file has one data record per RECORD_MS (or the shortest longer duration with a whole number of samples);
its last signal, "BDF Annotations", carries the record's own time first, then gaps and stimuli.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

import msgspec

from ionmd.errors import ConfigError

DIGITAL_MIN, DIGITAL_MAX = -8388608, 8388607
COUNT_OFFSET = 236  # of the 8-byte record count in the header
ANNOTATION_SAMPLES = 80  # x 3 bytes per record: the time stamp and about eight stimuli; the rest waits
ANNOTATION_LABEL = "BDF Annotations"
_DURATIONS_MS = (100, 200, 500, 1000)
_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")


class Limits(msgspec.Struct, frozen=True):
    """Two points of the line count -> microvolt, as the header says them.  `exact`: no rounding anywhere."""

    digital_min: int
    digital_max: int
    physical_min: str
    physical_max: str
    exact: bool


def _field(value: Fraction) -> str | None:
    """`value` in at most 8 characters without rounding, or None."""
    for places in range(7):
        power: int = 10**places
        if (value * power).denominator == 1:
            text = f"{int(value * power) / power:.{places}f}"
            exact: bool = len(text) <= 8 and Fraction(text) == value
            return text if exact else None
    return None


def _nearest(lsb: Fraction, end: int) -> tuple[int, str]:
    """The count near `end` whose microvolts lose least when written with the digits that fit."""
    sign = -1 if end < 0 else 1
    places = max(0, (8 if sign > 0 else 7) - len(str(int(abs(lsb * end)))) - 1)
    scale = lsb * 10**places
    num, den = scale.numerator, scale.denominator

    def loss(count: int) -> int:
        rest = count * num % den
        return int(min(rest, den - rest))

    count = min(range(abs(end), abs(end) - 4096, -1), key=loss)
    written = Fraction(round(count * scale), 10**places)
    return sign * count, f"{'-' if sign < 0 else ''}{float(written):.{places}f}"


@lru_cache(maxsize=64)
def limits_of(lsb_uv: float) -> Limits:
    """Header limits for a converter step of `lsb_uv`.

    The header's line must go through the exact counts, so the digital limits are moved inwards (by at most
    0.1 %) to the outermost counts whose microvolts fit 8 characters: 0.03125 gives -8388608 = -262144 and
    8388592 = 262143.5.  Counts beyond stay legal 24-bit values on the same line.  When no such pair exists,
    the limits are rounded (`exact` false, error <= 1 ppm; the journal's lsb is authoritative).
    Raises ConfigError when even that is impossible.
    """
    if isinstance(lsb_uv, bool) or not (1e-5 <= lsb_uv <= 11.9):
        raise ConfigError(f"lsb_uv: {lsb_uv!r} came, 1e-05 to 11.9 microvolt per count was expected")
    lsb = Fraction(Decimal(repr(float(lsb_uv))))
    low = _outermost(lsb, DIGITAL_MIN)
    high = _outermost(lsb, DIGITAL_MAX)
    if low and high:
        return Limits(low[0], high[0], low[1], high[1], True)
    (bottom, physical_min), (top, physical_max) = _nearest(lsb, DIGITAL_MIN), _nearest(lsb, DIGITAL_MAX)
    step = (Fraction(physical_max) - Fraction(physical_min)) / (top - bottom)
    fits = len(physical_min) <= 8 and len(physical_max) <= 8
    if not (fits and abs(step / lsb - 1) <= Fraction(1, 1_000_000)):
        raise ConfigError(
            f"lsb_uv: {lsb_uv!r} came; full scale {float(lsb * DIGITAL_MAX):g} uV cannot be written in the 8 "
            "characters of a BDF header within 1 ppm: choose a calibration whose full scale has at most 7 digits"
        )
    return Limits(bottom, top, physical_min, physical_max, False)


def _outermost(lsb: Fraction, end: int) -> tuple[int, str] | None:
    """The count nearest to `end` (within 0.1 %) whose microvolts fit 8 characters exactly."""
    sign = -1 if end < 0 else 1
    room = 8 if sign > 0 else 7
    digits = len(str(int(abs(lsb * end))))
    places = max(0, room - digits - 1)
    grid = Fraction(1, 10**places)
    step = (grid / lsb).numerator  # counts between two exact values: smallest d with d * lsb on the grid
    count = abs(end) // step * step
    if count == 0 or count * 1000 < abs(end) * 999:
        return None
    text = _field(sign * count * lsb)
    return (sign * count, text) if text else None


class RawLayout(msgspec.Struct, frozen=True):
    """What a segment needs to know of the amplifier.  `labels` are the inputs' names."""

    labels: list[str]
    lsb_uv: list[float]
    rate_hz: int
    record_ms: int = 100

    @property
    def samples_per_record(self) -> int:
        return self.rate_hz * self.record_ms // 1000

    @property
    def record_bytes(self) -> int:
        return (len(self.labels) * self.samples_per_record + ANNOTATION_SAMPLES) * 3

    @property
    def annotation_offset(self) -> int:
        return len(self.labels) * self.samples_per_record * 3

    @property
    def header_bytes(self) -> int:
        return 256 * (len(self.labels) + 2)


def make_layout(labels: Sequence[str], lsb_uv: float | Sequence[float], rate_hz: float) -> RawLayout:
    """Checked layout; ConfigError names the label, lsb or rate that no BDF header can carry."""
    lsbs = [float(lsb_uv)] * len(labels) if isinstance(lsb_uv, (int, float)) else [float(x) for x in lsb_uv]
    if not (1 <= len(labels) <= 256):
        raise ConfigError(f"labels: {len(labels)} inputs came, 1 to 256 were expected")
    if len(lsbs) != len(labels):
        raise ConfigError(f"lsb_uv: {len(lsbs)} values came for {len(labels)} inputs")
    for label in labels:
        if not (1 <= len(label) <= 16) or not all(" " <= ch <= "~" for ch in label) or label.strip() != label:
            raise ConfigError(f"label {label!r}: 1 to 16 printable ASCII characters were expected (BDF header)")
    if len(set(labels)) != len(labels) or ANNOTATION_LABEL in labels:
        double = sorted({x for x in labels if list(labels).count(x) > 1 or x == ANNOTATION_LABEL})
        raise ConfigError(f"labels: {', '.join(double)} came more than once; every input needs its own name")
    for lsb in lsbs:
        limits_of(lsb)
    if isinstance(rate_hz, bool) or not (1 <= rate_hz <= 1_000_000) or rate_hz != int(rate_hz):
        raise ConfigError(f"rate_hz: {rate_hz!r} came, a whole number from 1 to 1000000 was expected")
    duration = next(ms for ms in _DURATIONS_MS if int(rate_hz) * ms % 1000 == 0)
    return RawLayout(list(labels), lsbs, int(rate_hz), duration)


def header(layout: RawLayout, start_ns: int, records: int = -1) -> bytes:
    """The file header.  The patient field is empty by design: no identifier ever enters a file."""
    when = datetime.fromtimestamp(start_ns // 1_000_000_000, UTC)
    signals = len(layout.labels)
    limits = [limits_of(lsb) for lsb in layout.lsb_uv]
    startdate = f"Startdate {when.day:02d}-{_MONTHS[when.month - 1]}-{when.year} X X ionmd"
    head = b"\xffBIOSEMI" + b"".join(
        _text(value, width)
        for value, width in (
            ("X X X X", 80), (startdate, 80), (f"{when:%d.%m.%y}", 8), (f"{when:%H.%M.%S}", 8),
            (layout.header_bytes, 8), ("BDF+C", 44), (records, 8), (f"{layout.record_ms / 1000:g}", 8),
            (signals + 1, 4),
        )
    )  # fmt: skip
    columns: list[tuple[Sequence[object], int]] = [
        ([*layout.labels, ANNOTATION_LABEL], 16),
        (["unipolar electrode"] * signals + [""], 80),
        (["uV"] * signals + [""], 8),
        ([x.physical_min for x in limits] + ["-1"], 8),
        ([x.physical_max for x in limits] + ["1"], 8),
        ([x.digital_min for x in limits] + [DIGITAL_MIN], 8),
        ([x.digital_max for x in limits] + [DIGITAL_MAX], 8),
        (["HP:DC"] * signals + [""], 80),
        ([layout.samples_per_record] * signals + [ANNOTATION_SAMPLES], 8),
        ([""] * (signals + 1), 32),
    ]
    return head + b"".join(_text(value, width) for values, width in columns for value in values)


def count_field(records: int) -> bytes:
    return _text(records, 8)


def _text(value: object, width: int) -> bytes:
    raw = str(value).encode("ascii")
    if len(raw) > width:
        raise ValueError(f"BDF header: {value!r} has {len(raw)} characters, {width} fit")
    return raw.ljust(width)


def time_stamp(record: int, record_ms: int) -> bytes:
    """The annotation list that must open each record: when it starts."""
    return b"+" + _seconds(record * record_ms, 3) + b"\x14\x14\x00"


def annotation(sample: int, rate_hz: int, text: str) -> bytes:
    """One annotation at `sample` samples after the segment's start, to the microsecond."""
    micros = (sample * 2_000_000 + rate_hz) // (2 * rate_hz)
    return b"+" + _seconds(micros, 6) + b"\x14" + text.encode() + b"\x14\x00"


def _seconds(value: int, places: int) -> bytes:
    whole, rest = divmod(value, 10**places)
    return f"{whole}.{rest:0{places}d}".rstrip("0").rstrip(".").encode()
