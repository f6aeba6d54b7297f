"""Faults of the unit itself: its outputs, its converter, its word about its state.  Those of blocks, cable and clock
are in faults.py.

In: a name and its arguments.  Out: an action, to be done when its sample comes.  Always: a name or a value that is not
possible is a ValueError before anything happens; an argument that does not exist is a TypeError.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from firmware_sim._firmware import lib

if TYPE_CHECKING:
    from firmware_sim.core import Firmware

Action = Callable[[], None]


def check_index(name: str, value: int, stop: int) -> None:
    if not 0 <= value < stop:
        raise ValueError(f"{name} is {value}, expected 0..{stop - 1}")


class OwnFaults:
    """Names and arguments:

    stray_pulse output=0 amplitude=10000 width_us=200 polarity=1    an output fires, nobody asked
    lie_state on=True                                       everything that reports the state says SAFE
    monitor_silent output=0 on=True                         pulses leave, no measurement comes
    load output=0 ohm=1000 gain_error=0.0                   as set_load; ohm null or inf: open
    shape output=0 stretch=1.0 flip=False                   pulses last longer, or go the other way, than asked
    impedance input=0 ohm=2000                              as set_impedance
    aux line=0 level=True
    jump samples=0 seq=0                                    the counter jumps ahead, the next block has this seq
    bus_reset · disconnect · reboot                         now only
    """

    NOW_ONLY = frozenset({"bus_reset", "disconnect", "reboot"})

    def __init__(self, unit: Firmware, board: Any) -> None:
        self._unit, self._board = unit, board

    @classmethod
    def names(cls) -> list[str]:
        return [name.removeprefix("_fault_") for name in vars(cls) if name.startswith("_fault_")]

    def prepare(self, fault: str, later: bool, arguments: dict[str, Any]) -> Action:
        """The action of a fault.  later: it is meant for a sample to come."""
        handler = getattr(self, f"_fault_{fault}", None)
        if handler is None:
            raise ValueError(f"fault {fault!r} is not known; known: {', '.join(sorted(self.names()))}")
        if fault in self.NOW_ONLY and later:
            raise ValueError(f"fault {fault!r} takes effect now; at_sample is not possible")
        action: Action = handler(**arguments)
        return action

    def _fault_stray_pulse(
        self, output: int = 0, amplitude: int = 10_000, width_us: int = 200, polarity: int = 1
    ) -> Action:
        check_index("output", output, self._unit.outputs)
        return lambda: lib.face_stray(self._board, self._unit.sample, output, amplitude, width_us, polarity < 0)

    def _fault_lie_state(self, on: bool = True) -> Action:
        return lambda: lib.face_lie(self._board, bool(on))

    def _fault_monitor_silent(self, output: int = 0, on: bool = True) -> Action:
        check_index("output", output, self._unit.outputs)
        return lambda: lib.face_silent(self._board, output, bool(on))

    def _fault_load(self, output: int = 0, ohm: float | None = 1000.0, gain_error: float = 0.0) -> Action:
        return lambda: self._unit.set_load(output, math.inf if ohm is None else ohm, gain_error)

    def _fault_shape(self, output: int = 0, stretch: float = 1.0, flip: bool = False) -> Action:
        check_index("output", output, self._unit.outputs)
        if not 0.0 < stretch <= 10.0:
            raise ValueError(f"stretch is {stretch}, expected above 0 and at most 10")
        return lambda: lib.face_set_shape(self._board, output, stretch, bool(flip))

    def _fault_impedance(self, input: int = 0, ohm: float | None = 2000.0) -> Action:
        return lambda: self._unit.set_impedance(input, math.inf if ohm is None else ohm)

    def _fault_aux(self, line: int = 0, level: bool = True) -> Action:
        return lambda: self._unit.set_aux(line, level)

    def _fault_jump(self, samples: int = 0, seq: int = 0) -> Action:
        if not (0 <= samples < 1 << 48 and 0 <= seq < 1 << 32):
            raise ValueError(f"samples is {samples}, seq {seq}; expected 0..2^48-1 and 0..2^32-1")
        return lambda: lib.face_jump(self._board, samples, seq)

    def _fault_bus_reset(self) -> Action:
        return self._unit.bus_reset

    def _fault_disconnect(self) -> Action:
        return self._unit.disconnect

    def _fault_reboot(self) -> Action:
        return self._unit.reboot
