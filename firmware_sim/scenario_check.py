"""What a scenario may say: the range of every number, and that what it names exists.

Always: refused is refused by name (file, key, what came, what was expected); limits are written so that NaN fails.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

from firmware_sim.events import MUSCLES, NERVES, ElectrodeFault, Emg, LeadOff, Loss, StimGain
from firmware_sim.montage import labels
from ionmd.errors import ConfigError

if TYPE_CHECKING:
    from firmware_sim.scenario import Scenario

TARGETS = (*NERVES, "tes", "probe", "none")

_S, _FACTOR, _MA = (0.0, 1e6), (0.0, 3.0), (0.05, 40.0)
_TIMED = {"at_s": _S, "at_sample": (0.0, 4e10)}
# table (an event by its kind) -> key -> (lowest, highest); every number of a scenario is here
LIMITS: dict[str, dict[str, tuple[float, float]]] = {
    "scenario": {"seed": (0, 2**63 - 1), "duration_s": (1, 1e6)},
    "device": {"inputs": (1, 64), "rate_hz": (1000, 40_000), "block_samples": (0, 4096), "ppm": (-1000, 1000)},
    "patient": {
        "height_cm": (50, 230), "temperature_c": (25, 42), "median_cortical_uv": (0, 100),
        "tibial_cortical_uv": (0, 100), "cervical_uv": (0, 100), "plexus_uv": (0, 100), "popliteal_uv": (0, 100),
        "mep_uv": (0, 20_000), "sweep_cv": (0, 1), "mep_cv": (0, 2), "drift": (0, 0.5), "sep_fade_per_hour": (0, 1),
        "mep_fade_per_hour": (0, 1), "relaxant": (0, 1), "probe_threshold_ma": _MA,
    },
    "noise": {
        "eeg_uv": (0, 1000), "frontal_uv": (0, 1000), "limb_uv": (0, 1000), "emg_uv": (0, 1000),
        "amplifier_uv": (0, 1000), "mains_uv": (0, 10_000), "mains_hz": (10, 400), "ecg_uv": (0, 10_000),
        "offset_mv": (0, 180), "artefact": (0, 100),
    },
    "electrode": {"impedance_kohm": (0, 1000), "noise": (0, 1000)},
    "operator": _TIMED,
    "loss": {**_TIMED, "ratio": _FACTOR, "ramp_s": _S, "until_s": _S, "recover_ramp_s": _S, "recover_to": _FACTOR},
    "fade": {**_TIMED, "ratio": _FACTOR, "ramp_s": _S, "until_s": _S, "recover_ramp_s": _S},
    "latency": {**_TIMED, "shift_ms": (-20, 50), "ramp_s": _S, "until_s": _S, "recover_ramp_s": _S},
    "temperature": {**_TIMED, "to_c": (25, 42), "ramp_s": _S},
    "relaxant": {**_TIMED, "block": (0, 1), "onset_s": _S, "half_life_s": (1, 1e6)},
    "lead_off": {**_TIMED, "output": (0, 15), "until_s": _S},
    "stim_gain": {**_TIMED, "output": (0, 15), "factor": (0, 5), "until_s": _S},
    "probe": {**_TIMED, "until_s": _S, "threshold_ma": _MA},
    "electrode fault": {**_TIMED, "impedance_kohm": (0, 1000), "until_s": _S},
    "cautery": {**_TIMED, "duration_s": _S, "level_uv": (0, 1e6)},
    "emg": {**_TIMED, "duration_s": _S, "amplitude_uv": (0, 1e5), "rate_hz": (0.1, 1000)},
    "aux": {**_TIMED, "level": (0, 1)},
    "device fault": {**_TIMED, "count": (1, 100_000), "duration_s": _S},
}  # fmt: skip


def table_of(place: str, kind: object = None) -> str:
    """The row of LIMITS for a table of the file; `kind` of an event."""
    if place != "event":
        return place
    return f"{kind} fault" if kind in ("electrode", "device") else str(kind)


def numbers(data: dict[str, Any], where: str) -> None:
    """Every number that has a range, before its type is looked at, so that the message can say what came."""
    for name, table in data.items():
        rows = [(f"{name}[{i}]", row) for i, row in enumerate(table)] if isinstance(table, list) else [(name, table)]
        for place, row in rows:
            if isinstance(row, dict):
                known = LIMITS.get(table_of(name, row.get("kind")), {})
                for key, value in row.items():
                    if key in known and isinstance(value, (int, float)) and not isinstance(value, bool):
                        low, high = known[key]
                        if not (low <= value <= high):
                            _refuse(where, f"{place}.{key}", value, f"{low:.12g} to {high:.12g}")


def _refuse(where: str, place: str, came: object, expected: str) -> NoReturn:
    raise ConfigError(f"{where}: {place} is {came!r}, expected {expected}")


def _one_of(where: str, place: str, names: list[str], allowed: tuple[str, ...]) -> None:
    for name in names:
        if name not in allowed:
            _refuse(where, place, name, "one of " + ", ".join(allowed))


def meaning(s: Scenario, where: str) -> None:
    """What the types cannot say: names that must exist, times that must follow each other."""
    if not s.scenario.name:
        _refuse(where, "scenario.name", s.scenario.name, "a name")
    if len(s.device.outputs) > 16:
        _refuse(where, "device.outputs", len(s.device.outputs), "at most 16 outputs")
    _one_of(where, "device.outputs", s.device.outputs, TARGETS)
    _one_of(where, "patient.probe_muscles", s.patient.probe_muscles, MUSCLES)
    known = labels(s.device.inputs)
    _one_of(where, "electrode.label", [e.label for e in s.electrodes], known)
    for kind, items in (("event", s.events), ("operator", s.operator_steps)):
        for i, item in enumerate(items):
            place = f"{kind}[{i}]"
            if (item.at_s is None) == (item.at_sample is None):
                came = {"at_s": item.at_s, "at_sample": item.at_sample}
                _refuse(where, place, came, "exactly one of at_s and at_sample")
            until = getattr(item, "until_s", None)
            if until is not None and not (round(until * s.device.rate_hz) > item.sample(s.device.rate_hz)):
                _refuse(where, f"{place}.until_s", until, "a time later than the start of the event")
    for i, step in enumerate(s.operator_steps):
        if not step.method:
            _refuse(where, f"operator[{i}].method", step.method, "a method of the daemon, for example test.start")
    for i, event in enumerate(s.events):
        place = f"event[{i}]"
        _one_of(where, f"{place}.nerves", getattr(event, "nerves", []), NERVES)
        _one_of(where, f"{place}.muscles", getattr(event, "muscles", []), MUSCLES)
        if isinstance(event, Emg):
            _one_of(where, f"{place}.muscle", [event.muscle], MUSCLES)
        if isinstance(event, Loss) and not event.nerves and not event.muscles:
            _refuse(where, place, "a loss of nothing", "nerves, muscles or both")
        if isinstance(event, (LeadOff, StimGain)) and event.output >= len(s.device.outputs):
            _refuse(where, f"{place}.output", event.output, f"0 to {len(s.device.outputs) - 1}")
        if isinstance(event, ElectrodeFault):
            _one_of(where, f"{place}.electrodes", event.electrodes, known)
