"""The two rules that are always both shown (design 9).

Classical: the peak-to-peak measure fell by the profile's fraction, or the latency grew by it, against the active
baseline.  Drift-corrected: the newest sweeps' share of the baseline waveform, divided by what independent
controls say has happened to everybody, fell below the same limit by more than the patient's own sweeps vary.
Only a *fall* and a *lengthening* count.  Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite, sqrt

from ionmd.model import Comparison, Criterion, Reading
from ionmd.testdef import AlarmRule

# A window of sweeps speaks only when its own standard error is small against the fall that is looked for.
MAX_SE = 0.35
# The fall must exceed this many standard errors of such a window (docs/sources.md#change-rule).
Z_FALL = 2.5
# A latency is compared only when both are known better than this fraction of the rule's limit.
LATENCY_CI_SHARE = 0.5


@dataclass(frozen=True)
class Judged:
    """What both rules say of one derivation at one look."""

    classical: list[Criterion]
    corrected: Criterion
    crossed: bool
    classical_crossed: bool
    ratio: float | None
    se: float | None
    judgeable: bool
    corrected_limit: float = 0.5
    why_not: str = ""


def measure_value(reading: Reading, label: str) -> float | None:
    """The amplitude (or value) of one measure of a reading; the first measure when `label` is empty."""
    for measure in reading.measures:
        if not label or measure.label == label:
            return measure.amplitude_uv if measure.amplitude_uv is not None else measure.value
    return None


def latency_value(reading: Reading, label: str) -> tuple[float | None, float]:
    """Latency of one marker (the first when `label` is empty) and half the width of its interval (inf: unknown)."""
    for marker in reading.markers:
        if (not label or marker.label == label) and marker.latency_ms is not None and marker.status == "present":
            ci = marker.latency_ci_ms
            return marker.latency_ms, (ci[1] - ci[0]) / 2 if ci else float("inf")
    return None, float("inf")


def compare(reading: Reading, base: Reading, baseline_id: str, rule: AlarmRule) -> Comparison:
    """Ratio and latency change of a reading against one of its baseline; None where either side has no number."""
    now, then = measure_value(reading, rule.measure), measure_value(base, rule.measure)
    ratio = round(now / then, 4) if now is not None and then else None
    if reading.status == "absent" and then:
        ratio = 0.0
    lat_now, lat_then = latency_value(reading, rule.marker)[0], latency_value(base, rule.marker)[0]
    change = round(lat_now - lat_then, 4) if lat_now is not None and lat_then is not None else None
    return Comparison(baseline_id, ratio, None, change)


def classical(reading: Reading, base: Reading, rule: AlarmRule) -> list[Criterion]:
    """The fixed rules on one reading."""
    found: list[Criterion] = []
    now, then = measure_value(reading, rule.measure), measure_value(base, rule.measure)
    limit = round(1.0 - rule.amplitude_fall, 6)
    if then and reading.status == "absent" and rule.loss:
        found.append(Criterion("loss", True, 0.0, limit, "the response is absent"))
    elif then and now is not None:
        ratio = now / then
        found.append(
            Criterion("amplitude", not (ratio >= limit), round(ratio, 3), limit,
                      f"amplitude is {100 * ratio:.0f} % of baseline, limit {100 * limit:.0f} %")
        )
    lat_now, half_now = latency_value(reading, rule.marker)
    lat_then, _ = latency_value(base, rule.marker)
    rise_ms = rule.latency_rise_ms or (rule.latency_rise * lat_then if lat_then is not None else 0.0)
    if lat_now is not None and lat_then is not None and rise_ms > 0.0 and half_now <= LATENCY_CI_SHARE * rise_ms:
        longer = lat_now - lat_then
        found.append(
            Criterion("latency", longer > rise_ms, round(longer, 3), round(rise_ms, 3),
                      f"latency is {longer:+.2f} ms against baseline, limit +{rise_ms:.2f} ms")
        )
    return found


def judge_sweep(reading: Reading, base: Reading, rule: AlarmRule, ratio: float, expected: float) -> Judged:
    """Both rules on one derivation of a single sweep (a muscle response): by its measure, since no two sweeps of a
    muscle have one shape.

    ratio      share of the baseline's measure, 0 for an absent response
    expected   what an independent control (train of four) predicts, 1 without evidence"""
    fixed = classical(reading, base, rule)
    crossed = any(c.crossed for c in fixed)
    limit, share = round(1.0 - rule.amplitude_fall, 6), ratio / expected
    text = f"size is {100 * share:.0f} % of baseline, limit {100 * limit:.0f} %"
    if abs(expected - 1.0) > 0.02:
        text += f", after drift to {100 * expected:.0f} % seen in controls"
    corrected = Criterion("drift-corrected", not (share >= limit), round(share, 3), limit, text)
    judgeable = reading.status != "uncertain"
    return Judged(fixed, corrected, crossed or corrected.crossed, crossed, share, None, judgeable, limit)


def judge(
    reading: Reading, base: Reading, rule: AlarmRule,
    sub_ratio: float, sub_se: float, expected: float, expected_se: float,
) -> Judged:
    """Both rules on one derivation.

    sub_ratio, sub_se      share of the baseline in the newest sweeps, and how much such ratios vary
    expected, expected_se  what drift alone predicts (1.0 without evidence of drift)"""
    fixed = classical(reading, base, rule)
    fixed_crossed = any(c.crossed for c in fixed)
    if not (isfinite(sub_ratio) and sub_se <= MAX_SE and expected > 0.0):
        why = f"its sweeps vary too much (+-{100 * sub_se:.0f} %)" if isfinite(sub_se) else "no usable sweep"
        corrected = Criterion("drift-corrected", False, None, 1.0 - rule.amplitude_fall, why)
        return Judged(fixed, corrected, fixed_crossed, fixed_crossed, None, None, False, corrected.limit or 0.5, why)
    ratio = sub_ratio / expected
    se = sqrt(sub_se**2 + (sub_ratio / expected * expected_se) ** 2) / expected
    limit = round(1.0 - rule.amplitude_fall, 6)
    crossed = not (ratio >= limit) and (1.0 - ratio) > Z_FALL * se
    text = f"share of the baseline waveform is {100 * ratio:.0f} % (+-{100 * se:.0f} %), limit {100 * limit:.0f} %"
    if abs(expected - 1.0) > 0.02:
        text += f", after drift to {100 * expected:.0f} % seen in controls"
    corrected = Criterion("drift-corrected", crossed, round(ratio, 3), limit, text)
    return Judged(fixed, corrected, crossed or fixed_crossed, fixed_crossed, ratio, se, True, limit)
