"""Train of four: four responses -> T1..T4, the ratio T4/T1 and the count.

In: the four sweeps of one muscle, each with its own pulse as time zero, filtered causally and blanked.  Out: Tof.
Always: an unanswered pulse counts 0 and has no size; the ratio is given only when T1 was answered; ratios above 1 occur
and are shown (docs/sources.md#tof).  Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ionmd.modality.evoked import Measured
from ionmd.modality.motor import measure_sweep
from ionmd.model import Marker, Measure, Status
from ionmd.testdef import TestDefinition

F64 = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Tof:
    """sizes_uv  of answered pulses, None where not answered."""

    status: Status
    count: int
    ratio: float | None
    sizes_uv: tuple[float | None, ...]
    markers: list[Marker] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)


def measure_train(
    definition: TestDefinition, derivation: str, sweeps_uv: Sequence[F64], t0_ms: float, dt_ms: float
) -> Tof:
    """The train of one muscle.

    sweeps_uv  the responses in order, float64[sample] each; four for a train of four
    """
    answers = [measure_sweep(definition, derivation, s, t0_ms, dt_ms) for s in sweeps_uv]
    sizes = tuple(_size(a) if a.status != "absent" else None for a in answers)
    count = sum(s is not None for s in sizes)
    first, last = (sizes[0], sizes[-1]) if sizes else (None, None)
    ratio = (last or 0.0) / first if first else None
    status: Status = "absent" if count == 0 else answers[0].status if sizes[0] is not None else "uncertain"
    measures = [
        Measure(f"T{i + 1}", a.status, _size(a)) for i, a in enumerate(answers)
    ] + [
        Measure("T4/T1", status if ratio is not None else "absent", value=ratio, unit="1"),
        Measure("count", status, value=float(count), unit="1"),
    ]  # fmt: skip
    markers = [m for a in answers[:1] for m in a.markers]
    return Tof(status, count, ratio, sizes, markers, measures)


def _size(answer: Measured) -> float:
    return max((m.amplitude_uv or 0.0 for m in answer.measures), default=0.0)
