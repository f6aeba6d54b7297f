"""Joins the stages in the order of the house: driver -> decode -> ring -> dsp -> modality -> alarm -> (case, service).

One quantum at a time, on the sample index alone: what a block does does not depend on how its bytes arrived.
`Pipeline.process` is the whole data path; daemon.py gives it a thread and a device, replay gives it a file.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import msgspec

from ionmd.clock import SessionLine
from ionmd.dsp.history import History
from ionmd.events import GapFound, GapInfo
from ionmd.model import Block, Gap, Mark, MarkKind
from ionmd.room.room import QUANTUM_MS, Room

# The ring of inputs holds the longest sweep, the horizon, and room for a late mark.
HISTORY_S = 3.0
_TOLD = ~int(Gap.CLIPPED)


class BlockSink(Protocol):
    """Whoever takes every block as it is (the recorder, sample streams)."""

    def __call__(self, block: Block) -> None: ...


class Pipeline:
    """The stages between a Block and the bus."""

    def __init__(self, room: Room, sinks: list[BlockSink]) -> None:
        self.room = room
        self._sinks = sinks
        self.history: History | None = None
        self.blocks = 0
        self.after: list[Callable[[], None]] = []  # once a quantum, in order: quality, metrics

    def begin(self, inputs: int, stride: int, rate_hz: float) -> None:
        """A stream with this shape begins (again)."""
        room = self.room
        changed = (inputs, stride, rate_hz) != (room.inputs, room.stride, room.rate_hz)
        room.inputs, room.stride, room.rate_hz = inputs, stride, rate_hz
        room.quantum = max(1, round(QUANTUM_MS * rate_hz / 1000.0))
        if self.history is None or changed:
            self.history = History(stride, round(HISTORY_S * rate_hz), rate_hz)

    def process(self, block: Block) -> None:
        """Carry one block, whose `first` is in case samples, through all stages."""
        room, history = self.room, self.history
        if history is None:
            raise ValueError("Pipeline.begin comes before the first block")
        marks = [msgspec.structs.replace(m, sample=room.clock.to_case(m.sample)) for m in block.marks]
        self._note(block, marks)
        if block.lost:
            self._gap(block)
        history.push(block.first, block.uv, block.n)
        for sink in self._sinks:
            sink(block)
        self._marks(marks)
        artefacts = room.deliveries.artefacts_from(block.first)
        spoiled = room.technical.spans()
        muted = room.technical.muted(block.first, block.first + block.n)
        room.technical.on_block(block)
        room.now = room.bus.sample = block.first + block.n
        for state in room.tests.values():
            run = state.run
            if run is None or not state.running:
                continue
            for report in run.feed(block, artefacts, muted):
                room.changes.report(state, report)
            for report in run.collect(history, room.now, spoiled):
                room.changes.report(state, report)
        room.deliveries.missing()
        room.end_pause()
        room.validity.tick()
        room.tell_monitoring()
        for step in self.after:
            step()
        room.stimulation.tick()
        self.blocks += 1

    def _note(self, block: Block, marks: list[Mark]) -> None:
        """Journal what a replay cannot know from the samples: marks, what is missing before the block, where it was
        cut when that is not on the grid of quanta.  Clipping is seen in the samples."""
        room = self.room
        gap = int(block.gap) & _TOLD
        if room.case is not None and (marks or gap or block.lost or (block.first + block.n) % room.quantum):
            room.bus.journal("block", {
                "first": block.first, "samples": block.n, "gap": gap, "lost": block.lost, "marks": marks,
            })

    def _marks(self, marks: list[Mark]) -> None:
        room = self.room
        for mark in marks:
            if mark.kind in (MarkKind.PULSE, MarkKind.DELIVERY_END, MarkKind.FIRE_REFUSED):
                room.deliveries.on_mark(mark)
            elif mark.kind is MarkKind.AUX:
                room.technical.on_aux(mark)
            elif mark.kind is MarkKind.IMPEDANCE:
                room.technical.on_impedance(mark)
            elif mark.kind is MarkKind.STIM_STATE:
                room.stimulation.on_state(mark)

    def _gap(self, block: Block) -> None:
        room = self.room
        exact = not block.gap & Gap.ESTIMATED
        info = GapInfo(
            first_sample=block.first - block.lost, samples=block.lost, exact=exact,
            cause="overflow" if block.gap & Gap.OVERFLOW else "session" if block.gap & Gap.SESSION else "lost",
        )
        room.bus.emit("device", GapFound(gap=info), kind="gap")
        if room.tests:
            room.restart_averages("gap")

    def session(self, line: SessionLine, serial: str) -> None:
        """A device session begins: journalled with how its samples map."""
        room = self.room
        room.bus.journal("session", {
            **msgspec.to_builtins(line), "serial": serial,
            "inputs": [{"label": a, "lsb_uv": b} for a, b in zip(room.input_labels, room.lsb_uv, strict=False)],
        })
