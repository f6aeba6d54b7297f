"""One attached host: USB/IP URBs of one device over one stream socket.

In: bytes from the socket, whenever they come, cut anywhere.  Out: replies, gathered and sent without copying blocks.
Always: a URB gets exactly one answer (RET_SUBMIT, or RET_UNLINK with ECONNRESET); answers of one endpoint come in
order; a host that does not read holds up only itself, and what waits for it is at most what it asked for.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections import deque

from firmware_sim.usbip import protocol as p
from firmware_sim.usbip.function import UsbFunction

_MAX_TRANSFER = 16 << 20  # as usbfs
_IOV = 256
Buffer = bytes | memoryview


class Session:
    """The URB phase.  `closed` becomes True when the host is gone or broke the protocol."""

    def __init__(self, sock: socket.socket, function: UsbFunction) -> None:
        self.sock = sock
        self.function = function
        self.closed = False
        self.write_watched = False  # the server's note
        self._in = bytearray(1 << 16)
        self._filled = 0
        self._pending: deque[tuple[int, int, int]] = deque()  # seq, endpoint, length
        self._late: deque[tuple[float, int, bytes]] = deque()  # due, seq, the whole answer: EP0 is strictly in order
        self._swallowed: set[int] = set()  # requests whose answer a fault has lost: they can only be unlinked
        self._out: deque[Buffer] = deque()
        sock.setblocking(False)
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)

    @property
    def wants_write(self) -> bool:
        return bool(self._out)

    def wait_s(self, now_s: float) -> float | None:
        """Seconds until a delayed answer is due."""
        return max(0.0, self._late[0][0] - now_s) if self._late else None

    # ------------------------------------------------------------------ from the host

    def on_readable(self) -> None:
        """Take what has arrived and carry out every complete request in it."""
        try:
            got = self.sock.recv_into(memoryview(self._in)[self._filled :])
        except BlockingIOError:
            return
        except OSError:
            got = 0
        if not got:
            self.closed = True
            return
        self._filled += got
        at = 0
        while not self.closed and self._filled - at >= p.HEADER.size:
            used = self._request(at)
            if not used:
                break
            at += used
        self._in[: self._filled - at] = self._in[at : self._filled]
        self._filled -= at

    def _request(self, at: int) -> int:
        """Carry out the request at `at`; returns its size, 0 when it is not complete yet."""
        command, seq, _, is_in, endpoint, flags, length, *_, setup = p.HEADER.unpack_from(self._in, at)
        if command == p.CMD_UNLINK:
            self._unlink(seq, flags)
            return p.HEADER.size
        if command != p.CMD_SUBMIT or not (0 <= length <= _MAX_TRANSFER):
            self.closed = True  # there is no way back into step
            return 0
        size = p.HEADER.size if is_in else p.HEADER.size + length
        if size > len(self._in):
            self._in.extend(bytes(size - len(self._in)))
        if self._filled - at < size:
            return 0
        if endpoint == 0:
            self._control(seq, setup, bytes(self._in[at + p.HEADER.size : at + size]))
        elif is_in:
            self._pending.append((seq, endpoint, length))
        else:
            self._out.append(p.submitted(seq, p.EPROTO, 0))  # no OUT endpoint exists
        return size

    def _control(self, seq: int, setup: bytes, data: bytes) -> None:
        reply = self.function.control(setup, data)
        if reply.lost:
            self._swallowed.add(seq)
            return
        actual = len(reply.data) if setup[0] & 0x80 else len(data)
        answer = p.submitted(seq, reply.status, 0 if reply.status else actual) + (b"" if reply.status else reply.data)
        if reply.delay_s or self._late:
            before = self._late[-1][0] if self._late else 0.0
            self._late.append((max(before, time.monotonic() + reply.delay_s), seq, answer))
        else:
            self._out.append(answer)

    def _unlink(self, seq: int, victim: int) -> None:
        found = victim in self._swallowed
        self._swallowed.discard(victim)
        for entry in self._pending:
            if entry[0] == victim:
                self._pending.remove(entry)
                found = True
                break
        for late in self._late:
            if late[1] == victim:
                self._late.remove(late)
                found = True
                break
        self._out.append(p.unlinked(seq, p.ECONNRESET if found else 0))

    # ------------------------------------------------------------------ to the host

    def pump(self, now_s: float) -> None:
        """Answer everything that can be answered now, and send."""
        while self._late and self._late[0][0] <= now_s:
            self._out.append(self._late.popleft()[2])
        while self._pending:
            seq, endpoint, length = self._pending[0]
            answer = self.function.bulk_in(endpoint, length)
            if answer is None:
                break
            self._pending.popleft()
            status, data = answer
            self._out.append(p.submitted(seq, status, len(data)))
            if data:
                self._out.append(data)
        if self._out:
            self._flush()

    def _flush(self) -> None:
        out = self._out
        while out:
            batch = list(out) if len(out) <= _IOV else [out[i] for i in range(_IOV)]
            try:
                sent = self.sock.sendmsg(batch)
            except BlockingIOError:
                return
            except OSError:
                self.closed = True
                return
            while out and sent >= len(out[0]):
                sent -= len(out.popleft())
            if sent:
                out[0] = memoryview(out[0])[sent:]

    def pull(self, gasp: bytes) -> None:
        """The cable is out: the transfer on it ends after `gasp`, and so does the session."""
        if self._pending and gasp:
            seq, _, length = self._pending.popleft()
            gasp = gasp[:length]
            self._out += (p.submitted(seq, p.ESHUTDOWN, len(gasp)), gasp)
        self._flush()
        self.close()

    def close(self) -> None:
        self.closed = True
        self.sock.close()
