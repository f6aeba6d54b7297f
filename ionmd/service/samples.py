"""Tokens and hubs: from `stream.open` to a connection that carries samples.

In: specs, tokens that come back on a second connection.  Out: connections attached to hubs.
Always: a token is good once, for its user, for `token_s`; equal specs share one source; a source without readers and
tokens is closed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from ionmd.errors import INVALID_REQUEST, LIMIT
from ionmd.service.backend import Backend, Limits, StreamSpec
from ionmd.service.connection import Connection
from ionmd.service.frames import Cause
from ionmd.service.rpc import RpcError, encode
from ionmd.service.schema import StreamLayout, StreamOpen
from ionmd.service.stream import Hub


@dataclass
class _Token:
    hub: Hub
    uid: int
    until: float


class SampleDesk:
    """Service thread only, but for `post`, which brings a source's samples there."""

    def __init__(
        self, backend: Backend, boot_id: str, limits: Limits, post: Callable[[Callable[[], None]], None],
        make_token: Callable[[], str],
    ) -> None:  # fmt: skip
        self._backend, self._boot_id, self._limits, self._post = backend, boot_id, limits, post
        self._make_token = make_token
        self._hubs: dict[StreamSpec, Hub] = {}
        self._tokens: dict[str, _Token] = {}

    def open(self, connection: Connection, params: StreamOpen, now: float) -> dict[str, object]:
        """The answer to stream.open.  Raises Refused when there is no such source, RpcError for too many tokens."""
        if len(self._tokens) >= self._limits.connections:
            raise RpcError(LIMIT, "too many stream tokens are unused; use or let them expire")
        spec = StreamSpec(params.kind, tuple(params.channels))
        hub = self._hubs.get(spec)
        if hub is None or hub.ended:
            hub = Hub(spec, self._backend.open_stream(spec), self._post)
            self._hubs[spec] = hub
        token = self._make_token()
        self._tokens[token] = _Token(hub, connection.peer.uid, now + self._limits.token_s)
        hub.tokens += 1
        return {"token": token, "expires_s": self._limits.token_s, "layout": self._layout(hub)}

    def attach(self, connection: Connection, name: object, now: float) -> None:
        """A connection presents its token: from here on it carries samples.  Raises RpcError."""
        token = self._tokens.get(name) if isinstance(name, str) else None
        if token is None or token.uid != connection.peer.uid or now > token.until:
            raise RpcError(INVALID_REQUEST, "stream: no such token for your user; stream.open gives one, for one use")
        if connection.subscribed or connection.in_flight or connection.asked_for_lease:
            raise RpcError(INVALID_REQUEST, "stream: this connection is in use; open one for the samples alone")
        del self._tokens[str(name)]
        token.hub.tokens -= 1
        connection.become_stream(token.hub, encode(self._layout(token.hub)) + b"\n")
        token.hub.attach(connection)

    def detach(self, connection: Connection) -> None:
        if connection.hub is not None:
            connection.hub.detach(connection)
            self._drop_idle(connection.hub)

    def expire(self, now: float) -> None:
        """Tokens that nobody used in time."""
        for name in [name for name, token in self._tokens.items() if now > token.until]:
            token = self._tokens.pop(name)
            token.hub.tokens -= 1
            self._drop_idle(token.hub)

    def end(self) -> None:
        """The daemon stops: readers get their end frame."""
        for hub in self._hubs.values():
            hub.end(Cause.CLOSING)

    def close(self) -> None:
        for hub in self._hubs.values():
            hub.source.close()
        self._hubs.clear()
        self._tokens.clear()

    def _layout(self, hub: Hub) -> StreamLayout:
        return msgspec.structs.replace(hub.layout, boot_id=self._boot_id)

    def _drop_idle(self, hub: Hub) -> None:
        if hub.idle:
            hub.source.close()
            if self._hubs.get(hub.spec) is hub:
                del self._hubs[hub.spec]
