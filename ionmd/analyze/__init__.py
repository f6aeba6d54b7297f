"""`ionmd analyze`: markers on averaged waveforms of a file.

In: a CSV file (design 6) and a test definition.  Out: the result that is printed as JSON.  Always: the same filter and
the same estimators as the daemon's; columns `NAME.a` and `NAME.b` are halves and their difference is the noise; without
halves the noise comes from a stretch that holds no response, and without that the verdict is `uncertain`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from ionmd.analyze.columns import Wave, time_zero, waves_of
from ionmd.analyze.continuous import HOLE_MS, continuous, uneven
from ionmd.analyze.cut import Cut
from ionmd.analyze.table import Table, read_table
from ionmd.dsp import noise as noises
from ionmd.errors import ConfigError
from ionmd.modality.evoked import Measured, measure_average, response_window
from ionmd.modality.motor import measure_sweep
from ionmd.modality.tof import measure_train
from ionmd.model import Marker
from ionmd.testdef import TestDefinition


def analyze(path: str | Path, definition: TestDefinition) -> dict[str, Any]:
    """The result of design 6 as plain data.  Raises ConfigError for a file or test that do not fit."""
    if definition.filter.mains == "subtract":
        raise ConfigError(
            f"{definition.test.id}: filter.mains = subtract came; the mains is taken off sweeps before they are "
            "averaged, and this file holds averages: set it to keep, or play the recording with `ionmd replay`"
        )
    table = read_table(path, may_be_uneven=definition.test.modality == "emg")
    zero_ms, note = time_zero(table, definition)
    waves = waves_of(table, definition)
    modality = definition.test.modality
    if modality in ("emg", "eeg"):
        results = [continuous(w, table, definition) for w in waves]
    elif modality == "tof":
        results = _trains(waves, table, definition, zero_ms)
    else:
        results = [_one(w, table, definition, zero_ms) for w in waves]
    out: dict[str, Any] = {"file": str(path), "test": definition.test.id, "waveforms": results}
    if definition.trigger.onset_column:
        out["stimulus_onset_ms"] = zero_ms
    if table.time_ms is not None:
        note = "; ".join(filter(None, (note, uneven(table.time_ms, table.dt_ms))))
        out["holes_ms"] = [[table.at_ms(p.stop - 1), table.at_ms(p.stop)] for p in table.pieces(HOLE_MS)[:-1]]
    if note:
        out["note"] = note
    return out


def _require_covered(table: Table, definition: TestDefinition, wave: Wave, cut: Cut) -> None:
    """A file that holds less than half of the time in which a response is looked for cannot say anything about it."""
    start, stop = response_window(definition, wave.rules)
    first, last = cut.t0_ms, cut.t0_ms + cut.dt_ms * (cut.n - 1)
    if not (min(stop, last) - max(start, first) >= 0.5 * (stop - start)):
        raise ConfigError(
            f"{table.file}: {wave.name} from {first:g} to {last:g} ms after time zero came, test {definition.test.id} "
            f"looks for a response at {start:g} to {stop:g} ms"
        )


def _one(wave: Wave, table: Table, definition: TestDefinition, zero_ms: float) -> dict[str, Any]:
    cut = Cut(table, definition, zero_ms)
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
    cut = Cut(table, definition, zero_ms)
    rows = []
    for k in range(0, len(waves), 4):
        four = waves[k : k + 4]
        t = measure_train(definition, four[0].rules, [cut.curve(w.mean) for w in four], cut.t0_ms, cut.dt_ms)
        measured = Measured(t.status, t.markers, t.measures, t.count / 4.0)
        rows.append({**_row(four[0].name, measured), "count": t.count, "ratio": t.ratio})
    return rows


__all__ = ["analyze"]
