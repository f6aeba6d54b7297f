"""Estimators against real recordings and simulations: `python -m bench.accuracy [--json] [ROW...]`.

Recordings are read from $IONMD_DATA (default ../shared/data); each row says what was asked, what was measured and
whether it was met.  The same functions serve the tests with smaller counts.  docs/accuracy.md keeps the printed table.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ionmd.analyze import analyze
from ionmd.catalog import load_test
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


# ---------------------------------------------------------------- auditory recordings

EPL = """
[test]
id = "animal_abr"
modality = "evoked"
[epoch]
start_ms = 0.0
stop_ms = 8.5
[filter]
kind = "butterworth"
order = 1
band_hz = [100.0, 5000.0]
zero_phase = true
"""
# The program that made the marks says 200-10000 Hz, but the poles in its files (0.99347, 0.73616 at 100 kHz) are those
# of 100-5000 Hz: its edges were taken relative to the rate instead of half of it.  With 200-10000 Hz latencies agree
# all the same, amplitudes differ by up to 0.18 uV at 70 dB.


def epl_abr() -> Row:
    """Every human mark at 45 and 70 dB; one set of windows serves both levels."""
    folder = data_root() / "epl-abr-3levels"
    with (folder / "marks.tsv").open() as handle:
        marks = {float(r["Level"]): r for r in csv.DictReader(handle, delimiter="\t")}
    with (folder / "waveforms_uv.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    columns = {k: [float(r[k]) for r in rows] for k in ("time_ms", "db45", "db70")}
    windows = [("P1", "+", 1.0, 1.6), ("N1", "-", 1.4, 2.1), ("P2", "+", 1.9, 2.5), ("N2", "-", 2.3, 3.0),
               ("P3", "+", 2.7, 3.3), ("N3", "-", 3.1, 3.8), ("P4", "+", 3.6, 4.5), ("N4", "-", 4.2, 5.1),
               ("P5", "+", 4.9, 5.9), ("N5", "-", 5.4, 6.5)]  # fmt: skip
    result = run(columns, definition(EPL + peak_rules(windows)))
    worst_ms = worst_uv = 0.0
    missed = 0
    for level in (45.0, 70.0):
        found = {m["label"]: m for m in result[f"db{level:.0f}"]["markers"]}
        for name, _, _, _ in windows:
            if name not in found:
                missed += 1
                continue
            worst_ms = max(worst_ms, abs(found[name]["latency_ms"] - float(marks[level][f"{name} Latency"])))
            worst_uv = max(worst_uv, abs(found[name]["amplitude_uv"] - float(marks[level][f"{name} Amplitude"])))
    ok = missed == 0 and worst_ms <= 0.02 + 1e-9 and worst_uv <= 0.03 + 1e-9
    return Row("epl-abr-3levels", "every mark within 0.02 ms and 0.03 uV",
               f"worst {worst_ms:.3f} ms, {worst_uv:.3f} uV, {missed} of 20 missed", ok)  # fmt: skip


def read_epl(path: Path) -> tuple[list[float], F64]:
    """Levels and float64[level, sample] of an EPL text file."""
    text = path.read_text("latin-1")
    head, _, body = text.partition("DATA")
    levels = next(line for line in head.splitlines() if line.startswith(":LEVELS:"))
    db = [float(v) for v in levels.partition(":LEVELS:")[2].replace(";", " ").split()]
    rows = [[float(v) for v in line.split()] for line in body.splitlines() if line.strip()]
    return db, np.array(rows).T


def epl_cap() -> Row:
    folder = data_root() / "epl-cap"
    levels, waves = read_epl(folder / "CAP-139-5")
    lines = (folder / "CAP-139-5-16.0kHz-analyzed.txt").read_text("latin-1").splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("Level"))
    names = lines[start].split("\t")
    marks = {}
    for line in lines[start + 1 :]:
        if line.strip():
            values = dict(zip(names, line.split("\t"), strict=False))
            marks[float(values["Level"])] = values
    columns: dict[str, Iterable[float]] = {"time_ms": [k * 0.01 for k in range(waves.shape[1])]}
    columns |= {f"db{level:.0f}": wave for level, wave in zip(levels, waves, strict=True)}
    test = definition(EPL + peak_rules([("P1", "+", 1.2, 3.2), ("N1", "-", 1.6, 4.0)]))
    result = run(columns, test)
    worst_ms = 0.0
    bad_uv = 0
    wrong = []
    for level in levels:
        mark = marks[level]
        found = {m["label"]: m for m in result[f"db{level:.0f}"]["markers"]}
        for name in ("P1", "N1"):
            latency, amplitude = float(mark[f"{name} Latency"]), float(mark[f"{name} Amplitude"])
            if latency < 0:
                if found or result[f"db{level:.0f}"]["status"] != "absent":
                    wrong.append(f"{level:.0f} dB {name}")
            elif level >= 40:
                if name not in found:
                    wrong.append(f"{level:.0f} dB {name} missed")
                    continue
                worst_ms = max(worst_ms, abs(found[name]["latency_ms"] - latency))
                bad_uv += abs(found[name]["amplitude_uv"] - amplitude) > max(2.0, 0.03 * abs(amplitude))
    ok = not wrong and worst_ms <= 0.02 + 1e-9 and bad_uv == 0
    return Row("epl-cap", "within 0.02 ms and 2 uV or 3 % at >= 40 dB; absent where the mark says no peak",
               f"worst {worst_ms:.3f} ms, {bad_uv} amplitudes outside, wrong verdicts: {', '.join(wrong) or 'none'}",
               ok)  # fmt: skip


ROWS: dict[str, Callable[[], Row]] = {"epl-abr": epl_abr, "epl-cap": epl_cap}


def main(arguments: list[str]) -> int:
    names = [a for a in arguments if not a.startswith("-")] or list(ROWS)
    rows = [ROWS[n]() for n in names]
    if "--json" in arguments:
        print(json.dumps([asdict(r) for r in rows]))
    else:
        for r in rows:
            print(f"{'ok    ' if r.ok else 'MISSED'} {r.name:22} asked {r.asked}\n{'':29} got   {r.measured}")
    return 0 if all(r.ok for r in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
