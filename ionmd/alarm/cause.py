"""Why a response may have changed: an annotation with its evidence, never a reason to lower priority.

Order of the questions (design 9): was the stimulus delivered and the electrode alive (technical)?  Is the
peripheral control down with a verified stimulus (peripheral)?  Did a control whose pathway avoids the level at risk
change too (systemic), or only ones that cross it (cord or systemic, cannot be separated)?  Else focal.  Pure.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ionmd.model import Cause, Priority, Side

DOWN = 0.5  # a control below this share of its own baseline is down
STEADY = 0.75  # above it, it is evidence against a common cause ...
APART = 0.35  # ... and so it is this much above what changed: a common cause takes the same share of both


@dataclass
class Surroundings:
    """What is known beside the derivation that changed.  Ratios are shares of the baseline waveform, None unknown."""

    delivered: bool
    delivery_text: str = ""
    electrode_faults: list[str] = field(default_factory=list)
    peripheral: dict[str, float | None] = field(default_factory=dict)
    outside: dict[str, float | None] = field(default_factory=dict)  # systemic controls that avoid the level at risk
    crossing: dict[str, float | None] = field(default_factory=dict)  # other tests whose pathway crosses it
    changed: float | None = None  # share that is left of what changed
    notes: list[str] = field(default_factory=list)  # what else was looked at; it decides nothing


@dataclass(frozen=True)
class CauseCall:
    cause: Cause
    evidence: list[str]
    priority: Priority


def _pct(ratio: float) -> str:
    return f"{100 * ratio:.0f} % of baseline"


def call(around: Surroundings) -> CauseCall:
    """The cause, its evidence, and the priority a patient's change has with it: always high, except that a *technical*
    reason turns the matter into an equipment alarm, which the caller raises instead."""
    evidence: list[str] = []
    if not around.delivered:
        return CauseCall("technical", [around.delivery_text or "the stimulus was not delivered"], "high")
    evidence.append(around.delivery_text or "stimulus delivered as set")
    evidence += around.notes
    if around.electrode_faults:
        return CauseCall("technical", [*evidence, *around.electrode_faults], "high")
    known = {k: v for k, v in around.peripheral.items() if v is not None}
    evidence += [f"peripheral control {k}: {_pct(v)}" for k, v in known.items()]
    if known and all(v < DOWN for v in known.values()):
        evidence.append("look at limb position, cuff, perfusion, cannula and electrode of that limb")
        return CauseCall("peripheral", evidence, "high")
    steady = STEADY if around.changed is None else min(STEADY, max(DOWN, around.changed + APART))
    outside = {k: v for k, v in around.outside.items() if v is not None}
    crossing = {k: v for k, v in around.crossing.items() if v is not None}
    evidence += [f"control {k}: {_pct(v)}" for k, v in {**outside, **crossing}.items()]
    if outside and all(v < DOWN for v in outside.values()):
        evidence.append("a pathway outside the level at risk changed too: look at anaesthesia, pressure, temperature")
        return CauseCall("systemic", evidence, "high")
    if crossing and all(v < DOWN for v in crossing.values()) and not any(v >= steady for v in outside.values()):
        evidence.append("all pathways through the level at risk changed and no control avoids it")
        return CauseCall("cord or systemic", evidence, "high")
    if any(v >= steady for v in {**outside, **crossing}.values()):
        return CauseCall("focal", evidence, "high")
    return CauseCall("unknown", evidence, "high")


_SIDE = {"left": "left ", "right": "right ", "midline": "", "none": ""}
_NAME: dict[Cause, str] = {
    "technical": "the cause may be technical",
    "peripheral": "the nerve of the limb is affected too: limb position, cuff, perfusion or electrode",
    "systemic": "other pathways changed too: anaesthesia, pressure or temperature",
    "cord or systemic": "spinal cord or systemic, these cannot be separated",
    "focal": "only this pathway changed",
    "unknown": "the cause is not clear",
}


def sentence(title: str, side: Side, state: str, ratio: float | None, latency_ms: float | None, cause: Cause) -> str:
    """One plain sentence for the surgeon: what, which side, how much, why perhaps."""
    what = "Possible change" if state == "possible" else "Change"
    name = title or f"{_SIDE[side]}response"
    size = "" if ratio is None else f" is down to {max(0.0, 100 * ratio):.0f} % of baseline"
    if not size and latency_ms is not None:
        size = f" is delayed by {latency_ms:.1f} ms"
    return f"{what}: {name}{size}; {_NAME[cause]}."
