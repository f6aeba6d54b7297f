"""Finished averages -> markers, measures and a verdict.

In: one derivation of an average, already filtered and referred to its pre-stimulus mean, and its noise.  Out: Measured.
Always: a marker is a peak, not a slope; an absent response has no markers; a doubtful one is marked uncertain, with
its interval, rather than guessed.  Pure: no clock, no file, no state.
Rules and numbers: docs/test-file.md and docs/sources.md#presence.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from ionmd.dsp import interval, smooth, waves
from ionmd.dsp.noise import NoiseEstimate, correlation, power
from ionmd.dsp.presence import f_tail, snr_db
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
        measures = [] if not rules else _measures(definition, derivation, {}, {}, noise, "absent", dt_ms)
        return _measured(evidence, [], measures, noise)
    bounds = _bounds(definition, len(mean_uv), t0_ms, dt_ms)
    found, placing = _place(mean_uv, rules, bounds, noise, t0_ms, dt_ms)
    markers, by_label, peaks = [], {}, {}
    for rule, wave in zip(rules, found, strict=True):
        if wave.peak is None:
            continue
        marker = _marker(rule, wave, evidence, placing, t0_ms, dt_ms)
        markers.append(marker)
        by_label[rule.label], peaks[rule.label] = marker, wave.peak
    measures = _measures(definition, derivation, by_label, peaks, noise, "absent", dt_ms)
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


def _place(
    mean_uv: F64, rules: list[MarkerRule], bounds: tuple[int, int], noise: NoiseEstimate, t0_ms: float, dt_ms: float
) -> tuple[list[waves.Found], NoiseEstimate]:
    """Which peak is which wave, and the noise of the curve on which they were placed.

    With `smooth`, a wave is placed at its own scale: first at the scale that the rules lead to expect, then at that of
    the distance found.  Its value is read from the curve that was not smoothed.
    """
    in_samples = [_in_samples(r, t0_ms, dt_ms) for r in rules]
    share = max(r.smooth for r in rules)
    distance = _expected_distance(rules) / dt_ms
    if share <= 0.0 or distance <= 0.0:
        return waves.label(mean_uv, in_samples, bounds, _dust(noise)), noise
    found: list[waves.Found] = []
    placing = noise
    for _ in range(3):
        sigma = share * distance
        curve, placing = smooth.gaussian(mean_uv, sigma), noise.smoothed(sigma)
        found = waves.label(curve, in_samples, bounds, _dust(placing))
        places = sorted(w.peak.position for w in found if w.peak is not None and w.rule.order > 0)
        if len(places) < 2:
            break
        nearest = min(b - a for a, b in pairwise(places))
        if abs(nearest - distance) < 0.02 * distance:
            break
        distance = nearest
    return [replace(w, peak=_read(mean_uv, w.peak)) for w in found], placing


def _dust(noise: NoiseEstimate) -> float:
    return 0.5 * noise.residual_uv if noise.known else 0.0


def _expected_distance(rules: list[MarkerRule]) -> float:
    """The shortest distance in ms between neighbours of the chain that the rules lead to expect; 0: no chain."""
    chain = sorted((r for r in rules if r.order > 0), key=lambda r: r.order)
    found = [
        0.5 * (b.gap_ms[0] + b.gap_ms[1]) if b.gap_ms is not None
        else 0.5 * (b.window_ms[0] + b.window_ms[1] - a.window_ms[0] - a.window_ms[1])
        for a, b in pairwise(chain)
    ]  # fmt: skip
    return max(0.0, min(found, default=0.0))


def _read(mean_uv: F64, peak: waves.Peak | None) -> waves.Peak | None:
    """The peak with its value taken from `mean_uv`, between samples in proportion."""
    if peak is None:
        return None
    i = min(max(math.floor(peak.position), 0), len(mean_uv) - 2)
    part = peak.position - i
    return replace(peak, value_uv=float(mean_uv[i]) * (1.0 - part) + float(mean_uv[i + 1]) * part)


def _measured(evidence: Evidence, markers: list[Marker], measures: list[Measure], noise: NoiseEstimate) -> Measured:
    return Measured(
        evidence.status, markers, measures, evidence.score, evidence.snr_db, noise.residual_uv if noise.known else None,
        evidence.reproducibility,
    )  # fmt: skip


def _in_samples(rule: MarkerRule, t0_ms: float, dt_ms: float) -> waves.WaveRule:
    gap = (rule.gap_ms[0] / dt_ms, rule.gap_ms[1] / dt_ms) if rule.gap_ms is not None else None
    start, stop = (rule.window_ms[0] - t0_ms) / dt_ms, (rule.window_ms[1] - t0_ms) / dt_ms
    sign = 1 if rule.polarity == "positive" else -1
    # a window edge that is meant to be a sample must not miss it by a rounding error
    return waves.WaveRule(rule.label, sign, start - 1e-6, stop + 1e-6, rule.order, gap)


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
    rule: MarkerRule, wave: waves.Found, evidence: Evidence, noise: NoiseEstimate, t0_ms: float, dt_ms: float
) -> Marker:
    peak = wave.peak
    assert peak is not None  # noqa: S101 - the caller drops waves without a peak
    latency = float(t0_ms + peak.position * dt_ms)
    if not noise.known:
        return Marker(rule.label, rule.polarity, "uncertain", latency, None, peak.value_uv)
    half = interval.latency_half_width(peak, noise) * dt_ms
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


def _measures(
    definition: TestDefinition, derivation: str, markers: dict[str, Marker], peaks: dict[str, waves.Peak],
    noise: NoiseEstimate, missing: Status, dt_ms: float,
) -> list[Measure]:  # fmt: skip
    out = []
    for rule in definition.measure:
        if rule.derivations and derivation not in rule.derivations:
            continue
        if rule.kind in ("amplitude", "latency"):
            out.append(_between(rule, markers, peaks, noise, missing, dt_ms))
    return out


def _between(
    rule: MeasureRule, markers: dict[str, Marker], peaks: dict[str, waves.Peak], noise: NoiseEstimate,
    missing: Status, dt_ms: float,
) -> Measure:  # fmt: skip
    a, b = peaks.get(rule.start), peaks.get(rule.end)
    if a is None or b is None:
        return Measure(rule.label, missing)
    both = (markers[rule.start].status, markers[rule.end].status)
    status: Status = "present" if both == ("present", "present") else "uncertain"
    if rule.kind == "latency":
        return Measure(rule.label, status, value=(b.position - a.position) * dt_ms, unit="ms")
    amplitude = abs(b.value_uv - a.value_uv)
    if not noise.known:
        return Measure(rule.label, status, amplitude)
    half = interval.difference_half_width(a, b, noise)
    return Measure(rule.label, status, amplitude, (max(0.0, amplitude - half), amplitude + half))
