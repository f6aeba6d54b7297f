"""A whole daemon with its socket, on the demo driver; the device goes on only as far as a test lets it.

Virtual time stands still at `sample` while a test talks, so what a request meets does not depend on the host: firmware,
patient, pipeline, record and socket are real, and a transcript is exact.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path
from typing import Any
from unittest import mock

import msgspec

from ionmd.client import Client
from ionmd.config import Config, Device
from ionmd.daemon import Daemon
from ionmd.drivers.demo import Demo
from ionmd.model import Block
from ionmd.service.bind import bind
from tests.service_rig import Raw

RATE = 10_000
SCENARIOS = Path(__file__).parent / "scenarios"


class _Gated(Demo):
    """Gives no sample beyond the gate."""

    is_open = staticmethod(lambda: True)

    def read_into(self, block: Block, limit_sample: int | None = None) -> bool:
        return self.is_open() and super().read_into(block, limit_sample)


class DaemonRig:
    """`with DaemonRig(tmp_path) as rig:`; the first block has come, virtual time stands."""

    def __init__(self, state_dir: Path, scenario: str = "socket", inputs: int = 20, seed: int = 1) -> None:
        config = msgspec.structs.replace(
            Config(), device=Device(driver="demo", inputs=inputs, rate_hz=RATE, block_samples=40)
        )
        self._gate = 0
        self._reached = threading.Event()
        self._demo: _Gated | None = None

        def make(wanted: Any) -> Demo:
            if self._demo is None:
                self._demo = _Gated(wanted, SCENARIOS / f"{scenario}.toml", seed)
                self._demo.is_open = lambda: self.sample < self._gate
            return self._demo

        self.daemon = Daemon(config, state_dir, speed=None, make_amplifier=make)
        self.daemon.pipeline.after.append(self._arrived)
        self.path = state_dir / "ionmd.sock"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._raws: list[Raw] = []

    @property
    def sample(self) -> int:
        """Where virtual time stands: the first case sample that was not processed."""
        return self.daemon.room.now

    def _arrived(self) -> None:
        if self.sample >= self._gate:
            self._reached.set()

    def to(self, sample: int) -> None:
        """Let the device go on to `sample` and wait until everything up to it is processed."""
        while self.daemon.control.backlog:  # requests reach the device before its time goes on
            self._reached.wait(0.001)
        self._reached.clear()
        self._gate = sample
        self.daemon.engine.wake()
        assert self._reached.wait(300), f"virtual time stands at {self.sample}, {sample} was expected"

    def seconds(self, seconds: float) -> None:
        """Go on by so much device time."""
        self.to(self.sample + round(seconds * RATE))

    def raw(self) -> Raw:
        raw = Raw(self.path)
        self._raws.append(raw)
        return raw

    def client(self) -> Client:
        return Client(self.path, timeout_s=30.0)

    def __enter__(self) -> DaemonRig:
        # host time passes while virtual time stands: what it limits has no place in these tests
        self._patches = contextlib.ExitStack()
        self._patches.enter_context(mock.patch("ionmd.stim.lease.LOST_AFTER_S", 1e9))
        self._patches.enter_context(mock.patch("ionmd.engine.NO_DATA_ALARM_MS", 1e9))
        self._bound = bind([self.path])
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.daemon.server.start(self._bound.socket), self._loop).result(5)
        self.daemon.start()
        self.to(100)
        return self

    def __exit__(self, *_: object) -> None:
        for raw in self._raws:
            raw.sock.close()
        self._gate = 0
        self.daemon.control.off()
        asyncio.run_coroutine_threadsafe(self.daemon.server.close(), self._loop).result(5)
        self.daemon.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()
        self._bound.close()
        self._patches.close()
