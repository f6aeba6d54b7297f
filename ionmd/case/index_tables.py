"""Journal line -> rows of index.sqlite.  Every row of an event carries the line's (n, sample).

Tables and columns are listed in docs/record.md; a change of either raises VERSION, and old indexes are made anew.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from typing import Any

from ionmd.case.journal import Line, canonical

VERSION = 1
# kind of line -> (table, key of `data` that holds the row, columns named as the row's keys)
_ROWS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "session": ("sessions", "", (
        "device_session", "boot_id", "device_first_sample", "gap_samples", "gap_exact", "method",
        "uncertainty_samples", "rate_hz", "serial")),
    "average": ("averages", "", (
        "id", "test", "kind", "first_sample", "sweeps", "rejected", "filter_id")),
    "reading": ("readings", "", (
        "id", "test", "derivation", "role", "kind", "status", "sweeps", "rejected", "snr_db", "residual_noise_uv",
        "reproducibility", "step", "average_id")),
    "alarm": ("alarms", "", (
        "id", "kind", "state", "priority", "cause", "test", "side", "code", "sentence", "opened_sample",
        "change_sample", "time_to_alarm_s")),
    "baseline": ("baselines", "baseline", (
        "id", "active", "test", "kind", "person", "reason", "first_accepted", "filter_id", "averages")),
    "event": ("events", "event", ("id", "kind", "text", "at", "entered_at", "person")),
    "attendance": ("persons", "attendance", ("name", "credential", "function", "uid", "since", "until")),
    "episode": ("episodes", "episode", ("id", "alarm", "opened_sample", "outcome", "entries")),
}  # fmt: skip
_MARKER = ("label", "status", "latency_ms", "onset_ms", "amplitude_uv", "provenance")
_GAP = ("first_sample", "samples", "exact", "padded", "cause")
_MEASURE = ("label", "status", "amplitude_uv", "value", "unit")
_DEFAULTS = {"kind": "average", "provenance": "auto"}  # what the journal leaves out because it is the usual
SCHEMA: dict[str, str] = {
    "meta": "key TEXT PRIMARY KEY, value",
    "kinds": "kind TEXT PRIMARY KEY, lines INTEGER",
    **{table: f"n INTEGER PRIMARY KEY, sample INTEGER, {', '.join(columns)}" for table, _, columns in _ROWS.values()},
    "markers": f"n INTEGER, sample INTEGER, {', '.join(_MARKER)}",
    "measures": f"n INTEGER, sample INTEGER, {', '.join(_MEASURE)}",
    "deliveries": "test TEXT, output INTEGER, deliveries INTEGER, ok INTEGER, refused INTEGER, no_contact INTEGER, "
                  "first_n INTEGER, first_sample INTEGER, last_n INTEGER, last_sample INTEGER, "
                  "PRIMARY KEY (test, output)",
    "gaps": "n INTEGER PRIMARY KEY, sample INTEGER, source TEXT, first_sample, samples, exact, padded, cause",
    "segments": "segment INTEGER PRIMARY KEY, file, first_sample, rate_hz, inputs, samples_per_record, records, state",
}  # fmt: skip


class Rows:
    """Lines into tables, within the caller's transaction; counts are written by `finish`, so that a line which only
    counts (most do: there are two of each delivery) costs no statement."""

    def __init__(self, sql: sqlite3.Connection) -> None:
        self._sql = sql
        self._kinds: Counter[str] = Counter()
        self._deliveries: dict[tuple[object, object], list[int]] = {}
        self._facts: dict[str, object] = {}

    def put(self, line: Line) -> None:
        """All rows of one line; a line whose data has another shape gives rows with NULL, never an error."""
        data = line.data if isinstance(line.data, dict) else {}
        kind = line.kind
        self._kinds[kind] += 1
        if line.n == 1:
            self._facts["opened_utc"] = line.t_utc
        self._facts["last_utc"] = line.t_utc
        if kind in _ROWS:
            self._row(line, data)
        elif kind == "delivery":
            self._delivery(line, data)
        elif kind == "gap":
            self._insert("gaps", [line.n, line.sample, "device", *_values(data.get("gap"), _GAP)])
        elif kind == "raw":
            self._raw(line, data)
        elif kind in ("case", "close"):
            self._case(line, data)

    def finish(self, **facts: object) -> None:
        """Write the counts and the facts of `meta`."""
        sql = self._sql
        sql.executemany(
            "INSERT INTO kinds VALUES (?, ?) ON CONFLICT (kind) DO UPDATE SET lines = lines + excluded.lines",
            sorted(self._kinds.items()),
        )
        sql.executemany(
            "INSERT INTO deliveries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (test, output) DO UPDATE SET "
            "deliveries = deliveries + excluded.deliveries, ok = ok + excluded.ok, "
            "refused = refused + excluded.refused, no_contact = no_contact + excluded.no_contact, "
            "last_n = excluded.last_n, last_sample = excluded.last_sample",
            [[*key, *counts] for key, counts in self._deliveries.items()],
        )
        sql.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)",
                        [(key, _cell(value)) for key, value in sorted({**self._facts, **facts}.items())])

    def _row(self, line: Line, data: dict[str, Any]) -> None:
        table, key, columns = _ROWS[line.kind]
        row = data.get(key) if key else data
        row = row if isinstance(row, dict) else {}
        if line.kind == "attendance" and isinstance(row.get("person"), dict):
            row = {**row, **row["person"]}
        if line.kind == "baseline" and isinstance(row.get("active"), str):  # `baseline.activate` names one
            row = {**row, "id": row["active"], "active": True}
        self._insert(table, [line.n, line.sample, *_values(row, columns)])
        for part, names in (("markers", _MARKER), ("measures", _MEASURE)) if line.kind == "reading" else ():
            items = row.get(part)
            for item in items if isinstance(items, list) else ():
                self._insert(part, [line.n, line.sample, *_values(item, names)])

    def _delivery(self, line: Line, data: dict[str, Any]) -> None:
        key = (_cell(data.get("test", "")), _cell(data.get("output", -1)))
        counts = self._deliveries.setdefault(key, [0, 0, 0, 0, line.n, line.sample, 0, 0])
        counts[0] += 1
        for i, name in enumerate(("ok", "refused", "no_contact")):
            counts[i + 1] += bool(data.get(name))
        counts[6:] = [line.n, line.sample]

    def _raw(self, line: Line, data: dict[str, Any]) -> None:
        state, segment = data.get("state"), data.get("segment")
        if state == "open":
            inputs, rate, ms = data.get("inputs"), data.get("rate_hz"), data.get("record_ms")
            per_record = rate * ms // 1000 if isinstance(rate, int) and isinstance(ms, int) else 0
            self._insert("segments", [segment, data.get("file"), data.get("first_sample"), rate,
                                      len(inputs) if isinstance(inputs, list) else 0, per_record, 0, state])
        elif state == "gap":
            self._insert("gaps", [line.n, line.sample, "record", *_values(data, _GAP)])
        elif state in ("synced", "closed", "suspect"):
            self._sql.execute(
                "UPDATE segments SET records = ?, state = CASE ? WHEN 'synced' THEN state ELSE ? END "
                "WHERE segment = ?", [_cell(data.get("records")), state, state, _cell(segment)],
            )

    def _case(self, line: Line, data: dict[str, Any]) -> None:
        """The state word, and what the header says."""
        state = data.get("state")
        if line.kind == "close":
            self._facts |= {"state": state or "closed", "closed_utc": line.t_utc}
        elif state in ("open", "resumed", "interrupted"):
            self._facts |= {"state": "interrupted" if state == "interrupted" else "open", "closed_utc": ""}
            if state == "open":
                self._facts |= {key: data.get(key, "") for key in ("template", "source", "person", "version")}

    def _insert(self, table: str, values: list[object]) -> None:
        marks = ", ".join("?" * len(values))
        self._sql.execute(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", [_cell(v) for v in values])  # noqa: S608


def _values(row: Any, columns: tuple[str, ...]) -> list[object]:
    found = row if isinstance(row, dict) else {}
    return [_cell(found.get(name, _DEFAULTS.get(name))) for name in columns]


def _cell(value: object) -> object:
    """SQLite has no lists, and no integers above 63 bits."""
    if isinstance(value, (dict, list)):
        return canonical(value).decode()
    if isinstance(value, int) and not (-(1 << 63) <= value < 1 << 63):
        return str(value)
    return value
