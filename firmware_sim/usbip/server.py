"""The USB/IP server: one thread, one loop, any number of devices.

In: connections on a Unix socket or TCP loopback (a Linux kernel's vhci_hcd, or our shim), and a control socket.
Out: the devices' answers.  Always: requests, time and data of all devices are handled by the thread in `run`, one
after the other; the loop sleeps in poll until something is due; `call` and `stop` may come from any thread.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from firmware_sim.faults import FaultError
from firmware_sim.usbip import protocol as p
from firmware_sim.usbip.bus import Port
from firmware_sim.usbip.session import Session

_OP_BYTES = {p.OP_REQ_DEVLIST: p.OP.size, p.OP_REQ_IMPORT: p.OP.size + p.BUSID_BYTES}
_MAX_LINE = 1 << 16


def listen(address: str) -> socket.socket:
    """`unix:PATH` or `tcp:[HOST:]PORT` (HOST must be a loopback address).  Raises ValueError, OSError."""
    kind, _, where = address.partition(":")
    if kind == "unix" and where:
        path = Path(where)
        if path.is_socket():
            path.unlink()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(where)
        path.chmod(0o600)
    elif kind == "tcp":
        host, _, port = where.rpartition(":")
        host = host or "127.0.0.1"
        if not port.isdecimal() or not (0 <= int(port) <= 65535):
            raise ValueError(f"address {address!r}: expected tcp:PORT with PORT 0..65535")
        if host not in ("127.0.0.1", "localhost"):
            raise ValueError(f"address {address!r}: loopback only; expected tcp:127.0.0.1:PORT")
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, int(port)))
    else:
        raise ValueError(f"address {address!r}: expected unix:PATH or tcp:PORT")
    sock.listen(8)
    sock.setblocking(False)
    return sock


class _Line:
    """A connection of the control socket: one JSON object a line in, one out."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = b""
        sock.setblocking(False)


class Server:
    """Exports `ports` until `stop`."""

    def __init__(self, ports: list[Port]) -> None:
        self.ports = ports
        self._listeners: dict[int, socket.socket] = {}
        self._controls: dict[int, socket.socket] = {}
        self._greeting: dict[int, tuple[socket.socket, bytearray]] = {}
        self._sessions: dict[int, tuple[Session, Port]] = {}
        self._lines: dict[int, _Line] = {}
        self._calls: deque[Callable[[], None]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = False
        self._watched: dict[int, Callable[[], None]] = {}
        self._poll = select.poll()
        self._poll.register(self._wake, select.POLLIN)

    def add_listener(self, sock: socket.socket, control: bool = False) -> None:
        (self._controls if control else self._listeners)[sock.fileno()] = sock
        self._poll.register(sock, select.POLLIN)

    def watch(self, fd: int, when_readable: Callable[[], None]) -> None:
        """Call `when_readable` in the loop whenever `fd` has something (or its other end is gone)."""
        self._watched[fd] = when_readable
        self._poll.register(fd, select.POLLIN)

    def stop(self) -> None:
        """End `run`; from any thread, or a signal handler."""
        self._stopping = True
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake, 1)

    def call(self, work: Callable[[], Any], timeout_s: float = 10.0) -> Any:
        """Run `work` in the server's thread and give its result; from any other thread."""
        done = threading.Event()
        box: list[Any] = [None, None]

        def run() -> None:
            try:
                box[0] = work()
            except Exception as e:  # the caller's to see, wherever it was raised
                box[1] = e
            done.set()

        self._calls.append(run)
        os.eventfd_write(self._wake, 1)
        if not done.wait(timeout_s):
            raise TimeoutError("the simulator's loop did not answer")
        if box[1]:
            raise box[1]
        return box[0]

    # ------------------------------------------------------------------ loop

    def run(self) -> None:
        """Serve until `stop`; closes every socket on the way out."""
        try:
            while not self._stopping:
                self._turn()
        finally:
            self._close()

    def _turn(self) -> None:
        now = time.monotonic()
        waits = [w for w in (port.wait_s(now) for port in self.ports) if w is not None]
        for fd, happened in self._poll.poll(min(waits) * 1000 if waits else None):
            if fd in self._sessions:
                if happened & ~select.POLLOUT:
                    self._sessions[fd][0].on_readable()
            elif fd == self._wake:
                os.eventfd_read(self._wake)
            elif fd in self._greeting:
                self._greet(fd)
            elif fd in self._lines:
                self._talk(fd)
            elif fd in self._watched:
                self._watched[fd]()
            else:
                self._accept(fd)
        while self._calls:
            self._calls.popleft()()
        for port in self.ports:
            port.turn()
        for fd, (session, _) in list(self._sessions.items()):
            if session.closed:
                self._forget(fd)
            elif session.wants_write != session.write_watched:
                session.write_watched = session.wants_write
                self._poll.modify(fd, select.POLLIN | (select.POLLOUT if session.wants_write else 0))

    def _forget(self, fd: int) -> None:
        with contextlib.suppress(KeyError):
            self._poll.unregister(fd)
        for of in (self._sessions, self._greeting, self._lines):
            of.pop(fd, None)

    def _accept(self, fd: int) -> None:
        listener = self._listeners.get(fd) or self._controls[fd]
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if fd in self._controls:
            self._lines[sock.fileno()] = _Line(sock)
        else:
            sock.setblocking(False)
            self._greeting[sock.fileno()] = (sock, bytearray())
        self._poll.register(sock, select.POLLIN)

    # ------------------------------------------------------------------ before a device is imported

    def _greet(self, fd: int) -> None:
        sock, data = self._greeting[fd]
        size = _OP_BYTES.get(p.OP.unpack_from(data)[1], 0) if len(data) >= p.OP.size else p.OP.size
        try:
            got = sock.recv(size - len(data))
        except BlockingIOError:
            return
        except OSError:
            got = b""
        data += got
        if len(data) >= p.OP.size:
            size = _OP_BYTES.get(p.OP.unpack_from(data)[1], 0)
        if not got or not size:
            self._dismiss(fd)
        elif len(data) == size:
            self._operation(fd, sock, p.OP.unpack_from(data)[1], bytes(data[p.OP.size :]))

    def _operation(self, fd: int, sock: socket.socket, code: int, body: bytes) -> None:
        seen = [port for port in self.ports if port.visible]
        if code == p.OP_REQ_DEVLIST:
            head = p.OP.pack(p.VERSION, p.OP_REP_DEVLIST, p.ST_OK) + len(seen).to_bytes(4, "big")
            self._send(sock, head + b"".join(port.record() + port.interfaces() for port in seen))
            self._dismiss(fd)
            return
        busid = body.split(b"\0")[0].decode("ascii", "replace")
        port = next((port for port in seen if port.busid == busid), None)
        status = p.ST_NA if port is None else p.ST_BUSY if port.session else p.ST_OK
        if port is None or status != p.ST_OK:
            self._send(sock, p.OP.pack(p.VERSION, p.OP_REP_IMPORT, status))
            self._dismiss(fd)
            return
        del self._greeting[fd]
        self._send(sock, p.OP.pack(p.VERSION, p.OP_REP_IMPORT, p.ST_OK) + port.record())
        self._sessions[fd] = (port.attach(sock), port)

    def _send(self, sock: socket.socket, data: bytes) -> None:
        with contextlib.suppress(OSError):  # a few hundred bytes into an empty buffer
            sock.send(data)

    def _dismiss(self, fd: int) -> None:
        sock = self._greeting[fd][0]
        self._forget(fd)
        sock.close()

    # ------------------------------------------------------------------ control socket

    def _talk(self, fd: int) -> None:
        line = self._lines[fd]
        try:
            got = line.sock.recv(_MAX_LINE)
        except BlockingIOError:
            return
        except OSError:
            got = b""
        line.data += got
        if not got or len(line.data) > _MAX_LINE:
            self._forget(fd)
            line.sock.close()
            return
        *whole, line.data = line.data.split(b"\n")
        for text in whole:
            self._send(line.sock, json.dumps(self._command(text)).encode() + b"\n")

    def _command(self, text: bytes) -> dict[str, object]:
        """`{"inject": {"kind": ..., "at": ..., ...}, "busid": "1-1"}` or `{"state": true}`."""
        try:
            asked = json.loads(text)
            if not isinstance(asked, dict):
                raise FaultError(f"{asked!r} is no object: expected inject or state")
            unknown = set(asked) - {"inject", "state", "busid"}
            if unknown:
                raise FaultError(f"unknown key {sorted(unknown)[0]!r}: expected inject, state or busid")
            port = next((port for port in self.ports if port.busid == asked.get("busid", self.ports[0].busid)), None)
            if port is None:
                raise FaultError(f"no device at bus id {asked['busid']!r}")
            if "inject" in asked:
                port.inject(**asked["inject"])
            return {"ok": True, "address": port.address, **port.device.state()}
        except (ValueError, TypeError) as e:
            return {"ok": False, "error": str(e)}

    def _close(self) -> None:
        for port in self.ports:
            port.detach()
            if port.tree:
                port.tree.unplug(port.busid)
        held = [*self._listeners.values(), *self._controls.values(), *(s for s, _ in self._greeting.values())]
        for sock in [*held, *(line.sock for line in self._lines.values())]:
            with contextlib.suppress(OSError):
                name = sock.getsockname() if sock in held else None
                if isinstance(name, str) and name and sock.fileno() in {*self._listeners, *self._controls}:
                    Path(name).unlink(missing_ok=True)
            sock.close()
        os.close(self._wake)
