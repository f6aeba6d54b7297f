"""What can happen in a scenario: to the patient, to the electrodes and leads, to the unit and its cable.

One type an event; its `kind` in the file is the tag here.  An event begins at `at_s` (device seconds) or `at_sample`
(device samples), exactly one of them, and lasts to `until_s` where it has one.  Ranges: scenario_check.LIMITS;
every key: docs/scenarios.md.
"""

from __future__ import annotations

from typing import Literal

import msgspec

NERVES = ("median_left", "median_right", "tibial_left", "tibial_right")
MUSCLES = ("DELT-L", "DELT-R", "APB-L", "APB-R", "TA-L", "TA-R", "AH-L", "AH-R")
STAGES = ("limb", "cord", "brainstem", "cortex")
AUX_LINE = {"cautery": 0, "foot_switch": 1, "probe_button": 2, "external_trigger": 3}

Stage = Literal["limb", "cord", "brainstem", "cortex"]
ElectrodeState = Literal["off", "flat", "saturated", "noisy"]
FaultKind = Literal[
    "unplug", "replug", "reboot", "drop", "duplicate", "corrupt", "stall", "wedge", "overflow", "freeze", "babble"
]
AuxName = Literal["cautery", "foot_switch", "probe_button", "external_trigger"]


def due(at_s: float | None, at_sample: int | None, rate_hz: float) -> int:
    """The device sample of a time that is given in one of two ways."""
    return int(at_sample) if at_sample is not None else round(float(at_s or 0.0) * rate_hz)



class Timed(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", kw_only=True):
    at_s: float | None = None
    at_sample: int | None = None
    note: str = ""

    def sample(self, rate_hz: float) -> int:
        """The device sample at which it is due."""
        return due(self.at_s, self.at_sample, rate_hz)


class Loss(Timed, tag="loss", kw_only=True):
    """Responses fall to `ratio`: those of `stage` and all later ones of these nerves; muscles are MEPs."""

    nerves: list[str] = msgspec.field(default_factory=list)
    muscles: list[str] = msgspec.field(default_factory=list)
    stage: Stage = "cord"
    ratio: float = 0.0
    ramp_s: float = 0.0
    until_s: float | None = None
    recover_ramp_s: float = 0.0
    recover_to: float = 1.0
    cause: Literal["focal", "peripheral", "systemic", "technical"] = "focal"
    side: Literal["left", "right", "both", "none"] = "none"
    level: str = ""


class Fade(Timed, tag="fade", kw_only=True):
    """A systemic fade: every cortical response and every MEP falls to `ratio`, cervical ones to its root."""

    ratio: float = 0.5
    ramp_s: float = 60.0
    until_s: float | None = None
    recover_ramp_s: float = 60.0


class Latency(Timed, tag="latency", kw_only=True):
    """Responses of these nerves come `shift_ms` later from `stage` on."""

    nerves: list[str]
    stage: Stage = "limb"
    shift_ms: float = 1.0
    ramp_s: float = 0.0
    until_s: float | None = None
    recover_ramp_s: float = 0.0


class Temperature(Timed, tag="temperature", kw_only=True):
    """The patient cools or warms: every latency follows."""

    to_c: float
    ramp_s: float = 600.0


class Relaxant(Timed, tag="relaxant", kw_only=True):
    """A bolus: `block` of the receptors still free are taken within `onset_s`, then released."""

    block: float = 0.8
    onset_s: float = 60.0
    half_life_s: float = 900.0


class LeadOff(Timed, tag="lead_off", kw_only=True):
    """The lead of a stimulator output hangs in the air."""

    output: int
    until_s: float | None = None


class StimGain(Timed, tag="stim_gain", kw_only=True):
    """An output delivers `factor` of what it is told."""

    output: int
    factor: float
    until_s: float | None = None


class Probe(Timed, tag="probe", kw_only=True):
    """The hand-held probe touches tissue."""

    until_s: float | None = None
    threshold_ma: float | None = None
    muscles: list[str] = msgspec.field(default_factory=list)


class ElectrodeFault(Timed, tag="electrode", kw_only=True):
    """Electrodes pulled out (`off`), shorted (`flat`), out of range (`saturated`) or drying (`noisy`)."""

    electrodes: list[str]
    state: ElectrodeState = "off"
    impedance_kohm: float | None = None
    until_s: float | None = None


class Cautery(Timed, tag="cautery", kw_only=True):
    """Electrosurgery at every electrode; `sensed` says whether the cart's sensor raises its line."""

    duration_s: float = 2.0
    level_uv: float = 4000.0
    sensed: bool = True


class Emg(Timed, tag="emg", kw_only=True):
    """Free-running EMG of one muscle: `burst` (irregular), `train` (A-train, `rate_hz`), `spikes`."""

    muscle: str
    pattern: Literal["burst", "train", "spikes"] = "burst"
    duration_s: float = 0.3
    amplitude_uv: float = 150.0
    rate_hz: float = 120.0


class Aux(Timed, tag="aux", kw_only=True):
    """A line of the unit changes its level."""

    line: AuxName
    level: Literal[0, 1]


class DeviceEvent(Timed, tag="device", kw_only=True):
    """A fault of the unit, the cable or the bus; the simulator carries it out."""

    fault: FaultKind
    count: int = 1
    duration_s: float = 0.0


Event = (
    Loss
    | Fade
    | Latency
    | Temperature
    | Relaxant
    | LeadOff
    | StimGain
    | Probe
    | ElectrodeFault
    | Cautery
    | Emg
    | Aux
    | DeviceEvent
)

# Of an electrode whose fault has no `impedance_kohm` of its own.
FAULT_KOHM = {"off": float("inf"), "flat": 0.1, "saturated": 60.0, "noisy": 22.0}


class DeviceFault(msgspec.Struct, frozen=True):
    """One scripted fault of the device: what the simulator does at `sample`."""

    sample: int
    kind: FaultKind
    count: int = 1  # blocks for drop, duplicate, corrupt; times for stall
    duration_samples: int = 0
