"""`ionmd analyze`: markers on averaged waveforms of a file.

In: a CSV file (design 6) and a test definition.  Out: the result that is printed as JSON.  Always: the same filter and
the same estimators as the daemon's; columns `NAME.a` and `NAME.b` are halves and their difference is the noise; without
halves the noise comes from a stretch that holds no response, and without that the verdict is `uncertain`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ionmd.analyze.start import stimulus_onset_ms
from ionmd.analyze.table import Table, read_table
from ionmd.catalog.expression import parse
from ionmd.dsp import noise as noises
from ionmd.dsp.design import design
from ionmd.dsp.zerophase import filter_average, pad_length
from ionmd.errors import ConfigError
from ionmd.modality.despike import Despike
from ionmd.modality.emg import ENVELOPE_MS, EmgStream
from ionmd.modality.evoked import Measured, measure_average, response_window
from ionmd.modality.motor import measure_sweep
from ionmd.modality.tof import measure_train
from ionmd.model import Marker
from ionmd.testdef import TestDefinition

F64 = npt.NDArray[np.float64]
MIN_NOISE_SAMPLES = 24
HOLE_MS = ENVELOPE_MS  # a longer step in the time of an EMG: the filter begins anew behind it


@dataclass(frozen=True)
class Wave:
    """One waveform of the file; `rules` names the derivation whose marker rules it takes."""

    name: str
    rules: str
    mean: F64
    halves: tuple[F64, F64] | None


def analyze(path: str | Path, definition: TestDefinition) -> dict[str, Any]:
    """The result of design 6 as plain data.  Raises ConfigError for a file or test that do not fit."""
    if definition.filter.mains == "subtract":
        raise ConfigError(
            f"{definition.test.id}: filter.mains = subtract came; the mains is taken off sweeps before they are "
            "averaged, and this file holds averages: set it to keep, or play the recording with `ionmd replay`"
        )
    table = read_table(path, may_be_uneven=definition.test.modality == "emg")
    zero_ms, note = _time_zero(table, definition)
    waves = _waves(table, definition)
    modality = definition.test.modality
    if modality in ("emg", "eeg"):
        results = [_continuous(w, table, definition) for w in waves]
    elif modality == "tof":
        results = _trains(waves, table, definition, zero_ms)
    else:
        results = [_one(w, table, definition, zero_ms) for w in waves]
    out: dict[str, Any] = {"file": str(path), "test": definition.test.id, "waveforms": results}
    if definition.trigger.onset_column:
        out["stimulus_onset_ms"] = zero_ms
    if table.time_ms is not None:
        steps = np.diff(table.time_ms)
        note = (f"time_ms rises in steps of {steps.min():g} to {steps.max():g} ms: rows were taken as {table.dt_ms:g} "
                "ms apart, times are the file's own")  # fmt: skip
        out["holes_ms"] = [[table.at_ms(p.stop - 1), table.at_ms(p.stop)] for p in table.pieces(HOLE_MS)[:-1]]
    if note:
        out["note"] = note
    return out


# ---------------------------------------------------------------- columns


def _time_zero(table: Table, definition: TestDefinition) -> tuple[float, str]:
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


def _waves(table: Table, definition: TestDefinition) -> list[Wave]:
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


# ---------------------------------------------------------------- one waveform


class _Cut:
    """The epoch of a definition on the time axis of a file, and the filter at its rate."""

    def __init__(self, table: Table, definition: TestDefinition, zero_ms: float) -> None:
        epoch = definition.epoch
        assert epoch is not None  # noqa: S101 - the loader refuses an averaged test without one
        self.definition, self.dt_ms = definition, table.dt_ms
        first = math.ceil((epoch.start_ms + zero_ms - table.t0_ms) / table.dt_ms - 1e-6)
        stop = math.ceil((epoch.stop_ms + zero_ms - table.t0_ms) / table.dt_ms - 1e-6)
        self.first, self.stop = max(0, first), min(table.samples, max(stop, 0))
        if self.stop - self.first < 8:
            raise ConfigError(
                f"{table.file}: epoch {epoch.start_ms:g} to {epoch.stop_ms:g} ms came, the file has "
                f"{table.t0_ms - zero_ms:g} to {table.t0_ms + table.dt_ms * (table.samples - 1) - zero_ms:g} ms"
            )
        self.samples = table.samples
        self.t0_ms = table.t0_ms + self.first * table.dt_ms - zero_ms
        self.sos = design(definition.filter, 1000.0 / table.dt_ms)
        base = epoch.baseline_ms or (epoch.start_ms, min(0.0, self._blank_start))
        self.baseline = self.column(base[0]), self.column(base[1])

    @property
    def _blank_start(self) -> float:
        blank = self.definition.blank
        return blank.start_ms if blank.method != "none" else 0.0

    @property
    def n(self) -> int:
        return self.stop - self.first

    def column(self, ms: float) -> int:
        return min(self.n, max(0, math.floor((ms - self.t0_ms) / self.dt_ms + 0.5)))

    def curve(self, raw: F64) -> F64:
        """The epoch: blanked, filtered, referred to its pre-stimulus mean when it has one."""
        x = raw[self.first : self.stop].copy()
        blank = self.definition.blank
        if blank.method != "none":
            a, b = self.column(blank.start_ms), self.column(blank.stop_ms)
            if b > a:
                before = x[a - 1] if a > 0 else x[min(b, self.n - 1)]
                after = x[b] if blank.method == "linear" and b < self.n else before
                x[a:b] = before + (after - before) * (np.arange(1, b - a + 1) / (b - a + 1))
        x = self.filtered(x, self.definition.filter.span_ms)
        a, b = self.baseline
        if b > a:
            x -= float(np.add.reduce(x[a:b])) / (b - a)
        return x

    def filtered(self, x: F64, span_ms: tuple[float, float] | None = None) -> F64:
        if not len(self.sos):
            return x
        span = (0, len(x))
        if span_ms is not None:
            span = (self.column(span_ms[0]), self.column(span_ms[1]))
        if span[1] - span[0] <= pad_length(self.sos):
            raise ConfigError(
                f"test {self.definition.test.id}: filter over {span[1] - span[0]} samples came, more than "
                f"{pad_length(self.sos)} were expected: lengthen the epoch"
            )
        return filter_average(self.sos, x, self.definition.filter.zero_phase, span)

    def quiet(self, raw: F64, curve: F64, derivation: str) -> list[F64]:
        """Filtered stretches without response, the most trustworthy kind that is long enough."""
        rule = self.definition.presence.noise_ms
        if rule is not None:
            offset = self.first - (self.t0_ms) / self.dt_ms
            a = max(0, math.floor(rule[0] / self.dt_ms + offset + 0.5))
            b = min(len(raw), math.floor(rule[1] / self.dt_ms + offset + 0.5))
            if b - a <= max(MIN_NOISE_SAMPLES, pad_length(self.sos)):
                raise ConfigError(f"presence.noise_ms {list(rule)} came, a stretch inside the file was expected")
            inside = self.first <= a and b <= self.stop
            return [curve[a - self.first : b - self.first] if inside else self.filtered(raw[a:b].copy())]
        least = max(MIN_NOISE_SAMPLES, pad_length(self.sos) + 1)
        a, b = self.baseline
        if b - a >= least:
            return [curve[a:b]]
        window = response_window(self.definition, derivation)
        found = [curve[: self.column(window[0])], curve[self.column(window[1]) :], *self.beyond(raw)]
        return [s for s in found if len(s) >= MIN_NOISE_SAMPLES]

    def beyond(self, raw: F64) -> list[F64]:
        """What the file holds behind the epoch, in stretches of the epoch's length, filtered like it."""
        least = max(MIN_NOISE_SAMPLES, pad_length(self.sos) + 1, self.n // 4)
        rest = raw[self.stop :]
        parts = [rest[k : k + self.n] for k in range(0, len(rest), self.n)]
        return [self.filtered(p.copy()) for p in parts if len(p) >= least]


def _require_covered(table: Table, definition: TestDefinition, wave: Wave, cut: _Cut) -> None:
    """A file that holds less than half of the time in which a response is looked for cannot say anything about it."""
    start, stop = response_window(definition, wave.rules)
    first, last = cut.t0_ms, cut.t0_ms + cut.dt_ms * (cut.n - 1)
    if not (min(stop, last) - max(start, first) >= 0.5 * (stop - start)):
        raise ConfigError(
            f"{table.file}: {wave.name} from {first:g} to {last:g} ms after time zero came, test {definition.test.id} "
            f"looks for a response at {start:g} to {stop:g} ms"
        )


def _one(wave: Wave, table: Table, definition: TestDefinition, zero_ms: float) -> dict[str, Any]:
    cut = _Cut(table, definition, zero_ms)
    _require_covered(table, definition, wave, cut)
    curve = cut.curve(wave.mean)
    if definition.test.modality in ("motor", "temg"):
        return _row(wave.name, measure_sweep(definition, wave.rules, curve, cut.t0_ms, cut.dt_ms))
    window_ms = response_window(definition, wave.rules)
    window = (cut.column(window_ms[0]), cut.column(window_ms[1]) + 1)
    if wave.halves is not None:
        halves = [cut.curve(h) for h in wave.halves]
        difference = 0.5 * (wave.halves[0] - wave.halves[1])
        estimate = noises.estimate(curve, halves, [], [], window, cut.dt_ms, cut.beyond(difference))
    else:
        estimate = noises.estimate_from_stretches(curve, cut.quiet(wave.mean, curve, wave.rules), window, cut.dt_ms)
    return _row(wave.name, measure_average(definition, wave.rules, curve, cut.t0_ms, cut.dt_ms, estimate))


def _row(name: str, m: Measured) -> dict[str, Any]:
    row = {
        "name": name,
        "status": m.status,
        "presence_score": m.presence_score,
        "snr_db": m.snr_db,
        "residual_noise_uv": m.residual_noise_uv,
        "markers": [_plain(x) for x in m.markers if x.status != "absent"],
        "measures": [msgspec.to_builtins(x) for x in m.measures if x.status != "absent" or x.amplitude_uv is not None],
    }
    if m.reproducibility is not None:
        row["reproducibility"] = m.reproducibility
    return row


def _plain(marker: Marker) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(marker)
    return plain


def _trains(waves: list[Wave], table: Table, definition: TestDefinition, zero_ms: float) -> list[dict[str, Any]]:
    """Columns in groups of four: the responses of one train each."""
    if len(waves) % 4:
        raise ConfigError(f"{table.file}: {len(waves)} waveforms came, four per train were expected")
    cut = _Cut(table, definition, zero_ms)
    rows = []
    for k in range(0, len(waves), 4):
        four = waves[k : k + 4]
        t = measure_train(definition, four[0].rules, [cut.curve(w.mean) for w in four], cut.t0_ms, cut.dt_ms)
        measured = Measured(t.status, t.markers, t.measures, t.count / 4.0)
        rows.append({**_row(four[0].name, measured), "count": t.count, "ratio": t.ratio})
    return rows


def _continuous(wave: Wave, table: Table, definition: TestDefinition) -> dict[str, Any]:
    """Free-running EMG: bursts and windows over the whole column."""
    rule = definition.emg
    if rule is None:
        raise ConfigError(f"test {definition.test.id}: [emg] is missing; continuous EEG is not analysed")
    rate_hz = 1000.0 / table.dt_ms
    # the first pass learns what recurs, so that the second finds it from the start
    scout = Despike(rule.outlier_uv, 1)
    scout.feed(wave.mean[:, None])
    despike = Despike(rule.outlier_uv, 1, scout.recurring)
    x = np.concatenate([despike.feed(wave.mean[:, None]), despike.finish()])[:, 0]
    sos = design(definition.filter, rate_hz)
    if len(sos):
        x = np.concatenate([filter_average(sos, x[piece], False) for piece in table.pieces(HOLE_MS)])
    stream = EmgStream(rule, 1, rate_hz)
    windows, bursts = stream.feed(x[:, None])
    ended = [b for b in [*bursts, *stream.finish()] if b.stop is not None]
    rms = float(np.sqrt(np.mean([w.rms_uv[0] ** 2 for w in windows]))) if windows else None
    quiet = stream.quiet_uv(0)

    ms = table.at_ms
    return {
        "name": wave.name,
        "status": "present" if ended else "absent",
        "presence_score": _loudness(max((b.rms_uv for b in ended), default=0.0), quiet),
        "snr_db": None,
        "residual_noise_uv": quiet if math.isfinite(quiet) else None,
        "markers": [],
        "measures": [],
        "rms_uv": rms,
        "bursts": [
            {"start_ms": ms(b.start), "stop_ms": ms(b.stop or b.start), "peak_uv": b.peak_uv, "rms_uv": b.rms_uv}
            for b in ended
        ],
        "outliers": int(despike.count[0]),
        "outlier_ms": [ms(sample) for sample, _ in despike.places],
    }  # fmt: skip


def _loudness(rms: float, quiet: float) -> float:
    return rms / (rms + quiet) if rms > 0.0 and math.isfinite(quiet) else 0.0


__all__ = ["analyze"]
