"""The part of /sys/bus/usb and /dev/bus/usb that libusb reads, as ordinary files below a directory.

In: plug and unplug of a bus id with its address and descriptors.  Out: files; paths.c redirects libusb to them.
Always: a device directory appears and disappears in one rename, so that a scan never sees half of one; the node
exists before the directory that leads to it.  A node holds the bus id, or `!13`: opening it fails with that errno.
"""

from __future__ import annotations

import contextlib
import shutil
import struct
from pathlib import Path

from firmware_sim.descriptors import Descriptors

_HUB_DEVICE = struct.pack("<BBHBBBBHHHBBBB", 18, 1, 0x0200, 9, 0, 1, 64, 0x1D6B, 0x0002, 0x0601, 0, 0, 0, 1)
_HUB_CONFIGURATION = bytes.fromhex("09021900010100e000" "090400000109000000" "0705810304000c")


class Tree:
    """`root`/sys/bus/usb/devices/* and `root`/dev/bus/usb/*/* of one bus."""

    def __init__(self, root: Path, bus: int = 1) -> None:
        self.root = root
        self.bus = bus
        self._devices = root / "sys/bus/usb/devices"
        self._nodes = root / f"dev/bus/usb/{bus:03d}"
        self._devices.mkdir(parents=True, exist_ok=True)
        self._nodes.mkdir(parents=True, exist_ok=True)
        self._addresses: dict[str, int] = {}
        self._write(f"usb{bus}", 1, 480, _HUB_DEVICE + _HUB_CONFIGURATION, {"product": "root hub"})
        self._node(1).write_text("!13\n")

    def plug(self, busid: str, address: int, says: Descriptors) -> None:
        """Show `busid` at `address`; replaces an earlier appearance."""
        self.unplug(busid)
        self._node(address).write_text(busid + "\n")
        self._addresses[busid] = address
        raw = says.device() + says.configuration()
        texts = {"serial": says.serial, "manufacturer": says.manufacturer, "product": says.product}
        self._write(busid, address, 480 if says.high_speed else 12, raw, texts)

    def unplug(self, busid: str) -> None:
        """Hide `busid`; nothing happens when it is not there."""
        address = self._addresses.pop(busid, None)
        if address is None:
            return
        gone = self._devices / f".{busid}.{address}.gone"
        with contextlib.suppress(FileNotFoundError):
            (self._devices / busid).rename(gone)
        self._node(address).unlink(missing_ok=True)
        shutil.rmtree(gone, ignore_errors=True)

    def deny(self, busid: str, errno: int) -> None:
        """Opening the node of `busid` fails with `errno` from now on; 0: it opens again."""
        if busid in self._addresses:
            self._node(self._addresses[busid]).write_text(f"!{errno}\n" if errno else busid + "\n")

    def _node(self, address: int) -> Path:
        return self._nodes / f"{address:03d}"

    def _write(self, name: str, address: int, mbps: int, raw: bytes, texts: dict[str, str]) -> None:
        _, _, bcd_usb, cls, sub, proto, packet, vid, pid, bcd, *_ = struct.unpack_from("<BBHBBBBHHHBBBB", raw)
        facts: dict[str, object] = {
            "busnum": self.bus, "devnum": address, "speed": mbps, "bConfigurationValue": 1, "bNumConfigurations": 1,
            "bNumInterfaces": raw[18 + 4], "idVendor": f"{vid:04x}", "idProduct": f"{pid:04x}",
            "bcdDevice": f"{bcd:04x}", "version": f"{bcd_usb >> 8:2d}.{bcd_usb & 255:02x}",
            "bDeviceClass": f"{cls:02x}", "bDeviceSubClass": f"{sub:02x}",
            "bDeviceProtocol": f"{proto:02x}", "bMaxPacketSize0": packet, "maxchild": 0, **texts,
        }  # fmt: skip
        draft = self._devices / f".{name}.new"
        shutil.rmtree(draft, ignore_errors=True)
        (draft / "power").mkdir(parents=True)
        (draft / "power/control").write_text("on\n")
        (draft / "descriptors").write_bytes(raw)
        for key, value in facts.items():
            (draft / key).write_text(f"{value}\n")
        draft.rename(self._devices / name)
