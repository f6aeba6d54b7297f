"""What the script has changed at a sample: factors on responses, delays, temperature, relaxant, contact, leads.

In: a scenario and the rate in force.  Out: plain numbers for one sample; every function is pure, so the order of
questions does not matter.  A ramp goes linearly from 1 to its ratio, stays, and may come back.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from firmware_sim.events import (
    FAULT_KOHM,
    STAGES,
    ElectrodeFault,
    Fade,
    Latency,
    LeadOff,
    Loss,
    Probe,
    Relaxant,
    StimGain,
    Temperature,
    Timed,
)
from firmware_sim.scenario import Scenario

_NEVER = 1 << 62


@dataclass(frozen=True)
class Ramp:
    """0 before `start`, 1 from start + rise, back towards `rest` after `stop` over `fall` samples."""

    start: int
    rise: int
    stop: int
    fall: int
    rest: float = 0.0

    def at(self, sample: int) -> float:
        if sample < self.start:
            return 0.0
        up = 1.0 if sample >= self.start + self.rise else (sample - self.start) / self.rise
        if sample < self.stop:
            return up
        top = 1.0 if self.stop >= self.start + self.rise else (self.stop - self.start) / self.rise
        if sample >= self.stop + self.fall:
            return self.rest
        return top + (self.rest - top) * (sample - self.stop) / self.fall


class Tracks:
    def __init__(self, scenario: Scenario, rate_hz: float) -> None:
        self._s = scenario
        self._rate = rate_hz
        self._ramps = {i: self._ramp(e) for i, e in enumerate(scenario.events)}
        self._of = {
            kind: [(self._ramps[i], e) for i, e in enumerate(scenario.events) if isinstance(e, kind)]
            for kind in (Loss, Fade, Latency, Temperature, Relaxant, LeadOff, StimGain, Probe, ElectrodeFault)
        }

    def _ramp(self, e: Timed) -> Ramp:
        def samples(seconds: float | None) -> int:
            return _NEVER if seconds is None else round(seconds * self._rate)

        rest = 0.0
        if isinstance(e, Loss) and e.ratio < 1:
            rest = (1.0 - e.recover_to) / (1.0 - e.ratio)
        return Ramp(
            e.sample(self._rate), samples(getattr(e, "ramp_s", 0.0)), samples(getattr(e, "until_s", None)),
            samples(getattr(e, "recover_ramp_s", 0.0)), rest,
        )  # fmt: skip

    def _hours(self, sample: int) -> float:
        return sample / self._rate / 3600.0

    def nerve(self, nerve: str, stage: str, sample: int) -> float:
        """Factor on a response of that stage: loss at an earlier stage, systemic fade, slow fade of the anaesthesia."""
        f = 1.0
        k = STAGES.index(stage)
        for ramp, e in self._of[Loss]:
            if nerve in e.nerves and k >= STAGES.index(e.stage):
                f *= 1.0 - (1.0 - e.ratio) * ramp.at(sample)
        if stage == "cortex":
            f *= max(0.0, 1.0 - self._s.patient.sep_fade_per_hour * self._hours(sample))
        for ramp, e in self._of[Fade]:
            ratio = {"cortex": e.ratio, "brainstem": e.ratio**0.5, "cord": e.ratio**0.5, "limb": 1.0}[stage]
            f *= 1.0 - (1.0 - ratio) * ramp.at(sample)
        return f

    def muscle(self, muscle: str, sample: int) -> float:
        """Factor on the central drive that reaches that muscle."""
        f = max(0.0, 1.0 - self._s.patient.mep_fade_per_hour * self._hours(sample))
        for ramp, e in self._of[Loss]:
            if muscle in e.muscles:
                f *= 1.0 - (1.0 - e.ratio) * ramp.at(sample)
        for ramp, e in self._of[Fade]:
            f *= 1.0 - (1.0 - e.ratio) * ramp.at(sample)
        return f

    def temperature_c(self, sample: int) -> float:
        value = self._s.patient.temperature_c
        for ramp, e in self._of[Temperature]:
            value += (e.to_c - value) * ramp.at(sample)
        return value

    def delay_ms(self, nerve: str, stage: str, sample: int) -> float:
        k = STAGES.index(stage)
        return sum(
            e.shift_ms * ramp.at(sample)
            for ramp, e in self._of[Latency]
            if nerve in e.nerves and k >= STAGES.index(e.stage)
        )

    def block(self, sample: int) -> float:
        """Fraction of the neuromuscular receptors blocked."""
        free = 1.0 - self._s.patient.relaxant
        for ramp, e in self._of[Relaxant]:
            t = (sample - ramp.start) / self._rate
            if t > 0:
                rise = 1.0 - math.exp(-3.0 * t / max(e.onset_s, 0.1))
                free *= 1.0 - e.block * rise * 0.5 ** (max(0.0, t - e.onset_s) / e.half_life_s)
        return 1.0 - free

    def lead_off(self, output: int, sample: int) -> bool:
        return any(e.output == output and ramp.start <= sample < ramp.stop for ramp, e in self._of[LeadOff])

    def stim_gain(self, output: int, sample: int) -> float:
        gain = 1.0
        for ramp, e in self._of[StimGain]:
            if e.output == output and ramp.start <= sample < ramp.stop:
                gain *= e.factor
        return gain

    def probe(self, sample: int) -> tuple[bool, float, tuple[str, ...]]:
        """(touches tissue, threshold in mA, muscles that answer)."""
        p = self._s.patient
        contact, threshold, muscles = p.probe_contact, p.probe_threshold_ma, tuple(p.probe_muscles)
        for ramp, e in self._of[Probe]:
            if ramp.start <= sample < ramp.stop:
                contact = True
                threshold = threshold if e.threshold_ma is None else e.threshold_ma
                muscles = tuple(e.muscles) or muscles
        return contact, threshold, muscles

    def load_changes(self) -> list[int]:
        """Every sample at which the load or gain of an output may change, in order."""
        ramps = [r for kind in (LeadOff, StimGain, Probe) for r, _ in self._of[kind]]
        return sorted({s for r in ramps for s in (r.start, r.stop) if 0 < s < _NEVER})

    def electrode_spans(self) -> list[tuple[str, str, float, int, int]]:
        """(label, state, kohm, first sample, sample after the last) of every electrode fault."""
        return [
            (label, e.state, FAULT_KOHM[e.state] if e.impedance_kohm is None else e.impedance_kohm, r.start, r.stop)
            for r, e in self._of[ElectrodeFault]
            for label in e.electrodes
        ]
