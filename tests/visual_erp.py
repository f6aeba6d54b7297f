"""The visual task of eeglab-visual-erp as BDF+ with annotations, the test that averages it, numpy's own average."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tests.data_dir import data_dir

RATE_HZ = 128.0
BEFORE, AFTER = 26, 77  # samples of the epoch around the stimulus
TEST_FILE = """
[test]
id = "visual"
modality = "evoked"

[epoch]
start_ms = -203.125
stop_ms = 601.5625
baseline_ms = [-203.125, 0.0]

[filter]
kind = "none"

[blank]
method = "none"

[average]
sweeps = 80
sub_sweeps = 20
weighted = false

[trigger]
source = "annotation"
code = "square"

[channels]
Cz = "Cz"
POz = "POz"
"left minus right" = "C3 - C4"
"""


def _read() -> tuple[npt.NDArray[np.float64], list[str], list[dict[str, str]]]:
    """uV [sample, channel] in whole seconds, channel names, events."""
    folder = data_dir() / "eeglab-visual-erp"
    uv = np.fromfile(folder / "eeglab_data.fdt", "<f4").reshape(-1, 32).astype(np.float64)
    names = [row["name"] for row in csv.DictReader((folder / "channels.csv").open())]
    events = list(csv.DictReader((folder / "events.csv").open()))
    return uv[: len(uv) // 128 * 128], names, events


def convert(path: Path) -> Path:
    """Write the recording as BDF+ with its events as annotations."""
    import edfio

    uv, names, events = _read()
    ranges = [1.05 * np.abs(uv[:, i]).max() + 1 for i in range(len(names))]
    signals = [
        edfio.BdfSignal(uv[:, i], RATE_HZ, label=name, physical_dimension="uV", physical_range=(-ranges[i], ranges[i]))
        for i, name in enumerate(names)
    ]
    notes = [edfio.EdfAnnotation(float(round(float(e["sample"]))) / RATE_HZ, None, e["type"]) for e in events]
    edfio.Bdf(signals, annotations=notes).write(path)
    return path


def test_file(path: Path) -> Path:
    path.write_text(TEST_FILE)
    return path


test_file.__test__ = False  # type: ignore[attr-defined]


def plain_average() -> npt.NDArray[np.float64]:
    """uV [derivation, sample] of the test's three channels over the 80 stimuli, baseline taken off."""
    uv, names, events = _read()
    onsets = [round(float(e["sample"])) for e in events if e["type"] == "square"]
    at = {name: uv[:, i] for i, name in enumerate(names)}
    columns = [at["Cz"], at["POz"], at["C3"] - at["C4"]]
    means = np.stack([np.mean([x[i - BEFORE : i + AFTER] for i in onsets], axis=0) for x in columns])
    return means - means[:, :BEFORE].mean(axis=1, keepdims=True)
