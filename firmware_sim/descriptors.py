"""USB descriptors of the reference device (docs/wire/ionm1.md section 1), as bytes.

In: serial number, firmware version, speed, whether there is a stimulator.  Out: what GET_DESCRIPTOR and the
MS OS 2.0 vendor request return.  Written from the USB 2.0 specification chapter 9 and Microsoft's OS 2.0
descriptors specification; usbip/ and shim/ take the same bytes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

VENDOR_ID, PRODUCT_ID = 0x1209, 0x0001
ENDPOINT_IN = 0x81
MS_OS_VENDOR_CODE = 0x20
MS_OS_INDEX = 7
WINDOWS_8_1 = 0x06030000

DEVICE, CONFIGURATION, STRING, INTERFACE, ENDPOINT, QUALIFIER, OTHER_SPEED, BOS = 1, 2, 3, 4, 5, 6, 7, 15
GUIDS = ("{3B0A2C52-6E0F-4C3E-9D0B-1C5C2F5A7D01}", "{3B0A2C52-6E0F-4C3E-9D0B-1C5C2F5A7D02}")
PLATFORM_UUID = bytes.fromhex("df60ddd88945c74c9cd2659d9e648a9f")  # D8DD60DF-4589-4CC7-9CD2-659D9E648A9F


@dataclass(frozen=True)
class Descriptors:
    """The descriptors of one unit."""

    serial: str
    firmware_bcd: int = 0x0100
    high_speed: bool = True
    stimulator: bool = True
    manufacturer: str = "ionmd"
    product: str = "ionm1 amplifier and stimulator"

    def device(self) -> bytes:
        return struct.pack(
            "<BBHBBBBHHHBBBB", 18, DEVICE, 0x0210, 0, 0, 0, 64, VENDOR_ID, PRODUCT_ID, self.firmware_bcd, 1, 2, 3, 1
        )

    def qualifier(self) -> bytes:
        return struct.pack("<BBHBBBBBB", 10, QUALIFIER, 0x0210, 0, 0, 0, 64, 1, 0)

    def configuration(self, other_speed: bool = False) -> bytes:
        high = self.high_speed != other_speed
        body = _interface(0, 0, 0) + _interface(0, 1, 1)
        body += struct.pack("<BBBBHB", 7, ENDPOINT, ENDPOINT_IN, 2, 512 if high else 64, 0)
        if self.stimulator:
            body += _interface(1, 0, 0)
        kind = OTHER_SPEED if other_speed else CONFIGURATION
        return struct.pack("<BBHBBBBB", 9, kind, 9 + len(body), self.interfaces, 1, 0, 0xC0, 50) + body

    @property
    def interfaces(self) -> int:
        return 2 if self.stimulator else 1

    def string(self, index: int) -> bytes | None:
        if index == 0:
            return struct.pack("<BBH", 4, STRING, 0x0409)
        texts = (self.manufacturer, self.product, self.serial)
        if not 1 <= index <= len(texts):
            return None
        raw = texts[index - 1].encode("utf-16-le")[:252]
        return struct.pack("<BB", 2 + len(raw), STRING) + raw

    def bos(self) -> bytes:
        capability = struct.pack(
            "<BBBB16sIHBB", 28, 16, 5, 0, PLATFORM_UUID, WINDOWS_8_1, len(self.ms_os_20()), MS_OS_VENDOR_CODE, 0
        )
        return struct.pack("<BBHB", 5, BOS, 5 + len(capability), 1) + capability

    def ms_os_20(self) -> bytes:
        """Each interface is a function of its own and gets WinUSB."""
        functions = b"".join(_function(i) for i in range(self.interfaces))
        subset = struct.pack("<HHBBH", 8, 1, 0, 0, 8 + len(functions)) + functions
        return struct.pack("<HHIH", 10, 0, WINDOWS_8_1, 10 + len(subset)) + subset

    def get(self, kind: int, index: int) -> bytes | None:
        """What GET_DESCRIPTOR returns, or None for STALL."""
        if kind == STRING:
            return self.string(index)
        if index != 0:
            return None
        match kind:
            case 1:
                return self.device()
            case 2:
                return self.configuration()
            case 6:
                return self.qualifier()
            case 7:
                return self.configuration(other_speed=True)
            case 15:
                return self.bos()
        return None


def _interface(number: int, alternate: int, endpoints: int) -> bytes:
    return struct.pack("<BBBBBBBBB", 9, INTERFACE, number, alternate, endpoints, 0xFF, 0, 0, 0)


def _function(interface: int) -> bytes:
    compatible = struct.pack("<HH8s8s", 20, 3, b"WINUSB", b"")
    name = "DeviceInterfaceGUIDs\0".encode("utf-16-le")
    data = (GUIDS[interface] + "\0\0").encode("utf-16-le")
    length = 10 + len(name) + len(data)
    prop = struct.pack("<HHHH", length, 4, 7, len(name)) + name + struct.pack("<H", len(data)) + data
    return struct.pack("<HHBBH", 8, 2, interface, 0, 8 + len(compatible) + len(prop)) + compatible + prop
