"""A host of its own: stock pyusb and the real libusb in a child process, over the shim.

`run(sim, source)` executes `source` after the prelude below and returns what it gave to `answer(...)`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from typing import Any

from firmware_sim.launch import Simulator

PRELUDE = '''
import array, json, struct, sys, zlib
import libusb_package, usb.core, usb.util
import usb.backend.libusb1 as libusb1

def answer(**facts):
    print(json.dumps(facts))

contexts = []  # a libusb context must outlive its devices, which pyusb does not see to

def backend():
    """A fresh libusb context: without udev the list of devices is read once a context."""
    libusb1.get_backend(find_library=lambda _: libusb_package.get_library_path())
    contexts.append(libusb1._LibUSB(libusb1._lib))
    return contexts[-1]

def find():
    return usb.core.find(idVendor=0x1209, idProduct=0x0001, backend=backend())

def errno_of(action, *arguments):
    try:
        action(*arguments)
    except usb.core.USBError as e:
        return e.errno
    return 0

class Amp:
    def __init__(self, device=None):
        self.device = device or find()
        usb.util.claim_interface(self.device, 0)
        usb.util.claim_interface(self.device, 1)
        self.device.set_interface_altsetting(0, 1)
        self.buffer = array.array("B", bytes(65536))
        self.boot_id = struct.unpack_from("<I", self.device.ctrl_transfer(0xC0, 0x01, 0, 0, 64), 4)[0]
        self.beats = struct.unpack_from("<I", self.device.ctrl_transfer(0xC0, 0x02, 0, 0, 48), 28)[0]
        self.beaten = 0

    def stream(self, session=7):
        self.device.ctrl_transfer(0x41, 0x10, 1, 0, struct.pack("<I", session))

    def stop(self):
        self.device.ctrl_transfer(0x41, 0x10, 0, 0)

    def beat(self, processed):
        self.beats += 1
        body = struct.pack("<IIQI", self.beats, 0, processed, self.boot_id)
        self.device.ctrl_transfer(0x41, 0x40, 0, 1, body + struct.pack("<I", zlib.crc32(body)))

    def block(self, timeout=2000):
        """(seq, first, samples, crc good, length) of the next transfer; a heartbeat per 50 ms of samples."""
        n = self.device.read(0x81, self.buffer, timeout)
        raw = self.buffer[:n].tobytes()
        seq, = struct.unpack_from("<I", raw, 8)
        first, = struct.unpack_from("<Q", raw, 16)
        samples, = struct.unpack_from("<H", raw, 34)
        end = 64 + samples * struct.unpack_from("<H", raw, 32)[0] * 3 + struct.unpack_from("<H", raw, 44)[0] * 32
        good = end + 4 <= n and zlib.crc32(raw[:end]) == struct.unpack_from("<I", raw, end)[0]
        if first + samples >= self.beaten + 500 or first < self.beaten:
            self.beaten = first + samples
            self.beat(self.beaten)
        return seq, first, samples, good, n

    def blocks(self, count):
        return [self.block() for _ in range(count)]
'''


def run(sim: Simulator, source: str, timeout_s: float = 20.0) -> dict[str, Any]:
    """What `source` answered.  Its own traceback is the failure message when it did not."""
    script = PRELUDE + textwrap.dedent(source)
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=sim.env(), capture_output=True, timeout=timeout_s, text=True)
    if done.returncode or not done.stdout.strip():
        raise AssertionError(f"the client ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))
