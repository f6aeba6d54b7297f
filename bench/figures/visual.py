"""The unfiltered average of the 80 visual stimuli of eeglab-visual-erp by `ionmd replay`, against numpy's."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bench.figures.row import Row
from bench.figures.script import ROOT
from tests.visual_erp import convert, plain_average, test_file

LIMIT_UV = 0.005


def rows(quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        recording, definition = convert(Path(folder) / "visual.bdf"), test_file(Path(folder) / "visual.toml")
        done = subprocess.run([sys.executable, "-m", "ionmd", "replay", str(recording), "--test-file", str(definition),
                               "--json"], cwd=ROOT, capture_output=True, text=True, check=True)  # fmt: skip
    averages = [x for x in map(json.loads, done.stdout.splitlines()) if x.get("topic") == "average"]
    curve = averages[-1]["data"]["curve"]
    ours = np.frombuffer(base64.b64decode(curve["data"]), curve["dtype"]).reshape(curve["shape"])
    worst = float(np.abs(ours - plain_average()).max())
    return [Row("average of 80 visual stimuli by replay", f"numpy's within {LIMIT_UV} uV", f"{worst:.5f} uV at most",
                worst <= LIMIT_UV)]  # fmt: skip
