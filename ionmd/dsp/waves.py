"""Peaks of an average, and which of them is which wave.

Pure.  In: one finished average and rules (label, polarity, window, order, distance to the wave before).  Out: for each
rule the peak that it names, or none.  Always: a peak is a local extremum inside its window that has a valley on both
sides; a slope that merely leaves the window is not a peak.  Position is refined by a parabola through three samples.
Waves with an order are chosen together, so that the whole chain fits best and never runs backwards in time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np

from ionmd.dsp.layout import F64, curves


class Peak(msgspec.Struct, frozen=True):
    """index  sample of the extremum; position  its sub-sample place, in samples; value_uv  signed, as in the curve;
    prominence_uv  height over the higher of its two valleys; curvature  of the signed curve, uV per sample^2, >= 0."""

    index: int
    position: float
    value_uv: float
    prominence_uv: float
    curvature: float


@dataclass(frozen=True)
class WaveRule:
    """A marker rule in samples.  `start`..`stop` inclusive; gap: allowed distance from the wave before it."""

    label: str
    sign: int  # 1: upward in the data, -1: downward
    start: float
    stop: float
    order: int = 0
    gap: tuple[float, float] | None = None


@dataclass(frozen=True)
class Found:
    """`rivals`: other peaks of the window that the chain could have taken, the strongest first."""

    rule: WaveRule
    peak: Peak | None
    rivals: tuple[Peak, ...] = ()


def peaks(
    curve_uv: F64, sign: int, start: float, stop: float, bounds: tuple[int, int], least_uv: float = -math.inf
) -> list[Peak]:
    """Local extrema of `sign` between `start` and `stop` (samples, inclusive), the most prominent first.

    curve_uv  contiguous
    bounds    (first, last + 1) columns that may be looked at for valleys: outside them lies artefact or filter edge
    least_uv  only peaks of more prominence than this
    A plateau counts once, at its middle.
    """
    found: list[Peak] = curves.find_peaks(Peak, curve_uv, sign, bounds[0], bounds[1], start, stop, least_uv)
    return found


def label(curve_uv: F64, rules: Sequence[WaveRule], bounds: tuple[int, int], least_uv: float = 0.0) -> list[Found]:
    """Peaks for `rules`, in the order of `rules`.

    Rules with an order are one chain: the choice with the largest sum of prominences among all that rise in time and
    keep their distances.  A wave with no peak that fits stays empty and the chain goes on without it.
    least_uv  peaks of less prominence are not considered (numerical dust, or a share of the noise)
    """
    curve = np.ascontiguousarray(curve_uv)
    candidates = [peaks(curve, r.sign, r.start, r.stop, bounds, least_uv) for r in rules]
    chosen: list[Peak | None] = [None] * len(rules)
    chain = sorted((i for i, r in enumerate(rules) if r.order > 0), key=lambda i: rules[i].order)
    for i, peak in zip(chain, _best_chain([rules[i] for i in chain], [candidates[i] for i in chain]), strict=True):
        chosen[i] = peak
    for i, r in enumerate(rules):
        if r.order <= 0 and candidates[i]:
            chosen[i] = candidates[i][0]
    return [
        Found(rule, peak, tuple(p for p in candidate if p is not peak))
        for rule, peak, candidate in zip(rules, chosen, candidates, strict=True)
    ]


def _best_chain(rules: list[WaveRule], candidates: list[list[Peak]]) -> list[Peak | None]:
    """Dynamic programme over the chain; state: the last wave that was taken (rule, peak)."""
    best: dict[tuple[int, int], tuple[float, tuple[int, int] | None]] = {}
    for i, rule in enumerate(rules):
        for k, peak in enumerate(candidates[i]):
            top: tuple[float, tuple[int, int] | None] = (peak.prominence_uv, None)
            for (j, m), (score, _) in best.items():
                if j >= i:
                    continue
                distance = peak.position - candidates[j][m].position
                gap = rule.gap if j == i - 1 else None
                fits = distance > 0.0 if gap is None else gap[0] <= distance <= gap[1]
                if fits and score + peak.prominence_uv > top[0]:
                    top = (score + peak.prominence_uv, (j, m))
            best[i, k] = top
    out: list[Peak | None] = [None] * len(rules)
    at = max(best, key=lambda key: best[key][0], default=None)
    while at is not None:
        out[at[0]] = candidates[at[0]][at[1]]
        at = best[at][1]
    return out
