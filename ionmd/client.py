"""A client of the daemon: requests that return or raise, events in order, samples.

In: paths to try.  Out: results as plain dicts, events as Event.  Always: what does not answer in time is
DaemonUnreachable; a refusal is Refused with the code of docs/socket.md; events that arrive while a request waits
are kept, never lost.  Synchronous, for one thread.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec

from ionmd.errors import DaemonUnreachable, Refused
from ionmd.service.schema import PROTOCOL, Event, Hello, StreamLayout

_HEADER = struct.Struct("<IBBHQQIHBBII")  # docs/socket.md, binary frames
_MAGIC = int.from_bytes(b"IONS", "little")
SAMPLES, GAP, END = 1, 2, 3
MUTED, CLIPPED, STIMULUS, RESTARTED, CAUTERY = 1, 2, 4, 8, 16


class _Line(msgspec.Struct):
    """Any line of the server; unknown members are ignored, as the protocol asks."""

    method: str | None = None
    params: msgspec.Raw = msgspec.Raw(b"{}")
    id: int | str | None = None
    result: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    error: dict[str, Any] | None = None


_decode_line = msgspec.json.Decoder(_Line).decode
_decode_event = msgspec.json.Decoder(Event).decode
_decode_hello = msgspec.json.Decoder(Hello).decode


LOOK_S = 0.5


class _Wire:
    """A connected socket, read by lines or by bytes, with a deadline."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self._buffer = bytearray()
        self._scanned = 0
        self.path = path
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            self.sock.settimeout(timeout_s)
            self.sock.connect(os.fspath(path))
        except OSError:
            self.sock.close()
            raise

    def send(self, data: bytes, timeout_s: float) -> None:
        try:
            self.sock.settimeout(timeout_s)
            self.sock.sendall(data)
        except TimeoutError:
            raise DaemonUnreachable(f"the daemon on {self.path} takes no requests for {timeout_s:g} s") from None
        except OSError as error:
            raise DaemonUnreachable(f"the daemon on {self.path} is gone: {error.strerror}") from None

    def line(self, deadline: float | None) -> bytes | None:
        """The next line without its newline; None when the deadline passed; b"" at the end."""
        while True:
            at = self._buffer.find(b"\n", self._scanned)
            if at >= 0:
                line = bytes(self._buffer[:at])
                del self._buffer[: at + 1]
                self._scanned = 0
                return line
            self._scanned = len(self._buffer)
            more = self._more(deadline)
            if not more:
                return more

    def exactly(self, count: int, deadline: float | None) -> bytes | None:
        """`count` bytes; None when the deadline passed (what came is kept); b"" at the end."""
        while len(self._buffer) < count:
            more = self._more(deadline)
            if not more:
                return more
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        return data

    def _more(self, deadline: float | None) -> bytes | None:
        while True:
            left = LOOK_S if deadline is None else max(deadline - time.monotonic(), 0.0)
            # no wait is endless: a signal just before it would be seen only when the next bytes come
            ready, _, _ = select.select([self.sock], [], [], min(left, LOOK_S))
            if ready:
                break
            if deadline is not None and left <= LOOK_S:
                return None
        try:
            data = self.sock.recv(256 * 1024)
        except OSError:
            return b""
        self._buffer += data
        return data

    def fileno(self) -> int:
        return self.sock.fileno()

    def close(self) -> None:
        self.sock.close()


def _connect(paths: Sequence[Path], timeout_s: float) -> tuple[_Wire, Hello]:
    """The first path that answers with a hello we understand."""
    tried: list[str] = []
    for path in paths:
        try:
            wire = _Wire(path, timeout_s)
        except OSError as error:
            tried.append(f"{path} ({error.strerror or error})")
            continue
        try:
            return wire, _read_hello(wire, timeout_s)
        except BaseException:
            wire.close()
            raise
    where = ", ".join(tried) or "no path at all"
    raise DaemonUnreachable(f"no daemon answers; tried {where}; start it with `ionmd run`, or name its --socket")


def _read_hello(wire: _Wire, timeout_s: float) -> Hello:
    line = wire.line(time.monotonic() + timeout_s)
    if line is None:
        raise DaemonUnreachable(f"{wire.path} accepts but says no hello within {timeout_s:g} s")
    try:
        message = _decode_line(line)
        if message.method == "goodbye":
            reason = msgspec.json.decode(message.params).get("reason", "")
            raise DaemonUnreachable(f"the daemon on {wire.path} closed the connection: {reason}")
        if message.method != "hello":
            raise DaemonUnreachable(f"{wire.path} speaks, but not the ionmd protocol: no hello came")
        protocol = msgspec.json.decode(message.params).get("protocol")
        if not isinstance(protocol, list) or not protocol or protocol[0] != PROTOCOL[0]:
            raise DaemonUnreachable(
                f"the daemon on {wire.path} speaks protocol {protocol}, this client {PROTOCOL[0]}.x; "
                "update the older one"
            )
        return _decode_hello(message.params)
    except msgspec.MsgspecError:
        raise DaemonUnreachable(f"{wire.path} speaks, but not the ionmd protocol: {line[:60]!r} came") from None


def _as_paths(paths: str | Path | Sequence[str | Path]) -> list[Path]:
    return [Path(paths)] if isinstance(paths, (str, Path)) else [Path(path) for path in paths]


class Client:
    """`with Client(path) as client: client.call("status")`.  `hello` is what the server said first."""

    def __init__(self, paths: str | Path | Sequence[str | Path], timeout_s: float = 5.0) -> None:
        self._paths = _as_paths(paths)
        self._timeout_s = timeout_s
        self._events: deque[Event] = deque()
        self._next_id = 0
        self._goodbye = ""
        self._wire, self.hello = _connect(self._paths, timeout_s)
        self.path = self._wire.path

    def call(self, method: str, /, timeout_s: float | None = None, **params: Any) -> Any:
        """The result of one request.  Raises Refused for an error reply, DaemonUnreachable when none comes in time."""
        wait_s = self._timeout_s if timeout_s is None else timeout_s
        self._next_id += 1
        request = {"jsonrpc": "2.0", "id": self._next_id, "method": method, "params": params}
        self._wire.send(msgspec.json.encode(request) + b"\n", wait_s)
        deadline = time.monotonic() + wait_s
        while True:
            message = self._message(deadline)
            if message is None:
                raise DaemonUnreachable(f"the daemon on {self.path} did not answer {method} within {wait_s:g} s")
            if message.method is None and message.id in (self._next_id, None):
                return _outcome(message)

    def notify(self, method: str, /, **params: Any) -> None:
        """A request without an answer."""
        self._wire.send(
            msgspec.json.encode({"jsonrpc": "2.0", "method": method, "params": params}) + b"\n", self._timeout_s
        )

    def subscribe(self, *topics: str, resume_from: dict[str, Any] | None = None) -> Any:
        if resume_from is None:
            return self.call("subscribe", topics=list(topics))
        return self.call("subscribe", topics=list(topics), resume_from=resume_from)

    def events(self, timeout_s: float | None = None) -> Iterator[Event]:
        """Events as they come; ends when none came for `timeout_s`.  Raises DaemonUnreachable when the daemon goes."""
        while True:
            if self._events:
                yield self._events.popleft()
                continue
            deadline = None if timeout_s is None else time.monotonic() + timeout_s
            while not self._events:
                if self._message(deadline) is None:
                    return

    def open_stream(self, kind: str, channels: Sequence[str] = ()) -> SampleStream:
        """Samples on a connection of their own."""
        opened = self.call("stream.open", kind=kind, channels=list(channels))
        return SampleStream(self.path, opened["token"], self._timeout_s)

    def fileno(self) -> int:
        """For select(); buffered events do not make it readable, see `pending`."""
        return self._wire.fileno()

    @property
    def pending(self) -> int:
        """Events that were received and not yet taken."""
        return len(self._events)

    def close(self) -> None:
        self._wire.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _message(self, deadline: float | None) -> _Line | None:
        """One line of the server; events are put aside."""
        line = self._wire.line(deadline)
        if line is None:
            return None
        if line == b"":
            reason = f": {self._goodbye}" if self._goodbye else ""
            raise DaemonUnreachable(f"the daemon on {self.path} closed the connection{reason}")
        try:
            message = _decode_line(line)
            if message.method == "event":
                self._events.append(_decode_event(message.params))
            elif message.method == "goodbye":
                self._goodbye = str(msgspec.json.decode(message.params).get("reason", ""))
        except msgspec.MsgspecError as error:
            raise DaemonUnreachable(f"the daemon on {self.path} sent a line that is no message: {error}") from None
        return message


def _outcome(message: _Line) -> Any:
    if message.error is not None:
        raise Refused(
            str(message.error.get("message", "refused")),
            int(message.error.get("code", 0)),
            dict(message.error.get("data") or {}),
        )
    return None if isinstance(message.result, msgspec.UnsetType) else msgspec.json.decode(message.result)


@dataclass(frozen=True)
class StreamFrame:
    """One frame: `payload` is `[sample, channel]`, little-endian, of the layout's dtype; a gap lost `n` samples."""

    kind: int  # SAMPLES, GAP, END
    seq: int
    first: int
    n: int
    flags: int
    cause: int
    payload: bytes


class SampleStream:
    """Frames of one stream; `layout` says what they hold."""

    def __init__(self, path: Path, token: str, timeout_s: float = 5.0) -> None:
        self._wire, self.hello = _connect([path], timeout_s)
        self._wire.send(msgspec.json.encode({"stream": token}) + b"\n", timeout_s)
        line = self._wire.line(time.monotonic() + timeout_s)
        if not line:
            raise DaemonUnreachable(f"the daemon on {path} did not begin the stream")
        answer = msgspec.json.decode(line)
        if "error" in answer:
            self._wire.close()
            raise Refused(str(answer["error"].get("message", "refused")), int(answer["error"].get("code", 0)))
        self.layout = msgspec.convert(answer, StreamLayout)
        self._header: bytes | None = None

    def frames(self, timeout_s: float | None = None) -> Iterator[StreamFrame]:
        """Frames as they come; ends after the END frame, at the end of the connection, or when none came in time."""
        while True:
            deadline = None if timeout_s is None else time.monotonic() + timeout_s
            if self._header is None:
                self._header = self._wire.exactly(_HEADER.size, deadline)
                if not self._header:
                    self._header = None
                    return
            magic, version, kind, flags, seq, first, n, _channels, _dtype, cause, size, _ = _HEADER.unpack(self._header)
            if magic != _MAGIC or version != 1:
                raise DaemonUnreachable("the sample stream lost its framing; open it again")
            payload = self._wire.exactly(size, deadline) if size else b""
            if size and not payload:
                return
            self._header = None
            yield StreamFrame(kind, seq, first, n, flags, cause, payload or b"")
            if kind == END:
                return

    def fileno(self) -> int:
        return self._wire.fileno()

    def close(self) -> None:
        self._wire.close()

    def __enter__(self) -> SampleStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
