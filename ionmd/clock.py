"""Device sample index <-> the case's sample index.

In: the first sample of each device session, and the monotonic time at which it came.
Out: a SessionLine for the journal, and the mapping for every block, pulse and request.
Always: case samples never go back.  A gap is exact when the device kept its counter (same boot_id and
rate); otherwise it is estimated from monotonic time, marked so, with its uncertainty.
"""

from __future__ import annotations

import msgspec

# Host scheduling and USB latency bound how well monotonic time can place a reconnect.
ESTIMATE_UNCERTAINTY_S = 0.25


class SessionLine(msgspec.Struct, frozen=True):
    """Journal line `session` (design 3)."""

    device_session: int
    boot_id: int
    device_first_sample: int
    sample: int
    gap_samples: int
    gap_exact: bool
    method: str  # start | device counter | monotonic | unknown
    uncertainty_samples: int
    rate_hz: float
    serial: str = ""


class SampleClock:
    """The one mapping; owned by the pipeline thread."""

    def __init__(self, first_case_sample: int = 0) -> None:
        self._next_case = first_case_sample  # case index of the sample after the last one seen
        self._offset = first_case_sample
        self._boot_id: int | None = None
        self._rate_hz = 0.0
        self._last_monotonic_s = 0.0
        self._mapped = False

    @property
    def next_sample(self) -> int:
        """Case sample just after the newest one that was seen."""
        return self._next_case

    def begin_session(
        self, session: int, boot_id: int, device_first: int, rate_hz: float, monotonic_s: float,
        speed: float | None = 1.0, serial: str = "",
    ) -> SessionLine:
        """A stream starts at device sample `device_first`.

        speed  device seconds per monotonic second; None when the device owns virtual time: then a lost
               counter leaves nothing to estimate from and the gap is 0 with method `unknown`."""
        uncertainty = 0
        if self._boot_id is None:
            gap, exact, method = 0, True, "start"
        elif boot_id == self._boot_id and rate_hz == self._rate_hz and device_first + self._offset >= self._next_case:
            gap, exact, method = device_first + self._offset - self._next_case, True, "device counter"
        elif speed is None:
            gap, exact, method = 0, False, "unknown"
        else:
            gap = max(0, round((monotonic_s - self._last_monotonic_s) * speed * rate_hz))
            exact, method, uncertainty = False, "monotonic", round(ESTIMATE_UNCERTAINTY_S * speed * rate_hz)
        sample = self._next_case + gap
        self._mapped = True
        self._offset = sample - device_first
        self._boot_id, self._rate_hz, self._next_case = boot_id, rate_hz, sample
        self._last_monotonic_s = monotonic_s
        return SessionLine(
            session, boot_id, device_first, sample, gap, exact, method, uncertainty, rate_hz, serial
        )

    def advance(self, next_device_sample: int, monotonic_s: float) -> None:
        """Samples up to (not including) `next_device_sample` have been handed on."""
        self._next_case = max(self._next_case, next_device_sample + self._offset)
        self._last_monotonic_s = monotonic_s

    def rebase(self, next_case_sample: int) -> None:
        """Continue an earlier case: the next sample is `next_case_sample`; only before a session's first block."""
        self._offset += next_case_sample - self._next_case
        self._next_case = next_case_sample

    def unmap(self) -> None:
        """A stream is about to start: where its counter stands is not known until its first block."""
        self._mapped = False

    def processed(self, case_sample: int) -> int:
        """Device sample for the heartbeat; 0 while the counter is unknown (a rebooted device starts low)."""
        return max(0, self.to_device(case_sample)) if self._mapped else 0

    def to_case(self, device_sample: int) -> int:
        return device_sample + self._offset

    def to_device(self, case_sample: int) -> int:
        return case_sample - self._offset
