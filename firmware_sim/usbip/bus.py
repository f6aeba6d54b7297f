"""A port of the virtual bus: one unit, its address, its files, and whoever is attached to it.

In: the device's cable state.  Out: an address that grows with each plug, the sysfs tree, an ended session on unplug.
Always: the tree shows a device only while it can be imported: a host that has just lost it does not find it again.
"""

from __future__ import annotations

import itertools
import socket
import time
from typing import Any

from firmware_sim.descriptors import PRODUCT_ID, VENDOR_ID
from firmware_sim.device import SimDevice
from firmware_sim.shim.tree import Tree
from firmware_sim.usbip import protocol as p
from firmware_sim.usbip.function import UsbFunction
from firmware_sim.usbip.session import Session

_BUS = 1


class Port:
    """`busid` ("1-1") and the unit plugged into it."""

    _addresses = itertools.cycle(range(2, 128))  # a new one with each plug, as a host hands them out

    def __init__(self, busid: str, device: SimDevice, tree: Tree | None = None) -> None:
        if not busid or len(busid) >= p.BUSID_BYTES:
            raise ValueError(f"bus id {busid!r}: expected up to 31 characters such as 1-1")
        self.busid = busid
        self.device = device
        self.function = UsbFunction(device)
        self.tree = tree
        self.session: Session | None = None
        self.address = 0
        self._plug()

    @property
    def visible(self) -> bool:
        return self.address != 0

    def _plug(self) -> None:
        self.address = next(self._addresses)
        self._open_errno = 0
        if self.tree:
            self.tree.plug(self.busid, self.address, self.device.firmware.descriptors)

    def record(self) -> bytes:
        """The device as OP_REP_DEVLIST and OP_REP_IMPORT describe it."""
        unit, path = self.device.firmware, f"/sys/devices/sim/usb{_BUS}/{self.busid}"
        says = unit.descriptors
        return p.RECORD.pack(
            path.encode(), self.busid.encode(), _BUS, self.address, p.HIGH if says.high_speed else p.FULL, VENDOR_ID,
            PRODUCT_ID, says.firmware_bcd, 0, 0, 0, unit.usb.configuration, 1, says.interfaces,
        )  # fmt: skip

    def interfaces(self) -> bytes:
        return b"\xff\x00\x00\x00" * self.device.firmware.descriptors.interfaces

    def attach(self, sock: socket.socket) -> Session:
        """A host has imported the device: it enumerates it from the default state."""
        self.function.reset()
        self.session = Session(sock, self.function)
        return self.session

    def detach(self) -> None:
        """The host is gone: for the device that is a lost cable."""
        if self.session:
            self.session.close()
            self.session = None
            self.function.reset()

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until `turn` has something to do; None: not before the host does something."""
        waits = [self.device.wait_s(now_s)] + ([self.session.wait_s(now_s)] if self.session else [])
        due = [w for w in waits if w is not None]
        return min(due) if due else None

    def inject(self, **fault: Any) -> None:
        """As of SimDevice.inject; a refused open is in the tree when this returns, so that nobody can be quicker."""
        self.device.inject(**fault)
        self._follow_permission()

    def _follow_permission(self) -> None:
        if self.device.open_errno != self._open_errno:
            self._open_errno = self.device.open_errno
            if self.tree:
                self.tree.deny(self.busid, self._open_errno)

    def turn(self) -> None:
        """Let time pass on the device, follow its cable, answer the host."""
        device = self.device
        device.advance(time.monotonic())
        if self.visible and not device.plugged:
            self.address = 0
            if self.tree:
                self.tree.unplug(self.busid)
            if self.session:
                self.session.pull(device.last_gasp)
                self.session = None
            self.function.reset()
        elif not self.visible and device.plugged:
            self._plug()
        self._follow_permission()
        if self.session:
            self.session.pump(time.monotonic())
            if self.session.closed:
                self.detach()
