"""Free-running EMG: bursts where they are labelled, outliers of the converter told from EMG."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bench.accuracy.row import Row, data_root, definition, run

EMG = """
[test]
id = "emg_recording"
modality = "emg"
[filter]
kind = "butterworth"
order = 2
band_hz = [20.0, 0.0]
zero_phase = false
[emg]
outlier_uv = 25.0
"""


def emgdb() -> Row:
    values = np.loadtxt(data_root() / "emgdb" / "emg_healthy.txt")
    uv = values[:, 1] * 1e3
    result = run({"time_ms": np.arange(len(uv)) * 0.25, "emg": uv}, definition(EMG))["emg"]
    flagged = {round(t / 0.25) for t in result["outlier_ms"]}
    # the file's own defect: exactly 0.1 mV at every 1001st value or so, once per turn
    places = [int(k) for k in np.flatnonzero(np.abs(uv - 100.0) < 1e-9)]
    known = set()
    for due in range(999, len(uv), 1001):
        near = [k for k in places if abs(k - due) <= 12]
        known |= {min(near, key=lambda k: abs(k - due))} if near else set()
    strong = [(1.5, 2.0), (3.5, 4.3), (9.5, 10.5)]
    hit = sum(any(b["start_ms"] < hi * 1e3 and b["stop_ms"] > lo * 1e3 for b in result["bursts"]) for lo, hi in strong)
    return Row("emgdb healthy", "all single-sample 0.1 outliers flagged, not counted as EMG",
               f"{len(flagged & known)} of {len(known)} outliers flagged, {len(flagged - known)} other samples; "
               f"{hit} of 3 stronger groups exceed five times the typical activity",
               flagged == known)  # fmt: skip


def uci() -> Row:
    folder = data_root() / "uci-emg-gestures"
    values = np.loadtxt(folder / "1_raw_data_13-12_22.03.16.txt", skiprows=1)
    segments = np.loadtxt(folder / "labels_segments.csv", delimiter=",", skiprows=1)
    columns: dict[str, Iterable[float]] = {"time_ms": values[:, 0]}  # in uneven steps, as the file has them
    columns |= {f"ch{k}": values[:, k] * 1e6 for k in range(1, 9)}
    result = run(columns, definition(EMG))
    bursts = [(b["start_ms"], b["stop_ms"]) for w in result.values() for b in w["bursts"]]
    hit = rest = 0
    for kind, start, stop in segments:
        inside = any(x < stop and y > start for x, y in bursts)
        hit += kind > 1 and inside
        rest += kind == 1 and inside
    contractions = int((segments[:, 0] > 1).sum())
    return Row("uci-emg-gestures", "a burst in every contraction, none in rest",
               f"{hit} of {contractions} contractions, {rest} of {len(segments) - contractions} rests",
               hit == contractions and rest == 0)  # fmt: skip
