"""A patient made of real recordings, read when the scenario starts; none of them is part of the project.

Evoked shape: sphara-sep channel 10 (average of some 6000 stimuli of the right median nerve), its N20-P23 scaled to
3 uV peak to peak at 30-500 Hz, at CPc of both median nerves; the other scalp electrodes see none of it, so that every
derivation with CPc shows that very shape.
Noise: pre-stimulus stretches of artacs-sep (a scalp electrode, no filter), a random trial and a random offset again
and again, joined by cross-fades of equal power.  The noise of CP3, CP4, CPz and Cz is drawn independently; Fpz is
quiet, so that CPc-Fpz has the noise of one recording.
Always: a function of (seed, input, sample) alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from firmware_sim.patient.matfile import read_matrix
from ionmd.errors import ConfigError

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

SCALED_UV = 3.0
BAND_HZ = (30.0, 500.0)
CHANNEL = 10
NOISY_TRIAL_UV = 3.2  # rms at 30-500 Hz; 5 of the 50 trials are above: muscle and movement
HOP_S, FADE_S = 0.25, 0.030
QUIET, ACTIVE = ("Fpz",), ("CP3", "CP4", "CPz", "Cz")


def recordings_dir() -> Path:
    """$IONMD_DATA, default ../shared/data."""
    return Path(os.environ.get("IONMD_DATA") or "../shared/data")


def find(data: Path) -> tuple[Path, Path]:
    """The two files.  Raises ConfigError naming the one that is missing and how to say where it is."""
    sep, noise = data / "sphara-sep" / "sep_average_dev_channels.csv", data / "artacs-sep" / "SEP_trials_odd.mat"
    for path in (sep, noise):
        if not path.is_file():
            unset = "" if os.environ.get("IONMD_DATA") else "unset, so "
            raise ConfigError(
                f"scenario made of recordings: {path.resolve()} is not there; set IONMD_DATA to the directory that "
                f"holds sphara-sep and artacs-sep (now {unset}{data}), or take a scenario that needs no recordings, "
                "for example demo"
            )
    return sep, noise


def band_pass(x: Doubles, rate_hz: float, low_hz: float, high_hz: float) -> Doubles:
    """Zero phase along the last axis: squared second-order Butterworth magnitude, in the frequency domain."""
    n = x.shape[-1]
    pad = min(n - 1, round(0.1 * rate_hz))
    left, right = 2 * x[..., :1] - x[..., pad:0:-1], 2 * x[..., -1:] - x[..., -2 : -pad - 2 : -1]
    y = np.concatenate([left, x, right], axis=-1)
    f = np.fft.rfftfreq(y.shape[-1], 1 / rate_hz)
    with np.errstate(divide="ignore"):
        gain = 1 / (1 + (low_hz / np.maximum(f, 1e-9)) ** 4) / (1 + (f / high_hz) ** 4)
    return np.fft.irfft(np.fft.rfft(y) * gain, y.shape[-1])[..., pad : pad + n]


@dataclass
class Recordings:
    shape_uv: Doubles  # of CHANNEL, scaled
    shape_ms: Doubles
    trials_uv: Doubles  # float64[trial, sample] at 5000 Hz, mean and trend removed
    n20_ms: float  # markers of the noiseless shape at 30-500 Hz
    p23_ms: float
    p2p_uv: float
    noise_uv: float  # rms at 30-500 Hz of the stretches used
    _noise: RecordedNoise | None = None

    @classmethod
    def open(cls, data: Path) -> Recordings:
        """Raises ConfigError that names the file and says what to do."""
        sep, noise = find(data)
        try:
            rows = np.loadtxt(sep, delimiter=",", ndmin=2)
            wave = rows[rows[:, 0] == CHANNEL][0, 1:]
            trials = read_matrix(noise.read_bytes(), "trials")[:, :2450]
        except (ValueError, IndexError) as e:
            raise ConfigError(f"{data}: a recording is damaged: {e}; expected the files of its PROVENANCE.md") from None
        t_ms = np.arange(len(wave)) / 2.048 - 50.0
        wave = wave - wave[(t_ms > -30) & (t_ms < -5)].mean()
        wave[(t_ms > -3) & (t_ms < 7)] = (
            0.0  # the stimulus artefact of the recording; the firmware's pulse brings its own
        )
        edge = np.clip((t_ms - 7.0) / 3.0, 0, 1) * np.clip((110.0 - t_ms) / 30.0, 0, 1)
        wave = np.where(t_ms >= 7, wave * edge, 0.0)
        n20, p23, p2p = marks(t_ms, band_pass(wave, 2048.0, *BAND_HZ))
        wave = wave * (SCALED_UV / p2p)
        x = np.arange(trials.shape[1]) - (trials.shape[1] - 1) / 2
        basis = np.linalg.qr(np.stack([np.ones_like(x), x, x * x], axis=1))[0]  # offset and drift of a DC amplifier
        trials = trials - (trials @ basis) @ basis.T
        rms = band_pass(trials, 5000.0, *BAND_HZ)[:, 200:-200].std(axis=1)
        trials = trials[rms < NOISY_TRIAL_UV]
        return cls(wave, t_ms, trials, n20, p23, SCALED_UV, float(np.sqrt(np.mean(rms[rms < NOISY_TRIAL_UV] ** 2))))

    def evaluate(self, t_ms: Doubles) -> Doubles:
        """The scaled shape at any times, interpolated without loss below 1 kHz (windowed sinc)."""
        k = np.floor((t_ms - self.shape_ms[0]) * 2.048).astype(int)
        frac = (t_ms - self.shape_ms[0]) * 2.048 - k
        out = np.zeros_like(t_ms)
        half = 16
        padded = np.concatenate([np.zeros(half), self.shape_uv, np.zeros(half)])
        for j in range(-half + 1, half + 1):
            at = k + j
            inside = (at >= 0) & (at < len(self.shape_uv))
            d = frac - j
            weight = np.sinc(d) * np.cos(np.pi * np.clip(d / (2 * half), -0.5, 0.5)) ** 2
            out += np.where(inside, padded[np.clip(at, 0, len(self.shape_uv) - 1) + half] * weight, 0.0)
        return np.where(t_ms >= 1.0, out, 0.0)

    def shapes(self) -> dict[str, dict[str, Callable[[Doubles], Doubles]]]:
        """All that the scalp sees of the two median nerves."""
        return {"median_left": {"CP4": self.evaluate}, "median_right": {"CP3": self.evaluate}}

    def noise(self, names: tuple[str, ...], rate_hz: float, seed: int) -> RecordedNoise:
        self._noise = RecordedNoise(self.trials_uv, names, rate_hz, seed)
        return self._noise

    def truth(self) -> dict[str, float | int | str]:
        used = self._noise.unique_seconds() if self._noise else 0.0
        return {
            "shape": f"sphara-sep channel {CHANNEL}",
            "noise": "artacs-sep, pre-stimulus",
            "band_hz": f"{BAND_HZ[0]:g}-{BAND_HZ[1]:g}",
            "n20_ms": round(self.n20_ms, 3),
            "p23_ms": round(self.p23_ms, 3),
            "n20_p23_uv": self.p2p_uv,
            "noise_uv_rms": round(self.noise_uv, 3),
            "noise_trials": len(self.trials_uv),
            "noise_unique_s": round(used, 3),
            "noise_available_s": round(self.trials_uv.shape[1] / 5000.0 * len(self.trials_uv), 3),
        }


def marks(t_ms: Doubles, uv: Doubles) -> tuple[float, float, float]:
    """(N20 ms, P23 ms, peak to peak): largest negativity at 16-24 ms, largest positivity in the 12 ms after it."""

    def vertex(k: int) -> tuple[float, float]:
        a, b, c = uv[k - 1 : k + 2]
        d = 0.5 * (a - c) / (a - 2 * b + c) if a - 2 * b + c else 0.0
        return float(t_ms[k] + d * (t_ms[1] - t_ms[0])), float(b - 0.25 * (a - c) * d)

    low = np.flatnonzero((t_ms >= 16) & (t_ms <= 24))
    n = low[np.argmin(uv[low])]
    high = np.flatnonzero((t_ms > t_ms[n]) & (t_ms <= t_ms[n] + 12))
    p = high[np.argmax(uv[high])]
    (tn, un), (tp, up) = vertex(int(n)), vertex(int(p))
    return tn, tp, up - un


class RecordedNoise:
    """float32 noise of the active scalp inputs, stretch after stretch of the recording at the device's rate."""

    def __init__(self, trials_uv: Doubles, names: tuple[str, ...], rate_hz: float, seed: int) -> None:
        self._rate = rate_hz
        self._trials = resample(trials_uv, 5000.0, rate_hz)
        self._hop, self._fade = round(HOP_S * rate_hz), round(FADE_S * rate_hz)
        need = self._hop + self._fade
        self._free = self._trials.shape[1] - need
        if self._free < 1:
            raise ConfigError(
                f"recorded noise: stretches of {self._trials.shape[1]} samples, at least {need + 1} are needed"
            )
        self._active = [n in ACTIVE for n in names]
        self._quiet = [n in QUIET for n in names]
        rng = np.random.Generator(np.random.PCG64([seed, 53]))
        self._salt = [int(v) for v in rng.integers(0, 1 << 62, len(names))]
        up = np.sin(0.5 * np.pi * (np.arange(self._fade) + 0.5) / self._fade)
        self._up, self._down = up.astype(np.float32), up[::-1].astype(np.float32)
        self._used = np.zeros((len(self._trials), self._trials.shape[1]), bool)

    def _pick(self, row: int, hop: int) -> tuple[int, int]:
        """(trial, offset) of a stretch: a hash, so that every stretch can be drawn by itself."""
        h = (self._salt[row] ^ (hop * 0x9E3779B97F4A7C15)) & 0xFFFFFFFFFFFFFFFF
        h = ((h ^ (h >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        h = ((h ^ (h >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        h ^= h >> 31
        return (h >> 32) % len(self._trials), (h & 0xFFFFFFFF) % self._free

    def add(self, row: Floats, first: int, index: int) -> bool:
        """row[:] += noise of samples first ...; False when this input has the model's noise."""
        if self._quiet[index]:
            return True
        if not self._active[index]:
            return False
        n = len(row)
        for hop in range((first - self._fade) // self._hop, (first + n) // self._hop + 1):
            if hop < 0:
                continue
            trial, offset = self._pick(index, hop)
            start = hop * self._hop - first  # the stretch covers hop + fade samples from here
            a, b = max(0, start), min(n, start + self._hop + self._fade)
            if a >= b:
                continue
            piece = self._trials[trial, offset + a - start : offset + b - start].copy()
            self._used[trial, offset + a - start : offset + b - start] = True
            k = np.arange(a - start, b - start)
            rising, falling = k < self._fade, k >= self._hop
            if rising.any() and hop > 0:
                piece[rising] *= self._up[k[rising]]
            if falling.any():
                piece[falling] *= self._down[k[falling] - self._hop]
            row[a:b] += piece
        return True

    def unique_seconds(self) -> float:
        """How much of the recording has been heard so far, each part counted once."""
        return float(self._used.sum() / self._rate)


def resample(x: Doubles, from_hz: float, to_hz: float) -> Floats:
    """Band-limited to the lower of the two Nyquist frequencies; the last axis is time."""
    n = x.shape[-1]
    pad = n // 4
    left, right = 2 * x[..., :1] - x[..., pad:0:-1], 2 * x[..., -1:] - x[..., -2 : -pad - 2 : -1]
    y = np.concatenate([left, x, right], axis=-1)
    over = 8
    spectrum = np.fft.rfft(y)
    f = np.fft.rfftfreq(y.shape[-1], 1 / from_hz)
    spectrum[..., f > 0.48 * to_hz] = 0
    fine = np.fft.irfft(spectrum, y.shape[-1] * over) * over  # 40 kHz for 5000 Hz: linear from here is good to 0.1 %
    m = int((n - 1) * to_hz / from_hz)
    at = (pad + np.arange(m) * from_hz / to_hz) * over
    k = at.astype(int)
    w = at - k
    return (fine[..., k] * (1 - w) + fine[..., k + 1] * w).astype(np.float32)
