"""What waits for one subscriber, by class of back-pressure.

In: reply lines and events.  Out: `take` gives the next buffers to write.
Always: replies and lossless events leave in the order they came and none is dropped (the connection is cut
instead, by its owner, from `bytes`); keyed events keep only the newest of each key, bounded, and the newest
does leave; per topic, seq only rises, and seq == last seq + 1 + skipped.
A resume leaves before everything that came after it.  Its events are the ring's own, so it costs no memory and is not
in `bytes`; it is taken piece by piece, as fast as the reader reads.
A superseded keyed event leaves its place: the newest goes to the end, so one fast key cannot starve a slow one.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Encoded:
    """One event, encoded once for everybody: head ends before `n`, tail begins with it."""

    topic: str
    seq: int
    head: bytes
    tail: bytes
    key: str | None = None  # newest-per-key when set

    def __len__(self) -> int:
        return len(self.head) + len(self.tail)


class _Slot:
    """A place in the ordered queue; emptied when a newer event of its key took over."""

    __slots__ = ("item", "reply")

    def __init__(self, item: bytes | Encoded | None, reply: bool) -> None:
        self.item = item
        self.reply = reply


class Outbox:
    """Queues of one control connection."""

    def __init__(self, keyed_keys: int, keyed_bytes: int) -> None:
        self._resume: deque[tuple[bytes | Encoded, bool]] = deque()  # (what, whether it is in `bytes`)
        self._ordered: deque[_Slot] = deque()
        self._latest: dict[tuple[str, str], _Slot] = {}
        self._keyed: OrderedDict[tuple[str, str], Encoded] = OrderedDict()
        self._last_seq: dict[str, int] = {}
        self._keyed_keys = keyed_keys
        self._keyed_limit = keyed_bytes
        self.bytes = 0  # replies and lossless events: what a cut is decided on
        self.reply_bytes = 0
        self.keyed_bytes = 0
        self.superseded = 0

    def follow(self, topic: str, after_seq: int) -> None:
        """This subscriber has seen everything of `topic` up to `after_seq`."""
        self._last_seq[topic] = after_seq

    def resume(self, events: Iterable[Encoded]) -> None:
        """Events that were missed; what waits already goes before them, what comes from now on after them."""
        self._resume.extend((slot.item, True) for slot in self._ordered if slot.item is not None)
        self._ordered.clear()
        self._latest.clear()
        self._resume.extend((event, False) for event in events)

    @property
    def resuming(self) -> bool:
        return bool(self._resume)

    def forget(self, topic: str) -> None:
        """Drop what waits of a topic: after the unsubscribe reply nothing of it comes."""
        for item, counted in self._resume:
            if counted and isinstance(item, Encoded) and item.topic == topic:
                self.bytes -= len(item)
        self._resume = deque(x for x in self._resume if isinstance(x[0], bytes) or x[0].topic != topic)
        for key in [key for key in self._keyed if key[0] == topic]:
            self.keyed_bytes -= len(self._keyed.pop(key))
        for slot in self._ordered:
            if isinstance(slot.item, Encoded) and slot.item.topic == topic:
                self.bytes -= len(slot.item)
                slot.item = None
        for key in [key for key in self._latest if key[0] == topic]:
            del self._latest[key]

    def reply(self, line: bytes) -> None:
        self._ordered.append(_Slot(line, True))
        self.bytes += len(line)
        self.reply_bytes += len(line)

    def lossless(self, event: Encoded) -> None:
        """An event that must arrive.  With a key it is cumulative (`committed`) and replaces its forerunner."""
        slot = _Slot(event, False)
        if event.key is not None:
            name = (event.topic, event.key)
            old = self._latest.get(name)
            if old is not None and old.item is not None:
                self.bytes -= len(old.item)
                self.superseded += 1
                old.item = None
                if self._ordered and self._ordered[-1] is old:
                    self._ordered.pop()  # keeps emptied places from piling up behind a stalled reader
            self._latest[name] = slot
        self._ordered.append(slot)
        self.bytes += len(event)

    def keyed(self, event: Encoded) -> None:
        name = (event.topic, event.key or "")
        old = self._keyed.pop(name, None)
        if old is not None:
            self.keyed_bytes -= len(old)
            self.superseded += 1
        self._keyed[name] = event
        self.keyed_bytes += len(event)
        while len(self._keyed) > self._keyed_keys or (self.keyed_bytes > self._keyed_limit and len(self._keyed) > 1):
            _, dropped = self._keyed.popitem(last=False)
            self.keyed_bytes -= len(dropped)
            self.superseded += 1

    def drop_all(self) -> None:
        """The connection is being cut; only its goodbye will follow."""
        self._resume.clear()
        self._ordered.clear()
        self._latest.clear()
        self._keyed.clear()
        self.bytes = self.reply_bytes = self.keyed_bytes = 0

    def take(self, limit: int) -> list[bytes]:
        """Buffers for the next write, about `limit` bytes, at least one line if any waits."""
        out: list[bytes] = []
        size = 0
        while self._resume and size < limit:
            missed, counted = self._resume.popleft()
            size += len(missed)
            self.bytes -= len(missed) if counted else 0
            if isinstance(missed, bytes):
                self.reply_bytes -= len(missed)
                out.append(missed)
            else:
                self._emit(missed, out)
        while self._ordered and size < limit:
            slot = self._ordered.popleft()
            item = slot.item
            if item is None:
                continue
            slot.item = None
            self.bytes -= len(item)
            size += len(item)
            if isinstance(item, bytes):
                self.reply_bytes -= len(item)
                out.append(item)
            else:
                self._emit(item, out)
        while self._keyed and size < limit:
            _, event = self._keyed.popitem(last=False)
            self.keyed_bytes -= len(event)
            size += len(event)
            self._emit(event, out)
        return out

    def _emit(self, event: Encoded, out: list[bytes]) -> None:
        skipped = event.seq - self._last_seq.get(event.topic, event.seq - 1) - 1
        self._last_seq[event.topic] = event.seq
        out.append(event.head)
        if skipped > 0:
            out.append(b'"skipped":%d,' % skipped)
        out.append(event.tail)

    def __bool__(self) -> bool:
        return self.bytes > 0 or bool(self._keyed) or bool(self._resume)
