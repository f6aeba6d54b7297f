"""What the electrodes see without any stimulus: EEG, EMG, amplifier noise, mains, ECG, offsets, cautery.

In: a chunk number.  Out: float32[input, CHUNK] microvolts, a function of (seed, scenario, chunk) only, so the
size of the caller's batches cannot change a sample.  Noise is read from seeded banks: two of coprime lengths
(a power of two and a power of three) are added, each input at its own place, so that nothing repeats as a whole
within an operation.  Cost is a few array passes a chunk, none of them in Python per sample.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from firmware_sim.events import Cautery, ElectrodeFault, Emg
from firmware_sim.montage import region
from firmware_sim.patient.body import Table
from firmware_sim.patient.recorded import RecordedNoise
from firmware_sim.scenario import Noise, Scenario

CHUNK = 2048
_WANDER = ((5.0, 1 / 610.0), (3.1, 1 / 173.0), (1.2, 1 / 41.0))  # uV for each mV of offset, Hz
# order, share, phase of the first wave, phase of the second (in quadrature at the mains' own frequency)
_MAINS = ((1, 1.0, 0.0, math.pi / 2), (3, 0.25, 0.7, 0.2 + math.pi / 2), (5, 0.10, 1.9, 0.4 + math.pi / 2))
Floats = npt.NDArray[np.float32]


def _shaped(rng: np.random.Generator, n: int, rate_hz: float, hz: tuple[float, ...], asd: tuple[float, ...]) -> Floats:
    """Gaussian noise of that amplitude density (per rtHz, log-interpolated; above the last point it falls as 1/f^2)."""
    if len(set(asd)) == 1:
        return np.float32(asd[0] * np.sqrt(rate_hz / 2.0)) * rng.standard_normal(n, dtype=np.float32)
    f = np.fft.rfftfreq(n, 1.0 / rate_hz)
    f[0] = f[1]
    grid = np.log(np.array([*hz, hz[-1] * 100.0]))
    gain = np.interp(np.log(f), grid, np.log(np.array([*asd, asd[-1] * 1e-4])))
    np.exp(gain, out=gain)
    gain *= np.minimum(1.0, f / 0.5)  # no energy at DC: electrode offsets are added elsewhere
    gain[0] = 0.0
    spectrum = np.fft.rfft(rng.standard_normal(n, dtype=np.float32))
    spectrum *= gain * np.sqrt(rate_hz / 2.0)
    return np.fft.irfft(spectrum, n).astype(np.float32)


class Bank:
    """One kind of noise: sum of two periodic banks read at a place of its own for each input."""

    def __init__(self, seed: list[int], rate_hz: float, hz: tuple[float, ...], asd: tuple[float, ...]) -> None:
        self._seed, self._rate, self._hz, self._asd = seed, rate_hz, hz, asd
        two, three = 1 << 15, 3**9
        while two < 40 * rate_hz:
            two *= 2
        while three < 30 * rate_hz:
            three *= 3
        self._lengths = (two, three)
        self._banks: list[Floats] = []
        self._tmp = np.empty(CHUNK, np.float32)

    def make(self) -> None:
        """Half a second of work at 40 kHz: before the first sample for what is sure to be heard."""
        rng = np.random.Generator(np.random.PCG64(self._seed))
        half = np.float32(np.sqrt(0.5))
        for n in self._lengths:
            b = half * _shaped(rng, n, self._rate, self._hz, self._asd)
            self._banks.append(np.concatenate([b, b[:CHUNK]]))  # so that every read is one slice

    def add(self, row: Floats, first: int, place: tuple[int, int], gain: float) -> None:
        """row[CHUNK] += gain * noise of samples first ..."""
        if not gain:
            return
        if not self._banks:
            self.make()
        one, other = ((first + offset) % length for length, offset in zip(self._lengths, place, strict=True))
        np.add(self._banks[0][one : one + CHUNK], self._banks[1][other : other + CHUNK], out=self._tmp)
        np.multiply(self._tmp, np.float32(gain), out=self._tmp)
        np.add(row, self._tmp, out=row)


class Background:
    def __init__(self, scenario: Scenario, table: Table, names: tuple[str, ...], rate_hz: float, seed: int,
                 recorded: RecordedNoise | None = None) -> None:  # fmt: skip
        self._recorded = recorded
        self._noise = scenario.noise
        self._names = names
        self._rate = rate_hz
        rng = np.random.Generator(np.random.PCG64([seed, 11]))
        self._eeg = Bank([seed, 12], rate_hz, table.eeg_hz, table.eeg_asd)
        self._emg = Bank([seed, 13], rate_hz, table.emg_hz, table.emg_asd)
        self._white = Bank([seed, 14], rate_hz, (1.0, 20_000.0), (1.0, 1.0))  # 1 uV/rtHz
        n = len(names)
        self._place = [tuple(int(v) for v in rng.integers(0, 1 << 40, 2)) for _ in range(4 * n + 8)]
        self._levels = [self._level(name, scenario) for name in names]
        loose = any(isinstance(e, ElectrodeFault) for e in scenario.events)
        struck = any(isinstance(e, Cautery) for e in scenario.events)
        active = any(isinstance(e, Emg) for e in scenario.events)
        eeg, emg, white = (any(row) for row in zip(*self._levels, strict=True))
        heard = ((self._eeg, eeg or loose), (self._emg, emg or active), (self._white, white or loose or struck))
        for bank, sure in heard:
            if sure:
                bank.make()
        # mains: a common part that a derivation cancels and a part of each lead's own
        own = rng.normal(0, 1, (n, 2)) * 0.35
        self._mains = (scenario.noise.mains_uv * (np.array([1.0, 0.0]) + own)).astype(np.float32)
        self._offset = (rng.uniform(-1, 1, n) * scenario.noise.offset_mv * 1000.0).astype(np.float32)
        self._wander = rng.uniform(0, 2 * np.pi, (n, 3))
        self._ecg_gain = np.array([self._ecg_level(name) for name in names], np.float32) * rng.uniform(
            0.8, 1.2, n
        ).astype(np.float32)
        self._beats = self._make_beats(rng)
        self._qrs = self._make_qrs()
        self._cautery = [e for e in scenario.events if isinstance(e, Cautery)]
        self._cautery_gain = rng.uniform(0.5, 1.0, n).astype(np.float32)
        self._muscle_events = [e for e in scenario.events if isinstance(e, Emg)]
        self._tmp = np.empty((n, CHUNK), np.float32)
        turn = 2 * np.pi * self._noise.mains_hz / rate_hz * np.arange(CHUNK)
        self._harmonics = [
            (np.sin(order * turn).astype(np.float32), np.cos(order * turn).astype(np.float32)) for order, *_ in _MAINS
        ]

    def _level(self, name: str, scenario: Scenario) -> tuple[float, float, float]:
        """(eeg, emg, amplifier) of one electrode, uV rms at 30-500 Hz, amplifier as density."""
        noise, factor = scenario.noise, next((e.noise for e in scenario.electrodes if e.label == name), 1.0)
        white = factor * noise.amplifier_uv / np.sqrt(3000.0)
        eeg, emg = {
            "scalp": (noise.eeg_uv, 0.1 * noise.emg_uv), "frontal": (noise.frontal_uv, 0.2 * noise.emg_uv),
            "neck": (0.5 * noise.eeg_uv, 0.4 * noise.emg_uv), "limb": (0.2 * noise.limb_uv, 0.8 * noise.limb_uv),
            "muscle": (0.0, 0.7 * noise.emg_uv), "spare": (0.0, 0.0),
        }[region(name)]  # fmt: skip
        return factor * eeg, factor * emg, float(white)

    def _ecg_level(self, name: str) -> float:
        return (
            self._noise.ecg_uv
            * {"neck": 1.0, "scalp": 0.5, "frontal": 0.5, "limb": 1.2, "muscle": 0.8, "spare": 0.0}[region(name)]
        )

    def _make_beats(self, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Samples of 4001 beats; the series repeats after the last (about an hour)."""
        k = np.arange(4000)
        rr = 0.86 * (1 + 0.03 * np.sin(2 * np.pi * k * 0.23) + 0.015 * rng.standard_normal(4000))
        return np.concatenate([[0], np.cumsum(np.round(rr * self._rate))]).astype(np.int64)

    def _make_qrs(self) -> Floats:
        t = np.arange(int(0.5 * self._rate)) / self._rate
        q = -0.12 * np.exp(-(((t - 0.080) / 0.008) ** 2)) + np.exp(-(((t - 0.100) / 0.010) ** 2))
        q += -0.22 * np.exp(-(((t - 0.122) / 0.010) ** 2)) + 0.18 * np.exp(-(((t - 0.33) / 0.045) ** 2))
        return q.astype(np.float32)

    def chunk(self, number: int) -> Floats:
        first = number * CHUNK
        out = np.empty((len(self._names), CHUNK), np.float32)
        t = (first + np.array([0, CHUNK])) / self._rate
        ramp = np.linspace(0.0, 1.0, CHUNK, endpoint=False, dtype=np.float32)
        # electrode drift: slow, so straight within a chunk
        slow = sum(
            a * self._noise.offset_mv * np.sin(2 * np.pi * f * t + self._wander[:, k, None])
            for k, (a, f) in enumerate(_WANDER)
        )
        begin = self._offset + slow[:, 0].astype(np.float32)
        np.multiply.outer((slow[:, 1] - slow[:, 0]).astype(np.float32), ramp, out=out)
        out += begin[:, None]
        self._add_mains(out, first)
        self._add_ecg(out, first)
        for i, (eeg, emg, white) in enumerate(self._levels):
            row = out[i]
            if self._recorded is not None and self._recorded.add(row, first, i):
                continue  # the recording has its own amplifier noise
            self._eeg.add(row, first, self._place[4 * i], eeg)
            self._emg.add(row, first, self._place[4 * i + 1], emg)
            self._white.add(row, first, self._place[4 * i + 2], white)
        for e in self._muscle_events:
            self._add_emg(out, first, e)
        for e in self._cautery:
            self._add_cautery(out, first, e)
        return out

    def _mains_wave(self, first: int) -> tuple[Floats, Floats]:
        """Two waves in quadrature with odd harmonics; the phase is exact in integers, so it never slips."""
        milli_hz, cycle = round(self._noise.mains_hz * 1000), round(self._rate * 1000)
        phase = 2 * np.pi * ((first * milli_hz) % cycle) / cycle
        waves = np.zeros((2, CHUNK), np.float32)
        for (sine, cosine), (order, share, lead, lag) in zip(self._harmonics, _MAINS, strict=True):
            for wave, shift in zip(waves, (lead, lag), strict=True):
                wave += np.float32(share * math.cos(order * phase + shift)) * sine
                wave += np.float32(share * math.sin(order * phase + shift)) * cosine
        return waves[0], waves[1]

    def _add_mains(self, out: Floats, first: int) -> None:
        for wave, gain in zip(self._mains_wave(first), self._mains.T, strict=True):
            np.multiply.outer(gain, wave, out=self._tmp)
            out += self._tmp

    def _add_ecg(self, out: Floats, first: int) -> None:
        turn, _ = divmod(first, int(self._beats[-1]))
        n = len(self._qrs)
        for shift in (-1, 0, 1):  # beats near the end of the series belong to its neighbour too
            base = (turn + shift) * int(self._beats[-1])
            lo, hi = np.searchsorted(self._beats[:-1], [first - base - n, first - base + CHUNK])
            for beat in self._beats[lo:hi]:
                start = int(beat) + base - first
                a, b = max(0, start), min(CHUNK, start + n)
                if a < b and beat + base >= 0:
                    out[:, a:b] += np.multiply.outer(self._ecg_gain, self._qrs[a - start : b - start])

    def _span(self, event: Cautery | Emg, first: int) -> tuple[int, int, int]:
        """(start sample, a, b): the part a:b of the chunk that the event covers."""
        start = event.sample(self._rate)
        stop = start + max(1, round(event.duration_s * self._rate))
        return start, max(0, start - first), min(CHUNK, stop - first)

    def _add_emg(self, out: Floats, first: int, e: Emg) -> None:
        start, a, b = self._span(e, first)
        if a >= b or f"{e.muscle}+" not in self._names:
            return
        t = (first + np.arange(a, b) - start) / self._rate
        if e.pattern == "train":
            x = np.sin(2 * np.pi * e.rate_hz * t) + 0.25 * np.sin(4 * np.pi * e.rate_hz * t + 0.6)
            x = 0.5 * e.amplitude_uv * x
        elif e.pattern == "spikes":
            x = np.zeros(len(t))
            every = 1.0 / max(0.5, min(e.rate_hz, 25.0))
            u = (t % every - 0.01) / 0.0025
            x += 0.6 * e.amplitude_uv * -u * np.exp(0.5 - 0.5 * u * u)
        else:
            row = np.zeros(CHUNK, np.float32)
            self._emg.add(row, first, self._place[-1], 1.0)
            envelope = np.sin(np.pi * np.clip(t / e.duration_s, 0, 1)) ** 0.5
            x = row[a:b] * envelope * e.amplitude_uv / 3.0
        k = self._names.index(f"{e.muscle}+")
        out[k, a:b] += (0.8 * x).astype(np.float32)
        if f"{e.muscle}-" in self._names:
            out[k + 1, a:b] -= (0.2 * x).astype(np.float32)

    def _add_cautery(self, out: Floats, first: int, e: Cautery) -> None:
        _, a, b = self._span(e, first)
        if a >= b:
            return
        row = np.zeros(CHUNK, np.float32)
        self._white.add(row, first, self._place[-2], e.level_uv / np.sqrt(self._rate / 2.0))
        wave, _ = self._mains_wave(first)  # the generator is modulated by its rectified supply
        burst = row[a:b] * (0.4 + np.abs(wave[a:b])) + np.float32(0.5 * e.level_uv) * wave[a:b]
        out[:, a:b] += np.multiply.outer(self._cautery_gain, burst)

    def disconnected(self, row: int, first: int, state: str, lsb_uv: float) -> Floats:
        """What an input shows instead of its electrode, over one whole chunk."""
        if state == "flat":
            return np.zeros(CHUNK, np.float32)
        if state == "saturated":
            return np.full(CHUNK, 3e7 * lsb_uv, np.float32)
        out = np.zeros(CHUNK, np.float32)
        wave, _ = self._mains_wave(first)
        open_lead = 1.0 if state == "off" else 0.1
        out += np.float32(250.0 * open_lead * max(0.2, self._noise.mains_uv)) * wave
        self._white.add(out, first, self._place[4 * row + 3], 2.5 * open_lead)
        self._eeg.add(out, first, self._place[4 * row + 3], 60.0 * open_lead)
        if state == "off":
            out += np.float32(30_000.0)  # the input drifts towards its bias
        return out


def noise_table(noise: Noise) -> dict[str, float]:
    """For truth(): the levels in force."""
    return {k: float(getattr(noise, k)) for k in noise.__struct_fields__}
