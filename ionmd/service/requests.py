"""One line of a client -> its answer: rate, method, role, params, then the backend or the socket itself.

Always: a request reaches the backend only after framing, JSON, method, role and params were checked; the reply of a
changing method goes out when the backend's future completes, never before; stim.off waits for nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future

import msgspec
import structlog

from ionmd.errors import FORBIDDEN, LIMIT, RESUME_LOST, IonmdError
from ionmd.service.backend import Backend, Call, Caller, Denied, Limits, ServiceStats
from ionmd.service.connection import Connection
from ionmd.service.describe import describe
from ionmd.service.mailbox import Mailbox
from ionmd.service.roles import Rights, allowed
from ionmd.service.rpc import (
    Request,
    RpcError,
    checked_params,
    encode,
    error_line,
    error_of,
    find_method,
    parse_line,
    parse_request,
    result_line,
)
from ionmd.service.samples import SampleDesk
from ionmd.service.schema import Params, StreamOpen, Subscribe, Unsubscribe
from ionmd.service.subscriptions import ResumeLost, Subscriptions

_WITH_SEQ = frozenset({"status", "snapshot"})

log = structlog.get_logger("ionmd.service")


class Requests:
    """Service thread only.  `drain` hands on whatever was published so far."""

    def __init__(
        self, backend: Backend, boot_id: str, limits: Limits, clock: Callable[[], float], stats: ServiceStats,
        mailbox: Mailbox, subscriptions: Subscriptions, samples: SampleDesk,
        rights: Callable[[Connection], Rights], drain: Callable[[], None], on_denied: Denied | None,
    ) -> None:  # fmt: skip
        self._backend, self._boot_id, self._limits, self._clock = backend, boot_id, limits, clock
        self._stats, self._mailbox = stats, mailbox
        self._subscriptions, self._samples = subscriptions, samples
        self._rights, self._drain, self._on_denied = rights, drain, on_denied
        self._stim_tokens = limits.stim_per_s
        self._stim_tokens_at = clock()

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
        """False: not now; offer the line again."""
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
                self._samples.attach(connection, value["stream"], self._clock())
                return True
            request = parse_request(value)
            id, notification = request.id, request.notification
            self._execute(connection, request)
        except RpcError as error:
            error.id = id if error.id is None else error.id
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

    # ---------------------------------------------------------------- rates

    def _rate_token(self, connection: Connection) -> bool:
        now = self._clock()
        filled = connection.tokens + (now - connection.tokens_at) * self._limits.requests_per_s
        connection.tokens = min(filled, float(self._limits.burst))
        connection.tokens_at = now
        if connection.tokens < 1.0:
            return False
        connection.tokens -= 1.0
        return True

    def _stim_token(self) -> bool:
        """arm and fire of the whole daemon: a bound that holds whoever asks."""
        now = self._clock()
        rate = self._limits.stim_per_s
        self._stim_tokens = min(self._stim_tokens + (now - self._stim_tokens_at) * rate, rate)
        self._stim_tokens_at = now
        if self._stim_tokens < 1.0:
            return False
        self._stim_tokens -= 1.0
        return True

    # ---------------------------------------------------------------- to the backend

    def _execute(self, connection: Connection, request: Request) -> None:
        method = find_method(request)
        caller = self._caller(connection)
        if not allowed(request.method, caller.roles):
            self._deny(connection, caller, request, method.roles)
        if request.method == "stim.off":  # on_line did it
            if not request.notification:
                connection.reply(result_line(request.id, b'{"off":true}'))
            return
        params = checked_params(request, method)
        if method.local:
            self._local(connection, request, params)
            return
        if request.method in ("stim.arm", "stim.fire") and not self._stim_token():
            rate = self._limits.stim_per_s
            raise RpcError(LIMIT, f"more than {rate:g} arm and fire requests per second; wait, arm again")
        if request.method == "stim.acquire":
            connection.asked_for_lease = True
        self._hand_over(connection, request, Call(request.method, params, caller))

    def _caller(self, connection: Connection) -> Caller:
        return Caller(connection.id, connection.peer.uid, connection.peer.gid, self._rights(connection).roles)

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
            seq = self._mailbox.seq() if call.method in _WITH_SEQ else None
            self._mailbox.post(lambda: self._complete(connection, request, call, done, seq))

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
        connection.wake()  # even without a reply: a connection at its end of input may now close

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
            result: object = self._subscriptions.unsubscribe(connection, params)
        elif isinstance(params, StreamOpen):
            result = self._samples.open(connection, params, self._clock())
        else:
            result = describe()
        connection.reply(result_line(request.id, encode(result)))

    def _subscribe(self, connection: Connection, request: Request, params: Subscribe) -> None:
        self._drain()  # what is published up to here belongs to before
        if not connection.serving:
            return
        newest = self._mailbox.seq()
        try:
            answer = self._subscriptions.subscribe(connection, params, newest)
        except ResumeLost:
            self._resume_lost(connection, request)
            return
        connection.reply(result_line(request.id, encode(answer)))
        self._subscriptions.catch_up(connection, params, newest)

    def _resume_lost(self, connection: Connection, request: Request) -> None:
        """An error that carries what the client needs to go on: the snapshot and the seq it belongs to."""
        future = self._backend.submit(Call("snapshot", Params(), self._caller(connection)))
        connection.in_flight.add(future)

        def completed(done: Future[object]) -> None:
            seq = self._mailbox.seq()
            self._mailbox.post(lambda: answer(done, seq))

        def answer(done: Future[object], seq: dict[str, int]) -> None:
            connection.in_flight.discard(done)
            failed = done.cancelled() or done.exception() is not None
            data: dict[str, object] = {"boot_id": self._boot_id, "seq": seq, "oldest": self._subscriptions.oldest()}
            data["snapshot"] = None if failed else done.result()
            text = "events were missed: another boot_id, or more than are kept; subscribe again from this snapshot"
            connection.reply(error_line(RpcError(RESUME_LOST, text, request.id, data)))

        future.add_done_callback(completed)
