"""When the device's next samples are due: wall time, wall time x N, or as fast as the host can follow.

In: the monotonic clock (passed in, never read here) and the device's sample counter.  Out: how many samples are due
and how long until the next batch is.
Always: a batch never crosses the grid that begins at STREAM start, so the same stream is cut at the same samples
whatever the host's timing; a device that the machine cannot simulate in time slips its whole clock and counts it.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX = "max"
_SLIP_S = 1.0  # further behind than this, the clock is re-anchored: a catch-up that never ends helps nobody


def batch_samples(rate_hz: int, block_samples: int, batch_ms: float) -> int:
    """Samples of one batch: whole blocks of about `batch_ms`, or an even part of one long block."""
    target = max(1, int(rate_hz * batch_ms / 1000))
    if block_samples <= target:
        return block_samples * (target // block_samples)
    parts = -(-block_samples // target)
    return -(-block_samples // parts)


def next_batch(offset: int, block_samples: int, batch: int) -> int:
    """Samples from `offset` (since STREAM start) to the next cut of the grid."""
    if batch >= block_samples:
        return batch - offset % batch
    in_block = offset % block_samples
    return min(batch - in_block % batch, block_samples - in_block)


@dataclass
class DeviceClock:
    """The device's crystal: monotonic seconds -> sample counter."""

    rate_hz: float
    speed: float = 1.0
    ppm: float = 0.0
    slipped_s: float = 0.0
    _t0: float = 0.0
    _sample0: int = 0

    @property
    def _per_s(self) -> float:
        return self.rate_hz * self.speed * (1.0 + self.ppm * 1e-6)

    def anchor(self, now_s: float, sample: int) -> None:
        """`sample` is due now."""
        self._t0, self._sample0 = now_s, sample

    def due_sample(self, now_s: float) -> int:
        """Counter that the device has reached at `now_s`."""
        return self._sample0 + int((now_s - self._t0) * self._per_s)

    def wait_s(self, now_s: float, sample: int) -> float:
        """Seconds until the counter reaches `sample`; 0 when it has."""
        return max(0.0, self._t0 + (sample - self._sample0) / self._per_s - now_s)

    def state(self) -> dict[str, float]:
        """`sample` is due at `monotonic_s`; `per_s` samples a second from there (meaningless at "max")."""
        return {"monotonic_s": self._t0, "sample": self._sample0, "per_s": self._per_s}

    def slip_if_late(self, now_s: float, sample: int) -> None:
        """Give up catching up when more than a second behind."""
        late_s = (self.due_sample(now_s) - sample) / self._per_s
        if late_s > _SLIP_S:
            self.slipped_s += late_s
            self.anchor(now_s, sample)
