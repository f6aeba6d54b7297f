"""structlog to stderr: a constant event name, facts as keys.

JSON lines when stderr is not a terminal, else short coloured lines.  Control characters from outside
(labels, client names) are escaped, so nobody can forge a line or move the cursor.  At most RATE lines a
second of one event; the next one after that says in `suppressed_before` how many were left out.  Audit entries
and alarms are never limited.  No patient identifier is ever a key: nobody hands one in.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Callable, MutableMapping
from typing import Any, TextIO

import structlog

RATE = 20
UNLIMITED = ("audit", "alarm")  # event names that start so
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
Event = MutableMapping[str, Any]


def escape(text: str) -> str:
    """Control and direction characters as visible escapes."""
    return _CONTROL.sub(lambda m: f"\\x{ord(m[0]):02x}" if ord(m[0]) < 256 else f"\\u{ord(m[0]):04x}", text)


def _clean(value: object) -> object:
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, dict):
        return {escape(str(k)): _clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(v) for v in value]
    return value


def escape_event(_logger: Any, _method: str, event: Event) -> Event:
    """structlog processor."""
    return {escape(str(k)): _lines(v) if k == "exception" else _clean(v) for k, v in event.items()}


def _lines(traceback: object) -> str:
    """A traceback keeps its newlines; what its messages quote is escaped."""
    return "\n".join(escape(line) for line in str(traceback).split("\n"))


class RateLimit:
    """structlog processor: at most `rate` lines a second per event name, and a count of the rest.

    The count is the key `suppressed_before` of that event's first line in a later second."""

    def __init__(self, rate: int = RATE, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._windows: dict[str, tuple[float, int]] = {}  # event -> (start of its second, lines in it)

    def __call__(self, _logger: Any, _method: str, event: Event) -> Event:
        name = str(event.get("event", ""))
        if name.startswith(UNLIMITED):
            return event
        now = self._clock()
        with self._lock:
            start, lines = self._windows.get(name, (now, 0))
            if now - start >= 1.0:
                left_out = max(0, lines - self._rate)
                if left_out:
                    event["suppressed_before"] = left_out
                start, lines = now, 0
            self._windows[name] = (start, lines + 1)
            if len(self._windows) > 1000:  # names are constants; if one is not, memory still ends somewhere
                self._windows.clear()
        if lines >= self._rate:
            raise structlog.DropEvent
        return event


def setup_logging(level: str = "info", stream: TextIO | None = None, json: bool | None = None) -> None:
    """Configure structlog once, before the first line.

    json    None: JSON unless `stream` (stderr) is a terminal"""
    out = sys.stderr if stream is None else stream
    terminal = out.isatty()
    as_json = not terminal if json is None else json
    render: list[Any]
    if as_json:
        render = [structlog.processors.JSONRenderer(default=str)]
    else:
        render = [structlog.dev.ConsoleRenderer(colors=terminal)]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            RateLimit(),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            escape_event,
            *render,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
