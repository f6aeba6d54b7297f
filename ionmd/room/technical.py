"""The state of the equipment: cautery, overload, electrodes, gaps, no data; each a state with start, cause and count.

In: aux marks, extremes of each block, impedances, gaps.  Out: technical alarms, spoiled spans, monitored states.
Cautery and overload only *pause* averaging and stimulation; they resume by themselves.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Container
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ionmd.events import AuxChanged, ImpedanceFound
from ionmd.model import AuxLine, Block, Mark, Priority
from ionmd.runner.base import Span
from ionmd.timers import CAUTERY_QUIET_MS
from ionmd.units import ms_to_samples

if TYPE_CHECKING:
    from ionmd.room.room import Room
    from ionmd.room.teststate import TestState

# An input is flat when it moves less than this over FLAT_S seconds: a living electrode has more noise.
FLAT_UV = 0.2
FLAT_S = 1.0
# At the end stop for this long, the input is saturated rather than hit by an artefact.
SATURATED_S = 0.5
# A disc electrode above this is unreliable; a needle or corkscrew should be lower, but this is where derivations fall
# (docs/sources.md#impedance).
LOST_KOHM = 50.0
GOOD_KOHM = 5.0
CAUTERY_LIMIT_S = 10.0  # a cautery sense line held longer is itself a technical alarm (faults A02)
STEP_S = 1.0
_OPEN = float("inf")


class Technical:
    """Equipment conditions of the room."""

    def __init__(self, room: Room, earlier: Technical | None = None) -> None:
        """`earlier`: of the case before; lines and impedances are the device's, faults are looked for afresh."""
        self._room = room
        self.spoiled: deque[Span] = deque(maxlen=64)
        self.aux: dict[int, bool] = dict(earlier.aux) if earlier is not None else {}
        self.faults: dict[int, str] = {}  # input -> what is wrong with it
        self.impedance_kohm: dict[int, float] = dict(earlier.impedance_kohm) if earlier is not None else {}
        self.cautery_since: int | None = earlier.cautery_since if earlier is not None else None
        self.cautery_samples = 0
        self._lo: npt.NDArray[np.float32] | None = None  # extremes of each input since `_from`
        self._hi: npt.NDArray[np.float32] | None = None
        self._from = 0
        self._clipped_since: dict[int, int] = {}
        self._wanted: tuple[set[int], Callable[[object], None], tuple[int, ...]] | None = (
            earlier._wanted if earlier is not None else None
        )

    # ------------------------------------------------------------ alarms

    def raised(
        self, code: str, key: str, sentence: str, priority: Priority, evidence: list[str], test: str = "",
        derivations: list[str] | None = None,
    ) -> None:
        alarm = self._room.book.technical(
            code, key, self._room.now, sentence, priority, evidence=evidence, test=test, derivations=derivations
        )
        if alarm is not None:
            self._room.changes.tell(alarm)

    def over(self, code: str, key: str, by: str) -> None:
        alarm = self._room.book.technical_over(code, key, self._room.now, by)
        if alarm is not None:
            self._room.changes.tell(alarm)

    def over_all(self, code: str, by: str) -> None:
        """Every open alarm of one code is over."""
        for alarm in self._room.book.clear_code(code, self._room.now, by):
            self._room.changes.tell(alarm)

    def await_impedances(self, inputs: tuple[int, ...], done: Callable[[object], None]) -> None:
        """`done` gets the table once every one of `inputs` was measured."""
        self._wanted = (set(inputs), done, inputs)

    def impedance_table(self, inputs: tuple[int, ...]) -> dict[str, object]:
        rows = []
        for i in inputs:
            kohm = self.impedance_kohm.get(i)
            ohm = None if kohm is None or kohm == float("inf") else round(kohm * 1000)
            rows.append({
                "input": i, "label": self.label(i), "ohm": ohm, "ok": kohm is not None and kohm <= GOOD_KOHM,
                "takes_down": [f"{s.id} {d}" for s, d in self._touching(i)],
            })
        return {"electrodes": rows}

    # ------------------------------------------------------------ device marks

    def on_aux(self, mark: Mark) -> None:
        line, level = mark.output, bool(mark.value)
        self.aux[line] = level
        name = AuxLine(line).name.lower().replace("_", " ") if line in list(AuxLine) else f"line {line}"
        self._room.bus.emit("device", AuxChanged(aux=name, level=int(level), at_sample=mark.sample), kind="aux")
        if line == AuxLine.CAUTERY:
            if level:
                self.cautery_since = mark.sample
                self._room.monitoring.block("", "cautery", "cautery", mark.sample)
            elif self.cautery_since is not None:
                quiet = mark.sample + ms_to_samples(CAUTERY_QUIET_MS, self._room.rate_hz)
                self.spoiled.append(Span(self.cautery_since, quiet, "cautery"))
                self.cautery_samples += mark.sample - self.cautery_since
                self.cautery_since = None
                self._room.monitoring.unblock("", "cautery", mark.sample)
                self.over("cautery.stuck", "", "the cautery sense line fell")

    def on_impedance(self, mark: Mark) -> None:
        kohm = mark.value / 1000.0 if mark.value >= 0 else float("inf")
        self.impedance_kohm[mark.output] = kohm
        label = self.label(mark.output)
        known = round(kohm, 2) if kohm < _OPEN else None
        found = ImpedanceFound(electrode=label, input=mark.output, impedance_kohm=known)
        self._room.bus.emit("quality", found, key=f"impedance/{mark.output}")
        if self._wanted is not None:
            open_inputs, done, inputs = self._wanted
            open_inputs.discard(mark.output)
            if not open_inputs:
                self._wanted = None
                done(self.impedance_table(inputs))
        if not (kohm <= LOST_KOHM):
            self._fault(mark.output, f"impedance {kohm:.0f} kohm")
        elif self.faults.get(mark.output, "").startswith("impedance"):
            self._mended(mark.output)

    def tell_known_faults(self) -> None:
        """A case opens: an electrode that was found bad before it is bad in it."""
        for i, kohm in sorted(self.impedance_kohm.items()):
            if not (kohm <= LOST_KOHM):
                self._fault(i, f"impedance {kohm:.0f} kohm")

    def spans(self) -> list[Span]:
        """Gaps and cautery so far, a running one open-ended."""
        found = list(self.spoiled)
        if self.cautery_since is not None:
            found.append(Span(self.cautery_since, self._room.now + (1 << 40), "cautery"))
        return found

    def muted(self, first: int, stop: int) -> str:
        """Why samples [first, stop) are no signal on any input (cautery and its quiet time after); empty: they are."""
        if not self.spoiled and self.cautery_since is None:
            return ""
        return next((s.cause for s in self.spans() if s.cause == "cautery" and s.start < stop and first < s.stop), "")

    @property
    def cautery(self) -> bool:
        return self.cautery_since is not None

    # ------------------------------------------------------------ samples

    def on_block(self, block: Block) -> None:
        """Gap bookkeeping for every block; electrode supervision once a second of samples."""
        rate = self._room.rate_hz
        if block.lost:
            self.spoiled.append(Span(block.first - block.lost, block.first, "gap"))
        if self._lo is None or self._hi is None or len(self._lo) != block.stride:
            self._from = block.first
            self._lo, self._hi = block.lo.copy(), block.hi.copy()
        else:
            np.minimum(self._lo, block.lo, out=self._lo)
            np.maximum(self._hi, block.hi, out=self._hi)
        if block.first + block.n - self._from >= STEP_S * rate:
            self._supervise(block.first + block.n, self._lo.tolist(), self._hi.tolist())
            self._lo = None
        if self.cautery_since is not None and block.first - self.cautery_since > CAUTERY_LIMIT_S * rate:
            self.raised(
                "cautery.stuck", "", "Cautery has been sensed for more than 10 s: averaging is paused all that time.",
                "medium", ["check the cautery sensor if nobody is cutting"],
            )

    def _supervise(self, now: int, lows: list[float], highs: list[float]) -> None:
        room = self._room
        ceiling = [0.999 * 8388607 * lsb for lsb in room.lsb_uv]
        used = {e.input: e.label for e in room.electrodes.values()}
        for i in used:
            if i >= room.inputs:
                continue
            lo, hi = lows[i], highs[i]
            clipped = hi >= ceiling[i] or lo <= -ceiling[i]
            if clipped:
                since = self._clipped_since.setdefault(i, now)
                if now - since >= SATURATED_S * room.rate_hz:
                    self._fault(i, "saturated")
            else:
                self._clipped_since.pop(i, None)
                flat = not (hi - lo > FLAT_UV)
                if flat:
                    self._fault(i, "flat")
                elif self.faults.get(i) in ("flat", "saturated"):
                    self._mended(i)

    def label(self, i: int) -> str:
        return next((e.label for e in self._room.electrodes.values() if e.input == i), f"input {i}")

    def _touching(self, i: int) -> list[tuple[TestState, str]]:
        """Every derivation that a lost electrode takes down."""
        return [
            (state, c.derivation.label)
            for state in self._room.tests.values() if state.run is not None
            for c in state.run.channels if i in (c.plus, c.minus)
        ]

    def _fault(self, i: int, what: str) -> None:
        if self.faults.get(i) == what:
            return
        self.faults[i] = what
        room, label = self._room, self.label(i)
        down = self._touching(i)
        for state, derivation in down:
            room.monitoring.block(state.id, "electrode", f"electrode {label}: {what}", room.now, derivation)
        self.raised(
            "electrode.lost", label, f"Electrode {label} is lost ({what}): {len(down)} derivations are not monitored.",
            "medium", [f"{s.id} {d}" for s, d in down], "", [d for _, d in down],
        )

    def _mended(self, i: int) -> None:
        del self.faults[i]
        for state, derivation in self._touching(i):
            others = [x for s, d in [(state, derivation)] for x in self._inputs_of(s, d) if x in self.faults]
            if not others:
                self._room.monitoring.unblock(state.id, "electrode", self._room.now, derivation)
        self.over("electrode.lost", self.label(i), "the electrode is back")

    def _inputs_of(self, state: TestState, derivation: str) -> tuple[int, int]:
        channel = next(c for c in state.run.channels if c.derivation.label == derivation)  # type: ignore[union-attr]
        return channel.plus, channel.minus

    def electrode_faults(self, state: TestState, derivations: Container[str]) -> list[str]:
        """Sentences about the electrodes of these derivations: a lost one explains its own, never the others."""
        if state.run is None:
            return []
        found = []
        for c in state.run.channels:
            for i in (c.plus, c.minus):
                if i in self.faults and c.derivation.label in derivations:
                    found.append(f"electrode {self.label(i)}: {self.faults[i]}")
        return sorted(set(found))
