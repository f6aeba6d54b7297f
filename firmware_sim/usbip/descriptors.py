"""What the device says about itself on the bus, built from docs/wire/ionm1.md section 1.

In: a Presence (serial, firmware version, whether there is a stimulator, speed).  Out: the exact descriptor bytes.
Always: lengths inside a descriptor are computed from its parts, never written twice.
"""

from __future__ import annotations

import struct
import uuid
from dataclasses import dataclass

VENDOR_ID, PRODUCT_ID = 0x1209, 0x0001
MS_VENDOR_CODE = 0x20
FULL, HIGH = 2, 3  # USB/IP's and usbfs' words for the two speeds
BULK_IN = 0x81
MAX_PACKET = {HIGH: 512, FULL: 64}

_DEVICE, _CONFIGURATION, _STRING, _INTERFACE, _ENDPOINT, _QUALIFIER, _OTHER_SPEED, _BOS = 1, 2, 3, 4, 5, 6, 7, 15
_MS_PLATFORM = uuid.UUID("d8dd60df-4589-4cc7-9cd2-659d9e648a9f")
_GUIDS = (
    uuid.UUID("b0c2f6c4-7a1e-4d37-9a55-0c6f1d2a9e01"),  # interface 0, acquisition
    uuid.UUID("b0c2f6c4-7a1e-4d37-9a55-0c6f1d2a9e02"),  # interface 1, stimulator
)


@dataclass(frozen=True)
class Presence:
    """Everything of a unit that shows in its descriptors."""

    serial: str
    firmware_bcd: int = 0x0100
    stimulator: bool = True
    speed: int = HIGH
    manufacturer: str = "ionmd project"
    product: str = "ionm1 simulator"

    @property
    def interfaces(self) -> int:
        return 2 if self.stimulator else 1

    @property
    def max_packet(self) -> int:
        return MAX_PACKET[self.speed]


def device(p: Presence) -> bytes:
    return struct.pack(
        "<BBHBBBBHHHBBBB", 18, _DEVICE, 0x0210, 0, 0, 0, 64, VENDOR_ID, PRODUCT_ID, p.firmware_bcd, 1, 2, 3, 1
    )


def qualifier() -> bytes:
    return struct.pack("<BBHBBBBBB", 10, _QUALIFIER, 0x0210, 0, 0, 0, 64, 1, 0)


def _interface(number: int, alt: int, endpoints: bytes) -> bytes:
    return struct.pack("<9B", 9, _INTERFACE, number, alt, len(endpoints) // 7, 0xFF, 0, 0, 4 + number) + endpoints


def configuration(p: Presence, other_speed: bool = False) -> bytes:
    speed = p.speed if not other_speed else (FULL if p.speed == HIGH else HIGH)
    bulk = struct.pack("<BBBBHB", 7, _ENDPOINT, BULK_IN, 2, MAX_PACKET[speed], 0)
    body = _interface(0, 0, b"") + _interface(0, 1, bulk)
    if p.stimulator:
        body += _interface(1, 0, b"")
    kind = _OTHER_SPEED if other_speed else _CONFIGURATION
    return struct.pack("<BBHBBBBB", 9, kind, 9 + len(body), p.interfaces, 1, 0, 0xC0, 50) + body


def string(p: Presence, index: int) -> bytes | None:
    """String descriptor `index`, US English only; None where there is none."""
    if index == 0:
        return struct.pack("<BBH", 4, _STRING, 0x0409)
    texts = (p.manufacturer, p.product, p.serial, "acquisition", "stimulator")
    if not (1 <= index <= len(texts)):
        return None
    text = texts[index - 1].encode("utf-16-le")
    return bytes([len(text) + 2, _STRING]) + text


def bos(p: Presence) -> bytes:
    platform = _MS_PLATFORM.bytes_le + struct.pack("<IHBB", 0x06030000, len(ms_os_20(p)), MS_VENDOR_CODE, 0)
    capability = bytes([4 + len(platform), 16, 5, 0]) + platform
    return struct.pack("<BBHB", 5, _BOS, 5 + len(capability), 1) + capability


def ms_os_20(p: Presence) -> bytes:
    """The MS OS 2.0 descriptor set: WinUSB for each interface, each with its own GUID."""
    functions = b""
    for number in range(p.interfaces):
        name = "DeviceInterfaceGUIDs\0".encode("utf-16-le")
        value = f"{{{str(_GUIDS[number]).upper()}}}\0\0".encode("utf-16-le")
        registry = struct.pack("<HH", 7, len(name)) + name + struct.pack("<H", len(value)) + value
        features = struct.pack("<HH8s8s", 20, 3, b"WINUSB", b"") + struct.pack("<HH", 4 + len(registry), 4) + registry
        functions += struct.pack("<HHBBH", 8, 2, number, 0, 8 + len(features)) + features
    subset = struct.pack("<HHBBH", 8, 1, 0, 0, 8 + len(functions)) + functions
    return struct.pack("<HHIH", 10, 0, 0x06030000, 10 + len(subset)) + subset


def get(p: Presence, kind: int, index: int) -> bytes | None:
    """GET_DESCRIPTOR; None is a STALL."""
    if kind == _DEVICE:
        return device(p)
    if kind == _CONFIGURATION and index == 0:
        return configuration(p)
    if kind == _STRING:
        return string(p, index)
    if kind == _QUALIFIER:
        return qualifier()
    if kind == _OTHER_SPEED and index == 0:
        return configuration(p, other_speed=True)
    if kind == _BOS:
        return bos(p)
    return None
