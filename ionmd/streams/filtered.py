"""`filtered`: derivations of running tests, continuous: stimulus windows held, then the test's own causal filter.

That is the stream that rejection judges and EMG listens to.  It is filtered here once more, only while somebody reads:
averaged tests filter in stretches, when a sweep needs it.  Always: when a test of the stream stops, the stream ends
with its cause; a test that is set anew goes on, its first frame flagged.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from ionmd.errors import NOT_MONITORED, Refused
from ionmd.model import Block
from ionmd.room.room import Room
from ionmd.runner.base import Run
from ionmd.runner.stream import CausalStream
from ionmd.service.backend import Sink, StreamSpec
from ionmd.service.frames import Cause, FrameFlag
from ionmd.service.schema import StreamLayout
from ionmd.streams.source import Listed, Source, as_bytes

Pick = tuple[str, str]  # test, derivation


class _Part:
    """The derivations of one test: their columns of the frame, and their stream as long as its settings hold."""

    def __init__(self, test: str, places: list[tuple[int, str]]) -> None:
        self.test = test
        self._labels = [label for _, label in places]
        self.to = np.array([place for place, _ in places], np.intp)
        self._run: Run | None = None
        self._stream: CausalStream | None = None

    def stream(self, room: Room) -> CausalStream | None:
        """None when the test no longer gives these derivations."""
        state = room.tests.get(self.test)
        run = state.run if state is not None and state.running else None
        if run is None:
            return None
        if run is not self._run:
            by_label = {c.derivation.label: c for c in run.channels}
            if not set(self._labels) <= set(by_label):
                return None
            spec = run.definition.causal or run.definition.filter
            channels = [by_label[label] for label in self._labels]
            self._run, self._stream = run, CausalStream(channels, room.stride, spec, room.rate_hz, 0.01)
        return self._stream


class Filtered(Source):
    def __init__(self, room: Room, layout: StreamLayout, picks: list[Pick], add: Listed, remove: Listed) -> None:
        super().__init__(room, layout, add, remove)
        tests = dict.fromkeys(test for test, _ in picks)
        self._parts = [_Part(t, [(i, d) for i, (test, d) in enumerate(picks) if test == t]) for t in tests]

    def _give(self, sink: Sink, block: Block, flags: FrameFlag) -> None:
        spans = self.stimulus_spans(block)
        out = np.empty((block.n, len(self.layout.names)), "<f4")
        for part in self._parts:
            stream = part.stream(self._room)
            if stream is None:
                self.end(Cause.STOPPED)
                return
            out[:, part.to] = stream.feed(block, spans)[: block.n, : len(part.to)]
            if stream.restarted:
                flags |= FrameFlag.RESTARTED
        sink.push(block.first, as_bytes(out), block.n, flags)


def open_filtered(room: Room, spec: StreamSpec, add: Listed, remove: Listed) -> Source:
    """Channels by derivation, `test/derivation` where two running tests have one of that name.  Refused: unknown,
    ambiguous, or no test runs."""
    known: list[Pick] = [
        (state.id, label) for state in list(room.tests.values())
        if state.running and state.run is not None for label in state.run.labels
    ]
    if not known:
        raise Refused("filtered: no test is running; start one, or open `raw`", NOT_MONITORED)
    times = Counter(label for _, label in known)
    names = list(spec.channels) or [label if times[label] == 1 else f"{test}/{label}" for test, label in known]
    picks = [_find(name, known) for name in names]
    layout = StreamLayout(
        "filtered", room.rate_hz, names, "uV", "<f4", [], filter="the causal filter of each derivation's test"
    )
    return Filtered(room, layout, picks, add, remove)


def _find(name: str, known: list[Pick]) -> Pick:
    found = [pick for pick in known if name in (pick[1], "/".join(pick))]
    if len(found) == 1:
        return found[0]
    choices = ", ".join("/".join(pick) for pick in found or known)
    if found:
        raise Refused(f"derivation {name} is in several running tests; name one of {choices}", NOT_MONITORED)
    raise Refused(f"derivation {name} is in no running test; there are {choices}", NOT_MONITORED)
