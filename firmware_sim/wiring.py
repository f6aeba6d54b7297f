"""Firmware and patient wired to each other, on one sample clock.

In: how many samples.  Out: they have passed stimulator -> patient -> acquisition, in this order.  Always: the patient
counts on where the device starts again: patient sample = device sample + `origin`, so a reboot does not heal anybody.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from firmware_sim.core import FwConfig


class Wiring:
    """One unit's leads."""

    def __init__(self, firmware: Any, patient: Any) -> None:
        self.firmware, self.patient = firmware, patient
        self.origin = 0
        self.pulses = 0  # that left an output
        self._shape = FwConfig(0, 0, 0)
        self._loads: dict[int, tuple[float, float]] = {}
        self._counts = np.zeros((0, 0), np.int32)

    def reshape(self, config: FwConfig, batch_n: int) -> None:
        """Inputs, rate or block length have changed; batches are at most batch_n samples."""
        if (config.inputs, config.rate_hz) != (self._shape.inputs, self._shape.rate_hz):
            if self._shape.rate_hz:
                self.origin = self.origin * config.rate_hz // self._shape.rate_hz
            self.patient.configure(config.inputs, config.rate_hz, self.firmware.lsb_pv[0] * 1e-6)
        self._shape = config
        self._loads = {}
        self._counts = np.zeros((batch_n, config.inputs), np.int32)

    def reboot(self) -> None:
        self.origin += self.firmware.sample
        self.firmware.reboot()

    def batch(self, n: int) -> None:
        """The next n samples; they are skipped while nothing streams."""
        fw, patient = self.firmware, self.patient
        at = fw.sample + self.origin
        for sample, line, level in patient.aux(at, n):
            fw.set_aux(line, level, sample - self.origin)
        for when in (at, *patient.load_changes(at, n)):
            self._follow_loads(when)
        if fw.impedance_input is not None:
            for number in range(fw.config.inputs):
                fw.set_impedance(number, patient.impedance(number, at))
        if not fw.streaming:
            fw.skip(n)
            return
        pulses = fw.stim_ticks(n)
        self.pulses += len(pulses)
        if self.origin and pulses:
            pulses = [replace(p, sample=p.sample + self.origin) for p in pulses]
        counts = self._counts[:n]
        patient.render(at, n, pulses, counts)
        fw.acquire(counts)

    def _follow_loads(self, at: int) -> None:
        """Tell the firmware what its outputs see from patient sample `at` on."""
        for output in range(self.firmware.outputs):
            load = self.patient.load(output, at)
            if load != self._loads.get(output):
                self._loads[output] = load
                self.firmware.set_load(output, load[0], load[1] - 1.0, at - self.origin)
