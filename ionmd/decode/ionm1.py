"""Bytes from an ionm1 -> Blocks.

In: bulk transfers; each holds a block, several, or a piece of one.  Out: Blocks with counts, uV, marks and gaps.
Always: the device's sample counter is the truth.  A hole in it becomes Gap.LOST with the exact count before the next
row, never invented samples; a sample is given once; a damaged block is dropped, counted and becomes a hole.
Layout: docs/wire/ionm1.md section 3.  The parser is C (ext/decode/ionm1.c) and runs without the GIL.
"""

from __future__ import annotations

from collections.abc import Sequence

from ionmd.errors import MissingKernel
from ionmd.model import Block

try:
    from ionmd.decode._decode import MAX_BLOCK_BYTES, Decoder
except ImportError as exc:  # no slow path
    raise MissingKernel(f"the decoder is not compiled ({exc}): run `make build`") from exc

# Section 6 of the wire document: what a firmware refuses with, by its own word.
REASONS = {
    0: "NONE", 1: "UNKNOWN_REQUEST", 2: "BAD_LENGTH", 3: "BAD_CRC", 4: "RANGE", 5: "LIMIT", 6: "STATE", 7: "TOKEN",
    8: "NONCE", 9: "LATE", 10: "WATCHDOG", 11: "TRIPPED", 12: "QUEUE_FULL", 13: "RATE", 14: "UNDER_DELIVERY",
    15: "OVER_DELIVERY", 16: "STRAY_PULSE", 17: "MARKS_LOST", 18: "SPEED", 19: "IMPEDANCE_MODE", 20: "HOST_OFF",
    21: "BUS_RESET", 22: "EXPIRED", 23: "NO_CONTACT", 24: "BOOT_ID", 25: "CAUTERY", 26: "COUNTER", 27: "DEAD_TIME",
    28: "FAR", 29: "SEQUENCE_CHANGED", 30: "STOP_BUTTON",
}  # fmt: skip


def reason_name(code: int) -> str:
    """The firmware's word for a reason code; unknown ones keep their number."""
    return REASONS.get(code, f"REASON_{code}")


def block_bytes(inputs: int, samples: int, marks: int = 0) -> int:
    """Length of one block on the wire, padding included."""
    length = 64 + 3 * inputs * samples + 32 * marks + 4
    return length + 4 if length % 512 == 0 else length


class Ionm1Decoder:
    """One device's stream.  Feed it transfers, or let a USB queue write them into its ring."""

    def __init__(self, lsb_uv: Sequence[float], ring_bytes: int = 1 << 20) -> None:
        """lsb_uv: microvolts per count of each input.  ring_bytes: how much may wait to be read."""
        self._c = Decoder([float(x) for x in lsb_uv], ring_bytes)

    def begin(self, session: int, boot_id: int) -> None:
        """A new stream session; with the same `boot_id` the next gap is exact."""
        self._c.begin(session, boot_id)

    def feed(self, transfer: bytes | bytearray | memoryview, done_ns: int = 0) -> bool:
        """One transfer; False when the ring is full: nothing was stored, and that is counted."""
        return bool(self._c.feed(transfer, done_ns))

    def read_into(self, block: Block, limit_sample: int | None = None) -> bool:
        """Append rows; True when the block is complete.  Same promise as Amplifier.read_into, without DeviceGone."""
        return bool(self._c.read_into(block, limit_sample))

    @property
    def ring_address(self) -> int:
        """Where a USB queue writes transfers; valid as long as this decoder lives."""
        return int(self._c.ring_address)

    @property
    def waiting(self) -> bool:
        """True when a read may give something."""
        return bool(self._c.waiting)

    @property
    def next_sample(self) -> int:
        return int(self._c.next_sample)

    @property
    def clock_pair(self) -> tuple[int, int, int]:
        """(sample, device ns, host monotonic ns) of the newest block."""
        a, b, c = self._c.clock_pair
        return int(a), int(b), int(c)

    @property
    def stim_state(self) -> int:
        return int(self._c.stim_state)

    @property
    def trip_reason(self) -> str:
        return reason_name(int(self._c.trip_reason))

    @property
    def fifo_permille(self) -> int:
        return int(self._c.fifo_permille)

    def counters(self) -> dict[str, int]:
        """Every counter by name (ext/decode/ionm1.h), since the decoder was made."""
        return {str(k): int(v) for k, v in self._c.counters().items()}


__all__ = ["MAX_BLOCK_BYTES", "REASONS", "Ionm1Decoder", "block_bytes", "reason_name"]
