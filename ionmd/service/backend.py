"""What the socket needs from the pipeline: a place to hand requests to, and samples to pass on.

The service thread owns sockets and nothing clinical; the pipeline thread owns everything clinical and no socket.
They meet here: requests go down as `Call`, results come back as a future, events come up through
`Server.publish`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol

from ionmd.service.schema import Params, StreamLayout


@dataclass(frozen=True)
class Caller:
    """Who asked: the kernel's word for uid and gid at connect time, never pid or executable."""

    connection_id: int
    uid: int
    gid: int
    roles: frozenset[str]


@dataclass(frozen=True)
class Call:
    """One checked request; `params` is an instance of METHODS[method].params."""

    method: str
    params: Params
    caller: Caller


@dataclass(frozen=True)
class StreamSpec:
    """What stream.open asked for.  Equal specs share one source."""

    kind: str  # raw, filtered, emg_audio
    channels: tuple[str, ...] = ()


class Sink(Protocol):
    """Where a source puts samples: safe from any thread, never blocks, keeps what it is given."""

    def push(self, first: int, data: bytes | memoryview, n: int, flags: int = 0) -> None:
        """`n` rows `[sample, channel]`, row i of case sample `first + i * layout.step`; the bytes of `data` must never
        change afterwards.  Flags are those of frames.FrameFlag."""

    def gap(self, first: int, lost: int, cause: int) -> None:
        """`lost` samples from `first` will never come; causes are those of frames.Cause."""

    def end(self, cause: int) -> None:
        """The layout no longer holds (device gone or another one): readers are told and disconnected."""


class StreamSource(Protocol):
    """Samples of one StreamSpec."""

    layout: StreamLayout

    def start(self, sink: Sink) -> None:
        """From the next block on, hand every block to `sink`."""

    def close(self) -> None:
        """No call of the sink begins after this returns.  Safe twice."""


class Backend(Protocol):
    def submit(self, call: Call) -> Future[object]:
        """Queue a request.  Completes with a msgspec-encodable value, for a changing method after its journal line is
        on disk; or raises ionmd.errors.Refused or another IonmdError."""

    def stim_off(self, caller: Caller) -> None:
        """Outputs off now, from any thread."""

    def lease_lost(self, connection_id: int, reason: str) -> None:
        """This connection is gone.  Called for every connection that asked for a lease, perhaps twice; a connection
        that holds none is ignored."""

    def open_stream(self, spec: StreamSpec) -> StreamSource:
        """Raises Refused when a channel is unknown or no device gives samples."""


@dataclass(frozen=True)
class Limits:
    """Fault matrix 2.7.  One place, so that a test can make them small."""

    connections: int = 64
    per_uid: int = 32  # a cart's front ends run as one user: screen, sample streams, gateway
    requests_per_s: float = 50.0
    burst: int = 100
    stim_per_s: float = 20.0  # arm and fire, whole daemon
    in_flight: int = 64  # requests of one connection that wait for their reply
    partial_line_s: float = 5.0
    reply_pause_bytes: int = 256 * 1024  # unread replies: requests are not read any more
    soft_bytes: int = 2 * 1024 * 1024
    soft_s: float = 5.0
    resume_s: float = 60.0  # to read all that a resume sends
    hard_bytes: int = 8 * 1024 * 1024
    keyed_keys: int = 1024
    keyed_bytes: int = 4 * 1024 * 1024
    stream_bytes: int = 4 * 1024 * 1024
    stream_stall_s: float = 30.0
    goodbye_s: float = 2.0  # a cut client may still read the reason for this long
    token_s: float = 10.0
    history: int = 10_000


@dataclass
class ServiceStats:
    """Counters since start; `Server.stats()` gives a copy."""

    connections: int = 0
    accepted: int = 0
    refused: int = 0
    cut: int = 0
    requests: int = 0
    denied: int = 0
    bad_lines: int = 0
    events: int = 0
    encoded: int = 0
    coalesced: int = 0
    stream_dropped_samples: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


Denied = Callable[[Caller, str], None]
