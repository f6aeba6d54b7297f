"""What `ionmd demo` shows: events in, lines out, and a summary of what was found.

In: Seen, in order.  Out: lines through `say`.  Always: only what the events hold; the truth of the scenario is used in
the summary alone, and named as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import click

from ionmd.cli.draw import lines

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

    averages: int = 0
    sweep_rate_hz: dict[str, float] = field(default_factory=dict)
    alarms: list[dict[str, Any]] = field(default_factory=list)  # every state, in order


def show(events: Iterable[Seen], rate_hz: float, say: Say, live: Say | None = None) -> Found:
    """Say what happens until the events end.  live: shows one line over the last (a terminal only)."""
    found = Found()
    for seen in events:
        for line in _lines(seen, rate_hz, found):
            say(line)
        if live is not None:
            live(f"{seen.sample / rate_hz:8.1f} s  {found.averages} averages")
    return found


def _lines(seen: Seen, rate_hz: float, found: Found) -> list[str]:
    seconds, data = seen.sample / rate_hz, seen.data
    if seen.topic == "alarm":
        found.alarms.append(data)
        return lines("alarm", data, seconds)
    if seen.topic == "reading":
        rate = (data.get("stimulus") or {}).get("rate_hz")
        if rate:
            found.sweep_rate_hz[data["test"]] = float(rate)
        return []
    if seen.topic == "average":
        if data.get("kind") != "average":
            return []
        found.averages += 1
        return lines("average", data, seconds)
    if seen.topic == "case":
        text = _case(data)
        return [f"{seconds:8.1f} s  {click.style(text, bold=True)}"] if text else []
    return []


def _case(d: dict[str, Any]) -> str:
    """The events of a case that a person follows; the rest is in the record."""
    from ionmd.cli.common import clean

    if isinstance(d.get("event"), dict):
        return clean(f"{d['event'].get('kind')}: {d['event'].get('text')}")
    if isinstance(d.get("attendance"), dict):
        return clean(f"{d['attendance']['person']['name']} attends")
    if isinstance(d.get("episode"), dict) and d["episode"].get("entries"):
        e = d["episode"]["entries"][-1]
        told = f"told {', '.join(e['informed'])}: {e['words']}"
        return clean("; ".join([told, *(e[k] for k in ("reply", "action", "outcome") if e.get(k))]))
    if isinstance(d.get("baseline"), dict) and "id" in d["baseline"]:
        return clean(f"baseline {d['baseline']['id']} of {d['baseline']['test']}: {d['baseline']['reason']}")
    if d.get("state") in ("running", "closing") and "case_id" in d:
        return clean(f"case {d['case_id']}: {d['state']}")
    return ""


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
