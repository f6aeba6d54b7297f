"""A patient without a device: pulses as the firmware would report them, samples in any pieces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from firmware_sim.patient import Patient
from firmware_sim.scenario import parse

RATE = 10_000
LSB_UV = 0.03125
OUTPUT = {"median_left": 0, "median_right": 1, "tibial_left": 2, "tibial_right": 3, "tes": 4, "probe": 5}
SILENT = "".join(
    f"{key} = 0\n"
    for key in ("eeg_uv", "frontal_uv", "limb_uv", "emg_uv", "amplifier_uv", "mains_uv", "ecg_uv", "offset_mv")
)


@dataclass(frozen=True)
class Pulse:
    """`delivered` in uA, or mV when `volts`."""

    sample: int
    output: int
    delivered: int = 25_000
    volts: bool = False
    width_us: int = 200
    polarity: int = 1
    biphasic: bool = False


def text(events: str = "", patient: str = "", noise: str | None = SILENT + "artefact = 0\n", head: str = "") -> str:
    """A scenario file; without `noise` nothing but answers is seen."""
    return (f'[scenario]\nname = "test"\nseed = 1\n{head}\n[patient]\n{patient}\n'
            f"[noise]\n{noise or ''}\n{events}\n")  # fmt: skip


def patient(events: str = "", body: str = "", noise: str | None = SILENT + "artefact = 0\n", seed: int = 1,
            inputs: int = 28, rate_hz: int = RATE, lsb_uv: float = LSB_UV) -> Patient:  # fmt: skip
    made = Patient(parse(text(events, body, noise)), seed)
    made.configure(inputs, rate_hz, lsb_uv)
    return made


STEADY = "sweep_cv = 0\nmep_cv = 0\ndrift = 0\nsep_fade_per_hour = 0\nmep_fade_per_hour = 0\nrelaxant = 0"


def counts(p: Patient, first: int, n: int, pulses: Iterable[Pulse] = (),
           cuts: Sequence[int] = (500,)) -> npt.NDArray[np.int32]:  # fmt: skip
    """int32[sample, input], asked for in pieces of those sizes, one after the other and again."""
    out = np.empty((n, p.inputs), np.int32)
    todo = sorted(pulses, key=lambda q: q.sample)
    done = turn = 0
    while done < n:
        m = min(n - done, cuts[turn % len(cuts)])
        due = [q for q in todo if first + done <= q.sample < first + done + m]
        p.render(first + done, m, due, out[done : done + m])
        done, turn = done + m, turn + 1
    return out


def uv(p: Patient, derivation: tuple[str, str], first: int, n: int, pulses: Iterable[Pulse] = ()) -> Any:
    """float64[sample] of one electrode against another."""
    rows = counts(p, first, n, pulses).astype(np.float64) * p.lsb_uv
    a, b = (p.names.index(label) for label in derivation)
    return rows[:, a] - rows[:, b]


def muscle(name: str) -> tuple[str, str]:
    return f"{name}+", f"{name}-"


def train(at: int, pulses: int = 5, interval_ms: float = 2.0, volts: float = 300.0, rate_hz: int = RATE) -> list[Pulse]:
    """A transcranial train, biphasic, 75 us."""
    return [
        Pulse(at + round(k * interval_ms * rate_hz / 1000), OUTPUT["tes"], round(volts * 1000), True, 75, 1, True)
        for k in range(pulses)
    ]
