"""Single sweeps of muscle responses (MEP, triggered EMG) -> onset, peak to peak, present or absent.

In: one derivation of one sweep, blanked, causally filtered, referred to its pre-stimulus mean.  Out: Measured, the same
as for averages.  Always: the peak-to-peak value is given even when the response is absent (then it is the noise: a loss
must have a number), the onset only when it was found.  Pure.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ionmd.dsp import onset
from ionmd.modality.evoked import Measured, rules_of
from ionmd.model import Marker, Measure, Status
from ionmd.testdef import MeasureRule, TestDefinition

F64 = npt.NDArray[np.float64]
LEAST_UV = 35.0  # smallest response looked for when the file does not say
DOUBT = 1.25  # below this many times the smallest response, or the noise criterion, `uncertain`
SETTLE_MS = 0.5  # the held value's step after the blank


def measure_sweep(
    definition: TestDefinition, derivation: str, sweep_uv: F64, t0_ms: float, dt_ms: float,
    clean_ms: float | None = None,
) -> Measured:  # fmt: skip
    """Onset and size of the response of one muscle.

    sweep_uv   float64[sample]; t0_ms  time of column 0
    clean_ms   end of the blanked artefact; None: from the definition's [blank] and train
    """
    n = len(sweep_uv)
    clean_ms = blank_end_ms(definition) if clean_ms is None else clean_ms
    clean = min(max(0, math.ceil((clean_ms + SETTLE_MS - t0_ms) / dt_ms)), max(0, n - 4))
    noise = _noise(definition, sweep_uv, clean, t0_ms, dt_ms)
    least = definition.presence.min_uv or LEAST_UV
    rules = [r for r in rules_of(definition, derivation) if r.kind == "onset"]
    markers: list[Marker] = []
    status: Status = "absent"
    score, p2p = 0.0, 0.0
    for rule in rules:
        window = (_column(rule.window_ms[0], t0_ms, dt_ms), _column(rule.window_ms[1], t0_ms, dt_ms) + 1)
        found = onset.find(sweep_uv, window, clean, dt_ms, noise, least)
        if found is None:
            continue
        doubtful = found.p2p_uv < DOUBT * max(least, onset.NOISE_Z * math.sqrt(2.0) * noise)
        one: Status = "uncertain" if doubtful else "present"
        status = one if status == "absent" or one == "present" else status
        score = max(score, 1.0 - 1.0 / found.rise)
        p2p = max(p2p, found.p2p_uv)
        at = float(t0_ms + found.position * dt_ms)
        markers.append(Marker(rule.label, rule.polarity, one, at, at))
    measures = [
        _size(rule, sweep_uv, clean, t0_ms, dt_ms, status)
        for rule in definition.measure
        if rule.kind == "peak_to_peak" and (not rule.derivations or derivation in rule.derivations)
    ]
    if not rules:
        size = max((m.amplitude_uv or 0.0 for m in measures), default=0.0)
        status = "present" if size >= max(least, onset.NOISE_Z * math.sqrt(2.0) * noise) else "absent"
        measures = [_size(r, sweep_uv, clean, t0_ms, dt_ms, status) for r in definition.measure
                    if r.kind == "peak_to_peak" and (not r.derivations or derivation in r.derivations)]  # fmt: skip
        score, p2p = size / (size + 6.0 * noise) if size > 0.0 else 0.0, size
    snr = 20.0 * math.log10(p2p / (2.0 * noise)) if p2p > 0.0 and noise > 0.0 else None
    return Measured(status, markers, measures, score, snr, noise if noise > 0.0 else None, None)


def blank_end_ms(definition: TestDefinition) -> float:
    """End of the blank after time zero; `stop_ms` counts from the last pulse of a train."""
    blank, stimulus = definition.blank, definition.stimulus
    if blank.method == "none":
        return 0.0
    train = 0.0
    if stimulus is not None and definition.trigger.zero == "first pulse" and definition.test.modality != "tof":
        train = (stimulus.pulses - 1) * stimulus.interval_ms
    return blank.stop_ms + train


def _column(ms: float, t0_ms: float, dt_ms: float) -> int:
    return math.floor((ms - t0_ms) / dt_ms + 0.5)


def _noise(definition: TestDefinition, sweep_uv: F64, clean: int, t0_ms: float, dt_ms: float) -> float:
    """The larger of the noise before the stimulus and the typical noise after it: neither alone is always there."""
    start = definition.blank.start_ms if definition.blank.method != "none" else 0.0
    before = _column(min(start, 0.0), t0_ms, dt_ms)
    late = max(clean, _column(10.0, t0_ms, dt_ms))
    early = onset.noise_uv(sweep_uv, (0, max(0, before)), dt_ms)
    return early if early > 0.0 else onset.noise_uv(sweep_uv, (min(late, len(sweep_uv)), len(sweep_uv)), dt_ms)


def _size(rule: MeasureRule, sweep_uv: F64, clean: int, t0_ms: float, dt_ms: float, status: Status) -> Measure:
    assert rule.window_ms is not None  # noqa: S101 - the loader refuses a peak_to_peak without a window
    a = max(clean, _column(rule.window_ms[0], t0_ms, dt_ms))
    b = min(len(sweep_uv), _column(rule.window_ms[1], t0_ms, dt_ms) + 1)
    if b - a < 2:
        return Measure(rule.label, "absent")
    part = sweep_uv[a:b]
    return Measure(rule.label, status, float(part.max() - part.min()))
