"""A SimDevice as USB sees it: descriptors, standard requests, alternates, halts, short packets, babble.

In: SETUP packets and bulk IN transfers of any length.  Out: replies and bytes, as a host controller would see them.
Always: a transfer ends when it is full or at a short packet; a halted endpoint stays halted until CLEAR_FEATURE;
whatever stops the stream on the bus reaches the firmware as a bus reset.
"""

from __future__ import annotations

import struct

from firmware_sim.device import Reply, SimDevice
from firmware_sim.usbip import descriptors
from firmware_sim.usbip.protocol import EOVERFLOW, EPIPE, EPROTO

_SETUP = struct.Struct("<BBHHH")
_STALL = Reply(EPIPE)
_DONE = Reply(0)
_PORT_RESET = (0x23, 0x03, 4)  # how USB/IP carries a bus reset: SetPortFeature(PORT_RESET)


class UsbFunction:
    """The device side of the bus for one unit."""

    def __init__(self, device: SimDevice, presence: descriptors.Presence | None = None) -> None:
        self.device = device
        self._shape = presence or descriptors.Presence(device.serial)
        self.configuration = 0
        self.alternate = [0, 0]
        self._halted = False
        self._due: memoryview | None = None  # what is left of a block that a transfer cut
        self._zlp_due = False

    @property
    def presence(self) -> descriptors.Presence:
        """Descriptors' content with the serial number of the unit that is plugged in now."""
        s = self._shape
        return descriptors.Presence(
            self.device.serial, s.firmware_bcd, s.stimulator, s.speed, s.manufacturer, s.product
        )  # fmt: skip

    def reset(self) -> None:
        """Bus reset or a new plug: default state."""
        self.configuration = 0
        self._quiet()

    def _quiet(self) -> None:
        self.alternate = [0, 0]
        self._halted = self._zlp_due = False
        self._due = None
        self.device.set_alternate(0)
        self.device.bus_reset()

    # ------------------------------------------------------------------ EP0

    def control(self, setup: bytes, data: bytes) -> Reply:
        """One control transfer; the reply is already cut to wLength."""
        kind, request, value, index, length = _SETUP.unpack(setup)
        if (kind, request, value) == _PORT_RESET:
            self.reset()
            return _DONE
        if kind & 0x60 == 0:
            reply = self._standard(kind, request, value, index)
        elif (kind, request, index) == (0xC0, descriptors.MS_VENDOR_CODE, 7):
            reply = Reply(0, descriptors.ms_os_20(self.presence))
        elif kind & 0x60 == 0x40:
            reply = self.device.request(setup, data)
            if request == 0x10 and reply.status == 0:
                self._due, self._zlp_due = None, False
        else:
            reply = _STALL
        if len(reply.data) > length:
            reply = Reply(reply.status, reply.data[:length], reply.delay_s, reply.lost)
        return reply

    def _standard(self, kind: int, request: int, value: int, index: int) -> Reply:
        match kind, request:
            case 0x80, 0x06:
                found = descriptors.get(self.presence, value >> 8, value & 0xFF)
                return _STALL if found is None else Reply(0, found)
            case 0x00, 0x05:  # SET_ADDRESS: vhci keeps it to itself, others may send it
                return _DONE
            case 0x80, 0x08:
                return Reply(0, bytes([self.configuration]))
            case 0x00, 0x09 if value in (0, 1):
                self.configuration = value
                self._quiet()
                return _DONE
            case 0x81, 0x0A if self._has_interface(index):
                return Reply(0, bytes([self.alternate[index]]))
            case 0x01, 0x0B if self._has_interface(index) and value <= (1 if index == 0 else 0):
                self._quiet()
                self.alternate[index] = value
                if index == 0:
                    self.device.set_alternate(value)
                return _DONE
            case 0x80, 0x00:
                return Reply(0, b"\x01\x00")  # self powered
            case 0x81, 0x00 if self._has_interface(index):
                return Reply(0, b"\x00\x00")
            case 0x82, 0x00 if self._has_endpoint(index):
                return Reply(0, bytes([self._halted, 0]))
            case 0x02, 0x01 if value == 0 and self._has_endpoint(index):
                self._halted = False
                return _DONE
            case 0x02, 0x03 if value == 0 and self._has_endpoint(index):
                self._halted = True
                return _DONE
        return _STALL

    def _has_interface(self, number: int) -> bool:
        return bool(self.configuration) and number < self._shape.interfaces

    def _has_endpoint(self, address: int) -> bool:
        return bool(self.configuration) and address == descriptors.BULK_IN and self.alternate[0] == 1

    # ------------------------------------------------------------------ bulk IN

    def bulk_in(self, endpoint: int, length: int) -> tuple[int, bytes | memoryview] | None:
        """One transfer of up to `length` bytes: (status, data); None: NAK, ask again later."""
        if not self._has_endpoint(endpoint | 0x80):
            return EPROTO, b""  # nobody answers at that address
        if self.device.stalls_left and not self._halted:
            self.device.stalls_left -= 1
            self._halted = True
        if self._halted:
            return EPIPE, b""
        if self._due is None and not self._zlp_due:
            block = self.device.take()
            if block is None:
                return None
            if len(block) < length:
                return 0, block  # the usual case: one block, one transfer, ended by a short packet
            self._due = memoryview(block)
        if self._due is None:
            self._zlp_due = False
            return 0, b""
        return self._cut(length)

    def _cut(self, length: int) -> tuple[int, memoryview]:
        assert self._due is not None  # noqa: S101
        packet = self._shape.max_packet
        if length >= len(self._due):
            data, self._due = self._due, None
            self._zlp_due = len(data) == length and length % packet == 0
            return 0, data
        whole = length - length % packet
        data, self._due = self._due[:whole], self._due[whole:]
        # The next packet does not fit into what is left of the buffer.  It was not acknowledged, so it comes again.
        return (EOVERFLOW if whole < length else 0), data
