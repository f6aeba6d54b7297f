"""A recording with its triggers through the same stages as a live test, as fast as it goes.

In: a file (EDF, EDF+, BDF, BDF+, CSV) and a test definition: [trigger] says which triggers count, [channels] are
expressions over the file's columns (or [[derivation]] pairs of column names).  Out: (topic, result, sample), in order.
Always: the averaging, filtering and measuring code is the daemon's own; nothing is recorded, no device is touched.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from ionmd.catalog.expression import Expression, parse
from ionmd.drivers.recording import select_triggers
from ionmd.drivers.replay import Replay
from ionmd.dsp.history import History
from ionmd.errors import ConfigError
from ionmd.model import Block, Derivation, Gap
from ionmd.runner.base import Report, Span
from ionmd.runner.evoked import EvokedRun
from ionmd.runner.plan import Channel
from ionmd.testdef import TestDefinition

CHUNK_S = 0.05


def replay_file(path: Path, definition: TestDefinition) -> Iterator[tuple[str, Any, int]]:
    """Averages and readings of one evoked test.  Raises ConfigError for a file or definition that does not fit."""
    if definition.test.modality != "evoked":
        raise ConfigError(
            f"{definition.test.id}: replay averages evoked tests, {definition.test.modality} came; "
            "`ionmd analyze` takes the others as CSV"
        )
    trigger = definition.trigger
    source = Replay(path, trigger_column=trigger.onset_column, trigger_rule=_edge_rule(trigger.onset_rule))
    identity = source.open()
    labels = [i.label for i in identity.inputs]
    expressions = _channels(definition, labels)
    triggers = select_triggers(source.triggers, definition.trigger.source, definition.trigger.code)
    if not triggers:
        known = sorted({t.text or str(t.code) for t in source.triggers})[:10]
        raise ConfigError(
            f"{path}: no trigger {definition.trigger.source} {definition.trigger.code!r} is in it; it has "
            f"{', '.join(known) or 'none at all'}"
        )
    rate = identity.rate_hz
    channels = [Channel(Derivation(name, name, ""), i, -1) for i, (name, _) in enumerate(expressions)]
    derived = Block(max(1, round(CHUNK_S * rate)), len(channels), rate)
    run = EvokedRun(definition, channels, rate, "replay", derived.stride, None)
    start, stop = run.sweep_window()
    history = History(derived.stride, stop - start + 4 * derived.capacity + 16, rate)
    zeros = iter(t.sample for t in triggers)
    zero = next(zeros, None)
    block = Block(derived.capacity, len(labels), rate)
    spoiled: list[Span] = []
    source.start()
    while source.read_into(block) or block.n:
        _derive(block, derived, labels, expressions)
        if block.gap & Gap.LOST and block.lost:
            spoiled.append(Span(block.first - block.lost, block.first, "gap"))
        history.push(derived.first, derived.uv, derived.n)
        for report in run.feed(derived, []):
            yield from _results(report)
        end = derived.first + derived.n
        while zero is not None and zero < end:
            run.expect_trigger(zero)
            zero = next(zeros, None)
        for report in run.collect(history, end, spoiled):
            yield from _results(report)
        block.clear()
    for report in run.finish():
        yield from _results(report)


def _edge_rule(rule: str) -> str:
    """The test file's `threshold X` as the recording's edge rule; nothing: the middle of the column's range."""
    if not rule:
        return "rising"
    word, _, value = rule.partition(" ")
    if word != "threshold":
        raise ConfigError(f"onset_rule {rule!r}: a continuous recording takes `threshold X`")
    return f"> {value.strip()}"


def _channels(definition: TestDefinition, labels: list[str]) -> list[tuple[str, Expression]]:
    """Name and expression of each derivation; every column it names must be in the file."""
    texts = dict(definition.channels) or {
        d.label: f'"{d.plus}" - "{d.minus}"' for d in definition.derivations
    }
    if not texts:
        raise ConfigError(f"{definition.test.id}: [channels] names no derivation")
    found = []
    for name, text in texts.items():
        expression = parse(text)
        missing = [n for n in expression.names if n not in labels]
        if missing:
            raise ConfigError(
                f"{definition.test.id}: channel {name} needs {', '.join(missing)}; the file has {', '.join(labels)}"
            )
        found.append((name, expression))
    return found


def _derive(block: Block, derived: Block, labels: list[str], expressions: list[tuple[str, Expression]]) -> None:
    """`derived` becomes the same stretch of samples with one column per derivation."""
    n = block.n
    columns = {label: block.uv[:n, i].astype(np.float64) for i, label in enumerate(labels)}
    derived.clear()
    derived.first, derived.n, derived.gap, derived.lost = block.first, n, block.gap, block.lost
    for i, (_, expression) in enumerate(expressions):
        derived.uv[:n, i] = expression(columns)


def _results(report: Report) -> Iterator[tuple[str, Any, int]]:
    for average in report.averages:
        yield "average", average, average.sample
    for reading in report.readings:
        yield "reading", reading, reading.sample
