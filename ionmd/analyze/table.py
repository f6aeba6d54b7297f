"""A CSV file of averaged waveforms -> columns on one time axis.

In: text, first column `time_ms`, then one column in uV per waveform; a header line is required; `#` starts a
comment line.  Out: Table.  Always: finite numbers and rising time; anything else is refused with line and column.
Time is evenly spaced, unless the caller can do with rows that come unevenly (a converter that drops samples).
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ionmd.errors import ConfigError

F64 = npt.NDArray[np.float64]
MAX_CELLS = 50_000_000
LEAST_STEP_MS = 0.0005  # 2 MHz: nothing that is averaged is sampled faster
MOST_UV = 1e9  # far beyond any amplifier; more is another unit or a broken file
UNEVEN = 0.02  # of a step; text that was rounded to the microsecond stays inside


@dataclass(frozen=True)
class Table:
    """columns  name -> float64[sample]; t0_ms, dt_ms  of the time axis (uneven: the usual step); time_ms  the file's
    own, float64[sample], when it is uneven."""

    file: str
    t0_ms: float
    dt_ms: float
    columns: dict[str, F64]
    time_ms: F64 | None = None

    @property
    def samples(self) -> int:
        return len(next(iter(self.columns.values())))

    def at_ms(self, row: int) -> float:
        """When a row was sampled; also of rows beyond the last."""
        if self.time_ms is None:
            return self.t0_ms + row * self.dt_ms
        last = len(self.time_ms) - 1
        return float(self.time_ms[min(row, last)]) + max(0, row - last) * self.dt_ms

    def pieces(self, longest_ms: float) -> list[slice]:
        """Rows without a step longer than that between them."""
        if self.time_ms is None:
            return [slice(0, self.samples)]
        cuts = np.flatnonzero(np.diff(self.time_ms) > longest_ms) + 1
        return [slice(int(a), int(b)) for a, b in pairwise([0, *cuts, self.samples])]


def read_table(path: str | Path, may_be_uneven: bool = False) -> Table:
    """Raises ConfigError: no such file, no header, a cell that is no number, uneven time."""
    file = str(path)
    try:
        with Path(path).open(encoding="utf-8-sig", newline="") as handle:
            rows = [(i, r) for i, r in enumerate(csv.reader(_lines(handle)), 1) if r and any(c.strip() for c in r)]
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file; a CSV file was expected") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{file}: {error}; a CSV text file was expected") from None
    if not rows:
        raise ConfigError(f"{file}: an empty file came, a header line with time_ms was expected")
    names = [c.strip() for c in rows[0][1]]
    _check_header(file, names)
    body = rows[1:]
    if len(body) < 8:
        raise ConfigError(f"{file}: {len(body)} samples came, at least 8 were expected")
    if len(body) * len(names) > MAX_CELLS:
        raise ConfigError(f"{file}: {len(body)} x {len(names)} cells came, at most {MAX_CELLS} were expected")
    values = np.empty((len(body), len(names)))
    for k, (line, row) in enumerate(body):
        if len(row) != len(names):
            raise ConfigError(f"{file}: line {line}: {len(row)} cells came, {len(names)} were expected")
        for c, cell in enumerate(row):
            values[k, c] = _number(file, line, names[c], cell)
    time = values[:, 0]
    dt = float(time[-1] - time[0]) / (len(time) - 1)
    if not (LEAST_STEP_MS <= dt <= 1000.0):
        raise ConfigError(
            f"{file}: time_ms in steps of {dt:g} ms came, rising steps of {LEAST_STEP_MS:g} to 1000 were expected"
            + (": is it in seconds?" if 0.0 < dt < LEAST_STEP_MS else "")
        )
    off = np.abs(time - (time[0] + dt * np.arange(len(time))))
    worst = int(off.argmax())
    steps = np.diff(time)
    back = np.flatnonzero(~(steps > 0))
    if len(back):
        k = int(back[0]) + 1
        raise ConfigError(
            f"{file}: line {body[k][0]}: time_ms {time[k]:g} came after {time[k - 1]:g}, a later time was expected"
        )
    columns = {n: np.ascontiguousarray(values[:, c]) for c, n in enumerate(names) if c > 0}
    # rounded text leaves every sample within half its last digit of the even axis
    if float(off[worst]) <= max(UNEVEN * dt, 0.6 * _resolution(body)):
        return Table(file, float(time[0]), dt, columns)
    if may_be_uneven:
        return Table(file, float(time[0]), float(np.median(steps)), columns, np.ascontiguousarray(time))
    raise ConfigError(
        f"{file}: line {body[worst][0]}: time_ms {time[worst]:g} came, even steps of {dt:g} ms were expected"
    )


def _lines(handle: object) -> list[str]:
    return [line if not line.lstrip().startswith("#") else "\n" for line in handle]  # type: ignore[attr-defined]


def _check_header(file: str, names: list[str]) -> None:
    if names[0] != "time_ms":
        raise ConfigError(f"{file}: first column {names[0]!r} came, time_ms was expected")
    if len(names) < 2:
        raise ConfigError(f"{file}: only time_ms came, at least one column of uV was expected")
    seen = set()
    for name in names:
        if not name or name in seen:
            raise ConfigError(f"{file}: column {name!r} came twice or has no name, different names were expected")
        seen.add(name)


def _number(file: str, line: int, name: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or "_" in cell:
        raise ConfigError(f"{file}: line {line}, column {name}: {cell.strip()!r} came, a finite number was expected")
    if not (-MOST_UV <= value <= MOST_UV):
        raise ConfigError(
            f"{file}: line {line}, column {name}: {cell.strip()!r} came, at most {MOST_UV:g} uV were expected: is the "
            "unit microvolts?"
        )
    return value


def _resolution(body: list[tuple[int, list[str]]]) -> float:
    """The last decimal place that is written anywhere in the first time cells."""
    places = 0
    for _, row in body[:50]:
        text = row[0].strip().lower()
        if "e" in text:
            return 0.0
        places = max(places, len(text.partition(".")[2]))
    return 10.0**-places
