"""One connected socket: bytes in, lines up; queued buffers out.

In: readable and writable calls of the event loop, `tick` for what is due.  Out: complete lines to the owner, in
order.  Always: nothing here blocks; memory per connection is bounded by Limits; a connection that is cut gets
its reason as a `goodbye` line when it still reads, and is closed either way.
Plain non-blocking sockets rather than asyncio streams: the queue must be ours, because a buffer that is already
in a transport can no longer be coalesced, counted or dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Protocol

from ionmd.service.backend import Limits
from ionmd.service.flight import Flight
from ionmd.service.frames import Frame
from ionmd.service.framing import LineBuffer, TooLong
from ionmd.service.patience import Patience
from ionmd.service.queues import Encoded, Outbox
from ionmd.service.roles import Peer
from ionmd.service.rpc import notification_line
from ionmd.service.stream import Hub, StreamOutbox

_READ = 64 * 1024
_TAKE = 64 * 1024  # bytes committed to be written: newer events of a key can no longer replace them
_TAKE_SAMPLES = 256 * 1024  # of samples, which nothing replaces: more than the kernel takes at once
_TURN = 1024 * 1024  # bytes one connection may write before the others have their turn
_AUDIO_BUFFER = 4608  # the kernel's smallest


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
        self._lines = LineBuffer()
        self._flight = Flight()
        self._reading = False
        self._writing = False
        self._eof = False
        self._ending = False  # write what waits, then close
        self._take = _TAKE
        self._patience = Patience(owner.limits, owner.now())
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
        try:
            self._lines.feed(data, self.owner.now())
        except TooLong as error:
            self.cut(str(error))
            return
        self.work()

    def work(self) -> None:
        """Offer the lines that came; read on only when all are taken."""
        lines = self._lines
        while lines.waiting and self.serving and self.hub is None:
            if not self.owner.on_line(self, lines.waiting[0]):
                for line in lines.pull(self.owner.is_urgent):
                    self.owner.on_line(self, line)
                if lines.bytes >= _READ:  # until then read on: a stim.off may be under way
                    self._pause_reading()
                return
            lines.taken()
        if self._eof:
            self._finish_if_idle()
        else:
            self._resume_reading()

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
        if self._eof and not self._lines.waiting and not self.in_flight and not self.outbox and not self._flight:
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

    def send_frames(self, frames: Sequence[Frame], size: int) -> None:
        """`size` bytes, all together."""
        if self.closed or self._goodbye_until is not None or not isinstance(self.outbox, StreamOutbox):
            return
        self.outbox.frames(frames, size)
        self.owner.touch(self)

    def wake(self) -> None:
        """Something about it changed: write what waits, end if it is time to."""
        self.owner.touch(self)

    def resume(self, events: list[Encoded]) -> None:
        """Events that were missed, sent piece by piece as they are read, before all that comes from now on."""
        if self.serving and isinstance(self.outbox, Outbox):
            self.outbox.resume(events)
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
            box.line(bytes(buffer))
        box.line(layout)
        self.outbox = box
        self.hub = hub
        self.subscribed.clear()
        self._lines.clear()
        if hub.layout.kind == "emg_audio":  # sound that waits in the kernel would be played late
            row_bytes = 4 * len(hub.layout.names)
            with contextlib.suppress(OSError):
                self.sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_SNDBUF, max(_AUDIO_BUFFER, int(hub.layout.rate_hz * 0.02) * row_bytes)
                )
            self._take = 1
        else:
            self._take = _TAKE_SAMPLES
        self._patience.moved(self.owner.now())
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
                    self._flight.load(self.outbox.take(self._take))
                    self._patience.moved(self.owner.now())
                if not self._flight:
                    self._drained()
                    return
            if turn <= 0:
                break
            try:
                turn -= self._flight.send(self.sock)
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                self.close(f"write failed: {error.strerror}")
                return
            self._patience.moved(self.owner.now())
            if self._flight:
                break  # the kernel is full; asking again would only be told so
        if not self._writing and not self.closed:
            self.loop.add_writer(self.fd, self._write)
            self._writing = True

    def _drained(self) -> None:
        if self._writing:
            self.loop.remove_writer(self.fd)
            self._writing = False
        self._patience.drained()
        if self._goodbye_until is not None or self._ending:
            self.close(self._reason or "ended")
            return
        if self._eof:
            self._finish_if_idle()
        elif self._lines.waiting or not self._reading:
            # one turn of the loop later: a reply inside work() must not start work() again
            self.loop.call_soon(self.work)

    # ---- limits and end

    @property
    def waiting_bytes(self) -> int:
        return self.outbox.bytes + self._flight.bytes

    @property
    def replies_full(self) -> bool:
        """Too many answers unread, or too many questions unanswered: read no more requests for now."""
        limits = self.owner.limits
        return self.outbox.reply_bytes > limits.reply_pause_bytes or len(self.in_flight) >= limits.in_flight

    def tick(self, now: float) -> None:
        """Deadlines.  Called by the server every 100 ms."""
        if self.closed:
            return
        if self._goodbye_until is not None:
            if now >= self._goodbye_until:
                self.close(self._reason)
            return
        if reason := self._overdue(now):
            self.cut(reason)
        elif self._lines.waiting and self.hub is None:
            self.work()

    def _overdue(self, now: float) -> str:
        patience, box = self._patience, self.outbox
        if isinstance(box, StreamOutbox):
            return patience.with_samples(now) if self._flight else ""
        return (
            patience.with_line(now, self._lines.since)
            or patience.with_bytes(now, self.waiting_bytes)
            or patience.with_resume(now, box.resuming)
            or patience.with_replies(now, box.reply_bytes if self._writing else 0)
        )

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
        if self.hub is None:
            self._flight.load([notification_line("goodbye", {"reason": reason})])
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
