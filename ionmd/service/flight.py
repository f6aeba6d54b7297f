"""Buffers on their way into the kernel, in part perhaps.

In: buffers that were taken from an outbox.  Out: as much as the socket takes.  Always: bytes leave in order, once.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

_IOV = 1024  # the kernel takes no more in one call


class Flight:
    """What is committed to be written: newer events can no longer replace it."""

    def __init__(self) -> None:
        self._parts: list[bytes | memoryview] = []  # of single bytes, none empty
        self.bytes = 0

    def load(self, buffers: Sequence[bytes | memoryview]) -> None:
        self._parts.extend(buffers)
        self.bytes += sum(map(len, buffers))

    def send(self, sock: socket.socket) -> int:
        """Bytes that went; OSError as of sendmsg."""
        parts = self._parts
        sent = went = sock.sendmsg(parts if len(parts) <= _IOV else parts[:_IOV])
        self.bytes -= went
        if not self.bytes:
            parts.clear()
            return went
        done = 0
        for part in parts:
            size = len(part)
            if sent < size:
                break
            sent -= size
            done += 1
        del parts[:done]
        if sent:
            parts[0] = memoryview(parts[0])[sent:]
        return went

    def clear(self) -> None:
        self._parts.clear()
        self.bytes = 0

    def __bool__(self) -> bool:
        return bool(self._parts)
