"""How long a client may leave things unread or unfinished: the deadlines of one connection.

In: what waits, and when bytes moved last.  Out: the reason to cut it, or nothing.
Always: an idle reader is not slow; patience starts with the data that waits.
"""

from __future__ import annotations

from ionmd.service.backend import Limits


class Patience:
    """`moved` is called whenever bytes went out, or began to wait."""

    def __init__(self, limits: Limits, now: float) -> None:
        self._limits = limits
        self._moved_at = now
        self._soft_since: float | None = None
        self._resume_since: float | None = None

    def moved(self, now: float) -> None:
        self._moved_at = now

    def drained(self) -> None:
        """Nothing waits any more."""
        self._soft_since = None

    def with_samples(self, now: float) -> str:
        """The reason to cut a reader of samples who has frames waiting."""
        limit = self._limits.stream_stall_s
        return f"no sample was read for {limit:g} s" if now - self._moved_at > limit else ""

    def with_line(self, now: float, since: float | None) -> str:
        """The reason to cut a client whose line has been unfinished `since`."""
        limit = self._limits.partial_line_s
        return f"a line was not finished within {limit:g} s" if since is not None and now - since > limit else ""

    def with_bytes(self, now: float, waiting: int) -> str:
        """The reason to cut a client for what waits unread: at once above the hard limit, later above the soft one."""
        limits = self._limits
        if waiting > limits.hard_bytes:
            return f"{waiting} bytes were not read; {limits.hard_bytes} may wait"
        if waiting <= limits.soft_bytes:
            self._soft_since = None
        elif self._soft_since is None:
            self._soft_since = now
        elif now - self._soft_since > limits.soft_s:
            return f"more than {limits.soft_bytes} bytes were not read for {limits.soft_s:g} s"
        return ""

    def with_resume(self, now: float, resuming: bool) -> str:
        """The reason to cut a client that does not read its resume, or not fast enough."""
        limits = self._limits
        if not resuming:
            self._resume_since = None
            return ""
        if self._resume_since is None:
            self._resume_since = now
        if now - self._moved_at <= limits.soft_s and now - self._resume_since <= limits.resume_s:
            return ""
        return (
            f"the events of a resume were not read ({limits.resume_s:g} s for all of them, {limits.soft_s:g} s without "
            "reading any); subscribe again from your last seq"
        )

    def with_replies(self, now: float, unread: int) -> str:
        """The reason to cut a client that asks and does not read; `unread` bytes of answers wait for the kernel."""
        limits = self._limits
        stuck = unread > limits.reply_pause_bytes and now - self._moved_at > limits.soft_s
        return f"replies were not read for {limits.soft_s:g} s" if stuck else ""
