"""`describe`: JSON Schema of every method and topic, from the very types that decode and encode them."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec

from ionmd import events
from ionmd.model import Alarm, AverageResult, DeviceStatus, Reading
from ionmd.service import results
from ionmd.service.schema import LOSSLESS, METHODS, PROTOCOL, TOPICS, ErrorBody, Event, Goodbye, Hello, StreamLayout

# An event's data is one of these.
TOPIC_DATA: dict[str, tuple[Any, ...]] = {
    "device": (DeviceStatus, events.AuxChanged, events.GapFound),
    "stim": (
        events.LeaseGiven, events.DeliveryArmed, events.AboutToFire, events.DeliveryDone, events.ProbeContact,
        events.NotDelivered, events.RepeatWanted, events.StimOff, events.StimStateChanged,
    ),
    "sweep": (events.SweepSeen,),
    "average": (AverageResult,),
    "reading": (Reading, events.ThresholdFound),
    "alarm": (Alarm,),
    "case": (
        events.Committed, events.CaseChanged, events.Attended, events.Noted, events.Told, events.BaselineAccepted,
        events.BaselineActivated, events.BaselineReviewed, events.AlarmOnScreen, events.AlarmsPaused,
        events.TestChanged,
    ),
    "emg": (events.BurstSeen, events.EmgSecond, events.EmgMuted),
    "eeg": (events.EegEpoch,),
    "quality": (events.ImpedanceFound, events.MonitoringChanged),
    "message": (events.Message,),
    "metrics": (events.Metrics,),
}
TOPIC_DOC = {
    "device": "the amplifier: its state, its auxiliary lines, gaps",
    "stim": "the stimulator: lease, arming, deliveries on demand, states, off",
    "sweep": "each sweep of a running test, taken or not; key: test",
    "average": "finished and running averages with their curves; key: test and kind",
    "reading": "what was measured, against its baseline; key: test, derivation and kind",
    "alarm": "each state of each alarm",
    "case": "the case: opened, closed, persons, events, episodes, tests, baselines, committed lines",
    "emg": "free-running EMG: one page a second, and bursts; key: test, and derivation for bursts",
    "eeg": "reserved: no test of this version publishes it",
    "quality": "impedances, and derivations that a person excluded; key: input or derivation",
    "message": "lines of text between the people",
    "metrics": "the daemon itself, once a second",
}


@cache
def describe() -> dict[str, object]:
    """As results.Description; references point into `$defs`."""
    methods = list(METHODS)
    types: list[Any] = [METHODS[name].params for name in methods]
    types += [results.RESULTS[name] for name in methods]
    types += [kind for topic in TOPICS for kind in TOPIC_DATA[topic]]
    types += [Hello, Event, Goodbye, ErrorBody, results.ResumeLost, StreamLayout]
    schemas, definitions = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    for definition in definitions.values():  # docstrings as one line
        if "description" in definition:
            definition["description"] = " ".join(definition["description"].split())
    pages = iter(schemas)
    params = {name: next(pages) for name in methods}
    outcome = {name: next(pages) for name in methods}
    topics = {topic: [next(pages) for _ in TOPIC_DATA[topic]] for topic in TOPICS}
    hello, event, goodbye, error, resume_lost, layout = pages
    return {
        "protocol": list(PROTOCOL),
        "methods": {
            name: {
                "doc": METHODS[name].doc,
                "roles": sorted(METHODS[name].roles),
                "changes": METHODS[name].changes,
                "params": params[name],
                "result": outcome[name],
            }
            for name in methods
        },
        "topics": {
            topic: {
                "doc": TOPIC_DOC[topic],
                "lossless": topic in LOSSLESS,
                "data": topics[topic][0] if len(topics[topic]) == 1 else {"anyOf": topics[topic]},
            }
            for topic in TOPICS
        },
        "hello": hello,
        "event": event,
        "goodbye": goodbye,
        "error": error,
        "resume_lost": resume_lost,
        "stream_layout": layout,
        "$defs": definitions,
    }
