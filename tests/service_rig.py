"""A running server over a Backend that behaves: one thread, one journal counter, one lease.

The backend executes requests strictly in the order they were submitted, as the pipeline does; its sample counter
advances by 100 with every request.  Time is a number that tests move.
"""

from __future__ import annotations

import asyncio
import json
import queue
import socket
import struct
import threading
from concurrent.futures import Future
from pathlib import Path

from ionmd.errors import LEASE_HELD, NO_CASE, Refused
from ionmd.service.backend import Call, Caller, Limits, Sink, StreamSpec
from ionmd.service.bind import bind
from ionmd.service.schema import METHODS, StreamLayout
from ionmd.service.server import Server

BOOT = "11111111-2222-3333-4444-555555555555"
WALL_NS = 1_790_000_000_123_456_000
EASY = Limits(connections=64, per_uid=64, requests_per_s=1e9, burst=10**9, stim_per_s=1e9)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Source:
    """Samples that tests push."""

    def __init__(self, layout: StreamLayout) -> None:
        self.layout = layout
        self.sink: Sink | None = None
        self.started = threading.Event()
        self.closed = threading.Event()

    def start(self, sink: Sink) -> None:
        self.sink = sink
        self.started.set()

    def close(self) -> None:
        self.closed.set()


class OneThread:
    """The Backend.  `hold` keeps it from executing until released, as a stalled disk would."""

    def __init__(self) -> None:
        self.server: Server | None = None
        self.n = 0
        self.sample = 0
        self.case_id: str | None = None
        self.lease: tuple[str, int] | None = None  # (id, connection)
        self.executed: list[tuple[str, int]] = []
        self.offs: list[Caller] = []
        self.lost: list[tuple[int, str]] = []
        self.lost_one = threading.Event()
        self.off_one = threading.Event()
        self.sources: dict[StreamSpec, Source] = {}
        self.go = threading.Event()
        self.go.set()
        self._queue: queue.SimpleQueue[tuple[Call, Future[object]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.go.set()
        self._queue.put(None)
        self._thread.join(5)

    # -- Backend

    def submit(self, call: Call) -> Future[object]:
        future: Future[object] = Future()
        self._queue.put((call, future))
        return future

    def stim_off(self, caller: Caller) -> None:
        self.offs.append(caller)
        self.off_one.set()

    def lease_lost(self, connection_id: int, reason: str) -> None:
        if self.lease is not None and self.lease[1] == connection_id:
            self.lease = None
        self.lost.append((connection_id, reason))
        self.lost_one.set()

    def open_stream(self, spec: StreamSpec) -> Source:
        if "no-such-input" in spec.channels:
            raise Refused("channel no-such-input: the montage has C3, C4", -32602)
        names = list(spec.channels) or ["C3", "C4"]
        raw = spec.kind == "raw"
        layout = StreamLayout(
            spec.kind, 10_000.0, names, "uV", "<i4" if raw else "<f4", [0.0286] * len(names) if raw else []
        )
        self.sources[spec] = Source(layout)
        return self.sources[spec]

    # -- the one thread

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            call, future = item
            self.go.wait()
            try:
                result = self._execute(call)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)

    def _execute(self, call: Call) -> object:
        assert self.server is not None
        self.sample += 100
        self.executed.append((call.method, call.caller.connection_id))
        if call.method == "snapshot":
            return {"case_id": self.case_id, "sample": self.sample}
        if not METHODS[call.method].changes:
            return {"sample": self.sample, "case_id": self.case_id}
        if call.method == "event.add" and self.case_id is None:
            raise Refused("event.add: no case is open; case.open makes one", NO_CASE)
        self.n += 1
        done: dict[str, object] = {"n": self.n, "sample": self.sample}
        if call.method == "case.open":
            self.case_id = getattr(call.params, "case_id", None) or "case-1"
            self.server.announce(case_id=self.case_id)
            self.server.publish("case", {"kind": "opened", "case_id": self.case_id}, self.sample, self.n)
            done["case_id"] = self.case_id
        elif call.method == "event.add":
            data = {"kind": "event", "text": getattr(call.params, "text", "")}
            self.server.publish("case", data, self.sample, self.n)
        elif call.method == "stim.acquire":
            if self.lease is not None:
                holder = self.lease[1]
                raise Refused(f"stim.acquire: held by connection {holder}", LEASE_HELD, {"holder": holder})
            self.lease = (f"lease-{self.n}", call.caller.connection_id)
            done["lease"] = self.lease[0]
        self.server.committed(self.n, self.sample)
        return done


class Rig:
    """`with Rig(tmp_path) as rig:` a server on `rig.path` with a loop in its own thread."""

    def __init__(
        self, directory: Path, limits: Limits = EASY, source: str = "simulated", groups: dict[str, int] | None = None,
        own_uid: int | None = None, **options: object,
    ) -> None:  # fmt: skip
        self.clock = Clock()
        self.backend = OneThread()
        self.path = directory / "s.sock"
        self.loop = asyncio.new_event_loop()
        self.server = Server(
            self.backend, version="0.1.0", boot_id=BOOT, source=source, limits=limits, groups=lambda: groups or {},
            own_uid=own_uid, clock=self.clock, wall_ns=lambda: WALL_NS, **options,
        )  # fmt: skip
        self.backend.server = self.server
        self._bound = bind([self.path])
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._raws: list[Raw] = []

    def __enter__(self) -> Rig:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.server.start(self._bound.socket), self.loop).result(5)
        return self

    def __exit__(self, *_: object) -> None:
        for raw in self._raws:
            raw.sock.close()
        self.backend.stop()
        asyncio.run_coroutine_threadsafe(self.server.close(), self.loop).result(5)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()
        self._bound.close()

    def sync(self) -> None:
        """Everything published or posted before is through the service thread."""

        async def turn() -> None:
            for _ in range(3):
                await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(turn(), self.loop).result(5)

    def advance(self, seconds: float) -> None:
        """Move the clock and let what is due happen."""

        async def tick() -> None:
            self.clock.now += seconds
            self.server.tick()
            await asyncio.sleep(0)

        asyncio.run_coroutine_threadsafe(tick(), self.loop).result(5)

    def raw(self, rcvbuf: int | None = None) -> Raw:
        raw = Raw(self.path, rcvbuf)
        self._raws.append(raw)
        return raw


class Raw:
    """A client made of nothing but a socket."""

    def __init__(self, path: Path, rcvbuf: int | None = None) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(10)
        self.sock.connect(str(path))
        self.buffer = b""
        self.hello = self.line()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def ask(self, method: str, id: object = 1, **params: object) -> None:
        self.send(json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode() + b"\n")

    def call(self, method: str, **params: object) -> dict:
        """The reply; events before it are dropped."""
        self.ask(method, "call", **params)
        while True:
            message = self.line()
            assert message, "the connection ended before the reply"
            if message.get("id") == "call" or (message.get("id", 0) is None):
                return message

    def line(self) -> dict:
        """The next message; {} at the end of the connection."""
        while b"\n" not in self.buffer:
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                assert self.buffer == b"", f"half a line at the end: {self.buffer[:80]!r}"
                return {}
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\n")
        return json.loads(line)

    def lines_to_end(self) -> list[dict]:
        found = []
        while message := self.line():
            found.append(message)
        return found

    def exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            data = self.sock.recv(65536)
            if not data:
                break
            self.buffer += data
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data

    def frame(self) -> tuple[dict, bytes] | None:
        raw = self.exactly(40)
        if len(raw) < 40:
            return None
        names = ("magic", "version", "type", "flags", "seq", "first", "n", "channels", "dtype", "cause", "size", "zero")
        header = dict(zip(names, struct.unpack("<4sBBHQQIHBBII", raw), strict=True))
        return header, self.exactly(header["size"])
