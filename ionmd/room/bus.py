"""The one way out of the room: a result is journalled, then published with its journal line number.

Neither call blocks.  `sample` is set by the pipeline to the first sample not yet processed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec


class Journal(Protocol):
    def __call__(
        self, kind: str, sample: int, data: object, on_durable: Callable[[int], None] | None = None
    ) -> int: ...


class Publish(Protocol):
    def __call__(self, topic: str, data: object, sample: int, n: int | None, key: str | None) -> None: ...


class Bus:
    """Journal and topics."""

    def __init__(self, journal: Journal, publish: Publish) -> None:
        self._journal = journal
        self._publish = publish
        self.sample = 0

    def journal(self, kind: str, data: object, on_durable: Callable[[int], None] | None = None) -> int:
        """A line that no subscriber needs to see."""
        return self._journal(kind, self.sample, data, on_durable)

    def emit(
        self, topic: str, data: object, *, kind: str | None = None, key: str | None = None,
        on_durable: Callable[[int], None] | None = None,
    ) -> int:
        """Journal as `kind` (the topic's name unless given) and publish on `topic`."""
        n = self._journal(kind or topic, self.sample, data, on_durable)
        self._publish(topic, data, self.sample, n, key)
        return n

    def show(self, topic: str, data: object, key: str | None = None) -> None:
        """Publish what needs no record (progress, metrics)."""
        self._publish(topic, data, self.sample, None, key)


def as_dict(value: object) -> dict[str, Any]:
    """A struct as plain JSON types."""
    found = msgspec.to_builtins(value)
    return found if isinstance(found, dict) else {"value": found}
