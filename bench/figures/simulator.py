"""What the simulator costs: CPU of firmware, patient and pacing for one simulated second, without a bus."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bench.figures.row import Row
from firmware_sim.device import SimDevice
from firmware_sim.patient import Patient
from firmware_sim.unit import build

# scenario, inputs, Hz, four interleaved SSEPs, most CPU ms a simulated second
SIZES = (("demo", 8, 10_000, True, 40.0), ("demo", 12, 10_000, True, 40.0), ("quiet", 64, 40_000, False, 250.0))
SSEP_HZ = 2.55


@dataclass(frozen=True)
class Pulse:
    sample: int
    output: int
    delivered: int = 25_000
    volts: bool = False
    width_us: int = 200
    polarity: int = 1
    biphasic: bool = False


class Stimulated:
    """The patient, given the pulses of four interleaved SSEPs beside those that the firmware delivers."""

    def __init__(self, patient: Patient) -> None:
        self._patient = patient

    def __getattr__(self, name: str) -> Any:
        return getattr(self._patient, name)

    def render(self, first: int, n: int, pulses: Sequence[Any], out: Any) -> None:
        every = self._patient.rate_hz / (4 * SSEP_HZ)
        begin, end = (int(-(-s // every)) for s in (first, first + n))
        self._patient.render(first, n, [Pulse(int(k * every), k % 4) for k in range(begin, end)], out)


def cpu_ms(scenario: str, inputs: int, rate_hz: int, stimulated: bool, seconds: int) -> float:
    """Of one simulated second, after a warm-up of two; blocks are read, the host's heartbeat comes every 100 ms."""
    device = build(scenario, "max", 1, None, inputs, rate_hz)
    if stimulated:
        device.patient = Stimulated(device.patient)
    for setup in ((0x00, 9, 1), (0x01, 11, 1)):
        device.control(struct.pack("<BBHHH", *setup, 0, 0))
    device.control(struct.pack("<BBHHH", 0x41, 0x10, 1, 0, 4), struct.pack("<I", 7))
    _run(device, 2 * rate_hz)
    began = time.process_time()
    _run(device, (2 + seconds) * rate_hz)
    return (time.process_time() - began) * 1000.0 / seconds


def _run(device: SimDevice, end: int) -> None:
    firmware = device.firmware
    while firmware.sample < end:
        while device.step():
            while device.take() is not None:
                pass
        beat = struct.pack("<IIQI", firmware.sample + 1, 0, firmware.sample, firmware.boot_id)
        beat += struct.pack("<I", zlib.crc32(beat))
        status, _ = device.control(struct.pack("<BBHHH", 0x41, 0x40, 0, 1, len(beat)), beat)
        if status < 0:
            raise RuntimeError("the firmware refused the heartbeat")


def rows(quick: bool) -> list[Row]:
    made = []
    for scenario, inputs, rate_hz, stimulated, most in SIZES:
        seconds = (10 if quick else 60) if rate_hz <= 10_000 else (2 if quick else 8)
        found = sorted(cpu_ms(scenario, inputs, rate_hz, stimulated, seconds) for _ in range(2 if quick else 5))
        made.append(Row(
            f"simulator, {scenario}, {inputs} inputs x {rate_hz // 1000} kHz{', four SSEPs' if stimulated else ''}",
            f"<= {most:g} ms CPU for a simulated second",
            f"median {found[len(found) // 2]:.1f} ms, least {found[0]:.1f} ms", found[len(found) // 2] <= most,
        ))  # fmt: skip
    return made
