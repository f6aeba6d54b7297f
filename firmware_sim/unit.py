"""Puts one simulated unit together: scenario -> patient and firmware -> SimDevice.

In: a scenario's name and what shall differ from it.  Out: a SimDevice, powered up and configured as the scenario says.
Used by `ionmd-sim` and, without USB, by ionmd/drivers/demo.py.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import msgspec

from firmware_sim.core import Firmware
from firmware_sim.device import SimDevice, Speed
from firmware_sim.montage import labels
from firmware_sim.patient.patient import Patient
from firmware_sim.patient.recorded import find, recordings_dir
from firmware_sim.scenario import Scenario, load
from ionmd.errors import ConfigError

_KINDS = {"tes": (2, 0), "probe": (3, 1), "none": (0, 0)}  # target -> kind, connection; every nerve is (1, 0)
INPUTS_MAX = 64


def check(scenario: Scenario) -> Scenario:
    """The same scenario.  Raises ConfigError when it needs recordings that this machine does not have."""
    if scenario.patient.source == "recordings":
        find(recordings_dir())
    return scenario


def build(scenario: str | Path | Scenario = "quiet", speed: Speed = 1.0, seed: int | None = None,
          serial: str | None = None, inputs: int | None = None, rate_hz: int | None = None,
          block_samples: int | None = None, ppm: float | None = None) -> SimDevice:  # fmt: skip
    """One unit.  Raises ConfigError for a scenario that cannot be had."""
    loaded = scenario if isinstance(scenario, Scenario) else load(scenario)
    changes = {"inputs": inputs, "rate_hz": rate_hz, "block_samples": block_samples, "serial": serial, "ppm": ppm}
    unit = msgspec.structs.replace(loaded.device, **{k: v for k, v in changes.items() if v is not None})
    loaded = msgspec.structs.replace(loaded, device=unit)
    if not unit.serial.startswith("SIM-") or len(unit.serial) > 64 or not unit.serial.isascii():
        raise ConfigError(f"serial {unit.serial!r}: expected SIM-... of up to 64 ASCII characters")
    seed = loaded.scenario.seed if seed is None else seed
    patient = Patient(loaded, seed)
    firmware = Firmware(
        unit.serial, seed=seed & 0xFFFFFFFFFFFFFFFF, inputs_max=INPUTS_MAX, outputs=8, labels=labels(INPUTS_MAX)
    )
    status, _ = firmware.control(*_set_config(loaded))
    if status:
        raise ConfigError(f"scenario {loaded.name}: the firmware refuses its [device] table")
    return SimDevice(firmware, patient, speed, unit.ppm, seed=seed)


def _set_config(scenario: Scenario) -> tuple[bytes, bytes]:
    """SET_CONFIG (docs/wire/ionm1.md 5.4) as the scenario wants the unit to wake up; a host may change all of it."""
    unit = scenario.device
    block = unit.block_samples or max(1, unit.rate_hz // 500)
    outputs = b"".join(struct.pack("<BBHI", *_KINDS.get(target, (1, 0)), 0, 0) for target in unit.outputs[:8])
    count = len(unit.outputs[:8])
    body = struct.pack("<HHIHHB3x", 1, 20 + len(outputs), unit.rate_hz, unit.inputs, block, count) + outputs
    body += struct.pack("<I", zlib.crc32(body))
    return struct.pack("<BBHHH", 0x40, 0x11, 0, 0, len(body)), body
