"""When the next deliveries of the interleaved tests are due, on the sample index alone.

In: the tests that stimulate at a rate, with their sweep windows.  Out: (sample, test) pairs, in order.  Pure: the same
requests at the same samples give the same pulses.  One cycle holds each test once; a slot is long enough that no sweep
window contains another test's pulse; the cycle is chosen so that each test's own rate keeps no mains.
"""

from __future__ import annotations

from dataclasses import dataclass

from ionmd.stim.rates import interleave


@dataclass(frozen=True)
class SlotRequest:
    """A test that wants to stimulate: its wished rate and how far its sweep reaches around time zero."""

    test: str
    rate_hz: float
    start_ms: float
    stop_ms: float
    sweeps: int = 300


@dataclass(frozen=True)
class Cycle:
    """Offsets in samples from the cycle's start, and its length; `rate_hz` is each test's own rate."""

    offsets: dict[str, int]
    period: int
    rate_hz: float


def make_cycle(requests: list[SlotRequest], device_rate_hz: float, mains_hz: float) -> Cycle:
    """One sweep of each test per cycle, at the slowest wished rate or the nearest that fits and keeps no mains."""
    if not requests:
        return Cycle({}, 0, 0.0)
    windows = {r.test: (r.start_ms, r.stop_ms) for r in requests}
    wished = min(r.rate_hz for r in requests)
    plan = interleave(windows, wished, mains_hz, min(r.sweeps for r in requests))
    period = round(plan.cycle_ms * device_rate_hz / 1000.0)
    offsets = {slot.test: round(slot.offset_ms * device_rate_hz / 1000.0) for slot in plan.slots}
    return Cycle(offsets, period, device_rate_hz / period)


class Schedule:
    """The running cycle; `due` hands out each delivery exactly once."""

    def __init__(self) -> None:
        self.cycle = Cycle({}, 0, 0.0)
        self._start = 0
        self._done_before = 0
        self._next = 0  # nothing is due before this sample

    def begin(self, cycle: Cycle, start: int) -> None:
        """From sample `start` on, this cycle; what was handed out before stays."""
        self.cycle = cycle
        self._start = start
        self._done_before = self._next = start

    def stop(self) -> None:
        self.cycle = Cycle({}, 0, 0.0)

    def due(self, before: int) -> list[tuple[int, str]]:
        """Deliveries with sample < `before` that were not handed out yet."""
        cycle, found = self.cycle, []
        if cycle.period <= 0 or before <= self._next:
            return []
        first = max(0, (self._done_before - self._start) // cycle.period)
        last = max(0, (before - self._start) // cycle.period)
        for k in range(first, last + 2):
            base = self._start + k * cycle.period
            found += [(base + offset, test) for test, offset in cycle.offsets.items()]
        found.sort()
        due = [f for f in found if self._done_before <= f[0] < before]
        self._next = min(sample for sample, _ in found if sample >= before)
        self._done_before = before
        return due
