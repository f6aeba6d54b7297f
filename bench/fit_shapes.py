"""Fits the shapes that the catalogue ships: writes ionmd/catalog/shapes/*.toml.

In: $IONMD_DATA (default ../shared/data): sphara-sep.  Out: numbers only - Gaussians on a grid: the mean
shape of all bipolar derivations that show an N20-P30, each scaled to 1 uV peak to peak, and how these shapes vary.
Run `python -m bench.fit_shapes [--check]`; --check prints how far the shipped table is from a new fit.  `fit(skip=...)`
leaves electrodes out, which is how bench/accuracy measures the shape on electrodes that it has not seen.
"""

from __future__ import annotations

import argparse
import os
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal

TABLE = Path(__file__).parents[1] / "ionmd" / "catalog" / "shapes" / "median_cortex.toml"
BAND_HZ = (30.0, 500.0)
START_MS, STEP_MS, WIDTH_MS, STOP_MS = 7.0, 0.5, 0.4, 54.0
WINDOW_MS = (12.0, 44.0)
LEAST_SHARE = 0.4  # of the peak to peak that N20 itself has: derivations in which one would follow it
COMPONENTS = 2
LEAST_UV = 0.5  # of the recording's own average: smaller derivations show more noise than N20


def recording() -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """time_ms and one curve per electrode, without the stimulus artefact."""
    folder = Path(os.environ.get("IONMD_DATA", "../shared/data")) / "sphara-sep"
    rows = np.loadtxt(folder / "sep_average_dev_channels.csv", delimiter=",")
    t = np.arange(rows.shape[1] - 1) / 2.048 - 50.0
    curves = {}
    for row in rows:
        x = row[1:] - row[1:][(t > -30) & (t < -5)].mean()
        edge = np.clip((t - 7.0) / 3.0, 0, 1) * np.clip((110.0 - t) / 30.0, 0, 1)
        curves[int(row[0])] = np.where(t >= 7.0, x * edge, 0.0)
    return t, curves


def shapes(t: np.ndarray, curves: dict[int, np.ndarray], sos: np.ndarray) -> list[np.ndarray]:
    """Filtered curves of every electrode and pair of electrodes with an N20 followed by a positivity."""
    early, late = np.flatnonzero((t >= 18.0) & (t <= 21.0)), (t >= 21.0) & (t <= 34.0)
    found = []
    for i in curves:
        for j in (None, *curves):
            if i == j:
                continue
            x = scipy.signal.sosfiltfilt(sos, curves[i] - (curves[j] if j is not None else 0.0))
            k = early[np.argmin(x[early])]
            height = x[late].max() - x[k]
            if k in (early[0], early[-1]) or not height >= LEAST_UV or not -x[k] >= LEAST_SHARE * height:
                continue
            found.append(x / height)
    return found


def fit(skip: tuple[int, ...] = ()) -> dict[str, Any]:
    """The table; electrodes in `skip` take no part."""
    t, curves = recording()
    sos = scipy.signal.butter(2, BAND_HZ, "band", fs=2048.0, output="sos")
    found = np.array(shapes(t, {k: v for k, v in curves.items() if k not in skip}, sos))
    mean = found.mean(axis=0)
    inside = (t >= WINDOW_MS[0] - 1.0) & (t <= WINDOW_MS[1] + 1.0)
    u, s, _ = np.linalg.svd((found - mean)[:, inside], full_matrices=False)
    ways = (u[:, :COMPONENTS] / s[:COMPONENTS]).T @ (found - mean) * (s[:COMPONENTS, None] / np.sqrt(len(found)))
    places = np.arange(START_MS, STOP_MS + 1e-9, STEP_MS)
    bumps = np.exp(-0.5 * ((t[:, None] - places) / WIDTH_MS) ** 2)
    through = scipy.signal.sosfiltfilt(sos, bumps, axis=0)
    use = (t >= START_MS) & (t <= STOP_MS)

    def numbers(curve: np.ndarray) -> list[float]:
        ridge = 1e-3 * np.eye(len(places))
        a = through[use]
        return [round(float(v), 4) for v in np.linalg.solve(a.T @ a + ridge, a.T @ curve[use])]

    return {"start_ms": START_MS, "step_ms": STEP_MS, "width_ms": WIDTH_MS, "window_ms": list(WINDOW_MS),
            "mean": numbers(mean), "component": [numbers(w) for w in ways]}  # fmt: skip


def text(table: dict[str, Any]) -> str:
    def numbers(values: list[float]) -> str:
        return "[" + ", ".join(f"{v:g}" for v in values) + "]"

    lines = ["# Cortical response to the median nerve, one subject: `python -m bench.fit_shapes`, from sphara-sep.",
             "# Source and limits: docs/sources.md#shape-median-cortex"]  # fmt: skip
    lines += [f"{k} = {table[k]:g}" for k in ("start_ms", "step_ms", "width_ms")]
    lines += [f"window_ms = {numbers(table['window_ms'])}", f"mean = {numbers(table['mean'])}", "component = ["]
    lines += [f"  {numbers(c)}," for c in table["component"]]
    return "\n".join([*lines, "]", ""])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.fit_shapes", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare the shipped table with a new fit")
    args = parser.parse_args()
    new = fit()
    if not args.check:
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_text(text(new), encoding="utf-8")
        print(f"{TABLE}: {len(new['mean'])} bumps, {len(new['component'])} components")
        return 0
    old = tomllib.loads(TABLE.read_text(encoding="utf-8"))
    off = max(float(np.abs(np.array(old[k]) - np.array(new[k])).max()) for k in ("mean", "component"))
    print(f"largest difference of a coefficient {off:.4f}")
    return 0 if off <= 1e-3 else 1


if __name__ == "__main__":
    sys.exit(main())
