"""What `ionmd demo` shows: the story of a case, and a summary of what was found.

In: Seen, in order.  Out: lines through `say`.  Always: only what the events hold; the truth of the scenario is used in
the summary alone, and named as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ionmd.cli.story import Story

Say = Callable[[str], None]


@dataclass(frozen=True)
class Seen:
    """One event: plain data, sample of the case."""

    topic: str
    data: dict[str, Any]
    sample: int


@dataclass
class Found:
    """What the case had to say, kept for the summary."""

    sweep_rate_hz: dict[str, float] = field(default_factory=dict)
    alarms: list[dict[str, Any]] = field(default_factory=list)  # every state, in order


def show(events: Iterable[Seen], rate_hz: float, say: Say, live: Say | None = None) -> Found:
    """Say what happens until the events end.  live: shows one line over the last (a terminal only)."""
    found, story = Found(), Story(rate_hz)
    for seen in events:
        if seen.topic == "alarm":
            found.alarms.append(seen.data)
        rate = (seen.data.get("stimulus") or {}).get("rate_hz") if seen.topic == "reading" else None
        if rate:
            found.sweep_rate_hz[seen.data["test"]] = float(rate)
        for line in story.tell(seen.topic, seen.data, seen.sample):
            say(line)
        if live is not None:
            live(story.live())
    return found


def summary(found: Found, rate_hz: float, loss_s: float, loss_side: str) -> list[str]:
    """Side, test, cause and the time from the scripted loss to the first alert of each test."""
    out = [f"scripted: loss on the {loss_side} at {loss_s:g} s"]
    told: set[tuple[str, str]] = set()
    for alarm in found.alarms:
        key = (str(alarm["kind"]), str(alarm.get("test") or alarm.get("code", "")))
        if alarm["state"] != "active" or key in told:
            continue
        told.add(key)
        seconds = alarm["sample"] / rate_hz
        if alarm["kind"] == "physiological":
            after = seconds - loss_s
            rate = found.sweep_rate_hz.get(alarm["test"])
            sweeps = f" = {after * rate:.0f} sweeps at {rate:.2f}/s" if rate else ""
            when = f"{after:.1f} s after the loss{sweeps}" if after >= 0 else f"{-after:.1f} s BEFORE the loss"
            out.append(f"found: change in {alarm['test']}, side {alarm.get('side', 'none')}, cause {alarm['cause']}, "
                       f"alert at {seconds:.1f} s, {when}")  # fmt: skip
        else:
            out.append(f"found: technical alarm {alarm.get('code', '')} {alarm.get('test', '')} at {seconds:.1f} s")
    if len(out) == 1:
        out.append("found: nothing")
    return out
