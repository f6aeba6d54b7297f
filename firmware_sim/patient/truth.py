"""What is really the case in a scenario: onset, sides, tests and cause of every scripted change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from firmware_sim.events import ElectrodeFault, Fade, LeadOff, Loss

if TYPE_CHECKING:
    from firmware_sim.patient.patient import Patient

# alert derivations of each test, and those that control it
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
_ORDER = ("limb", "cord", "brainstem", "cortex")


def describe(patient: Patient) -> dict[str, Any]:
    s, rate = patient.scenario, patient.rate_hz

    def end(e: object) -> int | None:
        until = getattr(e, "until_s", None)
        return None if until is None else round(until * rate)

    changes: list[dict[str, Any]] = []
    for e in s.events:
        base = {
            "kind": type(e).__struct_config__.tag,
            "onset_sample": e.sample(rate),
            "until_sample": end(e),
            "note": e.note,
        }
        if isinstance(e, Loss):
            tests = [f"ssep_{n}" for n in e.nerves] + (["mep_tes"] if e.muscles else [])
            fallen = {
                f"ssep_{n}": [
                    d
                    for stage, ds in DERIVATIONS[f"ssep_{n}"].items()
                    if _ORDER.index(stage) >= _ORDER.index(e.stage)
                    for d in ds
                ]
                for n in e.nerves
            }
            if e.muscles:
                fallen["mep_tes"] = list(e.muscles)
            changes.append(
                base
                | {
                    "patient": True,
                    "cause": e.cause,
                    "side": e.side,
                    "level": e.level,
                    "stage": e.stage,
                    "ratio": e.ratio,
                    "tests": tests,
                    "derivations": fallen,
                    "full_sample": base["onset_sample"] + round(e.ramp_s * rate),
                }
            )
        elif isinstance(e, Fade):
            changes.append(
                base
                | {
                    "patient": True,
                    "cause": "systemic",
                    "side": "both",
                    "ratio": e.ratio,
                    "tests": [*DERIVATIONS, "mep_tes"],
                }
            )
        elif isinstance(e, LeadOff):
            target = s.device.outputs[e.output]
            test = {"tes": "mep_tes", "probe": "temg_probe"}.get(target, f"ssep_{target}")
            changes.append(base | {"patient": False, "cause": "technical", "output": e.output, "tests": [test]})
        elif isinstance(e, ElectrodeFault):
            changes.append(
                base | {"patient": False, "cause": "technical", "electrodes": list(e.electrodes), "state": e.state}
            )
        else:
            changes.append(base | {"patient": False, "cause": "technical", "event": msgspec.to_builtins(e)})
    made_of = {"recordings": patient.recordings.truth()} if patient.recordings is not None else {}
    return made_of | {
        "scenario": s.name,
        "seed": patient.seed,
        "rate_hz": rate,
        "inputs": patient.inputs,
        "duration_samples": round(s.scenario.duration_s * rate),
        "changes": changes,
        "responses": responses(patient),
        "noise": msgspec.to_builtins(s.noise),
        "deliveries_seen": patient.answers.delivered,
    }


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


def noiseless(patient: Patient, name: str, derivation: str) -> Any:
    """uV[sample from the pulse] of a derivation without noise or artefact; None when an electrode is not there."""
    import numpy as np

    for cut in range(1, len(derivation)):
        a, b = derivation[:cut], derivation[cut + 1 :]
        if derivation[cut] == "-" and a in patient.names and b in patient.names:
            rows = (patient.names.index(a), patient.names.index(b))
            total = np.zeros(patient.answers.wave_samples)
            for stage in _ORDER:
                for row, wave in patient.answers.stage_waves(name, stage, patient.answers.delay_ms(name, stage, 0)):
                    total += wave * (1.0 if row == rows[0] else -1.0 if row == rows[1] else 0.0)
            return total
    return None


def _peaks(
    wave: Any, rate: float, first: tuple[float, float], second: tuple[float, ...], positive_first: bool
) -> dict[str, float]:
    import numpy as np

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
