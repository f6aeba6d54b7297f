"""From any thread to the service thread: events and actions, in the one order in which they came.

In: `publish` and `post` from anywhere.  Out: `drain` on the service thread.
Always: neither call blocks on a client; seq and place in the queue belong together, so per topic the events come out
in the order of their seq, without a hole.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterator

from ionmd.service.schema import TOPICS
from ionmd.service.topics import Published

Action = Callable[[], None]


class Mailbox:
    """`wall_ns` dates the events."""

    def __init__(self, wall_ns: Callable[[], int]) -> None:
        self._wall_ns = wall_ns
        self._lock = threading.Lock()
        self._incoming: deque[Published | Action] = deque()
        self._woken = False
        self._seq = dict.fromkeys(TOPICS, 0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_mail: Action = lambda: None
        self.last_sample = 0

    def publish(self, topic: str, data: object, sample: int, n: int | None, key: str | None) -> int:
        """The event's seq.  Any thread."""
        unix_ns = self._wall_ns()
        with self._lock:
            seq = self._seq[topic] + 1
            self._seq[topic] = seq
            self.last_sample = sample
            self._incoming.append(Published(topic, seq, sample, n, key, unix_ns, data))
        self._wake()
        return seq

    def post(self, action: Action) -> None:
        """Run `action` on the service thread, in order with the events.  Any thread."""
        self._incoming.append(action)
        self._wake()

    def seq(self) -> dict[str, int]:
        """Newest seq of each topic.  Any thread."""
        with self._lock:
            return dict(self._seq)

    def open(self, loop: asyncio.AbstractEventLoop, on_mail: Action) -> None:
        """From now on `on_mail` is called on the loop when something came."""
        self._on_mail, self._loop = on_mail, loop

    def drain(self) -> Iterator[Published | Action]:
        """What has come, until nothing is left.  Service thread."""
        self._woken = False  # before emptying: whoever appends from here on wakes us again
        while self._incoming:
            yield self._incoming.popleft()

    def _wake(self) -> None:
        loop = self._loop
        if self._woken or loop is None:
            return
        self._woken = True
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to tell
            loop.call_soon_threadsafe(self._on_mail)
