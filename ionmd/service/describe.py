"""`describe`: JSON Schema of every method and topic, from the very types that decode and encode them."""

from __future__ import annotations

from functools import cache

import msgspec

from ionmd.model import Alarm, AverageResult, DeviceStatus, Reading
from ionmd.service import results
from ionmd.service.schema import LOSSLESS, METHODS, PROTOCOL, TOPICS, Event, Hello, StreamLayout

TOPIC_DATA: dict[str, type[msgspec.Struct]] = {
    "device": DeviceStatus,
    "stim": results.StimEvent,
    "sweep": results.SweepEvent,
    "average": AverageResult,
    "reading": Reading,
    "alarm": Alarm,
    "case": results.CaseEvent,
    "emg": results.EmgEvent,
    "eeg": results.EegEvent,
    "quality": results.QualityEvent,
    "message": results.MessageEvent,
    "metrics": results.MetricsEvent,
}


@cache
def describe() -> dict[str, object]:
    """`{"protocol", "methods": {name: {...}}, "topics": {...}, "$defs": {...}}`; references point into `$defs`."""
    methods = list(METHODS)
    types: list[object] = [METHODS[name].params for name in methods]
    types += [results.RESULTS[name] for name in methods]
    types += [TOPIC_DATA[topic] for topic in TOPICS]
    types += [Hello, Event, StreamLayout]
    schemas, definitions = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    pages = iter(schemas)
    params = {name: next(pages) for name in methods}
    outcome = {name: next(pages) for name in methods}
    topics = {topic: next(pages) for topic in TOPICS}
    hello, event, layout = pages
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
        "topics": {topic: {"lossless": topic in LOSSLESS, "data": topics[topic]} for topic in TOPICS},
        "hello": hello,
        "event": event,
        "stream_layout": layout,
        "$defs": definitions,
    }
