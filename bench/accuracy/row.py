"""What every row needs: the recordings' place, `ionmd analyze` on columns, small statistics."""

from __future__ import annotations

import csv
import math
import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ionmd.analyze import analyze
from ionmd.catalog import load_test
from ionmd.modality.evoked import Measured
from ionmd.testdef import TestDefinition

F64 = npt.NDArray[np.float64]


@dataclass
class Row:
    name: str
    asked: str
    measured: str
    ok: bool


def data_root() -> Path:
    return Path(os.environ.get("IONMD_DATA", "../shared/data"))


def definition(text: str) -> TestDefinition:
    """A test file from its text."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "test.toml"
        file.write_text(text)
        return load_test(file)


def run(columns: dict[str, Iterable[float]], test: TestDefinition) -> dict[str, dict[str, Any]]:
    """`ionmd analyze` on columns (first: time_ms); waveforms by name."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "waves.csv"
        with file.open("w", newline="") as handle:
            writer = csv.writer(handle)
            writer.writerow(columns)
            writer.writerows(zip(*[[format(v, ".9g") for v in c] for c in columns.values()], strict=True))
        return {w["name"]: w for w in analyze(file, test)["waveforms"]}


def peak_rules(rules: list[tuple[str, str, float, float]], extra: str = "") -> str:
    return "".join(
        f'[[marker]]\nlabel = "{name}"\npolarity = "{"positive" if sign == "+" else "negative"}"\n'
        f"window_ms = [{lo}, {hi}]\norder = {i + 1}\n{extra}\n"
        for i, (name, sign, lo, hi) in enumerate(rules)
    )


def spearman(x: list[float], y: list[float]) -> float:
    ranks = [np.argsort(np.argsort(v)) for v in (x, y)]
    return float(np.corrcoef(*ranks)[0, 1])


def marks_of(m: Measured) -> dict[str, Any]:
    out: dict[str, Any] = {x.label: x for x in m.markers}
    return out | {x.label: x for x in m.measures}


def coloured(rng: np.random.Generator, samples: int, dt_ms: float, low_hz: float, high_hz: float) -> F64:
    """Unit-variance noise between two edges (second-order slopes), with a 1/f tilt."""
    f = np.fft.rfftfreq(2 * samples, dt_ms / 1e3)
    f[0] = f[1]
    gain = 1 / np.sqrt((1 + (low_hz / f) ** 4) * (1 + (f / high_hz) ** 4)) / np.sqrt(1 + 300.0 / f)
    x = np.fft.irfft(gain * (rng.normal(size=len(f)) + 1j * rng.normal(size=len(f))), 2 * samples)[:samples]
    # irfft of independent lines: variance is the sum of 4 gain^2 / (2 samples)^2
    return x / (math.sqrt(float(np.sum(4.0 * gain**2))) / (2 * samples))
