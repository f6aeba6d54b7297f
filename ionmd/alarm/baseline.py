"""Baselines: what the patient's own responses were, who said so, and how well they replicated.

In: finished averages (curves, sub-averages, readings).  Out: Baseline objects; one active per test, the first accepted
one always kept in sight.  A baseline needs at least two replicating averages with the same filter, derivations
and stimulus site, width and polarity; anything else is refused with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from ionmd.alarm.evidence import Spread
from ionmd.alarm.shape import correlation, projection
from ionmd.errors import NOT_MONITORED, Refused
from ionmd.model import BaselineInfo, BaselineKind, Reading, StimulusSummary

# Two averages replicate when their shapes correlate and their sizes agree (ISIN target 20-30 %, docs/sources.md).
MIN_CORRELATION = 0.5
MAX_SIZE_VARIATION = 0.40


@dataclass(frozen=True)
class AverageData:
    """One finished average in float64: what a baseline is made of.

    mean_uv  float64[derivation, sample], filtered;  subs_uv  float64[sub-average, sample] of each derivation, in time
    order and inside its window."""

    id: str
    test: str
    sample: int
    derivations: list[str]
    filter_id: str
    stimulus: StimulusSummary
    mean_uv: npt.NDArray[np.float64]
    subs_uv: dict[str, npt.NDArray[np.float64]]
    readings: list[Reading]
    windows: dict[str, tuple[int, int]]  # derivation -> columns in which its response lies


@dataclass(frozen=True)
class Reference:
    """One derivation of a baseline: its waveform and how much single sub-averages vary around it."""

    derivation: str
    mean_uv: npt.NDArray[np.float64]
    sub_ratio_sd: float
    reading: Reading
    monitorable: bool
    window: tuple[int, int]


@dataclass
class Baseline:
    info: BaselineInfo
    stimulus: StimulusSummary
    references: dict[str, Reference] = field(default_factory=dict)
    spread: Spread = field(default_factory=Spread)  # of single sweeps around it


def check_averages(averages: list[AverageData]) -> None:
    """Refuse what can be no baseline, saying why and what to do."""
    if len(averages) < 2:
        raise Refused(
            f"a baseline needs at least 2 replicating averages, {len(averages)} finished so far; "
            "wait for the next one", NOT_MONITORED,
        )
    first = averages[0]
    for other in averages[1:]:
        if other.filter_id != first.filter_id:
            raise Refused(f"averages {first.id} and {other.id} were filtered differently", NOT_MONITORED)
        if other.derivations != first.derivations:
            raise Refused(f"averages {first.id} and {other.id} have different derivations", NOT_MONITORED)
        if reason := stimulus_differs(first.stimulus, other.stimulus):
            raise Refused(f"averages {first.id} and {other.id}: {reason}", NOT_MONITORED)
        if reason := stimulus_changed(first.stimulus, other.stimulus):
            raise Refused(f"averages {first.id} and {other.id}: {reason}", NOT_MONITORED)


def stimulus_differs(a: StimulusSummary, b: StimulusSummary) -> str:
    """Why two averages may not be compared at all (width, polarity, pulses, kind of output); empty: they may."""
    if a.width_us != b.width_us:
        return f"the pulse width differs ({a.width_us} and {b.width_us} us)"
    if a.polarity != b.polarity:
        return f"the polarity differs ({a.polarity} and {b.polarity})"
    if a.pulses != b.pulses:
        return f"the pulses per train differ ({a.pulses} and {b.pulses})"
    if (a.set_v is None) != (b.set_v is None):
        return "one was stimulated with current, the other with voltage"
    return ""


def stimulus_changed(now: StimulusSummary, then: StimulusSummary) -> str:
    """A different intensity or rate is compared and flagged; the flag's words, or empty."""
    for unit, a, b in (("mA", now.set_ma, then.set_ma), ("V", now.set_v, then.set_v)):
        if a is not None and b is not None and abs(a - b) > 0.01 * max(abs(b), 0.1):
            effect = "a loss may be understated" if a > b else "a fall may come from the weaker stimulus"
            return f"stimulus changed {b:g} -> {a:g} {unit}: {effect}"
    if now.rate_hz and then.rate_hz and abs(now.rate_hz - then.rate_hz) > 0.02 * then.rate_hz:
        return f"rate changed {then.rate_hz:g} -> {now.rate_hz:g} /s"
    return ""


def _spread(ratios: list[float]) -> float:
    n = len(ratios)
    if n < 2:
        return 1.0
    mean = sum(ratios) / n
    return float((sum((r - mean) ** 2 for r in ratios) / (n - 1)) ** 0.5)


def _mean_size(readings: list[Reading]) -> Reading:
    """The newest of several sweeps of one muscle, with the mean size of all of them."""
    measures = []
    for k, measure in enumerate(readings[-1].measures):
        sizes = [r.measures[k].amplitude_uv for r in readings]
        known = [s for s in sizes if s is not None]
        if len(known) == len(sizes):
            measure = msgspec.structs.replace(measure, amplitude_uv=sum(known) / len(known))
        measures.append(measure)
    return msgspec.structs.replace(readings[-1], measures=measures)


def build(
    info_id: str, averages: list[AverageData], kind: BaselineKind, person: str, reason: str, sample: int,
    first_accepted: bool,
) -> Baseline:
    """A Baseline from >= 2 averages; derivations that do not replicate are kept but marked not monitorable."""
    check_averages(averages)
    last = averages[-1]
    references: dict[str, Reference] = {}
    replication: dict[str, float] = {}
    shares: dict[str, list[float]] = {}
    for d, label in enumerate(last.derivations):
        lo, hi = last.windows[label]
        mean = sum((a.mean_uv[d] for a in averages), np.zeros(last.mean_uv.shape[1])) / len(averages)
        pair = [projection(a.mean_uv[d, lo:hi], mean[lo:hi]) for a in averages]
        variation = max(pair) - min(pair)
        shape = min(
            correlation(a.mean_uv[d, lo:hi], b.mean_uv[d, lo:hi])
            for i, a in enumerate(averages) for b in averages[i + 1:]
        )
        replication[label] = round(shape, 3)
        shares[label] = subs = [projection(s, mean[lo:hi]) for a in averages for s in a.subs_uv[label]]
        readings = [r for a in averages for r in a.readings if r.derivation == label]
        reading = readings[-1]
        monitorable = all(r.status == "present" for r in readings)
        if reading.kind == "sweep":  # muscle responses replicate by being there; their shape and size vary by nature
            reading = _mean_size(readings)
        else:
            monitorable = monitorable and shape >= MIN_CORRELATION and variation <= MAX_SIZE_VARIATION
        references[label] = Reference(label, mean, _spread(subs), reading, monitorable, (lo, hi))
    if not any(r.monitorable for r in references.values()) and kind != "other":
        names = ", ".join(f"{k} r={v:g}" for k, v in replication.items())
        raise Refused(
            f"no derivation of {last.test} shows a response that replicates ({names}); improve the recording, or set "
            "the baseline with kind `other` to record that the response is absent at baseline", NOT_MONITORED,
        )
    info = BaselineInfo(
        info_id, last.test, kind, sample, person, reason, [a.id for a in averages], True, first_accepted,
        last.filter_id, [r.reading for r in references.values()], replication,
    )
    return Baseline(info, last.stimulus, references, _spread_of_sweeps(averages, shares))


def _spread_of_sweeps(averages: list[AverageData], shares: dict[str, list[float]]) -> Spread:
    """Covariance of the shares of single sweeps, from that of sub-averages and how many sweeps those had."""
    sweeps = {label: sum(r.sweeps for a in averages for r in a.readings if r.derivation == label) for label in shares}
    subs = np.array(list(shares.values()))
    each = np.sqrt([sweeps[label] / max(1, subs.shape[1]) for label in shares])
    if subs.shape[1] < 2:
        return Spread()
    off = subs - np.add.reduce(subs, axis=1, keepdims=True) / subs.shape[1]
    covariance = np.add.reduce(off[:, None, :] * off[None, :, :], axis=2) / (subs.shape[1] - 1)
    return Spread(list(shares), covariance * each[:, None] * each[None, :])
