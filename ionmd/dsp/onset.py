"""Where a single muscle response begins, and whether there is one; not fooled by the tail of a stimulus artefact.

Pure.  In: one sweep float64[sample] and a search window.  Out: Onset or None.
A response rises out of what was there before; the tail of an artefact dies away from time zero.  So the curve is judged
by its rate of change: at the onset the power of the slope over the next milliseconds must be several times that over
the milliseconds before, and several times that of the sweep's own noise.  Nothing is filtered backwards over the
artefact, and a sweep is never compared with an absolute level alone: a slow tail or an offset has a level but no onset.
Numbers: docs/sources.md#onset.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

STEP_MS = 1.0  # the slope is the change over this time: fast enough for 1 kHz, slow enough to average noise
AFTER_MS = 6.0  # a response lasts at least this long
BEFORE_MS = 4.0
RISE = 4.0  # power of the slope after / before
NOISE_Z = 4.0  # peak to peak, in noise sd of a difference
BLOCK_MS = 5.0
SWING_MS = 6.0  # a response is larger than what the curve did by itself in the time just before
SWING = 1.5
FIRST_SHARE = 0.15  # the first phase of a polyphasic response may rise less than a later one


@dataclass(frozen=True)
class Onset:
    """position  samples, sub-sample; p2p_uv  of the response; rise  power of slope after / before."""

    position: float
    p2p_uv: float
    rise: float


def noise_uv(sweep_uv: F64, quiet: tuple[int, int], dt_ms: float) -> float:
    """Typical sd of short blocks of the sweep: the median over blocks, so a response in a third of them is ignored.

    quiet  (start, stop) columns without artefact
    """
    n = max(4, round(BLOCK_MS / dt_ms))
    sds = []
    for start in range(quiet[0], quiet[1] - n + 1, n):
        part = sweep_uv[start : start + n]
        line = _detrended(part)
        sds.append(math.sqrt(float(np.add.reduce(line * line)) / max(1, n - 2)))
    sds.sort()
    return sds[len(sds) // 2] if sds else 0.0


def _detrended(x: F64) -> F64:
    n = len(x)
    ramp = np.arange(n) - (n - 1) / 2.0
    slope = float(np.add.reduce(ramp * x)) / float(np.add.reduce(ramp * ramp))
    return x - float(np.add.reduce(x)) / n - slope * ramp


def find(
    sweep_uv: F64, window: tuple[int, int], clean: int, dt_ms: float, noise: float, least_uv: float
) -> Onset | None:
    """The onset of a response that begins inside `window` (columns, half open), or None.

    clean     first column that no artefact blanking touched
    noise     sd of the sweep's noise; least_uv  smaller responses are not looked for
    """
    step = max(1, round(STEP_MS / dt_ms))
    after, before = max(2, round(AFTER_MS / dt_ms)), max(2, round(BEFORE_MS / dt_ms))
    lo, hi = max(window[0], clean + 2), min(window[1], len(sweep_uv) - 2)
    if hi - lo < 2 or len(sweep_uv) - clean < 2 * step:
        return None
    slope = np.zeros(len(sweep_uv))
    slope[clean + step :] = sweep_uv[clean + step :] - sweep_uv[clean:-step]  # change over the last STEP_MS
    energy = np.concatenate([[0.0], np.add.accumulate(slope * slope)])
    floor = 2.0 * noise * noise + 1e-12 * least_uv * least_uv  # a noiseless sweep divides by something
    ratios = np.zeros(hi - lo)
    for c in range(lo, hi):
        stop = min(len(sweep_uv), c + after)
        start = max(clean + step, c - before)
        ahead = float(energy[stop] - energy[c]) / max(1, stop - c)
        behind = float(energy[c] - energy[start]) / (c - start) if c - start >= step else math.inf
        if c - start < step:
            # right behind the blank there is no past to compare with: noise alone stands in for it, more strictly
            behind = 4.0 * floor
        ratios[c - lo] = (ahead + floor) / (behind + floor)
    swing = round(SWING_MS / dt_ms)
    for at in _rises(ratios, after):
        c = lo + at
        response = sweep_uv[c : min(len(sweep_uv), c + 2 * after)]
        p2p = float(response.max() - response.min())
        past = sweep_uv[max(clean, c - swing) : c]
        if not (p2p >= least_uv and p2p >= NOISE_Z * math.sqrt(2.0) * noise):
            continue
        if len(past) and not p2p >= SWING * float(past.max() - past.min()):
            continue
        position = _begin(sweep_uv, c, clean, dt_ms, noise, p2p)
        if window[0] <= position < window[1]:
            return Onset(position, p2p, float(ratios[at]))
    return None


def _rises(ratios: F64, apart: int) -> list[int]:
    """Places where the slope rises most, earliest first: local maxima over `apart`, a fair share of the largest."""
    least = max(RISE, FIRST_SHARE * float(ratios.max(initial=0.0)))
    found = []
    for i in np.flatnonzero(ratios >= least):
        a, b = max(0, int(i) - apart // 2), min(len(ratios), int(i) + apart // 2 + 1)
        if ratios[i] >= float(ratios[a:b].max()):
            found.append(int(i))
    return found


def _begin(y: F64, at: int, clean: int, dt_ms: float, noise: float, p2p: float) -> float:
    """From the rough place `at` to the first departure from what was before, by the tangent at its foot."""
    reach, past = round(4.0 / dt_ms), max(3, round(3.0 / dt_ms))
    # The first large excursion after the rough place tells which way the response starts.
    stop = min(len(y), at + round(8.0 / dt_ms))
    base_stop = max(clean + 3, at - round(1.0 / dt_ms))
    base_start = max(clean, base_stop - past)
    base = y[base_start:base_stop]
    n = len(base)
    level = float(np.add.reduce(base)) / n
    ramp = np.arange(n) - (n - 1) / 2.0
    tilt = float(np.add.reduce(ramp * base)) / float(np.add.reduce(ramp * ramp)) if n >= 8 else 0.0
    middle = base_start + (n - 1) / 2.0
    first = max(clean + 1, at - reach)
    # the trend of before fades out: an artefact's tail bends towards zero
    fade = reach / 2.0
    places = np.arange(first, stop)
    ahead = np.maximum(places - (base_stop - 1), 0)
    lean = np.where(places < base_stop, places - middle, (base_stop - 1 - middle) + fade * ahead / (fade + ahead))
    d = y[first:stop] - (level + tilt * lean)
    big = np.flatnonzero(np.abs(d) >= 0.15 * p2p)
    if not len(big):
        return float(at)
    top = int(big[0])
    sign = 1.0 if d[top] > 0.0 else -1.0
    rising = sign * d
    low = max(3.0 * noise, 0.03 * p2p)
    below = np.flatnonzero(rising[: top + 1] < low)
    k = int(below[-1]) if len(below) else 0
    if k + 1 > top:
        return float(first + k)
    cross = k + (low - rising[k]) / (rising[k + 1] - rising[k]) if rising[k + 1] > rising[k] else float(k)
    # tangent between `low` and three times that
    high = min(3.0 * low, float(rising[top]))
    above = np.flatnonzero(rising[k + 1 : top + 1] >= high)
    j = k + 1 + int(above[0]) if len(above) else top
    run = (j - cross) / max(high - low, 1e-12)
    return float(first + max(cross - low * run, cross - 1.0 / dt_ms, 0.0))
