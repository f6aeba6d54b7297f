"""A SimDevice's end of the bus: who answers a SETUP packet, and how a block becomes bulk transfers.

In: SETUP packets and bulk IN transfers of any length.  Out: replies and bytes, as a host controller would see them.
Always: a transfer ends when it is full or at a short packet; a halted endpoint stays halted until CLEAR_FEATURE;
a packet that overruns the host's buffer is babble, and, not having been acknowledged, comes again.
"""

from __future__ import annotations

from firmware_sim.device import Reply, SimDevice
from firmware_sim.usbip.protocol import EOVERFLOW, EPIPE, EPROTO

ENDPOINT_IN = 0x81
_PORT_RESET = bytes((0x23, 0x03, 0x04, 0x00))  # how USB/IP carries a bus reset: SetPortFeature(PORT_RESET)
_STREAM_STOPPERS = ((0x00, 0x09), (0x01, 0x0B), (0x40, 0x10), (0x41, 0x10))


class UsbFunction:
    """The device side of the bus for one unit."""

    def __init__(self, device: SimDevice) -> None:
        self.device = device
        self._due: memoryview | None = None  # what is left of a block that a transfer cut
        self._zlp_due = False

    def reset(self) -> None:
        """Bus reset or a new plug: default state."""
        self._due, self._zlp_due = None, False
        self.device.bus_reset()

    def control(self, setup: bytes, data: bytes) -> Reply:
        """One control transfer; the reply is at most wLength long."""
        if setup[:4] == _PORT_RESET:
            self.reset()
            return Reply(0)
        if (setup[0], setup[1]) in _STREAM_STOPPERS:
            self._due, self._zlp_due = None, False
        return self.device.request(setup, data)

    def bulk_in(self, endpoint: int, length: int) -> tuple[int, bytes | memoryview] | None:
        """One transfer of up to `length` bytes: (status, data); None: NAK, ask again later."""
        device, usb = self.device, self.device.firmware.usb
        if endpoint | 0x80 != ENDPOINT_IN or not usb.alternate:
            return EPROTO, b""  # nobody answers at that address
        if device.stalls_left and not usb.halted:
            device.stalls_left -= 1
            usb.halted = True
        if usb.halted:
            return EPIPE, b""
        if self._due is None and not self._zlp_due:
            block = device.take()
            if block is None:
                return None
            if device.babbles_left:
                device.babbles_left -= 1
                return EOVERFLOW, block[:length]
            if len(block) < length:
                return 0, block  # the usual case: one block, one transfer, ended by a short packet
            self._due = memoryview(block)
        if self._due is None:
            self._zlp_due = False
            return 0, b""
        return self._cut(self._due, length)

    def _cut(self, due: memoryview, length: int) -> tuple[int, memoryview]:
        packet = 512 if self.device.firmware.descriptors.high_speed else 64
        if length >= len(due):
            self._due = None
            self._zlp_due = len(due) == length and length % packet == 0
            return 0, due
        whole = length - length % packet
        self._due = due[whole:]
        return (EOVERFLOW if whole < length else 0), due[:whole]
