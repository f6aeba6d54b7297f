"""Which peak of an average is which wave, on the curve on which that is best seen.

In: one average, the marker rules of its derivation and its noise.  Out: Placed: the peaks, and how well each is known.
Three ways: as it is; `smooth`: on a curve smoothed at the waves' own scale; `shape`: on a curve that leans on what the
response is known to look like as far as the noise hides it (dsp/matched.py).  Pure.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

import msgspec
import numpy as np
import numpy.typing as npt

from ionmd.dsp import interval, matched, smooth, waves
from ionmd.dsp.design import design
from ionmd.dsp.noise import NOTHING_UV, NoiseEstimate
from ionmd.dsp.zerophase import filter_average
from ionmd.testdef import Filter, MarkerRule, TestDefinition, WaveShape

F64 = npt.NDArray[np.float64]
BEYOND_MS = 60.0  # room for the filter to settle on either side of a shape
MOST_SHIFT_MS = 8.0


@dataclass(frozen=True)
class Placed:
    """`found` in the order of the rules, `latency_half` the half-width in samples of each peak's 95 % interval (inf
    where there is none), `difference_half` that of the uV between two peaks."""

    found: list[waves.Found]
    latency_half: list[float]
    difference_half: Callable[[waves.Peak, waves.Peak], float]


@dataclass(frozen=True)
class _View:
    """One curve to look at, its noise, and how the slope of its noise is known."""

    curve: F64
    noise: NoiseEstimate
    slope_variance: Callable[[float], float]


def place(
    definition: TestDefinition, rules: list[MarkerRule], mean_uv: F64, bounds: tuple[int, int], noise: NoiseEstimate,
    t0_ms: float, dt_ms: float,
) -> Placed:  # fmt: skip
    """The waves of one derivation; `bounds` are the columns in which valleys are looked for.

    Each wave is taken from the curve that its own rule asks for; its value is that of a curve that was not smoothed.
    """
    in_samples = [_in_samples(r, t0_ms, dt_ms) for r in rules]
    m = _matched(definition, rules, mean_uv, noise, t0_ms, dt_ms)
    plain = _plain(mean_uv, noise)
    values = m.curve if m is not None else mean_uv
    shaped = plain if m is None else _View(m.curve, noise, m.slope_variance)
    smoothed = _smoothed(rules, in_samples, mean_uv, bounds, noise, dt_ms)
    views = [shaped if r.shape else smoothed if r.smooth > 0.0 and smoothed is not None else plain for r in rules]
    chosen: dict[int, list[waves.Found]] = {}
    for view in views:
        if id(view) not in chosen:
            chosen[id(view)] = waves.label(view.curve, in_samples, bounds, _dust(view.noise))
    found, halves = [], []
    quantile = interval.quantile(noise) if noise.known else math.inf
    for k, view in enumerate(views):
        wave = chosen[id(view)][k]
        if view is smoothed:
            wave = replace(wave, peak=_read(values, wave.peak))
        known = wave.peak is not None and wave.peak.curvature > 0.0 and noise.known
        peak = wave.peak
        halves.append(quantile * math.sqrt(view.slope_variance(peak.position)) / peak.curvature
                      if known and peak is not None else math.inf)  # fmt: skip
        found.append(wave)

    def difference_half(a: waves.Peak, b: waves.Peak) -> float:
        if m is not None:
            return quantile * math.sqrt(m.difference_variance(a.position, b.position))
        return interval.difference_half_width(a, b, noise)

    return Placed(_rising(found), halves, difference_half)


def _plain(curve: F64, noise: NoiseEstimate) -> _View:
    return _View(curve, noise, lambda _: interval.slope_variance(noise))


def _rising(found: list[waves.Found]) -> list[waves.Found]:
    """Waves from different curves may cross; the later of the chain is then dropped rather than guessed."""
    last, out = -math.inf, list(found)
    for k in sorted((k for k, w in enumerate(found) if w.rule.order > 0), key=lambda k: found[k].rule.order):
        peak = found[k].peak
        if peak is not None and peak.position <= last:
            out[k] = replace(found[k], peak=None)
        elif peak is not None:
            last = peak.position
    return out


def _smoothed(
    rules: list[MarkerRule], in_samples: list[waves.WaveRule], mean_uv: F64, bounds: tuple[int, int],
    noise: NoiseEstimate, dt_ms: float,
) -> _View | None:  # fmt: skip
    """The curve at the waves' own scale: first the one that the rules lead to expect, then that of the distance found;
    None where no rule asks for it."""
    share = max(r.smooth for r in rules)
    distance = _expected_distance(rules) / dt_ms
    if share <= 0.0 or distance <= 0.0:
        return None
    curve, sigma = mean_uv, 0.0
    for _ in range(3):
        sigma = share * distance
        curve = smooth.gaussian(mean_uv, sigma, bounds)
        found = waves.label(curve, in_samples, bounds, _smooth_dust(noise, sigma))
        places = sorted(w.peak.position for w in found if w.peak is not None and w.rule.order > 0)
        if len(places) < 2:
            break
        nearest = min(b - a for a, b in pairwise(places))
        if abs(nearest - distance) < 0.02 * distance:
            break
        distance = nearest
    return _plain(curve, noise.smoothed(sigma))


def _matched(
    definition: TestDefinition, rules: list[MarkerRule], mean_uv: F64, noise: NoiseEstimate, t0_ms: float, dt_ms: float
) -> matched.Matched | None:
    rule = min((r for r in rules if r.shape), key=lambda r: r.order, default=None)
    if rule is None or not noise.known:
        return None
    template = _template(definition.shape[rule.shape], definition.filter, dt_ms)
    sign = 1.0 if rule.polarity == "positive" else -1.0
    times = template.t0_ms + dt_ms * np.arange(template.curves.shape[1])
    inside = np.flatnonzero((times >= rule.window_ms[0]) & (times <= rule.window_ms[1]))
    if not len(inside):
        return None
    own = float(times[inside[int(np.argmax(sign * template.curves[0, inside]))]])
    shifts = max(-MOST_SHIFT_MS, rule.window_ms[0] - own), min(MOST_SHIFT_MS, rule.window_ms[1] - own)
    return matched.match(mean_uv, t0_ms, dt_ms, template, shifts, noise)


def prepare(definition: TestDefinition, dt_ms: float) -> None:
    """Work out the test's shapes now rather than in its first average."""
    for name in {rule.shape for rule in definition.marker if rule.shape}:
        _template(definition.shape[name], definition.filter, dt_ms)


@lru_cache(maxsize=64)
def _template(shape: WaveShape, spec: Filter, dt_ms: float) -> matched.Template:
    """The shape at this rate, through this filter: `math.exp` alone, the same bytes anywhere."""
    stop_ms = shape.start_ms + shape.step_ms * (len(shape.mean) - 1)
    t0_ms = (math.floor((shape.start_ms - BEYOND_MS) / dt_ms)) * dt_ms
    n = math.ceil((stop_ms + BEYOND_MS - t0_ms) / dt_ms) + 1
    curves = np.zeros((1 + len(shape.component), n))
    reach = math.ceil(5.0 * shape.width_ms / dt_ms)
    for k in range(len(shape.mean)):
        place = (shape.start_ms + k * shape.step_ms - t0_ms) / dt_ms
        for i in range(max(0, math.floor(place) - reach), min(n, math.floor(place) + reach + 2)):
            bump = math.exp(-0.5 * ((i - place) * dt_ms / shape.width_ms) ** 2)
            for c, heights in enumerate((shape.mean, *shape.component)):
                curves[c, i] += heights[k] * bump
    sos = design(spec, 1000.0 / dt_ms)
    if len(sos):
        curves = filter_average(sos, curves, spec.zero_phase)
    return matched.Template(curves, t0_ms, dt_ms, shape.window_ms)


def _dust(noise: NoiseEstimate) -> float:
    return 0.5 * noise.residual_uv if noise.known else NOTHING_UV


def _smooth_dust(noise: NoiseEstimate, sigma: float) -> float:
    """`_dust` of the noise after a smoother, without the rest of it."""
    if not noise.known:
        return NOTHING_UV
    return 0.5 * math.sqrt(max(0.0, float(smooth.autocovariance(noise.autocovariance, sigma, 1)[0])))


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
    return msgspec.structs.replace(peak, value_uv=float(mean_uv[i]) * (1.0 - part) + float(mean_uv[i + 1]) * part)


def _in_samples(rule: MarkerRule, t0_ms: float, dt_ms: float) -> waves.WaveRule:
    gap = (rule.gap_ms[0] / dt_ms, rule.gap_ms[1] / dt_ms) if rule.gap_ms is not None else None
    start, stop = (rule.window_ms[0] - t0_ms) / dt_ms, (rule.window_ms[1] - t0_ms) / dt_ms
    sign = 1 if rule.polarity == "positive" else -1
    # a window edge that is meant to be a sample must not miss it by a rounding error
    return waves.WaveRule(rule.label, sign, start - 1e-6, stop + 1e-6, rule.order, gap)
