"""States of the record that somebody must know: told once when they begin and once when they end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import structlog

log = structlog.get_logger()


@dataclass(frozen=True)
class Trouble:
    """A state of the record that somebody must know: `code` disk_journal, disk_raw, disk_space, disk_manifest,
    raw_shed, raw_layout, raw_value."""

    code: str
    active: bool
    sentence: str
    detail: str = ""


class Troubles:
    """Those that hold now; `tell` may be called by every thread."""

    def __init__(self, listener: Callable[[Trouble], None] | None) -> None:
        self._listener = listener
        self._lock = threading.Lock()
        self._active: set[str] = set()

    def __contains__(self, code: str) -> bool:
        return code in self._active

    def names(self) -> tuple[str, ...]:
        with self._lock:
            return tuple(sorted(self._active))

    def tell(self, code: str, active: bool, sentence: str, detail: str = "") -> None:
        """Hand on a change of state; what is known already is not told again."""
        if active == (code in self._active):  # without the lock: every record of samples asks
            return
        with self._lock:
            if active == (code in self._active):
                return
            (self._active.add if active else self._active.remove)(code)
        (log.error if active else log.info)("record_trouble", code=code, active=active, detail=detail)
        if self._listener is not None:
            call(self._listener, Trouble(code, active, sentence, detail))


def call(listener: Callable[..., None], *args: object) -> None:
    """A listener's mistake must not stop the record."""
    try:
        listener(*args)
    except Exception:
        log.exception("recorder_callback_failed", callback=getattr(listener, "__qualname__", repr(listener)))
