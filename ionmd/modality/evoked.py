"""Finished averages -> markers, measures and a verdict.

In: one derivation of an average, already filtered and referred to its pre-stimulus mean, and its noise.  Out: Measured.
Always: a marker is a peak, not a slope; an absent response has no markers; a doubtful one is marked uncertain, with
its interval, rather than guessed.  Pure: no clock, no file, no state.
Rules and numbers: docs/test-file.md and docs/sources.md#presence.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ionmd.dsp import waves
from ionmd.dsp.noise import NoiseEstimate, correlation, power
from ionmd.dsp.presence import f_tail, snr_db
from ionmd.modality.place import place
from ionmd.model import Marker, Measure, Status
from ionmd.testdef import MarkerRule, MeasureRule, TestDefinition

F64 = npt.NDArray[np.float64]

WAVE_Z = 3.0  # a wave stands out when its prominence is this many times the noise of a difference of two points
RIVAL_Z = 2.0  # a second peak of the window this close in prominence or height makes the choice doubtful
SEEN = 4.0  # a response of this many times the residual noise, peak to peak, would not have been missed
LATENCY_SHARE = 0.05  # an interval wider than this share of the latency cannot carry the classical 10 % rule


@dataclass(frozen=True)
class Measured:
    """What one derivation of one average says; `presence_score` is monotone in the evidence, 0 to 1."""

    status: Status
    markers: list[Marker] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    presence_score: float = 0.0
    snr_db: float | None = None
    residual_noise_uv: float | None = None
    reproducibility: float | None = None


@dataclass(frozen=True)
class Evidence:
    """Presence of a response in the derivation's own window."""

    status: Status
    score: float
    snr_db: float | None
    reproducibility: float | None


def rules_of(definition: TestDefinition, derivation: str) -> list[MarkerRule]:
    """Marker rules that concern this derivation."""
    return [m for m in definition.marker if not m.derivations or derivation in m.derivations]


def response_window(definition: TestDefinition, derivation: str) -> tuple[float, float]:
    """In ms: the presence window of the file, else the span of the derivation's own marker windows."""
    if definition.presence.window_ms is not None:
        return definition.presence.window_ms
    rules = rules_of(definition, derivation)
    if rules:
        return min(r.window_ms[0] for r in rules), max(r.window_ms[1] for r in rules)
    epoch = definition.epoch
    return (max(0.0, epoch.start_ms), epoch.stop_ms) if epoch is not None else (0.0, 0.0)


def presence(definition: TestDefinition, mean_uv: F64, window: tuple[int, int], noise: NoiseEstimate) -> Evidence:
    """Is there a response in `window` (columns, half open)?"""
    rule = definition.presence
    a, b = max(0, window[0]), min(len(mean_uv), window[1])
    if not noise.known or b - a < 3:
        return Evidence("uncertain", 0.0, None, None)
    part = mean_uv[a:b]
    f = power(part - float(np.add.reduce(part)) / len(part)) / noise.residual_uv**2
    dof1 = max(1.0, noise.dof(b - a))
    score = 1.0 - f_tail(f, dof1, noise.noise_dof)
    db = snr_db(f)
    reproducibility = correlation(noise.halves[0][a:b], noise.halves[1][a:b]) if noise.halves is not None else None
    repeats = reproducibility is None or reproducibility >= rule.reproducibility
    tall = float(part.max() - part.min()) >= rule.min_uv
    if score >= rule.present_score and db >= rule.snr_db and repeats and tall:
        return Evidence("present", score, db, reproducibility)
    hidden = rule.seen_uv > 0.0 and not (SEEN * noise.residual_uv <= rule.seen_uv)
    if (score < rule.absent_score or not tall) and not hidden:
        return Evidence("absent", score, db, reproducibility)
    return Evidence("uncertain", score, db, reproducibility)


def measure_average(
    definition: TestDefinition, derivation: str, mean_uv: F64, t0_ms: float, dt_ms: float, noise: NoiseEstimate
) -> Measured:
    """Markers, measures and status of one derivation.

    mean_uv    float64[sample], filtered; its amplitudes are to the pre-stimulus mean
    t0_ms      time of column 0; dt_ms  distance of columns
    """
    rules = rules_of(definition, derivation)
    window_ms = response_window(definition, derivation)
    first, stop = (window_ms[0] - t0_ms) / dt_ms, (window_ms[1] - t0_ms) / dt_ms
    evidence = presence(definition, mean_uv, (math.floor(first + 0.5), math.floor(stop + 0.5) + 1), noise)
    if evidence.status == "absent" or not rules:
        measures = [] if not rules else _measures(definition, derivation, {}, {}, None, dt_ms)
        return _measured(evidence, [], measures, noise)
    bounds = _bounds(definition, len(mean_uv), t0_ms, dt_ms)
    placed = place(definition, rules, mean_uv, bounds, noise, t0_ms, dt_ms)
    markers, by_label, peaks = [], {}, {}
    for rule, wave, half in zip(rules, placed.found, placed.latency_half, strict=True):
        if wave.peak is None:
            continue
        marker = _marker(rule, wave, evidence, noise, half * dt_ms, t0_ms, dt_ms)
        markers.append(marker)
        by_label[rule.label], peaks[rule.label] = marker, wave.peak
    half_of = placed.difference_half if noise.known else None
    measures = _measures(definition, derivation, by_label, peaks, half_of, dt_ms)
    if evidence.status == "present" and not markers:
        evidence = replace(evidence, status="uncertain")  # something is there, but none of the waves looked for
    return _measured(evidence, markers, measures, noise)


def choose_derivation(measured: Mapping[str, Measured], order: Sequence[str]) -> str | None:
    """The derivation to follow: the best signal to noise, presence first; None when there is none.

    order  breaks ties: the earlier one stays, so that the choice does not flicker
    Source: docs/sources.md#derivation-choice (the best P37 derivation differs from patient to patient).
    """
    rank = {"present": 2, "uncertain": 1, "absent": 0}
    best: str | None = None
    for label in order:
        if label not in measured:
            continue
        if best is None or _worth(measured[label], rank) > _worth(measured[best], rank):
            best = label
    return best


def _worth(m: Measured, rank: Mapping[str, int]) -> tuple[int, float]:
    return rank[m.status], m.snr_db if m.snr_db is not None else -math.inf


def _measured(evidence: Evidence, markers: list[Marker], measures: list[Measure], noise: NoiseEstimate) -> Measured:
    return Measured(
        evidence.status, markers, measures, evidence.score, evidence.snr_db, noise.residual_uv if noise.known else None,
        evidence.reproducibility,
    )  # fmt: skip


def _bounds(definition: TestDefinition, samples: int, t0_ms: float, dt_ms: float) -> tuple[int, int]:
    """Columns in which valleys are looked for: after the blank, inside the filtered span."""
    lo, hi = 0, samples
    after = definition.blank.stop_ms if definition.blank.method != "none" else 0.0
    lo = max(lo, math.ceil((after - t0_ms) / dt_ms))
    if definition.filter.span_ms is not None:
        lo = max(lo, math.ceil((definition.filter.span_ms[0] - t0_ms) / dt_ms))
        hi = min(hi, math.floor((definition.filter.span_ms[1] - t0_ms) / dt_ms) + 1)
    return (lo, hi) if hi - lo >= 3 else (0, samples)


def _marker(
    rule: MarkerRule, wave: waves.Found, evidence: Evidence, noise: NoiseEstimate, half: float, t0_ms: float,
    dt_ms: float,
) -> Marker:  # fmt: skip
    peak = wave.peak
    assert peak is not None  # noqa: S101 - the caller drops waves without a peak
    latency = float(t0_ms + peak.position * dt_ms)
    if not noise.known:
        return Marker(rule.label, rule.polarity, "uncertain", latency, None, peak.value_uv)
    status: Status = "present" if evidence.status == "present" else "uncertain"
    if peak.prominence_uv < WAVE_Z * math.sqrt(noise.variance_of_difference(math.inf)):
        status = "uncertain"
    sign = wave.rule.sign
    for rival in wave.rivals:
        apart = abs(rival.position - peak.position)
        doubt = RIVAL_Z * math.sqrt(noise.variance_of_difference(apart))
        lower = min(peak.prominence_uv - rival.prominence_uv, sign * (peak.value_uv - rival.value_uv))
        if apart * dt_ms > half and lower < doubt:
            status = "uncertain"
    if not half <= LATENCY_SHARE * abs(latency):
        status = "uncertain"
    ci = (latency - half, latency + half) if math.isfinite(half) else None
    return Marker(rule.label, rule.polarity, status, latency, None, peak.value_uv, ci)


Half = Callable[[waves.Peak, waves.Peak], float]


def _measures(
    definition: TestDefinition, derivation: str, markers: dict[str, Marker], peaks: dict[str, waves.Peak],
    half: Half | None, dt_ms: float,
) -> list[Measure]:  # fmt: skip
    return [
        _between(rule, markers, peaks, half, dt_ms)
        for rule in definition.measure
        if (not rule.derivations or derivation in rule.derivations) and rule.kind in ("amplitude", "latency")
    ]


def _between(
    rule: MeasureRule, markers: dict[str, Marker], peaks: dict[str, waves.Peak], half: Half | None, dt_ms: float
) -> Measure:
    a, b = peaks.get(rule.start), peaks.get(rule.end)
    if a is None or b is None:
        return Measure(rule.label, "absent")
    both = (markers[rule.start].status, markers[rule.end].status)
    status: Status = "present" if both == ("present", "present") else "uncertain"
    if rule.kind == "latency":
        return Measure(rule.label, status, value=(b.position - a.position) * dt_ms, unit="ms")
    amplitude = abs(b.value_uv - a.value_uv)
    if half is None:
        return Measure(rule.label, status, amplitude)
    width = half(a, b)
    return Measure(rule.label, status, amplitude, (max(0.0, amplitude - width), amplitude + width))
