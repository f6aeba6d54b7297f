"""What the simulated patient really answered: the same pulses again, without noise or artefact.  For tests alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import numpy as np

from firmware_sim.patient.answers import Answers
from firmware_sim.patient.patient import Patient
from firmware_sim.scenario import Noise, Scenario, load

LSB_UV = 0.002
SILENT = {name: 0.0 for name in Noise.__struct_fields__ if name != "mains_hz"}


@contextmanager
def recorded_pulses() -> Iterator[list[Any]]:
    """Every pulse that reaches a patient while the block runs, as the firmware measured it."""
    kept: list[Any] = []
    original = Answers.pulse

    def pulse(self: Answers, p: Any, overlay: Any, now: int) -> None:
        kept.append(p)
        original(self, p, overlay, now)

    Answers.pulse = pulse  # type: ignore[method-assign]
    try:
        yield kept
    finally:
        Answers.pulse = original  # type: ignore[method-assign]


class Truth:
    """Noiseless answers of the patient of a scenario to these pulses."""

    def __init__(self, scenario: str, seed: int, pulses: list[Any], inputs: int, rate_hz: int) -> None:
        given: Scenario = load(scenario)
        silent = msgspec.structs.replace(
            given, noise=Noise(**SILENT),
            events=[e for e in given.events if type(e).__name__ not in ("Emg", "Cautery", "ElectrodeFault")],
        )
        self.patient = Patient(silent, seed)
        self.patient.configure(inputs, rate_hz, LSB_UV)
        self.rate_hz = rate_hz
        pulses = sorted(pulses, key=lambda p: p.sample)
        self._counts = np.zeros((pulses[-1].sample + rate_hz, inputs), np.int32)
        self.patient.render(0, len(self._counts), pulses, self._counts)

    def muscle(self, name: str, first: int, ms: float) -> np.ndarray:
        """uV[sample] of a muscle from device sample `first` on, for `ms`."""
        names = self.patient.names
        rows = self._counts[first : first + round(ms * self.rate_hz / 1000)]
        return (rows[:, names.index(f"{name}+")] - rows[:, names.index(f"{name}-")]) * LSB_UV
