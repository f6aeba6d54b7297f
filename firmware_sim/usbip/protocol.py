"""USB/IP 1.1.1 on the wire, the part a server needs.  Everything is big-endian but the setup packet.

Source: Documentation/usb/usbip_protocol.rst of the Linux kernel.
"""

from __future__ import annotations

import struct

VERSION = 0x0111
OP_REQ_DEVLIST, OP_REP_DEVLIST, OP_REQ_IMPORT, OP_REP_IMPORT = 0x8005, 0x0005, 0x8003, 0x0003
CMD_SUBMIT, CMD_UNLINK, RET_SUBMIT, RET_UNLINK = 1, 2, 3, 4
FULL, HIGH = 2, 3  # speeds, as enum usb_device_speed
ST_OK, ST_NA, ST_BUSY, ST_GONE = 0, 1, 2, 4

OP = struct.Struct(">HHI")  # version, code, status
RECORD = struct.Struct(">256s32sIIIHHHBBBBBB")
# command, seqnum, devid, direction (1 IN), ep, flags | unlinked seqnum, length, start, packets, interval, setup
HEADER = struct.Struct(">IIIIIIiiii8s")
_SUBMITTED = struct.Struct(">IIIIIiiiii8x")
_UNLINKED = struct.Struct(">IIIIIi24x")
BUSID_BYTES = 32

EPIPE, EPROTO, EOVERFLOW, ECONNRESET, ESHUTDOWN = -32, -71, -75, -104, -108


def submitted(seq: int, status: int, actual: int) -> bytes:
    """RET_SUBMIT; for IN, `actual` bytes follow whatever the status."""
    return _SUBMITTED.pack(RET_SUBMIT, seq, 0, 0, 0, status, actual, 0, 0, 0)


def unlinked(seq: int, status: int) -> bytes:
    """RET_UNLINK: ECONNRESET when the URB was cancelled (it gets no RET_SUBMIT), 0 when it had completed."""
    return _UNLINKED.pack(RET_UNLINK, seq, 0, 0, 0, status)
