"""The socket: accepts, checks, hands requests to the Backend, sends replies and events.

In: a listening Unix socket, a Backend, events from any thread by `publish`.  Out: lines and sample frames.
Always: a request reaches the Backend only after framing, JSON, method, role and params were checked; the reply
of a changing method goes out when the Backend's future completes, never before; stim.off waits for nothing;
publish never blocks, and a slow, broken or hostile client costs only its own connection.
Runs on one asyncio loop; all methods without a thread note belong to that loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass

import msgspec
import structlog

from ionmd.errors import FORBIDDEN, INVALID_PARAMS, INVALID_REQUEST, LIMIT, RESUME_LOST, IonmdError
from ionmd.service.backend import Backend, Call, Caller, Denied, Limits, ServiceStats, StreamSpec
from ionmd.service.connection import Connection
from ionmd.service.describe import describe
from ionmd.service.hello import hello_line
from ionmd.service.queues import Outbox
from ionmd.service.roles import OVERFLOW_UID, GroupLookup, Rights, allowed, peer_of, rights_of, system_groups
from ionmd.service.rpc import (
    Request,
    RpcError,
    checked_params,
    encode,
    error_line,
    error_of,
    find_method,
    notification_line,
    parse_line,
    parse_request,
    result_line,
)
from ionmd.service.schema import LOSSLESS, TOPICS, Params, StreamOpen, Subscribe, Unsubscribe
from ionmd.service.stream import Cause, Hub
from ionmd.service.topics import Published, Topics

TICK_S = 0.1
_WITH_SEQ = frozenset({"status", "snapshot"})

log = structlog.get_logger("ionmd.service")


@dataclass
class _Token:
    hub: Hub
    uid: int
    until: float


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
        self._wall_ns = wall_ns
        self._make_token = make_token
        self._on_denied = on_denied
        self._stats = ServiceStats()
        self._connections: dict[int, Connection] = {}
        self._dirty: set[Connection] = set()
        self._flush_due = False
        self._topics = Topics(boot_id, self.limits.history)
        self._wanted: dict[str, list[Connection]] = {topic: [] for topic in TOPICS}
        self._hubs: dict[StreamSpec, Hub] = {}
        self._tokens: dict[str, _Token] = {}
        self._stim_tokens = self.limits.stim_per_s
        self._stim_tokens_at = clock()
        self._listener: socket.socket | None = None
        self._accepting = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        # shared with other threads
        self._lock = threading.Lock()
        self._incoming: deque[Published | Callable[[], None]] = deque()
        self._woken = False
        self._seq = dict.fromkeys(TOPICS, 0)
        self._last_sample = 0

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
            return self._publish(topic, data, sample, n, None)
        if topic not in TOPICS:
            raise ValueError(f"topic {topic!r} came, one of {', '.join(TOPICS)} was expected")
        if key is None:
            key = str(data.get("test", "") if isinstance(data, dict) else getattr(data, "test", ""))
        return self._publish(topic, data, sample, n, key)

    def committed(self, n: int, sample: int | None = None) -> int:
        """Journal lines up to `n` are on disk.  Any thread."""
        at = self._last_sample if sample is None else sample
        return self._publish("case", {"committed": n}, at, None, "committed")

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
        with self._lock:
            return dict(self._seq)

    def stats(self) -> ServiceStats:
        """A frozen copy of the counters.  Any thread."""
        stats = copy.deepcopy(self._stats)
        stats.connections = len(self._connections)
        stats.encoded = self._topics.encoded
        return stats

    def _publish(self, topic: str, data: object, sample: int, n: int | None, key: str | None) -> int:
        unix_ns = self._wall_ns()
        with self._lock:  # seq and place in the queue belong together
            seq = self._seq[topic] + 1
            self._seq[topic] = seq
            self._last_sample = sample
            self._incoming.append(Published(topic, seq, sample, n, key, unix_ns, data))
        self._wake()
        return seq

    def _post(self, action: Callable[[], None]) -> None:
        """Run on the service thread, in order with published events.  Any thread."""
        self._incoming.append(action)
        self._wake()

    def _wake(self) -> None:
        loop = self._loop
        if self._woken or loop is None:
            return
        self._woken = True
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to tell
            loop.call_soon_threadsafe(self._drain)

    # ---------------------------------------------------------------- life

    async def start(self, listener: socket.socket) -> None:
        """Serve on a bound, listening Unix socket (see bind.py).  Events published before are kept."""
        if listener.family != socket.AF_UNIX:
            raise IonmdError("the daemon listens on Unix sockets only; never on TCP")
        self._loop = asyncio.get_running_loop()
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
        for hub in list(self._hubs.values()):
            hub.end(Cause.CLOSING)
        self._drain()
        for connection in list(self._connections.values()):
            connection.flush()  # what fits into the kernel's buffer still goes: the last alarm before a stop
            connection.cut(reason)
            connection.flush()
            connection.close(reason)
        for hub in self._hubs.values():
            hub.source.close()
        self._hubs.clear()
        self._tokens.clear()

    def _on_timer(self) -> None:
        self.tick()
        if self._loop is not None and self._timer is not None:
            self._timer = self._loop.call_later(TICK_S, self._on_timer)

    def tick(self) -> None:
        """Everything that is due by the clock.  Called every 100 ms; a test calls it after moving its clock."""
        now = self._clock()
        for connection in list(self._connections.values()):
            connection.tick(now)
        for name in [name for name, token in self._tokens.items() if now > token.until]:
            token = self._tokens.pop(name)
            token.hub.tokens -= 1
            self._drop_idle(token.hub)
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
        self._unfollow(connection)

    def on_gone(self, connection: Connection) -> None:
        self._connections.pop(connection.id, None)
        self._dirty.discard(connection)
        self._unfollow(connection)
        if isinstance(connection.outbox, Outbox):
            self._stats.coalesced += connection.outbox.superseded
        else:
            self._stats.stream_dropped_samples += connection.outbox.dropped_samples
        if connection.hub is not None:
            connection.hub.detach(connection)
            self._drop_idle(connection.hub)
        if connection.was_cut:
            self._stats.cut += 1
            log.warning("connection_cut", connection=connection.id, uid=connection.peer.uid, reason=connection.reason)
        if connection.denied:
            log.warning("requests_denied", connection=connection.id, uid=connection.peer.uid, count=connection.denied)

    def _unfollow(self, connection: Connection) -> None:
        for topic in connection.subscribed:
            if connection in self._wanted[topic]:
                self._wanted[topic].remove(connection)

    # ---------------------------------------------------------------- events

    def _drain(self) -> None:
        self._woken = False  # before emptying: whoever appends from here on wakes us again
        while self._incoming:
            item = self._incoming.popleft()
            if not isinstance(item, Published):
                try:
                    item()
                except Exception:
                    log.exception("action_failed")  # one reader's trouble is not the others'
                continue
            self._stats.events += 1
            readers = self._wanted[item.topic]
            try:
                event = self._topics.take(item, bool(readers))
            except (TypeError, ValueError, msgspec.MsgspecError) as error:
                log.error("event_not_encoded", topic=item.topic, seq=item.seq, error=str(error))
                continue
            if event is not None:
                lossless = item.topic in LOSSLESS
                for connection in readers:
                    connection.send_event(event, lossless)
        self._flush_dirty()

    # ---------------------------------------------------------------- requests

    def is_urgent(self, line: bytes) -> bool:
        """A request to switch off, however wrong the rest of it is."""
        if b"stim.off" not in line:
            return False
        try:
            value = parse_line(line)
        except RpcError:
            return False
        return isinstance(value, dict) and value.get("method") == "stim.off"

    def on_line(self, connection: Connection, line: bytes) -> bool:
        urgent = self.is_urgent(line)
        if not urgent and (connection.replies_full or not self._rate_token(connection)):
            return False
        if urgent:
            self._backend.stim_off(self._caller(connection))  # first; whatever else the line says
        self._stats.requests += 1
        id = None
        notification = False
        try:
            value = parse_line(line)
            if isinstance(value, dict) and "method" not in value and "stream" in value:
                self._attach_stream(connection, value)
                return True
            request = parse_request(value)
            id, notification = request.id, request.notification
            self._execute(connection, request)
        except RpcError as error:
            if error.id is None and not notification:
                self._stats.bad_lines += 1
            if not notification:
                connection.reply(error_line(error))
        except Exception as error:
            if not isinstance(error, IonmdError):
                log.exception("request_failed")
            if not notification:
                connection.reply(error_line(error_of(error, id)))
        return True

    def _rate_token(self, connection: Connection) -> bool:
        now = self._clock()
        filled = connection.tokens + (now - connection.tokens_at) * self.limits.requests_per_s
        connection.tokens = min(filled, float(self.limits.burst))
        connection.tokens_at = now
        if connection.tokens < 1.0:
            return False
        connection.tokens -= 1.0
        return True

    def _stim_token(self) -> bool:
        """arm and fire of the whole daemon: a bound that holds whoever asks."""
        now = self._clock()
        rate = self.limits.stim_per_s
        self._stim_tokens = min(self._stim_tokens + (now - self._stim_tokens_at) * rate, rate)
        self._stim_tokens_at = now
        if self._stim_tokens < 1.0:
            return False
        self._stim_tokens -= 1.0
        return True

    def _caller(self, connection: Connection) -> Caller:
        roles = self._rights(connection).roles
        return Caller(connection.id, connection.peer.uid, connection.peer.gid, roles)

    def _execute(self, connection: Connection, request: Request) -> None:
        method = find_method(request)
        caller = self._caller(connection)
        if not allowed(request.method, caller.roles):
            self._deny(connection, caller, request, method.roles)
        if request.method == "stim.off":  # done in on_line
            if not request.notification:
                connection.reply(result_line(request.id, b'{"off":true}'))
            return
        params = checked_params(request, method)
        if method.local:
            self._local(connection, request, params)
            return
        if request.method in ("stim.arm", "stim.fire") and not self._stim_token():
            rate = self.limits.stim_per_s
            raise RpcError(LIMIT, f"more than {rate:g} arm and fire requests per second; wait, arm again", request.id)
        if request.method == "stim.acquire":
            connection.asked_for_lease = True
        self._hand_over(connection, request, Call(request.method, params, caller))

    def _deny(self, connection: Connection, caller: Caller, request: Request, needs: frozenset[str]) -> None:
        self._stats.denied += 1
        if connection.denied == 0:  # then counted; a summary follows when it disconnects
            log.warning("request_denied", connection=connection.id, uid=caller.uid, method=request.method)
        connection.denied += 1
        if self._on_denied is not None:
            self._on_denied(caller, request.method)
        have = ", ".join(sorted(caller.roles)) or "no role"
        want = " or ".join(sorted(needs))
        raise RpcError(
            FORBIDDEN,
            f"{request.method} needs the role {want}; you have {have}. The group ionmd-{sorted(needs)[0]} gives it",
            request.id,
            {"needs": sorted(needs), "roles": sorted(caller.roles)},
        )

    def _hand_over(self, connection: Connection, request: Request, call: Call) -> None:
        future = self._backend.submit(call)
        connection.in_flight.add(future)

        def completed(done: Future[object]) -> None:
            # in the completing thread: for status and snapshot that is the pipeline, between two events
            seq = self.seq() if call.method in _WITH_SEQ else None
            self._post(lambda: self._complete(connection, request, call, done, seq))

        future.add_done_callback(completed)

    def _complete(
        self, connection: Connection, request: Request, call: Call, done: Future[object], seq: dict[str, int] | None
    ) -> None:
        connection.in_flight.discard(done)
        if not connection.serving and call.method == "stim.acquire":
            # granted after its asker had gone: nobody will keep it alive
            self._backend.lease_lost(connection.id, "connection closed before the lease was granted")
        if connection.closed:
            return
        line = self._reply_line(request, done, seq)
        if not request.notification:
            connection.reply(line)
        self.touch(connection)  # even without a reply: a connection at its end of input may now close

    def _reply_line(self, request: Request, done: Future[object], seq: dict[str, int] | None) -> bytes:
        try:
            error = done.exception()
            if error is not None:
                if not isinstance(error, IonmdError):
                    log.error("request_failed", method=request.method, error=repr(error))
                return error_line(error_of(error, request.id))
            return result_line(request.id, self._with_seq(encode(done.result()), seq))
        except CancelledError:
            stopping = IonmdError("the daemon is stopping; the request was not carried out")
            return error_line(error_of(stopping, request.id))
        except (TypeError, ValueError, msgspec.MsgspecError) as error:
            log.error("result_not_encoded", method=request.method, error=str(error))
            return error_line(error_of(error, request.id))

    def _with_seq(self, result: bytes, seq: dict[str, int] | None) -> bytes:
        """boot_id and seq of the moment the result was made, as first members."""
        if seq is None or not result.startswith(b"{"):
            return result
        head = b'{"boot_id":' + encode(self._boot_id) + b',"seq":' + encode(seq)
        return head + (b"}" if result == b"{}" else b"," + result[1:])

    # ---------------------------------------------------------------- methods of the socket itself

    def _local(self, connection: Connection, request: Request, params: Params) -> None:
        if isinstance(params, Subscribe):
            self._subscribe(connection, request, params)
            return
        if isinstance(params, Unsubscribe):
            result: object = self._unsubscribe(connection, params)
        elif isinstance(params, StreamOpen):
            result = self._stream_open(connection, params)
        else:
            result = describe()
        connection.reply(result_line(request.id, encode(result)))

    def _subscribe(self, connection: Connection, request: Request, params: Subscribe) -> None:
        self._drain()  # what is published up to here belongs to before
        if not connection.serving:
            return
        newest = self.seq()
        resume = params.resume_from
        if resume is not None:
            stray = set(resume.seq) - set(params.topics)
            if stray:
                raise RpcError(INVALID_PARAMS, f"resume_from names {min(stray)}, topics does not", request.id)
            lost = resume.boot_id != self._boot_id or not all(
                self._topics.resumable(topic, seq, newest[topic]) for topic, seq in resume.seq.items()
            )
            if lost:
                self._resume_lost(connection, request)
                return
        fresh = [topic for topic in dict.fromkeys(params.topics) if topic not in connection.subscribed]
        for topic in fresh:
            connection.subscribed.add(topic)
            self._wanted[topic].append(connection)
        body = {
            "boot_id": self._boot_id,
            "topics": sorted(connection.subscribed),
            "seq": {topic: newest[topic] for topic in sorted(connection.subscribed)},
        }
        connection.reply(result_line(request.id, encode(body)))
        if not isinstance(connection.outbox, Outbox):
            return
        for topic in fresh:
            after = newest[topic] if resume is None else resume.seq.get(topic, newest[topic])
            connection.outbox.follow(topic, after)
            ring = self._topics.rings.get(topic)
            if ring is not None and after < newest[topic]:
                for event in ring.after(after):
                    connection.send_event(event, True)

    def _resume_lost(self, connection: Connection, request: Request) -> None:
        """An error that carries what the client needs to go on: the snapshot and the seq it belongs to."""
        caller = self._caller(connection)
        future = self._backend.submit(Call("snapshot", Params(), caller))
        connection.in_flight.add(future)

        def completed(done: Future[object]) -> None:
            seq = self.seq()
            self._post(lambda: answer(done, seq))

        def answer(done: Future[object], seq: dict[str, int]) -> None:
            connection.in_flight.discard(done)
            failed = done.cancelled() or done.exception() is not None
            oldest = {topic: ring.oldest for topic, ring in self._topics.rings.items()}
            data: dict[str, object] = {"boot_id": self._boot_id, "seq": seq, "oldest": oldest}
            data["snapshot"] = None if failed else done.result()
            text = "events were missed: another boot_id, or more than are kept; subscribe again from this snapshot"
            connection.reply(error_line(RpcError(RESUME_LOST, text, request.id, data)))

        future.add_done_callback(completed)

    def _unsubscribe(self, connection: Connection, params: Unsubscribe) -> dict[str, object]:
        for topic in params.topics:
            if topic in connection.subscribed:
                connection.subscribed.discard(topic)
                self._wanted[topic].remove(connection)
                if isinstance(connection.outbox, Outbox):
                    connection.outbox.forget(topic)
        return {"boot_id": self._boot_id, "topics": sorted(connection.subscribed)}

    # ---------------------------------------------------------------- samples

    def _stream_open(self, connection: Connection, params: StreamOpen) -> dict[str, object]:
        if len(self._tokens) >= self.limits.connections:
            raise RpcError(LIMIT, "too many stream tokens are unused; use or let them expire")
        spec = StreamSpec(params.kind, tuple(params.channels))
        hub = self._hubs.get(spec)
        if hub is None or hub.ended:
            hub = Hub(spec, self._backend.open_stream(spec), self._post)
            self._hubs[spec] = hub
        token = self._make_token()
        self._tokens[token] = _Token(hub, connection.peer.uid, self._clock() + self.limits.token_s)
        hub.tokens += 1
        return {"token": token, "expires_s": self.limits.token_s, "layout": hub.layout}

    def _attach_stream(self, connection: Connection, value: dict[str, object]) -> None:
        name = value.get("stream")
        token = self._tokens.get(name) if isinstance(name, str) else None
        if token is None or token.uid != connection.peer.uid or self._clock() > token.until:
            raise RpcError(INVALID_REQUEST, "stream: no such token for your user; stream.open gives one, for one use")
        if connection.subscribed or connection.in_flight or connection.asked_for_lease:
            raise RpcError(INVALID_REQUEST, "stream: this connection is in use; open one for the samples alone")
        del self._tokens[str(name)]
        token.hub.tokens -= 1
        layout = msgspec.structs.replace(token.hub.layout, boot_id=self._boot_id)
        connection.become_stream(token.hub, encode(layout) + b"\n")
        token.hub.attach(connection)

    def _drop_idle(self, hub: Hub) -> None:
        if hub.idle:
            hub.source.close()
            if self._hubs.get(hub.spec) is hub:
                del self._hubs[hub.spec]
