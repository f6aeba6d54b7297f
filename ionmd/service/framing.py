"""Bytes as they arrive -> whole lines, waiting for their turn.

In: pieces of any length, cut anywhere.  Out: non-empty lines in order, without their newline.
Always: no line of MAX_LINE bytes or more is held, finished or not; `since` says how long an unfinished one has waited.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ionmd.service.schema import MAX_LINE


class TooLong(Exception):
    """A line beyond the limit; the text says what came and what is taken."""


class LineBuffer:
    """Lines of one connection.  `bytes` counts those that wait, `partial` the one under way."""

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()
        self.bytes = 0
        self.since: float | None = None
        self._partial = b""

    def feed(self, data: bytes, now: float) -> None:
        """Raises TooLong; what came before the long line is kept."""
        *lines, rest = (self._partial + data).split(b"\n") if self._partial else data.split(b"\n")
        if lines:
            self.since = None
        self._partial = rest
        for line in lines:
            if len(line) >= MAX_LINE:
                raise TooLong(f"a line of {len(line)} bytes came; at most {MAX_LINE} with its newline are taken")
            if line.strip(b" \t\r"):
                self.waiting.append(line)
                self.bytes += len(line)
        if len(rest) >= MAX_LINE:
            raise TooLong(f"{len(rest)} bytes came without a newline; a line has at most {MAX_LINE}")
        if rest and self.since is None:
            self.since = now

    def taken(self) -> None:
        """The first waiting line was dealt with."""
        if self.waiting:
            self.bytes -= len(self.waiting.popleft())

    def pull(self, wanted: Callable[[bytes], bool]) -> list[bytes]:
        """Remove the lines that may overtake, in order."""
        found = [line for line in self.waiting if wanted(line)]
        for line in found:
            self.waiting.remove(line)
            self.bytes -= len(line)
        return found

    def clear(self) -> None:
        self.waiting.clear()
        self.bytes = 0
        self._partial = b""
        self.since = None
