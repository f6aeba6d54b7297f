"""Fits the shipped patient to the recordings: writes firmware_sim/patient/fitted.toml.

In: $IONMD_DATA (default ../shared/data): sphara-sep, allison1983-sep-norms, artacs-sep, emgdb, mep-artefact-only.
Out: numbers only - norms, a grid of Gaussians for five scalp sites, two spectra, the decay of the stimulus artefact.
Run `python -m bench.fit_patient [--check]`; --check prints how far the shipped table is from a new fit.
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import tomllib
from pathlib import Path

import numpy as np
import scipy.interpolate
import scipy.io
import scipy.optimize
import scipy.signal

TABLE = Path(__file__).parents[1] / "firmware_sim" / "patient" / "fitted.toml"
BAND = (30.0, 500.0)
SITES = ("CPc", "CPi", "CPz", "Cz", "Fpz")
GRID_MS = np.arange(11.5, 48.1, 1.5)
SIGMA_MS = 1.15
FAR_FIELD_END_MS = 16.6  # bumps before it are P14 and its neighbours, later ones are cortical


def data_dir() -> Path:
    return Path(os.environ.get("IONMD_DATA", "../shared/data"))


def norms(data: Path) -> dict[str, float]:
    """Mean adult latency of each wave, ms (Allison 1983)."""
    seen: dict[str, list[float]] = {}
    with (data / "allison1983-sep-norms" / "allison-t-1983_SEPs.csv").open() as f:
        for row in csv.DictReader(f):
            if float(row["AGE"]) >= 18:
                seen.setdefault(row["Potential"], []).append(float(row["Latency"]))
    return {k: float(np.mean(v)) for k, v in sorted(seen.items())}


def sphara(data: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """time_ms[369], uv[26, 369], unit position vectors[26, 3] (x forward, y left, z up)."""
    rows = np.loadtxt(data / "sphara-sep" / "sep_average_dev_channels.csv", delimiter=",")
    place = np.loadtxt(data / "sphara-sep" / "electrode_positions.csv", delimiter=",")
    a = np.c_[2 * place, np.ones(len(place))]  # least-squares sphere through all 256 electrodes
    centre = np.linalg.lstsq(a, (place**2).sum(1), rcond=None)[0][:3]
    unit = place - centre
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    return np.arange(rows.shape[1] - 1) / 2048 * 1000 - 50, rows[:, 1:], unit[rows[:, 0].astype(int)]


def site_vectors() -> np.ndarray:
    """The five sites for a right median stimulus: CPc = CP3 (left), CPi = CP4."""

    def at(
        elevation: float, azimuth: float
    ) -> list[float]:  # degrees from the vertex; azimuth from the nose to the left
        e, z = np.radians(elevation), np.radians(azimuth)
        return [np.sin(e) * np.cos(z), np.sin(e) * np.sin(z), np.cos(e)]

    return np.array([at(46, 116), at(46, -116), at(23, 180), at(0, 0), at(90, 0)])


def median_waves(data: Path, norm: dict[str, float]) -> dict[str, np.ndarray]:
    """Amplitude of each grid Gaussian at each site; the N20-P23 of CPc-Fpz is 1.

    The recording's landmarks are moved to the norms (P14, N20); this subject has no separate P22/P23 over the
    parietal side, so the positivity that follows N20 there (29 ms) is moved to the norm of P26 and halved, and a P23 at
    its norm, mirror image of N20, is added."""
    t, uv, unit = sphara(data)
    sos = scipy.signal.butter(2, [15.0, 600.0], "band", fs=2048, output="sos")
    uv = scipy.signal.sosfiltfilt(sos, uv, axis=1)
    at_site = scipy.interpolate.RBFInterpolator(unit, uv, kernel="thin_plate_spline", smoothing=0.05)(site_vectors())
    look = (t > 17) & (t < 23)
    n20 = t[look][np.argmin(at_site[0][look])]
    late = (t > 24) & (t < 34)
    p_late = t[late][np.argmax(at_site[0][late])]
    far = (t > 11) & (t < 16)
    p14 = t[far][np.argmax(at_site[4][far])]
    warp_to = np.array([9.0, norm["N14"], norm["N20"], norm["P26"], norm["P26"] + 22.0])
    warp_from = np.array([9.0 - (norm["N14"] - p14), p14, n20, p_late, p_late + 22.0])
    grid_t = np.arange(9.0, 52.0, 0.1)
    source = np.interp(grid_t, warp_to, warp_from)
    g = np.exp(-((grid_t[:, None] - GRID_MS) ** 2) / (2 * SIGMA_MS**2))
    out: dict[str, np.ndarray] = {}
    keep = np.interp(grid_t, [9, 11, norm["N20"] + 1.0, norm["P23" if "P23" in norm else "P22"], 40, 50],
                     [0, 1, 1, 0.45, 0.45, 0])  # fmt: skip
    n20_at = {}
    for k, site in enumerate(SITES):
        wave = np.interp(source, t, at_site[k]) * keep
        n20_at[site] = float(np.interp(norm["N20"], grid_t, wave))
        out[site] = np.linalg.lstsq(
            np.r_[g, 0.15 * np.eye(len(GRID_MS))], np.r_[wave, np.zeros(len(GRID_MS))], rcond=None
        )[0]
    p23 = np.exp(-((GRID_MS - norm["P22"]) ** 2) / (2 * 1.2**2))
    p23 /= (g @ p23).max()
    for site in SITES:
        out[site] = out[site] - 0.95 * n20_at[site] * p23
    pair = g @ (out["CPc"] - out["Fpz"])
    n = (grid_t > 17) & (grid_t < 22)
    p = (grid_t > 21) & (grid_t < 27)
    return {s: v / (pair[p].max() - pair[n].min()) for s, v in out.items()}


def spectrum(trials: np.ndarray, rate_hz: float, nperseg: int) -> tuple[np.ndarray, np.ndarray]:
    """Amplitude density on a coarse grid, scaled to 1 uV rms in BAND, mains lines bridged."""
    f, p = scipy.signal.welch(trials, rate_hz, nperseg=nperseg, detrend="linear", axis=-1)
    p = np.median(p, axis=0) if p.ndim > 1 else p
    for line in (50, 100, 150, 250):
        near = (abs(f - line) < 4) & (f > 20)
        ring = (abs(f - line) < 12) & ~near
        p[near] = np.median(p[ring])
    grid = np.array([1, 2, 3, 5, 7, 10, 14, 20, 28, 40, 56, 80, 112, 160, 224, 320, 450, 640, 900, 1300, 1800], float)
    grid = grid[grid < 0.46 * rate_hz]
    asd = np.array([np.sqrt(np.mean(p[(f >= g / 1.25) & (f <= g * 1.25)])) if ((f >= g / 1.25) & (f <= g * 1.25)).any()
                    else np.sqrt(np.interp(g, f, p)) for g in grid])  # fmt: skip
    fine = np.arange(BAND[0], BAND[1], 1.0)
    power = np.sum(np.exp(np.interp(np.log(fine), np.log(grid), np.log(asd))) ** 2)
    return grid, asd / np.sqrt(power)


def pre_stimulus(data: Path) -> np.ndarray:
    """Quiet pre-stimulus stretches of artacs-sep, uV[trial, 2450] at 5000 Hz; trials above 3.2 uV rms are left out."""
    trials = scipy.io.loadmat(data / "artacs-sep" / "SEP_trials_odd.mat")["trials"].astype(float)[:, :2450]
    trials = scipy.signal.detrend(trials, axis=1)
    band = scipy.signal.sosfiltfilt(scipy.signal.butter(2, BAND, "band", fs=5000, output="sos"), trials, axis=1)
    return trials[band[:, 200:-200].std(axis=1) < 3.2]


def emg(data: Path) -> np.ndarray:
    uv = np.loadtxt(data / "emgdb" / "emg_healthy.txt")[:, 1] * 1000.0
    spike = np.flatnonzero(np.isclose(uv, 100.0))
    uv[spike] = 0.5 * (uv[spike - 1] + uv[np.minimum(spike + 1, len(uv) - 1)])
    return uv


def artefact(data: Path) -> tuple[list[float], list[float]]:
    """Three exponentials through the median rectified artefact, 0.5-40 ms after its peak; shares add up to 1."""
    x = np.abs(np.load(data / "mep-artefact-only" / "traces_float32.npy")).astype(float)
    t = np.arange(x.shape[1]) / 22.0
    peak = x[:, :66].argmax(axis=1)
    env = np.median(
        [np.interp(np.arange(0, 30, 0.05), t - t[k], row / row[k]) for row, k in zip(x, peak, strict=True)], axis=0
    )
    ts = np.arange(0, 30, 0.05)
    floor = np.median(env[ts > 26])
    tau = np.array([0.25, 1.5, 9.0])
    use = (ts > 0.1) & (ts < 26)
    w = 1 / (env[use] + 0.003)
    a = np.exp(-ts[use][:, None] / tau)
    share, _ = scipy.optimize.nnls(a * w[:, None], (np.maximum(env[use] - floor, 0)) * w)
    share = np.maximum(share, [0.1, 0.01, 0.001])
    return tau.tolist(), (share / share.sum()).tolist()


def fit(data: Path) -> dict[str, object]:
    norm = norms(data)
    eeg_hz, eeg = spectrum(pre_stimulus(data), 5000.0, 2048)
    emg_hz, emg_asd = spectrum(emg(data), 4000.0, 2048)
    tau, share = artefact(data)
    return {
        "norm_ms": {k: round(v, 2) for k, v in norm.items()},
        "median": {
            "peak_ms": [round(float(v), 2) for v in GRID_MS], "sigma_ms": SIGMA_MS,
            "far_field_end_ms": FAR_FIELD_END_MS,
            "uv": {k: [round(float(a), 4) for a in v] for k, v in median_waves(data, norm).items()},
        },
        "eeg": {"hz": eeg_hz.tolist(), "asd": [round(float(v), 6) for v in eeg]},
        "emg": {"hz": emg_hz.tolist(), "asd": [round(float(v), 6) for v in emg_asd]},
        "artefact": {"tau_ms": tau, "share": [round(float(v), 4) for v in share]},
    }  # fmt: skip


def as_toml(table: dict[str, object], prefix: str = "") -> str:
    own = [f"{k} = {v}" for k, v in table.items() if not isinstance(v, dict)]
    text = (f"[{prefix}]\n" if prefix and own else "") + "\n".join(own) + ("\n\n" if own else "")
    for k, v in table.items():
        if isinstance(v, dict):
            text += as_toml(v, f"{prefix}.{k}" if prefix else k)
    return text


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--check", action="store_true", help="compare instead of writing")
    args = p.parse_args()
    data = data_dir()
    if not (data / "sphara-sep").is_dir():
        print(f"{data}: no recordings there; set IONMD_DATA to the directory that has sphara-sep", file=sys.stderr)
        return 2
    text = "# Written by `python -m bench.fit_patient`: numbers fitted to recordings and norms, no samples of them.\n\n"
    text += as_toml(fit(data)).rstrip() + "\n"
    if args.check:
        same = tomllib.loads(TABLE.read_text(encoding="utf-8")) == tomllib.loads(text)
        print("fitted.toml is what the recordings give" if same else "fitted.toml differs from a new fit")
        return 0 if same else 1
    TABLE.write_text(text, encoding="utf-8")
    print(f"wrote {TABLE}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
