"""Whole recordings of free-running EMG: bursts, outliers, and rows that come unevenly.

In: one column in uV.  Out: plain data.  Always: an outlier of the converter is flagged and is no EMG; behind a hole the
filter begins anew; times are the file's own.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ionmd.analyze.columns import Wave
from ionmd.analyze.table import Table
from ionmd.dsp.design import design
from ionmd.dsp.zerophase import filter_average
from ionmd.errors import ConfigError
from ionmd.modality.despike import Despike
from ionmd.modality.emg import ENVELOPE_MS, EmgStream
from ionmd.testdef import TestDefinition

F64 = npt.NDArray[np.float64]
HOLE_MS = ENVELOPE_MS  # a longer step in the time of an EMG: the filter begins anew behind it


def uneven(time_ms: F64, dt_ms: float) -> str:
    """What was assumed of a file whose time is uneven."""
    steps = np.diff(time_ms)
    return (f"time_ms rises in steps of {steps.min():g} to {steps.max():g} ms: rows were taken as {dt_ms:g} ms apart, "
            "times are the file's own")  # fmt: skip


def continuous(wave: Wave, table: Table, definition: TestDefinition) -> dict[str, Any]:
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
