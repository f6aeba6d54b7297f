"""Muscles: M waves of a stimulated nerve, MEPs of transcranial trains, answers to the hand-held probe.

A train works pulse by pulse.  Each corticospinal volley raises the excitation of a motoneuron pool, which decays in
between; the units that it newly brings over their threshold fire then.  A volley that follows too soon is small,
because the axons have not recovered.  So under anaesthesia one pulse gives nothing, the answer grows to about five
pulses, intervals of 2-4 ms are best (docs/scenarios.md), an aborted train gives what its pulses
had reached, and a voltage below the threshold of the axons gives nothing however long the train.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from firmware_sim.patient.body import CELSIUS_DELAY, Muscle, muscles
from firmware_sim.patient.chance import Chance
from firmware_sim.patient.overlay import Overlay
from firmware_sim.patient.stimulus import PulseLike, phi, strength
from firmware_sim.patient.tracks import Tracks
from firmware_sim.scenario import Body

Floats = npt.NDArray[np.float32]

EXCITATION_DECAY_MS = 8.0  # of what one corticospinal volley leaves at the motoneuron
REFRACTORY_MS, RECOVERY_MS = 0.6, 1.1  # of a corticospinal axon: nothing before, then 1 - exp(-t / recovery)
POOL_SPREAD = 0.20  # of the units of a pool around the excitation at which half of them fire
TES_CONTRA_V, TES_IPSI_V, TES_SPREAD = 230.0, 400.0, 0.20  # half of the fast axons, 50 us; spread of the logarithm
TRAIN_GAP_MS = 100.0  # a pulse after a longer pause begins a new train
MUAPS = 7  # groups of motor units of a muscle
PROBE_UV = 1600.0  # 100 uV of these at the threshold
_PROBE_SPREAD, _PROBE_AT_THRESHOLD = 0.10, -1.53
_WANDER = 4  # the nerves have 0..3


class Motor:
    def __init__(self, body: Body, tracks: Tracks, chance: Chance, row: dict[str, int], t_ms: npt.NDArray[np.float64],
                 rate_hz: float, seed: int) -> None:  # fmt: skip
        rng = np.random.Generator(np.random.PCG64([seed, 31]))
        self._body, self._tracks, self._chance, self._row, self._rate = body, tracks, chance, row, rate_hz
        self.muscles: dict[str, Muscle] = {m.name: m for m in muscles()}
        self._order = sorted(self.muscles)
        self._muaps = {name: _unit_groups(rng, self.muscles[name], t_ms) for name in self._order}
        self._mwave = {name: _m_wave(m, t_ms) for name, m in self.muscles.items()}
        self._need = {n: self.muscles[n].drive * (1.0 + 0.05 * float(rng.uniform(-1, 1))) for n in self._order}
        self._cv = {n: body.mep_cv * float(rng.uniform(0.8, 1.25)) for n in self._order}
        self._tes_threshold = 1.0 + 0.08 * float(rng.uniform(-1, 1))
        self._pool: dict[str, _Pool] = {n: _Pool() for n in self._order}
        self._fatigue: dict[str, tuple[int, float]] = {}
        self._store: dict[str, tuple[int, float]] = {}  # muscle -> (sample of the last twitch, transmitter left)

    def _transmission(self, muscle: str, sample: int) -> float:
        """Share of the muscle's fibres that answer one nerve volley: relaxant, and the transmitter spent before."""
        last, left = self._store.get(muscle, (sample, 1.0))
        left = 1.0 - (1.0 - left) * math.exp(-(sample - last) / self._rate / 3.5)
        potential = 5.5 * left * (1.0 - self._tracks.block(sample))
        self._store[muscle] = (sample, left * 0.86)
        return phi((potential - 1.0) / 0.30)

    def _add_pair(self, muscle: str, at: int, wave: Floats, gain: float, overlay: Overlay, now: int) -> None:
        for label, part in ((f"{muscle}+", 0.85), (f"{muscle}-", -0.15)):
            if label in self._row and gain:
                overlay.add(self._row[label], at, wave, part * gain, now)

    def twitch(self, muscle: str, share: float, sample: int, overlay: Overlay, now: int) -> None:
        """An M wave: `share` of the motor axons of this muscle fire at once."""
        gain = share * self._transmission(muscle, sample) * self.muscles[muscle].m_uv
        gain *= 1.0 + 0.01 * self._chance.z(sample, 301)
        self._add_pair(muscle, sample, self._mwave[muscle], gain, overlay, now)

    # ------------------------------------------------------------ transcranial

    def transcranial(self, p: PulseLike, volts: float, sign: int, overlay: Overlay, now: int) -> None:
        """Positive polarity: the first electrode (C3) is the anode: left cortex and right limbs answer first."""
        effective = volts * strength(p.width_us, 50.0) / self._tes_threshold
        for k, name in enumerate(self._order):
            m, pool = self.muscles[name], self._pool[name]
            favoured = p.biphasic or (m.side == ("right" if sign > 0 else "left"))
            axons = phi(math.log(effective / (TES_CONTRA_V if favoured else TES_IPSI_V)) / TES_SPREAD)
            train = pool.train(p.sample, self._rate)
            need = self._need[name] * math.exp(0.05 * self._chance.z(train, 40 + k))
            fresh = pool.volley(axons, p.sample, self._rate, need)
            share = fresh * self._tracks.muscle(name, p.sample)
            if share > 1e-3:
                self._mep(k, m, share, p.sample, train, overlay, now)

    def _mep(self, k: int, m: Muscle, share: float, sample: int, train: int, overlay: Overlay, now: int) -> None:
        last, tired = self._fatigue.get(m.name, (sample, 0.0))
        tired *= math.exp(-(sample - last) / self._rate / 8.0)
        self._fatigue[m.name] = (sample, min(0.5, tired + 0.02 * share))
        cv = self._cv[m.name]
        gain = self._body.mep_uv * m.mep * share * (1.0 - tired) * self._transmission(m.name, sample)
        gain *= self._chance.wander(sample, _WANDER + k, self._body.drift) * self._chance.spread(train, 160 + k, cv)
        warm = 1.0 + CELSIUS_DELAY * (36.5 - self._tracks.temperature_c(sample))
        late = m.conduction_ms * warm * (1.0 + 0.3 * (self._body.height_cm / 172.0 - 1.0))
        late += 0.25 * self._chance.z(train, 60 + k)
        at = sample + round(late * self._rate / 1000.0)
        for j, wave in enumerate(self._muaps[m.name]):
            own = max(0.0, 1.0 + 0.6 * cv * self._chance.z(train, 80 + 8 * k + j))
            self._add_pair(m.name, at, wave, gain * own, overlay, now)

    # ------------------------------------------------------------ probe

    def probe(self, p: PulseLike, ma: float, overlay: Overlay, now: int) -> None:
        contact, threshold, names = self._tracks.probe(p.sample)
        if not contact:
            return
        effective = ma * strength(p.width_us, 200.0)
        for k, name in enumerate(names):
            m = self.muscles[name]
            over = math.log(effective / (threshold * (1.0 + 0.25 * k)))  # each further muscle needs a quarter more
            share = phi(over / _PROBE_SPREAD + _PROBE_AT_THRESHOLD)
            if share < 0.004:
                continue
            gain = PROBE_UV * share * self._transmission(name, p.sample)
            gain *= 1.0 + 0.08 * self._chance.z(p.sample, 200 + k)
            at = p.sample + round((0.5 * m.conduction_ms) * self._rate / 1000.0)
            self._add_pair(name, at, self._mwave[name], gain, overlay, now)


class _Pool:
    """Motoneurons of one muscle during a train."""

    def __init__(self) -> None:
        self._train = 0  # sample of its first pulse
        self._last = -(1 << 40)
        self._excitation = self._fired = 0.0

    def train(self, sample: int, rate_hz: float) -> int:
        """Sample of the first pulse of the train that a pulse now belongs to."""
        return sample if (sample - self._last) * 1000.0 / rate_hz > TRAIN_GAP_MS else self._train

    def volley(self, axons: float, sample: int, rate_hz: float, need: float) -> float:
        """Share of the units that this volley makes fire: those that were not reached before."""
        train = self.train(sample, rate_hz)
        if train == sample:
            self._excitation = axons
            self._fired = 0.0
        else:
            gap_ms = (sample - self._last) * 1000.0 / rate_hz
            ready = 1.0 - math.exp(-max(0.0, gap_ms - REFRACTORY_MS) / RECOVERY_MS)
            self._excitation = self._excitation * math.exp(-gap_ms / EXCITATION_DECAY_MS) + axons * ready
            self._fired *= math.exp(-gap_ms / 25.0)
        self._train, self._last = train, sample
        reached = phi((self._excitation - need) / POOL_SPREAD)
        fresh = max(0.0, reached - self._fired)
        self._fired = max(self._fired, reached)
        return fresh


def _unit_groups(rng: np.random.Generator, m: Muscle, t: npt.NDArray[np.float64]) -> list[Floats]:
    """Waves of the unit groups of one muscle, onset at column 0; their sum is 1 uV peak to peak."""
    rows = []
    for k in range(MUAPS):
        wave = np.zeros(len(t))
        for _ in range(5):
            at = 0.8 + m.duration_ms * (0.06 * k + 0.45 * float(rng.beta(1.6, 2.6)))
            width = float(rng.uniform(0.9, 1.9))
            d = (t - at - 1.6 * width) / width
            wave += float(rng.uniform(0.5, 1.2)) * -d * np.exp(0.5 - 0.5 * d * d)
        rows.append(wave * np.clip(t / 0.8, 0, 1))
    scale = np.ptp(np.sum(rows, axis=0))
    return [(r / scale).astype(np.float32) for r in rows]


def _m_wave(m: Muscle, t: npt.NDArray[np.float64]) -> Floats:
    d = (t - m.m_latency_ms - 3.0) / 1.9
    wave = np.where(t < m.m_latency_ms, 0.0, -np.exp(-0.5 * d * d) + 0.55 * np.exp(-0.5 * ((d - 3.2) / 1.5) ** 2))
    wave *= np.clip((t - m.m_latency_ms) / 0.6, 0, 1)
    return (wave / np.ptp(wave)).astype(np.float32)
