"""The simulated firmware and patient without USB: same requests, same bytes, same decoder.

For thousands of fast cases and for machines on which the USB path cannot run.  The device owns time: it advances when
`read_into` asks for samples, at most a window ahead of the last heartbeat, so results never depend on the host.  With
`pace` it follows the wall clock instead, and a host that does not keep up loses samples, as with a real unit.
"""

from __future__ import annotations

import random
import struct
import threading
import time
from pathlib import Path
from typing import Any

from ionmd.decode.ionm1 import Ionm1Decoder
from ionmd.drivers.base import Amplifier, DeviceConfig, Identity, ReadStats, Stimulator
from ionmd.drivers.ep0 import Ep0, Ep0Stimulator
from ionmd.drivers.streaming import stats_of, status_of
from ionmd.errors import DeviceError, DeviceGone
from ionmd.model import Block, DeviceStatus


class Demo(Amplifier, Ep0):
    name = "demo"

    def __init__(self, config: DeviceConfig | None = None, scenario: str | Path | Any = "quiet",
                 seed: int | None = None) -> None:
        self._config = config
        self._scenario, self._seed = scenario, seed
        self._device: Any = None
        self._identity: Identity | None = None
        self._decoder: Ionm1Decoder | None = None
        self._stimulator: Ep0Stimulator | None = None
        self._lsb: list[float] = []
        self._session = self._starts = 0
        self._lock = threading.Lock()  # the firmware runs without the GIL; requests come from the control thread
        self._streaming = False
        self._speed: float | None = None

    def pace(self, speed: float | None) -> None:
        self._speed = speed

    @property
    def device(self) -> Any:
        """The SimDevice, for whoever looks at it while nothing runs."""
        return self._device

    def inject(self, kind: str, at: int | None = None, **params: object) -> None:
        """Make something go wrong (docs/simulator.md), now or at a device sample."""
        with self._lock:
            self._device.inject(kind, at, **params)

    def open(self, serial: str | None = None) -> Identity:
        from firmware_sim.unit import build

        if self._device is None:
            config = self._config
            shape = {} if config is None else {
                "inputs": config.inputs, "rate_hz": config.rate_hz, "block_samples": config.block_samples,
            }
            self._device = build(self._scenario, "max" if self._speed is None else self._speed, self._seed, **shape)
        if self._speed is not None:
            self._device.advance(time.monotonic())
            if not self._device.plugged:
                raise DeviceGone("demo: the cable is out")
        found = str(self._device.firmware.serial)
        if serial is not None and serial != found:
            raise DeviceGone(f"demo: unit {serial} was expected, {found} is there")
        if self._config is None:
            firmware = self._device.firmware.config
            self._config = DeviceConfig(firmware.inputs, firmware.rate_hz, firmware.block_samples)
        else:
            self.configure(self._config)
        self._identity = self.identify(found, self._config)
        self._stimulator = Ep0Stimulator(self, self._identity.boot_id)
        lsb = [i.lsb_uv for i in self._identity.inputs]
        if self._decoder is None or self._lsb != lsb:
            self._decoder, self._lsb = Ionm1Decoder(lsb), lsb
        return self._identity

    def start(self) -> None:
        if self._decoder is None or self._identity is None:
            raise DeviceError("demo: start came before open")
        for kind, request, value in ((0x00, 9, 1), (0x01, 11, 1)):  # SET_CONFIGURATION 1, SET_INTERFACE alternate 1
            status, _ = self._device.firmware.control(struct.pack("<BBHHH", kind, request, value, 0, 0))
            if status < 0:
                raise DeviceError(f"demo: the firmware refused standard request {request}")
        # never the same twice in one boot, and the same in two runs of one seed
        self._session = random.Random(self._identity.boot_id ^ self._starts << 32).getrandbits(32)
        self._starts += 1
        self._decoder.begin(self._session, self._identity.boot_id)
        self.stream(True, self._session)
        self._streaming = True

    def read_into(self, block: Block, limit_sample: int | None = None) -> bool:
        if self._decoder is None or not self._streaming:
            raise DeviceGone("demo: not streaming")
        while True:
            if self._decoder.read_into(block, limit_sample):
                return True
            if self._pump():
                continue
            if self._device.plugged and self._device.firmware.streaming:
                return False  # it waits for a heartbeat
            if block.n:
                return True
            self._streaming = False  # whoever plugs it in again: the stream is over
            raise DeviceGone("demo: the cable was pulled")

    def _pump(self) -> bool:
        """Let the device run until it has a block for us; False when it waits for our heartbeat, or for the time."""
        assert self._decoder is not None  # noqa: S101 - read_into has checked it
        with self._lock:
            if self._speed is not None:
                self._device.advance(time.monotonic())
            if (transfer := self._device.take()) is None:  # one at a time: the ring never fills
                return self._speed is None and bool(self._device.step())
        self._decoder.feed(transfer)
        return True

    def stop(self) -> None:
        if self._streaming:
            self._streaming = False
            self.stream(False)

    def close(self) -> None:
        if self._stimulator is not None:
            self._stimulator.off()
        self._streaming = False
        self._stimulator = None

    def fileno(self) -> int:
        return -1

    def stats(self) -> ReadStats:
        if self._decoder is None:
            return ReadStats()
        return stats_of(self._decoder)

    def status(self) -> DeviceStatus:
        if self._identity is None or self._decoder is None:
            return DeviceStatus("absent", self.name)
        return status_of(
            self.name, self._identity, self._decoder, self._session, "streaming" if self._streaming else "connecting"
        )

    def stimulator(self) -> Stimulator | None:
        identity = self._identity
        return self._stimulator if identity is not None and identity.stimulator and identity.limit_table_ok else None

    # ------------------------------------------------------------ endpoint 0

    def transfer_in(self, request: int, value: int, length: int, interface: int | None) -> bytes | None:
        kind = 0xC0 if interface is None else 0xC1
        setup = struct.pack("<BBHHH", kind, request, value, interface or 0, length)
        with self._lock:
            status, data = self._device.control(setup)
        return bytes(data) if status >= 0 else None

    def transfer_out(self, request: int, value: int, data: bytes, interface: int | None) -> bool:
        kind = 0x40 if interface is None else 0x41
        setup = struct.pack("<BBHHH", kind, request, value, interface or 0, len(data))
        with self._lock:
            status, _ = self._device.control(setup, data)
        return bool(status >= 0)
