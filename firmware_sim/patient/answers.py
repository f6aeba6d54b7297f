"""A delivered pulse -> what it adds to each electrode: artefact, nerve volleys, cortical response, muscle.

In: pulses as the firmware measured them, in order.  Out: additions to an Overlay.
Always: the answer depends on the **delivered** value, never on what was asked; it depends on (seed, scenario,
pulses so far) only.  A pulse of which nothing was delivered, or through an output that leads nowhere, has no answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from firmware_sim.events import NERVES, STAGES
from firmware_sim.montage import region
from firmware_sim.patient.artefact import Artefact
from firmware_sim.patient.body import CELSIUS_DELAY, Bump, Nerve, Table, nerve
from firmware_sim.patient.chance import Chance
from firmware_sim.patient.motor import Motor
from firmware_sim.patient.overlay import Overlay
from firmware_sim.patient.stimulus import PulseLike, phi, strength
from firmware_sim.patient.tracks import Tracks
from firmware_sim.scenario import Scenario

Floats = npt.NDArray[np.float32]

WAVE_MS = 150.0  # no answer lasts longer
CORTICAL_RECOVERY_S = 0.045  # a cortex stimulated again after t gives 1 - exp(-t / this)

# nerve -> electrode -> function(t_ms) in uV: all that the scalp sees of that nerve, at its cortical stage (recorded.py)
Shapes = dict[str, dict[str, Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]]]


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
        self._chance = Chance(seed, rate_hz)
        rng = np.random.Generator(np.random.PCG64([seed, 41]))
        self._threshold = {n: 1.0 + 0.08 * float(rng.uniform(-1, 1)) for n in NERVES}
        self.wave_samples = round(WAVE_MS / 1000.0 * rate_hz)
        self.longest = self.wave_samples + round(0.1 * rate_hz)  # from a pulse to the last sample that it can reach
        self._t_ms = np.arange(self.wave_samples) * 1000.0 / rate_hz
        self._waves: dict[tuple[str, str, int], list[tuple[int, Floats]]] = {}
        self._artefact = Artefact(scenario, table, names, rate_hz, seed)
        self._motor = Motor(b, tracks, self._chance, self._row, self._t_ms, rate_hz, seed)
        self._last_nerve: dict[str, int] = {}
        self.delivered = 0

    # ------------------------------------------------------------ shapes

    def _evaluate(self, bumps: tuple[Bump, ...], delay_ms: float) -> Floats:
        out = np.zeros(self.wave_samples)
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
            own = self._shapes.get(name)
            found = [
                (self._row[w.electrode], self._evaluate(w.bumps, step * 0.005))
                for w in self.nerves[name].stages[stage]
                if w.electrode in self._row and (own is None or region(w.electrode) not in ("scalp", "frontal"))
            ]
            if own is not None and stage == "cortex":
                found += [(self._row[e], shape(self._t_ms - step * 0.005).astype(np.float32))
                          for e, shape in own.items() if e in self._row]  # fmt: skip
            self._waves[key] = found
        return found

    # ------------------------------------------------------------ pulses

    def pulse(self, p: PulseLike, overlay: Overlay, now: int) -> None:
        """Add the answers to one delivered pulse; `now` is the next sample to be rendered."""
        target = self._outputs[p.output] if 0 <= p.output < len(self._outputs) else "none"
        amount = abs(p.delivered) / 1000.0  # mA or V
        if target == "none" or amount <= 0.0:
            return
        self.delivered += 1
        sign = 1 if p.polarity >= 0 else -1
        self._artefact.add(p, amount, sign, overlay, now)
        if target == "tes" and p.volts:
            self._motor.transcranial(p, amount, sign, overlay, now)
        elif target == "probe" and not p.volts:
            self._motor.probe(p, amount, overlay, now)
        elif target in self.nerves and not p.volts:
            self._nerve(target, p, amount, sign, overlay, now)

    def _nerve(self, name: str, p: PulseLike, ma: float, sign: int, overlay: Overlay, now: int) -> None:
        n = self.nerves[name]
        effective = ma * strength(p.width_us, 200.0) * (1.0 if sign > 0 else 0.87) / self._threshold[name]
        afferent = phi(math.log(effective / n.threshold_ma) / 0.22)
        if afferent < 1e-4:
            return
        which = NERVES.index(name)
        gap_s = (p.sample - self._last_nerve[name]) / self._rate if name in self._last_nerve else 10.0
        self._last_nerve[name] = p.sample
        slow = self._chance.wander(p.sample, which, self._s.patient.drift)
        cv = self._s.patient.sweep_cv
        for k, stage in enumerate(STAGES):
            gain = afferent * self._tracks.nerve(name, stage, p.sample)
            if stage == "cortex":
                gain *= (
                    slow
                    * max(0.2, 1.0 + cv * self._chance.z(p.sample, 16 * which + k))
                    * (1.0 - math.exp(-gap_s / CORTICAL_RECOVERY_S))
                )
            elif stage != "limb":
                gain *= max(0.2, 1.0 + 0.5 * cv * self._chance.z(p.sample, 16 * which + k))
            if gain <= 0.0:
                continue
            for row, wave in self.stage_waves(name, stage, self.delay_ms(name, stage, p.sample)):
                overlay.add(row, p.sample, wave, gain, now)
        motor = phi(math.log(effective / n.motor_threshold_ma) / 0.16) * self._tracks.nerve(name, "limb", p.sample)
        if motor > 1e-4:
            self._motor.twitch(n.muscle, motor, p.sample, overlay, now)

    def delay_ms(self, name: str, stage: str, sample: int) -> float:
        """How much later than in the table this stage answers: height, temperature, script."""
        n, b = self.nerves[name], self._s.patient
        share = n.arrival_ms[stage] / n.arrival_ms["cortex"]
        cold = CELSIUS_DELAY * (36.5 - self._tracks.temperature_c(sample)) * n.arrival_ms[stage]
        return n.height_ms_per_cm * (b.height_cm - 172.0) * share + cold + self._tracks.delay_ms(name, stage, sample)
