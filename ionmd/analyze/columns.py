"""Columns of a file -> waveforms: halves joined, channels and derivations made, time zero found.

In: a Table, a test definition.  Out: waves with the name whose rules they take.  Always: a column that is asked for and
is not there is refused, with those that are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ionmd.analyze.start import stimulus_onset_ms
from ionmd.analyze.table import Table
from ionmd.catalog.expression import parse
from ionmd.errors import ConfigError
from ionmd.testdef import TestDefinition

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Wave:
    """One waveform of the file; `rules` names the derivation whose marker rules it takes."""

    name: str
    rules: str
    mean: F64
    halves: tuple[F64, F64] | None


def time_zero(table: Table, definition: TestDefinition) -> tuple[float, str]:
    """Time zero on the file's axis."""
    t = definition.trigger
    if not t.onset_column:
        return 0.0, ""
    names = [n for n in (t.onset_column, f"{t.onset_column}.a", f"{t.onset_column}.b") if n in table.columns]
    if not names:
        raise ConfigError(
            f"{table.file}: trigger.onset_column {t.onset_column!r} is not a column; "
            f"there are {', '.join(table.columns)}"
        )
    column = _mean([table.columns[n] for n in names])
    found = stimulus_onset_ms(column, t.onset_rule, table.t0_ms, table.dt_ms)
    if found is None:
        return 0.0, f"{t.onset_column} shows no clear onset: the file's own time zero was taken"
    return found, ""


def waves_of(table: Table, definition: TestDefinition) -> list[Wave]:
    """The test's own channels or derivations where the columns have them, else every column."""
    onset = definition.trigger.onset_column
    columns = {n: c for n, c in table.columns.items() if not onset or n not in (onset, f"{onset}.a", f"{onset}.b")}
    if not columns:
        raise ConfigError(f"{table.file}: only {onset} came, a column with a waveform was expected")
    means, halves = _pairs(columns)
    if definition.channels:
        return [_expression(table.file, n, text, columns, means, halves) for n, text in definition.channels.items()]
    known = {d.label for d in definition.derivations}
    pairs = [d for d in definition.derivations if d.plus in means and d.minus in means and d.label not in means]
    if pairs:
        return [
            _expression(table.file, d.label, f'"{d.plus}" - "{d.minus}"', columns, means, halves) for d in pairs
        ]
    alert = next((d.label for d in definition.derivations if d.role == "alert"), "")
    return [Wave(n, n if n in known or not known else alert, means[n], halves.get(n)) for n in means]


def _pairs(columns: Mapping[str, F64]) -> tuple[dict[str, F64], dict[str, tuple[F64, F64]]]:
    """Waveforms by name, and the halves of those that have both."""
    means: dict[str, F64] = {}
    halves: dict[str, tuple[F64, F64]] = {}
    for name, column in columns.items():
        stem, _, half = name.rpartition(".")
        if stem and half in ("a", "b") and f"{stem}.a" in columns and f"{stem}.b" in columns:
            both = (columns[f"{stem}.a"], columns[f"{stem}.b"])
            halves[stem] = both
            means.setdefault(stem, columns.get(stem, 0.5 * (both[0] + both[1])))
        else:
            means[name] = column
    return means, halves


def _expression(
    file: str, name: str, text: str, columns: Mapping[str, F64], means: Mapping[str, F64],
    halves: Mapping[str, tuple[F64, F64]],
) -> Wave:  # fmt: skip
    expression = parse(text)
    every = {**columns, **means}
    for needed in expression.names:
        if needed not in every:
            raise ConfigError(f"{file}: channels.{name}: column {needed!r} is not there; there are {', '.join(every)}")
    mean = expression(every)
    if not bool(np.isfinite(mean).all()):
        raise ConfigError(f"{file}: channels.{name}: {text!r} gives nan or inf, finite microvolts were expected")
    if all(n in halves for n in expression.names):
        a = expression({n: halves[n][0] for n in expression.names})
        b = expression({n: halves[n][1] for n in expression.names})
        return Wave(name, name, mean, (a, b))
    return Wave(name, name, mean, None)


def _mean(columns: list[F64]) -> F64:
    total = columns[0].copy()
    for column in columns[1:]:
        total += column
    return total / len(columns)
