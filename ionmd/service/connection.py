"""One connected socket: bytes in, lines up; queued buffers out.

In: readable and writable calls of the event loop, `tick` for what is due.  Out: complete lines to the owner, in
order.  Always: nothing here blocks; memory per connection is bounded by Limits; a connection that is cut gets
its reason as a `goodbye` line when it still reads, and is closed either way.
Plain non-blocking sockets rather than asyncio streams: the queue must be ours, because a buffer that is already
in a transport can no longer be coalesced, counted or dropped.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections import deque
from concurrent.futures import Future
from typing import Protocol

from ionmd.service.backend import Caller, Limits
from ionmd.service.queues import Encoded, Outbox
from ionmd.service.roles import Peer
from ionmd.service.rpc import notification_line
from ionmd.service.schema import MAX_LINE
from ionmd.service.stream import Frame, Hub, StreamOutbox

_READ = 64 * 1024
_TAKE = 64 * 1024  # bytes committed to be written: newer events of a key can no longer replace them
_TURN = 1024 * 1024  # bytes one connection may write before the others have their turn
_IOV = 256


class Owner(Protocol):
    """What a connection needs from the server."""

    limits: Limits

    def now(self) -> float: ...

    def on_line(self, connection: Connection, line: bytes) -> bool:
        """False: not now (rate or replies); the line is kept and offered again."""

    def is_urgent(self, line: bytes) -> bool:
        """May this line overtake those before it?  True for stim.off alone."""

    def touch(self, connection: Connection) -> None:
        """Something waits in its outbox: flush soon, once for the whole burst."""

    def on_input_ended(self, connection: Connection, reason: str) -> None:
        """It will ask nothing more: its lease ends now.  Perhaps called twice."""

    def on_gone(self, connection: Connection) -> None:
        """Its socket is closed.  Called once."""


class Connection:
    """A client.  `subscribed` and `outbox` are the server's to fill."""

    _ids = itertools.count(1)

    def __init__(self, sock: socket.socket, peer: Peer, owner: Owner, loop: asyncio.AbstractEventLoop) -> None:
        self.id = next(Connection._ids)
        self.sock = sock
        self.fd = sock.fileno()
        self.peer = peer
        self.owner = owner
        self.loop = loop
        self.outbox: Outbox | StreamOutbox = Outbox(owner.limits.keyed_keys, owner.limits.keyed_bytes)
        self.subscribed: set[str] = set()
        self.in_flight: set[Future[object]] = set()
        self.asked_for_lease = False
        self.hub: Hub | None = None
        self.tokens = float(owner.limits.burst)
        self.tokens_at = owner.now()
        self.denied = 0
        self.closed = False
        self._caller: Caller | None = None
        self._lines: deque[bytes] = deque()
        self._line_bytes = 0
        self._partial = b""
        self._partial_since: float | None = None
        self._flight: list[bytes | memoryview] = []
        self._flight_bytes = 0
        self._reading = False
        self._writing = False
        self._eof = False
        self._ending = False  # write what waits, then close
        self._over_soft_since: float | None = None
        self._progress_at = owner.now()
        self._goodbye_until: float | None = None
        self._reason = ""
        self._resume_reading()

    # ---- reading

    def _resume_reading(self) -> None:
        if not self._reading and not self.closed and not self._eof and self._goodbye_until is None:
            self.loop.add_reader(self.fd, self._readable)
            self._reading = True

    def _pause_reading(self) -> None:
        if self._reading:
            self.loop.remove_reader(self.fd)
            self._reading = False

    def _readable(self) -> None:
        try:
            data = self.sock.recv(_READ)  # plain recv: passed descriptors are closed by the kernel
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self.close(f"read failed: {error.strerror}")
            return
        if not data:
            self._end_of_input()
            return
        if self.hub is not None:
            return  # a sample connection has nothing more to say
        *lines, rest = (self._partial + data).split(b"\n") if self._partial else data.split(b"\n")
        if lines:
            self._partial_since = None
        self._partial = rest
        for line in lines:
            if len(line) >= MAX_LINE:
                self.cut(f"a line of {len(line)} bytes came; at most {MAX_LINE} with its newline are taken")
                return
            if line.strip(b" \t\r"):
                self._lines.append(line)
                self._line_bytes += len(line)
        if len(rest) >= MAX_LINE:
            self.cut(f"{len(rest)} bytes came without a newline; a line has at most {MAX_LINE}")
            return
        if rest and self._partial_since is None:
            self._partial_since = self.owner.now()
        self.work()

    def work(self) -> None:
        """Offer the lines that came; read on only when all are taken."""
        while self._lines and not self.closed and self._goodbye_until is None and self.hub is None:
            if not self.owner.on_line(self, self._lines[0]):
                self._overtake()
                if self._line_bytes >= _READ:  # until then read on: a stim.off may be under way
                    self._pause_reading()
                return
            if self._lines:
                self._line_bytes -= len(self._lines.popleft())
        if self._eof:
            self._finish_if_idle()
        else:
            self._resume_reading()

    def _overtake(self) -> None:
        urgent = [line for line in self._lines if self.owner.is_urgent(line)]
        for line in urgent:
            self._lines.remove(line)
            self._line_bytes -= len(line)
            self.owner.on_line(self, line)

    def _end_of_input(self) -> None:
        """No more requests.  What was asked is answered, then the connection ends."""
        self._pause_reading()
        self._eof = True
        self._reason = "client closed"
        if self.hub is not None:
            self.close("client closed")
            return
        self.owner.on_input_ended(self, "client closed its side")  # a lease ends here, not after the last reply
        self.work()

    def _finish_if_idle(self) -> None:
        if self._eof and not self._lines and not self.in_flight and not self.outbox and not self._flight:
            self.close("client closed")

    # ---- writing

    def reply(self, line: bytes) -> None:
        if not self.closed and self._goodbye_until is None and isinstance(self.outbox, Outbox):
            self.outbox.reply(line)
            self.owner.touch(self)

    def send_event(self, event: Encoded, lossless: bool) -> None:
        if self.closed or self._goodbye_until is not None or not isinstance(self.outbox, Outbox):
            return
        if lossless:
            self.outbox.lossless(event)
        else:
            self.outbox.keyed(event)
        self.owner.touch(self)

    def send_frame(self, frame: Frame) -> None:
        if self.closed or self._goodbye_until is not None or not isinstance(self.outbox, StreamOutbox):
            return
        self.outbox.frame(frame)
        self.owner.touch(self)

    def end_of_stream(self) -> None:
        self._ending = True
        self._reason = "end of the stream"
        self.owner.touch(self)

    def become_stream(self, hub: Hub, layout: bytes) -> None:
        """After the hello and whatever else waits, one layout line, then frames."""
        old = self.outbox
        box = hub.outbox(self.owner.limits.stream_bytes)
        for buffer in old.take(2**62):
            box.line(buffer)
        box.line(layout)
        self.outbox = box
        self.hub = hub
        self.subscribed.clear()
        self._lines.clear()
        self._line_bytes = 0
        self._partial = b""
        self._partial_since = None
        self._progress_at = self.owner.now()
        self.owner.touch(self)

    def flush(self) -> None:
        """Write what the kernel takes now; the rest when it says so."""
        if self._writing or self.closed:
            return
        self._write()

    def _write(self) -> None:
        turn = _TURN
        while not self.closed:
            if not self._flight:
                if self._goodbye_until is None:
                    self._flight = [*self.outbox.take(_TAKE)]
                    self._flight_bytes = sum(map(len, self._flight))
                    self._progress_at = self.owner.now()  # an idle reader is not slow: patience starts with its data
                if not self._flight:
                    self._drained()
                    return
            if turn <= 0:
                break
            try:
                sent = self.sock.sendmsg(self._flight[:_IOV])
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self.close(f"write failed: {error.strerror}")
                return
            turn -= sent
            self._advance(sent)
        if not self._writing and not self.closed:
            self.loop.add_writer(self.fd, self._write)
            self._writing = True

    def _advance(self, sent: int) -> None:
        self._flight_bytes -= sent
        self._progress_at = self.owner.now()
        done = 0
        for view in self._flight:
            if sent < len(view):
                break
            sent -= len(view)
            done += 1
        del self._flight[:done]
        if sent:
            self._flight[0] = memoryview(self._flight[0])[sent:]

    def _drained(self) -> None:
        if self._writing:
            self.loop.remove_writer(self.fd)
            self._writing = False
        self._over_soft_since = None
        if self._goodbye_until is not None or self._ending:
            self.close(self._reason or "ended")
            return
        if self._eof:
            self._finish_if_idle()
        elif self._lines or not self._reading:
            # one turn of the loop later: a reply inside work() must not start work() again
            self.loop.call_soon(self.work)

    # ---- limits and end

    @property
    def waiting_bytes(self) -> int:
        return self.outbox.bytes + self._flight_bytes

    @property
    def replies_full(self) -> bool:
        """Too many answers unread, or too many questions unanswered: read no more requests for now."""
        limits = self.owner.limits
        return self.outbox.reply_bytes > limits.reply_pause_bytes or len(self.in_flight) >= limits.in_flight

    def tick(self, now: float) -> None:
        """Deadlines.  Called by the server every 100 ms."""
        limits = self.owner.limits
        if self.closed:
            return
        if self._goodbye_until is not None:
            if now >= self._goodbye_until:
                self.close(self._reason)
            return
        if self.hub is not None:
            if self._flight and now - self._progress_at > limits.stream_stall_s:
                self.cut(f"no sample was read for {limits.stream_stall_s:g} s")
            return
        if self._partial_since is not None and now - self._partial_since > limits.partial_line_s:
            self.cut(f"a line was not finished within {limits.partial_line_s:g} s")
            return
        waiting = self.waiting_bytes
        if waiting > limits.hard_bytes:
            self.cut(f"{waiting} bytes were not read; {limits.hard_bytes} may wait")
            return
        if waiting <= limits.soft_bytes:
            self._over_soft_since = None
        elif self._over_soft_since is None:
            self._over_soft_since = now
        elif now - self._over_soft_since > limits.soft_s:
            self.cut(f"more than {limits.soft_bytes} bytes were not read for {limits.soft_s:g} s")
            return
        unread = self._writing and self.outbox.reply_bytes > limits.reply_pause_bytes
        if unread and now - self._progress_at > limits.soft_s:
            self.cut(f"replies were not read for {limits.soft_s:g} s")
            return
        if self._lines:
            self.work()

    def check_hard_limit(self) -> None:
        """Between two ticks a burst may pass the hard limit; it is held at once."""
        if self._goodbye_until is None and self.waiting_bytes > self.owner.limits.hard_bytes and self.hub is None:
            self.cut(f"{self.waiting_bytes} bytes were not read; {self.owner.limits.hard_bytes} may wait")

    def cut(self, reason: str) -> None:
        """Stop serving it.  A goodbye line follows the line that is under way; nothing else does."""
        if self.closed or self._goodbye_until is not None:
            return
        self._pause_reading()
        self._reason = reason
        self._goodbye_until = self.owner.now() + self.owner.limits.goodbye_s
        self.outbox.drop_all()
        self._lines.clear()
        self._line_bytes = 0
        self._partial = b""
        if self.hub is None:
            line = notification_line("goodbye", {"reason": reason})
            self._flight.append(line)
            self._flight_bytes += len(line)
        self.owner.on_input_ended(self, reason)
        self.owner.touch(self)

    @property
    def serving(self) -> bool:
        return not self.closed and self._goodbye_until is None

    @property
    def was_cut(self) -> bool:
        return self._goodbye_until is not None

    @property
    def reason(self) -> str:
        return self._reason

    def close(self, reason: str) -> None:
        """At once.  Safe twice."""
        if self.closed:
            return
        self.closed = True
        self._reason = self._reason or reason
        self._pause_reading()
        if self._writing:
            self.loop.remove_writer(self.fd)
            self._writing = False
        self.sock.close()
        self._flight.clear()
        self.outbox.drop_all()
        self.owner.on_input_ended(self, self._reason)
        self.owner.on_gone(self)
