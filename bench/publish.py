"""The publisher of raw frames against a C send loop: bytes a second that reach 1, 8 and 32 subscribers.

Ours is the whole way of the daemon: Hub.push on a producer thread, the service thread with its queues, sockets; the
subscribers are one C process on both sides.  The producer keeps AHEAD frames in the queues and drops none.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from bench.harness import WORKLOADS, Line
from ionmd.service.backend import Limits, Sink, StreamSpec
from ionmd.service.bind import bind
from ionmd.service.frames import HEADER
from ionmd.service.schema import StreamLayout
from ionmd.service.server import Server

ROOT = Path(__file__).parents[1]
FRAMES = {1: 6000, 8: 1200, 32: 320}
AHEAD = 64
TARGET = 0.85


def frame_bytes() -> tuple[int, int]:
    channels, rate = WORKLOADS["W2"]
    return rate // 1000, rate // 1000 * channels * 4  # samples, payload of 1 ms


class _Source:
    def __init__(self, layout: StreamLayout) -> None:
        self.layout = layout
        self.sink: Sink | None = None

    def start(self, sink: Sink) -> None:
        self.sink = sink

    def close(self) -> None: ...


class _Backend:
    """Of the Backend only what streams need."""

    def __init__(self, layout: StreamLayout) -> None:
        self.source = _Source(layout)

    def open_stream(self, spec: StreamSpec) -> _Source:
        return self.source

    def lease_lost(self, connection_id: int, reason: str) -> None: ...


def serve(path: str, subscribers: int, frames: int) -> None:
    """Child process: a server, and `frames` frames once all subscribers are there."""
    samples, length = frame_bytes()
    channels = length // samples // 4
    layout = StreamLayout("raw", 40_000.0, [f"in{i}" for i in range(channels)], "count", "<i4", [0.02] * channels)
    backend = _Backend(layout)
    limits = Limits(connections=80, per_uid=80, requests_per_s=1e9, burst=10**6, stream_bytes=64 << 20)
    server = Server(
        backend, version="0", boot_id="bench", source="simulated", limits=limits, groups=dict, own_uid=os.getuid()
    )
    loop = asyncio.new_event_loop()

    def waiting() -> int:
        return max((c.waiting_bytes for c in list(server._connections.values()) if c.hub is not None), default=0)

    def produce() -> None:
        while sum(c.hub is not None for c in list(server._connections.values())) < subscribers:
            time.sleep(0.001)
        payload, sink = bytes(length), backend.source.sink
        assert sink is not None
        for k in range(frames):
            if k % AHEAD == AHEAD - 1:
                while waiting() > AHEAD * length:
                    time.sleep(0.0002)
            sink.push(k * samples, payload, samples)

    async def run() -> None:
        bound = bind([Path(path)])
        await server.start(bound.socket)
        thread = threading.Thread(target=produce, daemon=True)
        thread.start()
        while sys.stdin.readable() and await loop.run_in_executor(None, sys.stdin.readline):
            pass
        await server.close()

    asyncio.set_event_loop(loop)
    loop.run_until_complete(run())


def _subscribe(path: str, wait_s: float = 20.0) -> socket.socket:
    """A sample connection with its layout line read."""
    deadline = time.monotonic() + wait_s
    while True:
        control = socket.socket(socket.AF_UNIX)
        try:
            control.connect(path)
            break
        except OSError:
            control.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    _line(control)
    control.sendall(b'{"jsonrpc":"2.0","id":1,"method":"stream.open","params":{"kind":"raw","channels":[]}}\n')
    token = json.loads(_line(control))["result"]["token"]
    control.close()
    stream = socket.socket(socket.AF_UNIX)
    stream.connect(path)
    _line(stream)
    stream.sendall(json.dumps({"stream": token}).encode() + b"\n")
    _line(stream)
    return stream


def _line(sock: socket.socket) -> bytes:
    out = b""
    while not out.endswith(b"\n"):
        out += sock.recv(1)
    return out


def _read(tool: Path, sockets: list[socket.socket], bytes_each: int) -> subprocess.Popen[str]:
    fds = [s.fileno() for s in sockets]
    command = [str(tool), "read", str(bytes_each), *map(str, fds)]
    return subprocess.Popen(command, pass_fds=fds, stdout=subprocess.PIPE, text=True)


def run_daemon(tool: Path, subscribers: int, frames: int) -> float:
    """Bytes a second, all subscribers together."""
    total = frames * (HEADER.size + frame_bytes()[1])
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/s"
        child = subprocess.Popen(
            [sys.executable, "-m", "bench.publish", path, str(subscribers), str(frames)],
            cwd=ROOT, stdin=subprocess.PIPE,
        )  # fmt: skip
        sockets = [_subscribe(path) for _ in range(subscribers)]
        reader = _read(tool, sockets, total)
        for s in sockets:
            s.close()
        out = reader.communicate(timeout=120)[0]
        child.communicate(timeout=20)
    return subscribers * total / float(out)


def run_c(tool: Path, subscribers: int, frames: int) -> float:
    length = HEADER.size + frame_bytes()[1]
    pairs = [socket.socketpair() for _ in range(subscribers)]
    fds = [a.fileno() for a, _ in pairs]
    reader = _read(tool, [b for _, b in pairs], frames * length)
    sender = subprocess.Popen([str(tool), "send", str(frames), str(length), *map(str, fds)], pass_fds=fds)
    for a, b in pairs:
        a.close()
        b.close()
    out = reader.communicate(timeout=120)[0]
    sender.wait(timeout=20)
    return subscribers * frames * length / float(out)


def lines(rounds: int) -> Iterator[Line]:
    tool = ROOT / "build" / "bench" / "fanout"
    tool.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", "-O2", "-Wall", "-o", str(tool), str(ROOT / "bench/fanout.c")], check=True)
    for subscribers, frames in FRAMES.items():
        ours, theirs = [], []
        for _ in range(max(3, rounds // 3)):
            theirs.append(run_c(tool, subscribers, frames))
            ours.append(run_daemon(tool, subscribers, frames))
        ratio = statistics.median(o / t for o, t in zip(ours, theirs, strict=True))
        yield Line(
            f"publisher to {subscribers}", "W2", 1, "C send loop (throughput)", ratio, TARGET, ratio >= TARGET,
            1e9 / statistics.median(ours), 1e9 / statistics.median(theirs), "ns are per byte",
        )  # fmt: skip


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
