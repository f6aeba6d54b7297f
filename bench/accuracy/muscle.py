"""Muscle responses: artefact, added responses, a recruitment curve."""

from __future__ import annotations

import csv
from collections.abc import Iterable

import numpy as np

from bench.accuracy.row import F64, Row, data_root, definition, run, spearman
from ionmd.modality.motor import measure_sweep

MEP = """
[test]
id = "mep_recording"
modality = "motor"
[epoch]
start_ms = 0.0
stop_ms = 99.0
[filter]
kind = "none"
[blank]
start_ms = -0.5
stop_ms = 3.0
method = "hold"
[[marker]]
label = "MEP"
polarity = "negative"
kind = "onset"
window_ms = [8.0, 50.0]
[[measure]]
label = "MEP p-p"
kind = "peak_to_peak"
window_ms = [8.0, 70.0]
"""


def muscle_response(t_ms: F64, onset_ms: float, p2p_uv: float, phases: int, length_ms: float, sign: float) -> F64:
    """A bi- or polyphasic response that begins at `onset_ms` with a finite slope."""
    u = (t_ms - onset_ms) / length_ms
    wave = np.where((u >= 0) & (u <= 1), np.sin(np.pi * phases * u) * np.sqrt(np.clip(np.sin(np.pi * u), 0, 1)), 0.0)
    return sign * wave * p2p_uv / np.ptp(wave)


def mep_artefact() -> Row:
    traces = np.load(data_root() / "mep-artefact-only" / "traces_float32.npy").astype(float)
    test = definition(MEP)
    t_ms = np.arange(traces.shape[1]) / 22.0
    absent = sum(measure_sweep(test, "m", x, 0.0, 1 / 22.0).status == "absent" for x in traces)
    found = late = tried = timed = 0
    for uv in (50.0, 100.0):
        for phases in (2, 3, 5):
            rng = np.random.default_rng(int(uv) + phases)
            for x in traces:
                onset = rng.uniform(15.0, 40.0)
                y = x + muscle_response(t_ms, onset, uv, phases, rng.uniform(6, 8) * phases / 2, rng.choice([-1, 1]))
                m = measure_sweep(test, "m", y, 0.0, 1 / 22.0)
                tried += 1
                found += m.status != "absent"
                if uv == 100.0 and m.markers:
                    timed += 1
                    late += abs((m.markers[0].onset_ms or 0.0) - onset) > 0.5
    ok = absent >= 0.97 * len(traces) and found >= 0.97 * tried and late <= 0.03 * timed
    return Row("mep-artefact-only", "absent >= 97 %; added responses found >= 97 %, onset within 0.5 ms at 100 uV",
               f"absent {absent / len(traces):.1%}; found {found / tried:.1%}; onset within 0.5 ms "
               f"{1 - late / timed:.1%}", ok)  # fmt: skip


def monstim() -> Row:
    folder = data_root() / "monstim-mwave"
    sweeps: dict[str, list[tuple[float, float]]] = {}
    with (folder / "Example Data 2.csv").open() as handle:
        for r in csv.DictReader(handle):
            sweeps.setdefault(r["recording_index"], []).append((float(r["time_point"]), float(r["amplitude_mV"]) * 1e3))
    with (folder / "reference_p2p_numpy.csv").open() as handle:
        reference = list(csv.DictReader(handle))
    test = definition(MEP.replace("stop_ms = 99.0", "stop_ms = 6.8").replace("start_ms = 0.0\n", "start_ms = -1.0\n")
                      .replace("stop_ms = 3.0", "stop_ms = 0.5").replace('method = "hold"', 'method = "none"')
                      .replace("[8.0, 50.0]", "[0.8, 6.0]").replace("[8.0, 70.0]", "[0.8, 6.5]"))  # fmt: skip
    columns: dict[str, Iterable[float]] = {"time_ms": [round(t, 6) for t, _ in sweeps["0"]]}
    columns |= {k: [v for _, v in s] for k, s in sweeps.items()}
    result = run(columns, test)
    sizes = [result[r["recording_index"]]["measures"][0]["amplitude_uv"] for r in reference]
    truth = [float(r["p2p_mV_0.8_6.5ms"]) * 1e3 for r in reference]
    worst = max(abs(a / b - 1.0) for a, b in zip(sizes, truth, strict=True))
    falls = [largest_fall(v) for v in (sizes, truth)]
    return Row("monstim-mwave", "peak to peak within 0.5 %; recruitment monotone to its plateau",
               f"worst {worst:.3%}; rank correlation with the stimulus {spearman(list(range(len(sizes))), sizes):.3f}; "
               f"largest fall on the way up {falls[0]:.1%} (the reference's own: {falls[1]:.1%})",
               worst <= 0.005 and falls[0] <= falls[1] + 0.005)  # fmt: skip


def largest_fall(sizes: list[float]) -> float:
    """Of a running mean of five, before it reaches 90 % of its top, as a share of the top."""
    smooth = np.convolve(sizes, np.ones(5) / 5, "valid")
    rising = smooth[: int(np.argmax(smooth >= 0.9 * smooth.max())) + 1]
    return float(np.max(np.maximum.accumulate(rising) - rising)) / float(smooth.max())
