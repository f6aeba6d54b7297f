"""Standard requests of USB 2.0, chapter 9: what the bus knows of a unit besides its descriptors.

In: a SETUP packet's fields.  Out: the reply before it is cut to wLength, or None for STALL.
Always: a configuration, an alternate setting or a reset also stops what the firmware streams (the two callbacks).
"""

from __future__ import annotations

from collections.abc import Callable

from firmware_sim.descriptors import ENDPOINT_IN, Descriptors


class StandardRequests:
    """Configuration, alternate setting of interface 0 and the halt of its bulk endpoint."""

    def __init__(self, on_configured: Callable[[], None], on_alternate: Callable[[int], None]) -> None:
        self._on_configured, self._on_alternate = on_configured, on_alternate
        self.reset()

    def reset(self) -> None:
        """Bus reset or power up: unconfigured.  The firmware has its own."""
        self.configuration = 0
        self.alternate = 0
        self.halted = False  # bulk IN 0x81 answers STALL until CLEAR_FEATURE(ENDPOINT_HALT)

    def answer(self, says: Descriptors, kind: int, request: int, value: int, index: int) -> bytes | None:
        match kind, request:
            case 0x80, 6:
                return says.get(value >> 8, value & 0xFF)
            case 0x80, 8:
                return bytes([self.configuration])
            case 0x80, 0:
                return b"\x01\x00"  # self powered
            case 0x81, 0 if index < says.interfaces:
                return b"\x00\x00"
            case 0x82, 0 if index == ENDPOINT_IN:
                return bytes([self.halted, 0])
            case 0x82, 0 if index in (0, 0x80):
                return b"\x00\x00"
            case 0x00, 5:
                return b""
            case 0x00, 9 if value in (0, 1):
                self._on_configured()
                self.configuration, self.alternate, self.halted = value, 0, False
                return b""
            case 0x81, 10 if index < says.interfaces and self.configuration:
                return bytes([self.alternate if index == 0 else 0])
            case 0x01, 11 if index == 0 and value in (0, 1) and self.configuration:
                self._on_alternate(value)
                self.alternate, self.halted = value, False
                return b""
            case 0x01, 11 if index == 1 and value == 0 and self.configuration and says.stimulator:
                return b""
            case (0x02, 1 | 3) if value == 0 and index == ENDPOINT_IN and self.alternate:
                self.halted = request == 3
                return b""
            case (0x02, 1 | 3) if value == 0 and index in (0, 0x80):
                return b""
        return None
