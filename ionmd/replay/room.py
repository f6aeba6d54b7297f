"""The room of a stored case, made again: samples, device marks, facts and requests go in, results come out.

In: the journal's inputs, each at its sample.  Out: (kind, sample, canonical JSON of its data) of every line that the
room writes.  Always: the stages, the room and the request handlers are the daemon's own; only the outside is missing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np

from ionmd.case.journal import canonical
from ionmd.case.samples import CaseSamples
from ionmd.commands.base import Desk, Later
from ionmd.commands.table import HANDLERS
from ionmd.errors import IonmdError, Refused
from ionmd.model import Block, DeviceStatus, Gap, Mark
from ionmd.pipeline import Pipeline
from ionmd.replay.control import Answer, RecordedControl
from ionmd.room.bus import Bus
from ionmd.room.opening import Opening, restore
from ionmd.room.outside import FACTS
from ionmd.room.room import Room
from ionmd.service.backend import Caller
from ionmd.service.schema import METHODS

ROLES = frozenset({"view", "operate", "stim", "oversee", "admin"})
LONGEST_BLOCK_S = 1.0
Emit = Callable[[str, int, bytes], None]


class MissingSamples(IonmdError):
    """The record has no samples from here on; `sample` is the first that is missing."""

    def __init__(self, sample: int) -> None:
        super().__init__(f"sample {sample} is not in the record")
        self.sample = sample


class CaseRoom:
    """From one opening of a case to its end."""

    def __init__(self, opening: Opening, sample: int, samples: CaseSamples, emit: Emit) -> None:
        self._emit = emit
        self._samples = samples
        self._lines = 0
        self.control = RecordedControl()
        self.control.present(opening.stimulator)
        definitions = {t.test.id: t for t in opening.tests}
        templates = {opening.template.template.id: opening.template}
        self.room = Room(Bus(self._journal, lambda *_: None), self.control, definitions, templates, opening.mains_hz)
        self._pipeline = Pipeline(self.room, [])
        self._block = Block(max(1, round(LONGEST_BLOCK_S * opening.rate_hz)), len(opening.inputs), opening.rate_hz)
        self._pipeline.begin(len(opening.inputs), self._block.stride, opening.rate_hz)
        self._lsb = np.array([i.lsb_uv for i in opening.inputs], np.float32)
        restore(self.room, opening, sample)
        self._desk = Desk(self.room, None, lambda action: action(), opening.version)  # type: ignore[arg-type]
        self._asked: dict[int, list[Answer]] = {}

    def _journal(
        self, kind: str, sample: int, data: object, on_durable: Callable[[int], None] | None = None
    ) -> int:
        self._lines += 1
        self._emit(kind, sample, canonical(data))
        return self._lines

    # ------------------------------------------------------------ samples

    def advance(self, sample: int) -> None:
        """Whole quanta up to `sample`.  Raises MissingSamples, or ValueError when `sample` cuts a quantum."""
        room, quantum = self.room, self.room.quantum
        while room.now < sample:
            stop = (room.now // quantum + 1) * quantum
            if stop > sample:
                raise ValueError(f"sample {sample} lies inside a block that ended at {stop}")
            self.block(room.now, stop - room.now, 0, 0, [])

    def block(self, first: int, n: int, gap: int, lost: int, marks: list[Mark]) -> None:
        """One block as the device gave it.  Raises MissingSamples before anything has changed."""
        block, k = self._block, len(self._lsb)
        block.clear()
        there = self._samples.read(first, n, block.counts)
        if there < n:
            raise MissingSamples(first + there)
        block.first, block.n, block.lost, block.gap = first, n, lost, Gap(gap)
        counts = block.counts[:n, :k]
        np.multiply(counts.astype(np.float32), self._lsb, out=block.uv[:n, :k])
        low, high = counts.min(axis=0), counts.max(axis=0)
        np.multiply(low.astype(np.float32), self._lsb, out=block.lo[:k])
        np.multiply(high.astype(np.float32), self._lsb, out=block.hi[:k])
        if (low <= -0x800000).any() or (high >= 0x7FFFFF).any():
            block.gap |= Gap.CLIPPED
        block.marks.extend(marks)
        self._pipeline.process(block)

    def session(self, sample: int) -> None:
        """A stream begins (again) at this sample."""
        self.room.now = self.room.bus.sample = sample

    # ------------------------------------------------------------ facts and requests

    def device(self, data: dict[str, Any]) -> None:
        if "state" in data:
            self.room.device = msgspec.convert(data, DeviceStatus)

    def outside(self, data: dict[str, Any]) -> None:
        details = {k: v for k, v in data.items() if k != "fact"}
        if data["fact"] == "device_back":
            self.control.present(details["stimulator"])
        FACTS[data["fact"]](self.room, details)

    def request(self, n: int, data: dict[str, Any]) -> str:
        """Execute one journalled request again; why it was refused this time, or nothing."""
        method, params = str(data["method"]), dict(data["params"])
        fields = METHODS[method].params.__struct_fields__
        stimulation = self.room.stimulation
        if "lease" in fields and stimulation.lease.id:  # a lease and a token are keys: the journal has neither
            params["lease"] = stimulation.lease.id
        if "token" in fields:
            manual = stimulation.by_hand.manual
            params["token"] = manual.token if manual is not None else "none"
        caller = Caller(0, int(data["uid"]), 0, ROLES)
        try:
            answer = HANDLERS[method](self._desk, msgspec.convert(params, METHODS[method].params), caller)
        except (IonmdError, ValueError) as error:
            return f"{method} was accepted in the case and is refused now: {error}"
        waiting = self.control.waiting()
        if isinstance(answer, Later):
            self._asked[n] = waiting
            answer.then(lambda value, error: None)
        return ""

    def answered(self, asked: int, refused: str) -> None:
        """The device's answer to the request of line `asked`."""
        for done in self._asked.pop(asked, []):
            done(Refused(refused) if refused else None)
