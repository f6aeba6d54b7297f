"""Events: numbered when published, encoded once when somebody wants them, kept for those who resume.

In: `publish` from any thread.  Out: Encoded lines for the outboxes.
Always: `seq` is per topic, global and without holes at the publisher; the ring of a lossless topic holds at least
the last `history` events, except cumulative ones (`case {"committed"}`), of which only the newest is kept.
"""

from __future__ import annotations

import datetime
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass

from ionmd.service.queues import Encoded
from ionmd.service.rpc import encode
from ionmd.service.schema import LOSSLESS, TOPICS


@dataclass(frozen=True, slots=True)
class Published:
    """One event on its way from the publisher's thread to the service thread."""

    topic: str
    seq: int
    sample: int
    n: int | None
    key: str | None
    unix_ns: int
    data: object


def rfc3339(unix_ns: int) -> str:
    """UTC with microseconds; by integers, so that the last digit is the clock's."""
    seconds, ns = divmod(unix_ns, 1_000_000_000)
    stamp = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    return f"{stamp:%Y-%m-%dT%H:%M:%S}.{ns // 1000:06d}Z"


class Ring:
    """The last events of one lossless topic."""

    def __init__(self, depth: int) -> None:
        self._events: deque[Encoded] = deque(maxlen=depth)
        self._cumulative: dict[str, Encoded] = {}
        self._floor = 0  # everything above this seq is still here

    def add(self, event: Encoded) -> None:
        if event.key is not None:
            self._cumulative[event.key] = event
            return
        if len(self._events) == self._events.maxlen:
            self._floor = self._events[0].seq
        self._events.append(event)

    @property
    def oldest(self) -> int:
        """Smallest seq that a client may resume from."""
        return self._floor

    def after(self, seq: int) -> list[Encoded]:
        """Events newer than `seq`, in order.  The caller has checked seq >= oldest."""
        events = list(self._events)
        newer = events[bisect_right(events, seq, key=lambda event: event.seq) :]
        newer += [event for event in self._cumulative.values() if event.seq > seq]
        return sorted(newer, key=lambda event: event.seq)


class Topics:
    """Rings and encoding; used by the service thread only."""

    def __init__(self, boot_id: str, history: int) -> None:
        self._boot = encode(boot_id)
        self.rings = {topic: Ring(history) for topic in TOPICS if topic in LOSSLESS}
        self.encoded = 0

    def take(self, event: Published, wanted: bool) -> Encoded | None:
        """The event as bytes; None when nobody wants it and it need not be kept."""
        ring = self.rings.get(event.topic)
        if ring is None and not wanted:
            return None
        self.encoded += 1
        done = Encoded(
            event.topic,
            event.seq,
            b'{"jsonrpc":"2.0","method":"event","params":{"topic":"%s","seq":%d,' % (event.topic.encode(), event.seq),
            b'"n":%s,"boot_id":%s,"sample":%d,"t_utc":"%s","data":%s}}\n'
            % (encode(event.n), self._boot, event.sample, rfc3339(event.unix_ns).encode(), encode(event.data)),
            event.key,
        )
        if ring is not None:
            ring.add(done)
        return done

    def resumable(self, topic: str, seq: int, newest: int) -> bool:
        if seq > newest:
            return False  # from the future: another daemon's number
        ring = self.rings.get(topic)
        return ring is None or seq >= ring.oldest
