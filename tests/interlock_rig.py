"""A whole daemon in this process behind its real socket, on the simulated unit, which runs at the pace of the wall.

Roles and uids of a connection come from the test; everything else is what `ionmd run` uses.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ionmd.client import Client
from ionmd.config import Config, Device
from ionmd.daemon import Daemon
from ionmd.drivers.demo import Demo
from ionmd.errors import Refused
from ionmd.service import server as server_module
from ionmd.service.backend import Limits
from ionmd.service.bind import bind
from ionmd.service.roles import ALL_ROLES, Rights
from ionmd.service.server import Server

RATE = 10_000
EASY = Limits(connections=64, per_uid=64, requests_per_s=1e9, burst=10**9, stim_per_s=1e9)
PATIENCE_S = 20.0  # of a test that waits for an event; never a thing that is measured


class PacedDemo(Demo):
    """Device time is wall time, as of a unit on a table; `rush` lets it run as fast as it goes up to a sample."""

    anchor: tuple[float, int] | None = None
    rush = 0

    def _pump(self) -> bool:
        sample = int(self.device.firmware.sample)
        if self.anchor is None or sample < self.rush:
            self.anchor = (time.monotonic(), sample)
        elif sample > self.anchor[1] + (time.monotonic() - self.anchor[0]) * RATE:
            return False
        return super()._pump()


class StimRoom:
    """`with StimRoom(tmp_path, monkeypatch) as room:` a daemon with an open case and clients as many as wanted."""

    def __init__(self, directory: Path, patch: pytest.MonkeyPatch, scenario: str = "quiet", **changes: Any) -> None:
        config = msgspec.structs.replace(
            Config(), device=Device(driver="demo", inputs=8, rate_hz=RATE, block_samples=20), **changes
        )
        self.demo: PacedDemo | None = None
        self.requests: list[tuple[int, int, bytes]] = []  # what reached endpoint 0: request, value, data
        self.events: list[tuple[str, Any]] = []
        self._changed = threading.Condition()
        self.daemon = Daemon(config, directory / "state", speed=None, make_amplifier=self._make, on_event=self._event)
        self.daemon.server = Server(
            self.daemon, version="0", boot_id=self.daemon.boot_id, source="simulated", limits=EASY, groups=dict
        )
        self.lease_clock_s = 100.0
        self.daemon.room.clock_s = lambda: self.lease_clock_s
        self.path = directory / "s"
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._clients: list[Client] = []
        self._next: tuple[frozenset[str], int | None] = (ALL_ROLES, None)
        patch.setattr(server_module, "rights_of", self._rights)
        self._peer_of = server_module.peer_of
        patch.setattr(server_module, "peer_of", self._peer)

    def _make(self, wanted: Any) -> Demo:
        if self.demo is None:
            self.demo = PacedDemo(wanted, "quiet", 1)
            out, transfer = self.requests, self.demo.transfer_out

            def spy(request: int, value: int, data: bytes, interface: int | None) -> bool:
                if request != 0x40:
                    out.append((request, value, data))
                return transfer(request, value, data, interface)

            self.demo.transfer_out = spy  # type: ignore[method-assign]
        return self.demo

    def _event(self, topic: str, data: Any, sample: int, n: int | None) -> None:
        with self._changed:
            self.events.append((topic, data))
            self._changed.notify_all()

    def _peer(self, sock: Any) -> Any:
        roles, uid = self._next
        peer = self._peer_of(sock)
        return replace(peer, uid=peer.uid if uid is None else uid, groups=roles)

    def _rights(self, peer: Any, *_: object) -> Rights:
        return Rights(frozenset(peer.groups))

    # ------------------------------------------------------------ life

    def __enter__(self) -> StimRoom:
        self._bound = bind([self.path])
        self.daemon.start()
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.daemon.server.start(self._bound.socket), self._loop).result(10)
        self.wait(lambda: self.daemon.room.device.state == "streaming" and self.daemon.room.now > 0)
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
        asyncio.run_coroutine_threadsafe(self.daemon.server.close(), self._loop).result(10)
        self.daemon.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
        self._bound.close()

    # ------------------------------------------------------------ people

    def client(self, roles: frozenset[str] | set[str] = ALL_ROLES, uid: int | None = None) -> Client:
        self._next = (frozenset(roles), uid)
        client = Client(self.path, timeout_s=PATIENCE_S)
        self._clients.append(client)
        return client

    def technologist(self) -> tuple[Client, str]:
        """Signed in, with an open case and the lease."""
        client = self.client()
        client.call("person.sign_in", name="Kim", credential="CNIM")
        client.call("case.open", case_id="case-1", template="cervical")
        return client, client.call("stim.acquire")["lease"]

    # ------------------------------------------------------------ what happened

    def wait(self, condition: Callable[[], Any]) -> Any:
        """Until `condition` holds; looks again at every event."""
        until = time.monotonic() + PATIENCE_S
        with self._changed:
            while not (found := condition()):
                assert time.monotonic() < until, f"it did not happen; last events: {self.events[-5:]}"
                self._changed.wait(0.02)
        return found

    def alarms(self, code: str) -> list[Any]:
        return [d for t, d in list(self.events) if t == "alarm" and getattr(d, "code", "") == code]

    def loaded(self) -> list[bytes]:
        """Every sequence that was ever sent to the unit."""
        return [data for request, _, data in list(self.requests) if request == 0x51]

    def pulses(self) -> int:
        """Pulses that the unit gave since power-up."""
        return int.from_bytes(self._stim()[12:16], "little")

    def stim_state(self) -> int:
        return self._stim()[0]

    def _stim(self) -> bytes:
        assert self.demo is not None
        raw = self.demo.transfer_in(0x56, 0, 32, 1)
        assert raw is not None and len(raw) == 32
        return raw

    def settle(self, samples: int = 4000) -> None:
        """So many more samples have been processed."""
        room, goal = self.daemon.room, self.daemon.room.now + samples
        self.wait(lambda: room.now >= goal)


def refusal(action: Callable[[], object]) -> tuple[int, str]:
    """(code, words) of the refusal of `action`."""
    try:
        action()
    except Refused as error:
        return error.code, str(error)
    raise AssertionError("it was not refused")


__all__ = ["RATE", "StimRoom", "refusal"]
