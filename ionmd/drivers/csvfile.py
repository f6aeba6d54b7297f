"""CSV as a Recording: first column `time_s` or `time_ms`, then one column in uV an input; `trigger` is no input.

In: text with one header line; comma, semicolon or tab.  Out: uV as written; counts of 1 nV (coarser only where 24 bits
would not hold the column).
Always: every sample lies within a quarter step of a uniform grid, or the line that does not is named.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ionmd.drivers.recording import Counts, Header, Microvolts, Recording, Segment, Trigger, edge_samples
from ionmd.errors import ConfigError

TIME_UNITS = {"time_s": 1.0, "time_ms": 1e-3}
TRIGGER_COLUMN = "trigger"


class CsvRecording(Recording):
    def __init__(self, path: Path, trigger_column: str = "", trigger_rule: str = "rising") -> None:
        self.path = path
        names, values = read_table(path)
        unit = TIME_UNITS.get(names[0])
        if unit is None:
            raise ConfigError(f"{path}: first column: {names[0]!r} came, time_s or time_ms was expected")
        rate = self._rate(values[:, 0] * unit)
        trigger_column = trigger_column or (TRIGGER_COLUMN if TRIGGER_COLUMN in names[1:] else "")
        if trigger_column and trigger_column not in names[1:]:
            raise ConfigError(f"{path}: no column {trigger_column!r}; there are {', '.join(names[1:])}")
        triggers: list[Trigger] = []
        if trigger_column:
            column = values[:, names.index(trigger_column)]
            triggers = [Trigger(int(k), "column", trigger_column, 1) for k in edge_samples(column, trigger_rule)]
        inputs = [i for i, name in enumerate(names) if i and name != TRIGGER_COLUMN]
        if not inputs:
            raise ConfigError(f"{path}: no column in uV beside {names[0]}")
        self._uv = values[:, inputs].astype(np.float32)
        largest = np.abs(values[:, inputs]).max(axis=0)
        lsb = np.maximum(1e-3, largest / ((1 << 23) - 1))
        self._counts = np.floor(values[:, inputs] / lsb + 0.5).astype(np.int32)
        self.header = Header(
            labels=tuple(names[i] for i in inputs),
            rate_hz=rate,
            lsb_uv=lsb,
            offset_uv=np.zeros(len(inputs)),
            segments=(Segment(0, 0, len(values)),),
            triggers=triggers,
            skipped={TRIGGER_COLUMN: "its edges are the triggers"} if TRIGGER_COLUMN in names else {},
        )

    def _rate(self, time_s: npt.NDArray[np.float64]) -> float:
        if len(time_s) < 2:
            raise ConfigError(f"{self.path}: {len(time_s)} lines of samples came, at least 2 were expected")
        step = (time_s[-1] - time_s[0]) / (len(time_s) - 1)
        if not step > 0:
            raise ConfigError(f"{self.path}: time does not grow: {time_s[0]:g} s first, {time_s[-1]:g} s last")
        off = np.abs(time_s - (time_s[0] + step * np.arange(len(time_s))))
        if not off.max() <= step / 4:
            bad = int(np.argmax(off > step / 4))
            raise ConfigError(
                f"{self.path}: line {bad + 2}: time {time_s[bad]:g} s came, {time_s[0] + step * bad:g} s was expected: "
                f"the step must be uniform ({step:g} s)"
            )
        rate = float(1 / step)
        return float(round(rate)) if abs(rate - round(rate)) < 1e-5 * rate else rate

    def rows(self, row: int, n: int) -> tuple[Counts, Microvolts]:
        if row < 0 or n < 0 or row + n > len(self._uv):
            raise ValueError(f"rows {row}..{row + n} came, 0..{len(self._uv)} are there")
        return self._counts[row : row + n], self._uv[row : row + n]


def read_table(path: Path) -> tuple[list[str], npt.NDArray[np.float64]]:
    """Header names and float64[line, column]; every value finite, or ConfigError with line and column."""
    try:
        text = path.read_text("utf-8-sig")
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{path}: byte {exc.start} is not UTF-8 text: is this a CSV file?") from exc
    head, _, body = text.partition("\n")
    mark = next((m for m in ",;\t" if m in head), ",")
    names = [c.strip().strip('"') for c in head.split(mark)]
    if len(names) < 2:
        raise ConfigError(f"{path}: line 1: {head.strip()[:60]!r} came, a header `time_ms,NAME,...` was expected")
    if "" in names:
        raise ConfigError(f"{path}: line 1: column {names.index('') + 1} has no name")
    if len(set(names)) != len(names):
        twice = next(c for c in names if names.count(c) > 1)
        raise ConfigError(f"{path}: line 1: column {twice!r} appears twice")
    if not body.strip():
        raise ConfigError(f"{path}: no samples after the header")
    try:
        values = np.loadtxt(io.StringIO(body), delimiter=mark, dtype=np.float64, ndmin=2, comments=None)
    except ValueError:
        values = np.empty((0, 0))
    if values.shape[1] != len(names) or not np.isfinite(values).all():
        raise _first_fault(path, body, mark, names)
    return names, values


def _first_fault(path: Path, body: str, mark: str, names: list[str]) -> ConfigError:
    for k, line in enumerate(body.splitlines(), 2):
        if not line.strip():
            continue
        cells = line.split(mark)
        if len(cells) != len(names):
            return ConfigError(f"{path}: line {k}: {len(cells)} values came, {len(names)} were expected")
        for name, cell in zip(names, cells, strict=True):
            try:
                value = float(cell)
            except ValueError:
                value = float("nan")
            if not (-1e300 < value < 1e300):
                came = cell.strip()
                return ConfigError(f"{path}: line {k}, column {name}: {came!r} came, a finite number was expected")
    return ConfigError(f"{path}: the table cannot be read")
