"""The README's picture: one finished average with its markers, from a run of the daemon on the simulated patient.

    python -m bench.picture docs/average.png
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from ionmd.agenda import Step
from ionmd.config import Config, Device
from ionmd.daemon import Daemon
from ionmd.drivers.demo import Demo
from ionmd.model import decode_curve

RATE = 10_000
TEST = "ssep_median_left"


def record() -> tuple[Any, dict[str, Any]]:
    """(average, readings by derivation) of 300 sweeps."""
    kept: list[tuple[str, Any]] = []
    device = Device(driver="demo", inputs=8, rate_hz=RATE, block_samples=100)
    steps = [
        Step(1000, "person.sign_in", {"name": "demo"}), Step(1500, "case.open", {"case_id": "picture"}),
        Step(2000, "stim.acquire", {}), Step(2500, "test.set", {"test": TEST, "rate_hz": 7.0}),
        Step(3000, "test.start", {"tests": [TEST], "lease": "script"}),
    ]
    with tempfile.TemporaryDirectory() as folder:
        daemon = Daemon(
            msgspec.structs.replace(Config(), device=device), Path(folder), speed=None, duration_s=50.0, agenda=steps,
            make_amplifier=lambda wanted: Demo(wanted, "quiet", 7),
            on_event=lambda topic, data, sample, n: kept.append((topic, data)),
        )
        daemon.start()
        daemon.engine.finished.wait(120)
        daemon.stop()
    average = next(d for t, d in kept if t == "average" and d.kind == "average")
    readings = {d.derivation: d for t, d in kept if t == "reading" and d.average_id == average.id}
    return average, readings


def draw(path: str) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    average, readings = record()
    curves = decode_curve(average.curve)
    figure, axes = pyplot.subplots(len(average.derivations), 1, figsize=(8, 7), sharex=True)
    for axis, label, curve in zip(axes, average.derivations, curves, strict=True):
        at_ms = [average.curve.t0_ms + i * average.curve.dt_ms for i in range(len(curve))]
        axis.plot(at_ms, curve, color="#1f4e79", linewidth=1.2)
        reading = readings[label]
        for marker in reading.markers:
            value = float(curve[round((marker.latency_ms - average.curve.t0_ms) / average.curve.dt_ms)])
            colour = "#b03a2e" if marker.status == "present" else "#999999"
            axis.plot([marker.latency_ms], [value], "o", color=colour, markersize=4)
            axis.annotate(f"{marker.label} {marker.latency_ms:.1f} ms", (marker.latency_ms, value),
                          textcoords="offset points", xytext=(7, -3), fontsize=8, color=colour)
        axis.axvline(0.0, color="#cccccc", linewidth=0.8)
        axis.invert_yaxis()
        axis.set_xlim(-5, 50)
        axis.set_ylabel(f"{label}\nuV", fontsize=8)
        axis.set_title(f"{reading.status}, {reading.sweeps} sweeps, {reading.rejected} rejected, "
                       f"noise {reading.residual_noise_uv:.2f} uV, {reading.stimulus.delivered_ma:.1f} mA delivered",
                       fontsize=8, loc="left")
        axis.tick_params(labelsize=8)
    axes[-1].set_xlabel("ms after the stimulus (negative up)", fontsize=8)
    figure.suptitle("Median nerve SSEP, left: the daemon's finished average on the simulated patient", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(sys.argv[1] if len(sys.argv) > 1 else "docs/average.png")
