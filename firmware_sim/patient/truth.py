"""What is really the case in a scenario: onset, sides, tests and cause of every scripted change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from firmware_sim.events import (
    STAGES,
    ElectrodeFault,
    Emg,
    Fade,
    Latency,
    LeadOff,
    Loss,
    Relaxant,
    StimGain,
    Temperature,
    Timed,
)
from firmware_sim.montage import kind

if TYPE_CHECKING:
    from firmware_sim.patient.patient import Patient

# derivations of each test by the stage that they show: those that alert and those that control
DERIVATIONS = {
    "ssep_median_left": {"cortex": ["CP4-Fpz", "CP4-CP3"], "cord": ["C5S-Fpz"], "limb": ["EPL-EPR"]},
    "ssep_median_right": {"cortex": ["CP3-Fpz", "CP3-CP4"], "cord": ["C5S-Fpz"], "limb": ["EPR-EPL"]},
    "ssep_tibial_left": {
        "cortex": ["CPz-Fpz", "CP3-CP4", "CPz-CP4", "Cz-CP4"],
        "cord": ["C5S-Fpz"],
        "limb": ["PFL+-PFL-"],
    },
    "ssep_tibial_right": {
        "cortex": ["CPz-Fpz", "CP4-CP3", "CPz-CP3", "Cz-CP3"],
        "cord": ["C5S-Fpz"],
        "limb": ["PFR+-PFR-"],
    },
}
_TEST_OF = {"tes": "mep_tes", "probe": "temg_probe"}


def describe(patient: Patient) -> dict[str, Any]:
    s, rate = patient.scenario, patient.rate_hz
    told = {e.label: e.kind for e in s.electrodes}
    made_of = {"recordings": patient.recordings.truth()} if patient.recordings is not None else {}
    return made_of | {
        "scenario": s.name,
        "seed": patient.seed,
        "rate_hz": rate,
        "inputs": patient.inputs,
        "duration_samples": round(s.scenario.duration_s * rate),
        "changes": [_change(e, rate, s.device.outputs) for e in s.events],
        "responses": responses(patient),
        "electrodes": {
            label: {"kind": told.get(label) or kind(label), "impedance_kohm": round(patient.impedance(i, 0) / 1e3, 3)}
            for i, label in enumerate(patient.names)
        },
        "noise": msgspec.to_builtins(s.noise),
        "deliveries_seen": patient.answers.delivered,
    }


def _change(e: Timed, rate: float, outputs: list[str]) -> dict[str, Any]:
    """One event: when, what it takes down, and whether an alarm about the patient would be a true one."""
    until = getattr(e, "until_s", None)
    base: dict[str, Any] = {
        "kind": type(e).__struct_config__.tag,
        "onset_sample": e.sample(rate),
        "until_sample": None if until is None else round(until * rate),
        "note": e.note,
    }
    ramp = getattr(e, "ramp_s", None)
    if ramp is not None:
        base["full_sample"] = base["onset_sample"] + round(ramp * rate)
    match e:
        case Loss():
            fallen = _down(e.nerves, e.stage) | ({"mep_tes": list(e.muscles)} if e.muscles else {})
            more = {"cause": e.cause, "side": e.side, "level": e.level, "stage": e.stage, "ratio": e.ratio,
                    "tests": list(fallen), "derivations": fallen}  # fmt: skip
        case Latency():
            late = _down(e.nerves, e.stage)
            more = {"cause": "peripheral" if e.stage == "limb" else "focal", "stage": e.stage, "shift_ms": e.shift_ms,
                    "tests": list(late), "derivations": late}  # fmt: skip
        case Fade():
            more = {"cause": "systemic", "side": "both", "ratio": e.ratio, "tests": [*DERIVATIONS, "mep_tes"]}
        case Temperature():
            more = {"cause": "systemic", "side": "both", "to_c": e.to_c, "tests": [*DERIVATIONS, "mep_tes"]}
        case Relaxant():
            more = {"cause": "systemic", "side": "both", "block": e.block, "tests": ["mep_tes", "temg_probe", "tof"]}
        case Emg():
            more = {"cause": "focal", "muscle": e.muscle, "pattern": e.pattern, "tests": ["emg_free"]}
        case LeadOff() | StimGain():
            target = outputs[e.output]
            return base | {"patient": False, "cause": "technical", "output": e.output,
                           "tests": [_TEST_OF.get(target, f"ssep_{target}")]}  # fmt: skip
        case ElectrodeFault():
            lost = {t: [d for ds in groups.values() for d in ds if set(e.electrodes) & set(_ends(d))]
                    for t, groups in DERIVATIONS.items()}  # fmt: skip
            lost = {t: ds for t, ds in lost.items() if ds}
            return base | {"patient": False, "cause": "technical", "electrodes": list(e.electrodes), "state": e.state,
                           "tests": list(lost), "derivations": lost}  # fmt: skip
        case _:
            return base | {"patient": False, "cause": "technical", "event": msgspec.to_builtins(e)}
    return base | {"patient": True} | more


def _down(nerves: list[str], stage: str) -> dict[str, list[str]]:
    """test -> derivations that show this stage of these nerves or a later one."""
    first = STAGES.index(stage)
    return {
        f"ssep_{n}": [d for s, ds in DERIVATIONS[f"ssep_{n}"].items() if STAGES.index(s) >= first for d in ds]
        for n in nerves
    }


def _ends(derivation: str) -> tuple[str, str]:
    """The two electrodes of A-B: the first minus parts them, B may end in one."""
    plus, _, minus = derivation.partition("-")
    return plus, minus


def responses(patient: Patient) -> dict[str, Any]:
    """Peak latency (ms) and size (uV) of the noiseless waves that matter, at the start of the case, supramaximal."""
    out: dict[str, Any] = {}
    for test, groups in DERIVATIONS.items():
        name = test.removeprefix("ssep_")
        sets = {
            "limb": ((5, 14), (), False),
            "cord": ((10, 18) if "median" in name else (25, 34), (), False),
            "cortex": ((17, 23), (21, 32), False) if "median" in name else ((33, 43), (42, 54), True),
        }
        for stage, derivations in groups.items():
            first, second, positive_first = sets[stage]
            for d in derivations:
                wave = noiseless(patient, name, d)
                if wave is not None:
                    out.setdefault(test, {})[d] = _peaks(wave, patient.rate_hz, first, second, positive_first)
    return out


def noiseless(patient: Patient, name: str, derivation: str) -> npt.NDArray[np.float64] | None:
    """uV[sample from the pulse] of a derivation without noise or artefact; None when an electrode is not there."""
    ends = _ends(derivation)
    if not set(ends) <= set(patient.names):
        return None
    plus, minus = (patient.names.index(label) for label in ends)
    total = np.zeros(patient.answers.wave_samples)
    for stage in STAGES:
        for row, wave in patient.answers.stage_waves(name, stage, patient.answers.delay_ms(name, stage, 0)):
            total += wave * (1.0 if row == plus else -1.0 if row == minus else 0.0)
    return total


def _peaks(wave: npt.NDArray[np.float64], rate: float, first: tuple[float, float], second: tuple[float, ...],
           positive_first: bool) -> dict[str, float]:  # fmt: skip
    sign = 1.0 if positive_first else -1.0

    def peak(window: tuple[float, ...], s: float) -> tuple[float, float]:
        lo, hi = (round(v * rate / 1000) for v in window)
        k = lo + int(np.argmax(s * wave[lo:hi]))
        return k * 1000 / rate, float(wave[k])

    t1, a1 = peak(first, sign)
    result = {"latency_ms": round(t1, 3), "amplitude_uv": round(abs(a1), 4)}
    if second:
        t2, a2 = peak(second, -sign)
        result |= {"second_ms": round(t2, 3), "peak_to_peak_uv": round(abs(a1 - a2), 4)}
    return result
