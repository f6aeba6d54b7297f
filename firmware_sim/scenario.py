"""A scenario file -> Scenario: who lies on the table, what happens to them and to the cart, and when.

In: a TOML file or the name of one that ships (`demo`).  Out: a frozen Scenario, every value checked.
Always: an unknown key, a wrong type, NaN, a negative time or an electrode that does not exist is a
ConfigError that names file, key, what came and what was expected.  Times are device seconds (`at_s`) or device
samples (`at_sample`), exactly one of them; `Scenario.sample` turns them into samples of the rate in force.
Every key is documented in docs/scenarios.md.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

import msgspec

from ionmd.errors import ConfigError

NERVES = ("median_left", "median_right", "tibial_left", "tibial_right")
MUSCLES = ("DELT-L", "DELT-R", "APB-L", "APB-R", "TA-L", "TA-R", "AH-L", "AH-R")
STAGES = ("limb", "cord", "brainstem", "cortex")
TARGETS = (*NERVES, "tes", "probe", "none")

Stage = Literal["limb", "cord", "brainstem", "cortex"]
ElectrodeState = Literal["off", "flat", "saturated", "noisy"]
FaultKind = Literal[
    "unplug", "replug", "reboot", "drop", "duplicate", "corrupt", "stall", "wedge", "overflow", "freeze", "babble"
]
AuxName = Literal["cautery", "foot_switch", "probe_button", "external_trigger"]
AUX_LINE: dict[str, int] = {"cautery": 0, "foot_switch": 1, "probe_button": 2, "external_trigger": 3}


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    pass


# ---------------------------------------------------------------- standing facts


class Device(_Strict, kw_only=True):
    """The simulated unit; a command line option may override each of these."""

    inputs: int = 32
    rate_hz: int = 10_000
    block_samples: int = 0  # 0: the firmware's default for the rate
    serial: str = "SIM-0001"
    ppm: float = 0.0  # clock error against wall time
    outputs: list[str] = msgspec.field(default_factory=lambda: [*NERVES, "tes", "probe"])


class Body(_Strict, kw_only=True):
    """The patient.  Amplitudes are those of a supramaximal stimulus in an undisturbed patient."""

    source: Literal["model", "recordings"] = "model"
    height_cm: float = 172.0
    temperature_c: float = 36.5
    median_cortical_uv: float = 2.6  # N20-P23, CPc-Fpz
    tibial_cortical_uv: float = 2.2  # P37-N45, CPz-CPc
    cervical_uv: float = 2.0  # N13 at C5S
    plexus_uv: float = 4.0  # N9 at Erb's point
    popliteal_uv: float = 3.0  # N8
    mep_uv: float = 900.0  # supramaximal peak to peak of APB; the other muscles follow it
    sweep_cv: float = 0.08  # coefficient of variation of a single cortical response
    mep_cv: float = 0.30
    drift: float = 0.04  # slow wandering of amplitudes, one standard deviation
    sep_fade_per_hour: float = 0.03
    mep_fade_per_hour: float = 0.08
    relaxant: float = 0.15  # fraction of receptors blocked, before any bolus
    probe_threshold_ma: float = 9.5  # 100 uV in the first muscle, 200 us
    probe_muscles: list[str] = msgspec.field(default_factory=lambda: ["DELT-R", "APB-R"])
    probe_contact: bool = False


class Noise(_Strict, kw_only=True):
    """Levels of one input, rms at 30-500 Hz (EEG, EMG) or over the whole band (amplifier)."""

    eeg_uv: float = 1.2
    frontal_uv: float = 1.9  # Fpz: eyes and frontal muscle
    limb_uv: float = 1.5
    emg_uv: float = 2.0
    amplifier_uv: float = 0.35
    mains_uv: float = 1.5
    mains_hz: float = 50.0
    ecg_uv: float = 15.0
    offset_mv: float = 8.0
    artefact: float = 1.0  # factor on the stimulus artefact


class Electrode(_Strict, kw_only=True):
    label: str
    impedance_kohm: float | None = None
    noise: float = 1.0  # factor on this electrode's own noise


class Head(_Strict, kw_only=True):
    name: str
    title: str = ""
    seed: int = 1
    duration_s: float = 600.0
    template: str = "cervical"


# ---------------------------------------------------------------- what happens


class _Event(_Strict, tag_field="kind", kw_only=True):
    at_s: float | None = None
    at_sample: int | None = None
    note: str = ""


class Loss(_Event, tag="loss", kw_only=True):
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


class Fade(_Event, tag="fade", kw_only=True):
    """A systemic fade: every cortical response and every MEP falls to `ratio`, cervical ones to its root."""

    ratio: float = 0.5
    ramp_s: float = 60.0
    until_s: float | None = None
    recover_ramp_s: float = 60.0


class Latency(_Event, tag="latency", kw_only=True):
    """Responses of these nerves come `shift_ms` later from `stage` on."""

    nerves: list[str]
    stage: Stage = "limb"
    shift_ms: float = 1.0
    ramp_s: float = 0.0
    until_s: float | None = None
    recover_ramp_s: float = 0.0


class Temperature(_Event, tag="temperature", kw_only=True):
    to_c: float
    ramp_s: float = 600.0


class Relaxant(_Event, tag="relaxant", kw_only=True):
    """A bolus: `block` of the receptors still free are taken within `onset_s`, then released."""

    block: float = 0.8
    onset_s: float = 60.0
    half_life_s: float = 900.0


class LeadOff(_Event, tag="lead_off", kw_only=True):
    """The lead of a stimulator output hangs in the air."""

    output: int
    until_s: float | None = None


class StimGain(_Event, tag="stim_gain", kw_only=True):
    """An output delivers `factor` of what it is told."""

    output: int
    factor: float
    until_s: float | None = None


class Probe(_Event, tag="probe", kw_only=True):
    """The hand-held probe touches tissue."""

    until_s: float | None = None
    threshold_ma: float | None = None
    muscles: list[str] = msgspec.field(default_factory=list)


class ElectrodeFault(_Event, tag="electrode", kw_only=True):
    electrodes: list[str]
    state: ElectrodeState = "off"
    until_s: float | None = None


class Cautery(_Event, tag="cautery", kw_only=True):
    duration_s: float = 2.0
    level_uv: float = 4000.0
    sensed: bool = True


class Emg(_Event, tag="emg", kw_only=True):
    """Free-running EMG of one muscle: `burst` (irregular), `train` (A-train, `rate_hz`), `spikes`."""

    muscle: str
    pattern: Literal["burst", "train", "spikes"] = "burst"
    duration_s: float = 0.3
    amplitude_uv: float = 150.0
    rate_hz: float = 120.0


class Aux(_Event, tag="aux", kw_only=True):
    line: AuxName
    level: Literal[0, 1]


class DeviceEvent(_Event, tag="device", kw_only=True):
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


class Step(_Strict, kw_only=True):
    """What the technologist does: a request to the daemon, sent when the device reaches that time."""

    method: str
    at_s: float | None = None
    at_sample: int | None = None
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    note: str = ""


class Scenario(
    _Strict, kw_only=True, rename={"events": "event", "operator_steps": "operator", "electrodes": "electrode"}
):
    scenario: Head
    device: Device = msgspec.field(default_factory=Device)
    patient: Body = msgspec.field(default_factory=Body)
    noise: Noise = msgspec.field(default_factory=Noise)
    electrodes: list[Electrode] = msgspec.field(default_factory=list)
    events: list[Event] = msgspec.field(default_factory=list)
    operator_steps: list[Step] = msgspec.field(default_factory=list)

    @property
    def name(self) -> str:
        return self.scenario.name

    @staticmethod
    def sample(item: _Event | Step, rate_hz: float) -> int:
        """The device sample at which an event or an operator's step is due."""
        return int(item.at_sample) if item.at_sample is not None else round(float(item.at_s or 0.0) * rate_hz)


class DeviceFault(msgspec.Struct, frozen=True):
    """One scripted fault of the device: what the simulator does at `sample`."""

    sample: int
    kind: FaultKind
    count: int = 1  # blocks for drop, duplicate, corrupt; times for stall
    duration_samples: int = 0


# ---------------------------------------------------------------- loading

SHIPPED = Path(__file__).with_name("scenarios")

# key -> (lowest, highest) for every number of every table; a key that is not here may be any finite number >= 0
_RANGES: dict[str, tuple[float, float]] = {
    "inputs": (1, 64), "rate_hz": (1, 40_000), "block_samples": (0, 4096), "ppm": (-1000, 1000), "height_cm": (50, 230),
    "temperature_c": (25, 42), "to_c": (25, 42), "ratio": (0, 3), "recover_to": (0, 3), "relaxant": (0, 1),
    "block": (0, 1), "sweep_cv": (0, 1), "mep_cv": (0, 2), "drift": (0, 0.5), "mains_hz": (10, 400),
    "shift_ms": (-20, 50), "factor": (0, 5), "output": (0, 15), "count": (1, 100_000), "half_life_s": (1, 1e5),
    "probe_threshold_ma": (0.05, 40), "threshold_ma": (0.05, 40), "impedance_kohm": (0, 1000), "offset_mv": (0, 180),
    "seed": (0, 2**63 - 1), "sep_fade_per_hour": (0, 1), "mep_fade_per_hour": (0, 1), "at_sample": (0, 2**62),
}  # fmt: skip


def available() -> list[str]:
    """Names of the scenarios that ship."""
    return sorted(p.stem for p in SHIPPED.glob("*.toml"))


def load(name_or_path: str | Path) -> Scenario:
    """The scenario of that name, or in that file.  Raises ConfigError naming file, key and what was expected."""
    text = str(name_or_path)
    path = Path(text)
    if path.suffix != ".toml" and "/" not in text:
        path = SHIPPED / f"{text}.toml"
        if not path.is_file():
            raise ConfigError(
                f"scenario {text!r} is not known; expected one of {', '.join(available())} or a .toml file"
            )
    try:
        raw = path.read_bytes()
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror}); give a scenario's name or a readable file") from None
    return parse(raw, str(path))


def parse(raw: bytes | str, where: str = "scenario") -> Scenario:
    """`where` is what errors call the file."""
    try:
        data = tomllib.loads(raw.decode("utf-8") if isinstance(raw, bytes) else raw)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise ConfigError(f"{where}: not valid TOML: {e}") from None
    _check_numbers(data, "", where)
    try:
        scenario = msgspec.convert(data, Scenario)
    except msgspec.ValidationError as e:
        raise ConfigError(f"{where}: {_readable(str(e))}") from None
    _check(scenario, where)
    return scenario


def _readable(message: str) -> str:
    """msgspec puts the place last, as a path from `$`; we put it first."""
    text, sep, place = message.rpartition(" - at `$")
    return f"{place.strip('`').lstrip('.')}: {text}" if sep and place.strip("`") else (text or message)


def _check_numbers(value: Any, key: str, where: str) -> None:
    if isinstance(value, dict):
        for k, v in value.items():
            place = f"{key}.{k}" if key else k
            if place.startswith("operator[") and k == "params":
                continue  # the daemon checks its own requests
            _check_numbers(v, place, where)
    elif isinstance(value, list):
        for i, v in enumerate(value):
            _check_numbers(v, f"{key}[{i}]", where)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        leaf = key.rpartition(".")[2]
        low, high = _RANGES.get(leaf, (0.0, 1e9))
        if not (low <= value <= high):
            raise ConfigError(f"{where}: {key} is {value}, expected {low:g} to {high:g}")


def _check(s: Scenario, where: str) -> None:
    def refuse(place: str, came: object, expected: str) -> None:
        raise ConfigError(f"{where}: {place} is {came!r}, expected {expected}")

    if s.device.rate_hz < 1000:
        refuse("device.rate_hz", s.device.rate_hz, "1000 to 40000")
    if len(s.device.outputs) > 16:
        refuse("device.outputs", len(s.device.outputs), "at most 16 outputs")
    for i, target in enumerate(s.device.outputs):
        if target not in TARGETS:
            refuse(f"device.outputs[{i}]", target, "one of " + ", ".join(TARGETS))
    for m in s.patient.probe_muscles:
        if m not in MUSCLES:
            refuse("patient.probe_muscles", m, "one of " + ", ".join(MUSCLES))
    for kind, items in (("event", s.events), ("operator", s.operator_steps)):
        for i, item in enumerate(items):
            place = f"{kind}[{i}]"
            if (item.at_s is None) == (item.at_sample is None):
                refuse(place, {"at_s": item.at_s, "at_sample": item.at_sample}, "exactly one of at_s and at_sample")
            until = getattr(item, "until_s", None)
            if until is not None and not (until * s.device.rate_hz > Scenario.sample(item, s.device.rate_hz)):
                refuse(f"{place}.until_s", until, "later than the start of the event")
            for key, allowed in (("nerves", NERVES), ("muscles", MUSCLES)):
                for name in getattr(item, key, ()):
                    if name not in allowed:
                        refuse(f"{place}.{key}", name, "one of " + ", ".join(allowed))
            if isinstance(item, Emg) and item.muscle not in MUSCLES:
                refuse(f"{place}.muscle", item.muscle, "one of " + ", ".join(MUSCLES))
            if isinstance(item, Loss) and not item.nerves and not item.muscles:
                refuse(place, "a loss of nothing", "nerves, muscles or both")
            if isinstance(item, (LeadOff, StimGain)) and item.output >= len(s.device.outputs):
                refuse(f"{place}.output", item.output, f"0 to {len(s.device.outputs) - 1}")
            if isinstance(item, Step) and not item.method:
                refuse(f"{place}.method", item.method, "a method of the daemon, for example test.start")
    from firmware_sim.patient.body import labels

    known = labels(s.device.inputs)
    for i, e in enumerate(s.electrodes):
        if e.label not in known:
            refuse(f"electrode[{i}].label", e.label, "one of " + ", ".join(known))
    for i, item in enumerate(s.events):
        if isinstance(item, ElectrodeFault):
            for label in item.electrodes:
                if label not in known:
                    refuse(f"event[{i}].electrodes", label, "one of " + ", ".join(known))
