"""Runs a test's body in a child process whose libusb finds the simulated unit (the shim must be loaded at start)."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firmware_sim.launch import Simulator
from ionmd.drivers.base import DeviceConfig, OutputConfig
from ionmd.drivers.ionm1 import Ionm1
from ionmd.errors import DeviceGone
from ionmd.model import Block, Gap, Mark

ROOT = Path(__file__).parents[1]
LIMIT_S = 20.0  # wall time after which a body that waits for the device has failed
OUTPUTS = (*(OutputConfig(1) for _ in range(4)), OutputConfig(2), OutputConfig(3, hand_held=True))


class Rig:
    """One driver and what came out of it."""

    def __init__(self, inputs: int = 8, rate_hz: int = 10_000, block_samples: int = 20) -> None:
        self.config = DeviceConfig(inputs, rate_hz, block_samples, OUTPUTS)
        self.amp = Ionm1(self.config)
        self.block = Block(max(1, rate_hz // 200), inputs, float(rate_hz))
        self.first: int | None = None
        self.next = 0
        self.samples = self.lost = 0
        self.gaps: list[tuple[int, int, Gap]] = []
        self.marks: list[Mark] = []
        self.beats = 0

    def start(self, serial: str | None = "SIM-0001") -> Rig:
        """As the engine does: look for the unit until it is there."""
        boot = self.amp.status().boot_id
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                if self.amp.open(serial).boot_id != boot:
                    self.next = 0  # the host has processed nothing of a counter that begins anew
                break
            except DeviceGone:
                self.amp.close()
                if time.monotonic() > deadline:
                    raise
                select.select([], [], [], 0.05)
        self.amp.start()
        self.beat()
        return self

    def beat(self) -> None:
        self.beats += 1
        stimulator = self.amp.stimulator()
        if stimulator is not None:
            with contextlib.suppress(DeviceGone):  # read_into tells, after the last sample
                stimulator.heartbeat(self.beats, self.next, 0)

    def step(self) -> bool:
        """One block if it is complete; every sample is accounted for."""
        if not self.amp.read_into(self.block):
            return False
        b = self.block
        if self.first is None:
            self.first = self.next = b.first
        assert b.first == self.next + b.lost or b.gap & Gap.SESSION
        if b.gap & ~Gap.CLIPPED:
            self.gaps.append((b.first, b.lost, b.gap))
        before, self.next = self.next, b.first + b.n
        self.samples += b.n
        self.lost += b.lost
        self.marks += b.marks
        b.clear()
        if before * 10 // self.config.rate_hz != self.next * 10 // self.config.rate_hz:
            self.beat()
        return True

    def run(self, samples: int = 0, until: Callable[[], bool] | None = None) -> Rig:
        """Until so many more have come, or `until` holds."""
        end = self.samples + samples
        deadline = time.monotonic() + LIMIT_S
        while not (until() if until else self.samples >= end):
            if not self.step():
                select.select([self.amp.fileno()], [], [], 0.1)
                if time.monotonic() > deadline:
                    raise AssertionError(f"{self.samples} samples, {self.amp.stats()}, {self.amp.status()}")
        return self

    def run_until_gone(self) -> DeviceGone:
        try:
            self.run(until=lambda: False)
        except DeviceGone as gone:
            return gone
        raise AssertionError("unreachable")


def inject(kind: str, at: int | None = None, **params: object) -> dict[str, object]:
    """A fault by the simulator's control socket, from the child."""
    return _ask({"inject": {"kind": kind, "at": at, **params}})


def device_state() -> dict[str, object]:
    return _ask({"state": True})


def _ask(what: dict[str, object]) -> dict[str, object]:
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(str(Path(os.environ["USBSHIM_SOCK"]).with_name("control")))
        s.sendall(json.dumps(what).encode() + b"\n")
        reply = json.loads(s.makefile("rb").readline())
    assert reply.pop("ok"), reply
    return dict(reply)


@pytest.fixture(scope="module")
def usb_unit() -> Iterator[Simulator]:
    """One simulator for the module's tests of the usual shape; its counter goes on from test to test."""
    with Simulator(speed="max", inputs=8, rate_hz=10_000, block_samples=20, seed=1) as sim:
        yield sim


def over_usb(**options: object) -> Callable[[Callable[[], None]], Callable[..., None]]:
    """Marks a function without arguments as a test over the real libusb; `options`: a simulator of its own."""

    def wrap(body: Callable[[], None]) -> Callable[..., None]:
        def run(sim: Simulator) -> None:
            command = f"import {body.__module__} as m; m.{body.__name__}.body()"
            done = subprocess.run([sys.executable, "-c", command], env=sim.env(), cwd=ROOT, capture_output=True,
                                  text=True, timeout=60, check=False)  # fmt: skip
            if done.returncode:
                pytest.fail(f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}", pytrace=False)

        def shared(usb_unit: Simulator) -> None:
            usb_unit.inject("clear")
            usb_unit.inject("replug", serial="SIM-0001")
            run(usb_unit)

        def own() -> None:
            shape = {"speed": "max", "inputs": 8, "rate_hz": 10_000, "block_samples": 20, "seed": 1} | options
            with Simulator(**shape) as sim:
                run(sim)

        test = own if options else shared
        test.__name__, test.__qualname__, test.__module__ = body.__name__, body.__name__, body.__module__
        test.body = body  # type: ignore[attr-defined]
        return pytest.mark.usb(test)

    return wrap
