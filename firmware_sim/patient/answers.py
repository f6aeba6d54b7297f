"""A delivered pulse -> what it adds to each electrode: artefact, nerve volleys, cortical response, muscle.

In: pulses as the firmware measured them, in order.  Out: additions to an Overlay.
Always: the answer depends on the **delivered** value, never on what was asked; it depends on (seed, scenario,
pulses so far) only.  A train works pulse by pulse: each volley raises the excitation of the motoneurons, which
decays in between, and the units that it newly brings over their threshold fire then.  So an MEP needs a train,
an aborted train gives what its pulses had reached, and a lead in the air gives nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from firmware_sim.patient.body import Bump, Muscle, Nerve, Table, muscles, nerve, region
from firmware_sim.patient.overlay import Overlay
from firmware_sim.patient.tracks import Tracks
from firmware_sim.scenario import NERVES, STAGES, Scenario

Floats = npt.NDArray[np.float32]

WAVE_MS = 150.0  # no answer lasts longer
CHRONAXIE_US = 200.0  # large fibres through skin
CELSIUS_DELAY = 0.030  # relative lengthening of a latency per degree below 36.5
CORTICAL_RECOVERY_S = 0.045  # a cortex stimulated again after t gives 1 - exp(-t / this)
MOTOR_DECAY_MS = 6.0  # of the excitation that one corticospinal volley leaves
TES_CONTRA_V, TES_IPSI_V = 230.0, 400.0  # half of the fast corticospinal axons, 50 us
MUAPS = 7  # groups of motor units of a muscle


# (nerve, stage) -> electrode -> function(t_ms) in uV: takes the place of that stage's waves (recordings.py)
Shapes = dict[tuple[str, str], dict[str, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]]]


class PulseLike(Protocol):
    sample: int
    output: int
    delivered: int
    volts: bool
    width_us: int
    polarity: int
    biphasic: bool


def _phi(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def strength(width_us: int, reference_us: float, chronaxie_us: float = CHRONAXIE_US) -> float:
    """How strong a pulse of that width is against one of the reference width (Lapicque-Weiss)."""
    w = max(1.0, float(width_us))
    return (w / (w + chronaxie_us)) / (reference_us / (reference_us + chronaxie_us))


class Answers:
    def __init__(self, scenario: Scenario, table: Table, tracks: Tracks, names: tuple[str, ...],
                 rate_hz: float, seed: int, shapes: Shapes | None = None) -> None:  # fmt: skip
        self._s, self._tracks, self._rate = scenario, tracks, rate_hz
        self._shapes = shapes or {}
        self._outputs = scenario.device.outputs
        self._row = {name: i for i, name in enumerate(names)}
        b = scenario.patient
        self.nerves: dict[str, Nerve] = {
            n: nerve(n, b.median_cortical_uv, b.cervical_uv, b.plexus_uv, table) if n.startswith("median")
            else nerve(n, b.tibial_cortical_uv, b.cervical_uv, b.popliteal_uv, table)
            for n in NERVES
        }  # fmt: skip
        self.muscles: dict[str, Muscle] = {m.name: m for m in muscles()}
        rng = np.random.Generator(np.random.PCG64([seed, 23]))
        self._normal = rng.standard_normal(1 << 16)
        self._salt = int(rng.integers(1 << 30))
        self._slow_phase = rng.uniform(0, 2 * np.pi, (len(NERVES) + len(self.muscles), 3))
        self._excitability = {
            n: 1.0 + 0.08 * float(rng.uniform(-1, 1)) for n in (*NERVES, *sorted(self.muscles), "tes")
        }
        self._n = round(WAVE_MS / 1000.0 * rate_hz)
        self.longest = self._n + round(0.1 * rate_hz)  # from a pulse to the last sample that it can reach
        self._t_ms = np.arange(self._n) * 1000.0 / rate_hz
        self._waves: dict[tuple[str, str, int], list[tuple[int, Floats]]] = {}
        self._muaps = {name: self._make_muaps(rng, m) for name, m in self.muscles.items()}
        self._mwave = {name: self._make_mwave(m) for name, m in self.muscles.items()}
        self._artefact_waves = [
            (share * np.exp(-self._t_ms[: round(0.04 * rate_hz) + 1] / tau)).astype(np.float32)
            for tau, share in zip(table.artefact_tau_ms, table.artefact_share, strict=True)
        ]
        self._artefact_gain = self._make_artefact(rng, names)
        self._last_nerve: dict[str, int] = {}
        self._store: dict[str, tuple[int, float]] = {}  # muscle -> (sample of the last twitch, transmitter left)
        self._motor: dict[
            str, tuple[int, float, float]
        ] = {}  # muscle -> (sample, excitation, share fired in this train)
        self._fatigue: dict[str, tuple[int, float]] = {}
        self.delivered = 0

    # ------------------------------------------------------------ chance

    def _z(self, sample: int, salt: int) -> float:
        """A standard normal number that belongs to this sample and purpose."""
        h = (sample * 0x9E3779B1 + salt * 0x85EBCA77 + self._salt) & 0xFFFFFFFF
        h ^= h >> 15
        h = (h * 0x2C1B3C6D) & 0xFFFFFFFF
        return float(self._normal[(h ^ (h >> 12)) & 0xFFFF])

    def _slow(self, which: int, sample: int) -> float:
        """Wandering of a response's amplitude, minutes long, one standard deviation = `drift`."""
        t = sample / self._rate
        p = self._slow_phase[which]
        x = math.sin(t / 71.0 + p[0]) + math.sin(t / 203.0 + p[1]) + math.sin(t / 640.0 + p[2])
        return math.exp(self._s.patient.drift * x / 1.22)

    # ------------------------------------------------------------ shapes

    def _evaluate(self, bumps: tuple[Bump, ...], delay_ms: float) -> Floats:
        out = np.zeros(self._n)
        for b in bumps:
            d = self._t_ms - (b.peak_ms + delay_ms)
            width = np.where(d < 0, b.rise_ms, b.fall_ms)
            out += b.amplitude_uv * np.exp(-0.5 * (d / width) ** 2)
        out[self._t_ms < 1.0] = 0.0  # nothing has arrived yet
        return out.astype(np.float32)

    def stage_waves(self, name: str, stage: str, delay_ms: float) -> list[tuple[int, Floats]]:
        """(row, uV[sample from the pulse]) of each electrode that is there; delays are kept to 5 us."""
        step = round(delay_ms / 0.005)
        key = (name, stage, step)
        found = self._waves.get(key)
        if found is None:
            if len(self._waves) > 400:
                self._waves.clear()
            own = self._shapes.get((name, stage))
            if own is not None:
                found = [(self._row[e], shape(self._t_ms - step * 0.005).astype(np.float32))
                         for e, shape in own.items() if e in self._row]  # fmt: skip
            else:
                found = [(self._row[w.electrode], self._evaluate(w.bumps, step * 0.005))
                         for w in self.nerves[name].stages[stage] if w.electrode in self._row]  # fmt: skip
            self._waves[key] = found
        return found

    def _make_muaps(self, rng: np.random.Generator, m: Muscle) -> list[Floats]:
        """Waves of the unit groups of one muscle, onset at column 0, each about 1 uV peak to peak when all add up."""
        t = self._t_ms
        rows = []
        for k in range(MUAPS):
            wave = np.zeros(self._n)
            for _ in range(5):
                at = 0.8 + m.duration_ms * (0.06 * k + 0.45 * float(rng.beta(1.6, 2.6)))
                width = float(rng.uniform(0.9, 1.9))
                d = (t - at - 1.6 * width) / width
                wave += float(rng.uniform(0.5, 1.2)) * -d * np.exp(0.5 - 0.5 * d * d)
            wave *= np.clip(t / 0.8, 0, 1)
            rows.append(wave)
        scale = np.ptp(np.sum(rows, axis=0))
        return [(r / scale).astype(np.float32) for r in rows]

    def _make_mwave(self, m: Muscle) -> Floats:
        d = (self._t_ms - m.m_latency_ms - 3.0) / 1.9
        wave = np.where(
            self._t_ms < m.m_latency_ms, 0.0, -np.exp(-0.5 * d * d) + 0.55 * np.exp(-0.5 * ((d - 3.2) / 1.5) ** 2)
        )
        wave *= np.clip((self._t_ms - m.m_latency_ms) / 0.6, 0, 1)
        return (wave / np.ptp(wave)).astype(np.float32)

    def _make_artefact(self, rng: np.random.Generator, names: tuple[str, ...]) -> list[Floats]:
        """uV per mA (per V for TES) of each output at each electrode, right after the pulse."""
        out = []
        for target in self._outputs:
            row = []
            for name in names:
                place = region(name)
                gain = {"scalp": 1.2, "frontal": 1.5, "neck": 2.0, "limb": 3.0, "muscle": 3.0, "spare": 0.2}[place]
                if target in NERVES:
                    near = {"median": ("EP", "APB", "DELT"), "tibial": ("PF", "AH", "TA")}[target.split("_")[0]]
                    same = ("L" if target.endswith("left") else "R") in name[2:]
                    gain *= 12.0 if name.startswith(near) and same else 1.0
                elif target == "tes":
                    gain = {"scalp": 60.0, "frontal": 50.0, "neck": 12.0}.get(place, 1.5)
                elif target == "probe":
                    gain = 6.0 if name.startswith(("DELT", "APB")) or place == "neck" else 2.0
                row.append(
                    self._s.noise.artefact
                    * gain
                    * float(rng.uniform(0.6, 1.2))
                    * float(rng.choice([-1, 1], p=[0.35, 0.65]))
                )
            out.append(np.array(row, np.float32))
        return out

    # ------------------------------------------------------------ pulses

    def pulse(self, p: PulseLike, overlay: Overlay, now: int) -> None:
        """Add the answers to one delivered pulse; `now` is the next sample to be rendered."""
        if not 0 <= p.output < len(self._outputs):
            return
        target, amount = self._outputs[p.output], abs(p.delivered) / 1000.0  # mA or V
        if amount <= 0.0:
            return
        self.delivered += 1
        sign = 1 if p.polarity >= 0 else -1
        self._add_artefact(p, amount, sign, overlay, now)
        if target in NERVES and not p.volts:
            self._nerve(target, p, amount, sign, overlay, now)
        elif target == "tes":
            self._tes(p, amount, sign, overlay, now)
        elif target == "probe":
            self._probe(p, amount, overlay, now)

    def _add_artefact(self, p: PulseLike, amount: float, sign: int, overlay: Overlay, now: int) -> None:
        gains = self._artefact_gain[p.output] * np.float32(amount * sign * (0.25 if p.biphasic else 1.0))
        length = max(1, round(p.width_us * 1e-6 * self._rate))
        overlay.add_outer(p.sample, gains * np.float32(4.0), np.ones(length, np.float32), now)
        for wave in self._artefact_waves:
            overlay.add_outer(p.sample + length, -gains, wave, now)

    def _nerve(self, name: str, p: PulseLike, ma: float, sign: int, overlay: Overlay, now: int) -> None:
        n = self.nerves[name]
        effective = ma * strength(p.width_us, 200.0) * (1.0 if sign > 0 else 0.87) / self._excitability[name]
        afferent = _phi(math.log(effective / n.threshold_ma) / 0.22)
        if afferent < 1e-4:
            return
        which = NERVES.index(name)
        gap_s = (p.sample - self._last_nerve[name]) / self._rate if name in self._last_nerve else 10.0
        self._last_nerve[name] = p.sample
        slow = self._slow(which, p.sample)
        cv = self._s.patient.sweep_cv
        for k, stage in enumerate(STAGES):
            gain = afferent * self._tracks.nerve(name, stage, p.sample)
            if stage == "cortex":
                gain *= (
                    slow
                    * max(0.2, 1.0 + cv * self._z(p.sample, 16 * which + k))
                    * (1.0 - math.exp(-gap_s / CORTICAL_RECOVERY_S))
                )
            elif stage != "limb":
                gain *= max(0.2, 1.0 + 0.5 * cv * self._z(p.sample, 16 * which + k))
            if gain <= 0.0:
                continue
            for row, wave in self.stage_waves(name, stage, self.delay_ms(name, stage, p.sample)):
                overlay.add(row, p.sample, wave, gain, now)
        motor = _phi(math.log(effective / n.motor_threshold_ma) / 0.16) * self._tracks.nerve(name, "limb", p.sample)
        if motor > 1e-4:
            self._twitch(n.muscle, motor, p.sample, overlay, now)

    def delay_ms(self, name: str, stage: str, sample: int) -> float:
        """How much later than in the table this stage answers: height, temperature, script."""
        n, b = self.nerves[name], self._s.patient
        share = n.arrival_ms[stage] / n.arrival_ms["cortex"]
        cold = CELSIUS_DELAY * (36.5 - self._tracks.temperature_c(sample)) * n.arrival_ms[stage]
        return n.height_ms_per_cm * (b.height_cm - 172.0) * share + cold + self._tracks.delay_ms(name, stage, sample)

    def _transmission(self, muscle: str, sample: int) -> float:
        """Share of the muscle's fibres that answer one nerve volley: relaxant, and the transmitter spent before."""
        last, left = self._store.get(muscle, (sample, 1.0))
        left = 1.0 - (1.0 - left) * math.exp(-(sample - last) / self._rate / 3.5)
        potential = 5.5 * left * (1.0 - self._tracks.block(sample))
        self._store[muscle] = (sample, left * 0.86)
        return _phi((potential - 1.0) / 0.30)

    def _twitch(self, muscle: str, share: float, sample: int, overlay: Overlay, now: int) -> None:
        """An M wave: `share` of the motor axons of this muscle fire at once."""
        m = self.muscles[muscle]
        gain = share * self._transmission(muscle, sample) * m.m_uv * (1.0 + 0.01 * self._z(sample, 301))
        self._add_pair(muscle, sample, self._mwave[muscle], gain, overlay, now)

    def _add_pair(self, muscle: str, at: int, wave: Floats, gain: float, overlay: Overlay, now: int) -> None:
        for label, part in ((f"{muscle}+", 0.85), (f"{muscle}-", -0.15)):
            if label in self._row and gain:
                overlay.add(self._row[label], at, wave, part * gain, now)

    def _tes(self, p: PulseLike, volts: float, sign: int, overlay: Overlay, now: int) -> None:
        """Positive polarity: the first electrode (C3) is the anode: left cortex and right limbs answer first."""
        effective = volts * strength(p.width_us, 50.0) / self._excitability["tes"]
        for k, (name, m) in enumerate(sorted(self.muscles.items())):
            favoured = p.biphasic or (m.side == ("right" if sign > 0 else "left"))
            drive = _phi(math.log(effective / (TES_CONTRA_V if favoured else TES_IPSI_V)) / 0.20)
            last, level, fired = self._motor.get(name, (-(1 << 40), 0.0, 0.0))
            gap_ms = (p.sample - last) * 1000.0 / self._rate
            if gap_ms > 200.0:
                level, fired = 0.0, 0.0
            ready = 1.0 - math.exp(-max(0.0, gap_ms - 0.7) / 0.45)  # axons just fired are refractory
            level = level * math.exp(-gap_ms / MOTOR_DECAY_MS) + drive * ready
            fired *= math.exp(-gap_ms / 25.0)
            need = (
                m.drive
                * self._excitability[name]
                * math.exp(0.12 * self._z(p.sample - p.sample % max(1, round(0.1 * self._rate)), 40 + k))
            )
            reached = _phi((level - need) / 0.28)
            central = self._tracks.muscle(name, p.sample)
            fresh = max(0.0, reached - fired)
            self._motor[name] = (p.sample, level, max(fired, reached))
            if fresh * central > 1e-3:
                self._mep(k, m, fresh * central, p.sample, overlay, now)

    def _mep(self, k: int, m: Muscle, share: float, sample: int, overlay: Overlay, now: int) -> None:
        last, tired = self._fatigue.get(m.name, (sample, 0.0))
        tired *= math.exp(-(sample - last) / self._rate / 8.0)
        self._fatigue[m.name] = (sample, min(0.5, tired + 0.02 * share))
        gain = self._s.patient.mep_uv * m.mep * share * (1.0 - tired) * self._slow(len(NERVES) + k, sample)
        gain *= self._transmission(m.name, sample)
        warm = 1.0 + CELSIUS_DELAY * (36.5 - self._tracks.temperature_c(sample))
        late = m.conduction_ms * warm * (1.0 + 0.3 * (self._s.patient.height_cm / 172.0 - 1.0)) + 0.25 * self._z(
            sample, 60 + k
        )
        at = sample + round(late * self._rate / 1000.0)
        cv = self._s.patient.mep_cv
        for j, wave in enumerate(self._muaps[m.name]):
            self._add_pair(
                m.name, at, wave, gain * max(0.0, 1.0 + 1.6 * cv * self._z(sample, 80 + 8 * k + j)), overlay, now
            )

    def _probe(self, p: PulseLike, ma: float, overlay: Overlay, now: int) -> None:
        contact, threshold, names = self._tracks.probe(p.sample)
        if not contact:
            return
        effective = ma * strength(p.width_us, 200.0)
        for k, name in enumerate(names):
            m = self.muscles[name]
            # 100 uV of 1600 uV at the threshold; each further muscle needs a quarter more
            share = _phi(math.log(effective / (threshold * (1.0 + 0.25 * k))) / 0.10 - 1.53)
            if share < 0.004:
                continue
            gain = 1600.0 * share * self._transmission(name, p.sample) * (1.0 + 0.08 * self._z(p.sample, 200 + k))
            at = p.sample + round((0.5 * m.conduction_ms) * self._rate / 1000.0)
            self._add_pair(name, at, self._mwave[name], gain, overlay, now)
