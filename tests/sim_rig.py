"""A simulated unit in this process, driven by hand: EP0 requests, heartbeats, virtual time."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from firmware_sim.core import Firmware
from firmware_sim.device import SimDevice
from firmware_sim.unit import build
from firmware_sim.usbip.function import UsbFunction

EP = 0x81


def setup(kind: int, request: int, value: int = 0, index: int = 0, length: int = 0) -> bytes:
    return struct.pack("<BBHHH", kind, request, value, index, length)


class Ramp:
    """Input 0 counts the patient's samples, so that any loss shows; nothing else happens.  Costs nothing to set up."""

    def configure(self, inputs: int, rate_hz: float, lsb_uv: float) -> None:
        pass

    def load(self, output: int, sample: int) -> tuple[float, float]:
        return 1000.0, 1.0

    def load_changes(self, first: int, n: int) -> list[int]:
        return []

    def render(self, first: int, n: int, pulses: Any, out: Any) -> None:
        out[:] = 0
        out[:, 0] = np.arange(first, first + n) & 0x7FFFFF

    def aux(self, first: int, n: int) -> list[Any]:
        return []

    def impedance(self, number: int, sample: int) -> float:
        return 2000.0

    def device_faults(self, first: int, n: int) -> list[Any]:
        return []


def set_config(inputs: int, rate_hz: int, block_samples: int) -> tuple[bytes, bytes]:
    body = struct.pack("<HHIHHB3x", 1, 20, rate_hz, inputs, block_samples, 0)
    body += struct.pack("<I", zlib.crc32(body))
    return setup(0x40, 0x11, 0, 0, len(body)), body


@dataclass
class Header:
    seq: int
    first: int
    samples: int
    dropped: int
    boot_id: int
    good: bool


def header(block: bytes | memoryview) -> Header:
    raw = bytes(block)
    seq, first, inputs, samples = *struct.unpack_from("<I4xQ", raw, 8), *struct.unpack_from("<HH", raw, 32)
    end = 64 + inputs * samples * 3 + struct.unpack_from("<H", raw, 44)[0] * 32
    good = len(raw) >= end + 4 and zlib.crc32(raw[:end]) == struct.unpack_from("<I", raw, end)[0]
    return Header(seq, first, samples, *struct.unpack_from("<I4xI", raw, 40), good)


class Rig:
    """One unit of 8 inputs x 10 kHz in blocks of 20 (548 bytes), configured, alternate 1, clock at `now_s`."""

    def __init__(self, speed: Any = "max", scenario: Any = None, inputs: int = 8, rate_hz: int = 10_000,
                 block_samples: int = 20, ppm: float = 0.0) -> None:  # fmt: skip
        if scenario is None:
            firmware = Firmware(seed=1)
            firmware.control(*set_config(inputs, rate_hz, block_samples))
            self.device = SimDevice(firmware, Ramp(), speed, ppm, seed=1)
        else:
            self.device = build(scenario, speed, 1, None, inputs, rate_hz, block_samples, ppm)
        self.function = UsbFunction(self.device)
        self.now_s = 100.0
        self.beats = 0
        self.open()

    def open(self) -> None:
        assert self.control(setup(0x00, 9, 1))[0] == 0
        assert self.control(setup(0x01, 11, 1))[0] == 0

    def control(self, packet: bytes, data: bytes = b"") -> tuple[int, bytes]:
        reply = self.function.control(packet, data)
        return reply.status, bytes(reply.data)

    def stream(self, session: int = 7) -> None:
        assert self.control(setup(0x41, 0x10, 1, 0, 4), struct.pack("<I", session))[0] == 0

    def beat(self, processed: int) -> None:
        self.beats += 1
        body = struct.pack("<IIQI", self.beats, 0, processed, self.device.firmware.boot_id)
        assert self.control(setup(0x41, 0x40, 0, 1, 24), body + struct.pack("<I", zlib.crc32(body)))[0] == 0

    def turn(self, seconds: float = 0.0) -> None:
        """Let monotonic time pass, in steps small enough that nothing is late."""
        until = self.now_s + seconds
        while True:
            self.device.advance(self.now_s)
            while self.device.wait_s(self.now_s) == 0.0:
                self.device.advance(self.now_s)
            if self.now_s >= until:
                return
            self.now_s = min(until, self.now_s + 0.005)

    def read(self, length: int = 16384) -> tuple[int, bytes] | None:
        got = self.function.bulk_in(EP, length)
        return None if got is None else (got[0], bytes(got[1]))

    def drain(self) -> list[Header]:
        """Every block that the endpoint gives now."""
        out = []
        while (got := self.read()) is not None and got[0] == 0:
            out.append(header(got[1]))
        return out

    def counts(self, count: int) -> npt.NDArray[np.int32]:
        """int32[sample, input] of the next whole blocks with at least `count` samples, with heartbeats."""
        inputs = self.device.firmware.config.inputs
        rows: list[npt.NDArray[np.int32]] = []
        for _ in range(1000):
            self.turn(0.01)
            while (got := self.read()) is not None and got[0] == 0:
                head = header(got[1])
                raw = np.frombuffer(got[1], np.uint8, head.samples * inputs * 3, 64).reshape(-1, inputs, 3)
                wide = raw.astype(np.int32) @ np.array([1 << 8, 1 << 16, 1 << 24], np.int32)
                rows.append(wide >> 8)
                self.beat(head.first + head.samples)
            if sum(map(len, rows)) >= count:
                return np.concatenate(rows)
        raise AssertionError(f"{sum(map(len, rows))} samples came, {count} were expected")

    def samples(self, count: int) -> list[Header]:
        """Stream on, at any speed, until `count` more samples have been read, with heartbeats."""
        out: list[Header] = []
        for _ in range(1000):
            self.turn(0.01)
            new = self.drain()
            out += new
            if new:
                self.beat(max(h.first + h.samples for h in new))
            if sum(h.samples for h in out) >= count:
                return out
        raise AssertionError(f"{sum(h.samples for h in out)} samples came, {count} were expected")
