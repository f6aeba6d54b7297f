"""N20-P23 on `real_ssep` by the daemon: shape of sphara-sep, noise of artacs-sep, over USB, triggered by real pulses.

Left: 300 sweeps of the shape.  Truth: the same markers, by the same definition, on the noiseless shape.  Right: the
same noise and the same pulses, the response of that side lost from the first sample on: zero stimulus.
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from bench.figures.row import Row
from bench.figures.script import Script, cases
from firmware_sim.patient.recorded import Recordings, recordings_dir
from ionmd.analyze import analyze
from ionmd.case.journal import JOURNAL, read_lines
from ionmd.catalog import resolve_test

LEFT, RIGHT = ("ssep_median_left", "CP4-Fpz"), ("ssep_median_right", "CP3-Fpz")
SWEEPS, SECONDS, RATE_HZ = 300, 75.0, 10_000
LATENCY_MS, AMPLITUDE = 0.3, 0.15
LOST = """
[[event]]
kind = "loss"
at_s = 0
nerves = ["median_right"]
stage = "cortex"
ratio = 0.0
"""


def rows(quick: bool) -> list[Row]:
    seeds = range(1, 4 if quick else 21)
    script = Script(SECONDS, 8, RATE_HZ, 50, extra=LOST)
    for test, _ in (LEFT, RIGHT):
        script.at(5.0, "test.set", test=test, rate_hz=5.1, sweeps=SWEEPS)
    script.start(6.0, [LEFT[0], RIGHT[0]])
    truth = noiseless()
    near = size = both = silent = 0
    errors = []
    for case in cases(script, "real_ssep", seeds):
        left, right = (average(case, *of) for of in (LEFT, RIGHT))
        n20 = abs(marker(left, "N20") - truth["N20"])
        p2p = abs(measure(left, "N20-P23") / truth["N20-P23"] - 1.0)
        errors.append((n20, p2p))
        near, size = near + (n20 <= LATENCY_MS), size + (p2p <= AMPLITUDE)
        both += n20 <= LATENCY_MS and p2p <= AMPLITUDE
        silent += right["status"] in ("absent", "uncertain")
    n = len(seeds)
    worst = max(e[0] for e in errors), max(e[1] for e in errors)
    return [
        Row(f"N20-P23 on real_ssep, {SWEEPS} sweeps, {n} seeds",
            "latency within 0.3 ms and amplitude within 15 % in 19 of 20",
            f"both in {both} of {n}; latency {near} (worst {worst[0]:.2f} ms), amplitude {size} (worst {worst[1]:.0%})",
            both * 20 >= 19 * n),
        Row("same noise and pulses, no response", "absent or uncertain in 20 of 20", f"{silent} of {n}", silent == n),
    ]  # fmt: skip


def average(case: Path, test: str, derivation: str) -> dict[str, Any]:
    """The first finished average of a derivation in the record."""
    for line in read_lines(case / JOURNAL):
        if line.kind == "reading" and line.data["test"] == test and line.data["derivation"] == derivation:
            reading: dict[str, Any] = line.data
            if reading.get("kind", "average") == "average" and reading["sweeps"] >= 0.8 * SWEEPS:
                return reading
    raise RuntimeError(f"{case}: no finished average of {test} {derivation}")


def marker(reading: dict[str, Any], label: str) -> float:
    """Latency in ms; nan when it was not found."""
    return next((float(m["latency_ms"]) for m in reading["markers"] if m["label"] == label and m.get("latency_ms")),
                float("nan"))  # fmt: skip


def measure(reading: dict[str, Any], label: str) -> float:
    return next((float(m["amplitude_uv"]) for m in reading["measures"] if m["label"] == label), float("nan"))


def noiseless() -> dict[str, float]:
    """The test's own markers on the shape alone."""
    definition = resolve_test(LEFT[0])
    start, stop = (round(ms * RATE_HZ / 1000) for ms in (-20, 60))
    t_ms = np.arange(start, stop) * 1000.0 / RATE_HZ
    shape = Recordings.open(recordings_dir()).evaluate(t_ms)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "shape.csv"
        with file.open("w", newline="") as handle:
            out = csv.writer(handle)
            out.writerow(["time_ms", LEFT[1]])
            out.writerows(zip(t_ms, shape, strict=True))
        (wave,) = analyze(file, definition)["waveforms"]
    return {"N20": marker(wave, "N20"), "N20-P23": measure(wave, "N20-P23")}
