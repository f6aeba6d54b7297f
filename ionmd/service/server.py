"""The socket: accepts clients, knows their rights, carries events to them and their lines to `Requests`.

In: a listening Unix socket, a Backend, events from any thread by `publish`.  Out: lines and sample frames.
Always: publish never blocks, and a slow, broken or hostile client costs only its own connection.
Runs on one asyncio loop; all methods without a thread note belong to that loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import secrets
import socket
import time
from collections.abc import Callable

import msgspec
import structlog

from ionmd.errors import IonmdError
from ionmd.service.backend import Backend, Denied, Limits, ServiceStats
from ionmd.service.connection import Connection
from ionmd.service.hello import hello_line
from ionmd.service.mailbox import Mailbox
from ionmd.service.queues import Outbox
from ionmd.service.requests import Requests
from ionmd.service.roles import OVERFLOW_UID, GroupLookup, Rights, peer_of, rights_of, system_groups
from ionmd.service.rpc import notification_line
from ionmd.service.samples import SampleDesk
from ionmd.service.schema import LOSSLESS, TOPICS
from ionmd.service.stream import StreamOutbox
from ionmd.service.subscriptions import Subscriptions
from ionmd.service.topics import Published

TICK_S = 0.1

log = structlog.get_logger("ionmd.service")


class Server:
    """One per daemon.  `source`, `case_id` and `device_state` are what hello says; see `announce`."""

    def __init__(
        self,
        backend: Backend,
        *,
        version: str,
        boot_id: str,
        source: str,
        limits: Limits | None = None,
        groups: GroupLookup = system_groups,
        own_uid: int | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_ns: Callable[[], int] = time.time_ns,
        make_token: Callable[[], str] = lambda: secrets.token_urlsafe(24),
        on_denied: Denied | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self._backend = backend
        self._version = version
        self._boot_id = boot_id
        self._source = source
        self._case_id: str | None = None
        self._device_state = "absent"
        # looked up once: a name service that hangs must never hold up a stim.off
        self._groups = dict(groups())
        self._own_uid = own_uid
        self._clock = clock
        self._stats = ServiceStats()
        self._connections: dict[int, Connection] = {}
        self._dirty: set[Connection] = set()
        self._flush_due = False
        self._mailbox = Mailbox(wall_ns)
        self._subscriptions = Subscriptions(boot_id, self.limits.history)
        self._samples = SampleDesk(backend, boot_id, self.limits, self._mailbox.post, make_token)
        self._requests = Requests(
            backend, boot_id, self.limits, clock, self._stats, self._mailbox, self._subscriptions, self._samples,
            self._rights, self._drain, on_denied,
        )  # fmt: skip
        self._listener: socket.socket | None = None
        self._accepting = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    # ---------------------------------------------------------------- any thread

    def publish(
        self,
        topic: str,
        data: object,
        sample: int,
        n: int | None = None,
        key: str | None = None,
    ) -> int:
        """Send an event to whoever subscribed; returns its seq.  Any thread; never blocks on a client.

        data   a struct or dict; must not change afterwards: it is encoded later, by the service thread
        n      journal line, None when it has none
        key    newest-per-key class: which of the waiting events it replaces (default: the `test` of data); ignored
               for alarm, device, case, stim and message, which are never dropped
        Raises ValueError for a topic that is not in schema.TOPICS.
        """
        if topic in LOSSLESS:
            return self._mailbox.publish(topic, data, sample, n, None)
        if topic not in TOPICS:
            raise ValueError(f"topic {topic!r} came, one of {', '.join(TOPICS)} was expected")
        if key is None:
            key = str(data.get("test", "") if isinstance(data, dict) else getattr(data, "test", ""))
        return self._mailbox.publish(topic, data, sample, n, key)

    def committed(self, n: int, sample: int | None = None) -> int:
        """Journal lines up to `n` are on disk.  Any thread."""
        at = self._mailbox.last_sample if sample is None else sample
        return self._mailbox.publish("case", {"committed": n}, at, None, "committed")

    def announce(
        self, *, source: str | None = None, case_id: str | msgspec.UnsetType | None = msgspec.UNSET,
        device_state: str | None = None,
    ) -> None:  # fmt: skip
        """Facts of the next hello; only the given ones change.  Any thread."""
        if source is not None:
            self._source = source
        if not isinstance(case_id, msgspec.UnsetType):
            self._case_id = case_id
        if device_state is not None:
            self._device_state = device_state

    def seq(self) -> dict[str, int]:
        """Newest seq of each topic.  Any thread."""
        return self._mailbox.seq()

    def stats(self) -> ServiceStats:
        """A frozen copy of the counters.  Any thread."""
        stats = copy.deepcopy(self._stats)
        stats.connections = len(self._connections)
        live = [c.outbox for c in list(self._connections.values())]
        stats.stream_dropped_samples += sum(box.dropped_samples for box in live if isinstance(box, StreamOutbox))
        stats.encoded = self._subscriptions.encoded
        return stats

    # ---------------------------------------------------------------- life

    async def start(self, listener: socket.socket) -> None:
        """Serve on a bound, listening Unix socket (see bind.py).  Events published before are kept."""
        if listener.family != socket.AF_UNIX:
            raise IonmdError("the daemon listens on Unix sockets only; never on TCP")
        self._loop = asyncio.get_running_loop()
        self._mailbox.open(self._loop, self._drain)
        listener.setblocking(False)
        self._listener = listener
        self._accept_again()
        self._timer = self._loop.call_later(TICK_S, self._on_timer)
        self._drain()

    async def close(self, reason: str = "the daemon is stopping") -> None:
        """Say goodbye to everybody and stop; the listening socket is left to its owner.  Safe twice."""
        if self._loop is None:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._listener is not None:
            self._loop.remove_reader(self._listener.fileno())
            self._listener = None
            self._accepting = False
        self._drain()
        self._samples.end()
        self._drain()
        for connection in list(self._connections.values()):
            connection.flush()  # what fits into the kernel's buffer still goes: the last alarm before a stop
            connection.cut(reason)
            connection.flush()
            connection.close(reason)
        self._samples.close()

    def _on_timer(self) -> None:
        self.tick()
        if self._loop is not None and self._timer is not None:
            self._timer = self._loop.call_later(TICK_S, self._on_timer)

    def tick(self) -> None:
        """Everything that is due by the clock.  Called every 100 ms; a test calls it after moving its clock."""
        now = self._clock()
        for connection in list(self._connections.values()):
            connection.tick(now)
        self._samples.expire(now)
        self._accept_again()
        self._flush_dirty()

    def now(self) -> float:
        return self._clock()

    # ---------------------------------------------------------------- connections

    def _accept_again(self) -> None:
        if not self._accepting and self._listener is not None and self._loop is not None:
            self._loop.add_reader(self._listener.fileno(), self._accept)
            self._accepting = True

    def _accept(self) -> None:
        if self._listener is None or self._loop is None:
            return
        try:
            sock, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            # out of descriptors: the pending connection stays readable, so wait for the next tick
            log.error("accept_failed", error=error.strerror)
            self._loop.remove_reader(self._listener.fileno())
            self._accepting = False
            return
        sock.setblocking(False)
        try:
            peer = peer_of(sock)
        except OSError:
            sock.close()
            return
        refusal = ""
        if peer.uid == OVERFLOW_UID:
            refusal = "your user has no identity here (uid 65534, a private user namespace); connect from outside it"
        elif len(self._connections) >= self.limits.connections:
            refusal = f"{self.limits.connections} connections are open, none is left; close one"
        elif sum(c.peer.uid == peer.uid for c in self._connections.values()) >= self.limits.per_uid:
            refusal = f"your user holds {self.limits.per_uid} connections, none is left; close one"
        if refusal:
            self._refuse(sock, peer.uid, refusal)
            return
        connection = Connection(sock, peer, self, self._loop)
        self._connections[connection.id] = connection
        self._stats.accepted += 1
        rights = self._rights(connection)
        connection.reply(
            hello_line(self._version, self._boot_id, self._source, self._case_id, self._device_state, rights)
        )
        self._flush_dirty()

    def _refuse(self, sock: socket.socket, uid: int, reason: str) -> None:
        self._stats.refused += 1
        log.warning("connection_refused", uid=uid, reason=reason)
        with contextlib.suppress(OSError):  # it is told if it listens
            sock.send(notification_line("goodbye", {"reason": reason}))
        sock.close()

    def _rights(self, connection: Connection) -> Rights:
        return rights_of(connection.peer, self._source, self._groups, self._own_uid)

    def touch(self, connection: Connection) -> None:
        self._dirty.add(connection)
        if not self._flush_due and self._loop is not None:
            self._flush_due = True
            self._loop.call_soon(self._flush_dirty)

    def _flush_dirty(self) -> None:
        self._flush_due = False
        while self._dirty:
            connection = self._dirty.pop()
            connection.flush()
            connection.check_hard_limit()

    def on_input_ended(self, connection: Connection, reason: str) -> None:
        if connection.asked_for_lease:
            self._backend.lease_lost(connection.id, reason)
        self._subscriptions.forget(connection)

    def on_gone(self, connection: Connection) -> None:
        self._connections.pop(connection.id, None)
        self._dirty.discard(connection)
        self._subscriptions.forget(connection)
        if isinstance(connection.outbox, Outbox):
            self._stats.coalesced += connection.outbox.superseded
        else:
            self._stats.stream_dropped_samples += connection.outbox.dropped_samples
        self._samples.detach(connection)
        if connection.was_cut:
            self._stats.cut += 1
            log.warning("connection_cut", connection=connection.id, uid=connection.peer.uid, reason=connection.reason)
        if connection.denied:
            log.warning("requests_denied", connection=connection.id, uid=connection.peer.uid, count=connection.denied)

    # ---------------------------------------------------------------- what comes and goes

    def is_urgent(self, line: bytes) -> bool:
        return self._requests.is_urgent(line)

    def on_line(self, connection: Connection, line: bytes) -> bool:
        return self._requests.on_line(connection, line)

    def _drain(self) -> None:
        for item in self._mailbox.drain():
            if isinstance(item, Published):
                self._stats.events += 1
                self._subscriptions.hand_on(item)
                continue
            try:
                item()
            except Exception:
                log.exception("action_failed")  # one reader's trouble is not the others'
        self._flush_dirty()
