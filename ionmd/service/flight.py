"""Buffers on their way into the kernel, in part perhaps.

In: buffers that were taken from an outbox.  Out: as much as the socket takes.  Always: bytes leave in order, once.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable

_IOV = 256


class Flight:
    """What is committed to be written: newer events can no longer replace it."""

    def __init__(self) -> None:
        self._views: list[memoryview] = []
        self.bytes = 0

    def load(self, buffers: Iterable[bytes | memoryview]) -> None:
        for buffer in buffers:
            view = memoryview(buffer)
            self._views.append(view)
            self.bytes += view.nbytes

    def send(self, sock: socket.socket) -> int:
        """Bytes that went; OSError as of sendmsg."""
        sent = went = sock.sendmsg(self._views[:_IOV])
        self.bytes -= went
        done = 0
        for view in self._views:
            if sent < view.nbytes:
                break
            sent -= view.nbytes
            done += 1
        del self._views[:done]
        if sent:
            self._views[0] = self._views[0][sent:]
        return went

    def clear(self) -> None:
        self._views.clear()
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._views)
